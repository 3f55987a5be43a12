//! What the demo sends: the samples that ship with the example plugins, and a handful of bad records.

use std::path::Path;

use super::servers::Servers;
use crate::error::Error;
use crate::kafka::Feed;
use crate::task;

/// Partitions of each demo topic.
const PARTITIONS: i32 = 4;
/// Earthquakes taken back by a tombstone.
const TOMBSTONES: usize = 5;

/// What went into a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// All records.
    pub(super) records: u64,
    /// Records that must end as dead letters.
    pub(super) bad: u64,
    /// Those of them that a mended version takes.
    pub(super) mendable: u64,
    /// Rows the upsert table must hold.
    pub(super) rows: u64,
}

/// A key and a value, each null or bytes.
type Pair = (Option<&'static [u8]>, Option<&'static [u8]>);

/// Dates with dashes: version 1.0 of the plugin rejects them, 1.1 does not.
const DASHED_FLIGHTS: [Pair; 3] = [
    (Some(b"dashes-1"), Some(br#"{"date":"2001-01-01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}"#)),
    (Some(b"dashes-2"), Some(br#"{"date":"2001-01-01 01:10","delay":95,"distance":2399,"origin":"HNL","destination":"SFO"}"#)),
    (Some(b"dashes-3"), Some(br#"{"date":"2001-01-01 01:24","delay":-5,"distance":407,"origin":"LAS","destination":"OAK"}"#)),
];

/// Records no plugin should ever see, each bad in its own way.
const BAD_FLIGHTS: [Pair; 7] = [
    (Some(b"bad-1"), Some(br#"{"date":"2001/01/01 00:47","delay":"#)),
    (Some(b"bad-2"), Some(br#"{"date":"2001/01/01 00:47","delay":"late","distance":10,"origin":"DTW","destination":"LAS"}"#)),
    (Some(b"bad-3"), None),
    (Some(b"bad-4"), Some(b"{\"date\":\"2001/01/01 00:47\",\"delay\":1,\"distance\":10,\"origin\":\"\xff\xfe\",\"destination\":\"LAS\"}")),
    (Some(b"bad-5"), Some(br#"{"date":"2001/01/01 00:47","delay":1,"distance":10,"destination":"LAS"}"#)),
    (Some(b"bad-6"), Some(br#"{"date":"2001/02/31 00:47","delay":1,"distance":10,"origin":"DTW","destination":"LAS"}"#)),
    (Some(b"bad-7"), Some(b"")),
];

const BAD_QUAKES: [Pair; 2] = [
    (Some(b"bad-1"), Some(b"not json")),
    (
        None,
        Some(br#"{"properties":{"mag":1.0},"geometry":{"coordinates":[1.0,2.0,3.0]}}"#),
    ),
];

/// Creates the topics and sends everything; returns when it is acknowledged.
pub(super) fn send(servers: &Servers, plugins: &Path) -> Result<Vec<(&'static str, Sent)>, Error> {
    let read = |plugin: &str, file: &str| {
        let path = plugins.join(plugin).join("data").join(file);
        std::fs::read_to_string(&path).map_err(|error| {
            Error::config(format!("read the sample {}", path.display()), error)
                .hint("run the demo from the project's folder")
        })
    };
    let flights = read("flights", "flights.ndjson")?;
    let quakes = read("earthquakes", "earthquakes.ndjson")?;
    let runtime = task::runtime()?;
    let settings = servers.kafka_settings();
    let create = |topic| runtime.block_on(Feed::create(&settings, topic, PARTITIONS));
    let feed = create("flights")?;
    let mut sent = Sent {
        records: 0,
        bad: 0,
        mendable: 0,
        rows: 0,
    };
    for (number, line) in flights.lines().enumerate() {
        let key = format!("F{:06}", number + 1);
        feed.send(Some(key.as_bytes()), Some(line.as_bytes()))?;
        sent.rows += 1;
    }
    let flights_sent = finish(&feed, sent, [&BAD_FLIGHTS, &DASHED_FLIGHTS], 0)?;
    let feed = create("earthquakes")?;
    let mut ids = std::collections::BTreeSet::new();
    for line in quakes.lines() {
        let id = quake_id(line)?;
        feed.send(Some(id.as_bytes()), Some(line.as_bytes()))?;
        ids.insert(id);
    }
    let lines = quakes.lines().count() as u64;
    for id in ids.iter().take(TOMBSTONES) {
        feed.send(Some(id.as_bytes()), None)?;
    }
    let gone = ids.len().min(TOMBSTONES) as u64;
    let sent = Sent {
        records: lines - ids.len() as u64,
        bad: 0,
        mendable: 0,
        rows: ids.len() as u64 - gone,
    };
    let quakes_sent = finish(&feed, sent, [&BAD_QUAKES, &[]], 2 * gone)?;
    Ok(vec![
        ("flights", flights_sent),
        ("earthquakes", quakes_sent),
    ])
}

/// Sends the bad records, for good and those that can be mended, and adds everything up; `more`: good records that left
/// no row.
fn finish(feed: &Feed, mut sent: Sent, bad: [&[Pair]; 2], more: u64) -> Result<Sent, Error> {
    for (key, value) in bad.into_iter().flatten() {
        feed.send(*key, *value)?;
    }
    sent.mendable = bad[1].len() as u64;
    sent.bad = bad[0].len() as u64 + sent.mendable;
    sent.records += sent.rows + sent.bad + more;
    feed.finish()?;
    Ok(sent)
}

fn quake_id(line: &str) -> Result<String, Error> {
    let value: serde_json::Value = serde_json::from_str(line)
        .map_err(|error| Error::bug("read the shipped earthquakes", error))?;
    value["id"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::bug("read the shipped earthquakes", "a feature has no id"))
}
