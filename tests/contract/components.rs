//! Files that are no plugin, or lie about the one they are: exit code 4, and the message says what to do.

use std::path::PathBuf;

use tempfile::TempDir;
use wasmill_tests::artifact::{plugin, repository};

use super::{NOWHERE, refused, refused_component, run};

fn written(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("made.wasm");
    std::fs::write(&file, bytes).unwrap();
    (folder, file)
}

fn flights() -> Vec<u8> {
    std::fs::read(plugin("plugins/flights")).unwrap()
}

/// All occurrences of `from` replaced by `to`, which is as long.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let places: Vec<usize> = (0..=out.len() - from.len())
        .filter(|at| out[*at..].starts_with(from))
        .collect();
    assert!(
        !places.is_empty(),
        "{:?} is not in the component",
        String::from_utf8_lossy(from)
    );
    places
        .into_iter()
        .for_each(|at| out[at..at + to.len()].copy_from_slice(to));
    out
}

#[test]
fn what_is_no_webassembly_is_refused() {
    let (_folder, file) = written(b"just some text");
    let said = refused_component(&file, 4);
    assert!(
        said.contains("not WebAssembly") && said.contains("hint"),
        "{said}"
    );
}

#[test]
fn a_core_module_is_refused() {
    let (_folder, file) = written(b"\0asm\x01\0\0\0");
    let said = refused_component(&file, 4);
    assert!(
        said.contains("core module") && said.contains("plugin build"),
        "{said}"
    );
}

#[test]
fn a_component_without_a_manifest_is_refused() {
    let (_folder, file) = written(&replaced(
        &flights(),
        b"wasmill:manifest",
        b"wasmill:nanifest",
    ));
    let said = refused_component(&file, 4);
    assert!(
        said.contains("wasmill:manifest") && said.contains("plugin build"),
        "{said}"
    );
}

#[test]
fn an_empty_component_is_refused() {
    let (_folder, file) = written(b"\0asm\x0d\0\x01\0");
    refused_component(&file, 4);
}

#[test]
fn a_cut_component_is_refused_wherever_it_is_cut() {
    let bytes = flights();
    for part in 1..8 {
        let (_folder, file) = written(&bytes[..bytes.len() * part / 8]);
        let said = refused_component(&file, 4);
        assert!(said.contains("hint"), "{said}");
    }
}

#[test]
fn a_manifest_that_lies_about_the_component_is_refused() {
    // In the section, `describe`'s text stands inside a JSON string: its quotes are escaped there and only there.
    let (_folder, file) = written(&replaced(&flights(), br#"\"delay\""#, br#"\"dalay\""#));
    let said = refused_component(&file, 4);
    assert!(said.contains("describes something else"), "{said}");
}

#[test]
fn a_missing_file_is_the_configs_fault() {
    let said = refused(
        &format!("{NOWHERE}[pipeline.p]\nfile = \"nowhere.wasm\"\n"),
        3,
    );
    assert!(
        said.contains("nowhere.wasm") && said.contains("plugin build"),
        "{said}"
    );
}

#[test]
fn a_foreign_import_is_refused_when_the_plugin_is_built() {
    let folder = TempDir::new().unwrap();
    let guest = repository().join("tests/guests/wants-foreign");
    let output = run(
        &folder,
        &[
            "plugin",
            "build",
            guest.to_str().unwrap(),
            "--out",
            "foreign.wasm",
        ],
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("wasi:random/random"), "{said}");
    assert!(
        !folder.path().join("foreign.wasm").exists(),
        "a refused plugin leaves no file"
    );
}

#[test]
fn a_failing_fixture_tells_what_differs_and_each_panic_once() {
    let folder = TempDir::new().unwrap();
    let fixtures = folder.path().join("fixtures");
    std::fs::create_dir(&fixtures).unwrap();
    let record =
        |n: u32, mark: &str| format!("{{\"key\":\"k{n}\",\"value\":{{\"mark\":\"{mark}\"}}}}\n");
    let records: String = (0..40).map(|n| record(n, "fine")).collect();
    let input = records + &record(40, "panic") + &record(41, "fine");
    std::fs::write(fixtures.join("marks.in.ndjson"), input).unwrap();
    let rows: Vec<_> = (1..40)
        .map(|n| serde_json::json!({ "id": format!("k{n}") }))
        .collect();
    let golden = serde_json::json!({"rows": {"seen": rows}, "dead": []});
    std::fs::write(fixtures.join("marks.out.json"), golden.to_string()).unwrap();
    let component = plugin("tests/guests/trap");
    let component = component.to_str().unwrap();
    let output = run(&folder, &["plugin", "test", "--component", component]);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert_eq!(said.matches("record k40 asked for it").count(), 1, "{said}");
    for line in [
        "fixture marks: DIFFERS (42 records)",
        "  dead[0]: wanted nothing, found {\"code\":\"trap\",\"index\":40}",
        "  rows.seen[0]: wanted nothing, found {\"id\":\"k0\"}",
        "  rows.seen[40]: wanted nothing, found {\"id\":\"k41\"}",
    ] {
        assert!(
            said.lines().any(|found| found == line),
            "{line:?} in {said}"
        );
    }
}
