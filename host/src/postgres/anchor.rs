//! [`PostgresAnchor`]: positions in `wasmill.position`, moved in the transaction of the rows.
//!
//! A flight is one round trip that carries BEGIN, `wasmill.advance` (whose row lock fences zombies), every row, every
//! dead letter and COMMIT. Where other sinks are written ahead it is two: COMMIT is sent once they have acknowledged. It
//! never reports a commit that the server did not confirm, and never reuses a connection whose state it does not
//! know.
//!
//! Several lanes of a shard fly at once, each on a connection of its own out of a small pool: one shared
//! connection would make every lane wait for the written-ahead writes of the others. Where nothing is written ahead,
//! those that wait for a connection share a transaction ([`Company`]).

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use crate::anchor::{Ahead, Anchor, Claim, CommitError, Flight, HereRows, Pin, Stored};
use crate::error::{Blame, Error, Result};
use crate::record::Batch;

use super::cargo::{Cargo, Encoded};
use super::company::{Carrier, Company, Fate, MOST_BYTES};
use super::connection::{self, Connection, RouteStatements};
use super::plan::RoutePlan;
use super::pool::{self, Lease, Pool};
use super::rows;
use super::settings::Settings;
use super::spare::Spare;
use super::transaction::{self, Transaction};

/// The anchor of one pipeline and topic in a Postgres database.
#[derive(Debug)]
pub struct PostgresAnchor {
    pub(super) settings: Settings,
    pub(super) plans: Vec<RoutePlan>,
    pub(super) pool: Pool,
    /// Whether flights share transactions. Not where a key comes from several partitions (a guard says so): rows are
    /// sorted by key within a flight, so two flights wait for each other one way round; two lots of flights would not.
    pub(super) shares: bool,
    company: Company<Cargo>,
    /// By plan: statements as some connection prepared them last, to encode by before there is a connection.
    known: RefCell<Vec<Option<Rc<RouteStatements>>>>,
    pub(super) spare: RefCell<Spare>,
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
            shares: plans.iter().all(|plan| plan.route.guard.is_none()),
            company: Company::default(),
            known: RefCell::new(plans.iter().map(|_| None).collect()),
            spare: RefCell::default(),
            plans,
            settings,
        })
    }

    /// A flight in a transaction of its own.
    async fn fly(&self, flight: Flight<'_>, ahead: Ahead<'_>) -> Result<(), CommitError> {
        let mut lease = self.pool.lease(&self.settings).await.map_err(not_begun)?;
        let encoded = self.encode(&mut lease, flight.rows, flight.batch).await;
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                if error.blame() == Blame::Data {
                    lease.release();
                }
                return Err(not_begun(error));
            }
        };
        let cargo = [Cargo::new(&flight, encoded)];
        let outcome = self.transact(lease, &cargo, ahead).await;
        self.unload(cargo.into());
        outcome
    }

    /// A flight together with those of other lanes that wait; `None`: it has to fly alone.
    async fn fly_together(&self, flight: &Flight<'_>) -> Option<Result<(), CommitError>> {
        if !self.company.takes(flight.claim.partition) {
            return None;
        }
        let fate = self.company.fly(&self, self.load(flight)?).await;
        match fate {
            Fate::Known(outcome) => Some(outcome),
            Fate::Alone => None,
        }
    }

    /// A flight made ready before there is a connection for it; `None` where it is not fit for company: it is large, or
    /// something of it has to be looked at alone.
    fn load(&self, flight: &Flight<'_>) -> Option<Cargo> {
        let rows: usize = flight.rows.iter().map(|here| here.rows.bytes()).sum();
        let dead = flight.dead.iter().map(|dead| {
            let record = flight.batch.record(dead.source as usize);
            record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)
        });
        if rows + dead.sum::<usize>() > MOST_BYTES {
            return None;
        }
        let encoded = self.encode_by(&self.known.borrow(), flight.rows, flight.batch);
        Some(Cargo::new(flight, encoded.ok()?))
    }

    /// Rows as parameters of statements of the connection.
    pub(super) async fn encode(
        &self,
        connection: &mut Connection,
        rows: &[HereRows<'_>],
        batch: &Batch,
    ) -> Result<Vec<Encoded>> {
        for here in rows.iter().filter(|here| !here.rows.is_empty()) {
            self.prepare(connection, self.plan_of(here.route)?).await?;
        }
        self.encode_by(&connection.routes, rows, batch)
    }

    /// Rows as parameters of these statements, which are there by plan.
    fn encode_by(
        &self,
        statements: &[Option<Rc<RouteStatements>>],
        rows: &[HereRows<'_>],
        batch: &Batch,
    ) -> Result<Vec<Encoded>> {
        let mut encoded = Vec::with_capacity(rows.len());
        for here in rows.iter().filter(|here| !here.rows.is_empty()) {
            let at = self.plan_of(here.route)?;
            let by = statements[at].as_ref().ok_or_else(|| {
                let detail = format!("route {} is not prepared", here.route);
                Error::bug("write a flight to postgres", detail)
            })?;
            let mut spare = self.spare.borrow_mut();
            let params = rows::encode(&self.plans[at], by, here.rows, batch, &mut spare)?;
            encoded.push(Encoded {
                at,
                by: Rc::clone(by),
                params,
            });
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

    /// Prepares what a plan needs where the connection has not yet.
    async fn prepare(&self, connection: &mut Connection, at: usize) -> Result<()> {
        if connection.routes[at].is_none() {
            let preparing = connection.prepare_route(at, &self.plans[at]);
            let statements = pool::in_time(&self.settings, preparing).await?;
            self.known.borrow_mut()[at] = Some(statements);
        }
        Ok(())
    }

    /// Runs the transaction of flights whose statements are prepared, and its outcome.
    async fn transact(
        &self,
        mut lease: Lease<'_>,
        flights: &[Cargo],
        ahead: Ahead<'_>,
    ) -> Result<(), CommitError> {
        lease.flights += 1;
        let number = lease.flights.to_string();
        let begin = Cargo::begin(flights, &self.settings, &number);
        let mut requests = Vec::with_capacity(flights.len() * 2);
        for cargo in flights {
            cargo.requests(&self.settings, &lease, &number, &mut requests);
        }
        let statement = self.settings.timeouts.statement;
        let client = &lease.client;
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
        if clean && keep {
            lease.release();
        }
        outcome
    }
}

impl<'a> Carrier for &'a PostgresAnchor {
    type Lease = Lease<'a>;
    type Cargo = Cargo;

    async fn lease(&self) -> Result<Lease<'a>, CommitError> {
        self.pool.lease(&self.settings).await.map_err(not_begun)
    }

    async fn carry(&self, mut lease: Lease<'a>, flights: &[Cargo]) -> Result<(), CommitError> {
        for rows in flights.iter().flat_map(Cargo::rows) {
            let prepared = self.prepare(&mut lease, rows.at).await;
            prepared.map_err(not_begun)?;
            if !rows.fit(&lease) {
                let detail = "its table is another than when the flight was made ready";
                return Err(not_begun(Error::outside("write to postgres", detail)));
            }
        }
        self.transact(lease, flights, Ahead::nothing()).await
    }

    fn unload(&self, flights: Vec<Cargo>) {
        let mut spare = self.spare.borrow_mut();
        for cargo in flights {
            spare.give(cargo.into_buffers());
        }
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
        Box::pin(async move {
            if self.shares
                && ahead.is_nothing()
                && let Some(outcome) = self.fly_together(&flight).await
            {
                return outcome;
            }
            let outcome = self.fly(flight, ahead).await;
            if outcome.is_err() {
                self.company.set_apart(flight.claim.partition);
            }
            outcome
        })
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
