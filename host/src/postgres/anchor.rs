//! [`PostgresAnchor`]: positions in `wasmill.position`, moved in the transaction of the rows.
//!
//! A flight is one round trip that carries BEGIN, `wasmill.advance` (whose row lock fences zombies), every row, every
//! dead letter and COMMIT. Where other sinks are written ahead it is two: COMMIT is sent once they have acknowledged. It
//! never reports a commit that the server did not confirm, and never reuses a connection whose state it does not
//! know.
//!
//! Several lanes of a shard fly at once, each on a connection of its own out of a small pool: one shared
//! connection would make every lane wait for the written-ahead writes of the others.

use futures_util::future::LocalBoxFuture;

use crate::anchor::{Ahead, Anchor, Claim, CommitError, Flight, HereRows, Pin, Stored};
use crate::error::{Blame, Error, Result};
use crate::record::Batch;

use super::connection::{self, Connection};
use super::letters::Letters;
use super::names::literal;
use super::plan::RoutePlan;
use super::pool::Pool;
use super::rows::{self, RouteParams};
use super::settings::Settings;
use super::transaction::{self, Param, Request, Transaction};

/// The anchor of one pipeline and topic in a Postgres database.
#[derive(Debug)]
pub struct PostgresAnchor {
    pub(super) settings: Settings,
    pub(super) plans: Vec<RoutePlan>,
    pub(super) pool: Pool,
}

impl PostgresAnchor {
    /// Checks the settings. Connects when something is asked of it, on the runtime of whoever asks; the schema and
    /// the tables have to be there by then ([`super::Tables::ensure`]).
    ///
    /// # Errors
    /// `Config` for a url or a route somebody has to correct.
    pub fn new(settings: Settings) -> Result<Self> {
        let config = connection::configure(&settings)?;
        let plans = RoutePlan::all(&settings.routes)?;
        Ok(Self {
            pool: Pool::new(config, settings.connections),
            plans,
            settings,
        })
    }

    async fn fly(&self, flight: Flight<'_>, ahead: Ahead<'_>) -> Result<(), CommitError> {
        let mut lease = self.pool.lease(&self.settings).await.map_err(not_begun)?;
        let mut spare = std::mem::take(&mut lease.spare);
        let encoded = self.encode(&mut lease, flight.rows, flight.batch, &mut spare);
        let encoded = match encoded.await {
            Ok(encoded) => encoded,
            Err(error) => {
                if error.blame() == Blame::Data {
                    lease.release();
                }
                return Err(not_begun(error));
            }
        };
        lease.flights += 1;
        let (clean, outcome) = self.transact(&lease, &flight, &encoded, ahead).await;
        if clean {
            for (_, params) in encoded {
                params.recycle(&mut spare);
            }
            lease.spare = spare;
            lease.release();
        }
        outcome
    }

    /// Rows as parameters of statements that the connection has prepared, by the index of their plan.
    pub(super) async fn encode(
        &self,
        connection: &mut Connection,
        rows: &[HereRows<'_>],
        batch: &Batch,
        spare: &mut Vec<Vec<u8>>,
    ) -> Result<Vec<(usize, RouteParams)>> {
        let mut encoded = Vec::with_capacity(rows.len());
        for here in rows.iter().filter(|here| !here.rows.is_empty()) {
            let at = self.plan_of(here.route)?;
            let plan = &self.plans[at];
            connection.prepare_route(at, plan).await?;
            let statements = connection.routes[at].as_ref().expect("prepared above");
            let params = rows::encode(plan, statements, here.rows, batch, spare)?;
            encoded.push((at, params));
        }
        Ok(encoded)
    }

    fn plan_of(&self, route: usize) -> Result<usize> {
        let plan = self.plans.iter().position(|plan| plan.route.index == route);
        plan.ok_or_else(|| {
            Error::bug(
                "write a flight to postgres",
                format!("route {route} is not one of this anchor"),
            )
        })
    }

    /// Runs the transaction of a flight; whether its connection is fit for the next one, and the outcome.
    async fn transact(
        &self,
        connection: &Connection,
        flight: &Flight<'_>,
        encoded: &[(usize, RouteParams)],
        ahead: Ahead<'_>,
    ) -> (bool, Result<(), CommitError>) {
        let number = connection.flights.to_string();
        let begin = self.begin(flight, &number);
        let letters = (!flight.dead.is_empty())
            .then(|| Letters::encode(flight.batch, flight.stamps, flight.dead));
        let mut requests = row_requests(connection, encoded, &number);
        if let Some(letters) = &letters {
            requests.push(self.set_aside(connection, flight, letters, &number));
        }
        let statement = self.settings.timeouts.statement;
        let client = &connection.client;
        let (clean, outcome) = if ahead.is_nothing() {
            transaction::commit(client, &begin, requests, statement).await
        } else {
            match Transaction::open(client, &begin, requests, statement).await {
                Err(poisoned) => {
                    let (clean, error) = poisoned.roll_back().await;
                    (clean, Err(error))
                }
                Ok(open) => match ahead.await {
                    Err(error) => {
                        let poisoned = open.poison(CommitError::Ahead(error));
                        let (clean, error) = poisoned.roll_back().await;
                        (clean, Err(error))
                    }
                    Ok(()) => {
                        let committed = open.commit().await;
                        (committed.is_ok(), committed)
                    }
                },
            }
        };
        // After everything else the session itself is in doubt: read-only after a failover, stale plans.
        let keep = matches!(
            outcome,
            Ok(()) | Err(CommitError::Fenced(_) | CommitError::Refused(_) | CommitError::Ahead(_))
        );
        (clean && keep, outcome)
    }

    /// What opens a flight: with the position in the same request as BEGIN, a flight of few rows costs hardly more than
    /// its rows alone. SAVEPOINT is refused where BEGIN opened nothing; else the move would commit by itself.
    fn begin(&self, flight: &Flight<'_>, number: &str) -> String {
        let claim = flight.claim;
        let [records, emitted, filtered, dead] = flight.ledger.counts();
        format!(
            "BEGIN; SET LOCAL wasmill.flight = '{number}'; SAVEPOINT flight; RELEASE flight; \
             SELECT wasmill.advance('{number}', {}, {}, {}, '{}', '{}', '{}', '{}', '{}', '{}', {}, \
             '{records}', '{emitted}', '{filtered}', '{dead}')",
            literal(&self.settings.pipeline),
            literal(&self.settings.topic),
            claim.partition,
            claim.epoch.number,
            claim.epoch.id,
            flight.from,
            flight.to,
            flight.reserved,
            flight.hlc,
            literal(&self.settings.digest),
        )
    }

    fn set_aside<'a>(
        &'a self,
        connection: &'a Connection,
        flight: &Flight<'_>,
        letters: &'a Letters,
        number: &'a str,
    ) -> Request<'a> {
        let mut params = vec![
            Param::Text(&self.settings.pipeline),
            Param::Text(&self.settings.topic),
            Param::Int4(flight.claim.partition),
            Param::Text(&self.settings.plugin),
            Param::Text(&self.settings.digest),
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

/// The requests that delete and write encoded rows.
pub(super) fn row_requests<'a>(
    connection: &'a Connection,
    encoded: &'a [(usize, RouteParams)],
    number: &'a str,
) -> Vec<Request<'a>> {
    let mut requests = Vec::new();
    for (at, params) in encoded {
        let statements = connection.routes[*at]
            .as_ref()
            .expect("prepared before it was encoded");
        if let (Some(statement), false) = (&statements.delete, params.delete.is_empty()) {
            requests.push(rows_request(
                "delete rows from postgres",
                statement,
                &params.delete,
                number,
            ));
        }
        if !params.write.is_empty() {
            requests.push(rows_request(
                "write rows to postgres",
                &statements.write,
                &params.write,
                number,
            ));
        }
    }
    requests
}

/// A request that carries arrays and the flight's number.
fn rows_request<'a>(
    what: &'a str,
    statement: &'a tokio_postgres::Statement,
    arrays: &'a [Vec<u8>],
    number: &'a str,
) -> Request<'a> {
    let mut params: Vec<Param<'a>> = arrays.iter().map(|array| Param::Binary(array)).collect();
    params.push(Param::Text(number));
    Request {
        what,
        statement,
        params,
    }
}

/// A failure before anything of the flight was sent.
pub(super) fn not_begun(error: Error) -> CommitError {
    match error.blame() {
        Blame::Outside => CommitError::RolledBack(error),
        Blame::Data => CommitError::Refused(error),
        Blame::Config | Blame::Plugin | Blame::Bug => CommitError::Stop(error),
    }
}

impl Anchor for PostgresAnchor {
    fn stored(&self) -> LocalBoxFuture<'_, Result<Vec<Stored>, Error>> {
        Box::pin(self.read_stored())
    }

    fn seed<'a>(&'a self, positions: &'a [Stored]) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(self.store_seeds(positions))
    }

    fn claim<'a>(&'a self, partitions: &'a [i32]) -> LocalBoxFuture<'a, Result<Vec<Claim>, Error>> {
        Box::pin(self.take(partitions))
    }

    fn commit<'a>(
        &'a self,
        flight: Flight<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        Box::pin(self.fly(flight, ahead))
    }

    fn pin<'a>(
        &'a self,
        claim: &'a Claim,
        next: i64,
        pin: Pin<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        Box::pin(self.store_pin(claim, next, pin))
    }

    /// Every commit stores its position: nothing is held back.
    fn settle<'a>(&'a self, _: &'a Claim) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
