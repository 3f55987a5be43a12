//! `wasmill local`: a broker and a database on this machine for as long as it runs, for authors.

use std::path::PathBuf;
use std::time::Duration;

use super::demo::servers;
use super::{Failure, Voice, report};
use crate::error::Error;

/// A broker and a database on this machine until Ctrl-C, for writing and trying plugins.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill local                       development broker and Postgres; writes local.toml\n  wasmill local --real --cassandra    Apache Kafka, Postgres and Cassandra\n\nThe written file holds the [kafka.main], [postgres.main] and [cassandra.main] sections: add pipelines to it, or\nput them into another file. Nothing is kept: stopping removes all data."
)]
pub(super) struct Local {
    /// Apache Kafka instead of the development broker (in memory).
    #[arg(long)]
    real: bool,
    /// Cassandra too.
    #[arg(long)]
    cassandra: bool,
    /// Where the connections are written, as sections of a host's config.
    #[arg(short, long, value_name = "FILE", default_value = "local.toml")]
    output: PathBuf,
}

impl Local {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let say = |text: &str| eprintln!("{text}");
        let want = servers::Want {
            kafka: self.real,
            cassandra: if self.cassandra {
                servers::Wish::Must
            } else {
                servers::Wish::No
            },
        };
        let servers = servers::start(want, &say)?;
        let sections = servers.connections();
        std::fs::write(&self.output, &sections)
            .map_err(|error| Error::outside(format!("write {}", self.output.display()), error))?;
        if voice.json {
            report::json(&servers.document());
        } else {
            report::line(format_args!(
                "written to {}:\n\n{sections}",
                self.output.display()
            ));
            report::line(format_args!("psql \"{}\"", servers.postgres_url()));
            report::line("running until Ctrl-C");
        }
        wait()?;
        drop(servers);
        Ok(())
    }
}

/// Waits for SIGINT or SIGTERM.
fn wait() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::outside("start a runtime", error))?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |error| Error::outside("listen for signals", error);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok::<(), Error>(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}
