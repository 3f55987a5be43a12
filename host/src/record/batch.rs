//! [`Batch`]: an ordered run of records of one topic-partition, in one arena of bytes.
//!
//! It owns the bytes of keys, values and headers; a [`Record`] borrows one record of it. It is reused:
//! [`Batch::clear`] keeps the capacity. It never copies a record twice and knows nothing of brokers.

use std::ops::Range;

/// Bits of a record's marks, as in the WIT interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark;

impl Mark {
    /// The key is null.
    pub const NULL_KEY: u8 = 1;
    /// The value is null: a tombstone.
    pub const NULL_VALUE: u8 = 2;
    /// The broker assigned the timestamp.
    pub const LOG_APPEND_TIME: u8 = 4;
}

/// An ordered run of records of one topic-partition.
///
/// Offsets ascend and may have gaps. The batch covers the half-open range [`Batch::from`] to
/// [`Batch::to`]; `from` equals the `to` of the batch before it in the lane.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    partition: i32,
    from: i64,
    data: Vec<u8>,
    ends: Vec<u32>,
    marks: Vec<u8>,
    timestamps: Vec<i64>,
    offsets: Vec<i64>,
    header_data: Vec<u8>,
    header_ends: Vec<u32>,
}

/// One record of a [`Batch`], borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Key bytes, `None` for a null key.
    pub key: Option<&'a [u8]>,
    /// Value bytes, `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970-01-01 UTC, −1 for none.
    pub timestamp: i64,
    /// Offset in the partition.
    pub offset: i64,
    /// A `headers` cell value: s32 count, then (name, value) cells; empty when headers are not fetched.
    pub headers: &'a [u8],
    /// [`Mark`] bits.
    pub marks: u8,
}

impl Batch {
    /// An empty batch of a partition that starts at position `from`.
    #[must_use]
    pub fn new(partition: i32, from: i64) -> Self {
        Self {
            partition,
            from,
            ..Self::default()
        }
    }

    /// Empties the batch for reuse, keeping its capacity.
    pub fn clear(&mut self, partition: i32, from: i64) {
        self.partition = partition;
        self.from = from;
        self.data.clear();
        self.ends.clear();
        self.marks.clear();
        self.timestamps.clear();
        self.offsets.clear();
        self.header_data.clear();
        self.header_ends.clear();
    }

    /// Appends a record. `headers` is a `headers` cell value, empty when headers are not asked for.
    ///
    /// The caller keeps [`Batch::bytes`] below 2 GiB (the source's batch limit is far below).
    pub fn push(&mut self, record: Record<'_>) {
        debug_assert!(self.offsets.last().is_none_or(|last| *last < record.offset));
        let mut marks = record.marks & Mark::LOG_APPEND_TIME;
        match record.key {
            Some(key) => self.data.extend_from_slice(key),
            None => marks |= Mark::NULL_KEY,
        }
        self.ends.push(end(&self.data));
        match record.value {
            Some(value) => self.data.extend_from_slice(value),
            None => marks |= Mark::NULL_VALUE,
        }
        self.ends.push(end(&self.data));
        self.marks.push(marks);
        self.timestamps.push(record.timestamp);
        self.offsets.push(record.offset);
        self.header_data.extend_from_slice(record.headers);
        self.header_ends.push(end(&self.header_data));
    }

    /// Appends the records of the batch that follows this one in the partition (one copy of its bytes).
    pub fn append(&mut self, next: &Self) {
        for record in next.iter() {
            self.push(record);
        }
    }

    /// Takes the records at or above `at` off this batch, as the batch that follows it and starts at `at` (one
    /// copy of their bytes).
    #[must_use]
    pub fn split_off(&mut self, at: i64) -> Self {
        let keep = self.offsets.partition_point(|offset| *offset < at);
        let mut tail = Self::new(self.partition, at);
        for index in keep..self.len() {
            tail.push(self.record(index));
        }
        self.ends.truncate(2 * keep);
        self.data
            .truncate(self.ends.last().map_or(0, |end| *end as usize));
        self.header_ends.truncate(keep);
        self.header_data
            .truncate(self.header_ends.last().map_or(0, |end| *end as usize));
        self.marks.truncate(keep);
        self.timestamps.truncate(keep);
        self.offsets.truncate(keep);
        tail
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes of keys, values and headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() + self.header_data.len()
    }

    /// The partition all records come from.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Position before the first record.
    #[must_use]
    pub fn from(&self) -> i64 {
        self.from
    }

    /// Position after the last record; `from` when empty.
    #[must_use]
    pub fn to(&self) -> i64 {
        self.offsets.last().map_or(self.from, |last| last + 1)
    }

    /// Offset of each record.
    #[must_use]
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// Timestamp of each record, milliseconds, −1 for none.
    #[must_use]
    pub fn timestamps(&self) -> &[i64] {
        &self.timestamps
    }

    /// [`Mark`] bits of each record.
    #[must_use]
    pub fn marks(&self) -> &[u8] {
        &self.marks
    }

    /// The record at `index`; panics past the end like a slice.
    #[must_use]
    pub fn record(&self, index: usize) -> Record<'_> {
        let marks = self.marks[index];
        let start = if index == 0 {
            0
        } else {
            self.ends[2 * index - 1] as usize
        };
        let middle = self.ends[2 * index] as usize;
        let stop = self.ends[2 * index + 1] as usize;
        let headers = if index == 0 {
            0
        } else {
            self.header_ends[index - 1] as usize
        };
        Record {
            key: (marks & Mark::NULL_KEY == 0).then(|| &self.data[start..middle]),
            value: (marks & Mark::NULL_VALUE == 0).then(|| &self.data[middle..stop]),
            timestamp: self.timestamps[index],
            offset: self.offsets[index],
            headers: &self.header_data[headers..self.header_ends[index] as usize],
            marks,
        }
    }

    /// All records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        (0..self.len()).map(|index| self.record(index))
    }

    /// The half-open range of positions that the records `range` (indices) cover: it starts where the
    /// record before ends (or at [`Batch::from`]) and ends after the last one.
    #[must_use]
    pub fn positions(&self, range: &Range<usize>) -> Range<i64> {
        let from = if range.start == 0 {
            self.from
        } else {
            self.offsets[range.start - 1] + 1
        };
        let to = if range.end == 0 {
            from
        } else {
            self.offsets[range.end - 1] + 1
        };
        from..to
    }
}

fn end(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("a batch stays far below 4 GiB: the source bounds it in bytes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn record<'a>(offset: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Record<'a> {
        Record {
            key,
            value,
            timestamp: 5,
            offset,
            headers: b"",
            marks: 0,
        }
    }

    #[test]
    fn keeps_records_apart_and_tells_null_from_empty() {
        let mut batch = Batch::new(3, 10);
        batch.push(record(10, Some(b"k"), Some(b"value")));
        batch.push(record(12, None, Some(b"")));
        batch.push(record(15, Some(b""), None));
        assert_eq!((batch.from(), batch.to(), batch.len()), (10, 16, 3));
        assert_eq!(batch.record(0).value, Some(&b"value"[..]));
        assert_eq!(batch.record(1).key, None);
        assert_eq!(batch.record(1).value, Some(&b""[..]));
        assert_eq!(batch.record(2).key, Some(&b""[..]));
        assert_eq!(batch.record(2).value, None);
        assert_eq!(batch.positions(&(0..3)), 10..16);
        assert_eq!(batch.positions(&(1..2)), 11..13);
        batch.clear(4, 16);
        assert!(batch.is_empty());
        assert_eq!(batch.to(), 16);
    }

    #[test]
    fn a_batch_splits_at_an_offset_and_joins_again() {
        let full = || {
            let mut batch = Batch::new(3, 10);
            for offset in [10, 12, 15] {
                batch.push(Record {
                    key: (offset != 12).then_some(b"k".as_slice()),
                    value: Some(format!("value {offset}").as_bytes()),
                    timestamp: offset * 7,
                    offset,
                    headers: &[0, 0, 0, 0],
                    marks: 0,
                });
            }
            batch
        };
        for at in 9..18 {
            let mut head = full();
            let tail = head.split_off(at);
            assert_eq!((head.from(), tail.from(), tail.partition()), (10, at, 3));
            assert!(head.offsets().iter().all(|offset| *offset < at));
            assert!(tail.offsets().iter().all(|offset| *offset >= at));
            head.append(&tail);
            assert_eq!(format!("{head:?}"), format!("{:?}", full()), "at {at}");
        }
    }
}
