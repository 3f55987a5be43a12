//! Dead letters as parameters of one insert. Their insert must never be refused: text is cleaned of NUL,
//! what is too long is cut and marked, a time without a place in the server's calendar becomes null.

use crate::record::{Batch, Mark};
use crate::route::DeadLetter;

use super::transaction::Param;
use super::wire;
use crate::record::Type;
use crate::record::cells;

/// Longest key, value or headers kept; longer ones stay in the topic, found by their coordinates.
const MAX_BYTES: usize = 4 << 20;

/// Longest reason kept, bytes.
const MAX_REASON: usize = 4096;

/// Inserts dead letters; a record set aside again (a position was lowered by hand) replaces its letter.
/// `$19`: the flight's number.
pub(super) const INSERT: &str = r#"
INSERT INTO wasmill.dead_letter (pipeline, topic, partition, plugin, digest, "offset", index, class, code, reason,
  key, value, headers, null_key, null_value, truncated, record_timestamp, stamp)
SELECT $1::text, $2::text, $3::int4, $4::text, $5::text, letter.* FROM unnest($6::int8[], $7::int4[],
  $8::text[], $9::text[], $10::text[], $11::bytea[], $12::bytea[], $13::bytea[], $14::boolean[], $15::boolean[],
  $16::boolean[], $17::timestamptz[], $18::int8[]) AS letter
WHERE pg_catalog.current_setting('wasmill.flight', true) = $19::text
ON CONFLICT (pipeline, topic, partition, "offset", index) DO UPDATE SET class = excluded.class,
  code = excluded.code, reason = excluded.reason, key = excluded.key, value = excluded.value,
  headers = excluded.headers, null_key = excluded.null_key, null_value = excluded.null_value,
  truncated = excluded.truncated, record_timestamp = excluded.record_timestamp, stamp = excluded.stamp, plugin = excluded.plugin,
  digest = excluded.digest, created_at = pg_catalog.now(), retried_at = NULL"#;

/// Column types of the arrays, in the order of [`INSERT`].
const ARRAYS: [Type; 13] = [
    Type::Int64,
    Type::Int32,
    Type::Text,
    Type::Text,
    Type::Text,
    Type::Bytes,
    Type::Bytes,
    Type::Bytes,
    Type::Boolean,
    Type::Boolean,
    Type::Boolean,
    Type::Timestamp,
    Type::Int64,
];

/// The arrays of dead letters.
#[derive(Debug)]
pub(super) struct Letters {
    arrays: Vec<Vec<u8>>,
}

impl Letters {
    /// Encodes the letters of a batch; a record set aside more than once gets ascending indices. `stamps` are the
    /// records' write times.
    pub(super) fn encode(batch: &Batch, stamps: &[i64], dead: &[DeadLetter]) -> Self {
        let mut arrays: Vec<Vec<u8>> = ARRAYS
            .iter()
            .map(|ty| {
                let mut array = Vec::new();
                let flags = wire::array_header(&mut array, wire::oid(ty), dead.len())
                    .expect("a batch has far fewer than 2³¹ records");
                array[flags + 3] = 1;
                array
            })
            .collect();
        for (at, letter) in dead.iter().enumerate() {
            let same = dead[..at]
                .iter()
                .filter(|other| other.source == letter.source)
                .count();
            put(
                &mut arrays,
                batch,
                letter,
                i32::try_from(same).unwrap_or(i32::MAX),
            );
            match stamps.get(letter.source as usize) {
                Some(stamp) => cells::put(&mut arrays[12], &stamp.to_be_bytes()),
                None => cells::put_null(&mut arrays[12]),
            }
        }
        Self { arrays }
    }

    /// How much it is.
    pub(super) fn bytes(&self) -> usize {
        self.arrays.iter().map(Vec::len).sum()
    }

    /// The arrays, as parameters.
    pub(super) fn params(&self) -> impl Iterator<Item = Param<'_>> {
        self.arrays.iter().map(|array| Param::Binary(array))
    }
}

fn put(arrays: &mut [Vec<u8>], batch: &Batch, letter: &DeadLetter, index: i32) {
    let record = batch.record(letter.source as usize);
    let mut truncated = false;
    let mut bytes = |array: &mut Vec<u8>, bytes: Option<&[u8]>| match bytes {
        Some(bytes) if bytes.len() <= MAX_BYTES => cells::put(array, bytes),
        Some(_) => {
            truncated = true;
            cells::put_null(array);
        }
        None => cells::put_null(array),
    };
    bytes(&mut arrays[5], record.key);
    bytes(&mut arrays[6], record.value);
    bytes(
        &mut arrays[7],
        Some(record.headers).filter(|headers| !headers.is_empty()),
    );
    cells::put(&mut arrays[0], &record.offset.to_be_bytes());
    cells::put(&mut arrays[1], &index.to_be_bytes());
    cells::put(&mut arrays[2], letter.class.as_str().as_bytes());
    cells::put(&mut arrays[3], clean(&letter.code).as_bytes());
    cells::put(&mut arrays[4], clean(&letter.reason).as_bytes());
    cells::put(
        &mut arrays[8],
        &[u8::from(record.marks & Mark::NULL_KEY != 0)],
    );
    cells::put(
        &mut arrays[9],
        &[u8::from(record.marks & Mark::NULL_VALUE != 0)],
    );
    cells::put(&mut arrays[10], &[u8::from(truncated)]);
    let micros = (record.timestamp >= 0)
        .then(|| record.timestamp.checked_mul(1000))
        .flatten();
    let fits = micros.is_some_and(|micros| {
        wire::put(&mut arrays[11], &Type::Timestamp, &micros.to_be_bytes()).is_ok()
    });
    if !fits {
        cells::put_null(&mut arrays[11]);
    }
}

/// Text the server takes: without NUL, at most [`MAX_REASON`] bytes.
pub(super) fn clean(text: &str) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(MAX_REASON));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cleaned_and_cut_between_characters() {
        assert_eq!(clean("a\0b"), "a\u{fffd}b");
        let long = "é".repeat(MAX_REASON);
        assert_eq!(clean(&long).len(), MAX_REASON);
        assert_eq!(clean(&format!("a{long}")).len(), MAX_REASON - 1);
    }
}
