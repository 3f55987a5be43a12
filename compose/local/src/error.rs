//! Why a local server could not be started, ended or fetched.
//!
//! Owns the error types of this crate. Every text is a lowercase fragment that names the server and
//! what was attempted; what a person should do about it comes from [`StartError::hint`].

use std::{io, path::Path, process::ExitStatus, time::Duration};

/// Something that has to be installed on this machine first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{server} cannot start here: {what}")]
pub struct Missing {
    /// The server that was asked for, such as `Apache Kafka 4.1.2`.
    pub server: String,
    /// What was looked for and not found.
    pub what: String,
    /// One line: what to install or set.
    pub hint: String,
}

/// Why a server did not start. The text holds the detail; [`StartError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something has to be installed first. A retry does not help.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The programs of the server could not be fetched or were not what was expected.
    #[error("fetching {what}: {detail}")]
    Fetch {
        /// The server and version.
        what: String,
        /// The last lines of the tool that failed, or the checksum that differs.
        detail: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the path it was attempted on.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A program ended with a failure while the server was being prepared or started.
    #[error("{what} ended while starting ({status}):\n{log}")]
    Exited {
        /// The program.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        log: String,
    },
    /// The server runs but did not become ready in time; it has been killed.
    #[error("{what} was not ready after {} s:\n{log}", after.as_secs())]
    NotReady {
        /// The server.
        what: String,
        /// How long it was waited for.
        after: Duration,
        /// The last lines it wrote.
        log: String,
    },
    /// A folder that would be used is not safe or not usable.
    #[error("folder {path:?} cannot be used: {why}")]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl StartError {
    /// One line that tells a person what to do.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            StartError::Missing(missing) => &missing.hint,
            StartError::Fetch { .. } => {
                "check that `mvn` reaches its repository (proxy and mirror are set in Maven's settings.xml), then try again"
            }
            StartError::Io { .. } => {
                "check the free space and the permissions of that path; WASMILL_CACHE chooses another cache folder"
            }
            StartError::Exited { .. } => {
                "the lines above are the program's own; fix what they name and try again"
            }
            StartError::NotReady { .. } => {
                "this machine may be overloaded: free memory or processor time and try again"
            }
            StartError::Folder { .. } => "remove it, or set WASMILL_CACHE to a folder of your own",
        }
    }

    /// An operating system error with what was attempted on which path.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
        let what = format!("{what} {path:?}");
        move |source| StartError::Io { what, source }
    }
}
