//! [`Merger`]: the rows of a batch, at most one a primary key.
//!
//! Owns the fold that a keyed sink needs before it writes: Postgres refuses a key twice in one upsert, and
//! Cassandra would decide a tie cell by cell. Rows come checked, so equal keys have equal bytes. It never
//! looks at a table and never drops a key. Its outcome equals applying the rows one by one:
//!
//! * without a guard the last row wins cell by cell (an unset cell leaves the earlier one); a delete clears
//!   all before it, and a write after a delete has null where it is unset, because the delete has emptied
//!   the row the table may hold;
//! * with a guard the row with the greatest guard wins whole; of equal ones the later.
//!
//! A merged row stands where its last contributing row stood and carries that row's source, so sources
//! ascend. Buffers are kept from batch to batch; when no key repeats, rows are copied as they are.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use crate::record::cells::{
    Cell, Reader, get_decimal, get_float32, get_float64, get_int16, get_int32, get_int64, put_null,
};
use crate::record::decimal::Exact;
use crate::record::{Column, Op, RowBatch, RowRef, Type};

/// No row, no group.
const NONE: u32 = u32::MAX;

/// Merges the rows of one route by key. One per lane and route: it holds buffers.
#[derive(Clone, Debug)]
pub struct Merger {
    /// Key columns, ascending.
    key: Vec<usize>,
    columns: usize,
    guard: Option<(usize, Type)>,
    /// Makes it impossible to send keys that all collide; no outcome depends on it.
    seed: u64,
    keys: Vec<u8>,
    ends: Vec<usize>,
    /// Open addressing by hash: a group, or [`NONE`].
    table: Vec<u32>,
    groups: Vec<Group>,
    /// For each row the row of the same key before it, or [`NONE`].
    before: Vec<u32>,
    /// For each row the group it belongs to.
    group_of: Vec<u32>,
    picked: Vec<Option<(u32, Range<usize>)>>,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    hash: u64,
    /// The row whose key bytes stand for the group.
    first: u32,
    /// The last row of the key; with a guard the winner.
    last: u32,
    rows: u32,
}

impl Merger {
    /// A merger for rows of `columns` by the columns `key` (indices, at least one).
    ///
    /// `guard` is a column with an order (see [`crate::route::Rules::of`]).
    #[must_use]
    pub fn new(key: &[usize], columns: &[Column], guard: Option<usize>) -> Self {
        let mut key = key.to_vec();
        key.sort_unstable();
        Self {
            key,
            columns: columns.len(),
            guard: guard.map(|guard| (guard, columns[guard].ty.clone())),
            seed: RandomState::new().hash_one(0_u8),
            keys: Vec::new(),
            ends: Vec::new(),
            table: Vec::new(),
            groups: Vec::new(),
            before: Vec::new(),
            group_of: Vec::new(),
            picked: Vec::new(),
        }
    }

    /// Appends the merged rows of `range` (row indices, see [`RowBatch::rows_of`]) to `out`.
    pub fn merge(&mut self, rows: &RowBatch, range: Range<usize>, out: &mut RowBatch) {
        let first = range.start;
        let count = range.len();
        self.group(rows, range);
        let distinct = self.groups.len() == count;
        for at in 0..count {
            let group = self.groups[self.group_of[at] as usize];
            if group.last as usize != at {
                continue;
            }
            let row = rows.row(first + at);
            if distinct || group.rows == 1 || self.guard.is_some() || row.op == Op::Delete {
                out.push(row);
            } else {
                self.fold(rows, first, at, out);
            }
        }
    }

    /// Finds which rows share a key.
    fn group(&mut self, rows: &RowBatch, range: Range<usize>) {
        let first = range.start;
        self.keys.clear();
        self.ends.clear();
        self.groups.clear();
        self.before.clear();
        self.group_of.clear();
        let slots = (range.len() * 2).next_power_of_two().max(16);
        self.table.clear();
        self.table.resize(slots, NONE);
        for at in 0..range.len() {
            let row = rows.row(first + at);
            let start = self.keys.len();
            self.copy_key(row.cells);
            self.ends.push(self.keys.len());
            let hash = hash(self.seed, &self.keys[start..]);
            let index = index(at);
            let mut slot = position(hash, slots);
            let group = loop {
                match self.table[slot] {
                    NONE => break None,
                    group if self.is_key_of(group, hash, start) => break Some(group),
                    _ => slot = (slot + 1) % slots,
                }
            };
            let Some(number) = group else {
                self.table[slot] = self::index(self.groups.len());
                self.group_of.push(self.table[slot]);
                self.before.push(NONE);
                self.groups.push(Group {
                    hash,
                    first: index,
                    last: index,
                    rows: 1,
                });
                continue;
            };
            let winner = rows.row(first + self.groups[number as usize].last as usize);
            let wins = match &self.guard {
                None => true,
                Some((column, ty)) => {
                    compare(ty, nth(row.cells, *column), nth(winner.cells, *column)).is_ge()
                }
            };
            let group = &mut self.groups[number as usize];
            self.group_of.push(number);
            self.before.push(group.last);
            group.rows += 1;
            if wins {
                group.last = index;
            }
        }
    }

    fn copy_key(&mut self, cells: &[u8]) {
        let mut reader = Reader::new(cells);
        let mut read = 0;
        for column in &self.key {
            let mut start = cells.len() - reader.rest().len();
            while read <= *column {
                start = cells.len() - reader.rest().len();
                reader.cell().expect("a row batch holds checked cells");
                read += 1;
            }
            self.keys
                .extend_from_slice(&cells[start..cells.len() - reader.rest().len()]);
        }
    }

    fn is_key_of(&self, group: u32, hash: u64, start: usize) -> bool {
        let group = &self.groups[group as usize];
        let first = group.first as usize;
        let from = if first == 0 { 0 } else { self.ends[first - 1] };
        group.hash == hash && self.keys[from..self.ends[first]] == self.keys[start..]
    }

    /// Appends the fold of the rows that share the key of row `last`, a write.
    fn fold(&mut self, rows: &RowBatch, first: usize, last: usize, out: &mut RowBatch) {
        self.picked.clear();
        self.picked.resize(self.columns, None);
        let mut missing = self.columns;
        let mut cleared = false;
        let mut at = index(last);
        // Backwards, so that each column is taken once; done when none is missing or all before is cleared.
        while at != NONE && missing > 0 && !cleared {
            let row = rows.row(first + at as usize);
            if row.op == Op::Delete {
                cleared = true;
                break;
            }
            let mut reader = Reader::new(row.cells);
            for picked in &mut self.picked {
                let start = row.cells.len() - reader.rest().len();
                let cell = reader.cell().expect("a row batch holds checked cells");
                if picked.is_none() && cell != Cell::Unset {
                    *picked = Some((at, start..row.cells.len() - reader.rest().len()));
                    missing -= 1;
                }
            }
            at = self.before[at as usize];
        }
        let RowRef { source, op, .. } = rows.row(first + last);
        let cells = out.cells_mut();
        for picked in &self.picked {
            match picked {
                Some((at, range)) => {
                    cells.extend_from_slice(&rows.row(first + *at as usize).cells[range.clone()]);
                }
                None if cleared => put_null(cells),
                None => crate::record::cells::put_unset(cells),
            }
        }
        out.finish_row(source, op);
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("a row takes four bytes at least and a row batch stays below 4 GiB")
}

fn position(hash: u64, slots: usize) -> usize {
    // The upper half is the better mixed one; `slots` is a power of two far below 2^32.
    usize::try_from(hash >> 32).expect("32 bits") & (slots - 1)
}

/// A seeded multiply-and-fold over eight bytes a step.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| {
        let wide = u128::from(state ^ word) * u128::from(ODD ^ seed.rotate_left(32) | 1);
        let bytes = wide.to_le_bytes();
        let (low, high) = bytes.split_at(8);
        let half =
            |part: &[u8]| u64::from_le_bytes(part.try_into().expect("half of sixteen bytes"));
        half(low) ^ half(high)
    };
    let mut state = seed ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        state = mix(
            state,
            u64::from_le_bytes(chunk.try_into().expect("chunks of eight")),
        );
    }
    let mut tail = [0; 8];
    tail[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    let state = mix(state, u64::from_le_bytes(tail));
    mix(state, ODD)
}

/// The value of the cell at `column`; `None` for null (which checked rows do not have in a guard).
fn nth(cells: &[u8], column: usize) -> Option<&[u8]> {
    let mut reader = Reader::new(cells);
    for _ in 0..column {
        reader.cell().expect("a row batch holds checked cells");
    }
    match reader.cell().expect("a row batch holds checked cells") {
        Cell::Value(value) => Some(value),
        _ => None,
    }
}

/// Order of two guard values, as Postgres has it: NaN is greatest and equals itself; null is least.
fn compare(ty: &Type, left: Option<&[u8]>, right: Option<&[u8]>) -> Ordering {
    let (Some(left), Some(right)) = (left, right) else {
        return left.is_some().cmp(&right.is_some());
    };
    let floats = |left: f64, right: f64| {
        left.partial_cmp(&right)
            .unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
    };
    match ty {
        Type::Int16 => get_int16(left).cmp(&get_int16(right)),
        Type::Int32 | Type::Date => get_int32(left).cmp(&get_int32(right)),
        Type::Int64 | Type::Timestamp | Type::Time => get_int64(left).cmp(&get_int64(right)),
        Type::Float32 => floats(get_float32(left).into(), get_float32(right).into()),
        Type::Float64 => floats(get_float64(left), get_float64(right)),
        Type::Decimal { scale, .. } => {
            let unscaled = |value: &[u8]| {
                let (unscaled, own) = get_decimal(value);
                Exact::from_parts(unscaled, own).and_then(|value| value.unscaled(i32::from(*scale)))
            };
            unscaled(left).cmp(&unscaled(right))
        }
        _ => left.cmp(right),
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
