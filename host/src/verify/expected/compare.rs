//! Rows of the table against what it should hold: each gets its verdict, then what was not there.
//!
//! First [`Expected::judge`], then every row by [`Expected::found`], then [`Expected::finish`]; where the table was
//! written to meanwhile, [`Expected::moved_on`] settles what later records explain. It decides nothing of a key by
//! itself: that is `slot`'s.

use super::super::At;
use super::super::image::Clock;
use super::super::slot::{Judged, Rules, Sure};
use super::{Derived, Expected, Key};
use crate::record::Plain;

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

impl Expected {
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
