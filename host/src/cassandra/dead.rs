//! Dead letters in Cassandra: written ahead of the position, at the write time of their record.
//!
//! A replay writes the same letter at the same time again. A record below the reservation found at the claim
//! may have been set aside by an earlier owner whose verdict hung on its clock (`timestamp-ahead`): where it
//! is not set aside now, its letter is deleted, one microsecond after it was or would have been written
//! (delivery §3). Nothing is read: a letter still on the wire must lose as well.

use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::SerializeRow;
use scylla::serialize::row::SerializeRow as Row;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;

use super::group::group;
use super::session::CassandraSession;
use super::{catalog, failure, retry};
use crate::anchor::{Flight, Letter};
use crate::clock::now_micros;
use crate::error::{Error, Result};

/// Name of the table of dead letters in the session's keyspace.
pub const DEAD_LETTER_TABLE: &str = "wasmill_dead_letter";

/// Greatest size of key, value and headers kept together, bytes; above it the parts are null and the record
/// is found by its coordinates (`value_size` tells that there was one).
const MAX_KEPT: usize = 1 << 20;
/// Requests in flight.
const IN_FLIGHT: usize = 16;

/// Creates the table where it is missing.
pub(super) async fn create_table(session: &CassandraSession) -> Result<()> {
    let keyspace = super::identifier::keyspace(session.keyspace())?;
    let ddl = format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.{DEAD_LETTER_TABLE} (pipeline text, topic text, \
         \"partition\" int, \"offset\" bigint, \"index\" int, class text, code text, reason text, \
         \"key\" blob, \"value\" blob, headers blob, value_size bigint, record_time timestamp, plugin text, \
         stamp bigint, digest text, created_at timestamp, null_key boolean, truncated boolean, PRIMARY KEY ((pipeline, topic, \"partition\"), \"offset\", \"index\")) \
         WITH comment = 'wasmill: records set aside, with their bytes and the reason'"
    );
    catalog::create_table(session, DEAD_LETTER_TABLE, &ddl).await?;
    // tables of earlier versions
    for (column, ty) in [
        ("digest", "text"),
        ("created_at", "timestamp"),
        ("null_key", "boolean"),
        ("truncated", "boolean"),
    ] {
        catalog::add_column(session, DEAD_LETTER_TABLE, column, ty).await?;
    }
    Ok(())
}

/// The values of a letter's insert, in the order of its markers.
#[derive(Debug, SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct Inserted<'a> {
    pipeline: &'a str,
    topic: &'a str,
    partition: i32,
    offset: i64,
    class: &'a str,
    code: &'a str,
    reason: &'a str,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Option<&'a [u8]>,
    value_size: Option<i64>,
    record_time: Option<CqlTimestamp>,
    plugin: &'a str,
    stamp: i64,
    digest: &'a str,
    created_at: CqlTimestamp,
    null_key: bool,
    truncated: bool,
    written_at: i64,
}

/// Writes the dead letters of one pipeline and topic.
#[derive(Debug)]
pub(super) struct DeadLetters {
    session: CassandraSession,
    pipeline: String,
    topic: String,
    plugin: String,
    digest: String,
    insert: PreparedStatement,
    delete: PreparedStatement,
    pub(super) list: PreparedStatement,
}

impl DeadLetters {
    /// Prepares the statements; the table exists.
    pub(super) async fn open(
        session: &CassandraSession,
        pipeline: &str,
        topic: &str,
        [plugin, digest]: [&str; 2],
    ) -> Result<Self> {
        let table = format!(
            "{}.{DEAD_LETTER_TABLE}",
            super::identifier::keyspace(session.keyspace())?
        );
        let insert = format!(
            "INSERT INTO {table} (pipeline, topic, \"partition\", \"offset\", \"index\", class, code, reason, \
             \"key\", \"value\", headers, value_size, record_time, plugin, stamp, digest, created_at, null_key, truncated) \
             VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let delete = format!(
            "DELETE FROM {table} USING TIMESTAMP ? WHERE pipeline = ? AND topic = ? AND \"partition\" = ? \
             AND \"offset\" = ? AND \"index\" = 0"
        );
        let list = format!(
            "SELECT \"offset\", \"index\", class, code, reason, plugin, digest, created_at, stamp, \"key\", \"value\", \
             headers, value_size, truncated, null_key, record_time FROM {table} \
             WHERE pipeline = ? AND topic = ? AND \"partition\" = ? AND (\"offset\", \"index\") > (?, ?) \
             AND (\"offset\", \"index\") < (?, ?) LIMIT ?"
        );
        Ok(Self {
            list: session.prepare(&list, Consistency::LocalQuorum).await?,
            insert: session.prepare(&insert, Consistency::LocalQuorum).await?,
            delete: session.prepare(&delete, Consistency::LocalQuorum).await?,
            session: session.clone(),
            pipeline: pipeline.to_owned(),
            topic: topic.to_owned(),
            plugin: plugin.to_owned(),
            digest: digest.to_owned(),
        })
    }

    /// Writes the letters of a flight and withdraws those that no longer hold.
    ///
    /// # Errors
    /// `Outside` when Cassandra did not acknowledge them in time, `Config` when it refuses them.
    pub(super) async fn write(&self, flight: &Flight<'_>) -> Result<()> {
        let what = format!(
            "write dead letters of pipeline {:?}, {}/{}, to cassandra",
            self.pipeline, self.topic, flight.claim.partition
        );
        if flight.stamps.len() < flight.batch.len() {
            return Err(Error::bug(what, "a record without a write time"));
        }
        self.insert_letters(&what, flight).await?;
        self.withdraw(&what, flight).await
    }

    async fn insert_letters(&self, what: &str, flight: &Flight<'_>) -> Result<()> {
        let mut letters = Vec::with_capacity(flight.dead.len());
        // Of two writes at one time the later of these wins, whoever sent it: it decides nothing.
        let now = CqlTimestamp(now_micros() / 1000);
        for letter in flight.dead {
            let record = flight.batch.record(letter.source as usize);
            let stamp = flight.stamps[letter.source as usize];
            let [key, value, headers] = kept(record.key, record.value, record.headers);
            let bytes = [key, value, headers]
                .iter()
                .flatten()
                .map(|part| part.len())
                .sum::<usize>();
            let size = record
                .value
                .map(|value| i64::try_from(value.len()).unwrap_or(i64::MAX));
            let left_out = |part: Option<&[u8]>, kept: Option<&[u8]>| {
                part.is_some_and(|part| !part.is_empty()) && kept.is_none()
            };
            let truncated = left_out(record.key, key)
                || left_out(record.value, value)
                || left_out(Some(record.headers), headers);
            let values = Inserted {
                pipeline: &self.pipeline,
                topic: &self.topic,
                partition: flight.claim.partition,
                offset: record.offset,
                class: letter.class.as_str(),
                code: &letter.code,
                reason: &letter.reason,
                key,
                value,
                headers,
                value_size: size,
                record_time: (record.timestamp >= 0).then_some(CqlTimestamp(record.timestamp)),
                plugin: &self.plugin,
                stamp,
                digest: &self.digest,
                created_at: now,
                null_key: record.key.is_none(),
                truncated,
                written_at: stamp,
            };
            letters.push((&b""[..], bytes, values));
        }
        self.send(what, &self.insert, group(letters.into_iter()))
            .await
    }

    async fn withdraw(&self, what: &str, flight: &Flight<'_>) -> Result<()> {
        let offsets = flight.batch.offsets();
        let index = |offset: i64| offsets.partition_point(|other| *other < offset);
        let doubtful = index(flight.from)..index(flight.to.min(flight.claim.reserved));
        let mut set_aside = vec![false; offsets.len()];
        for letter in flight.dead {
            set_aside[letter.source as usize] = true;
        }
        let gone = doubtful.filter(|record| !set_aside[*record]).map(|record| {
            let stamp = flight.stamps[record] + 1;
            let values = self.deletion(stamp, flight.claim.partition, offsets[record]);
            (&b""[..], 1, values)
        });
        self.send(what, &self.delete, group(gone)).await
    }

    fn deletion(
        &self,
        stamp: i64,
        partition: i32,
        offset: i64,
    ) -> (i64, &String, &String, i32, i64) {
        (stamp, &self.pipeline, &self.topic, partition, offset)
    }

    /// Removes letters that lie below the position: nobody writes them again.
    ///
    /// # Errors
    /// As [`DeadLetters::write`].
    pub(super) async fn remove(&self, letters: &[Letter]) -> Result<()> {
        let what = format!("remove dead letters of pipeline {:?}", self.pipeline);
        // A batch is of one partition key.
        for letters in letters.chunk_by(|one, next| one.at.partition == next.at.partition) {
            let gone = letters.iter().map(|letter| {
                let stamp = letter.stamp.unwrap_or_default() + 1;
                let values = self.deletion(stamp, letter.at.partition, letter.at.offset);
                (&b""[..], 1, values)
            });
            self.send(&what, &self.delete, group(gone)).await?;
        }
        Ok(())
    }

    async fn send<T: Row>(
        &self,
        what: &str,
        statement: &PreparedStatement,
        groups: Vec<Vec<T>>,
    ) -> Result<()> {
        let deadline = self.session.deadline();
        let send = async |rows: Vec<T>| {
            let mut batch = Batch::new(BatchType::Unlogged);
            batch.set_is_idempotent(true);
            batch.set_consistency(Consistency::LocalQuorum);
            for _ in &rows {
                batch.append_statement(statement.clone());
            }
            retry::until(self.session.presence(), deadline, async || {
                let sent = Box::pin(self.session.driver().batch(&batch, &rows)).await;
                sent.map(drop)
                    .map_err(|error| failure::explain(what, &error))
            })
            .await
        };
        stream::iter(groups)
            .map(send)
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await
    }
}

/// What of a record's bytes is kept: all of it, or by and by less when it is too large.
fn kept<'a>(
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [u8],
) -> [Option<&'a [u8]>; 3] {
    let mut room = MAX_KEPT;
    let headers = (!headers.is_empty()).then_some(headers);
    [key, value, headers].map(|part| {
        let part = part.filter(|part| part.len() <= room)?;
        room -= part.len();
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_parts_are_left_out() {
        let large = vec![0; MAX_KEPT];
        assert_eq!(
            kept(Some(b"k"), Some(b""), b"h"),
            [Some(&b"k"[..]), Some(b""), Some(b"h")]
        );
        assert_eq!(kept(None, None, b""), [None, None, None]);
        assert_eq!(
            kept(Some(b"k"), Some(&large), b"h"),
            [Some(&b"k"[..]), None, Some(b"h")]
        );
    }
}
