//! Signatures from key to check: made with the command line, asked for by a config, refused when they are
//! missing or of another.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use wasmill::config::Config;

use crate::made::{Host, guest};

fn wasmill(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wasmill"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn what_a_rule_covers_has_to_be_signed_by_its_key() {
    let mut host = Host::new();
    let folder = host.folder.path().to_owned();
    let made = wasmill(&folder, &["plugin", "keygen", "--out", "ci.key", "--json"]);
    assert!(made.status.success(), "{made:?}");
    let document: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let public = document["public"].as_str().unwrap();
    let mode = std::fs::metadata(folder.join("ci.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = std::fs::read_to_string(folder.join("ci.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let again = wasmill(&folder, &["plugin", "keygen", "--out", "ci.key"]);
    assert_eq!(again.status.code(), Some(3));

    let text = format!("[[signing]]\nplugins = \"ident*\"\nname = \"ci\"\nkey = \"{public}\"\n");
    host.checker.signing = Config::check(&text, &|_| None).unwrap().signing;
    let component = guest("identity");
    std::fs::write(folder.join("identity.wasm"), &component).unwrap();
    let error = host.check(&component).unwrap_err();
    assert!(error.detail().contains("\"ident*\""), "{error}");
    assert!(error.hint_text().unwrap().contains("wasmill plugin sign"));

    let signed = wasmill(
        &folder,
        &["plugin", "sign", "identity.wasm", "--key", "ci.key"],
    );
    assert!(signed.status.success(), "{signed:?}");
    for said in [&made, &again, &signed] {
        let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
        assert!(!text.contains(secret), "the private key was printed");
    }
    let signature = std::fs::read_to_string(folder.join("identity.wasm.sig")).unwrap();
    let report = host.check_signed(&component, Some(&signature)).unwrap();
    assert_eq!(report.signed_by.as_deref(), Some("ci"));
    let other = host.check(&guest("fanout")).unwrap();
    assert_eq!(other.signed_by, None, "no rule covers it");

    let foreign = wasmill(&folder, &["plugin", "keygen", "--out", "other.key"]);
    assert!(foreign.status.success());
    wasmill(
        &folder,
        &["plugin", "sign", "identity.wasm", "--key", "other.key"],
    );
    let signature = std::fs::read_to_string(folder.join("identity.wasm.sig")).unwrap();
    let error = host.check_signed(&component, Some(&signature)).unwrap_err();
    assert!(error.detail().contains("signed by ci"), "{error}");

    std::fs::write(folder.join("text.wasm"), b"no plugin").unwrap();
    let refused = wasmill(&folder, &["plugin", "sign", "text.wasm", "--key", "ci.key"]);
    assert_eq!(
        refused.status.code(),
        Some(4),
        "what is no plugin was signed"
    );
}
