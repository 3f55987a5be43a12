//! `wasmill audit`: who asked what of the hosts, and how it ended.

use super::client::{Client, path};
use super::connection::Connection;
use super::{Failure, Voice, report, show};
use crate::admin::types::AuditEntry;

/// Who changed or was denied what, newest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill audit\n  wasmill audit --most 1000 --json | jq '.[] | select(.action == \"denied\")'"
)]
pub(super) struct Audit {
    /// How many entries.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    most: u32,
    #[command(flatten)]
    connection: Connection,
}

impl Audit {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        let answer = client.get(&path::audit(self.most), "read the audit trail")?;
        if voice.json {
            report::line(answer.text.trim_end());
            return Ok(());
        }
        let entries: Vec<AuditEntry> = answer.read()?;
        if entries.is_empty() {
            report::line("nothing was changed or denied yet");
            return Ok(());
        }
        report::line(show::table(
            ["at", "by", "host", "action", "subject", "outcome"],
            &[],
            entries.into_iter().map(|entry| {
                [
                    entry.at,
                    entry.by,
                    entry.host,
                    entry.action,
                    entry.subject,
                    entry.outcome,
                ]
            }),
        ));
        Ok(())
    }
}
