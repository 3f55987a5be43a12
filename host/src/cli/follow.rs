//! Waiting until a change that stands in the control log is what runs, partition by partition. It asks the
//! host again and again and owns the decision when that is done; it changes nothing.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::client::{Client, path};
use super::{Failure, Remote, Voice, report, show};
use crate::admin::types::{Deployed, PipelineState, PipelineStatus};
use crate::error::{Blame, Error};
use crate::toml_check::units;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Whether and how long a command waits.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Waiting {
    /// Return when the change is in the control log, not when every partition runs it.
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Wait until every partition runs it; this is the default.
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// Longest wait.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = patience)]
    wait_for: Duration,
}

fn patience(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(str::to_owned)
}

impl Waiting {
    /// Waits at most so long.
    pub(super) fn at_most(wait_for: Duration) -> Self {
        Self {
            no_wait: false,
            wait: true,
            wait_for,
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Every partition runs the deployed release.
    Everywhere,
    /// The canary's partitions run its release.
    Canary,
    /// The shadow runs.
    Shadow,
}

/// How far a change has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// So many partitions of so many, and what the pipeline does.
    Under { done: usize, of: usize, why: String },
    /// It runs.
    Done(String),
    /// Another change came after it: this revision.
    Overtaken(u64),
    /// The pipeline stopped on an error, or was parked.
    Failed,
}

/// What a change came to, in one line: the command's word for it, on what.
pub(super) fn said(word: &str, what: &str, deployed: &Deployed) -> String {
    let Deployed {
        pipeline,
        revision,
        changed,
    } = deployed;
    if *changed {
        format!("{word} {what} in pipeline {pipeline}: revision {revision}")
    } else {
        format!("nothing to change in pipeline {pipeline}: revision {revision} stands")
    }
}

/// Waits for the goal, with progress on a terminal.
///
/// # Errors
/// The pipeline stopped or was parked, another change came first, or it takes longer than was allowed.
pub(super) fn until(
    client: &Client,
    deployed: &Deployed,
    goal: Goal,
    waiting: &Waiting,
    voice: Voice,
) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = if voice.json || !std::io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(0)
    };
    let style = ProgressStyle::with_template("swapping [{bar:40}] {pos}/{len} partitions {msg}")
        .map_err(|error| Error::bug("draw progress", error))?;
    bar.set_style(style.progress_chars("=> "));
    let outcome = look(client, deployed, goal, waiting, &bar);
    bar.finish_and_clear();
    let words = outcome?;
    if !voice.json {
        report::line(format_args!(
            "{words} after {:.1} s",
            started.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

fn look(
    client: &Client,
    deployed: &Deployed,
    goal: Goal,
    waiting: &Waiting,
    bar: &ProgressBar,
) -> Result<String, Failure> {
    let name = &deployed.pipeline;
    let deadline = Instant::now() + waiting.wait_for;
    loop {
        let what = format!("follow pipeline {name:?}");
        let status = client
            .get(&path::pipeline(name), &what)
            .and_then(|answer| answer.read::<PipelineStatus>());
        let why = match status {
            Ok(status) => match seen(&status, deployed.revision, goal) {
                Seen::Done(words) => return Ok(words),
                Seen::Overtaken(revision) => {
                    return Err(overtaken(name, deployed.revision, revision));
                }
                Seen::Failed => return Err(failed(&status)),
                Seen::Under { done, of, why } => {
                    bar.set_length(of as u64);
                    bar.set_position(done as u64);
                    bar.set_message(why.clone());
                    let all = show::number_of(of as u64, "partition");
                    format!("it runs on {done} of {all}; the pipeline is {why}")
                }
            },
            // The host restarts, or is not as far in the control log as the one that took the change.
            Err(Failure::Error(error)) if error.blame() == Blame::Outside => error.to_string(),
            Err(Failure::Remote(remote)) if matches!(remote.status, 404 | 429 | 503) => {
                remote.error.to_string()
            }
            Err(other) => return Err(other),
        };
        if Instant::now() >= deadline {
            return Err(Error::outside(format!("wait for revision {} of pipeline {name:?}", deployed.revision), format!("not after {}: {why}", units::show_duration(waiting.wait_for)))
                .hint(format!("the change stands and goes on; see `wasmill status {name}`, or go back with `wasmill rollback {name}`"))
                .into());
        }
        std::thread::sleep(PAUSE);
    }
}

fn seen(status: &PipelineStatus, revision: u64, goal: Goal) -> Seen {
    if status.revision > revision {
        return Seen::Overtaken(status.revision);
    }
    let under = |done, of, why: &str| Seen::Under {
        done,
        of,
        why: why.to_owned(),
    };
    if status.revision < revision {
        return under(0, status.partitions.len(), "not as far yet");
    }
    match status.state {
        PipelineState::Parked | PipelineState::Stopped => return Seen::Failed,
        PipelineState::Paused => return Seen::Done("stands; the pipeline is paused".to_owned()),
        PipelineState::Removed => return Seen::Done("stands; the pipeline is removed".to_owned()),
        PipelineState::Starting => return under(0, status.partitions.len(), "starting"),
        PipelineState::Running => {}
    }
    let runs = |release: &str, only: Option<&[i32]>| {
        let wanted: Vec<_> = status
            .partitions
            .iter()
            .filter(|partition| only.is_none_or(|only| only.contains(&partition.partition)))
            .collect();
        let of = only.map_or(wanted.len(), <[i32]>::len);
        let done = wanted
            .iter()
            .filter(|partition| partition.release.as_deref() == Some(release))
            .count();
        (done, of)
    };
    let (done, of, words) = match (goal, &status.canary, &status.shadow) {
        (Goal::Shadow, _, Some(shadow)) => {
            return Seen::Done(format!("{} runs as a shadow", shadow.plugin));
        }
        (Goal::Shadow, _, None) => return under(0, status.partitions.len(), "starting the shadow"),
        (Goal::Canary, Some(canary), _) => {
            let (done, of) = runs(&canary.release, Some(&canary.partitions));
            (
                done,
                of,
                format!(
                    "{} runs as a canary on {}",
                    canary.plugin,
                    show::number_of(of as u64, "partition")
                ),
            )
        }
        (Goal::Canary, None, _) => return under(0, 0, "choosing the canary's partitions"),
        (Goal::Everywhere, ..) => {
            let (done, of) = runs(&status.release, None);
            (
                done,
                of,
                match of {
                    1 => format!("{} runs on the partition", status.plugin),
                    _ => format!("{} runs on all {of} partitions", status.plugin),
                },
            )
        }
    };
    if of > 0 && done == of {
        Seen::Done(words)
    } else {
        under(done, of, "swapping")
    }
}

fn overtaken(pipeline: &str, ours: u64, theirs: u64) -> Failure {
    let error = Error::config(
        format!("wait for revision {ours} of pipeline {pipeline:?}"),
        format!("revision {theirs} came after it"),
    )
    .hint(format!(
        "see who made it and why with `wasmill history {pipeline}`"
    ));
    Failure::Refused(error)
}

/// The last error of a pipeline that stands still, with the exit code of its class.
fn failed(status: &PipelineStatus) -> Failure {
    let name = &status.name;
    let state = format!("{:?}", status.state).to_lowercase();
    let Some(last) = &status.last_error else {
        return Error::outside(format!("run pipeline {name:?}"), format!("it is {state}"))
            .hint(format!("see `wasmill status {name}` and the host's log"))
            .into();
    };
    let (blame, exit) = match last.class.as_str() {
        "plugin" => (Blame::Plugin, 4),
        "config" => (Blame::Config, 3),
        "bug" => (Blame::Bug, 70),
        _ => (Blame::Outside, 1),
    };
    let error = Error::new(
        blame,
        format!("run pipeline {name:?}"),
        format!("it is {state}: {}: {}", last.what, last.detail),
    );
    let hint = last
        .hint
        .clone()
        .unwrap_or_else(|| format!("go back with `wasmill rollback {name}`"));
    Failure::Remote(Remote {
        error: error.hint(hint),
        exit,
        status: 200,
        code: last.class.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn status(state: &str, revision: u64, releases: &[Option<&str>]) -> PipelineStatus {
        let partitions: Vec<_> = releases
            .iter()
            .enumerate()
            .map(|(partition, release)| serde_json::json!({"partition": partition, "release": release}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "name": "q", "state": state, "revision": revision, "origin": "upload", "plugin": "q@2.0.0", "release": "new",
            "lag": {"records": 0}, "rates": {"records_per_second": 0.0, "rows_per_second": 0.0},
            "totals": {"received": 0, "emitted": 0, "filtered": 0, "dead": 0, "rows": 0, "flights": 0, "retries": 0, "guest_seconds": 0.0},
            "errors": [], "dead_letters": [], "memory_bytes": 0, "partitions": partitions,
        }))
        .unwrap()
    }

    #[test]
    fn it_runs_when_every_partition_does_and_not_before() {
        let everywhere = |status: &PipelineStatus| seen(status, 3, Goal::Everywhere);
        let swapping = everywhere(&status("running", 3, &[Some("new"), Some("old"), None]));
        assert_eq!(
            swapping,
            Seen::Under {
                done: 1,
                of: 3,
                why: "swapping".to_owned()
            }
        );
        assert!(matches!(
            everywhere(&status("running", 3, &[])),
            Seen::Under { .. }
        ));
        assert!(matches!(
            everywhere(&status("running", 2, &[Some("new")])),
            Seen::Under { .. }
        ));
        assert!(matches!(
            everywhere(&status("starting", 3, &[Some("new")])),
            Seen::Under { .. }
        ));
        assert_eq!(
            everywhere(&status("running", 3, &[Some("new")])),
            Seen::Done("q@2.0.0 runs on the partition".to_owned())
        );
        assert_eq!(
            everywhere(&status("running", 4, &[Some("new")])),
            Seen::Overtaken(4)
        );
        assert_eq!(everywhere(&status("parked", 3, &[])), Seen::Failed);
        assert_eq!(
            everywhere(&status("parked", 2, &[])),
            Seen::Under {
                done: 0,
                of: 0,
                why: "not as far yet".to_owned()
            }
        );
    }

    #[test]
    fn a_canary_runs_when_its_partitions_do() {
        let mut status = status("running", 3, &[Some("old"), Some("old")]);
        assert!(matches!(
            seen(&status, 3, Goal::Canary),
            Seen::Under { of: 0, .. }
        ));
        status.canary = serde_json::from_value(serde_json::json!({
            "plugin": "q@3.0.0", "release": "next", "partitions": [1], "since": "2026-01-01T00:00:00Z", "for_seconds": 60,
            "evidence": {"canary": crate::admin::types::Evidence::default(), "others": crate::admin::types::Evidence::default(), "against": []},
        }))
        .unwrap();
        assert!(matches!(
            seen(&status, 3, Goal::Canary),
            Seen::Under { done: 0, of: 1, .. }
        ));
        status.partitions[1].release = Some("next".to_owned());
        assert!(matches!(seen(&status, 3, Goal::Canary), Seen::Done(_)));
    }
}
