//! A new version on some partitions first: a bad one goes by itself, with evidence; a good one is promoted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wasmill_tests::steady::{self, Steady};
use wasmill_tests::versions::Version;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage, versioned, versions};

use super::{
    PIPELINE, SOON, actions, deploy_first, deployed, exact, host, in_state, processed, rows_of,
    stage, two,
};

/// A bad canary has to be gone within this.
const GONE: Duration = Duration::from_secs(30);

/// Waits until no canary is under way.
async fn ended(site: &Site, within: Duration) -> Value {
    eventually(within, "the canary ends", async || {
        let status = site.api.status(PIPELINE)?;
        match &status["canary"] {
            Value::Null => Ok(status),
            canary => Err(canary.to_string()),
        }
    })
    .await
}

#[tokio::test]
async fn a_bad_canary_is_rolled_back_by_itself_with_evidence() {
    let stage = stage(4).await;
    let (site, mut host) = host(&stage, "bad-canary");
    let (good, bad) = (versions::version(0), versions::trapping());
    deploy_first(&site, &good);
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 2_000, steady::empty(4));
    rows_of(&stage, &good).await;
    site.api.upload_file(&bad.file);
    let asked = Instant::now();
    deployed(&site, &bad, json!({ "canary": { "partitions": 1 } }));
    let status = ended(&site, GONE).await;
    let took = asked.elapsed();
    assert!(took <= GONE, "rolled back after {took:.1?}");
    host.alive().unwrap();
    assert_eq!(status["plugin"], json!(good.plugin()), "{status:#}");

    let history = site.api.history(PIPELINE);
    let newest = &history["revisions"][0];
    assert_eq!(newest["action"], "rollback", "{history:#}");
    assert_eq!(newest["by"], "canary", "{history:#}");
    let evidence = newest["note"].as_str().unwrap_or_default();
    assert!(
        evidence.contains("dead") || evidence.contains("error") || evidence.contains("trap"),
        "the note names what spoke against it: {history:#}"
    );

    let records = steady.stop();
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    // Rows the bad one wrote stay, on one partition only; its victims are dead letters there and nowhere else.
    let on = format!(
        "SELECT count(DISTINCT partition) FROM {} WHERE version = '{}'",
        versioned::TABLE,
        bad.number
    );
    assert_eq!(
        stage.number(&on).await,
        1,
        "the canary had one whole partition"
    );
    let dead = stage.dead().await;
    assert!(!dead.is_empty(), "it trapped: {}", host.stderr());
    let partition = dead[0].1;
    for (code, at, offset) in dead {
        assert_eq!(
            (code.as_str(), at, offset % 20),
            ("trap", partition, 7),
            "only records that trap are dead"
        );
    }
    let segments = history["segments"].as_array().unwrap();
    let of_bad: Vec<&Value> = segments
        .iter()
        .filter(|segment| segment["plugin"] == json!(bad.plugin()))
        .collect();
    assert_eq!(of_bad.len(), 1, "{history:#}");
    assert_eq!(of_bad[0]["partition"], partition);
}

/// Runs a version whose rows are right but dear as a canary; why it went.
async fn judged(id: &str, tolerance: Value) -> String {
    let stage = stage(4).await;
    let (site, mut host) = host(&stage, id);
    let (good, dear) = (versions::version(0), versions::wasteful());
    deploy_first(&site, &good);
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 1_000, steady::empty(4));
    rows_of(&stage, &good).await;
    site.api.upload_file(&dear.file);
    let canary = json!({ "partitions": 1, "min_records": 200, "tolerance": tolerance });
    deployed(&site, &dear, json!({ "canary": canary }));
    let status = ended(&site, GONE).await;
    host.alive().unwrap();
    assert_eq!(status["plugin"], json!(good.plugin()), "{status:#}");
    let records = steady.stop();
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    assert!(stage.dead().await.is_empty());
    rolled_back(&site)
}

/// What the newest entry of the history says against the canary that it rolled back.
fn rolled_back(site: &Site) -> String {
    let history = site.api.history(PIPELINE);
    let newest = &history["revisions"][0];
    assert_eq!(newest["action"], "rollback", "{history:#}");
    assert_eq!(newest["by"], "canary", "{history:#}");
    newest["note"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_canary_that_makes_other_rows_of_a_record_is_rolled_back_where_that_is_compared() {
    let tolerance = json!({ "rows_share": 0.5, "cpu_times": 1e9, "latency_times": 1e9 });
    let note = judged("more-rows", tolerance).await;
    // 6 of 5 against 2 of 5, as exactly as whole records are so far.
    let said = note.split_once(" rows a record, the others ");
    let number = |text: &str| {
        text.trim_end_matches(';')
            .parse::<f64>()
            .unwrap_or(f64::NAN)
    };
    let (mine, theirs) = said.map_or((f64::NAN, f64::NAN), |(before, after)| {
        let mine = before.rsplit(' ').next().unwrap_or_default();
        let theirs = after.split(' ').next().unwrap_or_default();
        (number(mine), number(theirs))
    });
    assert!(
        (mine - 1.2).abs() < 0.1 && (theirs - 0.4).abs() < 0.1,
        "{note}"
    );
    assert!(!note.contains("processor time"), "{note}");
}

#[tokio::test]
async fn a_canary_that_takes_more_processor_time_is_rolled_back() {
    // Rows are not compared without being asked to; the time to the commit is the machine's as much as the canary's.
    let note = judged("more-work", json!({ "latency_times": 1e9 })).await;
    assert!(note.contains("µs of processor time a record"), "{note}");
    assert!(!note.contains("rows a record"), "{note}");
}

/// The table of a canary alone.
const OWN: &str = "canary_log";

/// A pipeline with a canary that writes into a table of its own, under way, and records that come all the time.
async fn with_own_table(stage: &Stage, site: &Site) -> (Version, Version, Steady) {
    let (old, new) = two();
    let own = format!("CREATE TABLE {OWN} (LIKE {})", versioned::TABLE);
    stage.execute(&own).await;
    deploy_first(site, &old);
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 500, steady::empty(4));
    rows_of(stage, &old).await;
    site.api.upload_file(&new.file);
    let overlay = versioned::overlay(PIPELINE).replace(versioned::TABLE, OWN);
    let canary = json!({ "partitions": 1, "for_seconds": 3600 });
    deployed(site, &new, json!({ "overlay": overlay, "canary": canary }));
    eventually(SOON, "the canary writes", async || {
        let rows = format!("SELECT count(*) FROM {OWN}");
        match stage.number(&rows).await {
            0 => Err("no rows yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    (old, new, steady)
}

/// Takes the canary's table away; its rows are kept.
async fn take_table_away(stage: &Stage) {
    stage
        .execute(&format!("ALTER TABLE {OWN} RENAME TO taken_away"))
        .await;
}

/// Nothing was lost or doubled, counting what the canary wrote.
async fn exact_in_both(stage: &Stage, site: &Site, steady: Steady) {
    let records = steady.stop();
    processed(stage, &records).await;
    let together = format!("INSERT INTO {} SELECT * FROM taken_away", versioned::TABLE);
    stage.execute(&together).await;
    exact(stage, site, &records).await;
}

#[tokio::test]
async fn a_canary_that_stops_is_rolled_back() {
    let stage = stage(4).await;
    let (site, mut host) = host(&stage, "stopped-canary");
    let (old, _, steady) = with_own_table(&stage, &site).await;
    take_table_away(&stage).await;
    let status = ended(&site, GONE).await;
    host.alive().unwrap();
    assert_eq!(status["plugin"], json!(old.plugin()), "{status:#}");
    let note = rolled_back(&site);
    assert!(note.contains("it stopped") && note.contains(OWN), "{note}");
    exact_in_both(&stage, &site, steady).await;
}

#[tokio::test]
async fn a_canary_that_cannot_run_where_a_host_starts_keeps_nobody_else_from_running() {
    let stage = stage(4).await;
    let (site, host) = host(&stage, "no-canary");
    let (old, new, steady) = with_own_table(&stage, &site).await;
    assert_eq!(host.stop(SOON).code, Some(0));
    take_table_away(&stage).await;
    let (mut host, _) = site.up();
    let status = ended(&site, GONE).await;
    host.alive().unwrap();
    assert_eq!(status["plugin"], json!(old.plugin()), "{status:#}");
    // The rollback may come while the host still starts what it found deployed: then it starts anew.
    in_state(&site, PIPELINE, "running").await;
    let note = rolled_back(&site);
    assert!(note.contains("it stopped") && note.contains(OWN), "{note}");
    let log = host.stderr();
    assert!(
        !log.contains("pipeline stopped"),
        "{} waited, the others ran: {log}",
        new.plugin()
    );
    exact_in_both(&stage, &site, steady).await;
}

#[tokio::test]
async fn a_good_canary_is_promoted_by_itself() {
    let stage = stage(4).await;
    let (site, _host) = host(&stage, "good-canary");
    let (old, new) = two();
    deploy_first(&site, &old);
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 1_000, steady::empty(4));
    rows_of(&stage, &old).await;
    site.api.upload_file(&new.file);
    let canary = json!({
        "partitions": 1, "for_seconds": 3, "min_records": 200,
        // Timing of a busy test machine is no evidence.
        "tolerance": { "cpu_times": 1000.0, "latency_times": 1000.0 }
    });
    deployed(&site, &new, json!({ "canary": canary }));
    let under_way = site.api.status(PIPELINE).unwrap();
    assert_eq!(
        under_way["canary"]["partitions"].as_array().map(Vec::len),
        Some(1),
        "{under_way:#}"
    );
    let status = ended(&site, Duration::from_secs(60)).await;
    assert_eq!(status["plugin"], json!(new.plugin()), "{status:#}");
    let first = actions(&site).remove(0);
    assert_eq!(
        first,
        ("promote".to_owned(), new.plugin(), "canary".to_owned())
    );
    let everywhere = format!(
        "SELECT count(DISTINCT partition) FROM {} WHERE version = '{}'",
        versioned::TABLE,
        new.number
    );
    eventually(SOON, "it runs everywhere", async || {
        stage.reaches(&everywhere, 4).await
    })
    .await;
    let records = steady.stop();
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
}

#[tokio::test]
async fn a_canary_that_holds_waits_for_an_operator() {
    let stage = stage(2).await;
    let (site, _host) = host(&stage, "held-canary");
    let (old, new) = two();
    deploy_first(&site, &old);
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 500, steady::empty(2));
    rows_of(&stage, &old).await;
    site.api.upload_file(&new.file);
    let canary = json!({ "partitions": 1, "for_seconds": 1, "min_records": 10, "then": "hold" });
    deployed(&site, &new, json!({ "canary": canary }));
    rows_of(&stage, &new).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let status = site.api.status(PIPELINE).unwrap();
    assert_eq!(
        status["canary"]["plugin"],
        json!(new.plugin()),
        "nobody has decided: {status:#}"
    );
    site.api.change(PIPELINE, "rollback").unwrap().ok();
    let status = ended(&site, Duration::from_secs(10)).await;
    assert_eq!(status["plugin"], json!(old.plugin()), "{status:#}");
    let records = steady.stop();
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
}

#[tokio::test]
async fn a_canary_needs_a_partition_to_compare_with() {
    let stage = stage(1).await;
    let (site, _host) = host(&stage, "one-partition");
    let (old, new) = two();
    deploy_first(&site, &old);
    site.api.upload_file(&new.file);
    let more = json!({ "canary": { "partitions": 1 } });
    let answer = site.api.deploy(PIPELINE, &new.plugin(), more).unwrap();
    let said = answer.refused();
    assert_eq!(answer.status, 422, "{said}");
    assert!(said.contains("shadow"), "the way out is named: {said}");
    assert_eq!(
        site.api.status(PIPELINE).unwrap()["plugin"],
        json!(old.plugin())
    );
}

/// Sends records that carry the header, and says how many each partition holds then.
fn send_traced(
    stage: &Stage,
    offsets: std::ops::Range<i64>,
) -> std::collections::BTreeMap<i32, i64> {
    let traced = |partition: i32, n: i64| wasmill_tests::records::Made {
        header: Some(("trace", "t-1")),
        ..versioned::record(partition, n)
    };
    let of = |partition| offsets.clone().map(move |n| traced(partition, n));
    let all: Vec<_> = (0..2).flat_map(of).collect();
    stage.feed.send(PIPELINE, &all);
    (0..2).map(|partition| (partition, offsets.end)).collect()
}

#[tokio::test]
async fn a_canary_that_reads_headers_gets_them_beside_a_version_that_does_not() {
    let stage = stage(2).await;
    let (site, mut host) = host(&stage, "headers");
    let plain = versions::version(0);
    deploy_first(&site, &plain);
    let records = send_traced(&stage, 0..200);
    processed(&stage, &records).await;
    let reads = Version {
        name: versions::NAME,
        number: "4.0.0".to_owned(),
        file: wasmill_tests::artifact::plugin("tests/guests/reads-header"),
    };
    site.api.upload_file(&reads.file);
    let canary = json!({ "partitions": 1, "for_seconds": 600, "then": "hold" });
    deployed(&site, &reads, json!({ "canary": canary }));
    let by_canary = format!(
        "SELECT count(*) FROM {} WHERE version = '{}'",
        versioned::TABLE,
        reads.number
    );
    // The canary begins between two batches, within a second or so: records come until it wrote one.
    let mut sent = 200;
    let begun = std::time::Instant::now();
    while stage.number(&by_canary).await == 0 {
        assert!(begun.elapsed() < SOON, "{}", host.stderr());
        let records = send_traced(&stage, sent..sent + 100);
        processed(&stage, &records).await;
        sent += 100;
    }
    let records = send_traced(&stage, sent..sent + 400);
    sent += 400;
    processed(&stage, &records).await;
    host.alive().unwrap();
    let dead = stage.dead().await;
    assert!(
        dead.is_empty(),
        "without the header they would be: {dead:?}"
    );
    exact(&stage, &site, &records).await;

    // An earlier release that reads them, under a main one that does not: it goes on from where it was put.
    site.api.change(PIPELINE, "promote").unwrap().ok();
    deployed(&site, &plain, json!({}));
    let canary = json!({ "partitions": 1, "for_seconds": 600, "then": "hold" });
    deployed(&site, &reads, json!({ "canary": canary }));
    host.stop(SOON);
    let (_host, _) = site.up();
    let records = send_traced(&stage, sent..sent + 500);
    processed(&stage, &records).await;
    assert!(stage.dead().await.is_empty());
    exact(&stage, &site, &records).await;
}
