//! The control topic holds what nobody should have put there, or is gone.

use std::time::Duration;

use serde_json::json;
use wasmill_tests::records::Made;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, versioned};

use super::{
    PIPELINE, SOON, deploy_first, deployed, exact, host, processed, rows_of, send, stage, two,
};

const TOPIC: &str = "wasmill.control";

/// The host's own words about itself: `/v1/host` and the log.
fn says(site: &Site, log: &str, word: &str) -> Result<(), String> {
    let status = site.api.get("/v1/host")?.body.to_string();
    if status.contains(word) || log.contains(word) {
        Ok(())
    } else {
        Err(format!("{status}\n{log}"))
    }
}

#[tokio::test]
async fn garbage_is_passed_over_and_told() {
    let stage = stage(2).await;
    let (site, mut running) = host(&stage, "garbage");
    let (old, new) = two();
    deploy_first(&site, &old);
    let garbage = [
        Made::new("nonsense", "nonsense"),
        Made::new(format!("deploy/{PIPELINE}/2/not-an-id"), "{}"),
        Made::new(
            format!("deploy/{PIPELINE}/2/00000000-0000-4000-8000-000000000000"),
            "{\"format\":1,\"half\":",
        ),
        Made::new(vec![0xff, 0xfe, 0], vec![0; 100_000]),
        Made {
            value: Some(b"without a key".to_vec()),
            ..Made::default()
        },
        Made::tombstone("never was"),
        Made::tombstone(format!(
            "deploy/{PIPELINE}/1/00000000-0000-4000-8000-000000000000"
        )),
    ];
    stage.feed.send(TOPIC, &garbage);
    let records = send(&stage, 2, 1_000);
    processed(&stage, &records).await;
    eventually(SOON, "the host says that there is garbage", async || {
        running.alive()?;
        says(&site, &running.stderr(), "garbage")
            .or_else(|_| says(&site, &running.stderr(), "not an entry"))
    })
    .await;
    // It goes on, and so does a host that reads all that from the start.
    site.api.upload_file(&new.file);
    deployed(&site, &new, json!({}));
    running.kill();
    let (mut running, _) = site.up();
    assert_eq!(
        site.api.status(PIPELINE).unwrap()["plugin"],
        json!(new.plugin())
    );
    exact(&stage, &site, &records).await;
    running.alive().unwrap();
}

#[tokio::test]
async fn an_older_host_leaves_alone_what_a_newer_one_wrote() {
    let stage = stage(2).await;
    let (site, mut running) = host(&stage, "older");
    let (old, new) = two();
    deploy_first(&site, &old);
    let records = send(&stage, 2, 1_000);
    processed(&stage, &records).await;
    let id = "00000000-0000-4000-8000-000000000001";
    let revision = site.api.status(PIPELINE).unwrap()["revision"]
        .as_u64()
        .unwrap()
        + 1;
    let entry = json!({
        "format": 1_000, "id": id, "at": 0, "by": "somebody", "host": "newer",
        "change": { "kind": "deploy", "pipeline": PIPELINE, "revision": revision, "deployment": { "telepathy": true } }
    });
    let key = format!("deploy/{PIPELINE}/{revision}/{id}");
    stage.feed.send(TOPIC, &[Made::new(key, entry.to_string())]);
    eventually(SOON, "the host says so", async || {
        running.alive()?;
        says(&site, &running.stderr(), "newer")
    })
    .await;
    let behind = site.api.status(PIPELINE).unwrap()["behind"].to_string();
    let runs = format!("runs revision {}", revision - 1);
    assert!(
        behind.contains(&runs) && behind.contains("upgrade this host"),
        "{behind}"
    );
    // It keeps what it runs, and does not write where it cannot read.
    site.api.upload_file(&new.file);
    let answer = site.api.deploy(PIPELINE, &new.plugin(), json!({})).unwrap();
    let said = answer.refused();
    assert!(
        said.contains("newer"),
        "the reason is named, status {}: {said}",
        answer.status
    );
    assert_ne!(answer.status, 500, "{said}");
    let more: Vec<_> = (0..2)
        .flat_map(|partition| (1_000..1_500).map(move |n| versioned::record(partition, n)))
        .collect();
    stage.feed.send(PIPELINE, &more);
    let records = records
        .into_keys()
        .map(|partition| (partition, 1_500))
        .collect();
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    running.alive().unwrap();
}

#[tokio::test]
async fn a_deleted_control_topic_is_told_and_stops_no_record() {
    let stage = stage(2).await;
    let (site, mut running) = host(&stage, "deleted");
    let (old, new) = two();
    deploy_first(&site, &old);
    let mut records = send(&stage, 2, 1_000);
    processed(&stage, &records).await;
    stage.feed.delete_topic(TOPIC).await;
    eventually(SOON, "the host is not ready and says why", async || {
        running.alive()?;
        let answer = site.api.get("/ready")?;
        if answer.status == 503 && answer.body.to_string().contains("control") {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    // What runs goes on.
    let more: Vec<_> = (0..2)
        .flat_map(|partition| (1_000..2_000).map(move |n| versioned::record(partition, n)))
        .collect();
    stage.feed.send(PIPELINE, &more);
    records.values_mut().for_each(|count| *count = 2_000);
    processed(&stage, &records).await;
    let written = versioned::written(&stage, &records).await;
    assert_eq!(written.faults, Vec::<String>::new());
    // What cannot be kept is refused, not pretended.
    let answer = site.api.upload(&std::fs::read(&new.file).unwrap()).unwrap();
    let said = answer.refused();
    assert!(
        matches!(answer.status, 422 | 503) && said.contains("restore"),
        "{said}"
    );
    running.alive().unwrap();
    let exit = running.stop(Duration::from_secs(25));
    assert!(exit.code.is_some(), "it can still be stopped");
    // The next start would begin with nothing deployed: it refuses, and names the file that stands for "I know".
    let exit = site.start().wait(SOON);
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    let hint = exit.stderr.split('`').nth(1);
    let file = std::path::Path::new(hint.expect("the hint quotes a file"));
    std::fs::remove_file(file).unwrap();
    // Positions are in the database, so nothing is done twice.
    let (mut running, _) = site.up();
    deploy_first(&site, &old);
    rows_of(&stage, &old).await;
    let more: Vec<_> = (0..2)
        .flat_map(|partition| (2_000..2_100).map(move |n| versioned::record(partition, n)))
        .collect();
    stage.feed.send(PIPELINE, &more);
    records.values_mut().for_each(|count| *count = 2_100);
    processed(&stage, &records).await;
    let written = versioned::written(&stage, &records).await;
    assert_eq!(written.faults, Vec::<String>::new());
    running.alive().unwrap();
}
