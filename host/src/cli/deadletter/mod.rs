//! `wasmill deadletter list|show|retry|drop`: the records that were set aside, through a host's API.
//!
//! | file | owns |
//! |---|---|
//! | `which` | the arguments that say which letters |
//! | `list`, `show` | looking at them |
//! | `act` | retrying and dropping them, page by page |
//! | `bundle` | a folder in which a record is run again |
//! | `bytes` | bytes as a person reads them |

mod act;
mod bundle;
mod bytes;
mod list;
mod show;
mod which;

pub(super) use act::retried;
pub(super) use list::drawn;

use super::{Failure, Voice};

/// Records that were set aside: look at them, run them once more, forget them.
#[derive(Debug, clap::Subcommand)]
pub(super) enum DeadLetters {
    /// Which records were set aside, and why.
    List(list::List),
    /// One of them: its bytes, headers, coordinates, the reason.
    Show(show::Show),
    /// Run them through a version once more: each becomes its rows, exactly once, or stays.
    Retry(act::Retry),
    /// Forget them for good; they stay counted as dead.
    Drop(act::Drop),
}

impl DeadLetters {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        match self {
            Self::List(command) => command.execute(voice),
            Self::Show(command) => command.execute(voice),
            Self::Retry(command) => command.execute(voice),
            Self::Drop(command) => command.execute(voice),
        }
    }
}
