//! The anchor's tables and the statements on positions.
//!
//! A position is a partition of its own, `(pipeline, topic, partition)`: LWTs on one partition key take
//! turns, and lanes must not wait for each other. Which partitions a pipeline has is therefore kept beside,
//! in one partition `(pipeline, topic)` written by one batch after all positions: a seed that was cut off
//! shows nothing, and is simply repeated.
//!
//! It owns no lane and decides nothing. Every condition names epoch number, epoch id and position (delivery
//! rule 1); every read is SERIAL, which also finishes what a lost request began.

use scylla::response::query_result::QueryRowsResult;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, Row};

use super::lane::Mark;
use super::retry;
use super::session::CassandraSession;
use super::{catalog, failure};
use crate::anchor::{Cut, Epoch, Ledger, Pin, Stored, cuts};
use crate::error::{Error, Result};

/// Name of the table of positions in the session's keyspace.
pub const POSITION_TABLE: &str = "wasmill_position";
/// Name of the table of a pipeline's partitions.
pub const PARTITION_TABLE: &str = "wasmill_partition";

/// Consistency of the list of partitions: whoever reads it afterwards sees it, in any datacenter.
const LIST: Consistency = Consistency::Quorum;
/// Consistency of the learn phase of an LWT; the condition itself is SERIAL by the session's profile.
const LEARN: Consistency = Consistency::Quorum;

/// What to do about a position that is lost.
pub(super) const RESTORE: &str =
    "restore its row, or give the pipeline a new name: nothing was skipped";

/// A position as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) epoch: Epoch,
    pub(super) mark: Mark,
    pub(super) cuts: Vec<Cut>,
    pub(super) topic_id: Option<String>,
}

/// Statements on the positions of one pipeline and topic.
#[derive(Debug)]
pub(super) struct Positions {
    session: CassandraSession,
    pipeline: String,
    topic: String,
    read: PreparedStatement,
    seed: PreparedStatement,
    claim: PreparedStatement,
    advance: PreparedStatement,
    pin: PreparedStatement,
    list: PreparedStatement,
    enlist: PreparedStatement,
}

/// Creates the anchor's tables where they are missing.
pub(super) async fn create_tables(session: &CassandraSession) -> Result<()> {
    let keyspace = super::identifier::keyspace(session.keyspace())?;
    let position = format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.{POSITION_TABLE} (pipeline text, topic text, \
         \"partition\" int, epoch_number bigint, epoch_id uuid, next bigint, reserved bigint, hlc bigint, \
         cuts text, plugin text, topic_id text, records bigint, emitted bigint, filtered bigint, dead bigint, PRIMARY KEY ((pipeline, topic, \"partition\"))) \
         WITH comment = 'wasmill: positions, changed by LWT only'"
    );
    let partition = format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.{PARTITION_TABLE} (pipeline text, topic text, \
         \"partition\" int, PRIMARY KEY ((pipeline, topic), \"partition\")) \
         WITH comment = 'wasmill: the partitions that have a position'"
    );
    catalog::create_table(session, POSITION_TABLE, &position).await?;
    // tables that version 0.1 made have no cuts and no ledger
    catalog::add_column(session, POSITION_TABLE, "cuts", "text").await?;
    for column in ["records", "emitted", "filtered", "dead"] {
        catalog::add_column(session, POSITION_TABLE, column, "bigint").await?;
    }
    catalog::create_table(session, PARTITION_TABLE, &partition).await
}

impl Positions {
    /// Prepares the statements; the tables exist.
    pub(super) async fn open(
        session: &CassandraSession,
        pipeline: &str,
        topic: &str,
    ) -> Result<Self> {
        let keyspace = super::identifier::keyspace(session.keyspace())?;
        let position = format!("{keyspace}.{POSITION_TABLE}");
        let partition = format!("{keyspace}.{PARTITION_TABLE}");
        let of = "WHERE pipeline = ? AND topic = ? AND \"partition\" = ?";
        let mine = "IF epoch_number = ? AND epoch_id = ?";
        let prepare = async |text: String, consistency| session.prepare(&text, consistency).await;
        Ok(Self {
            read: prepare(
                format!(
                    "SELECT epoch_number, epoch_id, next, reserved, hlc, cuts, topic_id, records, \
                     emitted, filtered, dead FROM {position} {of}"
                ),
                Consistency::Serial,
            )
            .await?,
            seed: prepare(
                format!(
                    "INSERT INTO {position} (pipeline, topic, \"partition\", epoch_number, epoch_id, \
                     next, reserved, hlc, cuts, topic_id) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?) IF NOT EXISTS"
                ),
                LEARN,
            )
            .await?,
            claim: prepare(
                format!(
                    "UPDATE {position} SET epoch_number = ?, epoch_id = ?, plugin = ? {of} {mine}"
                ),
                LEARN,
            )
            .await?,
            advance: prepare(
                format!(
                    "UPDATE {position} SET next = ?, reserved = ?, hlc = ?, records = ?, emitted = ?, \
                     filtered = ?, dead = ? {of} {mine} AND next = ?"
                ),
                LEARN,
            )
            .await?,
            pin: prepare(
                format!("UPDATE {position} SET reserved = ?, cuts = ? {of} {mine} AND next = ?"),
                LEARN,
            )
            .await?,
            list: prepare(
                format!(
                    "SELECT \"partition\" FROM {partition} WHERE pipeline = ? AND topic = ?"
                ),
                LIST,
            )
            .await?,
            enlist: prepare(
                format!(
                    "INSERT INTO {partition} (pipeline, topic, \"partition\") VALUES (?, ?, ?)"
                ),
                LIST,
            )
            .await?,
            session: session.clone(),
            pipeline: pipeline.to_owned(),
            topic: topic.to_owned(),
        })
    }

    /// What a person sees first of an error about a partition.
    pub(super) fn what(&self, verb: &str, partition: i32) -> String {
        format!(
            "{verb} the position of pipeline {:?}, {}/{partition}, in cassandra",
            self.pipeline, self.topic
        )
    }

    /// The position of a partition, `None` when there is none; repeated until it is known.
    pub(super) async fn read(&self, partition: i32) -> Result<Option<Position>> {
        let what = self.what("read", partition);
        let values = (&self.pipeline, &self.topic, partition);
        let rows = self.session.execute(&what, &self.read, values).await?;
        let bug = |error: &dyn std::fmt::Display| Error::bug(&what, error);
        let Some(rows) = rows else { return Ok(None) };
        let row = rows.maybe_first_row::<StoredRow>();
        let Some(row) = row.map_err(|error| bug(&error))? else {
            return Ok(None);
        };
        let (number, id, next, reserved, hlc, cuts, topic_id, records, emitted, filtered, dead) =
            row;
        let (Some(number), Some(id), Some(next), Some(reserved), Some(hlc)) =
            (number, id, next, reserved, hlc)
        else {
            // cells that somebody deleted; or a TRUNCATE, which can leave those that an LWT wrote at that moment
            let detail = "DATA LOSS: its row is not whole, epoch or position is null";
            return Err(Error::config(&what, detail).hint(RESTORE));
        };
        let counts = [records, emitted, filtered, dead].map(Option::unwrap_or_default);
        let ledger = Ledger::stored(partition, counts)?;
        let cuts = match cuts {
            None => Vec::new(),
            Some(text) => cuts::decode(&text).map_err(|detail| {
                Error::config(&what, detail).hint(format!(
                    "which release processes which offset is not known: restore column cuts of this row in \
                     {POSITION_TABLE} (by LWT), or upgrade this host if a newer one wrote it"
                ))
            })?,
        };
        Ok(Some(Position {
            epoch: Epoch { number, id },
            mark: Mark {
                next,
                reserved,
                hlc,
                ledger,
            },
            cuts,
            topic_id,
        }))
    }

    /// Stores a first position whose records are written after `hlc`; one that is there stays.
    pub(super) async fn seed(&self, seed: &Stored, hlc: i64) -> Result<()> {
        let what = self.what("seed", seed.partition);
        let values = (
            &self.pipeline,
            &self.topic,
            seed.partition,
            uuid::Uuid::nil(),
            seed.next,
            seed.next,
            hlc,
            listed(&seed.cuts),
            &seed.topic_id,
        );
        // repeated after a lost reply it finds its own row, and keeps it
        self.session
            .execute(&what, &self.seed, values)
            .await
            .map(drop)
    }

    /// Lists partitions as seeded: all of them or none.
    pub(super) async fn enlist(&self, partitions: &[i32]) -> Result<()> {
        let what = format!(
            "list the partitions of pipeline {:?} in cassandra",
            self.pipeline
        );
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        batch.set_consistency(LIST);
        let mut values = Vec::with_capacity(partitions.len());
        for partition in partitions {
            batch.append_statement(self.enlist.clone());
            values.push((&self.pipeline, &self.topic, *partition));
        }
        retry::until(
            self.session.presence(),
            self.session.deadline(),
            async || {
                let sent = Box::pin(self.session.driver().batch(&batch, &values)).await;
                sent.map(drop)
                    .map_err(|error| failure::explain(&what, &error))
            },
        )
        .await
    }

    /// The partitions that were seeded, ascending.
    pub(super) async fn listed(&self) -> Result<Vec<i32>> {
        let what = format!(
            "read the partitions of pipeline {:?} from cassandra",
            self.pipeline
        );
        let values = (&self.pipeline, &self.topic);
        let Some(rows) = self.session.execute(&what, &self.list, values).await? else {
            return Ok(Vec::new());
        };
        let rows = rows
            .rows::<(i32,)>()
            .map_err(|error| Error::bug(&what, error))?;
        rows.map(|row| {
            row.map(|row| row.0)
                .map_err(|error| Error::bug(&what, error))
        })
        .collect()
    }

    /// Puts `new` in the place of the epoch `old`. Sent once; whether it was applied is only known from a
    /// read afterwards, so the answer is not returned.
    ///
    /// # Errors
    /// `Config` for a refusal; that no answer came is no error here.
    pub(super) async fn claim(
        &self,
        partition: i32,
        old: &Epoch,
        new: &Epoch,
        plugin: &str,
    ) -> Result<()> {
        let values = (
            new.number,
            new.id,
            plugin,
            &self.pipeline,
            &self.topic,
            partition,
            old.number,
            old.id,
        );
        let sent = self
            .session
            .once(&self.what("claim", partition), &self.claim, &values)
            .await;
        match sent {
            Err(error) if error.blame() != crate::error::Blame::Outside => Err(error),
            _ => Ok(()),
        }
    }

    /// Changes a position from `from` to `to` under an epoch, once. `Ok(false)`: the condition did not hold.
    ///
    /// # Errors
    /// `Outside` when the outcome is not known, `Config` for a refusal.
    pub(super) async fn advance(
        &self,
        partition: i32,
        epoch: &Epoch,
        from: Mark,
        to: Mark,
    ) -> Result<bool> {
        let what = self.what("advance", partition);
        let [records, emitted, filtered, dead] = to.ledger.counts();
        let values = (
            to.next,
            to.reserved,
            to.hlc,
            records,
            emitted,
            filtered,
            dead,
            &self.pipeline,
            &self.topic,
            partition,
            epoch.number,
            epoch.id,
            from.next,
        );
        let rows = self.session.once(&what, &self.advance, &values).await?;
        applied(rows).map_err(|error| Error::bug(&what, error))
    }

    /// Stores a grant and cuts at a position under an epoch, once. `Ok(false)`: the condition did not hold.
    ///
    /// # Errors
    /// `Outside` when the outcome is not known, `Config` for a refusal.
    pub(super) async fn pin(
        &self,
        partition: i32,
        epoch: &Epoch,
        next: i64,
        pin: Pin<'_>,
    ) -> Result<bool> {
        let what = self.what("pin", partition);
        let values = (
            pin.reserved,
            listed(pin.cuts),
            &self.pipeline,
            &self.topic,
            partition,
            epoch.number,
            epoch.id,
            next,
        );
        let rows = self.session.once(&what, &self.pin, &values).await?;
        applied(rows).map_err(|error| Error::bug(&what, error))
    }
}

/// A row of positions: epoch number and id, next, reserved, hlc, cuts, topic id, the ledger's four counts.
type StoredRow = (
    Option<i64>,
    Option<uuid::Uuid>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

/// Cuts as they are stored; none as null.
fn listed(cuts: &[Cut]) -> Option<String> {
    (!cuts.is_empty()).then(|| cuts::encode(cuts))
}

/// The first column of an LWT's answer, `[applied]`.
fn applied(rows: Option<QueryRowsResult>) -> Result<bool, String> {
    let rows = rows.ok_or("an LWT without an answer")?;
    let row = rows.first_row::<Row>().map_err(|error| error.to_string())?;
    match row.columns.first() {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        other => Err(format!("an LWT answered {other:?}")),
    }
}
