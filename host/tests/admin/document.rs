//! The OpenAPI document: as written down, and true for every path.

use std::path::Path;

use crate::client::{Host, config};

fn document() -> serde_json::Value {
    serde_json::to_value(wasmill::admin::document()).unwrap()
}

/// `WASMILL_BLESS=1` writes it anew: look at the difference before committing it.
#[test]
fn the_document_is_as_written_down() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/openapi.json");
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let found = format!("{:#}\n", document()).replace(&version, "\"version\": \"…\"");
    if std::env::var_os("WASMILL_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == written,
        "not as written down (WASMILL_BLESS=1 accepts): {found}"
    );
}

#[test]
fn every_documented_operation_is_there_and_no_other() {
    let host = Host::start(&config());
    assert_eq!(host.ask("GET /openapi.json", &[], "").value(), document());
    let paths = document()["paths"].as_object().unwrap().clone();
    assert_eq!(paths.len(), 25 - 2, "two paths have two operations");
    let mut operations = 0;
    for (path, item) in &paths {
        let filled = path
            .replace("{name}", "absent")
            .replace("{version}", "1.0.0")
            .replace("{partition}", "0")
            .replace("{offset}", "7");
        for method in ["get", "put", "post", "delete", "patch"] {
            let answer = host.ask(&format!("{} {filled}", method.to_uppercase()), &[], "");
            let Some(operation) = item.get(method) else {
                assert_eq!(answer.status, 405, "{method} {path} is not documented");
                continue;
            };
            operations += 1;
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(
                !answer.body.contains("find the path"),
                "{method} {path}: {answer:?}"
            );
            let statuses = operation["responses"].as_object().unwrap();
            assert!(
                statuses.contains_key(&answer.status.to_string()),
                "{method} {path}: {answer:?}"
            );
            assert!(operation["operationId"].is_string());
            let free = matches!(path.as_str(), "/live" | "/ready" | "/openapi.json");
            assert_eq!(operation["security"].is_null(), free, "{method} {path}");
        }
    }
    assert_eq!(operations, 25);
}
