//! One consistent snapshot of Postgres after the other, each from the last checked offset on: in every one of them the
//! position, the rows, the dead letters, the ledger and the upserted table have to agree (I1 to I4, I7).
//!
//! The same check over the whole table, in pieces, at the end finds what came late into a part that was checked.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::{Faults, Kind};
use super::fold::{Fold, Last};
use super::input::{Emitted, Fate, Input};
use crate::versioned::Run;

/// A stored position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Of which partition.
    pub partition: i32,
    /// Offset after the last one that is done.
    pub next: i64,
    /// Records, emitted, filtered and dead, where it was read.
    pub ledger: Option<[i64; 4]>,
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number that the database gave it when it arrived: later ones are greater.
    pub number: i64,
    /// Partition of its record.
    pub partition: i32,
    /// Offset of its record.
    pub offset: i64,
    /// Which of the record's rows.
    pub index: i32,
    /// The version that wrote it.
    pub version: String,
    /// Key of its record.
    pub id: String,
    /// Number of its record; `None`: a tombstone.
    pub seq: Option<i64>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Partition of its record.
    pub partition: i32,
    /// Offset of its record.
    pub offset: i64,
    /// Why.
    pub code: String,
}

/// What was read in one transaction that sees one state of the database.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Of every partition.
    pub positions: Vec<Position>,
    /// Rows at or above the last checked offset of their partition.
    pub rows: Vec<Row>,
    /// Dead letters there.
    pub letters: Vec<Letter>,
    /// Rows of the upserted table under the keys of [`Live::touched`]; `None`: not looked at.
    pub latest: Option<BTreeMap<String, Last>>,
}

/// What is known of a partition.
#[derive(Clone, Debug, Default)]
struct Checked {
    next: i64,
    /// Records, emitted, filtered, dead.
    ledger: [i64; 4],
    /// Rows below `next`.
    rows: i64,
    /// Number of the last row.
    number: i64,
    runs: Vec<Run>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Live {
    input: Input,
    partitions: BTreeMap<i32, Checked>,
    fold: Fold,
    dead: BTreeMap<&'static str, i64>,
}

impl Live {
    /// Of an empty table and a topic of so many partitions.
    #[must_use]
    pub fn new(input: Input, partitions: i32) -> Self {
        Self {
            input,
            partitions: (0..partitions)
                .map(|one| (one, Checked::default()))
                .collect(),
            fold: Fold::default(),
            dead: BTreeMap::new(),
        }
    }

    /// The last checked offset of every partition.
    #[must_use]
    pub fn checked(&self) -> BTreeMap<i32, i64> {
        let all = self.partitions.iter();
        all.map(|(partition, checked)| (*partition, checked.next))
            .collect()
    }

    /// Rows that the log has to hold below the checked offsets.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.partitions.values().map(|checked| checked.rows).sum()
    }

    /// Records, emitted, filtered and dead below the checked offsets.
    #[must_use]
    pub fn ledger(&self) -> [i64; 4] {
        let mut sum = [0; 4];
        for checked in self.partitions.values() {
            for (all, one) in sum.iter_mut().zip(checked.ledger) {
                *all += one;
            }
        }
        sum
    }

    /// Dead letters by code below the checked offsets.
    #[must_use]
    pub fn dead(&self) -> &BTreeMap<&'static str, i64> {
        &self.dead
    }

    /// The fold of the rows that were seen.
    #[must_use]
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// Which version wrote which offsets.
    #[must_use]
    pub fn runs(&self) -> BTreeMap<i32, Vec<Run>> {
        let all = self.partitions.iter();
        all.map(|(partition, checked)| (*partition, checked.runs.clone()))
            .collect()
    }

    /// The version of the newest row of a partition.
    #[must_use]
    pub fn version(&self, partition: i32) -> Option<&str> {
        let run = self.partitions.get(&partition)?.runs.last()?;
        Some(&run.version)
    }

    /// Keys that records between the last checked offsets and these positions write.
    #[must_use]
    pub fn touched(&self, positions: &[Position]) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        for Position {
            partition, next, ..
        } in positions
        {
            let from = self.partitions.get(partition).map_or(0, |known| known.next);
            for offset in from..*next {
                if let Fate::Emitted(emitted) = self.input.fate(*partition, offset) {
                    touched.insert(emitted.id);
                }
            }
        }
        touched
    }

    /// Compares a snapshot with the input, and goes on from its positions, faults or not.
    pub fn check(&mut self, snapshot: &Snapshot) -> Faults {
        let mut faults = Faults::default();
        let touched = self.touched(&snapshot.positions);
        for position in &snapshot.positions {
            self.partition(position, snapshot, &mut faults);
        }
        let foreign = |partition: i32| !self.partitions.contains_key(&partition);
        for row in snapshot.rows.iter().filter(|row| foreign(row.partition)) {
            faults.add(Kind::Foreign, format!("{row:?}"));
        }
        if let Some(latest) = &snapshot.latest {
            for id in &touched {
                let (seen, wanted) = (latest.get(id), self.fold.get(id));
                if seen != wanted {
                    faults.add(
                        Kind::Inconsistent,
                        format!(
                            "upserted key {id} is {seen:?}, at the position it has to be {wanted:?}"
                        ),
                    );
                }
            }
        }
        faults
    }

    fn partition(&mut self, position: &Position, snapshot: &Snapshot, faults: &mut Faults) {
        let (partition, next) = (position.partition, position.next);
        let input = self.input;
        let Some(checked) = self.partitions.get_mut(&partition) else {
            faults.add(
                Kind::Foreign,
                format!("partition {partition} is not of the topic"),
            );
            return;
        };
        if next < checked.next {
            let text = format!(
                "partition {partition} went back from {} to {next}",
                checked.next
            );
            faults.add(Kind::Inconsistent, text);
            return;
        }
        let mut rows: Vec<&Row> = snapshot
            .rows
            .iter()
            .filter(|row| row.partition == partition)
            .collect();
        rows.sort_by_key(|row| row.number);
        checked.in_order(&rows, faults);
        let mut by_offset: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
        for row in rows {
            by_offset.entry(row.offset).or_default().push(row);
        }
        let mut letters: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
        let own = snapshot.letters.iter();
        for letter in own.filter(|letter| letter.partition == partition) {
            letters.entry(letter.offset).or_default().push(&letter.code);
        }
        for offset in checked.next..next {
            let rows = by_offset.remove(&offset).unwrap_or_default();
            let letters = letters.remove(&offset).unwrap_or_default();
            let place = format!("partition {partition} offset {offset}");
            checked.ledger[0] += 1;
            match input.fate(partition, offset) {
                Fate::Filtered => {
                    checked.ledger[2] += 1;
                    nothing(&place, "filtered", &rows, &letters, faults);
                }
                Fate::Dead(code) => {
                    checked.ledger[3] += 1;
                    *self.dead.entry(code).or_default() += 1;
                    nothing(&place, "dead", &rows, &[], faults);
                    match letters[..] {
                        [] => faults.add(Kind::Lost, format!("{place}: no dead letter {code}")),
                        [one] if one == code => {}
                        [one] => faults.add(
                            Kind::Inconsistent,
                            format!("{place}: dead as {one}, it has to be {code}"),
                        ),
                        _ => faults.add(Kind::Doubled, format!("{place}: {letters:?}")),
                    }
                }
                Fate::Emitted(wanted) => {
                    checked.ledger[1] += 1;
                    checked.rows += i64::from(wanted.rows);
                    nothing(&place, "emitted", &[], &letters, faults);
                    emitted(&place, &wanted, &rows, faults);
                    if let Some(row) = rows.first() {
                        checked.run(offset, &row.version);
                        let last = wanted.seq.map(|seq| Last {
                            seq,
                            partition,
                            offset,
                            version: row.version.clone(),
                        });
                        self.fold.put(&wanted.id, last);
                    }
                }
            }
        }
        // I4: nothing is there that the position does not cover.
        for (offset, rows) in by_offset.range(next.min(checked.next)..) {
            faults.add(
                Kind::Inconsistent,
                format!("partition {partition} at {next}, and offset {offset} has rows: {rows:?}"),
            );
        }
        for (offset, codes) in letters {
            faults.add(
                Kind::Inconsistent,
                format!("partition {partition} at {next}, and offset {offset} is dead: {codes:?}"),
            );
        }
        checked.next = next;
        if let Some(ledger) = position.ledger.filter(|seen| *seen != checked.ledger) {
            faults.add(
                Kind::Inconsistent,
                format!(
                    "partition {partition} at {next}: the ledger is {ledger:?}, the input says {:?}",
                    checked.ledger
                ),
            );
        }
    }
}

impl Checked {
    /// I3: rows arrive in the order of their offsets.
    fn in_order(&mut self, rows: &[&Row], faults: &mut Faults) {
        let mut before: Option<&Row> = None;
        for row in rows {
            if row.number <= self.number {
                let text = format!("{row:?} arrived before number {}", self.number);
                faults.add(Kind::Disorder, text);
            }
            if let Some(before) = before
                && (row.offset, row.index) < (before.offset, before.index)
            {
                faults.add(Kind::Disorder, format!("{row:?} after {before:?}"));
            }
            before = Some(row);
        }
        if let Some(last) = before {
            self.number = self.number.max(last.number);
        }
    }

    fn run(&mut self, offset: i64, version: &str) {
        match self.runs.last_mut() {
            Some(run) if run.version == version => run.last = offset,
            _ => self.runs.push(Run {
                version: version.to_owned(),
                first: offset,
                last: offset,
            }),
        }
    }
}

/// I7: what is one thing is not another too.
fn nothing(place: &str, is: &str, rows: &[&Row], letters: &[&str], faults: &mut Faults) {
    if !rows.is_empty() || !letters.is_empty() {
        faults.add(
            Kind::Inconsistent,
            format!("{place} has to be {is} only: {rows:?} {letters:?}"),
        );
    }
}

/// The rows of one record: each once, of one version, as the record says.
fn emitted(place: &str, wanted: &Emitted, rows: &[&Row], faults: &mut Faults) {
    for index in 0..wanted.rows {
        let count = rows.iter().filter(|row| row.index == index).count();
        match count {
            0 => faults.add(Kind::Lost, format!("{place}: row {index} of {wanted:?}")),
            1 => {}
            _ => faults.add(
                Kind::Doubled,
                format!("{place}: row {index}, {count} times: {rows:?}"),
            ),
        }
    }
    for row in rows {
        let same = row.index < wanted.rows && row.id == wanted.id && row.seq == wanted.seq;
        if !same {
            let text = format!("{place}: {row:?} instead of {wanted:?}");
            faults.add(Kind::Inconsistent, text);
        }
        if row.version != rows[0].version {
            let text = format!("{place}: written by two versions: {rows:?}");
            faults.add(Kind::Inconsistent, text);
        }
    }
}
