//! [`PostgresAnchor`]: positions in `wasmill.position`, moved in the transaction of the rows.
//!
//! A flight is two round trips: one that carries BEGIN, `wasmill.advance` (whose row lock fences zombies),
//! every row and every dead letter; then, once the written-ahead sinks have acknowledged, COMMIT. It never
//! reports a commit that the server did not confirm, and never reuses a connection whose state it does not
//! know.
//!
//! Several lanes of a shard fly at once, each on a connection of its own out of a small pool: one shared
//! connection would make every lane wait for the written-ahead writes of the others.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::anchor::{Ahead, Anchor, Claim, CommitError, Epoch, Flight, Stored};
use crate::error::{Blame, Error, Result};

use super::catalog::{self, TableReport};
use super::connection::{self, Connection};
use super::failure;
use super::letters::Letters;
use super::plan::RoutePlan;
use super::pool::Pool;
use super::rows::{self, RouteParams};
use super::schema;
use super::settings::Settings;
use super::transaction::{Param, Request, Transaction};

/// How much longer than the server's own limit a reply may take.
const SLACK: Duration = Duration::from_secs(5);

/// Makes the rest of a transaction durable whatever the session and the server default to.
const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true) \
                       WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local')";

/// Takes partitions in one statement. Locks are taken in order of partition, so that two claimers wait for
/// each other one way round; the update then sees the newest version of every row.
const CLAIM: &str = "WITH mine AS MATERIALIZED (SELECT partition FROM wasmill.position \
       WHERE pipeline = $1::text AND topic = $2::text AND partition = ANY ($3::int4[]) \
       ORDER BY partition FOR UPDATE) \
     UPDATE wasmill.position AS held SET epoch = held.epoch + 1, claim_id = $4::uuid, updated_at = pg_catalog.now() \
     FROM mine WHERE held.pipeline = $1::text AND held.topic = $2::text AND held.partition = mine.partition \
     RETURNING held.partition, held.epoch, held.next, held.reserved, held.hlc, held.topic_id";

const STORED: &str = "SELECT partition, next, topic_id FROM wasmill.position \
     WHERE pipeline = $1::text AND topic = $2::text ORDER BY partition";

const SEED: &str = "INSERT INTO wasmill.position (pipeline, topic, partition, next, topic_id) \
     SELECT $1::text, $2::text, seed.* FROM unnest($3::int4[], $4::int8[], $5::text[]) AS seed \
     ON CONFLICT (pipeline, topic, partition) DO NOTHING";

/// The anchor of one pipeline and topic in a Postgres database.
#[derive(Debug)]
pub struct PostgresAnchor {
    settings: Settings,
    plans: Vec<RoutePlan>,
    pool: Pool,
}

impl PostgresAnchor {
    /// Checks the settings, connects once and makes sure that the schema `wasmill` is there. Runs on the
    /// tokio runtime that will use the anchor: connections are driven by it.
    ///
    /// # Errors
    /// `Config` for a url, a route, a login or a privilege somebody has to correct; `Outside` when the server
    /// cannot be reached.
    pub async fn open(settings: Settings) -> Result<Self> {
        let config = connection::configure(&settings)?;
        let plans = settings
            .routes
            .iter()
            .cloned()
            .map(RoutePlan::new)
            .collect::<Result<Vec<_>>>()?;
        let anchor = Self {
            pool: Pool::new(config, settings.connections),
            plans,
            settings,
        };
        let session = anchor.pool.session(&anchor.settings).await?;
        schema::ensure(&session.client).await?;
        Ok(anchor)
    }

    /// Compares every route with its table and creates missing tables where the route says so. Run at deploy,
    /// before the first flight; idempotent, also between hosts.
    ///
    /// # Errors
    /// `Config` with every problem of every table at once and, as the hint, the DDL that repairs them.
    pub async fn ensure_tables(&self) -> Result<Vec<TableReport>> {
        let session = self.pool.session(&self.settings).await?;
        catalog::ensure(&session.client, &self.plans).await
    }

    async fn read_stored(&self) -> Result<Vec<Stored>> {
        let lease = self.pool.lease(&self.settings).await?;
        let rows = within(
            "read positions from postgres",
            self.settings.timeouts.statement,
            lease
                .client
                .query(STORED, &[&self.settings.pipeline, &self.settings.topic]),
        )
        .await?;
        lease.release();
        let stored = rows.iter().map(|row| Stored {
            partition: row.get(0),
            next: row.get(1),
            topic_id: row.get(2),
        });
        Ok(stored.collect())
    }

    async fn store_seeds(&self, positions: &[Stored]) -> Result<()> {
        const WHAT: &str = "store first positions in postgres";
        let limit = self.settings.timeouts.statement;
        let partitions: Vec<i32> = positions.iter().map(|stored| stored.partition).collect();
        let nexts: Vec<i64> = positions.iter().map(|stored| stored.next).collect();
        let topics: Vec<Option<&str>> = positions
            .iter()
            .map(|stored| stored.topic_id.as_deref())
            .collect();
        let lease = self.pool.lease(&self.settings).await?;
        let client = &lease.client;
        let begin = format!("BEGIN; {DURABLE}");
        within(WHAT, limit, client.batch_execute(&begin)).await?;
        let (pipeline, topic) = (&self.settings.pipeline, &self.settings.topic);
        within(
            WHAT,
            limit,
            client.execute(SEED, &[pipeline, topic, &partitions, &nexts, &topics]),
        )
        .await?;
        within(WHAT, limit, client.batch_execute("COMMIT")).await?;
        lease.release();
        Ok(())
    }

    async fn take(&self, partitions: &[i32]) -> Result<Vec<Claim>> {
        let limit = self.settings.timeouts.claim;
        let lease = self.pool.lease(&self.settings).await?;
        let (id, rows) = self.take_rows(&lease.client, partitions).await?;
        let find = |partition: &i32| rows.iter().find(|row| row.get::<_, i32>(0) == *partition);
        let missing: Vec<String> = partitions
            .iter()
            .filter(|p| find(p).is_none())
            .map(ToString::to_string)
            .collect();
        if !missing.is_empty() {
            return Err(Error::config(
                format!("claim partitions of {}", self.settings.topic),
                format!(
                    "data loss stop: pipeline {:?} has no stored position for partition {} of topic {}",
                    self.settings.pipeline,
                    missing.join(", "),
                    self.settings.topic
                ),
            )
            .hint(
                "a deployed pipeline without a position never starts from a guess: restore the row in \
                 wasmill.position, or set it with `wasmill position set`",
            ));
        }
        within(
            "commit a claim in postgres",
            limit,
            lease.client.batch_execute("COMMIT"),
        )
        .await?;
        let claims = partitions.iter().filter_map(find).map(|row| Claim {
            partition: row.get(0),
            epoch: Epoch {
                number: row.get(1),
                id,
            },
            next: row.get(2),
            reserved: row.get(3),
            hlc: row.get(4),
            topic_id: row.get(5),
        });
        let claims = claims.collect();
        lease.release();
        Ok(claims)
    }

    /// Opens the transaction of a claim; its rows and the id it was made under.
    async fn take_rows(
        &self,
        client: &Client,
        partitions: &[i32],
    ) -> Result<(Uuid, Vec<tokio_postgres::Row>)> {
        const WHAT: &str = "claim partitions in postgres";
        let limit = self.settings.timeouts.claim;
        let millis = limit.as_millis();
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = {millis}; SET LOCAL statement_timeout = {millis}; {DURABLE}"
        );
        within(WHAT, limit, client.batch_execute(&begin)).await?;
        let id = Uuid::new_v4();
        let (pipeline, topic) = (&self.settings.pipeline, &self.settings.topic);
        let rows = tokio::time::timeout(
            limit + SLACK,
            client.query(CLAIM, &[pipeline, topic, &partitions, &id]),
        )
        .await;
        let waited = |detail: String| {
            Error::outside(
                WHAT,
                format!("{detail}; an earlier owner's transaction holds a position for {limit:?}"),
            )
            .hint("leave the group and claim again; look for a host that hangs")
        };
        match rows {
            Ok(Ok(rows)) => Ok((id, rows)),
            Ok(Err(error)) if matches!(failure::sqlstate(&error), Some("55P03" | "57014")) => {
                Err(waited(failure::detail(&error)))
            }
            Ok(Err(error)) => Err(failure::error(WHAT, &error)),
            Err(_) => Err(waited("no reply".to_owned())),
        }
    }

    async fn fly(&self, flight: Flight<'_>, ahead: Ahead<'_>) -> Result<(), CommitError> {
        let mut lease = self.pool.lease(&self.settings).await.map_err(not_begun)?;
        let mut routes = Vec::with_capacity(flight.rows.len());
        for here in flight.rows.iter().filter(|here| !here.rows.is_empty()) {
            let at = self.plan_of(here.route)?;
            lease
                .prepare_route(at, &self.plans[at])
                .await
                .map_err(not_begun)?;
            routes.push((at, here.rows));
        }
        let mut spare = std::mem::take(&mut lease.spare);
        let mut encoded = Vec::with_capacity(routes.len());
        for (at, rows) in routes {
            let statements = lease.routes[at].as_ref().expect("prepared above");
            match rows::encode(
                &self.plans[at],
                statements,
                rows,
                flight.batch.offsets(),
                &mut spare,
            ) {
                Ok(params) => encoded.push((at, params)),
                Err(error) => {
                    lease.release();
                    return Err(not_begun(error));
                }
            }
        }
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

    fn plan_of(&self, route: usize) -> Result<usize, CommitError> {
        self.plans
            .iter()
            .position(|plan| plan.route.index == route)
            .ok_or_else(|| {
                CommitError::Stop(Error::bug(
                    "write a flight to postgres",
                    format!("route {route} is not one of this anchor"),
                ))
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
        let begin = format!("BEGIN; SET LOCAL wasmill.flight = '{number}'");
        let letters = (!flight.dead.is_empty()).then(|| Letters::encode(flight.batch, flight.dead));
        let mut requests = vec![self.advance(connection, flight, &number)];
        for (at, params) in encoded {
            let statements = connection.routes[*at]
                .as_ref()
                .expect("prepared before it was encoded");
            if let (Some(statement), false) = (&statements.delete, params.delete.is_empty()) {
                requests.push(rows_request(
                    "delete rows from postgres",
                    statement,
                    &params.delete,
                    &number,
                ));
            }
            if !params.write.is_empty() {
                requests.push(rows_request(
                    "write rows to postgres",
                    &statements.write,
                    &params.write,
                    &number,
                ));
            }
        }
        if let Some(letters) = &letters {
            requests.push(self.set_aside(connection, flight, letters, &number));
        }
        let statement = self.settings.timeouts.statement;
        let (clean, error) =
            match Transaction::open(&connection.client, &begin, requests, statement).await {
                Err(poisoned) => poisoned.roll_back().await,
                Ok(transaction) => match ahead.await {
                    Err(error) => {
                        transaction
                            .poison(CommitError::Ahead(error))
                            .roll_back()
                            .await
                    }
                    Ok(()) => match transaction.commit().await {
                        Ok(()) => return (true, Ok(())),
                        Err(error) => (false, error),
                    },
                },
            };
        // After everything else the session itself is in doubt: read-only after a failover, stale plans.
        let keep = matches!(
            error,
            CommitError::Fenced(_) | CommitError::Refused(_) | CommitError::Ahead(_)
        );
        (clean && keep, Err(error))
    }

    fn advance<'a>(
        &'a self,
        connection: &'a Connection,
        flight: &Flight<'_>,
        number: &'a str,
    ) -> Request<'a> {
        Request {
            what: "advance the position in postgres",
            statement: &connection.advance,
            params: vec![
                Param::Text(number),
                Param::Text(&self.settings.pipeline),
                Param::Text(&self.settings.topic),
                Param::Int4(flight.claim.partition),
                Param::Int8(flight.claim.epoch.number),
                Param::Uuid(flight.claim.epoch.id),
                Param::Int8(flight.from),
                Param::Int8(flight.to),
                Param::Int8(flight.reserved),
                Param::Int8(flight.hlc),
                Param::Text(&self.settings.digest),
            ],
        }
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

    async fn raise_grant(
        &self,
        claim: &Claim,
        next: i64,
        reserved: i64,
    ) -> Result<(), CommitError> {
        const WHAT: &str = "raise a grant in postgres";
        let lease = self.pool.lease(&self.settings).await.map_err(not_begun)?;
        let limit = self.settings.timeouts.statement + SLACK;
        let begin = format!("BEGIN; {DURABLE}");
        let params = [
            Param::Text(&self.settings.pipeline),
            Param::Text(&self.settings.topic),
            Param::Int4(claim.partition),
            Param::Int8(claim.epoch.number),
            Param::Uuid(claim.epoch.id),
            Param::Int8(next),
            Param::Int8(reserved),
        ];
        let raised = tokio::time::timeout(limit, async {
            lease.client.batch_execute(&begin).await?;
            lease.client.execute_raw(&lease.reserve, params).await
        });
        let raised = match raised.await {
            Ok(Ok(raised)) => raised,
            Ok(Err(error)) => return Err(failure::before_commit(WHAT, &error)),
            Err(_) => {
                let error = Error::outside(WHAT, format!("no reply within {limit:?}"));
                return Err(CommitError::RolledBack(error));
            }
        };
        if raised == 0 {
            return Err(CommitError::Fenced(Error::outside(
                WHAT,
                format!(
                    "partition {} no longer stands at {next} under epoch {}",
                    claim.partition, claim.epoch.number
                ),
            )));
        }
        match tokio::time::timeout(limit, lease.client.batch_execute("COMMIT")).await {
            Ok(Ok(())) => {
                lease.release();
                Ok(())
            }
            Ok(Err(error)) => Err(failure::at_commit(&error)),
            Err(_) => Err(failure::unknown(format!("no reply within {limit:?}"))),
        }
    }
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
fn not_begun(error: Error) -> CommitError {
    match error.blame() {
        Blame::Outside => CommitError::RolledBack(error),
        Blame::Data => CommitError::Refused(error),
        Blame::Config | Blame::Plugin | Blame::Bug => CommitError::Stop(error),
    }
}

/// Waits for a reply, a little longer than the server's own limit.
async fn within<T>(
    what: &str,
    limit: Duration,
    reply: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(limit + SLACK, reply).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failure::error(what, &error)),
        Err(_) => Err(Error::outside(
            what,
            format!("no reply within {:?}", limit + SLACK),
        )),
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

    fn reserve<'a>(
        &'a self,
        claim: &'a Claim,
        next: i64,
        reserved: i64,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        Box::pin(self.raise_grant(claim, next, reserved))
    }

    /// Every commit stores its position: nothing is held back.
    fn settle<'a>(&'a self, _: &'a Claim) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
