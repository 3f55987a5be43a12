//! [`Expected`]: what one table should hold, folded from rows in the order of their records, and what it holds.
//!
//! Rows of a partition come in the order of their offsets; partitions in any order. Then the rows of the table come, and
//! `compare` tells how they compare. Memory: 100 to 200 bytes a key, and 24 bytes a column more of a Cassandra table.

mod compare;

use std::collections::HashMap;

pub use compare::{Judging, Mismatch, Tally, Wrong};

use super::bag::Bag;
use super::cells;
use super::image::{Hashes, Image};
use super::slot::{Slot, Sure, Word};
use super::{At, Table};
use crate::record::{Column, Op, Plain, RowRef};

/// The end of the year 9999, milliseconds: no delete is later.
const LAST_MILLIS: i64 = 253_402_300_799_999;

/// Hash of a key.
type Key = [u64; 2];

/// What one table should hold, and how it compares.
#[derive(Debug)]
pub struct Expected {
    /// The table.
    pub table: Table,
    hashes: Hashes,
    slots: HashMap<Key, Slot>,
    bag: Bag,
    judging: Option<Judging>,
    /// So far.
    pub tally: Tally,
    /// The first of them.
    pub mismatches: Vec<Mismatch>,
    /// Where a key's is, while the table may have moved on.
    held: HashMap<Key, usize>,
}

/// One row of a release on its way here.
#[derive(Clone, Copy, Debug)]
pub struct Derived<'a> {
    /// Its record.
    pub at: At,
    /// Write time of the record, microseconds.
    pub written: i64,
    /// The record's own time, milliseconds.
    pub time: i64,
    /// Columns of the release's route.
    pub columns: &'a [Column],
    /// The column in which it keeps the time of a delete; `None`: a delete leaves no row.
    pub deleted_at: Option<&'a str>,
    /// The row.
    pub row: RowRef<'a>,
}

impl Expected {
    /// Nothing, of a table.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self {
            table,
            hashes: Hashes::default(),
            slots: HashMap::new(),
            bag: Bag::default(),
            judging: None,
            tally: Tally::default(),
            mismatches: Vec::new(),
            held: HashMap::new(),
        }
    }

    /// Takes a row that a release made of a record.
    ///
    /// # Errors
    /// What is wrong with its cells.
    pub fn derived(&mut self, derived: Derived<'_>) -> Result<(), String> {
        self.apply(derived, Sure::Yes)
    }

    /// Takes a row that somebody may have written: by retrying a dead letter, through one of several releases. What each
    /// of them (by a number) makes of a record comes one after the other.
    ///
    /// # Errors
    /// What is wrong with its cells.
    pub fn possible(&mut self, derived: Derived<'_>, release: usize) -> Result<(), String> {
        if self.table.appends() {
            let row = self.values(derived)?;
            if derived.row.op == Op::Write {
                self.bag.maybe(&self.hashes, &row, derived.at, release);
            }
            return Ok(());
        }
        self.apply(derived, Sure::Maybe)
    }

    fn apply(&mut self, derived: Derived<'_>, sure: Sure) -> Result<(), String> {
        let row = self.values(derived)?;
        let gone = derived.row.op == Op::Delete && derived.deleted_at.is_none();
        if self.table.appends() {
            if !gone {
                self.bag.write(&self.hashes, &row, derived.at);
            }
            return Ok(());
        }
        let key = self.key(|column| row[column].as_ref());
        let guard = self.table.guard.and_then(|at| row[at].clone());
        let mut word = Word {
            at: derived.at,
            written: derived.written,
            sure,
            gone,
            guard: guard.map(Box::new),
            image: Image::empty(self.table.whole, self.table.columns.len()),
        };
        let slot = self.slots.get_mut(&key);
        let before = match slot {
            Some(slot) if sure == Sure::Yes => slot.of(derived.at.partition),
            _ => None,
        };
        if let Some(before) = before {
            let older = match (&word.guard, &before.guard) {
                (Some(new), Some(old)) => new.order(old).is_lt(),
                _ => false,
            };
            if older {
                return Ok(());
            }
            before.at = word.at;
            before.written = word.written;
            before.gone = word.gone;
            before.guard = word.guard;
            before
                .image
                .change(&self.hashes, &row, gone, derived.written);
            return Ok(());
        }
        word.image.change(&self.hashes, &row, gone, derived.written);
        match self.slots.get_mut(&key) {
            Some(slot) => slot.push(word),
            None => drop(self.slots.insert(key, Slot::new(word))),
        }
        Ok(())
    }

    /// The values of a release's row by column of the table.
    fn values(&self, derived: Derived<'_>) -> Result<Vec<Option<Plain>>, String> {
        let mut values = cells::row(self.table.kind, derived.columns, derived.row.cells)?;
        if derived.deleted_at.is_some() {
            let time = keep_deleted(&mut values, derived);
            values.push(Some(time));
        }
        let columns = derived.columns.iter().map(|column| column.name.as_str());
        let columns = columns.chain(derived.deleted_at);
        let mine = &self.table.columns;
        if columns
            .clone()
            .eq(mine.iter().map(|column| column.name.as_str()))
        {
            return Ok(values);
        }
        let mut placed = vec![None; mine.len()];
        for (name, value) in columns.zip(values) {
            let at = mine.iter().position(|mine| mine.name == name);
            let at = at.ok_or_else(|| format!("column {name:?} is not of the table"))?;
            placed[at] = value;
        }
        Ok(placed)
    }

    fn key<'a>(&self, value: impl Fn(usize) -> Option<&'a Plain>) -> Key {
        let values = self.table.key.iter().map(|column| value(*column));
        self.hashes.wide(&values.collect::<Vec<_>>())
    }

    /// Rows that the table should hold, as far as is sure.
    #[must_use]
    pub fn rows(&self) -> u64 {
        let sure = self.slots.values().filter(|slot| {
            let words = slot.words();
            words
                .iter()
                .any(|word| word.sure == Sure::Yes && !word.gone)
        });
        sure.count() as u64 + self.bag.expected()
    }
}

/// Where deletes are kept: a delete leaves its row with the key, the guard and null, and says when it was; every other
/// row says that it is there. The value for the column of that time.
fn keep_deleted(values: &mut [Option<Plain>], derived: Derived<'_>) -> Plain {
    if derived.row.op != Op::Delete {
        return Plain::Null;
    }
    for value in values {
        value.get_or_insert(Plain::Null);
    }
    Plain::Timestamp(derived.time.clamp(0, LAST_MILLIS) * 1000)
}

#[cfg(test)]
mod tests;
