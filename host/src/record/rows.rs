//! [`Fields`] and [`RowBatch`]: cells on their way into a plugin and out of it.
//!
//! Both hold cells already checked; nobody downstream checks them again.

use std::ops::Range;

/// The decoded fields of the records of a batch that decoded, ready for the guest.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// Cells of every kept record, in `describe` order.
    pub cells: Vec<u8>,
    /// One per kept record: where its cells end.
    pub ends: Vec<u32>,
    /// One per kept record: its index in the [`super::Batch`], ascending.
    pub kept: Vec<u32>,
}

impl Fields {
    /// Empties for reuse, keeping the capacity.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.ends.clear();
        self.kept.clear();
    }

    /// Number of kept records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether no record was kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

/// What a row does to its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Insert or update.
    Write,
    /// Delete by key; every cell outside the key is unset.
    Delete,
}

/// Checked rows of one route, in (offset, row) order: cells fit the columns, nothing refers back to the
/// source record any more.
#[derive(Clone, Debug, Default)]
pub struct RowBatch {
    cells: Vec<u8>,
    ends: Vec<u32>,
    sources: Vec<u32>,
    ops: Vec<Op>,
}

/// One row, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef<'a> {
    /// Its cells, in column order.
    pub cells: &'a [u8],
    /// Index in the batch of the record it came from.
    pub source: u32,
    /// Write or delete.
    pub op: Op,
}

impl RowBatch {
    /// Empties for reuse, keeping the capacity.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.ends.clear();
        self.sources.clear();
        self.ops.clear();
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all cells.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.cells.len()
    }

    /// The buffer the next row's cells are appended to; close the row with [`RowBatch::finish_row`] or take
    /// it back with [`RowBatch::abandon_row`].
    pub fn cells_mut(&mut self) -> &mut Vec<u8> {
        &mut self.cells
    }

    /// Ends the row whose cells were appended since the last one. Sources ascend.
    pub fn finish_row(&mut self, source: u32, op: Op) {
        debug_assert!(self.sources.last().is_none_or(|last| *last <= source));
        self.ends
            .push(u32::try_from(self.cells.len()).expect("output is capped far below 4 GiB"));
        self.sources.push(source);
        self.ops.push(op);
    }

    /// Drops cells appended since the last finished row.
    pub fn abandon_row(&mut self) {
        self.cells
            .truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    /// Drops every row after the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.sources.truncate(rows);
        self.ops.truncate(rows);
        self.abandon_row();
    }

    /// Appends a whole row.
    pub fn push(&mut self, row: RowRef<'_>) {
        self.cells.extend_from_slice(row.cells);
        self.finish_row(row.source, row.op);
    }

    /// The row at `index`; panics past the end like a slice.
    #[must_use]
    pub fn row(&self, index: usize) -> RowRef<'_> {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] as usize
        };
        RowRef {
            cells: &self.cells[start..self.ends[index] as usize],
            source: self.sources[index],
            op: self.ops[index],
        }
    }

    /// Index in the batch of the record the row at `index` came from.
    #[must_use]
    pub fn source(&self, index: usize) -> u32 {
        self.sources[index]
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RowRef<'_>> {
        (0..self.len()).map(|index| self.row(index))
    }

    /// The rows (indices) whose source lies in the records `range` (batch indices).
    #[must_use]
    pub fn rows_of(&self, range: &Range<usize>) -> Range<usize> {
        let first = self
            .sources
            .partition_point(|source| (*source as usize) < range.start);
        let last = self
            .sources
            .partition_point(|source| (*source as usize) < range.end);
        first..last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_source() {
        let mut rows = RowBatch::default();
        for (source, cells) in [(0, "a"), (2, "bb"), (2, "c"), (5, "d")] {
            rows.push(RowRef {
                cells: cells.as_bytes(),
                source,
                op: Op::Write,
            });
        }
        assert_eq!(rows.rows_of(&(0..2)), 0..1);
        assert_eq!(rows.rows_of(&(2..3)), 1..3);
        assert_eq!(rows.rows_of(&(3..5)), 3..3);
        assert_eq!(rows.row(2).cells, b"c");
        rows.cells_mut().extend_from_slice(b"half a row");
        rows.abandon_row();
        rows.truncate(2);
        assert_eq!((rows.len(), rows.bytes()), (2, 3));
    }
}
