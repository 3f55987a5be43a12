//! Fixtures inside a component: built in, replayed at upload, and a refusal that names the one that fails and
//! where.

use std::path::Path;

use serde_json::{Value, json};
use wasmill::error::{Blame, Error};
use wasmill::manifest::{embed, embed_fixtures};
use wasmill::upload::UploadReport;

use crate::made::{Host, build, guest, written};

/// A component with one fixture of three records.
fn with_fixture(name: &'static str, golden: &Value) -> Vec<u8> {
    let records = concat!(
        "{\"key\":\"a\",\"value\":{\"mark\":\"spin\"},\"timestamp\":1000}\n",
        "{\"key\":\"b\",\"timestamp\":2000}\n",
        "{\"key\":\"c\",\"value\":{},\"timestamp\":3000}\n",
    );
    let section = json!({"fixtures": [{"name": "three", "records": records, "golden": golden}]});
    embed_fixtures(&guest(name), section.to_string().as_bytes()).unwrap()
}

fn check(component: &[u8]) -> Result<UploadReport, Error> {
    Host::new().check(component)
}

/// What `identity` makes of the records; the second is a tombstone, which dead-letters by default.
fn golden() -> Value {
    json!({
        "rows": {"copied": [{"key": "a", "value": "eyJtYXJrIjoic3BpbiJ9", "at": "1970-01-01T00:00:01.000000Z"},
                            {"key": "c", "value": "e30=", "at": "1970-01-01T00:00:03.000000Z"}]},
        "dead": [{"index": 1, "code": "tombstone"}],
    })
}

#[test]
fn fixtures_that_pass_are_counted() {
    let report = check(&with_fixture("identity", &golden())).unwrap();
    assert_eq!(report.fixtures.len(), 1);
    assert_eq!(
        (report.fixtures[0].name.as_str(), report.fixtures[0].records),
        ("three", 3)
    );
}

#[test]
fn a_fixture_that_fails_refuses_the_upload_with_the_place() {
    let mut wrong = golden();
    wrong["rows"]["copied"][0]["key"] = json!("A");
    let error = check(&with_fixture("identity", &wrong)).unwrap_err();
    assert_eq!(error.blame(), Blame::Plugin);
    assert!(
        error.what().contains("fixture \"three\" of identity@0.1.0"),
        "{error}"
    );
    assert_eq!(
        error.detail(),
        "rows.copied[0].key: wanted \"A\", found \"a\""
    );
    assert!(error.hint_text().unwrap().contains("wasmill plugin test"));
}

#[test]
fn a_plugin_that_spins_or_remembers_fails_its_fixture() {
    // It numbers records, so that the first split numbers them otherwise.
    let nothing = json!({"rows": {}, "dead": []});
    for (name, says) in [
        ("spin-forever", "ran longer"),
        ("remembers", "depend on how records fall into batches"),
    ] {
        let error = check(&with_fixture(name, &nothing)).unwrap_err();
        assert_eq!(error.blame(), Blame::Plugin, "{name}: {error}");
        assert!(
            error.what().contains("fixture \"three\""),
            "{name}: {error}"
        );
        assert!(error.detail().contains(says), "{name}: {error}");
    }
}

#[test]
fn fixtures_that_do_not_read_are_refused() {
    let component = guest("identity");
    for (section, says) in [
        (&b"nonsense"[..], "expected"),
        (
            br#"{"fixtures":[{"name":"a","records":"{\"vlaue\":1}\n","golden":{}}]}"#,
            "line 1: unknown field `vlaue`",
        ),
        (
            br#"{"fixtures":[{"name":"a","golden":{}}]}"#,
            "missing field `records`",
        ),
    ] {
        let error = check(&embed_fixtures(&component, section).unwrap()).unwrap_err();
        assert!(error.detail().contains(says), "{says}: {error}");
        assert_eq!(error.blame(), Blame::Plugin);
    }
    let many = json!({"fixtures": vec![json!({"name": "a", "records": "", "golden": {}}); 65]});
    let error =
        check(&embed_fixtures(&component, many.to_string().as_bytes()).unwrap()).unwrap_err();
    assert!(error.detail().contains("at most 64"), "{error}");
}

#[test]
fn the_build_embeds_what_the_folder_has_and_uploads_replay_it() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let component = build(&plugins.join("earthquakes"));
    let report = check(&component).unwrap();
    assert!(!report.fixtures.is_empty(), "{report:?}");
    assert!(report.fixtures.iter().all(|fixture| fixture.records > 0));
    // The digest is over the whole file: other fixtures are another plugin.
    let other = embed_fixtures(&component, b"{\"fixtures\":[]}").unwrap();
    let other = check(&other).unwrap();
    assert_ne!(other.digest, report.digest);
    assert_eq!(other.fixtures, []);
}

#[test]
fn a_plugin_that_needs_configuration_is_not_replayed_and_says_so() {
    let describe = json!({
        "sdk": "wat 0",
        "inputs": [{"name": "records", "fields": [], "raw": false, "headers": true}],
        "routes": [{"name": "seen", "columns": [{"name": "id", "type": "text", "nullable": false}]}],
        "config": [{"name": "token", "type": "text", "secret": true}],
    });
    let toml = "manifest = 1\n[plugin]\nname = \"needy\"\nversion = \"1.2.3\"\n[input.records]\ntopic = \"t\"\n\
                format = \"bytes\"\n[route.seen]\nsink = \"cassandra\"\ntable = \"s\"\npartition_key = [\"id\"]\n";
    let component = written(toml, &describe.to_string());
    let section = json!({"fixtures": [{"name": "one", "records": "{}\n", "golden": {}}]});
    let component = embed_fixtures(&component, section.to_string().as_bytes()).unwrap();
    let report = check(&component).unwrap();
    assert_eq!(report.fixtures, []);
    assert_eq!(report.warnings.len(), 1);
    assert!(
        report.warnings[0].contains("config.token"),
        "{:?}",
        report.warnings
    );
    assert_eq!(report.capabilities, ["headers"]);
    assert!(report.config[0].required && report.config[0].secret);
    assert_eq!(
        (
            report.routes[0].sink.as_str(),
            report.routes[0].key[0].as_str()
        ),
        ("cassandra", "id")
    );
    // Embedding the manifest anew keeps the fixtures.
    let again = embed(&component, toml, &describe.to_string()).unwrap();
    assert_eq!(check(&again).unwrap().warnings, report.warnings);
}
