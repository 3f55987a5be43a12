//! The same by the command line, as an operator or a script does it: JSON out, exit codes as published.

use std::path::Path;

use serde_json::Value;
use wasmill_tests::artifact::wasmill;
use wasmill_tests::{Site, versioned};

use super::{PIPELINE, host, processed, send, stage, two};

/// Runs a command against a host; its exit code and its JSON.
pub(super) fn run(site: &Site, arguments: &[&str]) -> (Option<i32>, Value) {
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
pub(super) fn done(site: &Site, arguments: &[&str]) -> Value {
    let (code, json) = run(site, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {json:#}");
    json
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test folders have plain names")
}

#[tokio::test]
async fn upload_deploy_roll_back_and_look_from_a_shell() {
    let stage = stage(2).await;
    let (site, _host) = host(&stage, "shell");
    let (old, new) = two();
    let overlay = stage.path("overlay.toml");
    std::fs::write(&overlay, versioned::overlay(PIPELINE)).unwrap();

    let uploaded = done(&site, &["upload", text(&old.file)]);
    assert_eq!(uploaded["plugin"], old.plugin(), "{uploaded:#}");
    done(
        &site,
        &[
            "deploy",
            &old.plugin(),
            "--pipeline",
            PIPELINE,
            "--overlay",
            text(&overlay),
            "--yes",
        ],
    );
    let records = send(&stage, 2, 500);
    processed(&stage, &records).await;
    done(&site, &["upload", text(&new.file)]);
    done(
        &site,
        &["deploy", &new.plugin(), "--pipeline", PIPELINE, "--yes"],
    );
    let status = done(&site, &["status", PIPELINE]).to_string();
    assert!(status.contains(&new.plugin()), "{status}");
    done(&site, &["rollback", PIPELINE]);
    done(&site, &["pause", PIPELINE]);
    done(&site, &["resume", PIPELINE]);
    let history = done(&site, &["history", PIPELINE]);
    assert_eq!(
        history["revisions"].as_array().map(Vec::len),
        Some(5),
        "{history:#}"
    );
    let list = done(&site, &["list"]).to_string();
    assert!(
        list.contains(&old.plugin()) && list.contains(&new.plugin()),
        "{list}"
    );

    let (code, said) = run(
        &site,
        &["deploy", "versioned@9.9.9", "--pipeline", PIPELINE, "--yes"],
    );
    assert_eq!(code, Some(5), "{said}");
    let (code, said) = run(&site, &["upload", text(&overlay)]);
    assert!(matches!(code, Some(3 | 4)), "{code:?}: {said}");
    let (code, said) = run(&site, &["status", "nobody"]);
    assert_eq!(code, Some(5), "{said}");
    done(&site, &["remove", PIPELINE, "--yes"]);
}
