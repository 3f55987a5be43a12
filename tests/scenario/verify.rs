//! `wasmill verify`: equal after kills and while records flow; and each thing that somebody broke, with its record.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use wasmill_tests::artifact::{plugin, wasmill};
use wasmill_tests::expected::shipped_flights;
use wasmill_tests::records::Made;
use wasmill_tests::ring::RealServers;
use wasmill_tests::site::Plot;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage, versioned, versions};

use super::flights::flights_in_postgres;

/// How long some ten thousand records may take on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(120);

/// Runs the check; its exit code and its report.
pub(super) fn verify(config: &Path, name: &str, more: &[&str]) -> (Option<i32>, Value) {
    let output = wasmill()
        .args(["verify", name, "--json", "-c"])
        .arg(config)
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report =
        serde_json::from_str(&text).unwrap_or_else(|_| Value::String(format!("{text}{said}")));
    (output.status.code(), report)
}

/// The check finds nothing wrong and nothing it could not check.
pub(super) fn is_equal(config: &Path, name: &str, more: &[&str]) -> Value {
    let (code, report) = verify(config, name, more);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["equal"], true, "{report:#}");
    report
}

/// Kind, table and record.
pub(super) type Difference = (String, String, Option<(i64, i64)>);

/// Of each difference.
pub(super) fn differences(report: &Value) -> BTreeSet<Difference> {
    let all = report["differences"].as_array().unwrap().iter();
    all.map(|one| {
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let at = one["partition"].as_i64().zip(one["offset"].as_i64());
        (text("kind"), text("table"), at)
    })
    .collect()
}

fn made(records: usize) -> Vec<Made> {
    let flights = shipped_flights(records);
    flights
        .iter()
        .map(|(id, text)| Made::new(id.as_bytes(), text.as_bytes()))
        .collect()
}

#[tokio::test]
async fn a_pipeline_is_equal_through_kills_and_what_is_broken_is_found() {
    const RECORDS: usize = 20_000;
    let stage = Stage::new();
    stage.feed.topic("flights", 3).await;
    let mut all = made(RECORDS);
    // Dead letters.
    all.push(Made::new("bad", "{"));
    all.push(Made::tombstone("gone"));
    let places = stage.feed.send("flights", &all);
    let host = stage.host(&flights_in_postgres());
    let config = stage.path("wasmill.toml");
    let passes = async |least: i64| {
        eventually(SOON, "records are processed", async || {
            match stage.position("flights").await {
                at if at >= least => Ok(()),
                at => Err(format!("at {at}")),
            }
        })
        .await;
    };
    passes(2_000).await;
    host.kill();
    let host = stage.again();
    let before = stage.position("flights").await;
    passes(before + 500).await;
    // While it runs.
    is_equal(&config, "flights", &["--strict"]);
    host.kill();
    let _host = stage.again();
    let total = i64::try_from(all.len()).unwrap();
    eventually(SOON, "all records are processed", async || {
        stage.positioned("flights", total).await
    })
    .await;
    let report = is_equal(&config, "flights", &["--strict"]);
    let sum = |list: &str, name: &str| -> u64 {
        let all = report[list].as_array().unwrap().iter();
        all.map(|one| one[name].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("partitions", "records"), all.len() as u64);
    assert_eq!(sum("partitions", "emitted"), RECORDS as u64);
    assert_eq!(sum("partitions", "dead"), 2);
    assert_eq!(sum("tables", "equal"), sum("tables", "rows"));
    let log = i64::try_from(RECORDS).unwrap();
    assert_eq!(stage.number("SELECT count(*) FROM flight_log").await, log);

    // A row lost, one changed, one added, one doubled, one appended row lost.
    let mut often = std::collections::BTreeMap::new();
    for made in &all {
        *often.entry(made.key.clone().unwrap()).or_insert(0) += 1;
    }
    // Of flights that have one record: a later one would have made the row.
    let mut once = all
        .iter()
        .zip(&places)
        .filter(|(made, place)| place.partition == 1 && often[made.key.as_ref().unwrap()] == 1);
    let mut next = || {
        let (made, place) = once.next().unwrap();
        let id = String::from_utf8(made.key.clone().unwrap()).unwrap();
        (id, place.offset)
    };
    let ((lost, lost_at), (changed, changed_at)) = (next(), next());
    let ((_, doubled_at), (_, forgotten_at)) = (next(), next());
    stage
        .execute(&format!(
            "DELETE FROM flights WHERE id = '{lost}'; \
             UPDATE flights SET delay = coalesce(delay, 0) + 1 WHERE id = '{changed}'; \
             CREATE TEMP TABLE copied AS SELECT * FROM flights LIMIT 1; \
             UPDATE copied SET id = 'nobody'; INSERT INTO flights SELECT * FROM copied; \
             INSERT INTO flight_log SELECT * FROM flight_log WHERE partition = 1 AND \"offset\" = {doubled_at}; \
             DELETE FROM flight_log WHERE partition = 1 AND \"offset\" = {forgotten_at}"
        ))
        .await;
    let (code, report) = verify(&config, "flights", &[]);
    assert_eq!(code, Some(6), "{report:#}");
    let wanted = |kind: &str, table: &str, offset: Option<i64>| {
        let at = offset.map(|offset| (1, offset));
        (kind.to_owned(), format!("public.{table}"), at)
    };
    assert_eq!(
        differences(&report),
        BTreeSet::from([
            wanted("missing", "flights", Some(lost_at)),
            wanted("different", "flights", Some(changed_at)),
            wanted("extra", "flights", None),
            wanted("extra", "flight_log", Some(doubled_at)),
            wanted("missing", "flight_log", Some(forgotten_at)),
        ]),
        "{report:#}"
    );
    let one = |kind: &str| {
        let all = report["differences"].as_array().unwrap().iter();
        all.clone().find(|one| one["kind"] == kind).unwrap()
    };
    let columns = &one("different")["columns"];
    assert_eq!(columns.as_array().unwrap().len(), 1, "{columns:#}");
    assert_eq!(columns[0]["column"], "delay");
    let number = |name: &str| columns[0][name].as_str().unwrap().parse::<i64>();
    let (expected, found) = (number("expected").unwrap_or(0), number("found").unwrap());
    assert_eq!(found, expected + 1);

    // Words for people say the same.
    let output = wasmill()
        .args(["verify", "flights", "-c"])
        .arg(&config)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let record = format!("record 1:{changed_at}");
    assert!(
        text.contains(&record) && text.contains("NOT EQUAL"),
        "{text}"
    );
}

#[tokio::test]
async fn each_version_answers_for_the_offsets_it_made() {
    const PIPELINE: &str = "swapped";
    let stage = Stage::new();
    stage.feed.topic(PIPELINE, 2).await;
    versioned::create_table(&stage).await;
    let site = Site::new(&stage, &Plot::new("verified"));
    let (host, _) = site.up();
    let send = |offsets: std::ops::Range<i64>| {
        let of = |partition| {
            offsets
                .clone()
                .map(move |n| versioned::record(partition, n))
        };
        stage
            .feed
            .send(PIPELINE, &(0..2).flat_map(of).collect::<Vec<_>>());
    };
    let mut sent = 0;
    for index in 0..3 {
        let version = versions::version(index);
        site.api.upload_file(&version.file);
        let overlay = json!({ "overlay": versioned::overlay(PIPELINE) });
        let answer = site.api.deploy(PIPELINE, &version.plugin(), overlay);
        answer.unwrap().ok();
        let lanes = format!(
            "SELECT count(DISTINCT partition) FROM {} WHERE version = '{}'",
            versioned::TABLE,
            version.number
        );
        let begun = std::time::Instant::now();
        // Each lane takes over on its own.
        while stage.number(&lanes).await < 2 {
            assert!(begun.elapsed() < SOON, "{} never took over", version.number);
            send(sent..sent + 50);
            sent += 50;
            eventually(SOON, "all records are processed", async || {
                stage.positioned(PIPELINE, 2 * sent).await
            })
            .await;
        }
    }
    let report = is_equal(site.config(), PIPELINE, &[]);
    let made = &report["partitions"][0]["plugins"];
    let plugins: Vec<String> = (0..3)
        .map(|index| versions::version(index).plugin())
        .collect();
    assert_eq!(made, &json!(plugins), "{report:#}");

    // The host need not run; and a row of the first version that another one made would be a ghost.
    host.kill();
    let old = versions::version(0).number;
    let new = versions::version(2).number;
    stage
        .execute(&format!(
            "UPDATE {} SET version = '{new}' WHERE version = '{old}' AND partition = 0 AND \"offset\" = 0",
            versioned::TABLE
        ))
        .await;
    let (code, report) = verify(site.config(), PIPELINE, &[]);
    assert_eq!(code, Some(6), "{report:#}");
    let table = format!("public.{}", versioned::TABLE);
    assert_eq!(
        differences(&report),
        BTreeSet::from([
            ("missing".to_owned(), table.clone(), Some((0, 0))),
            ("extra".to_owned(), table, None),
        ]),
        "{report:#}"
    );
}

#[tokio::test]
async fn a_plugin_that_remembers_what_it_saw_is_caught() {
    let stage = Stage::new();
    stage.feed.topic("records", 1).await;
    let all: Vec<Made> = (0..3_000)
        .map(|n| Made::new(format!("k{n}"), "{}"))
        .collect();
    stage.feed.send("records", &all);
    let liar = pipeline("liar", &plugin("tests/guests/remembers"), "");
    stage
        .execute("CREATE TABLE remembers (id text NOT NULL, number bigint NOT NULL)")
        .await;
    let _host = stage.host(&liar);
    eventually(SOON, "all records are processed", async || {
        stage.positioned("liar", 3_000).await
    })
    .await;
    let (code, report) = verify(&stage.path("wasmill.toml"), "liar", &["--limit", "5"]);
    assert_eq!(code, Some(6), "{report:#}");
    let shown = report["differences"].as_array().unwrap();
    assert_eq!(shown.len(), 5);
    assert!(
        report["tables"][0]["missing"].as_u64().unwrap() > 1_000,
        "{report:#}"
    );
}

#[tokio::test]
async fn what_cannot_be_verified_says_why() {
    let stage = Stage::new();
    stage.feed.topic("flights", 1).await;
    let config = stage.config(&flights_in_postgres());
    let (code, said) = verify(&config, "fligths", &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said["error"]["detail"]
            .as_str()
            .unwrap()
            .contains("flights"),
        "{said:#}"
    );
    // It never ran.
    let (code, said) = verify(&config, "flights", &[]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said["error"]["hint"].is_string(), "{said:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cassandra_is_equal_through_kills_and_what_is_broken_is_found() {
    let Some(servers) = RealServers::get() else {
        return;
    };
    const RECORDS: usize = 20_000;
    let stage = Stage::on(&servers.kafka.bootstrap());
    let (keyspace, topic) = ("verified", "verified");
    stage.feed.topic(topic, 3).await;
    let all = made(RECORDS);
    let places = stage.feed.send(topic, &all);
    let bind = format!("bind.input.flights = {{ kafka = \"main\", topic = \"{topic}\" }}");
    let flights = pipeline("verified", &plugin("plugins/flights"), &bind);
    let host = stage.host(&format!("{}\n{flights}", servers.connection(keyspace)));
    let config = stage.path("wasmill.toml");
    eventually(SOON, "records are processed", async || {
        match stage.position("verified").await {
            0 => Err("none yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    host.kill();
    let _host = stage.again();
    // While it runs and writes ahead.
    is_equal(&config, "verified", &[]);
    let total = i64::try_from(RECORDS).unwrap();
    eventually(2 * SOON, "all records are processed", async || {
        stage.positioned("verified", total).await
    })
    .await;
    let report = is_equal(&config, "verified", &["--strict"]);
    assert_eq!(report["tables"].as_array().unwrap().len(), 3, "{report:#}");

    let session = servers.session().await;
    let table = format!("{keyspace}.flights_by_airport");
    let rows = session
        .query_unpaged(
            format!("SELECT origin, cast(day as text), cast(toUnixTimestamp(departure) as text), id FROM {table} LIMIT 2"),
            (),
        )
        .await
        .unwrap()
        .into_rows_result()
        .unwrap();
    let rows: Vec<(String, String, String, String)> = rows
        .rows::<(String, String, String, String)>()
        .unwrap()
        .map(|row| row.unwrap())
        .collect();
    let key = |row: &(String, String, String, String)| {
        format!(
            "origin = '{}' AND day = '{}' AND departure = {} AND id = '{}'",
            row.0, row.1, row.2, row.3
        )
    };
    for cql in [
        format!("DELETE FROM {table} WHERE {}", key(&rows[0])),
        format!("UPDATE {table} SET delay = 12345 WHERE {}", key(&rows[1])),
        format!(
            "INSERT INTO {table} (origin, day, departure, id) VALUES ('XXX', '{}', {}, 'nobody')",
            rows[0].1, rows[0].2
        ),
    ] {
        session.query_unpaged(cql, ()).await.unwrap();
    }
    let (code, report) = verify(&config, "verified", &[]);
    assert_eq!(code, Some(6), "{report:#}");
    let last = |id: &str| {
        let found = all.iter().zip(&places).rev();
        let mut found = found.filter(|(made, _)| made.key.as_deref() == Some(id.as_bytes()));
        let (_, place) = found.next().unwrap();
        Some((i64::from(place.partition), place.offset))
    };
    let wanted = |kind: &str, at| (kind.to_owned(), table.clone(), at);
    assert_eq!(
        differences(&report),
        BTreeSet::from([
            wanted("missing", last(&rows[0].3)),
            wanted("different", last(&rows[1].3)),
            wanted("extra", None),
        ]),
        "{report:#}"
    );
}
