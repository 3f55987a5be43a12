//! Dead letters where an anchor keeps them, for people: found, read, removed, retried.
//!
//! [`Letter`] is one record set aside, [`DeadLetters`] the place that holds those of one pipeline. It never sets a
//! record aside itself: a flight does (see [`super::Flight`]).

use futures_util::future::LocalBoxFuture;

use super::{Ahead, CommitError, HereRows};
use crate::error::Error;
use crate::record::{Batch, Record};
use crate::route::DeadLetter;

/// Where a dead letter's record lies in the pipeline's topic. Ordered as they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinates {
    /// The partition.
    pub partition: i32,
    /// The record.
    pub offset: i64,
    /// Which of the record's letters; 0 for all but a record that was set aside more than once.
    pub index: i32,
}

/// Key or value of a record as a letter keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The record has none.
    Null,
    /// It was too large to be kept: it lies in the topic only.
    LeftOut,
    /// Kept.
    Bytes {
        /// Its bytes; the first of them where fewer were asked for.
        bytes: Vec<u8>,
        /// How many there are.
        size: u64,
    },
}

impl Part {
    /// The bytes, where all of them are here.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes { bytes, .. } => Some(bytes),
            Self::Null | Self::LeftOut => None,
        }
    }
}

/// A record that was set aside. Times are microseconds since 1970-01-01 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it is.
    pub at: Coordinates,
    /// Whose fault, by [`crate::route::DeadClass::as_str`].
    pub class: String,
    /// Which, see [`crate::route::code`].
    pub code: String,
    /// One sentence for a person.
    pub reason: String,
    /// `name@version` of the plugin that was at work.
    pub plugin: String,
    /// Digest of its component, where it was kept.
    pub digest: Option<String>,
    /// When it was set aside, where it was kept.
    pub set_aside: Option<i64>,
    /// When it was last retried, in vain.
    pub tried: Option<i64>,
    /// The record's write time at sinks written ahead; unknown for letters of older hosts.
    pub stamp: Option<i64>,
    /// Id of the release whose retry may have sent rows ahead: no other may finish what it began.
    pub begun: Option<String>,
    /// The record's key.
    pub key: Part,
    /// The record's value.
    pub value: Part,
    /// The record's headers as a cell value; `None` where they were not fetched, or were too large.
    pub headers: Option<Vec<u8>>,
    /// Whether some of key, value and headers was too large to be kept and lies in the topic only.
    pub cut: bool,
    /// The record's timestamp, milliseconds, −1 for none.
    pub timestamp: i64,
}

impl Letter {
    /// The record as a source would bring it; `None` where some of it was left out.
    #[must_use]
    pub fn record(&self) -> Option<Batch> {
        if self.cut {
            return None;
        }
        let mut batch = Batch::new(self.at.partition, self.at.offset);
        batch.push(Record {
            key: self.key.bytes(),
            value: self.value.bytes(),
            timestamp: self.timestamp,
            offset: self.at.offset,
            headers: self.headers.as_deref().unwrap_or_default(),
            marks: 0,
        });
        Some(batch)
    }
}

/// Which letters; what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Of this partition.
    pub partition: Option<i32>,
    /// At or above this offset.
    pub from: Option<i64>,
    /// Below this offset.
    pub to: Option<i64>,
    /// Only these of a record.
    pub index: Option<i32>,
    /// Of this class.
    pub class: Option<String>,
    /// Of this code.
    pub code: Option<String>,
    /// Set aside under this `name@version`.
    pub plugin: Option<String>,
    /// Set aside under this component.
    pub digest: Option<String>,
    /// Set aside at or after, microseconds.
    pub since: Option<i64>,
    /// Set aside before, microseconds.
    pub until: Option<i64>,
}

impl LetterFilter {
    /// One letter.
    #[must_use]
    pub fn only(at: Coordinates) -> Self {
        Self {
            partition: Some(at.partition),
            from: Some(at.offset),
            to: Some(at.offset.saturating_add(1)),
            index: Some(at.index),
            ..Self::default()
        }
    }
}

/// Which part of what a filter finds.
#[derive(Clone, Copy, Debug)]
pub struct LetterPage {
    /// Only what comes after it.
    pub after: Option<Coordinates>,
    /// Letters at most, at least one.
    pub most: u32,
    /// Bytes of each key and value at most; headers come whole where they are not longer.
    pub bytes: u32,
}

/// What a retry makes of a letter's record, whichever sinks it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becomes {
    /// At least one row.
    Emitted,
    /// Nothing, as the plugin means it.
    Filtered,
}

/// A letter on its way to become rows.
#[derive(Clone, Copy, Debug)]
pub struct Retry<'a> {
    /// As it was read: another one that took its place is not touched.
    pub letter: &'a Letter,
    /// Its record alone.
    pub batch: &'a Batch,
    /// Rows of the routes on this database.
    pub rows: &'a [HereRows<'a>],
    /// What it is counted as.
    pub becomes: Becomes,
}

/// The dead letters of one pipeline, seen through one connection.
///
/// Only letters below the stored position are there: what an anchor wrote ahead of it is not decided yet. Calls may
/// come from several hosts at once.
pub trait DeadLetters: std::fmt::Debug {
    /// Letters in the order of their coordinates.
    fn list<'a>(
        &'a self,
        filter: &'a LetterFilter,
        page: LetterPage,
    ) -> LocalBoxFuture<'a, Result<Vec<Letter>, Error>>;

    /// Removes letters, durably, and tells how many of them were still there. Their records stay dead. A letter whose
    /// retry was begun stays: some of its rows may be out.
    fn remove<'a>(&'a self, letters: &'a [Letter]) -> LocalBoxFuture<'a, Result<u64, Error>>;

    /// Keeps, durably, that a release is about to send a letter's rows ahead; `Ok(false)`: the letter is not there any
    /// more, or another release was first. From then on it is retried through this release only.
    fn begin<'a>(
        &'a self,
        letter: &'a Letter,
        release: &'a str,
    ) -> LocalBoxFuture<'a, Result<bool, Error>>;

    /// Puts a letter's rows in its place, in one step with its removal and with the count of retried records of its
    /// partition; `ahead` runs between the writes and their commit. `Ok(false)`: the letter is not there any more,
    /// and nothing was changed.
    ///
    /// # Errors
    /// As [`super::Anchor::commit`]; after [`CommitError::Unknown`] the letter tells: it is there, or its rows are.
    fn retry<'a>(
        &'a self,
        retry: Retry<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<bool, CommitError>>;

    /// Keeps why a retry failed in the letter's place; `Ok(false)`: it is not there any more.
    fn keep<'a>(
        &'a self,
        letter: &'a Letter,
        dead: &'a DeadLetter,
    ) -> LocalBoxFuture<'a, Result<bool, Error>>;
}

#[cfg(test)]
impl Letter {
    /// A letter at an offset of partition 0 of which nothing else is known: what tests start from.
    pub(crate) fn at(offset: i64) -> Self {
        Self {
            at: Coordinates {
                partition: 0,
                offset,
                index: 0,
            },
            class: "data".to_owned(),
            code: "malformed".to_owned(),
            reason: String::new(),
            plugin: String::new(),
            digest: None,
            set_aside: None,
            tried: None,
            stamp: None,
            begun: None,
            key: Part::Null,
            value: Part::Null,
            headers: None,
            cut: false,
            timestamp: -1,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn letter(key: Part, value: Part) -> Letter {
        let mut letter = Letter {
            cut: value == Part::LeftOut,
            key,
            value,
            timestamp: 7,
            ..Letter::at(42)
        };
        letter.at.partition = 3;
        letter
    }

    #[test]
    fn a_letter_is_the_record_it_was_made_of_and_null_is_not_empty() {
        let bytes = |bytes: &[u8]| Part::Bytes {
            bytes: bytes.to_vec(),
            size: bytes.len() as u64,
        };
        let batch = letter(bytes(b""), Part::Null).record().unwrap();
        let record = batch.record(0);
        assert_eq!((record.key, record.value), (Some(&b""[..]), None));
        assert_eq!(
            (batch.partition(), record.offset, record.timestamp),
            (3, 42, 7)
        );
        assert_eq!((batch.from(), batch.to()), (42, 43));
        assert!(letter(bytes(b"k"), Part::LeftOut).record().is_none());
    }
}
