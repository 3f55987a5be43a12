//! Test guest for the checker: every record once into a log, the last one a key into an upsert table and into
//! Cassandra; a tombstone deletes from the latter two. All carry the coordinates of the record that wrote them.

use wasmill_sdk::prelude::*;

/// The version that wrote a row.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Fields)]
struct Entry<'a> {
    #[field(from = "key")]
    id: &'a str,
    seq: Option<i64>,
    #[field(from = "topic")]
    topic: &'a str,
    #[field(from = "partition")]
    partition: i32,
    #[field(from = "offset")]
    offset: i64,
}

#[derive(Row)]
struct Log<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    version: &'static str,
    id: &'a str,
    seq: Option<i64>,
}

#[derive(Row)]
struct Last<'a> {
    #[row(key)]
    id: &'a str,
    seq: i64,
    partition: i32,
    offset: i64,
    version: &'static str,
}

#[plugin(inputs(records: Entry), routes(log: Log, latest: Last, by_id: Last))]
fn ledger(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    out.log.write(&Log {
        topic: rec.topic,
        partition: rec.partition,
        offset: rec.offset,
        version: VERSION,
        id: rec.id,
        seq: rec.seq,
    })?;
    if rec.is_tombstone() {
        out.latest.delete(Last::key(rec.id))?;
        return out.by_id.delete(Last::key(rec.id));
    }
    let seq = rec
        .seq
        .ok_or_else(|| reject("no-seq", "an entry has a seq"))?;
    let last = Last {
        id: rec.id,
        seq,
        partition: rec.partition,
        offset: rec.offset,
        version: VERSION,
    };
    out.latest.write(&last)?;
    out.by_id.write(&last)
}
