//! `wasmill dev`: a plugin with everything around it running. On every save it is built, its fixtures run, the
//! build is uploaded and deployed on a host of this process, and the newest records show which rows changed.
//!
//! * [`watch`]: saves, settled; [`session`]: what one save does; [`inputs`]: what that works on; [`diff`]: two
//!   builds over the same records.
//!
//! It owns the servers and the host for as long as it runs and leaves nothing behind. A build that fails is
//! shown, and the next save is waited for.

mod diff;
mod inputs;
mod session;
mod watch;

use std::path::PathBuf;

use super::demo::servers;
use super::signals::Signals;
use super::{Failure, Voice, or_default, report};
use crate::error::Error;
use crate::task;
use session::{Session, Settings};
use watch::Watch;

/// Write a plugin with everything around it running: rebuilt, deployed and compared on every save.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill dev                                  the plugin in this folder\n  wasmill dev --plugin orders --key /id        data/*.ndjson keyed by their member id\n  wasmill dev --data big.ndjson --records 5000\n\nEach build is a version of its own, 1.0.0-dev.1, 1.0.0-dev.2, …: plugin.toml stays as it is. Routes to Cassandra are discarded without --cassandra. Ctrl-C ends everything; nothing is left running or behind."
)]
pub(super) struct Dev {
    /// The plugin's folder; the current one by default.
    #[arg(long, value_name = "DIR")]
    plugin: Option<PathBuf>,
    /// Newest records of the topic that are run again after each build.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    records: u32,
    /// Records that go into the topic at the start, one a line; DIR/data/*.ndjson by default.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// JSON pointer of the field that becomes a record's key; by default the one called like the field that the
    /// plugin reads the key as, and none where it reads no key.
    #[arg(long, value_name = "POINTER")]
    key: Option<String>,
    /// Bindings, limits and configuration to deploy with, as of `wasmill deploy --overlay`.
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
    /// Apache Kafka instead of the development broker (in memory).
    #[arg(long)]
    real: bool,
    /// Cassandra too.
    #[arg(long)]
    cassandra: bool,
    /// Use only crates that are on this machine.
    #[arg(long)]
    offline: bool,
}

/// Why a wait for a save ended.
enum Woken {
    Saved,
    Stopped,
}

impl Dev {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let folder = or_default(self.plugin.clone(), ".");
        let found = folder
            .canonicalize()
            .ok()
            .filter(|folder| folder.join("plugin.toml").is_file());
        let Some(folder) = found else {
            return Err(Error::config(
                "find the plugin",
                format!("there is no plugin.toml in {}", folder.display()),
            )
            .hint("name its folder with --plugin, or make one with `wasmill plugin new NAME`")
            .into());
        };
        let runtime = task::runtime()?;
        let mut signals = {
            let _inside = runtime.enter();
            Signals::listen()?
        };
        let mut watch = Watch::start(&folder)?;
        let say = |text: &str| eprintln!("{text}");
        let cassandra = if self.cassandra {
            servers::Wish::Must
        } else {
            servers::Wish::No
        };
        let want = servers::Want::single(self.real, cassandra);
        let servers = servers::start(want, &say)?;
        say(&format!("psql      \"{}\"", servers.postgres_url()));
        let mut session = Session::new(
            Settings {
                folder,
                records: self.records,
                data: self.data,
                key: self.key,
                overlay: self.overlay,
                cassandra: self.cassandra,
                offline: self.offline,
            },
            servers,
            voice,
        )?;
        loop {
            if let Err(failure) = session.round() {
                // What is wrong with a save is the author's to mend; the next one is waited for.
                report::failure(&failure, voice);
            }
            say("waiting   for the next save (Ctrl-C ends)");
            let woken = runtime.block_on(async {
                tokio::select! {
                    // A signal first: a folder that never rests must not keep it running.
                    biased;
                    () = signals.any() => Ok(Woken::Stopped),
                    saved = watch.saved() => saved.map(|()| Woken::Saved),
                }
            })?;
            if matches!(woken, Woken::Stopped) {
                session.end();
                return Ok(());
            }
        }
    }
}
