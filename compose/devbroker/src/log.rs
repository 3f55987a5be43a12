//! The log of one partition: append, read, trim, and what read-committed readers may see of it.
//!
//! Owns the stored batches, the sequence numbers of producers and the open and aborted transactions. Never waits
//! and does no I/O. Offsets are positions: ranges are half-open, `end` is the next offset to be written.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

use crate::batch::{self, Header, Outcome};
use crate::sequence::{Sequences, Verdict};

/// Which records a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// All of them.
    Uncommitted,
    /// Only up to the first open transaction, with the list of aborted ones to skip.
    Committed,
}

/// How much one read may return.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Bytes of batches.
    pub(crate) bytes: usize,
    /// Whether a first batch larger than `bytes` is returned all the same, so that readers always get on.
    pub(crate) first_always: bool,
}

/// A transaction that was rolled back: records of the producer from `first` up to the marker are to be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first: i64,
    marker: i64,
}

/// What a read found.
#[derive(Debug)]
pub(crate) struct Slice {
    /// Whole batches, in order; the first may begin before the position asked for.
    pub(crate) records: Bytes,
    /// Aborted transactions that touch `records`, by first offset; empty for uncommitted readers.
    pub(crate) aborted: Vec<Aborted>,
}

#[derive(Debug)]
struct Stored {
    base: i64,
    header: Header,
    data: Bytes,
}

impl Stored {
    fn end(&self) -> i64 {
        self.base + self.header.span
    }
}

/// One partition's records, in memory.
#[derive(Debug, Default)]
pub(crate) struct PartitionLog {
    batches: VecDeque<Stored>,
    start: i64,
    end: i64,
    producers: HashMap<i64, Sequences>,
    /// First offset of each producer's open transaction.
    open: BTreeMap<i64, i64>,
    /// In the order they were aborted.
    aborted: Vec<Aborted>,
}

impl PartitionLog {
    /// The first offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The next offset to be written.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Where read-committed readers stop: the first offset of the oldest open transaction, else the end.
    pub(crate) fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    /// The end as a reader of this isolation sees it.
    pub(crate) fn visible_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::Uncommitted => self.end,
            Isolation::Committed => self.last_stable(),
        }
    }

    /// Stores one batch as it came from a client, and returns the offset of its first record; a repeat of an
    /// idempotent producer's batch returns the offset of the first time.
    ///
    /// # Errors
    /// Those of [`Header::check`] and [`Sequences::judge`]; `InvalidRecord` for a control batch.
    pub(crate) fn append(&mut self, batch: &[u8]) -> Result<i64, ResponseError> {
        let header = Header::check(batch)?;
        if header.is_control() {
            return Err(ResponseError::InvalidRecord);
        }
        if header.producer_id >= 0 {
            let sequences = self.producers.entry(header.producer_id).or_default();
            if let Verdict::Repeat(base) = sequences.judge(&header)? {
                return Ok(base);
            }
            sequences.accept(&header, self.end);
            if header.is_transactional() {
                self.open.entry(header.producer_id).or_insert(self.end);
            }
        }
        Ok(self.store(header, batch))
    }

    /// Ends a producer's transaction in this partition with a marker.
    pub(crate) fn end_transaction(
        &mut self,
        producer_id: i64,
        epoch: i16,
        outcome: Outcome,
        now_ms: i64,
    ) {
        let marker = batch::marker(producer_id, epoch, outcome, now_ms);
        let header = Header::check(&marker).expect("our own marker is a valid batch");
        let at = self.store(header, &marker);
        let first = self.open.remove(&producer_id);
        if let (Outcome::Abort, Some(first)) = (outcome, first) {
            self.aborted.push(Aborted {
                producer_id,
                first,
                marker: at,
            });
        }
    }

    fn store(&mut self, header: Header, batch: &[u8]) -> i64 {
        let base = self.end;
        self.batches.push_back(Stored {
            base,
            header,
            data: batch::placed_at(batch, base),
        });
        self.end = base + header.span;
        base
    }

    /// Reads whole batches from the one that holds `from` on.
    ///
    /// # Errors
    /// `OffsetOutOfRange` when `from` lies before the start or past the end.
    pub(crate) fn read(
        &self,
        from: i64,
        isolation: Isolation,
        budget: Budget,
    ) -> Result<Slice, ResponseError> {
        if from < self.start || from > self.end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let limit = self.visible_end(isolation);
        let first = self.batches.partition_point(|b| b.end() <= from);
        let mut chosen = Vec::new();
        let mut bytes = 0;
        for stored in self.batches.range(first..) {
            let fits = bytes + stored.data.len() <= budget.bytes
                || (chosen.is_empty() && budget.first_always);
            if stored.base >= limit || !fits {
                break;
            }
            bytes += stored.data.len();
            chosen.push(stored);
        }
        let read_to = chosen.last().map_or(from, |stored| stored.end());
        let aborted = match isolation {
            Isolation::Uncommitted => Vec::new(),
            Isolation::Committed => self.aborted_within(from, read_to),
        };
        let records = match chosen.as_slice() {
            [one] => one.data.clone(),
            many => {
                let mut records = BytesMut::with_capacity(bytes);
                for stored in many {
                    records.extend_from_slice(&stored.data);
                }
                records.freeze()
            }
        };
        Ok(Slice { records, aborted })
    }

    fn aborted_within(&self, from: i64, to: i64) -> Vec<Aborted> {
        let mut within: Vec<_> = self
            .aborted
            .iter()
            .copied()
            .filter(|a| a.marker >= from && a.first < to)
            .collect();
        within.sort_by_key(|a| a.first);
        within
    }

    /// Moves the start to `start`, as retention would, and frees the batches before it. Never moves backwards.
    ///
    /// # Errors
    /// `OffsetOutOfRange` when `start` is negative or past the end.
    pub(crate) fn trim(&mut self, start: i64) -> Result<(), ResponseError> {
        if start < 0 || start > self.end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        self.start = self.start.max(start);
        while self.batches.front().is_some_and(|b| b.end() <= self.start) {
            self.batches.pop_front();
        }
        let start = self.start;
        self.aborted.retain(|a| a.marker >= start);
        Ok(())
    }

    /// The first readable record with a timestamp at or above `timestamp`, as (offset, timestamp).
    pub(crate) fn at_timestamp(&self, timestamp: i64) -> Option<(i64, i64)> {
        let stored = self
            .batches
            .iter()
            .find(|b| b.header.max_timestamp >= timestamp)?;
        let (delta, at) = batch::first_at_or_after(&stored.header, &stored.data, timestamp);
        Some(((stored.base + delta).max(self.start), at))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::batch::sample::{PLAIN, Writer, batch};

    const ALL: Budget = Budget {
        bytes: usize::MAX,
        first_always: true,
    };

    fn filled(batches: usize, records: usize) -> PartitionLog {
        let mut log = PartitionLog::default();
        for i in 0..batches {
            let base = log
                .append(&batch(
                    PLAIN,
                    i64::try_from(i).unwrap() * 1_000,
                    &vec![0; records],
                ))
                .unwrap();
            assert_eq!(base, i64::try_from(i * records).unwrap());
        }
        log
    }

    /// Base offsets of the batches in a slice.
    fn bases(slice: &Slice) -> Vec<i64> {
        let mut rest = &slice.records[..];
        let mut bases = Vec::new();
        while !rest.is_empty() {
            bases.push(i64::from_be_bytes(rest[..8].try_into().unwrap()));
            let length = u32::from_be_bytes(rest[8..12].try_into().unwrap());
            rest = &rest[12 + usize::try_from(length).unwrap()..];
        }
        bases
    }

    fn producer(id: i64, sequence: i32) -> Writer {
        Writer {
            id,
            epoch: 0,
            sequence,
            transactional: true,
        }
    }

    #[test]
    fn reads_start_at_the_batch_that_holds_the_offset() {
        let log = filled(3, 2);
        let read = |from| bases(&log.read(from, Isolation::Uncommitted, ALL).unwrap());
        assert_eq!(read(0), [0, 2, 4]);
        assert_eq!(read(3), [2, 4]);
        assert_eq!(read(6), [] as [i64; 0]);
    }

    #[test]
    fn reads_outside_the_log_are_refused() {
        let mut log = filled(3, 2);
        log.trim(2).unwrap();
        for from in [-1, 0, 1, 7] {
            let refused = log.read(from, Isolation::Uncommitted, ALL).unwrap_err();
            assert_eq!(refused, ResponseError::OffsetOutOfRange, "offset {from}");
        }
        assert_eq!(
            bases(&log.read(2, Isolation::Uncommitted, ALL).unwrap()),
            [2, 4]
        );
    }

    #[test]
    fn the_budget_cuts_at_whole_batches_and_lets_a_first_one_pass() {
        let log = filled(3, 2);
        let one = log.batches[0].data.len();
        let read = |bytes, first_always| {
            bases(
                &log.read(
                    0,
                    Isolation::Uncommitted,
                    Budget {
                        bytes,
                        first_always,
                    },
                )
                .unwrap(),
            )
            .len()
        };
        assert_eq!(read(one * 2 + 1, false), 2);
        assert_eq!(read(one - 1, true), 1);
        assert_eq!(read(one - 1, false), 0);
    }

    #[test]
    fn trimming_keeps_a_batch_that_is_cut_and_never_goes_back() {
        let mut log = filled(3, 2);
        log.trim(3).unwrap();
        assert_eq!((log.start(), log.end(), log.batches.len()), (3, 6, 2));
        log.trim(1).unwrap();
        assert_eq!(log.start(), 3);
        assert_eq!(log.trim(7), Err(ResponseError::OffsetOutOfRange));
        log.trim(6).unwrap();
        assert!(log.batches.is_empty());
        assert_eq!(log.append(&batch(PLAIN, 0, &[0])), Ok(6));
    }

    #[test]
    fn a_repeat_is_acknowledged_once_stored() {
        let mut log = PartitionLog::default();
        let sent = batch(
            Writer {
                transactional: false,
                ..producer(5, 0)
            },
            0,
            &[0, 0],
        );
        assert_eq!(log.append(&sent), Ok(0));
        assert_eq!(log.append(&sent), Ok(0));
        assert_eq!(log.end(), 2);
    }

    #[test]
    fn a_refused_batch_changes_nothing() {
        let mut log = filled(1, 1);
        let mut bad = batch(PLAIN, 0, &[0]).to_vec();
        bad[30] ^= 1;
        assert_eq!(log.append(&bad), Err(ResponseError::CorruptMessage));
        assert_eq!(
            log.append(&batch::marker(1, 0, Outcome::Commit, 0)),
            Err(ResponseError::InvalidRecord)
        );
        assert_eq!((log.end(), log.batches.len()), (1, 1));
    }

    #[test]
    fn open_transactions_hide_what_follows_and_aborted_ones_are_listed() {
        let mut log = PartitionLog::default();
        log.append(&batch(producer(1, 0), 0, &[0, 0])).unwrap();
        log.append(&batch(PLAIN, 0, &[0])).unwrap();
        assert_eq!((log.last_stable(), log.end()), (0, 3));
        assert!(
            log.read(0, Isolation::Committed, ALL)
                .unwrap()
                .records
                .is_empty()
        );

        log.end_transaction(1, 0, Outcome::Abort, 0);
        assert_eq!((log.last_stable(), log.end()), (4, 4));
        let slice = log.read(0, Isolation::Committed, ALL).unwrap();
        assert_eq!(
            slice.aborted,
            [Aborted {
                producer_id: 1,
                first: 0,
                marker: 3
            }]
        );
        assert!(
            log.read(0, Isolation::Uncommitted, ALL)
                .unwrap()
                .aborted
                .is_empty()
        );
        assert!(
            log.read(4, Isolation::Committed, ALL)
                .unwrap()
                .aborted
                .is_empty()
        );

        log.append(&batch(producer(1, 2), 0, &[0])).unwrap();
        log.end_transaction(1, 0, Outcome::Commit, 0);
        let slice = log.read(4, Isolation::Committed, ALL).unwrap();
        assert_eq!((bases(&slice), slice.aborted), (vec![4, 5], vec![]));
    }

    #[test]
    fn timestamps_find_the_first_record_at_or_after() {
        let mut log = filled(0, 0);
        log.append(&batch(PLAIN, 1_000, &[0, 5, 9])).unwrap();
        log.append(&batch(PLAIN, 2_000, &[0])).unwrap();
        assert_eq!(log.at_timestamp(0), Some((0, 1_000)));
        assert_eq!(log.at_timestamp(1_004), Some((1, 1_005)));
        assert_eq!(log.at_timestamp(1_010), Some((3, 2_000)));
        assert_eq!(log.at_timestamp(2_001), None);
    }
}
