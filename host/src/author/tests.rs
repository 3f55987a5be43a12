//! From nothing to a component: the template project is made, tested, built and looked into, with the
//! compiler and the crates an author would have.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;

use super::*;
use crate::error::Blame;

fn options() -> BuildOptions {
    BuildOptions {
        offline: std::env::var_os("CARGO_NET_OFFLINE").is_some(),
        ..BuildOptions::default()
    }
}

fn built(dir: &Path) -> crate::error::Result<Built> {
    build(dir, &options(), &mut |progress| eprintln!("{progress:?}"))
}

#[test]
fn a_new_project_becomes_a_small_component_with_its_manifest_inside() {
    let dir = tempfile::tempdir().unwrap();
    scaffold(dir.path(), "hot-sensors").unwrap();
    let plugin = built(dir.path()).unwrap();
    assert_eq!(plugin.path, dir.path().join("hot-sensors.wasm"));
    assert!(plugin.size < 60 * 1024, "{} bytes", plugin.size);
    assert_eq!(plugin.manifest.inputs[0].fields.len(), 3);
    for import in &plugin.facts.imports {
        assert!(import.starts_with("wasmill:plugin/"), "{import}");
    }
    let bytes = fs::read(&plugin.path).unwrap();
    let seen = inspect(&bytes).unwrap();
    assert_eq!(seen.plugin.as_deref(), Some("hot-sensors@0.1.0"));
    assert_eq!(seen.problems, Vec::<String>::new());
    assert_eq!(seen.digest, plugin.facts.digest.to_string());
    eprintln!("{} bytes, imports {:?}", plugin.size, plugin.facts.imports);

    // In the same folder, so that dependencies are compiled once: what an author gets wrong.
    let code = dir.path().join("src/lib.rs");
    let good = fs::read_to_string(&code).unwrap();
    fs::write(&code, good.replace("rec.celsius * 1.8", "rec.kelvin * 1.8")).unwrap();
    let error = built(dir.path()).unwrap_err();
    assert_eq!(error.blame(), Blame::Plugin);
    assert!(error.detail().contains("kelvin"), "{error}");
    fs::write(&code, good.replace("sensor: &'a str,\n    fahrenheit", "sensors: &'a str,\n    fahrenheit").replace("sensor: rec.sensor", "sensors: rec.sensor")).unwrap();
    let error = built(dir.path()).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(error.detail().contains("sensor"), "{error}");
    assert_eq!(fs::read(&plugin.path).unwrap(), bytes, "a failed build changed the file");
}

#[test]
fn a_folder_without_a_project_says_so_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let error = built(dir.path()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("wasmill plugin new"));
    fs::write(dir.path().join("plugin.toml"), "manifest = 1\n").unwrap();
    assert_eq!(built(dir.path()).unwrap_err().blame(), Blame::Config);
}
