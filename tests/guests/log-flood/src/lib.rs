//! Test guest: every record writes as many lines as it can, one far too long, and counts under 100 names and a bad
//! one; the host has to stay quick and small.
use wasmill_sdk::prelude::*;

#[derive(Fields)]
struct Marked<'a> {
    #[field(from = "key")]
    id: &'a str,
    mark: Option<&'a str>,
}

#[derive(Row)]
struct Seen<'a> {
    id: &'a str,
}

#[plugin(inputs(records: Marked), routes(seen: Seen))]
fn run(_: &Config, rec: Record<Marked<'_>>, out: &mut Out) -> Result {
    log::info!("record {} with mark {:?}", rec.id, rec.mark);
    for line in 0..1000 {
        log::warn!("line {line} of record {}", rec.id);
    }
    log::error("x".repeat(64 << 10));
    for name in 0..100 {
        metrics::count(&format!("counter_{name}"), 1);
    }
    metrics::count("Not A Name", 1);
    out.seen.write(&Seen { id: rec.id })
}
