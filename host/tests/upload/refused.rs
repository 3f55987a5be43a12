//! Files that are no plugin, or lie about the one they are: refused by the process with the very error that a
//! check without one gives, and what to do about it.

use wasm_encoder::ComponentSection as _;
use wasmill::error::{Blame, Error};
use wasmill::manifest::{SECTION, embed, extract};

use crate::made::{Host, core_module, guest, replaced, written};

/// The error of a check in a process, after comparing it with the one without.
fn refused(component: &[u8]) -> Error {
    let mut host = Host::new();
    let error = host.check(component).unwrap_err();
    // Problems of a manifest carry their hints in their text.
    assert!(
        error.hint_text().is_some() || error.detail().contains("help:"),
        "{error}"
    );
    host.checker.exe = None;
    let same = host.check(component).unwrap_err();
    assert_eq!(same, error, "the process changed the error");
    error
}

#[test]
fn a_good_plugin_passes_with_all_that_is_known_of_it() {
    let host = Host::new();
    let component = guest("filter-project");
    let report = host.check(&component).unwrap();
    assert_eq!(report.plugin(), "filter-project@0.1.0");
    assert_eq!(
        report.digest,
        wasmill::manifest::digest(&component).to_string()
    );
    assert_eq!(report.size, component.len() as u64);
    assert!(
        report
            .imports
            .iter()
            .all(|name| name.starts_with("wasmill:plugin/"))
    );
    assert!(!report.inputs[0].fields.is_empty() && !report.routes[0].columns.is_empty());
    assert_eq!(report.limits.memory, 64 << 20);
    assert_eq!(report.warnings, Vec::<String>::new());
    assert!(!report.from_cache && report.cached);
    let peak = report.peak_memory.unwrap();
    assert!(peak > 1 << 20 && peak < 1 << 30, "{peak}");
    let again = host.check(&component).unwrap();
    assert!(again.from_cache && again.cached);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json["routes"][0]["columns"][0]["name"],
        report.routes[0].columns[0].name
    );
}

#[test]
fn what_is_no_component_is_refused() {
    for (bytes, says) in [
        (&b"just some text"[..], "not WebAssembly"),
        (b"", "not WebAssembly"),
        (b"\0asm", "damaged"),
        (b"\0asm\x01\0\0\0", "core module"),
        (&core_module(), "core module"),
        (b"\0asm\x0d\0\x01\0", "does not export"),
    ] {
        let error = refused(bytes);
        assert!(error.detail().contains(says), "{says}: {error}");
        assert_eq!(error.blame(), Blame::Plugin);
    }
}

#[test]
fn a_cut_upload_is_refused_wherever_it_is_cut() {
    let component = guest("identity");
    for part in 1..8 {
        let error = refused(&component[..component.len() * part / 8]);
        assert_eq!(error.blame(), Blame::Plugin, "{part}: {error}");
    }
    refused(&component[..component.len() - 1]);
}

#[test]
fn another_track_and_foreign_imports_are_refused_by_name() {
    let component = guest("log-flood");
    let track = replaced(
        &component,
        "wasmill:plugin/transform@0.1",
        "wasmill:plugin/transform@0.2",
    );
    let error = refused(&track);
    assert!(error.detail().contains("track 0.1"), "{error}");
    let newer = replaced(
        &component,
        "wasmill:plugin/log@0.1",
        "wasmill:plugin/log@0.9",
    );
    let error = refused(&newer);
    assert!(
        error.hint_text().unwrap().contains("newer Wasmill"),
        "{error}"
    );
    let foreign = replaced(&component, "wasmill:plugin/log@", "foreign:plugin/log@");
    let error = refused(&foreign);
    assert!(error.detail().contains("foreign:plugin/log"), "{error}");
    assert!(error.hint_text().unwrap().contains("may import only"));
}

#[test]
fn a_manifest_that_lies_is_refused() {
    let component = guest("filter-project");
    let embedded = extract(&component).unwrap();
    let lie = embedded
        .describe
        .replace("\"nullable\":false", "\"nullable\":true");
    assert_ne!(lie, embedded.describe);
    let error = refused(&embed(&component, &embedded.manifest, &lie).unwrap());
    assert!(
        error
            .detail()
            .contains("describes something else than the manifest"),
        "{error}"
    );
    assert_eq!(error.blame(), Blame::Plugin);
    let wrong = embedded
        .manifest
        .replace("manifest = 1", "manifest = 1\nsurprise = 2");
    let error = refused(&embed(&component, &wrong, &embedded.describe).unwrap());
    assert!(error.detail().contains("surprise"), "{error}");
    assert_eq!(error.blame(), Blame::Config);
    let bare = replaced(&component, SECTION, "wasmill:nanifest");
    assert!(refused(&bare).detail().contains(SECTION));
}

#[test]
fn a_description_that_changes_is_refused() {
    let error = refused(&guest("describe-lies"));
    assert!(error.detail().contains("a second time"), "{error}");
    assert_eq!(error.blame(), Blame::Plugin);
}

#[test]
fn two_manifests_are_one_too_many() {
    let component = guest("identity");
    let mut twice = component.clone();
    let section = wasm_encoder::CustomSection {
        name: SECTION.into(),
        data: b"{}".into(),
    };
    section.append_to_component(&mut twice);
    assert!(refused(&twice).detail().contains("appears twice"));
}

#[test]
fn a_file_past_the_cap_is_refused_before_anything_reads_it() {
    let mut host = Host::new();
    host.checker.limits.component = 1000;
    let error = host.check(&guest("identity")).unwrap_err();
    assert!(error.detail().contains("larger than"), "{error}");
    assert_eq!(error.blame(), Blame::Plugin);
    assert_eq!(host.entries().len(), 0);
    let absent = host.folder.path().join("absent.wasm");
    let error = host.checker.check(&absent, None).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
}

#[test]
fn limits_past_a_ceiling_are_refused_all_at_once() {
    let mut host = Host::new();
    host.checker.ceilings.memory = 8 << 20;
    host.checker.ceilings.log_lines_per_second = 3;
    let error = host.check(&guest("identity")).unwrap_err();
    assert_eq!(error.blame(), Blame::Plugin);
    assert_eq!(
        error.to_string(),
        "check the limits of identity@0.1.0: it asks for limits.memory = 64MiB, and this host's ceiling is 8MiB; it \
         asks for limits.log_lines_per_second = 100, and this host's ceiling is 3"
    );
    let hint = error.hint_text().unwrap();
    assert!(
        hint.contains("plugin.toml")
            && hint.contains("raise memory, log_lines_per_second in [ceilings]"),
        "{hint}"
    );
}

/// A guest whose manifest says one line more, above its sections.
fn saying(name: &'static str, line: &str) -> Vec<u8> {
    let component = guest(name);
    let embedded = extract(&component).unwrap();
    let toml = format!("{line}\n{}", embedded.manifest);
    embed(&component, &toml, &embedded.describe).unwrap()
}

#[test]
fn a_delivery_that_no_sink_of_the_plugin_gives_is_refused() {
    let exact = "delivery = \"exactly-once\"";
    let host = Host::new();
    // Its only route goes to Postgres.
    let given = host.check(&saying("filter-project", exact)).unwrap();
    assert_eq!(given.delivery.as_deref(), Some("exactly-once"));
    assert_eq!(given.warnings, Vec::<String>::new());
    // Of these two one goes to Cassandra: an operator may discard it.
    let mixed = host.check(&saying("versioned", exact)).unwrap();
    assert_eq!(mixed.warnings.len(), 1, "{:?}", mixed.warnings);
    assert!(
        mixed.warnings[0].contains("\"copies\" to \"discard\""),
        "{:?}",
        mixed.warnings
    );
    let describe = serde_json::json!({
        "sdk": "wat 0",
        "inputs": [{"name": "records", "fields": [], "raw": false, "headers": false}],
        "routes": [{"name": "seen", "columns": [{"name": "id", "type": "text", "nullable": false}]}],
        "config": [],
    });
    let toml = format!(
        "manifest = 1\n{exact}\n[plugin]\nname = \"copies\"\nversion = \"1.2.3\"\n[input.records]\ntopic = \"t\"\n\
         format = \"bytes\"\n[route.seen]\nsink = \"cassandra\"\ntable = \"s\"\npartition_key = [\"id\"]\n"
    );
    let error = refused(&written(&toml, &describe.to_string()));
    assert_eq!(error.blame(), Blame::Plugin);
    assert!(
        error.detail().contains("all it writes goes to Cassandra"),
        "{error}"
    );
    let hint = error.hint_text().unwrap();
    assert!(hint.contains("take delivery out of plugin.toml"), "{hint}");
    let unsaid = written(&toml.replace(exact, ""), &describe.to_string());
    assert_eq!(host.check(&unsaid).unwrap().delivery, None);
}

#[test]
fn asking_for_less_than_every_route_gives_is_told_to_change_nothing() {
    let component = saying("filter-project", "delivery = \"at-least-once\"");
    let report = Host::new().check(&component).unwrap();
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    assert!(
        report.warnings[0].contains("changes nothing"),
        "{:?}",
        report.warnings
    );
}

#[tokio::test]
async fn checks_run_beside_an_async_runtime() {
    let host = Host::new();
    let file = host.folder.path().join("plugin.wasm");
    std::fs::write(&file, guest("identity")).unwrap();
    let check = || wasmill::upload::check(&host.checker, file.clone(), None);
    let (a, b, c) = tokio::join!(check(), check(), check());
    for report in [a, b, c] {
        assert!(report.unwrap().cached);
    }
    assert_eq!(host.entries().len(), 1);
}
