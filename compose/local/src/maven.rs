//! Fetching a server's programs through Maven, the package client that knows its own mirrors.
//!
//! Owns the run of `mvn`. Never opens a connection itself and names no host.

use std::{fs, path::Path, process::Command};

use crate::{
    environment,
    error::StartError,
    process,
    server::{tail, write},
};

/// Whether `mvn` is installed.
pub(crate) fn found() -> bool {
    environment::first_on_path("mvn").is_some()
}

/// Copies all jars the project `pom` depends on at run time to `folder`; with `unpack`, what is in
/// them too.
///
/// # Errors
/// [`StartError::Fetch`] with the last lines of `mvn`, for `what`.
pub(crate) fn fetch(
    what: &str,
    pom: &str,
    folder: &Path,
    unpack: Unpack,
) -> Result<(), StartError> {
    let failed = |detail: String| StartError::Fetch {
        what: what.to_owned(),
        detail,
    };
    let mvn =
        environment::first_on_path("mvn").ok_or_else(|| failed("`mvn` is not installed".into()))?;
    let project = folder.join("pom.xml");
    write(&project, pom)?;
    let mut command = Command::new(mvn);
    // -C: a jar whose checksum differs is an error, not a warning
    command.args(["-q", "-B", "-C", "-f"]).arg(&project);
    command.arg("dependency:copy-dependencies");
    if unpack == Unpack::Yes {
        command.arg("dependency:unpack-dependencies");
        command.arg(format!(
            "-DmarkersDirectory={}",
            folder.join("markers").display()
        ));
    }
    command.arg("-DincludeScope=runtime");
    command.arg(format!("-DoutputDirectory={}", folder.display()));
    let output =
        process::output(command).map_err(|error| failed(format!("running mvn: {error}")))?;
    if !output.status.success() {
        // -B -q still writes every problem, with colour codes only on a terminal
        let text = String::from_utf8_lossy(&output.stdout);
        let problems: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("[ERROR]"))
            .take(3)
            .collect();
        let detail = if problems.is_empty() {
            tail(&text)
        } else {
            problems.join("\n")
        };
        return Err(failed(format!(
            "mvn ended with {}: {detail}",
            output.status
        )));
    }
    fs::remove_file(&project).map_err(StartError::io("removing", &project))
}

/// Whether the contents of the jars are wanted as files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpack {
    Yes,
    No,
}
