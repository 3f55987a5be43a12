//! Dead letters in Cassandra: written ahead of the position, at the write time of their record.
//!
//! A replay writes the same letter at the same time again. A record below the reservation found at the claim
//! may have been set aside by an earlier owner whose verdict hung on its clock (`timestamp-ahead`): where it
//! is not set aside now, its letter is deleted, one microsecond after it was or would have been written
//! (delivery §3). Nothing is read: a letter still on the wire must lose as well.

use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;

use super::group::group;
use super::session::CassandraSession;
use super::{catalog, failure, retry};
use crate::anchor::Flight;
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
         stamp bigint, PRIMARY KEY ((pipeline, topic, \"partition\"), \"offset\", \"index\")) \
         WITH comment = 'wasmill: records set aside, with their bytes and the reason'"
    );
    catalog::create_table(session, DEAD_LETTER_TABLE, &ddl).await
}

/// Writes the dead letters of one pipeline and topic.
#[derive(Debug)]
pub(super) struct DeadLetters {
    session: CassandraSession,
    pipeline: String,
    topic: String,
    plugin: String,
    insert: PreparedStatement,
    delete: PreparedStatement,
}

impl DeadLetters {
    /// Prepares the statements; the table exists.
    pub(super) async fn open(
        session: &CassandraSession,
        pipeline: &str,
        topic: &str,
        plugin: &str,
    ) -> Result<Self> {
        let table = format!(
            "{}.{DEAD_LETTER_TABLE}",
            super::identifier::keyspace(session.keyspace())?
        );
        let insert = format!(
            "INSERT INTO {table} (pipeline, topic, \"partition\", \"offset\", \"index\", class, code, reason, \
             \"key\", \"value\", headers, value_size, record_time, plugin, stamp) \
             VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let delete = format!(
            "DELETE FROM {table} USING TIMESTAMP ? WHERE pipeline = ? AND topic = ? AND \"partition\" = ? \
             AND \"offset\" = ? AND \"index\" = 0"
        );
        Ok(Self {
            insert: session.prepare(&insert, Consistency::LocalQuorum).await?,
            delete: session.prepare(&delete, Consistency::LocalQuorum).await?,
            session: session.clone(),
            pipeline: pipeline.to_owned(),
            topic: topic.to_owned(),
            plugin: plugin.to_owned(),
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
            let values = (
                &self.pipeline,
                &self.topic,
                flight.claim.partition,
                record.offset,
                letter.class.as_str(),
                letter.code.as_ref(),
                &letter.reason,
                key,
                value,
                headers,
                size,
                (record.timestamp >= 0).then_some(CqlTimestamp(record.timestamp)),
                &self.plugin,
                stamp,
                stamp,
            );
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
            let values = (
                flight.stamps[record] + 1,
                &self.pipeline,
                &self.topic,
                flight.claim.partition,
                offsets[record],
            );
            (&b""[..], 1, values)
        });
        self.send(what, &self.delete, group(gone)).await
    }

    async fn send<T: SerializeRow>(
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
            retry::until(deadline, async || {
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
