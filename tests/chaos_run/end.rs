//! The end: every table and the topic read as a whole, and compared with the input.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use futures_util::TryStreamExt as _;
use rdkafka::message::{Headers as _, Message as _};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use serde_json::Value;
use wasmill_tests::checker::{Faults, Input, Kind, Last, Live, Messages, Position, Said, Snapshot};
use wasmill_tests::reader::committed;
use wasmill_tests::swaps::against_history;

use super::eye::{Eye, Span};
use super::{BY_ID, KEYSPACE, LOG, MESSAGES, PARTITIONS, PIPELINE, TOPIC};

/// Offsets of each partition that are compared at once.
const PIECE: i64 = 20_000;
/// How long the topic may take to be read.
const READ: Duration = Duration::from_secs(300);

/// What the sinks held at the end.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) rows: i64,
    /// Records, emitted, filtered, dead.
    pub(crate) ledger: [i64; 4],
    pub(crate) dead: BTreeMap<&'static str, i64>,
    pub(crate) keys: usize,
    pub(crate) messages: u64,
    pub(crate) repeats: u64,
    pub(crate) faults: Faults,
}

/// Where things are.
pub(crate) struct Places<'a> {
    pub(crate) postgres: &'a str,
    pub(crate) cassandra: &'a str,
    pub(crate) bootstrap: &'a str,
}

/// Compares everything; `records` is how many records each partition holds.
pub(crate) async fn check(
    places: &Places<'_>,
    input: Input,
    records: &BTreeMap<i32, i64>,
    history: &Value,
) -> anyhow::Result<End> {
    let eye = Eye::open(places.postgres).await?;
    let mut live = Live::new(input, PARTITIONS);
    let mut end = End::default();
    let stored = eye.positions().await?;
    for position in &stored {
        let wanted = records.get(&position.partition);
        if wanted != Some(&position.next) {
            let text = format!("{position:?} at the end of {wanted:?} records");
            end.faults.add(Kind::Lost, text);
        }
    }
    // I1, I2, I3, I7 once more, over everything.
    while live.checked() != *records {
        let from = live.checked();
        let to: BTreeMap<i32, i64> = from
            .iter()
            .map(|(partition, at)| (*partition, (at + PIECE).min(records[partition])))
            .collect();
        let (rows, letters) = eye.span(&Span::between(&from, &to)).await?;
        let position = |(partition, next): (&i32, &i64)| Position {
            partition: *partition,
            next: *next,
            ledger: stored
                .iter()
                .find(|one| one.partition == *partition && one.next == *next)
                .and_then(|one| one.ledger),
        };
        let snapshot = Snapshot {
            positions: to.iter().map(position).collect(),
            rows,
            letters,
            latest: None,
        };
        end.faults.extend(live.check(&snapshot));
    }
    let all = eye.number(&format!("SELECT count(*) FROM {LOG}")).await?;
    if all != live.rows() {
        let kind = if all > live.rows() {
            Kind::Doubled
        } else {
            Kind::Lost
        };
        let text = format!("{all} rows in the log instead of {}", live.rows());
        end.faults.add(kind, text);
    }
    let sql = format!("SELECT count(*) FROM wasmill.dead_letter WHERE pipeline = '{PIPELINE}'");
    let letters = eye.number(&sql).await?;
    if letters != live.ledger()[3] {
        let text = format!("{letters} dead letters instead of {}", live.ledger()[3]);
        end.faults.add(Kind::Foreign, text);
    }
    end.faults
        .extend(live.fold().compare("upserted table", &eye.latest().await?));
    // I5
    let seen = by_id(places.cassandra).await?;
    end.faults.extend(live.fold().compare("Cassandra", &seen));
    for fault in against_history(&live.runs(), history) {
        end.faults.add(Kind::Inconsistent, fault);
    }
    let runs = live.runs();
    let mut messages = Messages::new(input, TOPIC, records, &runs);
    tokio::task::block_in_place(|| read(places.bootstrap, &mut messages))?;
    let (different, repeats, faults) = messages.finish();
    end.faults.extend(faults);
    end.rows = all;
    end.ledger = live.ledger();
    end.dead = live.dead().clone();
    end.keys = live.fold().len();
    end.messages = different;
    end.repeats = repeats;
    Ok(end)
}

/// The pipeline's history, from whichever host answers.
pub(crate) fn history(api: &wasmill_tests::api::Api) -> anyhow::Result<Value> {
    let answer = api
        .get(&format!("/v1/pipelines/{PIPELINE}/history"))
        .map_err(anyhow::Error::msg)?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.body)
}

/// A session with Cassandra.
async fn session(contact: &str) -> anyhow::Result<Session> {
    Ok(SessionBuilder::new().known_node(contact).build().await?)
}

/// All rows of the table in Cassandra.
async fn by_id(contact: &str) -> anyhow::Result<Vec<(String, Last)>> {
    let query = format!("SELECT id, seq, partition, \"offset\", version FROM {KEYSPACE}.{BY_ID}");
    let session = session(contact).await?;
    let pager = session.query_iter(query, ()).await?;
    let mut rows = pager.rows_stream::<(String, i64, i32, i64, String)>()?;
    let mut all = Vec::new();
    while let Some((id, seq, partition, offset, version)) = rows.try_next().await? {
        let last = Last {
            seq,
            partition,
            offset,
            version,
        };
        all.push((id, last));
    }
    Ok(all)
}

/// Every message of the topic, each partition in its order.
fn read(bootstrap: &str, messages: &mut Messages<'_>) -> anyhow::Result<()> {
    committed(bootstrap, MESSAGES, READ, |message| {
        let coordinates = message
            .headers()
            .and_then(|headers| {
                let mut headers = headers.iter();
                headers.find(|header| header.key == "wasmill-coordinates")
            })
            .and_then(|header| std::str::from_utf8(header.value?).ok());
        let said = Said::read(message.key(), message.payload());
        messages.add(coordinates.unwrap_or_default(), said);
    })
    .map_err(anyhow::Error::msg)
}
