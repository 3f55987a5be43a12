//! `wasmill deploy`: plan, show, ask, apply by the plan's hash, and wait until it runs.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use super::client::{Client, Method, path};
use super::connection::Connection;
use super::follow::{self, Goal, Waiting};
use super::{Failure, Remote, Voice, plan, report};
use crate::admin::types::{
    CanaryEnd, CanaryRequest, DeployRequest, Deployed, History, Plan, Tolerance,
};
use crate::error::Error;
use crate::toml_check::units;

/// Largest overlay that is read, bytes; the API takes no more.
const MAX_OVERLAY: u64 = 64 << 10;

/// Run an uploaded version in a pipeline: shows what would change, asks, applies exactly that.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill deploy quakes@1.2.0 --plan-only\n  wasmill deploy quakes@1.2.0 --overlay quakes.toml\n  wasmill deploy quakes@1.2.0 --canary 1 --canary-for 5m\n  wasmill deploy quakes@1.2.0 --canary 1 --tolerance rows_share=0.2 --tolerance cpu_times=2\n  wasmill deploy quakes@1.2.0 --shadow --yes\n\nThe overlay is the [pipeline.NAME] section of a config file without its header: bind, grants, limits, config. Without --overlay the one that is deployed stays. If anything changed between plan and apply, nothing is done and the exit code is 5."
)]
pub(super) struct Deploy {
    /// The uploaded version, NAME@VERSION.
    #[arg(value_parser = version)]
    plugin: String,
    /// The pipeline; the plugin's name by default.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Bindings, grants, limits and configuration as TOML.
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
    /// First on N partitions, compared with the others, then promoted or rolled back by itself.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    canary: Option<u32>,
    /// How long the canary has to hold.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds, requires = "canary")]
    canary_for: u64,
    /// Records it has to process before it is judged good.
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "canary")]
    canary_min_records: u64,
    /// How much worse than the others the canary may be; may be given for several keys.
    ///
    /// dead_share: additional share of records that end as dead letters (0.01; of faults of the plugin 0.001).
    /// rows_share: how far rows a record may differ, as a share (not compared).
    /// cpu_times: times the others' processor time a record (3).
    /// latency_times: times the others' 99th percentile from a batch's start to its commit (3).
    #[arg(long, value_name = "KEY=VALUE", value_parser = tolerated, requires = "canary", verbatim_doc_comment)]
    tolerance: Vec<(String, f64)>,
    /// Leave a canary that held as it is, until it is promoted or rolled back by hand.
    #[arg(long, requires = "canary")]
    canary_hold: bool,
    /// Beside the deployed version with sinks off; `wasmill status` shows the rows that differ.
    #[arg(long, conflicts_with = "canary")]
    shadow: bool,
    /// Show what would change, and change nothing.
    #[arg(long)]
    plan_only: bool,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Kept in the history.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    connection: Connection,
}

impl Deploy {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        let pipeline = self.pipeline_name();
        let mut request = self.request()?;
        let planned = client.send(
            Method::Post,
            &path::of_pipeline(&pipeline, "plan"),
            &request,
            &format!("plan pipeline {pipeline:?}"),
        )?;
        let mut plan: Plan = planned.read()?;
        let shown = voice.json && self.plan_only;
        if shown {
            report::line(planned.text.trim_end());
        }
        if !voice.json {
            plan::show_ddl_once(&mut plan);
            plan::lines(&plan).iter().for_each(report::line);
        }
        if let Some(error) = plan::refused(&pipeline, &plan.problems) {
            return Err(match shown {
                // The plan is the one document on standard output, with its problems.
                true => Failure::Shown(error),
                false => error.into(),
            });
        }
        if self.plan_only {
            return Ok(());
        }
        self.agreed(&plan)?;
        request.plan = Some(plan.hash.clone());
        request.seen = Some(plan.seen);
        let answer = client
            .send(
                Method::Put,
                &path::of_pipeline(&pipeline, "deployment"),
                &request,
                &format!("deploy pipeline {pipeline:?}"),
            )
            .map_err(|failure| explained(&client, &pipeline, plan.seen, failure))?;
        let deployed: Deployed = answer.read()?;
        if !voice.json {
            report::line(follow::said("deployed", &self.plugin, &deployed));
        }
        if !self.waiting.no_wait {
            let goal = match (self.shadow, self.canary) {
                (true, _) => Goal::Shadow,
                (false, Some(_)) => Goal::Canary,
                (false, None) => Goal::Everywhere,
            };
            follow::until(&client, &deployed, goal, &self.waiting, voice)?;
        }
        if voice.json {
            report::line(answer.text.trim_end());
        }
        Ok(())
    }

    fn pipeline_name(&self) -> String {
        match (&self.pipeline, self.plugin.split_once('@')) {
            (Some(name), _) => name.clone(),
            (None, Some((name, _))) => name.to_owned(),
            (None, None) => self.plugin.clone(),
        }
    }

    fn request(&self) -> Result<DeployRequest, Error> {
        let overlay = match &self.overlay {
            Some(file) => Some(overlay(file)?),
            None => None,
        };
        let canary = match self.canary {
            Some(partitions) => Some(CanaryRequest {
                partitions,
                for_seconds: self.canary_for,
                min_records: self.canary_min_records,
                then: if self.canary_hold {
                    CanaryEnd::Hold
                } else {
                    CanaryEnd::Promote
                },
                tolerance: tolerance(&self.tolerance)?,
            }),
            None => None,
        };
        Ok(DeployRequest {
            plugin: self.plugin.clone(),
            overlay,
            canary,
            shadow: self.shadow,
            plan: None,
            seen: None,
            note: self.note.clone(),
        })
    }

    /// Asks on a terminal. Without one a plan with warnings wants `--yes`.
    fn agreed(&self, plan: &Plan) -> Result<(), Failure> {
        if self.yes || plan.changes.is_empty() {
            return Ok(());
        }
        if std::io::stdin().is_terminal() {
            return confirm(&format!(
                "deploy {} in pipeline {}?",
                self.plugin, plan.pipeline
            ));
        }
        match plan.warnings.as_slice() {
            [] => Ok(()),
            warnings => Err(Failure::Refused(
                Error::config(
                    format!("deploy pipeline {:?}", plan.pipeline),
                    format!("the plan has warnings: {}", warnings.join("; ")),
                )
                .hint("look at them, then deploy with --yes"),
            )),
        }
    }
}

/// Asks a question on the terminal; anything but yes is a refusal.
pub(super) fn confirm(question: &str) -> Result<(), Failure> {
    eprint!("{question} [y/N] ");
    std::io::stderr().flush().ok();
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| Error::outside("read the answer", error))?;
    if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::Refused(
        Error::config(
            question.trim_end_matches('?').to_owned(),
            "not confirmed, nothing was changed",
        )
        .hint("answer y, or give --yes"),
    ))
}

/// A conflict with what happened since the plan was looked at.
pub(super) fn explained(client: &Client, pipeline: &str, seen: u64, failure: Failure) -> Failure {
    let Failure::Remote(remote) = failure else {
        return failure;
    };
    if remote.status != 409 {
        return Failure::Remote(remote);
    }
    let what = format!("read the history of pipeline {pipeline:?}");
    let Ok(history) = client
        .get(&path::of_pipeline(pipeline, "history"), &what)
        .and_then(|answer| answer.read::<History>())
    else {
        // The conflict itself is what matters; why exactly it came is a courtesy.
        return Failure::Remote(remote);
    };
    let since: Vec<_> = history
        .revisions
        .iter()
        .filter(|revision| revision.revision > seen)
        .map(|revision| {
            format!(
                "revision {}: {} {} by {} at {}",
                revision.revision, revision.action, revision.plugin, revision.by, revision.at
            )
        })
        .collect();
    if since.is_empty() {
        return Failure::Remote(remote);
    }
    let error = Error::new(
        remote.error.blame(),
        remote.error.what().to_owned(),
        format!("{}; meanwhile: {}", remote.error.detail(), since.join("; ")),
    )
    .hint("look at the new plan with --plan-only, then deploy again");
    Failure::Remote(Remote { error, ..remote })
}

fn overlay(file: &std::path::Path) -> Result<String, Error> {
    let wrong = |detail: String| {
        Error::config(format!("read the overlay {}", file.display()), detail)
            .hint("it is the [pipeline.NAME] section of a config without its header, e.g. grants = [\"headers\"]")
    };
    let bytes = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > MAX_OVERLAY {
        return Err(wrong(format!(
            "it has {} bytes; at most {MAX_OVERLAY} are taken",
            bytes.len()
        )));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    text.parse::<toml::Table>()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(text)
}

/// `NAME@VERSION`, as far as that is seen here.
fn version(text: &str) -> Result<String, String> {
    match text.split_once('@') {
        Some((name, version)) if !name.is_empty() && semver::Version::parse(version).is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err(
            "write NAME@VERSION, e.g. quakes@1.2.0; `wasmill list` shows what was uploaded"
                .to_owned(),
        ),
    }
}

/// `KEY=VALUE` of a tolerance; which keys there are is the request's to know.
fn tolerated(text: &str) -> Result<(String, f64), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write KEY=VALUE, e.g. rows_share=0.2")?;
    let number: Option<f64> = value.parse().ok().filter(|number: &f64| number.is_finite());
    let number = number.ok_or_else(|| format!("{value:?} is not a number"))?;
    let one = serde_json::json!({ key: number });
    serde_json::from_value::<Tolerance>(one).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), number))
}

/// The tolerance that was given, if any was.
fn tolerance(given: &[(String, f64)]) -> Result<Option<Tolerance>, Error> {
    let mut all = serde_json::Map::new();
    for (key, value) in given {
        if all.insert(key.clone(), (*value).into()).is_some() {
            let detail = format!("{key} is given twice");
            return Err(Error::config("read --tolerance", detail).hint("give each key once"));
        }
    }
    if all.is_empty() {
        return Ok(None);
    }
    let read = serde_json::from_value(all.into());
    read.map(Some)
        .map_err(|error| Error::bug("read --tolerance", error))
}

/// A duration in whole seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let found = units::duration(text)?;
    if found.as_secs() == 0 || found.subsec_millis() != 0 {
        return Err("whole seconds, at least 1s".to_owned());
    }
    Ok(found.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;
    use crate::control::CanaryRules;

    fn request(arguments: &str) -> Result<DeployRequest, Error> {
        let words = ["deploy", "quakes@1.2.0"].into_iter();
        let words = words.chain(arguments.split_whitespace());
        let matches = Deploy::augment_args(Command::new("deploy")).try_get_matches_from(words);
        Deploy::from_arg_matches(&matches.unwrap())
            .unwrap()
            .request()
    }

    #[test]
    fn a_canary_has_the_same_defaults_here_and_over_the_api() {
        let api = serde_json::from_str(r#"{"partitions": 2}"#).unwrap();
        assert_eq!(request("--canary 2").unwrap().canary, Some(api));
        let help = Deploy::augment_args(Command::new("deploy")).render_long_help();
        let help = help.to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let rules = CanaryRules::default();
        for told in [
            format!("dead letters ({};", rules.max_dead_ratio),
            format!("of the plugin {})", rules.max_error_ratio),
            format!("processor time a record ({})", rules.max_cpu_factor),
            format!("to its commit ({})", rules.max_latency_factor),
        ] {
            assert!(help.contains(&told), "{told:?} in {help}");
        }
        assert!(rules.max_rows_difference.is_none() && help.contains("(not compared)"));
    }

    #[test]
    fn what_a_canary_may_be_worse_by_is_given_key_by_key() {
        let given = "--canary 1 --tolerance rows_share=0.2 --tolerance cpu_times=2";
        let tolerance = request(given).unwrap().canary.unwrap().tolerance.unwrap();
        let wanted = Tolerance {
            rows_share: Some(0.2),
            cpu_times: Some(2.0),
            ..Tolerance::default()
        };
        assert_eq!(tolerance, wanted);
        let twice = request("--canary 1 --tolerance cpu_times=2 --tolerance cpu_times=3");
        assert!(twice.unwrap_err().to_string().contains("cpu_times"));
        let unknown = tolerated("row_share=1").unwrap_err();
        assert!(
            unknown.contains("`rows_share`"),
            "the keys are named: {unknown}"
        );
        for wrong in ["rows_share", "rows_share=", "cpu_times=NaN", "cpu_times=2x"] {
            assert!(tolerated(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn versions_and_times_are_read_strictly() {
        assert!(version("quakes@1.2.0-dev.3").is_ok());
        for wrong in ["quakes", "@1.0.0", "quakes@", "quakes@1.2", "quakes@latest"] {
            assert!(version(wrong).is_err(), "{wrong}");
        }
        assert_eq!(seconds("5m"), Ok(300));
        for wrong in ["60", "0s", "1500ms", "a"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
