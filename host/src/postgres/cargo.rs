//! [`Cargo`]: a flight in the form it is sent in, all its own: it may wait for a connection, and be carried by another
//! lane's turn, whatever becomes of the batch it was made of.

use std::rc::Rc;

use crate::anchor::{Epoch, Flight};

use super::anchor::row_requests;
use super::company::Load;
use super::connection::{Connection, RouteStatements};
use super::letters::Letters;
use super::names::literal;
use super::rows::RouteParams;
use super::settings::Settings;
use super::transaction::{Param, Request};

/// A flight as parameters of statements.
#[derive(Debug)]
pub(super) struct Cargo {
    partition: i32,
    epoch: Epoch,
    /// Position, grant and write time: `from`, `to`, `reserved`, `hlc`.
    moves: [i64; 4],
    ledger: [i64; 4],
    /// Rows by the index of their plan.
    rows: Vec<(usize, RouteParams)>,
    /// What they were encoded by, where that was another connection.
    by: Vec<Rc<RouteStatements>>,
    letters: Option<Letters>,
    bytes: usize,
}

impl Cargo {
    /// A flight whose rows are encoded already.
    pub(super) fn new(flight: &Flight<'_>, rows: Vec<(usize, RouteParams)>) -> Self {
        let letters = (!flight.dead.is_empty())
            .then(|| Letters::encode(flight.batch, flight.stamps, flight.dead));
        let bytes = rows.iter().map(|(_, params)| params.bytes()).sum::<usize>()
            + letters.as_ref().map_or(0, Letters::bytes);
        Self {
            partition: flight.claim.partition,
            epoch: flight.claim.epoch.clone(),
            moves: [flight.from, flight.to, flight.reserved, flight.hlc],
            ledger: flight.ledger.counts(),
            rows,
            by: Vec::new(),
            letters,
            bytes,
        }
    }

    /// The same, encoded by the statements of another connection, in the order of the rows.
    pub(super) fn encoded_by(self, by: Vec<Rc<RouteStatements>>) -> Self {
        Self { by, ..self }
    }

    /// Whether its rows of a plan fit the statements of the connection that takes it: a table may have changed since.
    pub(super) fn fits(&self, at: usize, statements: &Rc<RouteStatements>) -> bool {
        let rows = self.rows.iter().map(|(at, _)| *at);
        let mut by = rows.zip(&self.by).filter(|(of, _)| *of == at);
        by.all(|(_, by)| Rc::ptr_eq(by, statements) || by.takes_the_same(statements))
    }

    /// Which plans' statements it needs.
    pub(super) fn plans(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|(at, _)| *at)
    }

    /// Gives the buffers back.
    pub(super) fn recycle(self, spare: &mut Vec<Vec<u8>>) {
        for (_, params) in self.rows {
            params.recycle(spare);
        }
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
        into.extend(row_requests(connection, &self.rows, number));
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
