//! A swap with Cassandra written ahead: a row there was written before the position moved, so the version that wrote
//! it has to be the one that the position's cuts name, kills or not. Needs Java.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use scylla::client::session::Session;
use serde_json::json;
use wasmill_tests::flow::Pace;
use wasmill_tests::host::Host;
use wasmill_tests::ring::RealServers;
use wasmill_tests::site::Plot;
use wasmill_tests::steady::{self, Steady};
use wasmill_tests::swaps::against_history;
use wasmill_tests::versioned::{KEPT, Run};
use wasmill_tests::versions::Version;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage, versioned, versions};

/// How long some ten thousand records may take with Cassandra beside them on a busy machine.
const LONG: Duration = Duration::from_secs(240);

const TOPIC: &str = "written-ahead";
const KEYSPACE: &str = "written_ahead";
const PIPELINE: &str = "ahead";
const PARTITIONS: i32 = 4;
const PACE: Pace = Pace {
    backlog: 20_000,
    rate: 2_000,
};

/// `(offset, version)` of every row in Cassandra, by partition, in order.
async fn copies(session: &Session) -> BTreeMap<i32, Vec<(i64, String)>> {
    let query = format!("SELECT partition, \"offset\", version FROM {KEYSPACE}.versioned_copies");
    let pager = session.query_iter(query, ()).await.unwrap();
    let mut rows = pager.rows_stream::<(i32, i64, String)>().unwrap();
    let mut copies: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    while let Some((partition, offset, version)) = rows.try_next().await.unwrap() {
        copies.entry(partition).or_default().push((offset, version));
    }
    copies.values_mut().for_each(|rows| rows.sort());
    copies
}

/// Waits until a version has written a row of every partition.
async fn writes_everywhere(stage: &Stage, host: &mut Host, version: &Version) {
    let sql = format!(
        "SELECT count(DISTINCT partition) FROM {} WHERE version = '{}'",
        versioned::TABLE,
        version.number
    );
    eventually(LONG, "the version writes everywhere", async || {
        host.alive()?;
        stage.reaches(&sql, i64::from(PARTITIONS)).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_in_both_databases_come_from_the_version_that_the_cuts_name() {
    let Some(servers) = RealServers::get() else {
        return;
    };
    let stage = Stage::on(&servers.kafka.bootstrap());
    stage.feed.topic(TOPIC, PARTITIONS).await;
    let keyspace = format!(
        "CREATE KEYSPACE {KEYSPACE} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
    );
    let session = servers.session().await;
    session.query_unpaged(keyspace, ()).await.unwrap();
    versioned::create_table(&stage).await;
    let empty = steady::empty(PARTITIONS);
    let bootstrap = stage.bootstrap();
    let steady = Steady::at(bootstrap, TOPIC, PACE, empty, versioned::record);
    let plot = Plot {
        control: "written-ahead-control".to_owned(),
        more: servers.connection(KEYSPACE),
        ..Plot::new("ahead")
    };
    let site = Site::new(&stage, &plot);
    let (mut host, _) = site.up();
    let overlay = versioned::overlay(TOPIC).replace(
        "bind.route.copies = \"discard\"",
        "bind.route.copies = { connection = \"main\", table = \"versioned_copies\" }",
    );
    let all: Vec<_> = (0..6).map(versions::version).collect();
    all.iter().for_each(|version| {
        site.api.upload_file(&version.file);
    });
    let first = json!({ "overlay": overlay });
    let answer = site.api.deploy(PIPELINE, &all[0].plugin(), first);
    answer.unwrap().ok();
    let mut kills = 0;
    for (index, version) in all.iter().enumerate().skip(1) {
        writes_everywhere(&stage, &mut host, &all[index - 1]).await;
        let answer = site.api.deploy(PIPELINE, &version.plugin(), json!({}));
        answer.unwrap().ok();
        if index % 2 == 1 {
            // With the reservation granted, the cut pending, and rows of the old version ahead of the position.
            tokio::time::sleep(Duration::from_millis(40 * u64::try_from(index).unwrap())).await;
            host.kill();
            kills += 1;
            host = site.up().0;
        }
    }
    assert_eq!(kills, 3);
    writes_everywhere(&stage, &mut host, &all[all.len() - 1]).await;
    let records = steady.stop();
    let total = records.values().sum();
    eventually(LONG, "all records are processed", async || {
        host.alive()?;
        stage.positioned(PIPELINE, total).await
    })
    .await;

    let written = versioned::written(&stage, &records).await;
    assert_eq!(written.faults, Vec::<String>::new());
    let history = site.api.get(&format!("/v1/pipelines/{PIPELINE}/history"));
    let history = history.unwrap().ok();
    let faults = against_history(&written.runs, &history);
    assert_eq!(faults, Vec::<String>::new(), "{history:#}");
    assert!(
        written.runs.values().all(|runs| runs.len() == all.len()),
        "versions took turns: {:?}",
        written.runs
    );

    // Cassandra: a row for each kept offset, of the version that Postgres shows for it.
    let copies = copies(&session).await;
    for partition in 0..PARTITIONS {
        let rows = &copies[&partition];
        let wanted: Vec<(i64, String)> = (0..records[&partition])
            .step_by(usize::try_from(KEPT).unwrap())
            .map(|offset| {
                let holds = |run: &&Run| run.first <= offset && offset <= run.last;
                let run = written.runs[&partition].iter().find(holds);
                (offset, run.expect("no row is missing").version.clone())
            })
            .collect();
        let differs = rows
            .iter()
            .zip(&wanted)
            .find(|(seen, wanted)| seen != wanted);
        assert_eq!(differs, None, "partition {partition}");
        assert_eq!(rows.len(), wanted.len(), "partition {partition}");
    }
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}
