//! Test guest for topics: every record once into a log, and as a message into a topic; a tombstone as a tombstone;
//! one record in ten as two messages.

use wasmill_sdk::prelude::*;

#[derive(Fields)]
struct Entry<'a> {
    #[field(from = "key")]
    id: &'a str,
    seq: Option<i64>,
    #[field(from = "partition")]
    partition: i32,
    #[field(from = "offset")]
    offset: i64,
}

#[derive(Row)]
struct Log<'a> {
    partition: i32,
    offset: i64,
    id: &'a str,
}

#[derive(Row)]
struct Alert<'a> {
    #[row(key)]
    id: &'a str,
    seq: i64,
    second: bool,
}

#[plugin(inputs(records: Entry), routes(log: Log, alerts: Alert))]
fn alerts(_: &Config, rec: Record<Entry<'_>>, out: &mut Out) -> Result {
    out.log.write(&Log {
        partition: rec.partition,
        offset: rec.offset,
        id: rec.id,
    })?;
    if rec.is_tombstone() {
        return out.alerts.delete(Alert::key(rec.id));
    }
    let seq = rec.seq.ok_or_else(|| reject("no-seq", "an entry has a seq"))?;
    let alert = Alert {
        id: rec.id,
        seq,
        second: false,
    };
    out.alerts.write(&alert)?;
    if seq % 10 == 0 {
        out.alerts.write(&Alert {
            second: true,
            ..alert
        })?;
    }
    Ok(())
}
