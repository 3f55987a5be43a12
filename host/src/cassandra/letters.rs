//! Dead letters in Cassandra, for people: [`CassandraAnchor`] as [`DeadLetters`]. How flights write them is in `dead`.
//!
//! They are written ahead of the position: one at or above it is not decided, and is not shown. One below it is
//! written by nobody any more, so its removal, a microsecond after it, is final.

use futures_util::future::LocalBoxFuture;
use scylla::value::CqlTimestamp;

use super::anchor::CassandraAnchor;
use crate::anchor::{
    Ahead, CommitError, Coordinates, DeadLetters, Letter, LetterFilter, LetterPage, LetterRetry,
    Part,
};
use crate::error::{Error, Result};
use crate::route::DeadLetter;

/// Letters read at once: each may have a megabyte.
const AT_ONCE: i32 = 20;

/// A row of letters, in the order of the question.
type Stored = (
    i64,
    i32,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<CqlTimestamp>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i64>,
    Option<bool>,
    Option<bool>,
    Option<CqlTimestamp>,
);

/// How many letters a page has at most.
fn most(page: LetterPage) -> usize {
    usize::try_from(page.most.max(1)).unwrap_or(usize::MAX)
}

impl CassandraAnchor {
    async fn find(&self, filter: &LetterFilter, page: LetterPage) -> Result<Vec<Letter>> {
        let partitions = match filter.partition {
            Some(partition) => vec![partition],
            None => self.positions.listed().await?,
        };
        let most = most(page);
        let mut found = Vec::new();
        for partition in partitions {
            let after = match page.after {
                Some(after) if after.partition > partition => continue,
                Some(after) if after.partition == partition => Some((after.offset, after.index)),
                _ => None,
            };
            self.find_in(partition, filter, after, page, &mut found)
                .await?;
            if found.len() >= most {
                break;
            }
        }
        Ok(found)
    }

    /// The letters of one partition after a place, until there are `most` in all.
    async fn find_in(
        &self,
        partition: i32,
        filter: &LetterFilter,
        after: Option<(i64, i32)>,
        page: LetterPage,
        found: &mut Vec<Letter>,
    ) -> Result<()> {
        let Some(position) = self.positions.read(partition).await? else {
            return Ok(());
        };
        let what = format!(
            "read dead letters of pipeline {:?}, {}/{partition}, from cassandra",
            self.settings.pipeline, self.settings.topic
        );
        let to = position.mark.next.min(filter.to.unwrap_or(i64::MAX));
        let first = (filter.from.unwrap_or(0).saturating_sub(1), i32::MAX);
        let mut after = after.map_or(first, |after| after.max(first));
        while after < (to, i32::MIN) {
            let values = (
                &self.settings.pipeline,
                &self.settings.topic,
                partition,
                after.0,
                after.1,
                to,
                i32::MIN,
                AT_ONCE,
            );
            let rows = self.session.execute(&what, &self.dead.list, values).await?;
            let rows = rows.ok_or_else(|| Error::bug(&what, "a read without an answer"))?;
            let rows = rows
                .rows::<Stored>()
                .map_err(|error| Error::bug(&what, error))?;
            let mut read = 0;
            for row in rows {
                let mut letter = letter(partition, row.map_err(|error| Error::bug(&what, error))?);
                after = (letter.at.offset, letter.at.index);
                read += 1;
                if fits(filter, &letter) {
                    // One by one: a page of whole records may be a gigabyte.
                    shorten(&mut letter, page.bytes);
                    found.push(letter);
                    if found.len() >= most(page) {
                        return Ok(());
                    }
                }
            }
            if read < AT_ONCE {
                break;
            }
        }
        Ok(())
    }

    async fn delete(&self, letters: &[Letter]) -> Result<u64> {
        self.dead.remove(letters).await?;
        Ok(letters.len() as u64)
    }
}

/// What is not asked of the server: it could answer only by reading everything, too.
fn fits(filter: &LetterFilter, letter: &Letter) -> bool {
    let is = |wanted: &Option<String>, found: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted == found)
    };
    let digest = letter.digest.as_deref().unwrap_or_default();
    let timed = |fits: &dyn Fn(i64) -> bool| letter.set_aside.is_some_and(fits);
    is(&filter.class, &letter.class)
        && is(&filter.code, &letter.code)
        && is(&filter.plugin, &letter.plugin)
        && is(&filter.digest, digest)
        && filter.index.is_none_or(|index| index == letter.at.index)
        && filter.since.is_none_or(|since| timed(&|at| at >= since))
        && filter.until.is_none_or(|until| timed(&|at| at < until))
}

fn letter(partition: i32, row: Stored) -> Letter {
    let (
        offset,
        index,
        class,
        code,
        reason,
        plugin,
        digest,
        created_at,
        stamp,
        key,
        value,
        headers,
        value_size,
        truncated,
        null_key,
        record_time,
    ) = row;
    let part = |bytes: Option<Vec<u8>>, null: bool| match bytes {
        Some(bytes) => Part::Bytes {
            size: bytes.len() as u64,
            bytes,
        },
        None if null => Part::Null,
        None => Part::LeftOut,
    };
    // Letters of older hosts tell nothing of key and headers that were too large.
    let value = part(value, value_size.is_none());
    let key = part(key, null_key.unwrap_or(true));
    Letter {
        at: Coordinates {
            partition,
            offset,
            index,
        },
        class: class.unwrap_or_default(),
        code: code.unwrap_or_default(),
        reason: reason.unwrap_or_default(),
        plugin: plugin.unwrap_or_default(),
        digest,
        set_aside: created_at.map(|at| at.0.saturating_mul(1000)),
        tried: None,
        stamp,
        begun: None,
        cut: truncated.unwrap_or(value == Part::LeftOut),
        key,
        value,
        headers,
        timestamp: record_time.map_or(-1, |time| time.0),
    }
}

/// Keeps the first bytes of what is longer than was asked for.
fn shorten(letter: &mut Letter, bytes: u32) {
    let most = usize::try_from(bytes).unwrap_or(usize::MAX);
    for part in [&mut letter.key, &mut letter.value] {
        if let Part::Bytes { bytes, .. } = part {
            bytes.truncate(most);
        }
    }
    letter.headers = letter
        .headers
        .take()
        .filter(|headers| headers.len() <= most);
}

/// A retry there would have to end without a transaction.
fn refused() -> Error {
    Error::config(
        "retry a dead letter",
        "the pipeline keeps its position in Cassandra, where rows and removal cannot be one step yet",
    )
    .hint("send the record again to the topic, corrected, then drop the letter")
}

impl DeadLetters for CassandraAnchor {
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

    fn begin<'a>(&'a self, _: &'a Letter, _: &'a str) -> LocalBoxFuture<'a, Result<bool, Error>> {
        Box::pin(std::future::ready(Err(refused())))
    }

    fn retry<'a>(
        &'a self,
        _: LetterRetry<'a>,
        _: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<bool, CommitError>> {
        Box::pin(std::future::ready(Err(CommitError::Stop(refused()))))
    }

    fn keep<'a>(
        &'a self,
        _: &'a Letter,
        _: &'a DeadLetter,
    ) -> LocalBoxFuture<'a, Result<bool, Error>> {
        Box::pin(std::future::ready(Err(refused())))
    }
}
