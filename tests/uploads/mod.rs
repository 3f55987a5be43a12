//! Plugins uploaded to running hosts: deployed, swapped, tried on some partitions, rolled back; by one host or three;
//! and everything about that which should be refused.

mod access;
mod away;
mod cache_full;
mod canary;
mod command_line;
mod control_topic;
mod dead_letters;
mod deadly;
mod dev;
mod gitops;
mod parked;
mod refused;
mod shadow;
mod signed;
mod swap;
mod three_hosts;
mod topics_alone;
mod warnings;
mod written_ahead;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde_json::{Value, json};
use wasmill_tests::artifact::wasmill;
use wasmill_tests::host::Host;
use wasmill_tests::site::Plot;
use wasmill_tests::versions::{self, Version};
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage, versioned};

/// How long anything but a canary may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// The pipeline of the tests here, and its topic.
const PIPELINE: &str = "swapped";

/// A stage with the guest's topic and table.
async fn stage(partitions: i32) -> Stage {
    let stage = Stage::new();
    stage.feed.topic(PIPELINE, partitions).await;
    versioned::create_table(&stage).await;
    stage
}

/// A host that is ready, on a stage.
fn host(stage: &Stage, id: &str) -> (Site, Host) {
    let site = Site::new(stage, &Plot::new(id));
    let (host, _) = site.up();
    (site, host)
}

/// Uploads a version and deploys it as the first of the pipeline.
fn deploy_first(site: &Site, version: &Version) {
    site.api.upload_file(&version.file);
    let overlay = json!({ "overlay": versioned::overlay(PIPELINE) });
    deployed(site, version, overlay);
}

/// Deploys an uploaded version; `more` are further members of the request. Returns the answer.
fn deployed(site: &Site, version: &Version, more: Value) -> Value {
    let answer = site.api.deploy(PIPELINE, &version.plugin(), more);
    answer.unwrap_or_else(|error| panic!("{error}")).ok()
}

/// `partitions` partitions of `each` records, produced.
fn send(stage: &Stage, partitions: i32, each: i64) -> BTreeMap<i32, i64> {
    send_more(stage, partitions, 0..each)
}

/// The records at these offsets of `partitions` partitions, produced. Returns how many each partition holds now.
fn send_more(stage: &Stage, partitions: i32, offsets: Range<i64>) -> BTreeMap<i32, i64> {
    let of = |partition| {
        let offsets = offsets.clone();
        offsets.map(move |n| versioned::record(partition, n))
    };
    let all: Vec<_> = (0..partitions).flat_map(of).collect();
    stage.feed.send(PIPELINE, &all);
    let held = |partition| (partition, offsets.end);
    (0..partitions).map(held).collect()
}

/// Waits until rows of a version are there.
async fn rows_of(stage: &Stage, version: &Version) {
    let sql = format!(
        "SELECT count(*) FROM {} WHERE version = '{}'",
        versioned::TABLE,
        version.number
    );
    let what = format!("rows of {} arrive", version.number);
    eventually(SOON, &what, async || match stage.number(&sql).await {
        0 => Err("none yet".to_owned()),
        _ => Ok(()),
    })
    .await;
}

/// Waits until every record is behind the positions.
async fn processed(stage: &Stage, records: &BTreeMap<i32, i64>) {
    let total = records.values().sum();
    eventually(SOON, "all records are processed", async || {
        stage.positioned(PIPELINE, total).await
    })
    .await;
}

/// Every row is there, once, and as `history` says.
async fn exact(stage: &Stage, site: &Site, records: &BTreeMap<i32, i64>) {
    let written = versioned::written(stage, records).await;
    assert_eq!(written.faults, Vec::<String>::new());
    let history = site.api.history(PIPELINE);
    let faults = wasmill_tests::swaps::against_history(&written.runs, &history);
    assert_eq!(faults, Vec::<String>::new(), "{history:#}");
}

/// The actions of the history, newest first, with who did them.
fn actions(site: &Site) -> Vec<(String, String, String)> {
    let history = site.api.history(PIPELINE);
    let text = |revision: &Value, name: &str| revision[name].as_str().unwrap().to_owned();
    let revisions = history["revisions"].as_array().unwrap().iter();
    revisions
        .map(|revision| {
            (
                text(revision, "action"),
                text(revision, "plugin"),
                text(revision, "by"),
            )
        })
        .collect()
}

/// Waits until a pipeline is in a state; returns its status then.
async fn in_state(site: &Site, pipeline: &str, wanted: &str) -> Value {
    let what = format!("pipeline {pipeline} is {wanted}");
    eventually(SOON, &what, async || {
        let status = site.api.status(pipeline)?;
        match status["state"] == wanted {
            true => Ok(status),
            false => Err(format!("{status:#}")),
        }
    })
    .await
}

/// Runs a command of the program against a host; its exit code and its JSON.
fn run(site: &Site, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = wasmill()
        .args(arguments)
        .arg("--json")
        .env("WASMILL_HOST", site.api.base())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let json =
        serde_json::from_str(&text).unwrap_or_else(|_| Value::String(format!("{text}{said}")));
    (output.status.code(), json)
}

/// The same, which has to succeed.
fn done(site: &Site, arguments: &[&str]) -> Value {
    let (code, json) = run(site, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {json:#}");
    json
}

/// The first version of the guest, and the next.
fn two() -> (Version, Version) {
    (versions::version(0), versions::version(1))
}
