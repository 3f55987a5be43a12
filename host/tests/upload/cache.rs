//! Native code on disk: written by the checking process, loaded by the host, never believed when it is damaged
//! or lies where others may write, and never needed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use wasmill::error::Blame;
use wasmill::plugin::{Engine, EngineOptions};

use crate::made::{Host, guest};

#[test]
fn a_host_loads_what_the_process_compiled() {
    let host = Host::new();
    let component = guest("identity");
    let report = host.check(&component).unwrap();
    assert!(!report.from_cache && report.cached);
    // The process allocates on demand, the host from a pool: their code has to be the same.
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let compiled = engine
        .load(&component, host.checker.cache.as_deref())
        .unwrap();
    assert!(compiled.from_cache(), "the host compiled it again");
    compiled.describe().unwrap();
    let mode = fs::metadata(&host.entries()[0])
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "others may read it: {mode:o}");
}

#[test]
fn damaged_cut_and_foreign_entries_are_built_again() {
    let host = Host::new();
    let [one, other] = ["identity", "fanout"].map(guest);
    host.check(&one).unwrap();
    let entry = host.entries().remove(0);
    let good = fs::read(&entry).unwrap();
    host.check(&other).unwrap();
    let foreign = host
        .entries()
        .into_iter()
        .find(|path| *path != entry)
        .unwrap();
    let foreign = fs::read(foreign).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (what, bytes) in [
        ("damaged", flipped),
        ("cut", good[..good.len() - 1].to_vec()),
        ("cut in its header", good[..20].to_vec()),
        ("empty", Vec::new()),
        ("another plugin's", foreign),
        ("no entry at all", b"#!/bin/sh\n".to_vec()),
    ] {
        fs::write(&entry, bytes).unwrap();
        let report = host.check(&one).unwrap();
        assert!(!report.from_cache, "an entry that is {what} was executed");
        assert!(report.cached, "an entry that is {what} stayed");
        assert_eq!(fs::read(&entry).unwrap().len(), good.len(), "{what}");
        assert!(host.check(&one).unwrap().from_cache, "{what}");
    }
}

#[test]
fn a_folder_that_others_may_write_is_refused() {
    let host = Host::new();
    host.check(&guest("identity")).unwrap();
    let folder = host.entries()[0].parent().unwrap().to_owned();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let error = host.check(&guest("identity")).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(error.hint_text().unwrap().contains("chmod 700"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_made_costs_the_cache_and_nothing_else() {
    let mut host = Host::new();
    let blocked = host.folder.path().join("file");
    fs::write(&blocked, b"in the way").unwrap();
    host.checker.cache = Some(blocked.join("compiled"));
    let report = host.check(&guest("identity")).unwrap();
    assert!(!report.cached && !report.from_cache);
}

/// Runs a script with the checking program, the component and the request as `$1`, `$2`, `$3` in name spaces of
/// its own, where it may mount; `None` where this machine does not let it.
fn in_a_name_space(host: &Host, script: &str) -> Option<(bool, String, String)> {
    let probe = Command::new("unshare")
        .args(["-r", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        let why = "this machine lets nobody mount in a name space (unshare -r -m)";
        assert!(std::env::var_os("CI").is_none(), "CI must not skip: {why}");
        eprintln!("\n!!! SKIPPED, NOTHING WAS TESTED: {why}\n");
        return None;
    }
    let file = host.folder.path().join("plugin.wasm");
    fs::write(&file, guest("identity")).unwrap();
    let request = serde_json::json!({
        "file": "", "cache": host.checker.cache, "parent": null, "memory": 1 << 30, "cpu_seconds": 60, "component": 32 << 20,
        "ceilings": {"memory": 1 << 28, "run_time_ms": 10_000, "output_bytes": 1 << 26, "rows_per_record": 100_000, "log_lines_per_second": 1000},
    });
    let output = Command::new("unshare")
        .args(["-r", "-m", "sh", "-c", script])
        .arg(host.checker.cache.as_ref().unwrap())
        .arg(env!("CARGO_BIN_EXE_wasmill"))
        .arg(&file)
        .arg(request.to_string())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    ))
}

/// The process's answer, which has to be a pass without a cache entry.
fn passed_uncached((ended, answer, messages): (bool, String, String)) {
    assert!(ended, "{messages}");
    let document = answer.split("LEFT").next().unwrap();
    let answer_json: serde_json::Value = serde_json::from_str(document).unwrap();
    let report = &answer_json["passed"];
    assert_eq!(report["name"], "identity", "{answer}");
    assert_eq!(report["cached"], false, "{answer}");
    assert!(
        messages.contains("not cached") || messages.contains("no cache"),
        "{messages}"
    );
    assert!(
        !answer.contains("partial-"),
        "a half entry stayed: {answer}"
    );
}

#[test]
fn a_full_disk_costs_the_cache_and_leaves_no_half_entry() {
    let host = Host::new();
    fs::create_dir_all(host.checker.cache.as_ref().unwrap()).unwrap();
    let script = "mount -t tmpfs -o size=64k tmpfs \"$0\" && \"$1\" compile-plugin \"$2\" --request \"$3\" && echo LEFT && \
                  ls -A \"$0/native\"";
    let Some(outcome) = in_a_name_space(&host, script) else {
        return;
    };
    let left = outcome.1.split("LEFT").nth(1).unwrap().trim().to_owned();
    passed_uncached(outcome);
    assert_eq!(left, "", "something stayed on the full disk");
}

#[test]
fn a_read_only_cache_serves_what_it_has_and_takes_nothing() {
    let host = Host::new();
    host.check(&guest("fanout")).unwrap();
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && \"$1\" compile-plugin \"$2\" --request \"$3\"";
    let Some(outcome) = in_a_name_space(&host, script) else {
        return;
    };
    passed_uncached(outcome);
    host.check(&guest("identity")).unwrap();
    let Some((ended, answer, messages)) = in_a_name_space(&host, script) else {
        return;
    };
    assert!(ended, "{messages}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["passed"]["from_cache"], true, "{answer} {messages}");
}

#[test]
fn a_writer_killed_in_the_middle_leaves_no_entry() {
    let host = Host::new();
    let file = host.folder.path().join("plugin.wasm");
    fs::write(&file, guest("identity")).unwrap();
    let cache = host.checker.cache.as_deref().unwrap();
    let request = serde_json::json!({
        "file": "", "cache": cache, "parent": null, "memory": 1 << 30, "cpu_seconds": 60, "component": 32 << 20,
        "ceilings": {"memory": 1 << 28, "run_time_ms": 10_000, "output_bytes": 1 << 26, "rows_per_record": 100_000, "log_lines_per_second": 1000},
    });
    // 50 KiB a file, where the native code has more: the system ends the process while it writes.
    let output = Command::new("sh")
        .args([
            "-c",
            "ulimit -f 100; exec \"$0\" compile-plugin \"$1\" --request \"$2\"",
        ])
        .arg(env!("CARGO_BIN_EXE_wasmill"))
        .arg(&file)
        .arg(request.to_string())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let names = names(&cache.join("native"));
    assert!(
        !names.is_empty() && names.iter().all(|name| name.starts_with("partial-")),
        "{names:?}"
    );
    let report = host.check(&guest("identity")).unwrap();
    assert!(!report.from_cache && report.cached);
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}
