//! The command line over the HTTP API, as a person or a script meets it: the built `wasmill`, what it prints,
//! and its exit codes. `goldens` lays every text beside a file; `lifecycle` goes through the real API.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod answers;
mod goldens;
mod lifecycle;
mod refusals;
mod scripted;

use std::process::{Command, Output, Stdio};

/// Runs `wasmill` against a host, without a terminal.
fn wasmill(host: &str, arguments: &[&str]) -> Output {
    command(host, arguments).output().unwrap()
}

fn command(host: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmill"));
    command
        .args(arguments)
        .env("WASMILL_HOST", host)
        .env_remove("WASMILL_TOKEN")
        .env_remove("WASMILL_CA_FILE")
        .env_remove("WASMILL_LOG")
        .stdin(Stdio::null());
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
