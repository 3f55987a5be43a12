//! What a plan warns of, that a script has to say yes to it, and steps that would lose something.

use std::path::Path;

use serde_json::{Value, json};
use wasmill_tests::artifact::wasmill;
use wasmill_tests::{Site, versioned};

use super::{PIPELINE, deploy_first, deployed, host, processed, send, stage, two};

/// The warnings of a plan.
fn warnings(site: &Site, plugin: &str, overlay: &str) -> Vec<String> {
    let request = json!({ "plugin": plugin, "overlay": overlay });
    let path = format!("/v1/pipelines/{PIPELINE}/plan");
    let plan = site.api.json("POST", &path, &request).unwrap().ok();
    assert_eq!(plan["problems"], json!([]), "{plan:#}");
    let texts = plan["warnings"].as_array().unwrap().iter();
    texts
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// `wasmill deploy` without a terminal: exit code and what it said.
fn deploy(site: &Site, plugin: &str, overlay: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = wasmill()
        .args(["deploy", plugin, "--pipeline", PIPELINE, "--overlay"])
        .arg(overlay)
        .args(more)
        .env("WASMILL_HOST", site.api.base())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn revision(site: &Site) -> Value {
    site.api.status(PIPELINE).unwrap()["revision"].clone()
}

#[tokio::test]
async fn a_script_says_yes_to_warnings_or_nothing_happens() {
    let stage = stage(2).await;
    let (site, _host) = host(&stage, "warned");
    let (old, new) = two();
    deploy_first(&site, &old);
    site.api.upload_file(&new.file);
    let overlay = versioned::overlay(PIPELINE);
    assert_eq!(
        warnings(&site, &new.plugin(), &overlay),
        Vec::<String>::new(),
        "a plain update needs no second look"
    );
    let canary = json!({ "partitions": 1, "for_seconds": 600, "then": "hold" });
    deployed(&site, &new, json!({ "canary": canary }));
    let tight = format!(
        "{}limits.memory = \"16MB\"\n",
        overlay.replace(
            &format!(
                "{{ connection = \"main\", table = \"{}\" }}",
                versioned::TABLE
            ),
            "\"discard\""
        )
    );
    // Everything discarded, the anchor would be another one: refused. With one route it is a warning.
    let told = warnings(
        &site,
        &new.plugin(),
        &format!("{overlay}limits.memory = \"16MB\"\n"),
    );
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains(&format!("the canary of {} on partitions [1]", new.plugin())),
        "{told:?}"
    );
    assert!(told[1].contains("limits.memory is 16MB"), "{told:?}");
    let refused = site
        .api
        .deploy(PIPELINE, &new.plugin(), json!({ "overlay": tight }))
        .unwrap();
    assert!(
        refused.refused().contains("anchor would change"),
        "{}",
        refused.refused()
    );

    let file = stage.path("overlay.toml");
    std::fs::write(&file, &overlay).unwrap();
    let before = revision(&site);
    let (code, said) = deploy(&site, &new.plugin(), &file, &[]);
    assert_eq!(code, Some(5), "{said}");
    assert!(
        said.contains("the canary of") && said.contains("--yes"),
        "{said}"
    );
    assert_eq!(revision(&site), before, "nothing was changed");
    let (code, said) = deploy(&site, &new.plugin(), &file, &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = deploy(&site, &old.plugin(), &file, &[]);
    assert_eq!(code, Some(0), "without warnings nobody is asked: {said}");
}

#[tokio::test]
async fn a_removed_pipeline_that_comes_back_elsewhere_is_warned_of_and_does_not_roll_back_there() {
    let stage = stage(1).await;
    stage.feed.topic("elsewhere", 1).await;
    let (site, _host) = host(&stage, "elsewhere");
    let (old, new) = two();
    deploy_first(&site, &old);
    let records = send(&stage, 1, 100);
    processed(&stage, &records).await;
    site.api.upload_file(&new.file);
    site.api.change(PIPELINE, "pause").unwrap().ok();
    site.api.change(PIPELINE, "remove").unwrap().ok();
    let here = versioned::overlay(PIPELINE);
    let there = here.replace("topic = \"swapped\"", "topic = \"elsewhere\"");
    let paused = warnings(&site, &new.plugin(), &here);
    assert_eq!(paused.len(), 1, "{paused:?}");
    assert!(paused[0].contains("paused"), "{paused:?}");
    let told = warnings(&site, &new.plugin(), &there);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[1].contains("topic was swapped") && told[1].contains("starts anew"),
        "{told:?}"
    );
    deployed(&site, &new, json!({ "overlay": there }));
    let back = site.api.change(PIPELINE, "rollback").unwrap();
    assert_eq!(back.status, 422, "{}", back.refused());
    assert!(
        back.refused()
            .contains("topic would change from elsewhere to swapped"),
        "{}",
        back.refused()
    );
}

#[tokio::test]
async fn a_rollback_looks_at_the_tables_first() {
    let stage = stage(1).await;
    let (site, mut running) = host(&stage, "look-back");
    let (old, new) = two();
    deploy_first(&site, &old);
    let sql = format!("CREATE TABLE moved (LIKE {})", versioned::TABLE);
    stage.execute(&sql).await;
    site.api.upload_file(&new.file);
    let overlay = versioned::overlay(PIPELINE).replace(versioned::TABLE, "moved");
    let told = warnings(&site, &new.plugin(), &overlay);
    assert!(
        told.len() == 1 && told[0].contains("moves from postgres.main versioned_log to"),
        "{told:?}"
    );
    deployed(&site, &new, json!({ "overlay": overlay }));
    let drop = format!("DROP TABLE {}", versioned::TABLE);
    stage.execute(&drop).await;
    let back = site.api.change(PIPELINE, "rollback").unwrap();
    assert_eq!(back.status, 422, "{}", back.refused());
    assert!(
        back.refused().contains(versioned::TABLE),
        "{}",
        back.refused()
    );
    assert_eq!(revision(&site), 2);
    running.alive().unwrap();
    versioned::create_table(&stage).await;
    site.api.change(PIPELINE, "rollback").unwrap().ok();
    assert_eq!(revision(&site), 3);
}
