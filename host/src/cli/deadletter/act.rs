//! `wasmill deadletter retry | drop`: what changes dead letters, page by page until all that was chosen is through.

use std::io::IsTerminal as _;

use super::bytes;
use super::which::Chosen;
use crate::admin::types::{
    DeadLetterQuery, DropRequest, Dropped, RetryOutcome, RetryReport, RetryRequest, RetryResult,
};
use crate::cli::client::{Client, Method, path};
use crate::cli::connection::Connection;
use crate::cli::{Failure, Voice, deploy, report, show};
use crate::error::Error;

/// Letters a request drops.
const DROPPED: u32 = 1000;
/// Letters a request retries.
const RETRIED: u32 = 100;

/// Run dead letters through a version once more.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill deadletter retry quakes 0:1200\n  wasmill deadletter retry quakes --code row-refused --through quakes@1.2.1\n  wasmill deadletter retry quakes --all --limit 10\n  wasmill deadletter retry quakes --all --force\n\nRows and removal are one step: whatever is killed, and however often it is retried, each row is there once.\nWhat fails still stays, with the new reason (exit code 1)."
)]
pub(in crate::cli) struct Retry {
    #[command(flatten)]
    chosen: Chosen,
    /// An uploaded version, with the overlay in force; the release in force by default.
    #[arg(long, value_name = "NAME@VERSION")]
    through: Option<String>,
    /// Also where an upsert without a guard may overwrite what newer records wrote.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Forget dead letters for good.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill deadletter drop quakes 0:1200 0:1201\n  wasmill deadletter drop quakes --code malformed --until 7d --yes\n\nThe records stay counted as dead, and stay in the topic as long as it keeps them."
)]
pub(in crate::cli) struct Drop {
    #[command(flatten)]
    chosen: Chosen,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Retry {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        let pipeline = &self.chosen.pipeline;
        let what = format!("retry dead letters of pipeline {pipeline:?}");
        let path = path::of_dead_letters(pipeline, "retry");
        let mut all = RetryReport::default();
        let rest = page_by_page(&self.chosen, "retry", RETRIED, |letters| {
            let request = RetryRequest {
                letters,
                plugin: self.through.clone(),
                force: self.force,
            };
            let answer = client.send(Method::Post, &path, &request, &what)?;
            let page: RetryReport = answer.read()?;
            let done = page.results.len() as u64;
            all.results.extend(page.results);
            (all.plugin, all.release) = (page.plugin, page.release);
            Ok((done, page.next, page.left))
        })?;
        (all.next, all.left) = (rest.next, rest.left);
        if voice.json {
            report::json(&serde_json::json!(all));
        } else {
            retried(&all);
        }
        let failed =
            |one: &&RetryResult| matches!(one.outcome, RetryOutcome::Dead | RetryOutcome::Refused);
        match all.results.iter().filter(failed).count() {
            0 => Ok(()),
            left => Err(Failure::Mismatch(format!(
                "dead letters still: {left} of {}",
                all.results.len()
            ))),
        }
    }
}

/// What stayed, one a line, and the sums.
pub(in crate::cli) fn retried(report: &RetryReport) {
    let stayed =
        |one: &&RetryResult| !matches!(one.outcome, RetryOutcome::Emitted | RetryOutcome::Filtered);
    let rows: Vec<[String; 4]> = report
        .results
        .iter()
        .filter(stayed)
        .map(|one| {
            [
                format!("{}:{}", one.partition, one.offset),
                word(one.outcome).to_owned(),
                show::or_dash(one.code.clone()),
                show::or_dash(one.reason.as_deref().map(bytes::plain)),
            ]
        })
        .collect();
    if !rows.is_empty() {
        report::line(show::table(["at", "now", "code", "reason"], &[], rows));
    }
    if report.results.is_empty() {
        report::line("no such dead letters");
        return;
    }
    let count = |outcome| {
        let results = report.results.iter();
        results.filter(|one| one.outcome == outcome).count()
    };
    report::line(format_args!(
        "{} retried through {}: {} emitted ({}), {} filtered, {} dead still, {} refused, {} gone",
        report.results.len(),
        report.plugin,
        count(RetryOutcome::Emitted),
        show::number_of(report.results.iter().map(|one| one.rows).sum(), "row"),
        count(RetryOutcome::Filtered),
        count(RetryOutcome::Dead),
        count(RetryOutcome::Refused),
        count(RetryOutcome::Gone),
    ));
    limited(
        report.results.len() as u64,
        report.left,
        report.next.as_deref(),
    );
}

fn word(outcome: RetryOutcome) -> &'static str {
    match outcome {
        RetryOutcome::Emitted => "emitted",
        RetryOutcome::Filtered => "filtered",
        RetryOutcome::Dead => "dead still",
        RetryOutcome::Gone => "gone",
        RetryOutcome::Refused => "refused",
    }
}

impl Drop {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        let pipeline = &self.chosen.pipeline;
        let what = format!("drop dead letters of pipeline {pipeline:?}");
        let path = path::of_dead_letters(pipeline, "drop");
        let send = |request: &DropRequest| -> Result<Dropped, Failure> {
            client.send(Method::Post, &path, request, &what)?.read()
        };
        if !self.yes {
            let mut found = 0;
            for letters in self.chosen.queries("drop")? {
                let dry_run = true;
                found += send(&DropRequest { letters, dry_run })?.dropped;
            }
            let those = match self.chosen.limit.map(u64::from) {
                Some(limit) if limit < found => {
                    format!("{limit} of {}", show::number_of(found, "dead letter"))
                }
                _ => show::number_of(found, "dead letter"),
            };
            if !std::io::stdin().is_terminal() {
                let detail =
                    format!("{those} would go, and nobody can be asked: there is no terminal");
                let error = Error::config(what.clone(), detail);
                return Err(Failure::Refused(error.hint("give --yes")));
            }
            deploy::confirm(&format!("drop {those} of pipeline {pipeline} for good?"))?;
        }
        let mut dropped = 0;
        let rest = page_by_page(&self.chosen, "drop", DROPPED, |letters| {
            let dry_run = false;
            let page = send(&DropRequest { letters, dry_run })?;
            dropped += page.dropped;
            Ok((page.dropped, page.next, page.left))
        })?;
        let Rest { next, left } = rest;
        if voice.json {
            let dropped = Dropped {
                dropped,
                next,
                left,
            };
            report::json(&serde_json::json!(dropped));
        } else {
            report::line(format_args!(
                "dropped {} of pipeline {pipeline}",
                show::number_of(dropped, "dead letter")
            ));
            limited(dropped, left, next.as_deref());
        }
        Ok(())
    }
}

/// What a limit left for later; nothing where there was no limit.
#[derive(Debug, Default)]
struct Rest {
    next: Option<String>,
    left: Option<u64>,
}

/// What came of a page: letters that it took, the cursor of the next one, letters left where they were counted.
type Page = (u64, Option<String>, Option<u64>);

/// Sends a request a page until all that was chosen is through, or as many as were wanted.
fn page_by_page(
    chosen: &Chosen,
    verb: &str,
    most: u32,
    mut send: impl FnMut(DeadLetterQuery) -> Result<Page, Failure>,
) -> Result<Rest, Failure> {
    let mut wanted = chosen.limit;
    let mut rest = Rest::default();
    for mut letters in chosen.queries(verb)? {
        loop {
            letters.limit = Some(wanted.map_or(most, |wanted| wanted.min(most)));
            // Only once: to count them is to read them.
            letters.count = wanted.is_some_and(|wanted| wanted <= most);
            let (done, next, left) = send(letters.clone())?;
            wanted =
                wanted.map(|wanted| wanted.saturating_sub(u32::try_from(done).unwrap_or(wanted)));
            letters.cursor.clone_from(&next);
            if wanted.is_some() {
                rest = Rest {
                    left: left.or(next.is_none().then_some(0)),
                    next,
                };
            }
            if wanted == Some(0) || letters.cursor.is_none() {
                break;
            }
        }
    }
    Ok(rest)
}

/// How many there were and are, where there was a limit.
fn limited(done: u64, left: Option<u64>, next: Option<&str>) {
    let Some(left) = left else { return };
    let [matched, left] = [done + left, left].map(show::count);
    report::line(format_args!("{matched} matched, {left} left"));
    if let Some(next) = next {
        eprintln!("there are more: --after {next}, or a larger --limit");
    }
}
