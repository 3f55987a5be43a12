//! Signatures when a version is loaded: a host runs nothing that its own `[[signing]]` keys do not stand behind, also
//! where it was uploaded, and ran, before the keys were what they are.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wasmill_tests::artifact::{must, wasmill};
use wasmill_tests::site::Plot;
use wasmill_tests::versions::Version;
use wasmill_tests::{Site, Stage, versioned};

use super::{PIPELINE, deployed, done, exact, in_state, processed, send, send_more, stage, two};

/// A pair of keys: the file of the private one, and the rule that asks for it.
struct Key {
    file: PathBuf,
    rule: String,
}

fn key(stage: &Stage, name: &str) -> Key {
    let file = stage.path(&format!("{name}.key"));
    let mut keygen = wasmill();
    keygen.args(["plugin", "keygen", "--json", "--out"]);
    let made = must(keygen.arg(&file));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let rule = format!(
        "[[signing]]\nplugins = \"versioned\"\nname = {name:?}\nkey = {}\n",
        made["public"]
    );
    Key { file, rule }
}

/// Uploads a version, signed where a key is given, as a person would.
fn upload(stage: &Stage, site: &Site, version: &Version, key: Option<&Key>) {
    let file = stage.path(&format!("{}.wasm", version.number));
    std::fs::copy(&version.file, &file).unwrap();
    if let Some(key) = key {
        must(wasmill().args(["plugin", "sign"]).args([
            file.as_path(),
            Path::new("--key"),
            &key.file,
        ]));
    }
    done(site, &["upload", file.to_str().unwrap()]);
}

/// A host with rules for signatures, on the one control log of the stage.
fn plot(rules: &str) -> Plot {
    Plot {
        more: rules.to_owned(),
        ..Plot::new("keys")
    }
}

/// Deploys a version on a host that takes it, starts that host anew with keys that do not stand behind it: the version
/// is not run, one that is signed as it should be goes on where it stood.
async fn refused_at_load(stage: &Stage, before: Option<&Key>, now: &Key, says: &str) {
    let (old, new) = two();
    let site = Site::new(stage, &plot(before.map_or("", |key| &key.rule)));
    let (host, _) = site.up();
    upload(stage, &site, &old, before);
    deployed(
        &site,
        &old,
        json!({ "overlay": versioned::overlay(PIPELINE) }),
    );
    let records = send(stage, 2, 500);
    processed(stage, &records).await;
    assert_eq!(host.stop(super::SOON).code, Some(0));

    let site = Site::new(stage, &plot(&now.rule));
    let (mut host, _) = site.up();
    let records = send_more(stage, 2, 500..1_000);
    let status = in_state(&site, PIPELINE, "parked").await;
    let why = &status["last_error"];
    assert_eq!(why["class"], "plugin", "{status:#}");
    let detail = why["detail"].as_str().unwrap();
    assert!(detail.contains(says), "{detail}");
    let hint = why["hint"].as_str().unwrap();
    assert!(hint.contains("wasmill plugin sign"), "{hint}");
    // Nor is it deployed again.
    let again = site
        .api
        .deploy(PIPELINE, &old.plugin(), json!({ "note": "again" }));
    let again = again.unwrap();
    assert_eq!(again.status, 422, "{}", again.refused());
    assert!(again.refused().contains(says), "{}", again.refused());

    upload(stage, &site, &new, Some(now));
    deployed(&site, &new, json!({}));
    processed(stage, &records).await;
    exact(stage, &site, &records).await;
    let late = format!(
        "SELECT count(*) FROM {} WHERE version = '{}' AND \"offset\" >= 500",
        versioned::TABLE,
        old.number
    );
    assert_eq!(
        stage.number(&late).await,
        0,
        "the version was run all the same"
    );
    host.alive().unwrap();
}

#[tokio::test]
async fn a_version_signed_by_a_key_that_counts_no_more_is_not_run() {
    let stage = stage(2).await;
    let (ci, boss) = (key(&stage, "ci"), key(&stage, "boss"));
    refused_at_load(&stage, Some(&ci), &boss, "have to be signed by boss").await;
}

#[tokio::test]
async fn a_version_from_before_signatures_were_asked_for_is_not_run() {
    let stage = stage(2).await;
    let ci = key(&stage, "ci");
    refused_at_load(
        &stage,
        None,
        &ci,
        "have to be signed ([[signing]]), and this one is not",
    )
    .await;
}

#[tokio::test]
async fn a_signature_that_nobody_asked_for_is_kept_for_the_hosts_that_do() {
    let stage = stage(2).await;
    let ci = key(&stage, "ci");
    let (old, _) = two();
    let site = Site::new(&stage, &plot(""));
    let (host, _) = site.up();
    upload(&stage, &site, &old, Some(&ci));
    deployed(
        &site,
        &old,
        json!({ "overlay": versioned::overlay(PIPELINE) }),
    );
    let records = send(&stage, 2, 300);
    processed(&stage, &records).await;
    let listed = done(&site, &["list"]).to_string();
    assert!(
        !listed.contains("signed_by"),
        "nobody verified it: {listed}"
    );
    assert_eq!(host.stop(super::SOON).code, Some(0));

    let site = Site::new(&stage, &plot(&ci.rule));
    let (mut host, _) = site.up();
    let records = send_more(&stage, 2, 300..600);
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    host.alive().unwrap();
}
