//! `wasmill status`: what a host and its pipelines do now; again and again with `--watch`.

mod one;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::client::{Answer, Client, path};
use super::connection::Connection;
use super::{Failure, Voice, report, show};
use crate::admin::types::{
    HostStatus, Ledger, PartitionStatus, PipelineState, PipelineStatus, Waiting,
};
use crate::error::Blame;

/// Between two looks of `--watch`.
const PAUSE: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its first line (ECMA-48: ED 2, CUP).
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Of the table of pipelines.
const COLUMNS: [&str; 11] = [
    "pipeline",
    "state",
    "plugin",
    "rev",
    "lag",
    "records/s",
    "rows/s",
    "dead",
    "errors",
    "p99 ms",
    "memory",
];
/// Those that are numbers.
const NUMBERS: &[&str] = COLUMNS.split_at(3).1;

/// What a host and its pipelines do: lag, rates, dead letters, memory, errors, canaries.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill status                          all pipelines, a line each\n  wasmill status quakes --watch           one in full, every second until Ctrl-C\n  wasmill status quakes --json | jq .lag.records\n\nNumbers are those of the host that is asked."
)]
pub(super) struct Status {
    /// The pipeline; all of them, shortly, by default.
    pipeline: Option<String>,
    /// Every second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        if !self.watch {
            return self
                .look(&client, voice)
                .map(|text| report::line(text.trim_end()));
        }
        let terminal = std::io::stdout().is_terminal() && !voice.json;
        loop {
            let text = match self.look(&client, voice) {
                Ok(text) => text,
                // A host that restarts is worth waiting for; what it refuses stays refused.
                Err(Failure::Error(error)) if error.blame() == Blame::Outside => {
                    eprintln!("{} {error}", report::paint("waiting:", "1;33"));
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(Failure::Remote(remote)) if remote.error.blame() == Blame::Outside => {
                    eprintln!("{} {}", report::paint("waiting:", "1;33"), remote.error);
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(other) => return Err(other),
            };
            let clear = if terminal { CLEAR } else { "" };
            if writeln!(std::io::stdout(), "{clear}{}", text.trim_end()).is_err() {
                // Nobody reads any more.
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// One look, as text or as the API's body.
    fn look(&self, client: &Client, voice: Voice) -> Result<String, Failure> {
        let answer = self.ask(client)?;
        if voice.json {
            return Ok(answer.text);
        }
        if self.pipeline.is_some() {
            return Ok(one::lines(&answer.read()?).join("\n"));
        }
        let host = client.get(path::HOST, "ask the host how it is")?;
        Ok(all(&host.read()?, &answer.read::<Vec<PipelineStatus>>()?).join("\n"))
    }

    fn ask(&self, client: &Client) -> Result<Answer, Failure> {
        match &self.pipeline {
            Some(name) => client.get(
                &path::pipeline(name),
                &format!("ask how pipeline {name:?} is"),
            ),
            None => client.get(path::PIPELINES, "ask how the pipelines are"),
        }
    }
}

/// The word the API has for a state.
fn word(state: PipelineState) -> &'static str {
    match state {
        PipelineState::Running => "running",
        PipelineState::Starting => "starting",
        PipelineState::Paused => "paused",
        PipelineState::Parked => "PARKED",
        PipelineState::Stopped => "STOPPED",
        PipelineState::Removed => "removed",
    }
}

/// The state, and what is waited for.
fn state(pipeline: &PipelineStatus) -> String {
    let word = word(pipeline.state);
    if pipeline.waiting.is_empty() {
        return word.to_owned();
    }
    let servers: Vec<_> = pipeline.waiting.iter().map(awaited).collect();
    format!("{word}, waiting for {}", servers.join(", "))
}

/// A server and how long it is waited for.
fn awaited(waiting: &Waiting) -> String {
    format!("{} ({:.0} s)", waiting.on, waiting.seconds.floor())
}

/// What became of the records of the host's partitions, together; `None` where it does not say it of any.
pub(super) fn ledger(partitions: &[PartitionStatus]) -> Option<Ledger> {
    let all = partitions.iter().filter_map(|partition| partition.ledger);
    all.reduce(|all, one| Ledger {
        records: all.records + one.records,
        emitted: all.emitted + one.emitted,
        filtered: all.filtered + one.filtered,
        dead: all.dead + one.dead,
        retried: all.retried + one.retried,
    })
}

/// The host in a line, its pipelines in a table.
fn all(host: &HostStatus, pipelines: &[PipelineStatus]) -> Vec<String> {
    let ready = if host.ready {
        "ready".to_owned()
    } else {
        format!("NOT READY: {}", show::list(&host.reasons))
    };
    let mut lines = vec![format!(
        "host {} (wasmill {}): {ready}, up {} s, {} shards, {}",
        host.id,
        host.version,
        show::count(host.uptime_seconds),
        host.shards,
        show::size(host.memory_bytes)
    )];
    if pipelines.is_empty() {
        lines.push("no pipelines: `wasmill deploy NAME@VERSION` makes one".to_owned());
        return lines;
    }
    lines.push(show::table(
        COLUMNS,
        NUMBERS,
        pipelines.iter().map(|pipeline| {
            let under_way = match (&pipeline.canary, &pipeline.shadow) {
                (Some(canary), _) => format!(" (canary {})", canary.plugin),
                (None, Some(shadow)) => format!(" (shadow {})", shadow.plugin),
                (None, None) => String::new(),
            };
            [
                pipeline.name.clone(),
                state(pipeline),
                format!("{}{under_way}", pipeline.plugin),
                pipeline.revision.to_string(),
                show::or_dash(pipeline.lag.records.map(show::count)),
                show::rate(pipeline.rates.records_per_second),
                show::rate(pipeline.rates.rows_per_second),
                show::or_dash(ledger(&pipeline.partitions).map(|ledger| show::count(ledger.dead))),
                show::count(pipeline.errors.iter().map(|error| error.count).sum()),
                show::or_dash(
                    pipeline
                        .latency
                        .as_ref()
                        .map(|latency| format!("{:.1}", latency.p99_ms)),
                ),
                show::size(pipeline.memory_bytes),
            ]
        }),
    ));
    for pipeline in pipelines {
        if let Some(why) = &pipeline.behind {
            lines.push(format!("{}: behind: {why}", pipeline.name));
        }
        for one in &pipeline.waiting {
            let (name, awaited, error) = (&pipeline.name, awaited(one), &one.error);
            lines.push(format!(
                "{name}: waiting for {awaited}: {}: {}",
                error.what, error.detail
            ));
            lines.extend(error.hint.iter().map(|hint| format!("  hint: {hint}")));
        }
        if let Some(last) = &pipeline.last_error {
            lines.push(format!(
                "{}: {} error at {}: {}: {}",
                pipeline.name, last.class, last.at, last.what, last.detail
            ));
            lines.extend(last.hint.iter().map(|hint| format!("  hint: {hint}")));
        }
    }
    lines
}
