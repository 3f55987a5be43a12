//! `wasmill demo`: real records through real plugins into real tables on this machine, counted at the end.
//!
//! Starts what it needs ([`servers`]), feeds what ships with the project and a handful of bad records
//! ([`feed`]), runs a host as `wasmill run` would, and shows what arrived ([`show`]). Then some of the dead letters run
//! once more, through a mended plugin ([`again`]); or everything stays, for a person to do that. Nothing is left running
//! or behind. Any number that does not add up fails the demo.

mod again;
mod feed;
pub(super) mod servers;
mod show;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::own_host::OwnHost;
use super::{Failure, Voice, report, show as text, signals};
use crate::assemble::Host;
use crate::error::Error;
use crate::pipeline::{Plan, Totals};

/// Longest the host may take for the sample once everything runs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everything on this machine: real records through real plugins into real tables.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill demo            development broker, Postgres, and Cassandra where a suitable Java is found\n  wasmill demo --real     real Apache Kafka and Cassandra\n  wasmill demo --stay     leaves everything running until Ctrl-C, to try the commands on it\n  wasmill demo --json     one document at the end"
)]
pub(super) struct Demo {
    /// Apache Kafka instead of the development broker, and insist on Cassandra.
    #[arg(long)]
    real: bool,
    /// Leave Cassandra out even where it could run.
    #[arg(long, conflicts_with = "real")]
    no_cassandra: bool,
    /// Leave everything running until Ctrl-C, and the dead letters to you.
    #[arg(long)]
    stay: bool,
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
        let mended = built(&self.plugins, again::MENDED, &say)?;
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
            "fed      {} into {}",
            text::number_of(total, "record"),
            text::number_of(sent.len() as u64, "topic")
        ));
        let expected = Expectation { sent };
        let scratch = wasmill_local::Scratch::new()
            .map_err(|error| Error::outside("make a folder for the host", error))?;
        let own = OwnHost::start("demo", scratch.path(), &servers.sections(&components))?;
        let plans = crate::assemble::plans(&own.config, None)?;
        let totals = follow(&own.host, total, voice)?;
        let shown = show::results(&servers, &plans, &totals, &expected)?;
        if !voice.json {
            shown.print();
        }
        let again = match self.stay {
            true => None,
            false => Some(redrive(
                &own,
                &servers,
                &mended,
                (&plans, &expected),
                voice,
            )?),
        };
        if voice.json {
            report::json(&shown.document(&totals, again.as_ref(), started.elapsed()));
        }
        let more = again.iter().flat_map(|again| &again.mismatches);
        let mismatches: Vec<&String> = shown.mismatches.iter().chain(more).collect();
        if let Some(mismatch) = mismatches.first() {
            return Err(Failure::Mismatch(format!(
                "demo: {} off, first: {mismatch}",
                text::number_of(mismatches.len() as u64, "number")
            )));
        }
        if self.stay {
            stay(&own, &servers, &mended, voice)?;
        }
        own.host.stop()?;
        drop(servers);
        let all = sum(&totals);
        let retried = again.map_or(0, |again| again.retried());
        say(&format!(
            "demo: ok, {} in = {} + {} + {}",
            all.received,
            all.emitted + retried,
            all.filtered,
            all.dead - retried
        ));
        Ok(())
    }
}

/// Some of the dead letters through the mended plugin.
fn redrive(
    own: &OwnHost,
    servers: &servers::Servers,
    mended: &Path,
    (plans, expected): (&[Plan], &Expectation),
    voice: Voice,
) -> Result<again::Again, Failure> {
    own.wait_ready()?;
    let plan = plans.iter().find(|plan| plan.pipeline == again::PIPELINE);
    let mut sent = expected.sent.iter();
    let sent = sent.find(|(name, _)| *name == again::PIPELINE);
    let (Some(plan), Some((_, sent))) = (plan, sent) else {
        return Err(Error::bug("check the demo", "the pipeline to mend is not there").into());
    };
    again::through_mended(&own.client, servers, mended, (plan, *sent), voice)
}

/// Waits for Ctrl-C, having said what could be done meanwhile.
fn stay(
    own: &OwnHost,
    servers: &servers::Servers,
    mended: &Path,
    voice: Voice,
) -> Result<(), Failure> {
    own.wait_ready()?;
    let address = own.address();
    if !voice.json {
        let pipeline = again::PIPELINE;
        report::line(format_args!(
            "\nrunning until Ctrl-C; in another terminal:\n\n  export WASMILL_HOST={address}\n  wasmill status\n  \
             wasmill deadletter list {pipeline}\n  wasmill upload {}\n  \
             wasmill deadletter retry {pipeline} --code bad-date --through flights@1.1.0 --force\n  psql \"{}\"\n",
            mended.display(),
            servers.postgres_url()
        ));
    } else {
        report::line(serde_json::json!({
            "host": address, "servers": servers.document(), "mended": mended.display().to_string(),
        }));
    }
    Ok(signals::wait()?)
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
    let names = ["flights", "earthquakes"].into_iter();
    names
        .map(|name| Ok((name, built(folder, name, say)?)))
        .collect()
}

/// The component of one of them.
fn built(folder: &Path, name: &str, say: &dyn Fn(&str)) -> Result<PathBuf, Failure> {
    let plugin = folder.join(name);
    if !plugin.join("plugin.toml").is_file() {
        return Err(Error::config(
            format!("find the example plugin {name:?}"),
            format!("no plugin.toml in {}", plugin.display()),
        )
        .hint("run the demo from the project's folder, or name its plugins folder with --plugins")
        .into());
    }
    super::plugin::ensure_built(&plugin, say)
}
