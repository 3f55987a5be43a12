//! [`Bag`]: what an append table should hold: rows without a key, each as often as it was written.

use std::collections::HashMap;

use super::At;
use super::image::Hashes;
use crate::record::Plain;

/// One row, however often.
#[derive(Clone, Copy, Debug)]
struct Count {
    written: u32,
    /// How often it may have been written on top.
    maybe: u32,
    found: u32,
    /// The last record that wrote it.
    at: At,
}

/// Rows by what they hold, all columns.
#[derive(Debug, Default)]
pub(super) struct Bag {
    rows: HashMap<[u64; 2], Count>,
    maybe: HashMap<[u64; 2], Maybe>,
}

/// How often the last record that may have written a row may have done so. One release did, or none: so it is the most
/// that one of them makes, not the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Maybe {
    at: At,
    release: usize,
    /// By this release, so far.
    times: u32,
    /// By one release at most.
    most: u32,
}

impl Bag {
    pub(super) fn write(&mut self, hashes: &Hashes, row: &[Option<Plain>], at: At) {
        let count = self.count(hash(hashes, row), at);
        count.written += 1;
        count.at = at;
    }

    /// Takes a row that a record may have become, through one of several releases; they come one after the other.
    pub(super) fn maybe(&mut self, hashes: &Hashes, row: &[Option<Plain>], at: At, release: usize) {
        let hash = hash(hashes, row);
        let none = Maybe {
            at,
            release,
            times: 0,
            most: 0,
        };
        let tried = self.maybe.entry(hash).or_insert(none);
        if tried.at != at {
            *tried = none;
        } else if tried.release != release {
            (tried.release, tried.times) = (release, 0);
        }
        tried.times += 1;
        if tried.times > tried.most {
            tried.most = tried.times;
            self.count(hash, at).maybe += 1;
        }
    }

    fn count(&mut self, hash: [u64; 2], at: At) -> &mut Count {
        self.rows.entry(hash).or_insert(Count {
            written: 0,
            maybe: 0,
            found: 0,
            at,
        })
    }

    /// Takes a row of the table; where it is one too many, the record that wrote it as often as it should be.
    pub(super) fn found(&mut self, hashes: &Hashes, row: &[Plain]) -> Result<(), Option<At>> {
        let row: Vec<&Plain> = row.iter().collect();
        let Some(count) = self.rows.get_mut(&hashes.wide(&row)) else {
            return Err(None);
        };
        count.found = count.found.saturating_add(1);
        if count.found > count.written + count.maybe {
            return Err(Some(count.at));
        }
        Ok(())
    }

    /// Rows that the table should hold.
    pub(super) fn expected(&self) -> u64 {
        self.rows
            .values()
            .map(|count| u64::from(count.written))
            .sum()
    }

    /// Rows that it does not hold: who wrote them, how many are missing, and the hash of what they hold.
    pub(super) fn missing(&self) -> impl Iterator<Item = (At, u32, [u64; 2])> {
        self.rows.iter().filter_map(|(hash, count)| {
            let missing = count.written.saturating_sub(count.found);
            (missing > 0).then_some((count.at, missing, *hash))
        })
    }
}

fn hash(hashes: &Hashes, row: &[Option<Plain>]) -> [u64; 2] {
    let row = row
        .iter()
        .map(|value| value.as_ref().unwrap_or(&Plain::Null));
    hashes.wide(&row.collect::<Vec<_>>())
}
