//! `wasmill explain`: what is guaranteed at each sink, why, what a reader sees, and what the databases as they are set up
//! take away of it. It changes nothing.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Failure, Voice, or_default, report};
use crate::assemble::{self, Ask, Durability};
use crate::config::Config;
use crate::manifest::Delivery;
use crate::pipeline::{Plan, because, reader};

/// What is guaranteed at each sink of a pipeline, and why.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill explain flights -c wasmill.toml\n  wasmill explain --offline                  only the files: no database is asked how it is set up\n  wasmill explain --json | jq '.[].routes[].guarantee'\n\nIt exits with 3 for a pipeline that asks for more than its sinks give."
)]
pub(super) struct Explain {
    /// The pipeline; all of the config by default.
    pipeline: Option<String>,
    /// The host's config.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask no database.
    #[arg(long)]
    offline: bool,
}

impl Explain {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let config = Config::load(&or_default(self.config, "wasmill.toml"))?;
        let plans = assemble::plans(&config, self.pipeline.as_deref())?;
        let ask = if self.offline {
            Ask::Nobody
        } else {
            Ask::Servers
        };
        let durability = assemble::durability(&config, &plans, ask)?;
        let all = plans.iter().zip(&durability);
        if voice.json {
            report::json(
                &all.map(|(plan, databases)| document(plan, databases))
                    .collect(),
            );
            return Ok(());
        }
        for (plan, databases) in all {
            for line in lines(plan, databases) {
                report::line(line);
            }
        }
        Ok(())
    }
}

fn document(plan: &Plan, databases: &[Durability]) -> Value {
    json!({
        "pipeline": plan.pipeline,
        "plugin": plan.plugin,
        "digest": plan.digest,
        "input": {"name": plan.input.input.name, "kafka": plan.input.kafka, "topic": plan.input.topic, "group": plan.input.group},
        "anchor": plan.anchor.to_string(),
        "because": because(&plan.anchor),
        "asks": plan.asks.map(Delivery::word),
        "routes": plan.routes.iter().map(|route| json!({
            "name": route.route.name, "kind": route.kind(), "table": route.table(),
            "guarantee": route.guarantee.to_string(), "why": route.why, "reader": reader(route),
        })).collect::<Vec<_>>(),
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
fn lines(plan: &Plan, databases: &[Durability]) -> Vec<String> {
    let mut lines = vec![
        format!("pipeline {}: {}", plan.pipeline, plan.plugin),
        format!(
            "  reads {} from kafka.{} as group {}",
            plan.input.topic, plan.input.kafka, plan.input.group
        ),
        format!("  position in {}: {}", plan.anchor, because(&plan.anchor)),
    ];
    for route in &plan.routes {
        let kind = match route.kind() {
            "kafka" => "kafka topic".to_owned(),
            kind => format!("{kind} table"),
        };
        lines.push(format!(
            "  {} → {kind} {}: {}",
            route.route.name,
            route.table(),
            route.guarantee
        ));
        lines.push(format!("    why  {}", route.why));
        lines.push(format!("    so   {}", reader(route)));
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
            let why = why.map_or("not asked".to_owned(), |error| format!("not read: {error}"));
            lines.push(format!("  {} is {why}", one.place));
            lines.push(format!(
                "    what is said above needs there: {}",
                unread.needed
            ));
        }
    }
}
