//! `wasmill explain`: what is guaranteed at each sink, why, what a reader sees, what the databases as they are set up
//! take away of it, and whether the live tables and topics fit. It changes nothing.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Failure, Voice, or_default, report};
use crate::admin::types::PlanProblem;
use crate::assemble::{self, Ask, Durability, Fit};
use crate::manifest::Delivery;
use crate::pipeline::{Plan, because, reader};

/// What is guaranteed at each sink of a pipeline, and why.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill explain flights -c wasmill.toml\n  wasmill explain --offline                  only the files: nobody is asked, no table is looked at\n  wasmill explain --json | jq '.[].routes[].guarantee'\n\nIt exits with 3 for a pipeline that asks for more than its sinks give, and when a live table or topic is missing or does not fit its route: the statements that mend it are shown. A server that is away is said to be, and what depends on it is left open; that is no failure. In --json a route `fits` true, false, or null where nobody looked."
)]
pub(super) struct Explain {
    /// The pipeline; all of the config by default.
    pipeline: Option<String>,
    /// The host's config.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask no server, look at no table.
    #[arg(long)]
    offline: bool,
}

impl Explain {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let config = assemble::load(&or_default(self.config, "wasmill.toml"))?;
        let plans = assemble::plans(&config, self.pipeline.as_deref())?;
        let ask = if self.offline {
            Ask::Nobody
        } else {
            Ask::Servers
        };
        let durability = assemble::durability(&config, &plans, ask)?;
        let fits = assemble::fits(&config, &plans, &durability)?;
        let all = plans.iter().zip(&durability).zip(&fits);
        if voice.json {
            let documents = all.map(|((plan, databases), fits)| document(plan, databases, fits));
            report::json(&documents.collect());
        } else {
            for ((plan, databases), fits) in all {
                for line in lines(plan, databases, fits) {
                    report::line(line);
                }
            }
        }
        verdict(&fits)
    }
}

/// What is promised of a table that does not fit does not hold.
fn verdict(fits: &[Vec<Fit>]) -> Result<(), Failure> {
    let differs = |fit: &&Fit| matches!(fit, Fit::Differs(_));
    match fits.iter().flatten().filter(differs).count() {
        0 => Ok(()),
        1 => Err(Failure::Unfit(
            "a table or topic does not fit its route".to_owned(),
        )),
        more => Err(Failure::Unfit(format!(
            "{more} tables and topics do not fit their routes"
        ))),
    }
}

fn document(plan: &Plan, databases: &[Durability], fits: &[Fit]) -> Value {
    json!({
        "pipeline": plan.pipeline,
        "plugin": plan.plugin,
        "digest": plan.digest,
        "input": {"name": plan.input.input.name, "kafka": plan.input.kafka, "topic": plan.input.topic, "group": plan.input.group},
        "anchor": plan.anchor.to_string(),
        "because": because(&plan.anchor),
        "asks": plan.asks.map(Delivery::word),
        "routes": plan.routes.iter().zip(fits).map(|(route, fit)| {
            let (fits, problem) = match fit {
                Fit::Fits => (Some(true), None),
                Fit::Differs(error) => (Some(false), Some(PlanProblem::from(error))),
                Fit::Unknown(error) => (None, error.as_ref().map(PlanProblem::from)),
                Fit::Nowhere => (None, None),
            };
            json!({
                "name": route.route.name, "kind": route.kind(), "table": route.table(),
                "guarantee": route.guarantee.to_string(), "why": route.why, "reader": reader(route),
                "fits": fits, "problem": problem,
            })
        }).collect::<Vec<_>>(),
        "databases": databases.iter().map(database).collect::<Vec<_>>(),
    })
}

fn database(one: &Durability) -> Value {
    match &one.settings {
        Ok(settings) => json!({
            "place": one.place, "takes_away": one.takes_away,
            "settings": settings.iter().map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect::<serde_json::Map<_, _>>(),
        }),
        Err(unread) => json!({
            "place": one.place, "not_read": unread.why.as_ref().map_or("not asked".to_owned(), ToString::to_string),
            "needed": unread.needed,
        }),
    }
}

/// The plan in words.
fn lines(plan: &Plan, databases: &[Durability], fits: &[Fit]) -> Vec<String> {
    let mut lines = vec![
        format!("pipeline {}: {}", plan.pipeline, plan.plugin),
        format!(
            "  reads {} from kafka.{} as group {}",
            plan.input.topic, plan.input.kafka, plan.input.group
        ),
        format!("  position in {}: {}", plan.anchor, because(&plan.anchor)),
    ];
    for (route, fit) in plan.routes.iter().zip(fits) {
        let noun = match route.kind() {
            "kafka" => "topic",
            _ => "table",
        };
        let once = match fit {
            Fit::Differs(_) => format!(", once its {noun} fits"),
            Fit::Fits | Fit::Unknown(_) | Fit::Nowhere => String::new(),
        };
        lines.push(format!(
            "  {} → {} {noun} {}: {}{once}",
            route.route.name,
            route.kind(),
            route.table(),
            route.guarantee
        ));
        lines.push(format!("    why  {}", route.why));
        lines.push(format!("    so   {}", reader(route)));
        match fit {
            Fit::Differs(error) => {
                lines.push(format!("    but  {error}"));
                let hint = error.hint_text().into_iter().flat_map(str::lines);
                lines.extend(hint.map(|line| format!("         {line}")));
            }
            Fit::Unknown(Some(error)) => {
                lines.push(format!("    but  nobody could look at its {noun}: {error}"));
            }
            Fit::Unknown(None) | Fit::Fits | Fit::Nowhere => {}
        }
    }
    match plan.asks {
        Some(Delivery::ExactlyOnce) => lines.push(
            "  the plugin asks for exactly-once: every route that is written gives it".to_owned(),
        ),
        Some(Delivery::AtLeastOnce) => lines.push(
            "  the plugin asks for at-least-once only: that changes nothing, every route gives what its sink can"
                .to_owned(),
        ),
        None => {}
    }
    databases.iter().for_each(|one| set_up(one, &mut lines));
    lines
}

/// How a database is set up, and what that takes away.
fn set_up(one: &Durability, lines: &mut Vec<String>) {
    match &one.settings {
        Ok(settings) => {
            let settings = settings
                .iter()
                .map(|(name, value)| format!("{name} = {value}"));
            let settings = settings.collect::<Vec<_>>().join(", ");
            lines.push(format!("  {} is set up with {settings}", one.place));
            if one.takes_away.is_empty() {
                lines.push("    that takes nothing away".to_owned());
            }
            let taken = one.takes_away.iter();
            lines.extend(taken.map(|taken| format!("    takes away: {taken}")));
        }
        Err(unread) => {
            let why = unread.why.as_ref();
            let said = why.map_or("not asked".to_owned(), |error| format!("not read: {error}"));
            lines.push(format!("  {} is {said}", one.place));
            lines.push(format!(
                "    what is said above needs there: {}",
                unread.needed
            ));
            let nouns = match one.place.starts_with("kafka.") {
                true => "topics",
                false => "tables",
            };
            let looked = match why {
                _ if !unread.is_away() => return,
                Some(_) => "which nobody could look at",
                None => {
                    "which explain looks at without --offline, and a host before it runs the pipeline"
                }
            };
            lines.push(format!("    and {nouns} that fit their routes, {looked}"));
        }
    }
}
