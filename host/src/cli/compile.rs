//! `wasmill compile-plugin`: the process a host starts to check an upload, hidden from people. It limits itself,
//! examines the file, and prints one JSON document; what it does meanwhile goes to standard error.

use std::path::PathBuf;

use super::{Failure, report};
use crate::error::Error;
use crate::upload::{self, Answer, Request};

/// Check one component within limits, for a host.
#[derive(Debug, clap::Args)]
pub(super) struct CompilePlugin {
    /// The component.
    file: PathBuf,
    /// The limits and everything else the host says, as JSON.
    #[arg(long)]
    request: String,
}

impl CompilePlugin {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let mut request: Request = serde_json::from_str(&self.request)
            .map_err(|error| Error::bug("read what the host asks for", error))?;
        request.file = self.file;
        upload::confine(&request)?;
        let checked = upload::examine(&request, &mut |stage| {
            eprintln!("{}{stage}", upload::STAGE);
        });
        let checked = checked.map(|mut report| {
            report.peak_memory = peak_memory();
            report
        });
        let answer = serde_json::to_value(Answer::from(checked))
            .map_err(|error| Error::bug("write the report", error))?;
        report::json(&answer);
        Ok(())
    }
}

/// Most memory this process held, bytes (`proc_pid_status(5)`).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
