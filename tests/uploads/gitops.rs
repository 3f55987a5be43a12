//! Pipelines of config files beside uploads: a file says something when it changes, and is silent otherwise.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use wasmill_tests::artifact::{must, wasmill};
use wasmill_tests::host::Host;
use wasmill_tests::site::Plot;
use wasmill_tests::stage::pipeline;
use wasmill_tests::versions::{self, Version};
use wasmill_tests::wait::{eventually, same};
use wasmill_tests::{Site, Stage, versioned};

use super::{PIPELINE, SOON, deployed, exact, processed, rows_of, send, stage, two};

/// Where the pipelines of a config begin.
const MARK: &str = "# pipelines\n";

/// Time to drain.
const DRAIN: Duration = Duration::from_secs(25);

/// A host with an API, a control log and no pipeline yet.
fn site(stage: &Stage, id: &str) -> Site {
    let plot = Plot {
        more: MARK.to_owned(),
        ..Plot::new(id)
    };
    Site::new(stage, &plot)
}

/// Replaces the pipelines of a host's config.
fn declare(site: &Site, sections: &str) {
    let text = std::fs::read_to_string(site.config()).unwrap();
    let kept = text.split(MARK).next().unwrap();
    std::fs::write(site.config(), format!("{kept}{MARK}{sections}")).unwrap();
}

/// The section of a version's file, with further keys.
fn file(file: &Path, more: &str) -> String {
    let more = format!("{}{more}\n", versioned::overlay(PIPELINE));
    pipeline(PIPELINE, file, &more)
}

/// The section of an uploaded version.
fn named(version: &Version) -> String {
    format!(
        "[pipeline.{PIPELINE}]\nplugin = {:?}\n{}",
        version.plugin(),
        versioned::overlay(PIPELINE)
    )
}

/// Stops a host and starts it again.
fn again(site: &Site, host: Host) -> Host {
    host.stop(DRAIN);
    site.up().0
}

/// Revision and version in force.
fn in_force(site: &Site) -> (u64, String) {
    let status = site.api.status(PIPELINE).unwrap();
    let plugin = status["plugin"].as_str().unwrap().to_owned();
    (status["revision"].as_u64().unwrap(), plugin)
}

fn newest(site: &Site) -> Value {
    site.api.history(PIPELINE)["revisions"][0].clone()
}

#[tokio::test]
async fn an_upload_over_a_section_stands_until_the_file_changes() {
    let stage = stage(2).await;
    let (first, uploaded) = two();
    let changed = versions::version(2);
    let site = site(&stage, "sections");
    declare(&site, &file(&first.file, ""));
    let (host, _) = site.up();
    let records = send(&stage, 2, 500);
    rows_of(&stage, &first).await;
    assert_eq!(in_force(&site), (1, first.plugin()));

    site.api.upload_file(&uploaded.file);
    deployed(&site, &uploaded, json!({}));
    let host = again(&site, host);
    assert_eq!(in_force(&site), (2, uploaded.plugin()), "the upload stands");
    site.api.change(PIPELINE, "pause").unwrap().ok();

    declare(&site, &file(&changed.file, ""));
    let host = again(&site, host);
    assert_eq!(in_force(&site), (4, changed.plugin()));
    let status = site.api.status(PIPELINE).unwrap();
    assert_eq!(
        (&status["state"], &status["origin"]),
        (&json!("paused"), &json!("config")),
        "what an operator paused stays so: {status:#}"
    );
    assert_eq!(newest(&site)["by"], "config");

    // Without a change it says nothing, and going back to what was said before is a change.
    let host = again(&site, host);
    assert_eq!(in_force(&site), (4, changed.plugin()));
    declare(&site, &file(&first.file, ""));
    let host = again(&site, host);
    assert_eq!(in_force(&site), (5, first.plugin()));

    site.api.change(PIPELINE, "resume").unwrap().ok();
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    assert_eq!(host.stop(DRAIN).code, Some(0));
}

#[tokio::test]
async fn two_hosts_with_different_files_do_not_flip() {
    let stage = stage(2).await;
    let (left, right) = two();
    let sites = ["left", "right"].map(|id| site(&stage, id));
    declare(&sites[0], &file(&left.file, ""));
    declare(&sites[1], &file(&right.file, ""));
    let mut hosts = sites.each_ref().map(|site| Some(site.up().0));
    assert_eq!(in_force(&sites[1]), (2, right.plugin()));
    for turn in [0, 1, 0, 1] {
        let host = hosts[turn].take().unwrap();
        hosts[turn] = Some(again(&sites[turn], host));
        assert_eq!(in_force(&sites[turn]), (2, right.plugin()));
    }
    // The first whose file changes is heard.
    let third = versions::version(2);
    declare(&sites[0], &file(&third.file, ""));
    hosts[0] = Some(again(&sites[0], hosts[0].take().unwrap()));
    assert_eq!(in_force(&sites[0]), (3, third.plugin()));
    // The other one gets the same file after an upload, which stands.
    sites[0].api.upload_file(&versions::version(3).file);
    deployed(&sites[0], &versions::version(3), json!({}));
    declare(&sites[1], &file(&third.file, ""));
    hosts[1] = Some(again(&sites[1], hosts[1].take().unwrap()));
    assert_eq!(in_force(&sites[1]), (4, versions::version(3).plugin()));
}

#[tokio::test]
async fn a_section_names_an_uploaded_version() {
    let stage = stage(1).await;
    let (old, new) = two();
    let site = site(&stage, "named");
    let (host, _) = site.up();
    site.api.upload_file(&old.file);
    site.api.upload_file(&new.file);
    declare(&site, &named(&old));
    let host = again(&site, host);
    assert_eq!(in_force(&site), (1, old.plugin()));
    declare(&site, &named(&new));
    let host = again(&site, host);
    assert_eq!(in_force(&site), (2, new.plugin()));
    let records = send(&stage, 1, 100);
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;

    declare(&site, &named(&versions::version(2)));
    let host = again(&site, host);
    assert_eq!(in_force(&site), (2, new.plugin()), "what runs goes on");
    host.stop(DRAIN).refused(&["was never uploaded"]);
}

#[tokio::test]
async fn a_file_with_other_bytes_under_the_same_version_is_refused() {
    let stage = stage(1).await;
    let (old, _) = two();
    let site = site(&stage, "other-bytes");
    declare(&site, &file(&old.file, ""));
    let (host, _) = site.up();
    let stored = || site.api.get("/v1/plugins").unwrap().ok();
    let before = stored();
    let other = stage.path("other.wasm");
    let mut bytes = std::fs::read(&old.file).unwrap();
    bytes.extend_from_slice(&[0, 4, 3, b'a', b'b', b'c']);
    std::fs::write(&other, bytes).unwrap();
    declare(&site, &file(&other, ""));
    let host = again(&site, host);
    assert_eq!(in_force(&site), (1, old.plugin()));
    assert_eq!(stored()[0]["digest"], before[0]["digest"]);
    let records = send(&stage, 1, 100);
    processed(&stage, &records).await;
    host.stop(DRAIN).refused(&["a version never changes"]);
}

#[tokio::test]
async fn a_changed_section_ends_a_canary_and_the_history_says_so() {
    let stage = stage(2).await;
    let (old, trial) = two();
    let site = site(&stage, "ends-canary");
    declare(&site, &file(&old.file, ""));
    let (host, _) = site.up();
    site.api.upload_file(&trial.file);
    let canary = json!({ "partitions": 1, "for_seconds": 600, "then": "hold" });
    deployed(&site, &trial, json!({ "canary": canary }));
    // An unchanged file leaves it alone.
    let host = again(&site, host);
    let status = site.api.status(PIPELINE).unwrap();
    assert_eq!(
        status["canary"]["plugin"],
        json!(trial.plugin()),
        "{status:#}"
    );

    let changed = versions::version(2);
    declare(&site, &file(&changed.file, ""));
    let _host = again(&site, host);
    assert_eq!(in_force(&site), (3, changed.plugin()));
    let status = site.api.status(PIPELINE).unwrap();
    assert_eq!(status["canary"], Value::Null, "{status:#}");
    let note = newest(&site)["note"].as_str().unwrap().to_owned();
    assert!(
        note.contains("ends-canary") && note.contains(&format!("the canary of {}", trial.plugin())),
        "{note}"
    );
}

#[tokio::test]
async fn a_section_that_cannot_take_over_changes_nothing() {
    let stage = stage(1).await;
    stage.feed.topic("elsewhere", 1).await;
    stage.execute("CREATE TABLE narrow (id text)").await;
    let (old, new) = two();
    let site = site(&stage, "take-over");
    declare(&site, &file(&old.file, ""));
    let (mut host, _) = site.up();
    let good = file(&new.file, "");
    let moved = good.replace("topic = \"swapped\"", "topic = \"elsewhere\"");
    let narrow = good.replace(versioned::TABLE, "narrow");
    for (sections, says) in [
        (moved, "topic would change from swapped to elsewhere"),
        (narrow, "ALTER TABLE"),
    ] {
        declare(&site, &sections);
        host = again(&site, host);
        assert_eq!(in_force(&site), (1, old.plugin()), "{says}");
        let said = host.stderr();
        assert!(said.contains(says), "{says:?} is said: {said}");
    }
    declare(&site, &good);
    host = again(&site, host);
    assert_eq!(in_force(&site), (2, new.plugin()));
    let records = send(&stage, 1, 100);
    eventually(SOON, "it runs", async || {
        host.alive()?;
        same(&stage.position(PIPELINE).await, &100)
    })
    .await;
    exact(&stage, &site, &records).await;

    // A removed one stays removed until its file changes; then it may come back elsewhere, and the history says so.
    site.api.change(PIPELINE, "remove").unwrap().ok();
    host = again(&site, host);
    assert_eq!(in_force(&site).0, 3);
    let elsewhere = good.replace("topic = \"swapped\"", "topic = \"elsewhere\"");
    declare(&site, &elsewhere);
    let _host = again(&site, host);
    assert_eq!(in_force(&site), (4, new.plugin()));
    let note = newest(&site)["note"].as_str().unwrap().to_owned();
    assert!(note.contains("topic was swapped"), "{note}");
}

#[tokio::test]
async fn a_section_waits_where_nobody_knows_whether_it_moves_the_position() {
    let stage = stage(1).await;
    let (old, new) = two();
    let site = site(&stage, "unknown-move");
    let (host, _) = site.up();
    site.api.upload_file(&old.file);
    let overlay = json!({ "overlay": versioned::overlay(PIPELINE) });
    deployed(&site, &old, overlay);
    let records = send(&stage, 1, 100);
    processed(&stage, &records).await;
    // What is in force is not signed, so this host cannot load it any more; its own file it trusts.
    let mut keygen = wasmill();
    keygen.args(["plugin", "keygen", "--json", "--out"]);
    let made = must(keygen.arg(stage.path("ci.key")));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let rule = format!(
        "[[signing]]\nplugins = \"*\"\nname = \"ci\"\nkey = {}\n",
        made["public"]
    );
    declare(&site, &format!("{rule}{}", file(&new.file, "")));
    let host = again(&site, host);
    assert_eq!(in_force(&site), (1, old.plugin()), "nothing was deployed");
    let exit = host.stop(DRAIN);
    assert!(
        exit.stderr
            .contains("it is not known whether the position would move"),
        "{}",
        exit.stderr
    );
}
