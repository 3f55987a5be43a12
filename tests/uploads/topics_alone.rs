//! A pipeline that writes topics only, its position and its dead letters in topics too: what an operator sees of it.

use std::time::Duration;

use serde_json::json;
use wasmill_tests::Stage;
use wasmill_tests::artifact::plugin;
use wasmill_tests::records::Made;
use wasmill_tests::wait::eventually;

use super::{SOON, done, host, run};

const RECORDS: u64 = 200;

#[tokio::test]
async fn status_and_dead_letters_of_a_pipeline_without_a_database() {
    let stage = Stage::new();
    stage.feed.topic("records", 2).await;
    // One in ten lacks what the plugin needs.
    let made = |n: u64| match n % 10 {
        0 => Made::new(format!("k{n}"), "{}"),
        _ => Made::new(format!("k{n}"), format!("{{\"seq\":{n}}}")),
    };
    stage
        .feed
        .send("records", &(0..RECORDS).map(made).collect::<Vec<_>>());
    let (site, running) = host(&stage, "topics");
    site.api.upload_file(&plugin("tests/guests/alerts"));
    let overlay = "bind.input.records = { kafka = \"main\", topic = \"records\" }\n\
                   bind.route.alerts = { kafka = \"main\", topic = \"alerts\" }\n\
                   bind.route.log = \"discard\"\n";
    let request = json!({ "overlay": overlay });
    site.api
        .deploy("alerts", "alerts@0.1.0", request)
        .unwrap()
        .ok();
    let status = async || {
        let status = site.api.status("alerts")?;
        let partitions = status["partitions"]
            .as_array()
            .ok_or("no partitions")?
            .iter();
        let position: i64 = partitions.filter_map(|one| one["position"].as_i64()).sum();
        match position == RECORDS.cast_signed() {
            true => Ok(status),
            false => Err(format!("{status:#}")),
        }
    };
    let status = eventually(SOON, "all records are processed", status).await;
    let partitions = status["partitions"].as_array().unwrap();
    for one in partitions {
        assert_eq!(one["lag"], 0, "{status:#}");
    }
    let dead = partitions
        .iter()
        .map(|one| one["ledger"]["dead"].as_u64().unwrap());
    assert_eq!(dead.sum::<u64>(), RECORDS / 10, "{status:#}");

    let letters = done(&site, &["deadletter", "list", "alerts"]);
    let letters = letters["letters"].as_array().unwrap();
    assert_eq!(letters.len() as u64, RECORDS / 10);
    let at = format!("{}:{}", letters[0]["partition"], letters[0]["offset"]);
    let shown = done(&site, &["deadletter", "show", "alerts", &at]);
    assert_eq!(shown["code"], "no-seq", "{shown:#}");
    let (code, said) = run(&site, &["deadletter", "retry", "alerts", &at]);
    assert_eq!(code, Some(3), "{said:#}");
    assert!(said.to_string().contains("position in Kafka"), "{said:#}");
    let dropped = done(&site, &["deadletter", "drop", "alerts", &at, "--yes"]);
    assert_eq!(dropped["dropped"], 1, "{dropped:#}");
    let left = done(&site, &["deadletter", "list", "alerts"]);
    assert_eq!(left["letters"].as_array().unwrap().len(), letters.len() - 1);
    assert_eq!(running.stop(Duration::from_secs(25)).code, Some(0));
}
