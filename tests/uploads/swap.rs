//! The swap run in short, and the ways to swap by hand: roll back, pause, resume, remove, plan and apply.

use serde_json::json;
use wasmill_tests::site::Plot;
use wasmill_tests::steady::{self, Steady};
use wasmill_tests::swaps::{self, Options};
use wasmill_tests::wait::eventually;
use wasmill_tests::{Stage, versioned};

use super::{
    PIPELINE, SOON, actions, deploy_first, deployed, exact, host, in_state, processed, rows_of,
    send, send_more, stage, two,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_swapped_under_a_backlog_and_kills_write_every_row_once() {
    let stage = Stage::new();
    let options = Options {
        backlog: 200_000,
        timed: 2,
        swaps: 24,
        kills: 3,
        versions: 3,
        ahead: 100_000,
        seed: 7,
        tell: false,
    };
    let outcome = swaps::run(&stage, &Plot::new("swapper"), &options).await;
    assert_eq!(outcome.faults, Vec::<String>::new());
    assert_eq!(outcome.kill_to_effect.len(), 3, "the kills really happened");
    assert!(
        outcome.written.runs.values().all(|runs| runs.len() > 10),
        "versions really took turns in every partition: {:?}",
        outcome.written.runs
    );
}

#[tokio::test]
async fn rollback_goes_back_one_step_and_pause_stops_and_resume_goes_on() {
    let stage = stage(2).await;
    let (site, host) = host(&stage, "hands");
    let (old, new) = two();
    deploy_first(&site, &old);
    let steady = Steady::versioned(stage.bootstrap(), PIPELINE, 400, steady::empty(2));
    rows_of(&stage, &old).await;
    site.api.upload_file(&new.file);
    deployed(&site, &new, json!({}));
    rows_of(&stage, &new).await;

    site.api.change(PIPELINE, "rollback").unwrap().ok();
    let newest = format!(
        "SELECT count(*) FROM {t} AS t WHERE version = '{}' AND \"offset\" > \
         (SELECT max(\"offset\") FROM {t} WHERE version = '{}' AND partition = t.partition)",
        old.number,
        new.number,
        t = versioned::TABLE
    );
    eventually(SOON, "the old version writes again", async || {
        match stage.number(&newest).await {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;

    site.api.change(PIPELINE, "pause").unwrap().ok();
    in_state(&site, PIPELINE, "paused").await;
    let paused = stage.position(PIPELINE).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(
        stage.position(PIPELINE).await,
        paused,
        "nothing is processed while it is paused"
    );
    site.api.change(PIPELINE, "resume").unwrap().ok();
    in_state(&site, PIPELINE, "running").await;
    let records = steady.stop();
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;

    let (old, new) = (old.plugin(), new.plugin());
    let seen: Vec<(String, String)> = actions(&site)
        .into_iter()
        .map(|(action, plugin, _)| (action, plugin))
        .collect();
    let wanted = [
        ("resume", &old),
        ("pause", &old),
        ("rollback", &old),
        ("deploy", &new),
        ("deploy", &old),
    ];
    let wanted: Vec<(String, String)> = wanted
        .iter()
        .map(|(action, plugin)| ((*action).to_owned(), (*plugin).clone()))
        .collect();
    assert_eq!(seen, wanted);

    site.api.change(PIPELINE, "remove").unwrap().ok();
    in_state(&site, PIPELINE, "removed").await;
    assert_eq!(host.stop(std::time::Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn a_plan_says_what_changes_and_is_applied_by_its_hash() {
    let stage = stage(1).await;
    let (site, mut running) = host(&stage, "plans");
    let (old, new) = two();
    deploy_first(&site, &old);
    let records = send(&stage, 1, 500);
    processed(&stage, &records).await;
    site.api.upload_file(&new.file);
    let path = format!("/v1/pipelines/{PIPELINE}/plan");
    let request = json!({ "plugin": new.plugin() });
    let plan = site.api.json("POST", &path, &request).unwrap().ok();
    assert_eq!(plan["problems"], json!([]), "{plan:#}");
    let changes = plan["changes"].to_string();
    assert!(
        changes.contains(&old.number) && changes.contains(&new.number),
        "{changes}"
    );
    assert_eq!(
        site.api.status(PIPELINE).unwrap()["plugin"],
        json!(old.plugin()),
        "planning changes nothing"
    );
    let hash = plan["hash"].clone();
    deployed(&site, &new, json!({ "plan": hash }));
    // What was planned from another state is refused.
    deployed(&site, &old, json!({}));
    deployed(&site, &new, json!({ "note": "another way" }));
    let again = site
        .api
        .deploy(PIPELINE, &new.plugin(), json!({ "plan": hash }))
        .unwrap();
    let said = again.refused();
    assert_eq!(again.status, 409, "{said}");
    running.alive().unwrap();
    exact(&stage, &site, &records).await;
}

#[tokio::test]
async fn a_restarted_host_goes_on_with_what_was_uploaded() {
    let stage = stage(2).await;
    let (site, host) = host(&stage, "restarted");
    let (old, new) = two();
    deploy_first(&site, &old);
    let records = send(&stage, 2, 1_000);
    processed(&stage, &records).await;
    site.api.upload_file(&new.file);
    deployed(&site, &new, json!({}));
    host.kill();
    let (host, _) = site.up();
    let records = send_more(&stage, 2, 1_000..2_000);
    processed(&stage, &records).await;
    exact(&stage, &site, &records).await;
    rows_of(&stage, &new).await;
    assert_eq!(host.stop(std::time::Duration::from_secs(25)).code, Some(0));
}
