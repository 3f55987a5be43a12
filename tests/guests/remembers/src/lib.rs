//! Test guest: a liar about determinism. It numbers records by a counter of its own, so rows depend on how records
//! were batched and on which instance ran them; a canary that replays batches must notice.

use std::sync::atomic::{AtomicI64, Ordering};

use wasmill_sdk::prelude::*;

static COUNTER: AtomicI64 = AtomicI64::new(0);

#[derive(Fields)]
struct Entry<'a> {
    #[field(from = "key")]
    id: &'a str,
}

#[derive(Row)]
struct Numbered<'a> {
    id: &'a str,
    number: i64,
}

#[plugin(inputs(records: Entry), routes(seen: Numbered))]
fn remembers(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    out.seen.write(&Numbered { id: rec.id, number })
}
