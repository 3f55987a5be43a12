//! Uploads made to hurt the compiler, and a checking process that dies: a clear refusal each time, within its
//! limits, and a host that does not notice.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wasmill::error::Blame;

use crate::made::{Host, carrying, guest, ordinary, resident, tangled};

/// Checks that take the machine's time are not measured while others do.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_module_that_makes_the_compiler_slow_ends_by_processor_time() {
    let _alone = ALONE.lock().unwrap();
    let host = Host::new().with(8 << 30, 2, 120);
    let component = carrying(&guest("identity"), &ordinary(30_000, 20));
    let start = Instant::now();
    let error = host.check(&component).unwrap_err();
    assert!(error.detail().contains("2 s of processor time"), "{error}");
    assert!(error.what().contains("compiling"), "{error}");
    assert_eq!(error.blame(), Blame::Plugin);
    assert!(
        start.elapsed() < Duration::from_secs(100),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(host.entries().len(), 0, "a half entry stayed");
    host.check(&guest("identity")).unwrap();
}

#[test]
fn a_module_that_makes_the_compiler_huge_ends_by_memory() {
    let _alone = ALONE.lock().unwrap();
    let host = Host::new().with(256 << 20, 60, 120);
    let component = carrying(&guest("identity"), &tangled(1_000, 50_000));
    assert!(
        component.len() < 2 << 20,
        "it is a small file: {}",
        component.len()
    );
    let before = resident();
    let error = host.check(&component).unwrap_err();
    assert!(
        error.detail().contains("more than 256 MiB of memory"),
        "{error}"
    );
    assert_eq!(error.blame(), Blame::Plugin);
    let grown = resident().saturating_sub(before);
    assert!(grown < 128 << 20, "the host grew by {grown} bytes");
    assert_eq!(host.entries().len(), 0);
    host.check(&guest("identity")).unwrap();
}

#[test]
fn a_check_that_takes_too_long_on_the_clock_is_ended() {
    let _alone = ALONE.lock().unwrap();
    let host = Host::new().with(8 << 30, 100, 1);
    let component = carrying(&guest("identity"), &ordinary(30_000, 20));
    let start = Instant::now();
    let error = host.check(&component).unwrap_err();
    assert!(error.detail().contains("it took more than 1 s"), "{error}");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_process_that_dies_or_cannot_start_is_an_error_that_says_how() {
    let component = guest("identity");
    let dying = |script: &str| {
        let mut host = Host::new();
        let program = host.folder.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&program, mode).unwrap();
        host.checker.exe = Some(program);
        host.check(&component).unwrap_err()
    };
    for (script, blame, says) in [
        (
            "echo 'wasmill-check: compiling' >&2; kill -KILL $$",
            // By the machine, not by a limit of ours: the plugin may be as good as any.
            Blame::Outside,
            "was killed",
        ),
        (
            "echo oops >&2; kill -SEGV $$",
            Blame::Plugin,
            "signal 11: oops",
        ),
        (
            "echo 'thread main has overflowed its stack' >&2; kill -ABRT $$",
            Blame::Plugin,
            "overflowed its stack",
        ),
        (
            "echo 'memory allocation of 99 bytes failed' >&2; kill -ABRT $$",
            Blame::Plugin,
            "1024 MiB of memory",
        ),
        (
            "echo panicked >&2; exit 101",
            Blame::Plugin,
            "code 101: panicked",
        ),
        ("kill -XCPU $$", Blame::Plugin, "60 s of processor time"),
        ("echo no json", Blame::Bug, "expected"),
        ("true", Blame::Bug, "EOF"),
    ] {
        let error = dying(script);
        assert!(error.detail().contains(says), "{script}: {error}");
        assert_eq!(error.blame(), blame, "{script}: {error}");
    }
    let flood = dying("head -c 100000000 /dev/zero >&2; exit 1");
    assert!(flood.detail().len() < 1 << 20);
    let mut host = Host::new();
    host.checker.exe = Some(host.folder.path().join("absent"));
    let error = host.check(&component).unwrap_err();
    assert_eq!(error.blame(), Blame::Outside);
    assert!(error.hint_text().is_some());
}

/// Whether a process is there and not merely waiting to be reaped.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim().starts_with('Z'))
}

#[test]
fn the_process_dies_with_its_parent() {
    let _alone = ALONE.lock().unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("slow.wasm");
    std::fs::write(&file, carrying(&guest("identity"), &ordinary(60_000, 20))).unwrap();
    let request = serde_json::json!({
        "file": "", "cache": null, "parent": null, "memory": 8_u64 << 30, "cpu_seconds": 100, "component": 64 << 20,
        "ceilings": {"memory": 1 << 28, "run_time_ms": 10_000, "output_bytes": 1 << 26, "rows_per_record": 100_000, "log_lines_per_second": 1000},
    });
    let mut shell = Command::new("sh")
        .args([
            "-c",
            "\"$0\" compile-plugin \"$1\" --request \"$2\" & echo $!; wait",
        ])
        .arg(env!("CARGO_BIN_EXE_wasmill"))
        .arg(&file)
        .arg(request.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(shell.stdout.take().unwrap());
    let mut pid = String::new();
    std::io::BufRead::read_line(&mut said, &mut pid).unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    // It says what it begins once it has limited itself.
    let mut stages = std::io::BufReader::new(shell.stderr.take().unwrap());
    let mut stage = String::new();
    std::io::BufRead::read_line(&mut stages, &mut stage).unwrap();
    assert!(stage.starts_with("wasmill-check: "), "{stage}");
    assert!(lives(pid));
    shell.kill().unwrap();
    shell.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while lives(pid) {
        assert!(Instant::now() < deadline, "the process outlived its parent");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_process_whose_parent_has_gone_before_it_began_does_nothing() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("plugin.wasm");
    std::fs::write(&file, guest("identity")).unwrap();
    let request = serde_json::json!({
        "file": "", "cache": null, "parent": u32::MAX, "memory": 1 << 30, "cpu_seconds": 10, "component": 64 << 20,
        "ceilings": {"memory": 1 << 28, "run_time_ms": 10_000, "output_bytes": 1 << 26, "rows_per_record": 100_000, "log_lines_per_second": 1000},
    });
    let output = Command::new(env!("CARGO_BIN_EXE_wasmill"))
        .arg("compile-plugin")
        .arg(&file)
        .args(["--request", &request.to_string()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has gone"));
    assert!(output.stdout.is_empty());
}
