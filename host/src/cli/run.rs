//! `wasmill run`: a host, until it is told to stop.

use std::path::PathBuf;

use super::{Failure, Voice, or_default, report};
use crate::assemble::{self, Host};

/// Run a host.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill run                             reads ./wasmill.toml\n  wasmill run -c /etc/wasmill.toml --log-json\n\nSIGTERM or Ctrl-C drains (at most 25 s) and exits 0; a second one aborts, which loses nothing either."
)]
pub(super) struct Run {
    /// The host's config.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Run {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let path = or_default(self.config, "wasmill.toml");
        let config = assemble::load(&path)?;
        let control = config.control.as_ref();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            host = config.host.id,
            config = %path.display(),
            control = control.map_or("in memory", |control| control.topic.as_str()),
            shards = config.host.shards,
            "starting"
        );
        let host = Host::start_with(&config, std::env::current_exe().ok())?;
        let outcome = host.run_until_signal();
        // A host that failed to start has one document to print: the failure.
        if voice.json && (outcome.is_ok() || host.has_begun()) {
            let totals = host.totals();
            let pipelines: serde_json::Map<_, _> = totals
                .iter()
                .map(|(name, totals)| (name.clone(), serde_json::json!(totals)))
                .collect();
            report::json(&serde_json::json!({ "pipelines": pipelines }));
        }
        if !host.has_ended() {
            // Its threads end with the process, which is safe at any moment; waiting for them could take for ever.
            std::mem::forget(host);
        }
        Ok(outcome?)
    }
}
