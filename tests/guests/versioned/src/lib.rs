//! Test guest: one record in five becomes a row that says which version wrote it; every record's bytes are hashed.
//!
//! Its version is patched into the built component (`tests/src/versions.rs`), so that a hundred versions cost one
//! build: the text below has a length of its own and is read through [`black_box`], or the optimiser would spread its
//! bytes over instructions.

use std::hint::black_box;

use wasmill_sdk::prelude::*;

/// The version that wrote a row.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Fields)]
struct Entry<'a> {
    #[field(from = "key")]
    id: &'a str,
    seq: i64,
    text: &'a str,
    #[field(from = "partition")]
    partition: i32,
    #[field(from = "offset")]
    offset: i64,
}

/// A row of the log, and a copy in Cassandra.
#[derive(Row)]
struct Seen<'a> {
    #[row(key)]
    id: &'a str,
    partition: i32,
    offset: i64,
    version: &'a str,
    hash: i64,
}

/// FNV-1a of the record's key, number and text: <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn hash(id: &str, seq: i64, text: &str) -> i64 {
    let parts = [id.as_bytes(), &seq.to_be_bytes(), text.as_bytes()];
    let bytes = parts.into_iter().flatten();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}

#[plugin(inputs(records: Entry), routes(log: Seen, copies: Seen))]
fn versioned(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    let hash = hash(rec.id, rec.seq, rec.text);
    if rec.offset % 5 != 0 {
        return Ok(());
    }
    let row = Seen {
        id: rec.id,
        partition: rec.partition,
        offset: rec.offset,
        version: black_box(VERSION),
        hash,
    };
    out.log.write(&row)?;
    out.copies.write(&row)
}
