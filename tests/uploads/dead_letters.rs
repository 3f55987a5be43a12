//! Dead letters from a shell: looked at, run through a mended version, forgotten; and each row once, however often and
//! by whomever it is retried, whatever is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use wasmill_tests::artifact::{plugin, wasmill};
use wasmill_tests::records::Made;
use wasmill_tests::ring::RealServers;
use wasmill_tests::site::Plot;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage, versioned, versions};

use super::{SOON, done, host, run};

/// The pipeline and its topic.
const MARKS: &str = "marks";

/// A stage whose topic has two partitions of `each` records, and the table of the guest.
async fn marked(each: i64, mark: fn(i64) -> &'static str) -> Stage {
    let stage = Stage::new();
    stage.feed.topic(MARKS, 2).await;
    let sql = "CREATE TABLE reject_some (id text NOT NULL)";
    stage.execute(sql).await;
    let record = |partition: i32, n: i64| {
        let value = format!(r#"{{"mark":"{}"}}"#, mark(n));
        Made::new(format!("{partition}-{n}"), value).on(partition)
    };
    let all: Vec<Made> = (0..2)
        .flat_map(|partition| (0..each).map(move |n| record(partition, n)))
        .collect();
    stage.feed.send(MARKS, &all);
    stage
}

/// Uploads the guest that rejects marked records and deploys it; waits until all records are through.
async fn deployed(stage: &Stage, site: &Site, each: i64) {
    site.api.upload_file(&plugin("tests/guests/reject-some"));
    let overlay = format!(
        "bind.input.records = {{ kafka = \"main\", topic = {MARKS:?} }}\n\
         bind.route.seen = {{ connection = \"main\", table = \"reject_some\" }}\n"
    );
    let request = json!({ "overlay": overlay });
    let answer = site.api.deploy(MARKS, "reject-some@0.1.0", request);
    answer.unwrap().ok();
    eventually(SOON, "all records are processed", async || {
        stage.positioned(MARKS, 2 * each).await
    })
    .await;
}

/// How often each id is there.
async fn ids(stage: &Stage) -> Vec<(String, i64)> {
    let sql = "SELECT id, count(*) FROM reject_some GROUP BY id ORDER BY id";
    let rows = stage.rows(sql).await;
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Every record in ten has this fate.
fn mixed(n: i64) -> &'static str {
    match n % 10 {
        3 => "reject",
        7 => "nonsense",
        _ => "17",
    }
}

fn outcomes(report: &Value) -> Vec<&str> {
    let results = report["results"].as_array().unwrap().iter();
    results
        .map(|one| one["outcome"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_mended_version_turns_dead_letters_into_rows_and_the_rest_is_dropped() {
    let stage = marked(100, mixed).await;
    let (site, _host) = host(&stage, "letters");
    deployed(&stage, &site, 100).await;

    let list = |more: &[&str]| {
        let arguments = [&["deadletter", "list", MARKS][..], more].concat();
        done(&site, &arguments)["letters"]
            .as_array()
            .unwrap()
            .clone()
    };
    assert_eq!(list(&[]).len(), 40);
    let rejected = list(&["--code", "marked"]);
    assert_eq!(rejected.len(), 20);
    assert_eq!(
        list(&["--partition", "1", "--from", "10", "--to", "20"]).len(),
        2
    );
    assert_eq!(list(&["--class", "plugin"]).len(), 0);
    assert_eq!(list(&["--since", "1h"]).len(), 40);
    assert_eq!(list(&["--until", "1h"]).len(), 0);
    assert_eq!(list(&["--plugin", "reject-some@0.1.0"]).len(), 40);
    let letter = &rejected[0];
    assert_eq!(
        (&letter["partition"], &letter["offset"]),
        (&json!(0), &json!(3))
    );
    assert_eq!(letter["reason"], "the record says so");
    assert_eq!(letter["key"], "0-3");
    let shown = wasmill()
        .args(["deadletter", "show", MARKS, "0:3", "--raw"])
        .env("WASMILL_HOST", site.api.base())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&shown.stdout),
        r#"{"mark":"reject"}"#
    );

    // the same record in a folder, through the component that rejected it and through the mended one
    let folder = stage.path("why");
    let folder = folder.to_str().unwrap();
    let bundle = done(
        &site,
        &["deadletter", "show", MARKS, "0:3", "--bundle", folder],
    );
    assert_eq!(bundle["plugin"], "reject-some@0.1.0", "{bundle:#}");
    for (guest, wanted) in [("reject-some", Some(0)), ("reject-fewer", Some(4))] {
        let component = plugin(&format!("tests/guests/{guest}"));
        let component = component.to_str().unwrap();
        let (code, said) = run(&site, &["plugin", "test", folder, "--component", component]);
        assert_eq!(code, wanted, "{guest}: {said}");
    }

    // through the version that rejected it: it stays, and says when that was tried
    let retry = ["deadletter", "retry", MARKS];
    let (code, report) = run(&site, &[&retry[..], &["0:3"]].concat());
    assert_eq!(code, Some(1), "{report:#}");
    assert_eq!(outcomes(&report), ["dead"]);
    assert!(done(&site, &["deadletter", "show", MARKS, "0:3"])["tried_at"].is_string());
    assert_eq!(ids(&stage).await.len(), 160);

    // through a version that is not deployed
    site.api.upload_file(&plugin("tests/guests/reject-fewer"));
    let mended = ["--through", "reject-some@0.2.0"];
    let report = done(&site, &[&retry[..], &["0:3"], &mended].concat());
    assert_eq!(outcomes(&report), ["emitted"], "{report:#}");
    let again = done(&site, &[&retry[..], &["0:3"], &mended].concat());
    assert_eq!(outcomes(&again), Vec::<&str>::new(), "it is gone");

    // through the release in force
    done(
        &site,
        &["deploy", "reject-some@0.2.0", "--pipeline", MARKS, "--yes"],
    );
    let two = ["--code", "marked", "--limit", "2"];
    let report = done(&site, &[&retry[..], &two].concat());
    assert_eq!(outcomes(&report), ["emitted"; 2], "{report:#}");
    assert_eq!(
        (&report["left"], &report["next"]),
        (&json!(17), &json!("0:23:0"))
    );
    let (code, report) = run(&site, &[&retry[..], &["--all"]].concat());
    assert_eq!(code, Some(1), "{report:#}");
    let count = |wanted| {
        outcomes(&report)
            .iter()
            .filter(|one| **one == wanted)
            .count()
    };
    assert_eq!((count("emitted"), count("dead")), (17, 20), "{report:#}");
    let written = ids(&stage).await;
    assert_eq!(written.len(), 180);
    assert!(written.iter().all(|(_, times)| *times == 1), "{written:?}");
    let retried = "SELECT sum(retried)::int8 FROM wasmill.position";
    assert_eq!(stage.number(retried).await, 20);

    // the rest goes, and not by accident
    let drop = ["deadletter", "drop", MARKS];
    let (code, said) = run(&site, &drop);
    assert_eq!(code, Some(2), "{said:#}");
    let (code, said) = run(&site, &[&drop[..], &["--all"]].concat());
    assert_eq!(code, Some(5), "{said:#}");
    assert!(
        said.to_string().contains("20 dead letters would go"),
        "{said:#}"
    );
    let (code, said) = run(&site, &[&drop[..], &["--all", "--limit", "5"]].concat());
    assert_eq!(code, Some(5), "{said:#}");
    assert!(
        said.to_string().contains("5 of 20 dead letters would go"),
        "{said:#}"
    );
    let five = ["--all", "--limit", "5", "--after", "0:7:0", "--yes"];
    let dropped = done(&site, &[&drop[..], &five].concat());
    assert_eq!(
        (&dropped["dropped"], &dropped["left"]),
        (&json!(5), &json!(14))
    );
    let left = list(&[]);
    assert_eq!(left.len(), 15);
    assert_eq!(
        (&left[0]["offset"], &left[1]["offset"]),
        (&json!(7), &json!(67))
    );
    let dropped = done(&site, &[&drop[..], &["--all", "--yes"]].concat());
    assert_eq!(dropped, json!({"dropped": 15}));
    assert_eq!(list(&[]).len(), 0);
    let audit = done(&site, &["audit"]).to_string();
    for part in [
        "1 emitted, 0 filtered, 0 still dead",
        "17 emitted, 0 filtered, 20 still dead",
        "5 dropped",
        "15 dropped",
    ] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    let (code, said) = run(&site, &["deadletter", "show", MARKS, "0:7"]);
    assert_eq!(code, Some(5), "{said:#}");
    let (code, said) = run(&site, &["deadletter", "list", "nobody"]);
    assert_eq!(code, Some(5), "{said:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_by_two_at_once_under_kills_write_each_row_once() {
    const EACH: i64 = 600;
    const KILLS: usize = 4;
    let stage = marked(EACH, |_| "reject").await;
    let (site, mut host) = host(&stage, "killed");
    deployed(&stage, &site, EACH).await;
    assert_eq!(ids(&stage).await, []);
    site.api.upload_file(&plugin("tests/guests/reject-fewer"));

    let stop = Arc::new(AtomicBool::new(false));
    let worker = || {
        let (stop, api) = (Arc::clone(&stop), site.api.clone());
        std::thread::spawn(move || {
            let body = json!({"letters": {"limit": 1000}, "plugin": "reject-some@0.2.0"});
            let path = format!("/v1/pipelines/{MARKS}/dead-letters/retry");
            while !stop.load(Ordering::Acquire) {
                // Whoever is killed answers nothing.
                api.json("POST", &path, &body).ok();
            }
        })
    };
    let workers = [worker(), worker()];
    let left = "SELECT count(*) FROM wasmill.dead_letter";
    let mut kills = Vec::new();
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(400)).await;
        host.kill();
        kills.push(stage.number(left).await);
        host = site.start();
        site.wait_ready(&mut host);
    }
    eventually(SOON, "every letter is retried", async || {
        stage.reaches(left, 0).await
    })
    .await;
    stop.store(true, Ordering::Release);
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(
        kills.iter().any(|left| (1..2 * EACH).contains(left)),
        "no kill came while letters were retried: {kills:?}"
    );
    let written = ids(&stage).await;
    let twice: Vec<_> = written.iter().filter(|(_, times)| *times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let wanted: BTreeSet<String> = (0..2)
        .flat_map(|partition| (0..EACH).map(move |n| format!("{partition}-{n}")))
        .collect();
    assert_eq!(
        written
            .into_iter()
            .map(|(id, _)| id)
            .collect::<BTreeSet<_>>(),
        wanted
    );
    let retried = "SELECT sum(retried)::int8 FROM wasmill.position";
    assert_eq!(stage.number(retried).await, 2 * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_written_ahead_by_a_retry_has_the_time_its_record_had() {
    const TOPIC: &str = "letters-ahead";
    const KEYSPACE: &str = "letters_ahead";
    let Some(servers) = RealServers::get() else {
        return;
    };
    let stage = Stage::on(&servers.kafka.bootstrap());
    stage.feed.topic(TOPIC, 1).await;
    let session = servers.session().await;
    let keyspace = format!(
        "CREATE KEYSPACE {KEYSPACE} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
    );
    session.query_unpaged(keyspace, ()).await.unwrap();
    versioned::create_table(&stage).await;
    let table = versioned::TABLE;
    let refuse =
        format!("ALTER TABLE {table} ADD CONSTRAINT refused CHECK (\"offset\" NOT IN (15, 40))");
    stage.execute(&refuse).await;
    let plot = Plot {
        control: "letters-ahead-control".to_owned(),
        more: servers.connection(KEYSPACE),
        ..Plot::new("letters-ahead")
    };
    let site = Site::new(&stage, &plot);
    let (_host, _) = site.up();
    let overlay = versioned::overlay(TOPIC).replace(
        "bind.route.copies = \"discard\"",
        "bind.route.copies = { connection = \"main\", table = \"versioned_copies\" }",
    );
    let [version, other] = [0, 1].map(versions::version);
    for uploaded in [&version, &other] {
        site.api.upload_file(&uploaded.file);
    }
    let request = json!({ "overlay": overlay });
    let answer = site.api.deploy(TOPIC, &version.plugin(), request);
    answer.unwrap().ok();
    let records: Vec<Made> = (0..60).map(|n| versioned::record(0, n)).collect();
    stage.feed.send(TOPIC, &records);
    eventually(SOON, "all records are processed", async || {
        stage.positioned(TOPIC, 60).await
    })
    .await;
    let copies = async || {
        let query =
            format!("SELECT \"offset\", writetime(version) FROM {KEYSPACE}.versioned_copies");
        let rows = session.query_unpaged(query, ()).await.unwrap();
        let rows = rows.into_rows_result().unwrap();
        let rows = rows.rows::<(i64, i64)>().unwrap();
        rows.map(Result::unwrap).collect::<BTreeMap<i64, i64>>()
    };
    let dead: Vec<i64> = stage
        .dead()
        .await
        .into_iter()
        .map(|(_, _, offset)| offset)
        .collect();
    assert_eq!(dead, [15, 40]);
    assert_eq!(copies().await.len(), 10, "what is dead was not sent");

    // refused once more: nothing was sent, so another version may have a go
    let retry = ["deadletter", "retry", TOPIC, "0:15"];
    let (code, report) = run(&site, &retry);
    assert_eq!(
        (code, outcomes(&report)),
        (Some(1), vec!["dead"]),
        "{report:#}"
    );
    stage
        .execute(&format!("ALTER TABLE {table} DROP CONSTRAINT refused"))
        .await;
    let mended = other.plugin();
    let through = [&retry[..], &["--through", &mended]].concat();
    assert_eq!(outcomes(&done(&site, &through)), ["emitted"]);
    assert_eq!(
        outcomes(&done(&site, &["deadletter", "retry", TOPIC, "--all"])),
        ["emitted"]
    );
    let times = copies().await;
    let offsets: Vec<i64> = (0..60).step_by(5).collect();
    assert_eq!(times.keys().copied().collect::<Vec<_>>(), offsets);
    let in_order: Vec<i64> = times.values().copied().collect();
    assert!(in_order.is_sorted(), "{times:?}");
    let written = versioned::written(&stage, &BTreeMap::from([(0, 60)])).await;
    assert_eq!(written.faults, Vec::<String>::new());
    let by_other = &written.runs[&0][1];
    assert_eq!(
        (by_other.first, by_other.version.as_str()),
        (15, other.number.as_str())
    );

    // one whose retry was cut off after it was begun is finished by that release only, and is not dropped
    let sql = "INSERT INTO wasmill.dead_letter SELECT pipeline, topic, partition, 40, 0, 'data', 'x', 'x', NULL, NULL, \
               NULL, true, true, false, NULL, 'x', 'x', now(), NULL, 2, 'feedfeedfeedfeed' FROM wasmill.position \
               WHERE pipeline = 'letters-ahead'";
    stage.execute(sql).await;
    let (code, report) = run(&site, &["deadletter", "retry", TOPIC, "--all"]);
    assert_eq!(
        (code, outcomes(&report)),
        (Some(1), vec!["refused"]),
        "{report:#}"
    );
    assert!(
        report.to_string().contains("feedfeedfeedfeed"),
        "{report:#}"
    );
    let dropped = done(&site, &["deadletter", "drop", TOPIC, "--all", "--yes"]);
    assert_eq!(dropped["dropped"], 0);
}

#[tokio::test]
async fn letters_of_an_earlier_host_s_schema_are_there_while_everything_is_paused() {
    let stage = marked(20, mixed).await;
    let (site, host) = host(&stage, "older");
    deployed(&stage, &site, 20).await;
    site.api.change(MARKS, "pause").unwrap().ok();
    assert_eq!(host.stop(SOON).code, Some(0));
    // As version 1 of the schema left it.
    stage
        .execute(
            "ALTER TABLE wasmill.position DROP CONSTRAINT position_balances, DROP COLUMN records, \
             DROP COLUMN emitted, DROP COLUMN filtered, DROP COLUMN dead, DROP COLUMN retried, DROP COLUMN retried_filtered; \
             ALTER TABLE wasmill.dead_letter DROP COLUMN stamp, DROP COLUMN begun; \
             DROP FUNCTION wasmill.advance(text, text, text, int4, int8, uuid, int8, int8, int8, int8, text, \
             int8, int8, int8, int8); \
             DELETE FROM wasmill.schema_version WHERE version > 1",
        )
        .await;
    let (_host, _) = site.up();
    let letters = done(&site, &["deadletter", "list", MARKS]);
    assert_eq!(letters["letters"].as_array().unwrap().len(), 8);
}
