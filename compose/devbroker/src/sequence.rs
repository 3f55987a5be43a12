//! The sequence numbers of one idempotent producer in one partition: is the next batch new, a repeat, or after a
//! gap?
//!
//! Owns the window of batches remembered for repeats. Never touches the log.

use std::collections::VecDeque;

use kafka_protocol::error::ResponseError;

use crate::batch::Header;

/// Batches remembered a producer; Kafka remembers as many, and allows as many in flight.
const REMEMBERED: usize = 5;

/// What to do with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Append it, then call [`Sequences::accept`].
    Fresh,
    /// It was stored before, at this base offset: acknowledge without appending.
    Repeat(i64),
}

#[derive(Debug)]
struct Remembered {
    first: i32,
    span: i64,
    base_offset: i64,
}

/// What one partition remembers of one producer.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    epoch: i16,
    /// Oldest first; empty only before the first batch.
    recent: VecDeque<Remembered>,
}

impl Sequences {
    /// Judges a batch without changing anything.
    ///
    /// A producer this partition has never seen may start anywhere, as in Kafka since KIP-360.
    ///
    /// # Errors
    /// `InvalidProducerEpoch` for an older epoch, `OutOfOrderSequenceNumber` after a gap.
    pub(crate) fn judge(&self, batch: &Header) -> Result<Verdict, ResponseError> {
        let Some(last) = self.recent.back() else {
            return Ok(Verdict::Fresh);
        };
        if batch.producer_epoch < self.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let expected = if batch.producer_epoch > self.epoch {
            0
        } else {
            let known = self
                .recent
                .iter()
                .find(|r| r.first == batch.base_sequence && r.span == batch.span);
            if let Some(known) = known {
                return Ok(Verdict::Repeat(known.base_offset));
            }
            after(last.first, last.span)
        };
        if batch.base_sequence != expected {
            return Err(ResponseError::OutOfOrderSequenceNumber);
        }
        Ok(Verdict::Fresh)
    }

    /// Remembers a batch judged fresh and stored at `base_offset`.
    pub(crate) fn accept(&mut self, batch: &Header, base_offset: i64) {
        if batch.producer_epoch != self.epoch {
            self.epoch = batch.producer_epoch;
            self.recent.clear();
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(Remembered {
            first: batch.base_sequence,
            span: batch.span,
            base_offset,
        });
    }
}

/// The sequence number `span` records after `first`: after `i32::MAX` comes 0.
fn after(first: i32, span: i64) -> i32 {
    let next = (i64::from(first) + span) % (i64::from(i32::MAX) + 1);
    i32::try_from(next).expect("a remainder of 2^31 fits an i32")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::batch::sample::{Writer, batch};

    fn header(epoch: i16, sequence: i32, records: usize) -> Header {
        let writer = Writer {
            id: 7,
            epoch,
            sequence,
            transactional: false,
        };
        Header::check(&batch(writer, 0, &vec![0; records])).unwrap()
    }

    fn stored(epoch: i16, first: i32, records: usize) -> Sequences {
        let mut sequences = Sequences::default();
        sequences.accept(&header(epoch, first, records), 100);
        sequences
    }

    #[test]
    fn fresh_repeat_gap() {
        let sequences = stored(0, 0, 3);
        assert_eq!(sequences.judge(&header(0, 3, 1)), Ok(Verdict::Fresh));
        assert_eq!(sequences.judge(&header(0, 0, 3)), Ok(Verdict::Repeat(100)));
        assert_eq!(
            sequences.judge(&header(0, 4, 1)),
            Err(ResponseError::OutOfOrderSequenceNumber)
        );
        assert_eq!(
            sequences.judge(&header(0, 0, 2)),
            Err(ResponseError::OutOfOrderSequenceNumber)
        );
    }

    #[test]
    fn epochs_fence_and_restart_at_zero() {
        let sequences = stored(2, 0, 1);
        assert_eq!(
            sequences.judge(&header(1, 1, 1)),
            Err(ResponseError::InvalidProducerEpoch)
        );
        assert_eq!(
            sequences.judge(&header(3, 1, 1)),
            Err(ResponseError::OutOfOrderSequenceNumber)
        );
        assert_eq!(sequences.judge(&header(3, 0, 1)), Ok(Verdict::Fresh));
    }

    #[test]
    fn a_producer_never_seen_may_start_anywhere() {
        assert_eq!(
            Sequences::default().judge(&header(4, 77, 1)),
            Ok(Verdict::Fresh)
        );
    }

    #[test]
    fn only_the_last_five_are_known_as_repeats() {
        let mut sequences = Sequences::default();
        for i in 0..6 {
            sequences.accept(&header(0, i, 1), i64::from(i));
        }
        assert_eq!(sequences.judge(&header(0, 1, 1)), Ok(Verdict::Repeat(1)));
        assert_eq!(
            sequences.judge(&header(0, 0, 1)),
            Err(ResponseError::OutOfOrderSequenceNumber)
        );
    }

    #[test]
    fn numbers_wrap_to_zero() {
        assert_eq!(after(i32::MAX, 1), 0);
        assert_eq!(after(i32::MAX - 1, 3), 1);
        assert_eq!(
            stored(0, i32::MAX, 1).judge(&header(0, 0, 1)),
            Ok(Verdict::Fresh)
        );
    }
}
