//! [`Cargo`]: a flight in the form it is sent in, all its own: it may wait for a connection, and be carried by another
//! lane's turn, whatever becomes of the batch it was made of.

use std::rc::Rc;

use crate::anchor::{Epoch, Flight};

use super::company::Load;
use super::connection::{Connection, RouteStatements};
use super::letters::Letters;
use super::names::literal;
use super::rows::RouteParams;
use super::settings::Settings;
use super::transaction::{Param, Request};

/// Rows of one plan as parameters, and the statements that they were encoded by.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Index of the plan.
    pub(super) at: usize,
    pub(super) by: Rc<RouteStatements>,
    pub(super) params: RouteParams,
}

impl Encoded {
    /// Whether the statements that the connection prepared take them: it may be another one, and the table changed.
    pub(super) fn fit(&self, connection: &Connection) -> bool {
        let own = connection.routes[self.at].as_ref();
        own.is_some_and(|own| Rc::ptr_eq(own, &self.by) || self.by.takes_the_same(own))
    }

    /// The requests that delete and write them, on a connection that they fit.
    pub(super) fn requests<'a>(
        &'a self,
        connection: &'a Connection,
        number: &'a str,
        into: &mut Vec<Request<'a>>,
    ) {
        let statements = connection.routes[self.at]
            .as_ref()
            .expect("prepared before it was encoded, or looked at");
        let delete = statements.delete.as_ref().map(|statement| {
            let what = "delete rows from postgres";
            (what, statement, &self.params.delete)
        });
        let write = (
            "write rows to postgres",
            &statements.write,
            &self.params.write,
        );
        for (what, statement, arrays) in delete.into_iter().chain([write]) {
            if !arrays.is_empty() {
                let params = arrays.iter().map(|array| Param::Binary(array));
                into.push(Request {
                    what,
                    statement,
                    params: params.chain([Param::Text(number)]).collect(),
                });
            }
        }
    }
}

/// A flight as parameters of statements.
#[derive(Debug)]
pub(super) struct Cargo {
    partition: i32,
    epoch: Epoch,
    /// Position, grant and write time: `from`, `to`, `reserved`, `hlc`.
    moves: [i64; 4],
    ledger: [i64; 4],
    rows: Vec<Encoded>,
    letters: Option<Letters>,
    bytes: usize,
}

impl Cargo {
    /// A flight whose rows are encoded already.
    pub(super) fn new(flight: &Flight<'_>, rows: Vec<Encoded>) -> Self {
        let letters = (!flight.dead.is_empty())
            .then(|| Letters::encode(flight.batch, flight.stamps, flight.dead));
        let bytes = rows.iter().map(|rows| rows.params.bytes()).sum::<usize>()
            + letters.as_ref().map_or(0, Letters::bytes);
        Self {
            partition: flight.claim.partition,
            epoch: flight.claim.epoch.clone(),
            moves: [flight.from, flight.to, flight.reserved, flight.hlc],
            ledger: flight.ledger.counts(),
            rows,
            letters,
            bytes,
        }
    }

    /// Its rows by their routes.
    pub(super) fn rows(&self) -> &[Encoded] {
        &self.rows
    }

    /// Its buffers, for reuse.
    pub(super) fn into_buffers(self) -> impl Iterator<Item = Vec<u8>> {
        let params = self.rows.into_iter().map(|rows| rows.params);
        params.flat_map(RouteParams::into_buffers)
    }

    /// What opens the transaction of these flights: with the positions in the same request as BEGIN, a flight of few
    /// rows costs hardly more than its rows alone. SAVEPOINT is refused where BEGIN opened nothing; else the moves would
    /// commit by themselves.
    pub(super) fn begin(flights: &[Self], settings: &Settings, number: &str) -> String {
        let mut begin = format!(
            "BEGIN; SET LOCAL wasmill.flight = '{number}'; SAVEPOINT flight; RELEASE flight"
        );
        for cargo in flights {
            begin += &cargo.advance(settings, number);
        }
        begin
    }

    /// Its rows and dead letters, in the transaction of this number.
    pub(super) fn requests<'a>(
        &'a self,
        settings: &'a Settings,
        connection: &'a Connection,
        number: &'a str,
        into: &mut Vec<Request<'a>>,
    ) {
        for rows in &self.rows {
            rows.requests(connection, number, into);
        }
        if let Some(letters) = &self.letters {
            into.push(self.set_aside(settings, connection, letters, number));
        }
    }

    /// The move of its position, as SQL for the request that begins the transaction of this number.
    fn advance(&self, settings: &Settings, number: &str) -> String {
        let [from, to, reserved, hlc] = self.moves;
        let [records, emitted, filtered, dead] = self.ledger;
        format!(
            "; SELECT wasmill.advance('{number}', {}, {}, {}, '{}', '{}', '{from}', '{to}', '{reserved}', '{hlc}', {}, \
             '{records}', '{emitted}', '{filtered}', '{dead}')",
            literal(&settings.pipeline),
            literal(&settings.topic),
            self.partition,
            self.epoch.number,
            self.epoch.id,
            literal(&settings.digest),
        )
    }

    fn set_aside<'a>(
        &'a self,
        settings: &'a Settings,
        connection: &'a Connection,
        letters: &'a Letters,
        number: &'a str,
    ) -> Request<'a> {
        let mut params = vec![
            Param::Text(&settings.pipeline),
            Param::Text(&settings.topic),
            Param::Int4(self.partition),
            Param::Text(&settings.plugin),
            Param::Text(&settings.digest),
        ];
        params.extend(letters.params());
        params.push(Param::Text(number));
        Request {
            what: "store dead letters in postgres",
            statement: &connection.letters,
            params,
        }
    }
}

impl Load for Cargo {
    fn partition(&self) -> i32 {
        self.partition
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}
