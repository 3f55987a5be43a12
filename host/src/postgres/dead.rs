//! Dead letters in `wasmill.dead_letter`, for people: [`PostgresAnchor`] as [`DeadLetters`]. How flights write them is
//! in `letters`.
//!
//! A retry is one transaction: count, removal and rows, in the order in which flights take their locks (the position
//! first), so that neither waits for the other in a circle. Of two retries of one letter the second waits for the
//! first's position row and then finds no letter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::LocalBoxFuture;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::anchor::{
    Ahead, Becomes, CommitError, Coordinates, DeadLetters, Letter, LetterFilter, LetterPage,
    LetterRetry, Part,
};
use crate::error::{Error, Result};
use crate::route::DeadLetter;

use super::anchor::{PostgresAnchor, not_begun};
use super::failure;
use super::letters::clean;
use super::positions::{DURABLE, within};
use super::transaction::{Param, Request, Transaction};

/// Microseconds from 1970-01-01 to 2000-01-01, where the server's calendar begins.
const EPOCH: i64 = 946_684_800_000_000;

/// Counts a retried record, unless it was set aside before the ledger began; nothing where it lies at or above the
/// position. `$5`: the flight's number, `$6`: 1 where the plugin made no row of it, else 0.
const COUNT: &str = "UPDATE wasmill.position SET retried = least(retried + 1, dead), \
     retried_filtered = retried_filtered + least($6::int8, dead - retried) \
     WHERE pipeline = $1::text AND topic = $2::text AND partition = $3::int4 AND next > $4::int8 \
     AND pg_catalog.current_setting('wasmill.flight', true) = $5::text";

/// Takes exactly the letter that was read. `$7`: the flight's number.
const TAKE: &str = "DELETE FROM wasmill.dead_letter \
     WHERE pipeline = $1::text AND topic = $2::text AND partition = $3::int4 AND \"offset\" = $4::int8 \
     AND index = $5::int4 AND created_at = $6::timestamptz \
     AND pg_catalog.current_setting('wasmill.flight', true) = $7::text";

/// By whom it was begun stays: rows may be out that only that release may finish.
const KEEP: &str = "UPDATE wasmill.dead_letter SET class = $7::text, code = $8::text, reason = $9::text, \
     plugin = $10::text, digest = $11::text, retried_at = pg_catalog.now() \
     WHERE pipeline = $1::text AND topic = $2::text AND partition = $3::int4 AND \"offset\" = $4::int8 \
     AND index = $5::int4 AND created_at = $6::timestamptz";

/// `$7`: the release.
const BEGIN: &str = "UPDATE wasmill.dead_letter SET begun = $7::text \
     WHERE pipeline = $1::text AND topic = $2::text AND partition = $3::int4 AND \"offset\" = $4::int8 \
     AND index = $5::int4 AND created_at = $6::timestamptz AND (begun IS NULL OR begun = $7::text)";

const REMOVE: &str = "DELETE FROM wasmill.dead_letter AS letter \
     USING unnest($3::int4[], $4::int8[], $5::int4[]) AS gone (partition, \"offset\", index) \
     WHERE letter.pipeline = $1::text AND letter.topic = $2::text AND letter.partition = gone.partition \
     AND letter.\"offset\" = gone.\"offset\" AND letter.index = gone.index AND letter.begun IS NULL";

/// The question for letters, with only the conditions that are asked for: then the primary key answers it.
struct Question<'a> {
    sql: String,
    params: Vec<Box<dyn ToSql + Sync + 'a>>,
}

impl<'a> Question<'a> {
    fn new(pipeline: &'a str, topic: &'a str, filter: &'a LetterFilter, page: LetterPage) -> Self {
        let mut question = Self {
            sql: String::new(),
            params: Vec::new(),
        };
        let bytes = i32::try_from(page.bytes).unwrap_or(i32::MAX);
        let bytes = question.param(bytes);
        question.sql = format!(
            "SELECT partition, \"offset\", index, class, code, reason, plugin, digest, created_at, retried_at, stamp, \
             null_key, substring(key FROM 1 FOR {bytes}::int4), octet_length(key), \
             null_value, substring(value FROM 1 FOR {bytes}::int4), octet_length(value), \
             CASE WHEN octet_length(headers) <= {bytes}::int4 THEN headers END, truncated, record_timestamp, begun \
             FROM wasmill.dead_letter AS letter"
        );
        let (pipeline, topic) = (question.param(pipeline), question.param(topic));
        question.sql += &format!(" WHERE pipeline = {pipeline}::text AND topic = {topic}::text");
        question.and("partition = ", "int4", filter.partition);
        question.and("\"offset\" >= ", "int8", filter.from);
        question.and("\"offset\" < ", "int8", filter.to);
        question.and("index = ", "int4", filter.index);
        question.and("class = ", "text", filter.class.as_deref());
        question.and("code = ", "text", filter.code.as_deref());
        question.and("plugin = ", "text", filter.plugin.as_deref());
        question.and("digest = ", "text", filter.digest.as_deref());
        question.and("created_at >= ", "timestamptz", filter.since.map(time));
        question.and("created_at < ", "timestamptz", filter.until.map(time));
        if let Some(after) = page.after {
            let after = [
                question.param(after.partition),
                question.param(after.offset),
                question.param(after.index),
            ];
            question.sql += &format!(
                " AND (partition, \"offset\", index) > ({}::int4, {}::int8, {}::int4)",
                after[0], after[1], after[2]
            );
        }
        // One above the position was set aside before somebody lowered it: it is decided anew.
        question.sql += " AND EXISTS (SELECT FROM wasmill.position AS held WHERE held.pipeline = letter.pipeline \
             AND held.topic = letter.topic AND held.partition = letter.partition AND held.next > letter.\"offset\")";
        let most = question.param(i64::from(page.most.max(1)));
        question.sql += &format!(" ORDER BY partition, \"offset\", index LIMIT {most}::int8");
        question
    }

    /// Adds a parameter; its name.
    fn param(&mut self, value: impl ToSql + Sync + 'a) -> String {
        self.params.push(Box::new(value));
        format!("${}", self.params.len())
    }

    fn and(&mut self, condition: &str, ty: &str, value: Option<impl ToSql + Sync + 'a>) {
        if let Some(value) = value {
            let name = self.param(value);
            self.sql += &format!(" AND {condition}{name}::{ty}");
        }
    }
}

impl PostgresAnchor {
    async fn find(&self, filter: &LetterFilter, page: LetterPage) -> Result<Vec<Letter>> {
        let (pipeline, topic) = (&self.settings.pipeline, &self.settings.topic);
        let question = Question::new(pipeline, topic, filter, page);
        let params: Vec<&(dyn ToSql + Sync)> =
            question.params.iter().map(|param| &**param as _).collect();
        let lease = self.pool.lease(&self.settings).await?;
        let rows = within(
            "read dead letters from postgres",
            self.settings.timeouts.statement,
            lease.client.query(&question.sql, &params),
        )
        .await?;
        lease.release();
        Ok(rows.iter().map(letter).collect())
    }

    async fn delete(&self, letters: &[Letter]) -> Result<u64> {
        const WHAT: &str = "remove dead letters from postgres";
        let limit = self.settings.timeouts.statement;
        let partitions: Vec<i32> = letters.iter().map(|letter| letter.at.partition).collect();
        let offsets: Vec<i64> = letters.iter().map(|letter| letter.at.offset).collect();
        let indices: Vec<i32> = letters.iter().map(|letter| letter.at.index).collect();
        let (pipeline, topic) = (&self.settings.pipeline, &self.settings.topic);
        let lease = self.pool.lease(&self.settings).await?;
        let client = &lease.client;
        let begin = format!("BEGIN; {DURABLE}");
        within(WHAT, limit, client.batch_execute(&begin)).await?;
        let params: [&(dyn ToSql + Sync); 5] = [pipeline, topic, &partitions, &offsets, &indices];
        let removed = within(WHAT, limit, client.execute(REMOVE, &params)).await?;
        within(WHAT, limit, client.batch_execute("COMMIT")).await?;
        lease.release();
        Ok(removed)
    }

    async fn retry_letter(
        &self,
        retry: LetterRetry<'_>,
        ahead: Ahead<'_>,
    ) -> Result<bool, CommitError> {
        let mut lease = self.pool.lease(&self.settings).await.map_err(not_begun)?;
        let encoded = self.encode(&mut lease, retry.rows, retry.batch).await;
        let encoded = encoded.map_err(not_begun)?;
        let prepared =
            futures_util::future::try_join(lease.client.prepare(COUNT), lease.client.prepare(TAKE));
        let (count, take) = prepared.await.map_err(|error| {
            not_begun(failure::error("prepare the retry of a dead letter", &error))
        })?;
        lease.flights += 1;
        let number = lease.flights.to_string();
        let begin = format!("BEGIN; SET LOCAL wasmill.flight = '{number}'; {DURABLE}");
        let filtered = i64::from(retry.becomes == Becomes::Filtered);
        let mut requests = vec![
            Request {
                what: "count a retried record in postgres",
                statement: &count,
                params: self
                    .of(retry.letter.at)
                    .chain([Param::Text(&number), Param::Int8(filtered)])
                    .collect(),
            },
            Request {
                what: "take a dead letter from postgres",
                statement: &take,
                params: self
                    .exactly(retry.letter)
                    .chain([Param::Text(&number)])
                    .collect(),
            },
        ];
        for rows in &encoded {
            rows.requests(&lease, &number, &mut requests);
        }
        let statement = self.settings.timeouts.statement;
        let open = Transaction::open(&lease.client, &begin, requests, statement);
        let (clean, outcome) = match open.await {
            Err(poisoned) => {
                let (clean, error) = poisoned.roll_back().await;
                (clean, Err(error))
            }
            Ok(open) if open.counts[..2] != [1, 1] => {
                let gone = Error::data("retry a dead letter", "it is not there any more");
                let (clean, _) = open.poison(CommitError::Refused(gone)).roll_back().await;
                (clean, Ok(false))
            }
            Ok(open) => match ahead.await {
                Err(error) => {
                    let (clean, error) = open.poison(CommitError::Ahead(error)).roll_back().await;
                    (clean, Err(error))
                }
                Ok(()) => match open.commit().await {
                    Ok(()) => (true, Ok(true)),
                    Err(error) => (false, Err(error)),
                },
            },
        };
        if clean {
            lease.release();
        }
        outcome
    }

    async fn begin_retry(&self, letter: &Letter, release: &str) -> Result<bool> {
        const WHAT: &str = "keep that a retry begins in postgres";
        let limit = self.settings.timeouts.statement;
        let lease = self.pool.lease(&self.settings).await?;
        let client = &lease.client;
        let statement = within(WHAT, limit, client.prepare(BEGIN)).await?;
        let begin = format!("BEGIN; {DURABLE}");
        within(WHAT, limit, client.batch_execute(&begin)).await?;
        let params = self.exactly(letter).chain([Param::Text(release)]);
        let params: Vec<Param<'_>> = params.collect();
        let kept = within(WHAT, limit, client.execute_raw(&statement, params)).await?;
        within(WHAT, limit, client.batch_execute("COMMIT")).await?;
        lease.release();
        Ok(kept == 1)
    }

    async fn keep_reason(&self, letter: &Letter, dead: &DeadLetter) -> Result<bool> {
        const WHAT: &str = "keep why a retry failed in postgres";
        let lease = self.pool.lease(&self.settings).await?;
        let limit = self.settings.timeouts.statement;
        let statement = within(WHAT, limit, lease.client.prepare(KEEP)).await?;
        let (code, reason) = (clean(&dead.code), clean(&dead.reason));
        let params: Vec<Param<'_>> = self
            .exactly(letter)
            .chain([
                Param::Text(dead.class.as_str()),
                Param::Text(&code),
                Param::Text(&reason),
                Param::Text(&self.settings.plugin),
                Param::Text(&self.settings.digest),
            ])
            .collect();
        let kept = within(WHAT, limit, lease.client.execute_raw(&statement, params)).await?;
        lease.release();
        Ok(kept == 1)
    }

    /// Pipeline, topic, partition and offset.
    fn of(&self, at: Coordinates) -> impl Iterator<Item = Param<'_>> {
        [
            Param::Text(&self.settings.pipeline),
            Param::Text(&self.settings.topic),
            Param::Int4(at.partition),
            Param::Int8(at.offset),
        ]
        .into_iter()
    }

    /// What names a letter as it was read: its place and when it was set aside.
    fn exactly(&self, letter: &Letter) -> impl Iterator<Item = Param<'_>> {
        let set_aside = letter.set_aside.unwrap_or_default().saturating_sub(EPOCH);
        self.of(letter.at)
            .chain([Param::Int4(letter.at.index), Param::Int8(set_aside)])
    }
}

impl DeadLetters for PostgresAnchor {
    fn list<'a>(
        &'a self,
        filter: &'a LetterFilter,
        page: LetterPage,
    ) -> LocalBoxFuture<'a, Result<Vec<Letter>, Error>> {
        Box::pin(self.find(filter, page))
    }

    fn remove<'a>(&'a self, letters: &'a [Letter]) -> LocalBoxFuture<'a, Result<u64, Error>> {
        Box::pin(self.delete(letters))
    }

    fn begin<'a>(
        &'a self,
        letter: &'a Letter,
        release: &'a str,
    ) -> LocalBoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.begin_retry(letter, release))
    }

    fn retry<'a>(
        &'a self,
        retry: LetterRetry<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<bool, CommitError>> {
        Box::pin(self.retry_letter(retry, ahead))
    }

    fn keep<'a>(
        &'a self,
        letter: &'a Letter,
        dead: &'a DeadLetter,
    ) -> LocalBoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.keep_reason(letter, dead))
    }
}

/// A row of the question's answer.
fn letter(row: &Row) -> Letter {
    let part = |null: usize| {
        let bytes: Option<Vec<u8>> = row.get(null + 1);
        let size: Option<i32> = row.get(null + 2);
        match (bytes, size) {
            (Some(bytes), Some(size)) => Part::Bytes {
                bytes,
                size: u64::try_from(size).unwrap_or(0),
            },
            _ if row.get(null) => Part::Null,
            _ => Part::LeftOut,
        }
    };
    let at = |column: usize| row.get::<_, Option<SystemTime>>(column).map(micros);
    Letter {
        at: Coordinates {
            partition: row.get(0),
            offset: row.get(1),
            index: row.get(2),
        },
        class: row.get(3),
        code: row.get(4),
        reason: row.get(5),
        plugin: row.get(6),
        digest: row.get(7),
        set_aside: at(8),
        tried: at(9),
        stamp: row.get(10),
        begun: row.get(20),
        key: part(11),
        value: part(14),
        headers: row.get(17),
        cut: row.get(18),
        timestamp: at(19).map_or(-1, |micros| micros.div_euclid(1000)),
    }
}

/// Microseconds since 1970 of a server's time, which has no finer part.
fn micros(at: SystemTime) -> i64 {
    let since = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => since(after),
        Err(before) => -since(before.duration()),
    }
}

/// The time of microseconds since 1970, kept within the server's calendar (years 1 to 9999).
fn time(micros: i64) -> SystemTime {
    const FIRST: i64 = -62_135_596_800_000_000;
    const LAST: i64 = 253_402_300_799_999_999;
    let micros = micros.clamp(FIRST, LAST);
    let span = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 {
        UNIX_EPOCH - span
    } else {
        UNIX_EPOCH + span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_went_and_stay_in_the_calendar() {
        for at in [0, 1, -1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            assert_eq!(micros(time(at)), at);
        }
        assert_eq!(micros(time(i64::MIN)), -62_135_596_800_000_000);
        assert_eq!(micros(time(i64::MAX)), 253_402_300_799_999_999);
    }

    #[test]
    fn only_what_is_asked_for_is_a_condition() {
        let page = LetterPage {
            after: None,
            most: 5,
            bytes: 64,
        };
        let filter = LetterFilter::default();
        let all = Question::new("p", "t", &filter, page);
        assert_eq!(all.params.len(), 4);
        assert!(!all.sql.contains("code ="), "{}", all.sql);
        let filter = LetterFilter {
            code: Some("trap".to_owned()),
            since: Some(0),
            ..LetterFilter::only(Coordinates {
                partition: 1,
                offset: i64::MAX,
                index: 0,
            })
        };
        let some = Question::new("p", "t", &filter, page);
        assert_eq!(some.params.len(), 4 + 6);
        assert!(some.sql.contains("code = $8::text"), "{}", some.sql);
    }
}
