//! Test guest: what `versioned` writes, of records that carry the header `trace`; others are dead letters.

use wasmill_sdk::prelude::*;

#[path = "../../versioned/src/rows.rs"]
#[allow(dead_code, reason = "the record has a field more here")]
mod rows;

use rows::{Entry, Seen};

/// The version that wrote a row.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Fields)]
struct Traced<'a> {
    #[field(from = "key")]
    id: &'a str,
    seq: i64,
    text: &'a str,
    #[field(from = "partition")]
    partition: i32,
    #[field(from = "offset")]
    offset: i64,
    #[field(from = "header:trace")]
    trace: &'a str,
}

#[plugin(inputs(records: Traced), routes(log: Seen, copies: Seen))]
fn reads_header(_: &Config, rec: Record<Traced<'_>>, out: &mut Out) -> Result {
    if rec.trace.is_empty() {
        return Err(reject("no-trace", "the header is empty"));
    }
    let entry = Entry {
        id: rec.id,
        seq: rec.seq,
        text: rec.text,
        partition: rec.partition,
        offset: rec.offset,
    };
    let Some(row) = Seen::of(&entry, VERSION) else {
        return Ok(());
    };
    out.log.write(&row)?;
    out.copies.write(&row)
}
