//! The record batch, format 2, as bytes on the wire: reads its header, checks its checksum, places it at an
//! offset, and builds the control batches that end transactions.
//!
//! Owns the byte positions of the header. Never decompresses and never re-encodes what a client sent: only the
//! base offset and the leader epoch are rewritten, and both lie outside the checksum.
//!
//! Source: <https://kafka.apache.org/documentation/#recordbatch>.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

/// Bytes before the batch's length field ends: base offset and length itself.
const PREFIX: usize = 12;
/// Bytes of a whole batch header; the records follow.
const HEADER: usize = 61;
/// Where the checksummed part begins: right after the checksum.
const CHECKED: usize = 21;

const COMPRESSION: i16 = 0b0111;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its records became visible to everybody.
    Commit,
    /// Its records are skipped by read-committed readers.
    Abort,
}

/// What the broker needs to know of a batch before storing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    attributes: i16,
    /// Offsets the batch takes: last offset delta + 1.
    pub(crate) span: i64,
    /// Timestamp of the first record, milliseconds since 1970.
    pub(crate) base_timestamp: i64,
    /// Greatest timestamp, milliseconds since 1970.
    pub(crate) max_timestamp: i64,
    /// The producer's id, below zero when the producer is not idempotent.
    pub(crate) producer_id: i64,
    /// The producer's epoch.
    pub(crate) producer_epoch: i16,
    /// Sequence number of the first record.
    pub(crate) base_sequence: i32,
}

impl Header {
    /// Reads and checks the one batch that fills `batch`.
    ///
    /// # Errors
    /// `CorruptMessage` when the lengths or the checksum do not hold, `UnsupportedForMessageFormat` for formats
    /// older than 2, `InvalidRecord` when there is more than one batch, no record, or a count that disagrees.
    pub(crate) fn check(batch: &[u8]) -> Result<Self, ResponseError> {
        if batch.len() < HEADER {
            return Err(ResponseError::CorruptMessage);
        }
        let mut buf = batch;
        buf.advance(8);
        let length = usize::try_from(buf.get_i32()).map_err(|_| ResponseError::CorruptMessage)?;
        buf.advance(4);
        if buf.get_i8() != 2 {
            return Err(ResponseError::UnsupportedForMessageFormat);
        }
        match (PREFIX + length).cmp(&batch.len()) {
            std::cmp::Ordering::Greater => return Err(ResponseError::CorruptMessage),
            // Kafka refuses several batches a partition in one request since format 2, and so do we.
            std::cmp::Ordering::Less => return Err(ResponseError::InvalidRecord),
            std::cmp::Ordering::Equal => {}
        }
        if buf.get_u32() != crc32c::crc32c(&batch[CHECKED..]) {
            return Err(ResponseError::CorruptMessage);
        }
        let attributes = buf.get_i16();
        let span = i64::from(buf.get_i32()) + 1;
        let header = Self {
            attributes,
            span,
            base_timestamp: buf.get_i64(),
            max_timestamp: buf.get_i64(),
            producer_id: buf.get_i64(),
            producer_epoch: buf.get_i16(),
            base_sequence: buf.get_i32(),
        };
        if span < 1 || span != i64::from(buf.get_i32()) {
            return Err(ResponseError::InvalidRecord);
        }
        Ok(header)
    }

    /// Whether a transaction wrote this batch.
    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether this is a transaction marker, which only the broker may write.
    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    fn is_compressed(&self) -> bool {
        self.attributes & COMPRESSION != 0
    }
}

/// A copy of `batch` whose records start at offset `base`.
pub(crate) fn placed_at(batch: &[u8], base: i64) -> Bytes {
    let mut placed = BytesMut::with_capacity(batch.len());
    placed.put_i64(base);
    placed.put_slice(&batch[8..PREFIX]);
    placed.put_i32(0);
    placed.put_slice(&batch[PREFIX + 4..]);
    placed.freeze()
}

/// The control batch that ends a transaction of (`producer_id`, `producer_epoch`), stamped with `now_ms`.
pub(crate) fn marker(
    producer_id: i64,
    producer_epoch: i16,
    outcome: Outcome,
    now_ms: i64,
) -> Bytes {
    let mut record = BytesMut::new();
    // attributes, timestamp delta, offset delta, key length 4: single-byte zigzag numbers
    record.put_slice(&[0, 0, 0, 8]);
    record.put_i16(0);
    record.put_i16(match outcome {
        Outcome::Abort => 0,
        Outcome::Commit => 1,
    });
    // value length 6: version and coordinator epoch; then no headers
    record.put_u8(12);
    record.put_i16(0);
    record.put_i32(0);
    record.put_u8(0);

    let mut checked = BytesMut::new();
    checked.put_i16(TRANSACTIONAL | CONTROL);
    checked.put_i32(0);
    checked.put_i64(now_ms);
    checked.put_i64(now_ms);
    checked.put_i64(producer_id);
    checked.put_i16(producer_epoch);
    checked.put_i32(-1);
    checked.put_i32(1);
    let length = u8::try_from(record.len() * 2).expect("a marker record is 16 bytes long");
    checked.put_u8(length);
    checked.put_slice(&record);

    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(i32::try_from(checked.len() + 9).expect("a marker batch is below 100 bytes"));
    batch.put_i32(0);
    batch.put_u8(2);
    batch.put_u32(crc32c::crc32c(&checked));
    batch.put_slice(&checked);
    batch.freeze()
}

/// The first record of a stored batch with a timestamp at or above `timestamp`, as (offset delta, timestamp).
///
/// Compressed batches are not opened: they answer with their first record, which is at or before the right one.
pub(crate) fn first_at_or_after(header: &Header, batch: &[u8], timestamp: i64) -> (i64, i64) {
    let fallback = (0, header.base_timestamp);
    if header.is_compressed() {
        return fallback;
    }
    let mut records = &batch[HEADER..];
    while let Some((record, rest)) = next_record(records) {
        let at = header.base_timestamp.saturating_add(record.timestamp_delta);
        if at >= timestamp {
            return (record.offset_delta, at);
        }
        records = rest;
    }
    fallback
}

struct RecordStart {
    timestamp_delta: i64,
    offset_delta: i64,
}

fn next_record(bytes: &[u8]) -> Option<(RecordStart, &[u8])> {
    let mut buf = bytes;
    let length = usize::try_from(zigzag(&mut buf)?).ok()?;
    if length == 0 || buf.len() < length {
        return None;
    }
    let (mut record, rest) = buf.split_at(length);
    record.advance(1);
    let timestamp_delta = zigzag(&mut record)?;
    let offset_delta = zigzag(&mut record)?;
    Some((
        RecordStart {
            timestamp_delta,
            offset_delta,
        },
        rest,
    ))
}

fn zigzag(buf: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *buf.first()?;
        buf.advance(1);
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let half = i64::try_from(value >> 1).expect("a shifted u64 fits an i64");
            return Some(half ^ -i64::from(value & 1 == 1));
        }
    }
    None
}

/// Batches for unit tests of this crate.
#[cfg(test)]
pub(crate) mod sample {
    use super::{BufMut, Bytes, BytesMut};

    /// Who writes a sample batch.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Writer {
        pub(crate) id: i64,
        pub(crate) epoch: i16,
        pub(crate) sequence: i32,
        pub(crate) transactional: bool,
    }

    /// A producer without idempotence.
    pub(crate) const PLAIN: Writer = Writer {
        id: -1,
        epoch: -1,
        sequence: -1,
        transactional: false,
    };

    /// An uncompressed batch with one record for each timestamp delta, after `base_timestamp`.
    pub(crate) fn batch(writer: Writer, base_timestamp: i64, deltas: &[u8]) -> Bytes {
        let count = i32::try_from(deltas.len()).expect("few records");
        let mut checked = BytesMut::new();
        checked.put_i16(if writer.transactional {
            super::TRANSACTIONAL
        } else {
            0
        });
        checked.put_i32(count - 1);
        checked.put_i64(base_timestamp);
        checked.put_i64(base_timestamp + i64::from(deltas.iter().copied().max().unwrap_or(0)));
        checked.put_i64(writer.id);
        checked.put_i16(writer.epoch);
        checked.put_i32(writer.sequence);
        checked.put_i32(count);
        for (i, delta) in deltas.iter().enumerate() {
            let i = u8::try_from(i).expect("few records");
            // length 6: attributes, deltas, no key, no value, no headers; every number below 64
            checked.put_slice(&[12, 0, delta * 2, i * 2, 1, 1, 0]);
        }
        let mut batch = BytesMut::new();
        batch.put_i64(0);
        batch.put_i32(i32::try_from(checked.len() + 9).expect("small"));
        batch.put_i32(-1);
        batch.put_u8(2);
        batch.put_u32(crc32c::crc32c(&checked));
        batch.put_slice(&checked);
        batch.freeze()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::sample::{PLAIN, batch};
    use super::*;

    #[test]
    fn header_of_a_good_batch() {
        let header = Header::check(&batch(PLAIN, 1_000, &[0, 5, 9])).unwrap();
        assert_eq!(
            (header.span, header.base_timestamp, header.max_timestamp),
            (3, 1_000, 1_009)
        );
        assert_eq!(
            (
                header.producer_id,
                header.is_transactional(),
                header.is_control()
            ),
            (-1, false, false)
        );
    }

    #[test]
    fn every_flipped_byte_of_the_checked_part_is_noticed() {
        let good = batch(PLAIN, 1_000, &[0, 5]);
        for at in 17..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            assert_eq!(
                Header::check(&bad),
                Err(ResponseError::CorruptMessage),
                "byte {at}"
            );
        }
    }

    #[test]
    fn short_long_and_old_batches_are_refused() {
        let good = batch(PLAIN, 0, &[0]);
        assert_eq!(
            Header::check(&good[..60]),
            Err(ResponseError::CorruptMessage)
        );
        assert_eq!(
            Header::check(&good[..good.len() - 1]),
            Err(ResponseError::CorruptMessage)
        );
        let two = [good.clone(), good.clone()].concat();
        assert_eq!(Header::check(&two), Err(ResponseError::InvalidRecord));
        let mut old = good.to_vec();
        old[16] = 1;
        assert_eq!(
            Header::check(&old),
            Err(ResponseError::UnsupportedForMessageFormat)
        );
    }

    #[test]
    fn placing_keeps_the_checksum() {
        let placed = placed_at(&batch(PLAIN, 0, &[0, 0]), 77);
        assert_eq!(&placed[..8], 77_i64.to_be_bytes());
        assert!(Header::check(&placed).is_ok());
    }

    #[test]
    fn markers_are_valid_control_batches() {
        let header = Header::check(&marker(9, 2, Outcome::Commit, 5)).unwrap();
        assert!(header.is_control() && header.is_transactional());
        assert_eq!(
            (header.producer_id, header.producer_epoch, header.span),
            (9, 2, 1)
        );
        assert_ne!(
            marker(9, 2, Outcome::Commit, 5),
            marker(9, 2, Outcome::Abort, 5)
        );
    }

    #[test]
    fn timestamps_are_found_to_the_record() {
        let bytes = batch(PLAIN, 1_000, &[0, 5, 9]);
        let header = Header::check(&bytes).unwrap();
        assert_eq!(first_at_or_after(&header, &bytes, 900), (0, 1_000));
        assert_eq!(first_at_or_after(&header, &bytes, 1_001), (1, 1_005));
        assert_eq!(first_at_or_after(&header, &bytes, 1_009), (2, 1_009));
    }

    #[test]
    fn zigzag_numbers() {
        for (bytes, value) in [
            (&[0_u8][..], 0),
            (&[1], -1),
            (&[2], 1),
            (&[0x80, 1], 64),
            (&[0xff, 1], -128),
        ] {
            assert_eq!(zigzag(&mut &bytes[..]), Some(value));
        }
        assert_eq!(zigzag(&mut &[0x80_u8; 12][..]), None);
        assert_eq!(zigzag(&mut &[0x80_u8][..]), None);
    }
}
