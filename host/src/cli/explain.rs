//! `wasmill explain`: what is guaranteed at each sink, and why. Opens nothing but the files.

use std::path::PathBuf;

use super::{Failure, Voice, or_default, report};
use crate::assemble;
use crate::config::Config;
use crate::manifest::Delivery;
use crate::pipeline::Plan;

/// What is guaranteed at each sink of a pipeline, and why.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill explain flights -c wasmill.toml\n  wasmill explain --json | jq '.[].routes[].guarantee'"
)]
pub(super) struct Explain {
    /// The pipeline; all of the config by default.
    pipeline: Option<String>,
    /// The host's config.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Explain {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let config = Config::load(&or_default(self.config, "wasmill.toml"))?;
        let plans = assemble::plans(&config, self.pipeline.as_deref())?;
        if voice.json {
            report::json(&plans.iter().map(document).collect());
            return Ok(());
        }
        for plan in &plans {
            for line in lines(plan) {
                report::line(line);
            }
        }
        Ok(())
    }
}

fn document(plan: &Plan) -> serde_json::Value {
    serde_json::json!({
        "pipeline": plan.pipeline,
        "plugin": plan.plugin,
        "digest": plan.digest,
        "input": {"name": plan.input.input.name, "kafka": plan.input.kafka, "topic": plan.input.topic, "group": plan.input.group},
        "anchor": plan.anchor.to_string(),
        "asks": plan.asks.map(Delivery::word),
        "routes": plan.routes.iter().map(|route| serde_json::json!({
            "name": route.route.name, "kind": route.kind(), "table": route.table(),
            "guarantee": route.guarantee.to_string(), "why": route.why,
        })).collect::<Vec<_>>(),
    })
}

/// The plan in words.
pub(super) fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = vec![
        format!("pipeline {}: {}", plan.pipeline, plan.plugin),
        format!(
            "  reads    {} from kafka.{} as group {}",
            plan.input.topic, plan.input.kafka, plan.input.group
        ),
        format!("  position in {}", plan.anchor),
    ];
    for route in &plan.routes {
        lines.push(format!(
            "  {:<10} {} {} {}: {}",
            route.route.name,
            route.kind(),
            if route.kind() == "kafka" {
                "topic"
            } else {
                "table"
            },
            route.table(),
            route.guarantee
        ));
        lines.push(format!("             {}", route.why));
    }
    match plan.asks {
        Some(Delivery::ExactlyOnce) => lines.push("  the plugin asks for exactly-once: every route that is written gives it".to_owned()),
        Some(Delivery::AtLeastOnce) => lines.push(
            "  the plugin asks for at-least-once only: that changes nothing, every route gives more".to_owned(),
        ),
        None => {}
    }
    lines
}
