//! `wasmill demo`: real records through real plugins into real tables on this machine, counted at the end.
//!
//! Starts what it needs ([`servers`]), feeds what ships with the project and a handful of bad records
//! ([`feed`]), runs a host as `wasmill run` would, and shows what arrived ([`show`]). Nothing is left running
//! or behind. Any number that does not add up fails the demo.

mod feed;
pub(super) mod servers;
mod show;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, Voice, report};
use crate::assemble::Host;
use crate::config::Config;
use crate::error::Error;
use crate::pipeline::Totals;

/// Longest the host may take for the sample once everything runs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everything on this machine: real records through real plugins into real tables.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill demo            development broker, Postgres, and Cassandra where a suitable Java is found\n  wasmill demo --real     real Apache Kafka and Cassandra\n  wasmill demo --json     one document at the end"
)]
pub(super) struct Demo {
    /// Apache Kafka instead of the development broker, and insist on Cassandra.
    #[arg(long)]
    real: bool,
    /// Leave Cassandra out even where it could run.
    #[arg(long, conflicts_with = "real")]
    no_cassandra: bool,
    /// Folder of the example plugins; each is built first.
    #[arg(long, value_name = "DIR", default_value = "plugins")]
    plugins: PathBuf,
}

/// What the demo needs to find in the end.
#[derive(Debug)]
struct Expectation {
    /// Records sent by pipeline.
    sent: Vec<(&'static str, feed::Sent)>,
}

impl Demo {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let started = Instant::now();
        let say = |text: &str| {
            if !voice.json {
                report::line(text);
            }
        };
        let components = components(&self.plugins, &say)?;
        let cassandra = match (self.real, self.no_cassandra) {
            (true, _) => servers::Wish::Must,
            (false, true) => servers::Wish::No,
            (false, false) => servers::Wish::IfPossible,
        };
        let want = servers::Want::single(self.real, cassandra);
        let servers = servers::start(want, &say)?;
        let sent = feed::send(&servers, &self.plugins)?;
        let total: u64 = sent.iter().map(|(_, sent)| sent.records).sum();
        say(&format!(
            "fed      {total} records into {} topics",
            sent.len()
        ));
        let expected = Expectation { sent };
        let folder = tempfile::tempdir()
            .map_err(|error| Error::outside("make a temporary folder", error))?;
        let config = servers.config(&components, folder.path());
        let config = Config::check(&config, &|_| None)?;
        let plans = crate::assemble::plans(&config, None)?;
        let host = Host::start(&config)?;
        let totals = follow(&host, total, voice)?;
        host.stop()?;
        let shown = show::results(&servers, &config, &plans, &totals, &expected)?;
        if voice.json {
            report::json(&shown.document(&totals, started.elapsed()));
        } else {
            shown.print();
        }
        let all = sum(&totals);
        if let Some(mismatch) = shown.mismatches.first() {
            return Err(Failure::Mismatch(format!(
                "demo: {} numbers do not add up, first: {mismatch}",
                shown.mismatches.len()
            )));
        }
        drop(servers);
        say(&format!(
            "demo: ok, {} in = {} + {} + {}",
            all.received, all.emitted, all.filtered, all.dead
        ));
        Ok(())
    }
}

/// All pipelines together.
fn sum(totals: &[(String, Totals)]) -> Totals {
    let mut all = Totals::default();
    for (_, totals) in totals {
        all.received += totals.received;
        all.emitted += totals.emitted;
        all.filtered += totals.filtered;
        all.dead += totals.dead;
    }
    all
}

/// Shows progress until every record is settled.
fn follow(host: &Host, total: u64, voice: Voice) -> Result<Vec<(String, Totals)>, Failure> {
    let bar = if voice.json {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(total)
    };
    let style = ProgressStyle::with_template("running  [{bar:40}] {pos}/{len} records {per_sec}")
        .map_err(|error| Error::bug("draw progress", error))?;
    bar.set_style(style.progress_chars("=> "));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let totals = host.totals();
        let done = sum(&totals).received;
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
            return Ok(totals);
        }
        if let Some(error) = host.failure() {
            bar.finish_and_clear();
            return Err(error.into());
        }
        if Instant::now() > deadline {
            bar.finish_and_clear();
            return Err(Failure::Mismatch(format!(
                "only {done} of {total} records were settled within {} s",
                PATIENCE.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The components of the example plugins, built.
fn components(folder: &Path, say: &dyn Fn(&str)) -> Result<Vec<(&'static str, PathBuf)>, Failure> {
    let mut found = Vec::new();
    for name in ["flights", "earthquakes"] {
        let plugin = folder.join(name);
        if !plugin.join("plugin.toml").is_file() {
            return Err(Error::config(
                format!("find the example plugin {name:?}"),
                format!("no plugin.toml in {}", plugin.display()),
            )
            .hint(
                "run the demo from the project's folder, or name its plugins folder with --plugins",
            )
            .into());
        }
        let component = super::plugin::ensure_built(&plugin, say)?;
        found.push((name, component));
    }
    Ok(found)
}
