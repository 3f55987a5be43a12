//! Test guest: what `versioned` writes to its log, with a copy of every record and a thousand times the work: right,
//! and yet a canary that has to be noticed.

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

/// How often the same is computed.
const ROUNDS: u32 = 1000;

#[plugin(inputs(records: Entry), routes(log: Seen, copies: Seen))]
fn wasteful(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    let mut row = Seen {
        id: rec.id,
        partition: rec.partition,
        offset: rec.offset,
        version: VERSION,
        hash: 0,
    };
    for _ in 0..ROUNDS {
        row.hash = black_box(hash(black_box(rec.id), rec.seq, rec.text));
    }
    if rec.offset % 5 == 0 {
        out.log.write(&row)?;
    }
    out.copies.write(&row)
}
