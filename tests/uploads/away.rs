//! A deployment while a server is away: told as such, by exit code, status and words, not as a fault of the plan; and
//! what a person has to mend comes first where there is both.

use std::path::Path;

use serde_json::{Value, json};
use wasmill_tests::proxy::Link;
use wasmill_tests::site::Plot;
use wasmill_tests::{Site, Stage, versioned};

use super::{PIPELINE, two};

/// `wasmill deploy`, as a script runs it: exit code, standard output, standard error.
fn deploy(
    site: &Site,
    plugin: &str,
    overlay: &Path,
    more: &[&str],
) -> (Option<i32>, String, String) {
    let mut command = wasmill_tests::artifact::wasmill();
    command.args(["deploy", plugin, "--pipeline", PIPELINE, "--overlay"]);
    command.arg(overlay).args(more);
    let output = command
        .env("WASMILL_HOST", site.api.base())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test]
async fn a_database_that_is_away_is_no_fault_of_the_plan() {
    let stage = Stage::linked();
    stage.feed.topic(PIPELINE, 2).await;
    versioned::create_table(&stage).await;
    let site = Site::new(&stage, &Plot::new("away"));
    let (_host, _) = site.up();
    let (version, _) = two();
    let plugin = version.plugin();
    site.api.upload_file(&version.file);
    let overlay = stage.path("overlay.toml");
    std::fs::write(&overlay, versioned::overlay(PIPELINE)).unwrap();
    let body = || json!({ "overlay": versioned::overlay(PIPELINE) });
    let plan_only =
        |more: &[&str]| deploy(&site, &plugin, &overlay, &[&["--plan-only"], more].concat());

    let (code, said, _) = plan_only(&["--json"]);
    assert_eq!(code, Some(0), "{said}");
    let seen: Value = serde_json::from_str(&said).unwrap();

    let database = &stage.links.as_ref().unwrap().postgres;
    database.set(Link {
        accept: false,
        ..Link::default()
    });
    database.close_all();
    let (code, out, err) = plan_only(&[]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(
        out.contains("away: ") && !out.contains("problem: "),
        "{out}"
    );
    assert!(err.contains("try again when it answers"), "{err}");
    let (code, out, err) = plan_only(&["--json"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(err.contains("try again when it answers"), "{err}");
    let plan: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(plan["problems"][0]["class"], "outside", "{plan:#}");
    let (code, out, err) = deploy(&site, &plugin, &overlay, &["--yes"]);
    assert_eq!(code, Some(1), "{out}{err}");

    // By HTTP, and for whoever saw the plan before: not seen is not changed.
    for plan in [Value::Null, seen["hash"].clone()] {
        let mut body = body();
        body["plan"] = plan;
        let answer = site.api.deploy(PIPELINE, &plugin, body).unwrap();
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (503, &json!("unavailable")),
            "{answer:?}"
        );
    }

    // A canary of nothing is a fault of the request, whatever is away.
    let (code, out, err) = deploy(&site, &plugin, &overlay, &["--yes", "--canary", "1"]);
    assert_eq!(code, Some(3), "{out}{err}");
    assert!(out.contains("away: ") && out.contains("problem: "), "{out}");
    assert!(err.contains("without --canary"), "{err}");
    let mut body = body();
    body["canary"] = json!({ "partitions": 1 });
    let answer = site.api.deploy(PIPELINE, &plugin, body).unwrap();
    assert_eq!(
        (answer.status, &answer.body["code"]),
        (422, &json!("config")),
        "{answer:?}"
    );

    let deployed = site.api.get("/v1/pipelines").unwrap().ok();
    assert_eq!(deployed, json!([]));
    database.heal();
    let (code, out, err) = deploy(&site, &plugin, &overlay, &["--yes"]);
    assert_eq!(code, Some(0), "{out}{err}");
}
