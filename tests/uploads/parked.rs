//! A plugin that fails again and again: its pipeline is parked, its neighbours go on, and an operator wakes it.

use serde_json::{Value, json};
use wasmill_tests::records::Made;
use wasmill_tests::wait::{eventually, same};
use wasmill_tests::{Stage, artifact};

use super::{SOON, deploy_first, done, exact, host, in_state, processed, run, send, stage, two};

/// Starts in a row after which a pipeline is parked.
const STARTS: u64 = 4;

/// The pipeline that fails; its plugin has the same name.
const FATAL: &str = "fatal";

/// Records `ids` of the topic that the failing pipeline reads.
fn feed(stage: &Stage, ids: std::ops::Range<i64>, fatal: Option<i64>) {
    let value = |id| match fatal == Some(id) {
        true => r#"{"mark":"fatal"}"#,
        false => "{}",
    };
    let all: Vec<Made> = ids
        .map(|id| Made::new(format!("r-{id}"), value(id)).on(0))
        .collect();
    stage.feed.send("records", &all);
}

/// How often the plugin failed so far.
fn failures(status: &Value) -> u64 {
    let errors = status["errors"].as_array().unwrap().iter();
    let plugin = errors.filter(|error| error["class"] == "plugin");
    plugin.map(|error| error["count"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_parked_and_resume_wakes_it() {
    let stage = stage(2).await;
    stage.feed.topic("records", 1).await;
    stage.execute("CREATE TABLE seen (id text)").await;
    let (site, mut running) = host(&stage, "parks");
    deploy_first(&site, &two().0);
    site.api
        .upload_file(&artifact::plugin("tests/guests/fatal"));
    let overlay = "bind.route.seen = { connection = \"main\", table = \"seen\" }\n";
    let answer = site
        .api
        .deploy(FATAL, "fatal@0.1.0", json!({ "overlay": overlay }));
    answer.unwrap().ok();
    feed(&stage, 0..50, None);
    eventually(SOON, "the good records are processed", async || {
        stage.positioned(FATAL, 50).await
    })
    .await;

    feed(&stage, 50..100, Some(50));
    let status = in_state(&site, FATAL, "parked").await;
    assert_eq!(failures(&status), STARTS, "{status:#}");
    let why = status["last_error"]["detail"].as_str().unwrap();
    assert!(
        why.contains("the record says that nothing can go on"),
        "{why}"
    );
    let (code, shown) = run(&site, &["status", FATAL]);
    assert_eq!(
        (code, &shown["state"]),
        (Some(0), &json!("parked")),
        "{shown:#}"
    );

    // Its neighbour does not know.
    let records = send(&stage, 2, 1_000);
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;

    // Woken while the cause is there: it tries as often again, and nothing is written or skipped.
    done(&site, &["resume", FATAL]);
    eventually(SOON, "it is parked again", async || {
        let status = site.api.status(FATAL)?;
        same(&status["state"], &json!("parked"))?;
        same(&failures(&status), &(2 * STARTS))
    })
    .await;
    assert_eq!(stage.position(FATAL).await, 50);
    assert_eq!(stage.number("SELECT count(*) FROM seen").await, 50);
    assert_eq!(stage.dead().await, []);

    // Woken when somebody has stepped over the record.
    stage
        .execute("UPDATE wasmill.position SET next = 51 WHERE pipeline = 'fatal'")
        .await;
    done(&site, &["resume", FATAL]);
    eventually(SOON, "the records behind it are processed", async || {
        stage.positioned(FATAL, 100).await
    })
    .await;
    in_state(&site, FATAL, "running").await;
    assert_eq!(
        stage.number("SELECT count(DISTINCT id) FROM seen").await,
        99
    );
    assert_eq!(stage.number("SELECT count(*) FROM seen").await, 99);
    running.alive().unwrap();
}
