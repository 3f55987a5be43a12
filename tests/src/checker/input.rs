//! The input of a chaos run: the n-th record of a partition is a function of the run, the partition and n, so that
//! every sink can be checked without the records at hand. Most are rows; some are dropped, some cannot be anything
//! but dead letters, and now and then a block is half of those.

use crate::records::Made;

/// Keys of a partition.
const KEYS: u64 = 300;

/// Records that are good or bad together.
const BLOCK: i64 = 50;

/// Bytes of a record that is big and fits.
const HUGE: usize = 200_000;

/// Bytes of a note that is more than a message may hold.
const GIANT: usize = 1_050_000;

/// Two days ahead, milliseconds: no host takes that.
const AHEAD: i64 = 2 * 24 * 3_600_000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Number of the run, in every record.
    pub run: u32,
}

/// What has to become of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Rows.
    Emitted(Emitted),
    /// Nothing, on purpose.
    Filtered,
    /// A dead letter with this code.
    Dead(&'static str),
}

/// Rows of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The key.
    pub id: String,
    /// Its number in the partition; `None`: a tombstone.
    pub seq: Option<i64>,
    /// Rows in the log.
    pub rows: i32,
}

/// What a record is made as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Plain,
    Huge,
    Tombstone,
    Unwanted,
    /// The note does not fit a message.
    Giant,
    /// Cut off.
    Malformed,
    /// Not UTF-8.
    Garbled,
    NoKey,
    WrongSum,
    /// A text with NUL, which Postgres does not hold.
    Nul,
    Ahead,
    /// `seq` is no number.
    WrongType,
}

impl Input {
    fn mix(self, partition: i32, n: i64) -> u64 {
        let place = (u64::from(partition.unsigned_abs()) << 40) ^ n.unsigned_abs();
        mix(place ^ mix(u64::from(self.run)))
    }

    fn shape(self, partition: i32, n: i64) -> Shape {
        let dice = self.mix(partition, n);
        let block = self.mix(partition, -1 - n / BLOCK).is_multiple_of(40);
        let roll = dice % 10_000;
        let bad = if block { 5_000 } else { 40 };
        match roll.checked_sub(bad) {
            None => match (dice >> 32) % 1_024 {
                0..2 => Shape::Giant,
                2..10 => Shape::Huge,
                10..150 => Shape::Malformed,
                150..300 => Shape::Garbled,
                300..450 => Shape::NoKey,
                450..600 => Shape::WrongSum,
                600..750 => Shape::Nul,
                750..890 => Shape::Ahead,
                _ => Shape::WrongType,
            },
            Some(0..500) => Shape::Unwanted,
            Some(500..600) => Shape::Tombstone,
            Some(_) => Shape::Plain,
        }
    }

    fn id(self, partition: i32, n: i64) -> String {
        let key = (self.mix(partition, n) >> 16) % KEYS;
        format!("{partition}-{key}")
    }

    /// The n-th record of a partition: its offset is n where nothing else writes to the topic.
    #[must_use]
    pub fn record(self, partition: i32, n: i64) -> Made {
        let shape = self.shape(partition, n);
        let (id, run) = (self.id(partition, n), self.run);
        let crc = crc32(format!("{run}:{id}:{n}").as_bytes());
        let crc = if shape == Shape::WrongSum {
            crc ^ 1
        } else {
            crc
        };
        let seq = match shape {
            Shape::WrongType => "\"many\"".to_owned(),
            _ => n.to_string(),
        };
        let more = match shape {
            Shape::Unwanted => r#","keep":false"#.to_owned(),
            Shape::Huge => format!(r#","pad":"{}""#, "x".repeat(HUGE)),
            Shape::Giant => format!(r#","note":"{}""#, "x".repeat(GIANT)),
            Shape::Nul => r#","note":"a\u0000b""#.to_owned(),
            _ => format!(r#","pad":"{:060}""#, n),
        };
        let mut value = format!(r#"{{"run":{run},"seq":{seq},"crc":{crc}{more}}}"#).into_bytes();
        match shape {
            Shape::Malformed => value.truncate(value.len() / 2),
            Shape::Garbled => {
                let at = value.len() - 10;
                value[at] = 0xff;
            }
            _ => {}
        }
        Made {
            partition: Some(partition),
            key: (shape != Shape::NoKey).then(|| id.into_bytes()),
            value: (shape != Shape::Tombstone).then_some(value),
            timestamp: (shape == Shape::Ahead).then(|| crate::latency::now() + AHEAD),
        }
    }

    /// What has to become of it.
    #[must_use]
    pub fn fate(self, partition: i32, n: i64) -> Fate {
        let emitted = |seq: Option<i64>| {
            let twice = seq.is_some_and(|seq| seq % 10 == 0);
            Fate::Emitted(Emitted {
                id: self.id(partition, n),
                seq,
                rows: 1 + i32::from(twice),
            })
        };
        match self.shape(partition, n) {
            Shape::Plain | Shape::Huge => emitted(Some(n)),
            Shape::Tombstone => emitted(None),
            Shape::Unwanted => Fate::Filtered,
            Shape::Giant | Shape::Nul => Fate::Dead("row-refused"),
            Shape::Malformed | Shape::Garbled => Fate::Dead("malformed"),
            Shape::NoKey => Fate::Dead("field-missing"),
            Shape::WrongType => Fate::Dead("field-type"),
            Shape::WrongSum => Fate::Dead("crc"),
            Shape::Ahead => Fate::Dead("timestamp-ahead"),
        }
    }
}

/// A number that looks like chance (the finaliser of splitmix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// CRC-32 as in zlib (RFC 1952, section 8).
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    });
    !crc
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_checksum_is_that_of_zlib() {
        assert_eq!(
            crc32(b"123456789"),
            0xcbf4_3926,
            "the published check value"
        );
    }

    #[test]
    fn every_fate_occurs_and_most_records_are_rows() {
        let input = Input { run: 7 };
        let mut fates: BTreeMap<String, u64> = BTreeMap::new();
        for partition in 0..6 {
            for n in 0..20_000 {
                let name = match input.fate(partition, n) {
                    Fate::Emitted(Emitted { seq: None, .. }) => "deleted".to_owned(),
                    Fate::Emitted(_) => "emitted".to_owned(),
                    Fate::Filtered => "filtered".to_owned(),
                    Fate::Dead(code) => code.to_owned(),
                };
                *fates.entry(name).or_default() += 1;
            }
        }
        assert_eq!(fates.len(), 9, "{fates:?}");
        assert!(fates["emitted"] > 100_000, "{fates:?}");
        assert!(fates.values().all(|count| *count > 100), "{fates:?}");
    }

    #[test]
    fn a_record_is_the_same_each_time_and_another_in_another_run() {
        let (one, other) = (Input { run: 1 }, Input { run: 2 });
        assert_eq!(one.record(3, 17).value, one.record(3, 17).value);
        assert_ne!(one.record(3, 17).value, other.record(3, 17).value);
        let keys = |input: Input| (0..50).map(|n| input.id(0, n)).collect::<Vec<_>>();
        assert_ne!(keys(one), keys(other));
    }
}
