//! Who may do what, on the running product: tokens by role, denials in the audit trail, and no open door by default.

use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use wasmill_tests::host::Host;
use wasmill_tests::site::Plot;
use wasmill_tests::{Site, versioned, versions};

use super::{PIPELINE, stage};

fn token(role: &str) -> String {
    let text = format!("the-token-of-{role}");
    let hash: String = Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{{ name = \"{role}-person\", role = \"{role}\", hash = \"sha256:{hash}\" }}")
}

#[tokio::test]
async fn a_token_may_do_what_its_role_says_and_denials_are_kept() {
    let stage = stage(1).await;
    let tokens = ["read", "operate", "deploy"].map(token).join(", ");
    let plot = Plot {
        http: format!("tokens = [{tokens}]"),
        ..Plot::new("guarded")
    };
    let site = Site::new(&stage, &plot);
    let (_host, _) = site.up();
    let [read, operate, deploy] =
        ["read", "operate", "deploy"].map(|role| site.with_token(&format!("the-token-of-{role}")));
    let version = versions::version(0);
    let bytes = std::fs::read(&version.file).unwrap();

    for (who, status) in [
        (&site.api, 401),
        (&site.with_token("made-up"), 401),
        (&read, 403),
        (&operate, 403),
    ] {
        let answer = who.upload(&bytes).unwrap();
        assert_eq!(answer.status, status, "{}", answer.refused());
    }
    let answer = site.api.get("/v1/plugins").unwrap();
    assert_eq!(answer.status, 401, "looking needs a token too");
    assert_eq!(deploy.upload(&bytes).unwrap().status, 201);
    assert_eq!(read.get("/v1/plugins").unwrap().status, 200);
    // Denials are kept at a rate that no stranger can fill the audit trail with.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let overlay = || json!({ "overlay": versioned::overlay(PIPELINE) });
    let denied = operate
        .deploy(PIPELINE, &version.plugin(), overlay())
        .unwrap();
    assert_eq!(denied.status, 403, "{}", denied.refused());
    deploy
        .deploy(PIPELINE, &version.plugin(), overlay())
        .unwrap()
        .ok();
    let denied = read.change(PIPELINE, "pause").unwrap();
    assert_eq!(denied.status, 403, "{}", denied.refused());
    operate.change(PIPELINE, "pause").unwrap().ok();
    let denied = operate.change(PIPELINE, "remove").unwrap();
    assert_eq!(denied.status, 403, "{}", denied.refused());

    let audit = operate.get("/v1/audit").unwrap().ok();
    let entries: Vec<(&str, &str)> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["by"].as_str().unwrap(),
                entry["action"].as_str().unwrap(),
            )
        })
        .collect();
    for wanted in [
        ("deploy-person", "upload"),
        ("deploy-person", "deploy"),
        ("operate-person", "pause"),
        ("operate-person", "denied"),
        ("read-person", "denied"),
    ] {
        assert!(entries.contains(&wanted), "{wanted:?} in {audit:#}");
    }
    let history = read
        .get(&format!("/v1/pipelines/{PIPELINE}/history"))
        .unwrap();
    assert_eq!(history.ok()["revisions"][0]["by"], "operate-person");
}

#[tokio::test]
async fn an_open_address_without_tokens_does_not_start() {
    let stage = stage(1).await;
    let site = Site::new(&stage, &Plot::new("open"));
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(
        site.config(),
        text.replace("127.0.0.1:", "0.0.0.0:")
            .replace(stage.bootstrap(), "127.0.0.1:1"),
    )
    .unwrap();
    let exit = Host::start(site.config()).wait(Duration::from_secs(20));
    exit.refused(&["tokens", "TLS", "insecure"]);
}
