//! Positions outside a flight: read, seeded, claimed, their grants and cuts pinned. The rest of [`PostgresAnchor`];
//! a flight's own advance is in `anchor`.

use std::time::Duration;

use tokio_postgres::Client;
use uuid::Uuid;

use crate::anchor::{Claim, CommitError, Cut, Epoch, Ledger, Pin, Stored, cuts};
use crate::error::{Error, Result};

use super::anchor::{PostgresAnchor, not_begun};
use super::failure;
use super::transaction::Param;

/// How much longer than the server's own limit a reply may take.
const SLACK: Duration = Duration::from_secs(5);

/// Makes the rest of a transaction durable whatever the session and the server default to.
pub(super) const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true) \
                       WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local')";

/// Takes partitions in one statement. Locks are taken in order of partition, so that two claimers wait for
/// each other one way round; the update then sees the newest version of every row.
const CLAIM: &str = "WITH mine AS MATERIALIZED (SELECT partition FROM wasmill.position \
       WHERE pipeline = $1::text AND topic = $2::text AND partition = ANY ($3::int4[]) \
       ORDER BY partition FOR UPDATE) \
     UPDATE wasmill.position AS held SET epoch = held.epoch + 1, claim_id = $4::uuid, updated_at = pg_catalog.now() \
     FROM mine WHERE held.pipeline = $1::text AND held.topic = $2::text AND held.partition = mine.partition \
     RETURNING held.partition, held.epoch, held.next, held.reserved, held.hlc, held.topic_id, held.cuts::text, \
     held.records, held.emitted, held.filtered, held.dead";

const STORED: &str = "SELECT partition, next, topic_id, cuts::text FROM wasmill.position \
     WHERE pipeline = $1::text AND topic = $2::text ORDER BY partition";

const SEED: &str = "INSERT INTO wasmill.position (pipeline, topic, partition, next, topic_id, cuts) \
     SELECT $1::text, $2::text, seed.partition, seed.next, seed.topic_id, seed.cuts::jsonb \
     FROM unnest($3::int4[], $4::int8[], $5::text[], $6::text[]) AS seed (partition, next, topic_id, cuts) \
     ON CONFLICT (pipeline, topic, partition) DO NOTHING";

impl PostgresAnchor {
    pub(super) async fn read_stored(&self) -> Result<Vec<Stored>> {
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
        let stored = rows.iter().map(|row| {
            let partition = row.get(0);
            Ok(Stored {
                partition,
                next: row.get(1),
                cuts: self.cuts(partition, row.get(3))?,
                topic_id: row.get(2),
            })
        });
        stored.collect()
    }

    /// The cuts of a row; `Config`, naming it, where somebody wrote what is none.
    fn cuts(&self, partition: i32, text: &str) -> Result<Vec<Cut>> {
        cuts::decode(text).map_err(|detail| {
            Error::config(
                format!(
                    "read the position of pipeline {:?}, {}/{partition}, in postgres",
                    self.settings.pipeline, self.settings.topic
                ),
                detail,
            )
            .hint(
                "which release processes which offset is not known: restore column cuts of this row in \
                 wasmill.position, or upgrade this host if a newer one wrote it",
            )
        })
    }

    pub(super) async fn store_seeds(&self, positions: &[Stored]) -> Result<()> {
        const WHAT: &str = "store first positions in postgres";
        let limit = self.settings.timeouts.statement;
        let lease = self.pool.lease(&self.settings).await?;
        let client = &lease.client;
        let begin = format!("BEGIN; {DURABLE}");
        within(WHAT, limit, client.batch_execute(&begin)).await?;
        self.seed_rows(client, positions).await?;
        within(WHAT, limit, client.batch_execute("COMMIT")).await?;
        lease.release();
        Ok(())
    }

    /// Stores positions where there are none, inside a transaction of the caller's.
    pub(super) async fn seed_rows(&self, client: &Client, positions: &[Stored]) -> Result<()> {
        let limit = self.settings.timeouts.statement;
        let partitions: Vec<i32> = positions.iter().map(|stored| stored.partition).collect();
        let nexts: Vec<i64> = positions.iter().map(|stored| stored.next).collect();
        let topics: Vec<Option<&str>> = positions
            .iter()
            .map(|stored| stored.topic_id.as_deref())
            .collect();
        let cuts: Vec<String> = positions
            .iter()
            .map(|stored| cuts::encode(&stored.cuts))
            .collect();
        let (pipeline, topic) = (&self.settings.pipeline, &self.settings.topic);
        within(
            "store first positions in postgres",
            limit,
            client.execute(
                SEED,
                &[pipeline, topic, &partitions, &nexts, &topics, &cuts],
            ),
        )
        .await
        .map(drop)
    }

    pub(super) async fn take(&self, partitions: &[i32]) -> Result<Vec<Claim>> {
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
                "was the partition added to the topic? then restart the host: it is read from offset 0. If not, the \
                 position was lost, and a pipeline never starts from a guess: restore the row in wasmill.position",
            ));
        }
        // before the claim is committed: one that cannot be used must not take the partition from anyone
        let claims = partitions.iter().filter_map(find).map(|row| {
            let partition = row.get(0);
            Ok(Claim {
                partition,
                epoch: Epoch {
                    number: row.get(1),
                    id,
                },
                next: row.get(2),
                reserved: row.get(3),
                hlc: row.get(4),
                ledger: Ledger::stored(
                    partition,
                    [row.get(7), row.get(8), row.get(9), row.get(10)],
                )?,
                cuts: self.cuts(partition, row.get(6))?,
                topic_id: row.get(5),
            })
        });
        let claims = claims.collect::<Result<Vec<Claim>>>()?;
        within(
            "commit a claim in postgres",
            limit,
            lease.client.batch_execute("COMMIT"),
        )
        .await?;
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

    /// Stores a grant and cuts exactly, durably, in a transaction of its own.
    pub(super) async fn store_pin(
        &self,
        claim: &Claim,
        next: i64,
        pin: Pin<'_>,
    ) -> Result<(), CommitError> {
        const WHAT: &str = "pin grant and cuts in postgres";
        let lease = self.pool.lease(&self.settings).await.map_err(not_begun)?;
        let limit = self.settings.timeouts.statement + SLACK;
        let begin = format!("BEGIN; {DURABLE}");
        let cuts = cuts::encode(pin.cuts);
        let params = [
            Param::Text(&self.settings.pipeline),
            Param::Text(&self.settings.topic),
            Param::Int4(claim.partition),
            Param::Int8(claim.epoch.number),
            Param::Uuid(claim.epoch.id),
            Param::Int8(next),
            Param::Int8(pin.reserved),
            Param::Text(&cuts),
        ];
        let pinned = tokio::time::timeout(limit, async {
            lease.client.batch_execute(&begin).await?;
            lease.client.execute_raw(&lease.pin, params).await
        });
        let pinned = match pinned.await {
            Ok(Ok(pinned)) => pinned,
            Ok(Err(error)) => return Err(failure::before_commit(WHAT, &error)),
            Err(_) => {
                let error = Error::outside(WHAT, format!("no reply within {limit:?}"));
                return Err(CommitError::RolledBack(error));
            }
        };
        if pinned == 0 {
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

/// Waits for a reply, a little longer than the server's own limit.
pub(super) async fn within<T>(
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
