//! [`Image`]: what a row should be, as hashes. All rows of a table are held at once, but not their values: those of a row
//! that differs are derived again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::record::Plain;

/// Around the moment at which a row expires nobody knows whether it is there: clocks differ, and seconds are rounded up.
const MARGIN: i64 = 60_000_000;

/// When a table was read, and how long its rows live; microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Now, since 1970-01-01 UTC.
    pub now: i64,
    /// How long a row lives at least; `None`: for ever.
    pub ttl: Option<Duration>,
    /// How long a row lives at most: releases may differ. `None`: for ever.
    pub longest: Option<Duration>,
}

/// Whether what was written at some time is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// Nobody knows, or it has only just gone.
    Expiring,
    /// Gone for long.
    Expired,
}

impl Clock {
    pub(super) fn life(&self, written: i64) -> Life {
        let Some(ttl) = self.ttl else {
            return Life::Alive;
        };
        let micros = |ttl: Duration| i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
        let gone = |ttl| written.saturating_add(micros(ttl)) <= self.now.saturating_sub(MARGIN);
        if written.saturating_add(micros(ttl)) > self.now.saturating_add(MARGIN) {
            Life::Alive
        } else if self.longest.is_some_and(gone) {
            Life::Expired
        } else {
            Life::Expiring
        }
    }
}

/// Hashes of one run: their seeds are drawn anew each time, so that no one can write rows that collide.
#[derive(Clone, Debug, Default)]
pub(super) struct Hashes {
    seeds: [RandomState; 2],
}

impl Hashes {
    pub(super) fn one<T: std::hash::Hash>(&self, value: &T) -> u64 {
        self.seeds[0].hash_one(value)
    }

    pub(super) fn wide<T: std::hash::Hash>(&self, value: &T) -> [u64; 2] {
        [self.seeds[0].hash_one(value), self.seeds[1].hash_one(value)]
    }
}

/// One cell of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CellImage {
    hash: u64,
    /// When it was written, microseconds.
    written: i64,
}

/// What a row should be.
#[derive(Clone, Debug)]
pub(super) enum Image {
    /// Every write says all of it: one hash.
    Whole(u64),
    /// By column; `None`: nobody wrote it, as far as is known.
    Cells(Box<[Option<CellImage>]>),
}

/// How a row of a table compares with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    Same,
    /// Nobody knows: where they differ, it expires.
    Expiring,
    /// Nobody knows: where they differ, records decide that are not known.
    Past,
    Other,
}

impl Image {
    pub(super) fn empty(whole: bool, columns: usize) -> Self {
        if whole {
            Self::Whole(0)
        } else {
            Self::Cells(vec![None; columns].into())
        }
    }

    /// A write, or a delete of the whole row.
    pub(super) fn change(&mut self, hashes: &Hashes, row: &[Option<Plain>], gone: bool, at: i64) {
        if gone {
            self.clear(hashes, at);
        } else {
            self.write(hashes, row, at);
        }
    }

    /// A deleted row: every cell is known to be null.
    fn clear(&mut self, hashes: &Hashes, at: i64) {
        if let Self::Cells(cells) = self {
            cells.fill(Some(CellImage {
                hash: hashes.one(&Plain::Null),
                written: at,
            }));
        }
    }

    /// A write: cells without a value are left alone.
    fn write(&mut self, hashes: &Hashes, row: &[Option<Plain>], at: i64) {
        match self {
            Self::Whole(hash) => *hash = whole(hashes, row),
            Self::Cells(cells) => {
                for (cell, value) in cells.iter_mut().zip(row) {
                    if let Some(value) = value {
                        *cell = Some(CellImage {
                            hash: hashes.one(value),
                            written: at,
                        });
                    }
                }
            }
        }
    }

    /// `past`: whether there are earlier records that are not known. Where there are none, what nobody wrote is null.
    pub(super) fn likeness(
        &self,
        hashes: &Hashes,
        found: &[Plain],
        past: bool,
        clock: Clock,
    ) -> Likeness {
        let cells = match self {
            Self::Whole(hash) if *hash == hash_of(hashes, found) => return Likeness::Same,
            Self::Whole(_) => return Likeness::Other,
            Self::Cells(cells) => cells,
        };
        let mut likeness = Likeness::Same;
        for (cell, found) in cells.iter().zip(found) {
            let Some(cell) = cell else {
                match found {
                    Plain::Null => {}
                    _ if past => likeness = Likeness::Past,
                    _ => return Likeness::Other,
                }
                continue;
            };
            if cell.hash == hashes.one(found) {
                continue;
            }
            match (clock.life(cell.written), found) {
                // What expired leaves null behind.
                (Life::Expiring, _) | (Life::Expired, Plain::Null) => {
                    likeness = Likeness::Expiring;
                }
                _ => return Likeness::Other,
            }
        }
        likeness
    }
}

fn whole(hashes: &Hashes, row: &[Option<Plain>]) -> u64 {
    let values = row
        .iter()
        .map(|value| value.as_ref().unwrap_or(&Plain::Null));
    hashes.one(&values.collect::<Vec<_>>())
}

fn hash_of(hashes: &Hashes, found: &[Plain]) -> u64 {
    hashes.one(&found.iter().collect::<Vec<_>>())
}
