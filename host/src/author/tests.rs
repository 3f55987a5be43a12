//! From nothing to a component: the template project is made, tested, built and looked into, with the
//! compiler and the crates an author would have.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;

use super::*;
use crate::error::Blame;
use crate::manifest::Manifest;
use crate::record::cells;

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

    native_tests_pass(dir.path());
    fixtures_run_through_the_real_component(dir.path(), &bytes);
    what_an_author_gets_wrong_is_told(dir.path(), &plugin.path);
    assert_eq!(
        fs::read(&plugin.path).unwrap(),
        bytes,
        "a failed build changed the file"
    );
    what_only_the_real_component_shows(dir.path());
}

/// The template's own tests, as an author runs them: the same golden file without a component.
fn native_tests_pass(dir: &Path) {
    let mut cargo = std::process::Command::new("cargo");
    cargo.args(["test", "--quiet"]).current_dir(dir);
    if options().offline {
        cargo.arg("--offline");
    }
    let output = cargo.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2 passed"), "{said}");
}

fn setup(_: &Manifest) -> crate::error::Result<Vec<u8>> {
    let mut setup = Vec::new();
    cells::put(&mut setup, b"test");
    cells::put(&mut setup, b"info");
    Ok(setup)
}

fn tested(dir: &Path, component: &[u8], golden: Golden) -> FixtureReport {
    let report = run_fixtures(component, &dir.join("fixtures"), golden, &setup).unwrap();
    assert_eq!(report.fixtures.len(), 1);
    report.fixtures.into_iter().next().unwrap()
}

fn fixtures_run_through_the_real_component(dir: &Path, component: &[u8]) {
    let fixture = tested(dir, component, Golden::Compare);
    assert_eq!((fixture.name.as_str(), fixture.records), ("readings", 3));
    assert_eq!(fixture.verdict, Verdict::Passed);
    let golden = dir.join("fixtures/readings.out.json");
    let good = fs::read_to_string(&golden).unwrap();
    fs::write(&golden, good.replace("212.0", "213.0")).unwrap();
    let Verdict::Differs { wanted, found } = tested(dir, component, Golden::Compare).verdict else {
        panic!("a wrong golden file passed");
    };
    assert_eq!(wanted["rows"]["latest"][0]["fahrenheit"], 213.0);
    assert_eq!(found["rows"]["latest"][0]["fahrenheit"], 212.0);
    assert_eq!(
        tested(dir, component, Golden::Bless).verdict,
        Verdict::Blessed
    );
    assert_eq!(fs::read_to_string(&golden).unwrap(), good);
}

/// In the same folder, so that dependencies are compiled once.
fn what_an_author_gets_wrong_is_told(dir: &Path, built_before: &Path) {
    assert!(built_before.exists());
    let code = dir.join("src/lib.rs");
    let good = fs::read_to_string(&code).unwrap();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from));
        fs::write(&code, good.replace(from, to)).unwrap();
        built(dir).unwrap_err()
    };
    let error = with("rec.celsius * 1.8", "rec.kelvin * 1.8");
    assert_eq!(error.blame(), Blame::Plugin);
    assert!(error.detail().contains("kelvin"), "{error}");
    let error = with("latest: Latest", "newest: Latest");
    assert_eq!(
        error.blame(),
        Blame::Plugin,
        "the code still says out.latest"
    );
    fs::write(&code, &good).unwrap();
    let toml = dir.join("plugin.toml");
    let text = fs::read_to_string(&toml).unwrap();
    fs::write(
        &toml,
        text.replace("key = [\"sensor\"]", "key = [\"sensors\"]"),
    )
    .unwrap();
    let error = built(dir).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(error.detail().contains("sensors"), "{error}");
    fs::write(&toml, text).unwrap();
}

fn what_only_the_real_component_shows(dir: &Path) {
    let code = dir.join("src/lib.rs");
    let good = fs::read_to_string(&code).unwrap();
    let line = "    if rec.celsius < -273.15 {";
    let counting = "    static SEEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);\n    \
                    if SEEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0 || rec.celsius < -273.15 {";
    fs::write(&code, good.replace(line, counting)).unwrap();
    let two = "{\"key\":\"a\",\"value\":{\"celsius\":1,\"at\":1}}\n{\"key\":\"b\",\"value\":{\"celsius\":2,\"at\":1}}\n";
    fs::write(dir.join("fixtures/readings.in.ndjson"), two).unwrap();
    let component = fs::read(built(dir).unwrap().path).unwrap();
    let verdict = tested(dir, &component, Golden::Bless).verdict;
    assert!(
        matches!(verdict, Verdict::DependsOnBatches { .. }),
        "{verdict:?}"
    );
    let clock = "    let _ = std::time::SystemTime::now();\n    if rec.celsius < -273.15 {";
    fs::write(&code, good.replace(line, clock)).unwrap();
    let component = fs::read(built(dir).unwrap().path).unwrap();
    let fixture = tested(dir, &component, Golden::Bless);
    assert_eq!(fixture.faults.len(), 1, "{:?}", fixture.faults);
    let fault = &fixture.faults[0];
    assert!(fault.detail().contains("time not implemented"), "{fault}");
    assert!(
        fault
            .hint_text()
            .unwrap()
            .contains("record's own timestamp")
    );
}

#[test]
fn a_folder_without_a_project_says_so_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let error = built(dir.path()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("wasmill plugin new"));
    fs::write(dir.path().join("plugin.toml"), "manifest = 1\n").unwrap();
    assert_eq!(built(dir.path()).unwrap_err().blame(), Blame::Config);
}

/// The plugins that come along, as their authors would check them.
#[test]
fn example_plugins_pass_their_fixtures_as_real_components() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let out = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(&plugins).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.join("plugin.toml").exists() {
            continue;
        }
        seen += 1;
        let options = BuildOptions {
            out: Some(out.path().join("plugin.wasm")),
            ..options()
        };
        let plugin = build(&dir, &options, &mut |_| {}).unwrap();
        let bytes = fs::read(&plugin.path).unwrap();
        let report = run_fixtures(&bytes, &dir.join("fixtures"), Golden::Compare, &setup).unwrap();
        for fixture in &report.fixtures {
            eprintln!(
                "{}: {} bytes, {fixture:?}",
                plugin.manifest.name, plugin.size
            );
        }
        assert!(report.passed(), "{}", plugin.manifest.name);
    }
    assert!(seen > 0, "no plugin in {}", plugins.display());
}

/// A guest of `tests/guests`, built into `out`.
fn guest(name: &str, out: &Path) -> crate::error::Result<Built> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/guests")
        .join(name);
    let options = BuildOptions {
        out: Some(out.join("plugin.wasm")),
        ..options()
    };
    build(&dir, &options, &mut |_| {})
}

#[test]
fn a_foreign_import_is_refused_by_name_when_it_is_built() {
    let out = tempfile::tempdir().unwrap();
    let error = guest("wants-foreign", out.path()).unwrap_err();
    assert_eq!(error.blame(), Blame::Plugin);
    assert!(
        error.detail().contains("which this host does not offer"),
        "{error}"
    );
}

/// Not a gate: prints what a call costs with the SDK in it. Run with `--ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn measure() {
    use crate::plugin::{Engine, EngineOptions, GuestBatch, Plugin, PluginSettings};
    use crate::record::{Batch, Fields, Record};
    use std::time::{Duration, Instant};
    let start = Instant::now();
    let engine = Engine::new(EngineOptions::default()).unwrap();
    eprintln!("engine with the default pool: {:?}", start.elapsed());
    for name in ["identity", "filter-project"] {
        let out = tempfile::tempdir().unwrap();
        let built = guest(name, out.path()).unwrap();
        let bytes = fs::read(&built.path).unwrap();
        let start = Instant::now();
        let compiled = engine.load(&bytes, None).unwrap();
        eprintln!("{name}: compiled in {:?}", start.elapsed());
        let settings = PluginSettings::of(&built.manifest, "p", setup(&built.manifest).unwrap());
        let plugin = compiled.into_plugin(settings);
        let (mut batch, mut fields) = (Batch::new(0, 0), Fields::default());
        for index in 0..256_u32 {
            batch.push(Record {
                key: Some(b"0123456789abcdef"),
                value: Some(&[b'x'; 280]),
                timestamp: 1,
                offset: index.into(),
                headers: b"",
                marks: 0,
            });
            if name == "filter-project" {
                let status: &[u8] = if index % 5 == 0 { b"paid" } else { b"open" };
                for cell in [
                    &7_i32.to_be_bytes()[..],
                    b"user-00000001",
                    status,
                    &1.5_f64.to_be_bytes(),
                    b"DE",
                    &9_i64.to_be_bytes(),
                ] {
                    cells::put(&mut fields.cells, cell);
                }
            }
            fields.ends.push(u32::try_from(fields.cells.len()).unwrap());
            fields.kept.push(index);
        }
        let mut instance = plugin.instantiate(1).await.unwrap();
        let (mut best, mut fresh, mut rows) = (Duration::MAX, Duration::MAX, 0);
        for _ in 0..300 {
            let start = Instant::now();
            for _ in 0..10 {
                let call = GuestBatch {
                    input: 0,
                    batch: &batch,
                    fields: &fields,
                    range: 0..256,
                };
                rows = instance.run(call).await.unwrap().ends.len();
            }
            best = best.min(start.elapsed() / 10);
            let start = Instant::now();
            drop(plugin.instantiate(1).await.unwrap());
            fresh = fresh.min(start.elapsed());
        }
        let each = best.as_nanos() as f64 / 256.0;
        eprintln!(
            "{name}: {rows} rows of 256 records, {each:.1} ns a record; fresh instance {fresh:?}"
        );
    }
}

/// What the texts of `pitfalls` are taken from.
#[test]
#[ignore = "downloads crates that nothing else here needs"]
fn crates_that_break_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    scaffold(dir.path(), "pitfalls").unwrap();
    let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
    let (cargo, code) = (read("Cargo.toml"), read("src/lib.rs"));
    let line = "    if rec.celsius < -273.15 {";
    for (crate_line, used, hint) in [
        (
            "chrono = \"0.4\"",
            "chrono::Utc::now().timestamp()",
            "default-features = false",
        ),
        (
            "uuid = { version = \"1\", features = [\"v4\"] }",
            "uuid::Uuid::new_v4()",
            "v5",
        ),
        ("getrandom = \"0.3\"", "getrandom::u32()", "-i getrandom"),
    ] {
        let dependencies = format!("[dependencies]\n{crate_line}");
        fs::write(
            dir.path().join("Cargo.toml"),
            cargo.replace("[dependencies]", &dependencies),
        )
        .unwrap();
        let using = format!("    let _ = std::hint::black_box({used});\n{line}");
        fs::write(dir.path().join("src/lib.rs"), code.replace(line, &using)).unwrap();
        let error = built(dir.path()).unwrap_err();
        eprintln!("{error}\n  {:?}", error.hint_text());
        assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
    }
}
