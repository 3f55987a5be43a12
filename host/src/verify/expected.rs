//! [`Expected`]: what one table should hold, folded from rows in the order of their records, and what it holds.
//!
//! Rows of a partition come in the order of their offsets; partitions in any order. Then the rows of the table come, and
//! each gets its verdict; then what was not there. Memory: 100 to 200 bytes a key, and 24 bytes a column more of a
//! Cassandra table.

use std::collections::HashMap;

use super::bag::Bag;
use super::cells;
use super::image::{Clock, Hashes, Image};
use super::slot::{Judged, Rules, Slot, Sure, Word};
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

/// How the table is read.
#[derive(Clone, Copy, Debug)]
pub struct Judging {
    /// Whether there are earlier records that are not known: what stands there without a record may be theirs.
    pub past: bool,
    /// When it is read.
    pub clock: Clock,
    /// Mismatches kept with their rows; all are counted.
    pub keep: usize,
    /// Whether the table is written to meanwhile: then every mismatch is kept until [`Expected::moved_on`] settles it.
    pub moving: bool,
}

/// Rows by how they compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Rows of the table.
    pub rows: u64,
    /// Those that are as they should be.
    pub equal: u64,
    /// Rows that are not there.
    pub missing: u64,
    /// Rows that should not be there.
    pub extra: u64,
    /// Rows that should hold something else.
    pub different: u64,
    /// Not checked: they may have expired.
    pub expired: u64,
    /// Not checked: several partitions, or a retried dead letter, wrote parts of them.
    pub shared: u64,
    /// Not checked: records that are not known may have written them.
    pub past: u64,
}

impl Tally {
    /// Rows that are not as they should be.
    #[must_use]
    pub fn wrong(&self) -> u64 {
        self.missing + self.extra + self.different
    }
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It is not there.
    Missing,
    /// It should not be there.
    Extra,
    /// It should hold something else.
    Different,
}

/// A row that is not as it should be.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// What is wrong.
    pub wrong: Wrong,
    /// The record that should have made the row, or deleted it; `None`: no record did.
    pub at: Option<At>,
    /// How many such rows: more than one in append tables only.
    pub times: u32,
    /// The table's row.
    pub found: Option<Vec<Plain>>,
    /// Of its key, or of the whole row where there is none.
    key: Key,
    /// A later record made it so while the table was read.
    settled: bool,
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

    /// From here on the rows of the table come.
    pub fn judge(&mut self, judging: Judging) {
        self.judging = Some(judging);
    }

    fn rules(&self) -> (Judging, Rules<'_>) {
        let judging = self.judging.expect("rows come after `judge`");
        let rules = Rules {
            hashes: &self.hashes,
            guard: self.table.guard,
            past: judging.past,
            clock: judging.clock,
        };
        (judging, rules)
    }

    /// Takes a row of the table: a value for each of its columns.
    pub fn found(&mut self, row: Vec<Plain>) {
        self.tally.rows += 1;
        let (judging, rules) = self.rules();
        if self.table.appends() {
            let at = match self.bag.found(&self.hashes, &row) {
                Ok(()) => {
                    self.tally.equal += 1;
                    return;
                }
                Err(_) if judging.past => {
                    self.tally.past += 1;
                    return;
                }
                Err(at) => at,
            };
            let hash = self.hashes.wide(&row.iter().collect::<Vec<_>>());
            self.wrong(Wrong::Extra, at, 1, Some(row), hash);
            return;
        }
        let key = self.key(|column| row.get(column));
        let judged = match self.slots.get(&key) {
            Some(slot) => Some(slot.judge(Some(&row), &rules)),
            None if judging.past => Some(Judged::Past),
            None => None,
        };
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.seen = true;
        }
        match judged {
            Some(judged) => self.judged(judged, Some(row), key),
            None => self.wrong(Wrong::Extra, None, 1, Some(row), key),
        }
    }

    /// All rows of the table came: what is left is missing.
    pub fn finish(&mut self) {
        let (_, rules) = self.rules();
        let missing: Vec<(At, u32, Key)> = self.bag.missing().collect();
        let unseen = self.slots.iter().filter(|(_, slot)| !slot.seen);
        let judged: Vec<(Key, Judged)> = unseen
            .map(|(key, slot)| (*key, slot.judge(None, &rules)))
            .filter(|(_, judged)| *judged != Judged::Equal)
            .collect();
        for (at, times, hash) in missing {
            self.wrong(Wrong::Missing, Some(at), times, None, hash);
        }
        for (key, judged) in judged {
            self.judged(judged, None, key);
        }
    }

    fn judged(&mut self, judged: Judged, found: Option<Vec<Plain>>, key: Key) {
        match judged {
            Judged::Equal => self.tally.equal += 1,
            Judged::Expired => self.tally.expired += 1,
            Judged::Shared => self.tally.shared += 1,
            Judged::Past => self.tally.past += 1,
            Judged::Different(at) => self.wrong(Wrong::Different, Some(at), 1, found, key),
            Judged::Extra(at) => self.wrong(Wrong::Extra, Some(at), 1, found, key),
            Judged::Missing(at) => self.wrong(Wrong::Missing, Some(at), 1, found, key),
        }
    }

    fn wrong(
        &mut self,
        wrong: Wrong,
        at: Option<At>,
        times: u32,
        found: Option<Vec<Plain>>,
        key: Key,
    ) {
        *self.count(wrong) += u64::from(times);
        let (judging, _) = self.rules();
        if !judging.moving && self.mismatches.len() >= judging.keep {
            return;
        }
        if judging.moving {
            self.held.insert(key, self.mismatches.len());
        }
        self.mismatches.push(Mismatch {
            wrong,
            at,
            times,
            found,
            key,
            settled: false,
        });
    }

    fn count(&mut self, wrong: Wrong) -> &mut u64 {
        match wrong {
            Wrong::Missing => &mut self.tally.missing,
            Wrong::Extra => &mut self.tally.extra,
            Wrong::Different => &mut self.tally.different,
        }
    }

    /// Takes a row of a record at or above the position: it may have been written before the table was read, or after.
    /// What was found and is right after it, was read after it.
    ///
    /// # Errors
    /// What is wrong with its cells.
    pub fn moved_on(&mut self, derived: Derived<'_>) -> Result<(), String> {
        let row = self.values(derived)?;
        let key = self.key(|column| row[column].as_ref());
        let held = self.held.get(&key).copied();
        let Some(held) = held else {
            return Ok(());
        };
        self.apply(derived, Sure::Yes)?;
        let (_, rules) = self.rules();
        let found = self.mismatches[held].found.as_deref();
        let Some(slot) = self.slots.get(&key) else {
            return Ok(());
        };
        if slot.judge(found, &rules) == Judged::Equal {
            self.held.remove(&key);
            let mismatch = &mut self.mismatches[held];
            mismatch.settled = true;
            let (wrong, was_found) = (mismatch.wrong, mismatch.found.is_some());
            *self.count(wrong) -= 1;
            self.tally.equal += u64::from(was_found);
        }
        Ok(())
    }

    /// The values of a row by column, where it is the one that a mismatch is about.
    ///
    /// # Errors
    /// What is wrong with its cells.
    pub fn is_of(
        &self,
        mismatch: &Mismatch,
        derived: Derived<'_>,
    ) -> Result<Option<Vec<Option<Plain>>>, String> {
        let row = self.values(derived)?;
        let key = if self.table.appends() {
            let values = row
                .iter()
                .map(|value| value.as_ref().unwrap_or(&Plain::Null));
            self.hashes.wide(&values.collect::<Vec<_>>())
        } else {
            self.key(|column| row[column].as_ref())
        };
        Ok((key == mismatch.key).then_some(row))
    }

    /// Whether some of it may be right at a later position.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// The mismatches that stand, at most `most`, in the order of their records.
    #[must_use]
    pub fn standing(&mut self, most: usize) -> Vec<Mismatch> {
        let mut standing: Vec<Mismatch> = std::mem::take(&mut self.mismatches)
            .into_iter()
            .filter(|mismatch| !mismatch.settled)
            .collect();
        standing.sort_by_key(|mismatch| mismatch.at);
        standing.truncate(most);
        standing
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
