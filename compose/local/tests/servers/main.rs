//! Each server for real: started, used, killed, restarted on its data, stopped without a trace.
//!
//! Where a server cannot be had (no Java, no Maven) its test says SKIPPED and passes on a person's
//! machine; with CI=true it fails.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests; the skip must be seen"
)]

mod cassandra;
mod death;
mod kafka;
mod postgres;

use std::io::Write as _;
use std::{path::Path, process::Command, time::Instant};

use wasmill_local::Missing;

/// Whether the server can be had; loud when not.
fn here(available: Result<(), Missing>) -> bool {
    let Err(missing) = available else { return true };
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{missing} ({})",
        missing.hint
    );
    // Straight to the terminal: the test runner keeps what `eprintln!` says of a test that passes.
    writeln!(std::io::stderr(), "SKIPPED: {missing} ({})", missing.hint).ok();
    false
}

fn timed<T>(what: &str, action: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = action();
    eprintln!("{what}: {} ms", started.elapsed().as_millis());
    result
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Whether the process has ended; one that nobody has reaped yet counts.
fn is_gone(pid: u32) -> bool {
    let state = if Path::new("/proc/self/stat").exists() {
        // the state follows the last parenthesis of the name
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map(|stat| stat[stat.rfind(')').unwrap() + 1..].trim().to_owned())
            .unwrap_or_default()
    } else {
        let ps = Command::new("ps")
            .args(["-o", "stat=", "-p", &pid.to_string()])
            .output()
            .unwrap();
        String::from_utf8_lossy(&ps.stdout).trim().to_owned()
    };
    state.is_empty() || state.starts_with('Z')
}
