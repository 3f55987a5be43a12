//! Writes to Cassandra that arrive after their sender died and another version took over. Needs Java.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use wasmill_tests::flow::Pace;
use wasmill_tests::proxy::{Outcome, Protocol, Proxy};
use wasmill_tests::records::Made;
use wasmill_tests::ring::{RealServers, connection};
use wasmill_tests::site::Plot;
use wasmill_tests::steady::{self, Steady};
use wasmill_tests::versioned;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage, versions};

const LONG: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(30);

const NAME: &str = "late-write";
const KEYSPACE: &str = "late_write";
const PARTITIONS: i32 = 2;
/// Keys of a partition: each comes many times, so that every row is written by both versions.
const KEYS: i64 = 1_000;

/// Opcodes of CQL requests that write (native_protocol_v4.spec, section 2.4).
const EXECUTE: u8 = 10;
const BATCH: u8 = 13;

fn key(partition: i32, n: i64) -> String {
    format!("{partition}-{}", n % KEYS)
}

fn made(partition: i32, n: i64) -> Made {
    Made {
        key: Some(key(partition, n).into_bytes()),
        ..versioned::record(partition, n)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_arrives_after_the_next_version_wrote_changes_nothing() {
    let Some(servers) = RealServers::get() else {
        return;
    };
    let link = Proxy::to(Protocol::Cassandra, servers.cassandra.address());
    let stage = Stage::new();
    stage.feed.topic(NAME, PARTITIONS).await;
    versioned::create_table(&stage).await;
    let empty = steady::empty(PARTITIONS);
    let steady = Steady::at(stage.bootstrap(), NAME, Pace::GENTLE, empty, made);
    let plot = Plot {
        more: connection(&[link.address().to_string()], KEYSPACE, 1),
        ..Plot::new(NAME)
    };
    let site = Site::new(&stage, &plot);
    let (mut host, _) = site.up();
    let (old, new) = (versions::version(0), versions::version(1));
    site.api.upload_file(&old.file);
    site.api.upload_file(&new.file);
    let overlay = versioned::overlay(NAME).replace(
        "bind.route.copies = \"discard\"",
        "bind.route.copies = { connection = \"main\", table = \"versioned_copies\" }",
    );
    let first = json!({ "overlay": overlay });
    site.api.deploy(NAME, &old.plugin(), first).unwrap().ok();
    eventually(LONG, "the old version writes", async || {
        host.alive()?;
        match stage.position(NAME).await {
            0 => Err("nothing yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    let number = old.number.clone();
    let hold = link.hold(move |request| {
        matches!(request.opcode(), Some(EXECUTE | BATCH)) && request.contains(number.as_bytes())
    });
    hold.caught(SOON).await;
    host.kill();
    hold.orphaned(SOON).await;
    host = site.up().0;
    site.api
        .deploy(NAME, &new.plugin(), json!({}))
        .unwrap()
        .ok();
    // Each key comes once in so many offsets.
    let partitions = format!(
        "SELECT count(*) FROM (SELECT partition FROM {} WHERE version = '{}' GROUP BY partition \
         HAVING max(\"offset\") - min(\"offset\") >= {KEYS}) AS partitions",
        versioned::TABLE,
        new.number
    );
    eventually(LONG, "the new version writes every key", async || {
        host.alive()?;
        stage.reaches(&partitions, i64::from(PARTITIONS)).await
    })
    .await;
    let records = steady.stop();
    let total = records.values().sum();
    eventually(LONG, "all records are processed", async || {
        host.alive()?;
        stage.positioned(NAME, total).await
    })
    .await;
    hold.let_go();
    assert_eq!(hold.outcome(SOON).await, Outcome::Delivered);
    hold.answered(SOON).await;
    let counts = link.counts();
    assert_eq!((counts.held, counts.let_go_orphaned), (1, 1));

    // Postgres says which version wrote which offset, each once: Cassandra has to hold the last of every key.
    let log = format!(
        "SELECT partition, \"offset\", version FROM {}",
        versioned::TABLE
    );
    let mut wanted: BTreeMap<String, (i64, String)> = BTreeMap::new();
    let mut rows = 0;
    for row in stage.rows(&log).await {
        let (partition, offset, version): (i32, i64, String) = (row.get(0), row.get(1), row.get(2));
        rows += 1;
        let newest = wanted.entry(key(partition, offset)).or_default();
        if newest.1.is_empty() || newest.0 < offset {
            *newest = (offset, version);
        }
    }
    assert_eq!(rows, versioned::rows_of(&records), "rows lost or doubled");
    assert!(
        wanted.values().all(|(_, version)| *version == new.number),
        "the new version wrote every key last"
    );
    let session = servers.session().await;
    let query = format!("SELECT id, \"offset\", version FROM {KEYSPACE}.versioned_copies");
    let found = session.query_unpaged(query, ()).await.unwrap();
    let found = found.into_rows_result().unwrap();
    let found: BTreeMap<String, (i64, String)> = found
        .rows::<(String, i64, String)>()
        .unwrap()
        .map(|row| row.unwrap())
        .map(|(id, offset, version)| (id, (offset, version)))
        .collect();
    let differs = wanted.iter().find(|(id, row)| found.get(*id) != Some(row));
    assert_eq!(
        differs,
        None,
        "it became {:?}",
        differs.map(|(id, _)| found.get(id))
    );
    assert_eq!(found.len(), wanted.len());
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}
