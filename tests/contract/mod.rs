//! What the command line promises: exit codes and words. Nothing here connects to anything.

mod components;
mod config_files;
mod explain;
mod topics;

use std::path::Path;
use std::process::Output;

use tempfile::TempDir;
use wasmill_tests::artifact::wasmill;

/// A config whose surroundings do not exist: what is refused here is refused before anything is reached.
const NOWHERE: &str = "[kafka.main]\nbrokers = \"127.0.0.1:1\"\n[postgres.main]\nurl = \"postgres://nobody@127.0.0.1:1/nothing\"\n";

/// Runs the program in an empty folder.
fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    wasmill()
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Runs a host on a config's text, which it has to refuse; what it wrote to standard error.
fn refused(text: &str, code: i32) -> String {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("wasmill.toml"), text).unwrap();
    let output = run(&folder, &["run"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// As [`refused`], with one pipeline that runs the component in `file`.
fn refused_component(file: &Path, code: i32) -> String {
    refused(
        &format!(
            "{NOWHERE}[pipeline.p]\nfile = {:?}\nbind.route.by_airport = \"discard\"\n",
            file.display().to_string()
        ),
        code,
    )
}
