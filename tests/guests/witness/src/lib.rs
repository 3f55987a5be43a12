//! Test guest of the chaos run: every record into a log (twice where `seq` divides by ten) and into a topic, the last
//! one a key into an upsert table and into Cassandra; a tombstone deletes there. A record with `keep: false` is
//! dropped; one whose checksum is wrong is rejected after its rows were written, and none of them may be seen.
//!
//! Its version is patched into the built component (`tests/src/versions.rs`), as in `versioned`.

use std::hint::black_box;

use wasmill_sdk::prelude::*;

/// The version that wrote a row.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Fields)]
struct Entry<'a> {
    #[field(from = "key")]
    id: &'a str,
    run: Option<i64>,
    seq: Option<i64>,
    crc: Option<i64>,
    keep: Option<bool>,
    note: Option<&'a str>,
    #[field(from = "topic")]
    topic: &'a str,
    #[field(from = "partition")]
    partition: i32,
    #[field(from = "offset")]
    offset: i64,
}

/// A row of the log.
#[derive(Row)]
struct Seen<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    index: i32,
    version: &'a str,
    id: &'a str,
    seq: Option<i64>,
    note: Option<&'a str>,
}

/// The last record of a key.
#[derive(Row)]
struct Last<'a> {
    #[row(key)]
    id: &'a str,
    seq: i64,
    partition: i32,
    offset: i64,
    version: &'a str,
}

/// A message.
#[derive(Row)]
struct Said<'a> {
    #[row(key)]
    id: &'a str,
    seq: i64,
    index: i32,
    version: &'a str,
    note: Option<&'a str>,
}

#[plugin(inputs(records: Entry), routes(log: Seen, latest: Last, by_id: Last, messages: Said))]
fn witness(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    let version = black_box(VERSION);
    let seen = |index| Seen {
        topic: rec.topic,
        partition: rec.partition,
        offset: rec.offset,
        index,
        version,
        id: rec.id,
        seq: rec.seq,
        note: rec.note,
    };
    if rec.keep == Some(false) {
        return Ok(());
    }
    out.log.write(&seen(0))?;
    if rec.is_tombstone() {
        out.latest.delete(Last::key(rec.id))?;
        out.by_id.delete(Last::key(rec.id))?;
        return out.messages.delete(Said::key(rec.id));
    }
    let seq = rec
        .seq
        .ok_or_else(|| reject("no-seq", "an entry has a seq"))?;
    let said = |index| Said {
        id: rec.id,
        seq,
        index,
        version,
        note: rec.note,
    };
    let last = Last {
        id: rec.id,
        seq,
        partition: rec.partition,
        offset: rec.offset,
        version,
    };
    out.latest.write(&last)?;
    out.by_id.write(&last)?;
    out.messages.write(&said(0))?;
    if seq % 10 == 0 {
        out.log.write(&seen(1))?;
        out.messages.write(&said(1))?;
    }
    let text = format!("{}:{}:{seq}", rec.run.unwrap_or_default(), rec.id);
    if rec.crc != Some(i64::from(crc32(text.as_bytes()))) {
        return Err(reject("crc", "the checksum is another"));
    }
    Ok(())
}

/// CRC-32 as in zlib (RFC 1952, section 8), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
