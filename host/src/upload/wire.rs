//! What the host tells the checking process and what that answers: one JSON document each way. Both sides are
//! the same binary, so nothing here is a format for others.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::report::UploadReport;
use crate::config::Ceilings;
use crate::error::{Blame, Error, Retry};

/// What is to be checked, and within which limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The component's file.
    pub file: PathBuf,
    /// Where native code is kept; the folder that a host calls `compiled`.
    pub cache: Option<PathBuf>,
    /// The process that asks: without it the check is pointless. `None`: a person asks.
    pub parent: Option<u32>,
    /// Memory the process may hold, bytes.
    pub memory: u64,
    /// Processor time it may use, seconds.
    pub cpu_seconds: u64,
    /// Longest component, bytes.
    pub component: u64,
    /// The host's ceilings.
    pub ceilings: WireCeilings,
}

/// [`Ceilings`] as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireCeilings {
    memory: u64,
    run_time_ms: u64,
    output_bytes: u64,
    rows_per_record: u32,
    log_lines_per_second: u32,
}

impl From<Ceilings> for WireCeilings {
    fn from(ceilings: Ceilings) -> Self {
        Self {
            memory: ceilings.memory,
            run_time_ms: u64::try_from(ceilings.run_time.as_millis()).unwrap_or(u64::MAX),
            output_bytes: ceilings.output_bytes,
            rows_per_record: ceilings.rows_per_record,
            log_lines_per_second: ceilings.log_lines_per_second,
        }
    }
}

impl From<WireCeilings> for Ceilings {
    fn from(ceilings: WireCeilings) -> Self {
        Self {
            memory: ceilings.memory,
            run_time: Duration::from_millis(ceilings.run_time_ms),
            output_bytes: ceilings.output_bytes,
            rows_per_record: ceilings.rows_per_record,
            log_lines_per_second: ceilings.log_lines_per_second,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Every check passed.
    Passed(Box<UploadReport>),
    /// One did not.
    Refused(Parts),
}

/// The parts of an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parts {
    blame: String,
    retry: bool,
    what: String,
    detail: String,
    hint: Option<String>,
}

impl From<Result<UploadReport, Error>> for Answer {
    fn from(result: Result<UploadReport, Error>) -> Self {
        match result {
            Ok(report) => Self::Passed(Box::new(report)),
            Err(error) => Self::Refused(Parts {
                blame: error.blame().word().to_owned(),
                retry: error.retry() == Retry::Backoff,
                what: error.what().to_owned(),
                detail: error.detail().to_owned(),
                hint: error.hint_text().map(str::to_owned),
            }),
        }
    }
}

impl Answer {
    /// The report, or the error as it was.
    ///
    /// # Errors
    /// What the check ended with.
    pub fn into_result(self) -> Result<UploadReport, Error> {
        let parts = match self {
            Self::Passed(report) => return Ok(*report),
            Self::Refused(parts) => parts,
        };
        let blame = Blame::of(&parts.blame).unwrap_or(Blame::Bug);
        let retry = if parts.retry {
            Retry::Backoff
        } else {
            Retry::Never
        };
        let error = Error::new(blame, parts.what, parts.detail).with_retry(retry);
        Err(match parts.hint {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn every_error_survives_the_way_back() {
        for blame in [
            Blame::Plugin,
            Blame::Data,
            Blame::Config,
            Blame::Outside,
            Blame::Bug,
        ] {
            let plain = Error::new(blame, "check \"x\"", "line 1\nline 2");
            for error in [
                plain.clone().hint("do this"),
                plain.with_retry(Retry::Backoff),
            ] {
                let sent = serde_json::to_string(&Answer::from(Err(error.clone()))).unwrap();
                let back: Answer = serde_json::from_str(&sent).unwrap();
                assert_eq!(back.into_result().unwrap_err(), error);
            }
        }
    }

    #[test]
    fn ceilings_survive_the_way_there() {
        let ceilings = Ceilings::default();
        let sent = serde_json::to_string(&WireCeilings::from(ceilings)).unwrap();
        let back: WireCeilings = serde_json::from_str(&sent).unwrap();
        assert_eq!(Ceilings::from(back), ceilings);
    }
}
