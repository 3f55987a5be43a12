//! What a manifest asks of a host against what the host can give: limits and delivery. Pure.

use crate::config::Ceilings;
use crate::error::{Error, Result};
use crate::manifest::{Delivery, Limits, Manifest, Route, Target};
use crate::pipeline;
use crate::toml_check::units;

/// Refuses a manifest that asks for more than this host gives; returns what is allowed and still worth a look.
///
/// # Errors
/// Plugin: limits above the host's ceilings, or a delivery that no sink of its routes gives.
pub(super) fn check(manifest: &Manifest, ceilings: &Ceilings) -> Result<Vec<String>> {
    let plugin = format!("{}@{}", manifest.name, manifest.version);
    let above = above(&manifest.limits, ceilings);
    if !above.is_empty() {
        let names: Vec<&str> = above.iter().map(|(limit, ..)| *limit).collect();
        let told = above.iter().map(|(limit, asked, ceiling)| {
            format!("it asks for limits.{limit} = {asked}, and this host's ceiling is {ceiling}")
        });
        let detail = told.collect::<Vec<_>>().join("; ");
        return Err(Error::plugin(format!("check the limits of {plugin}"), detail).hint(format!(
            "lower {names} in [limits] of plugin.toml and build it again, or raise {names} in [ceilings] of the host's \
             config",
            names = names.join(", ")
        )));
    }
    let short = pipeline::out_of_reach(manifest);
    if !short.is_empty() && short.len() == manifest.routes.len() {
        return Err(Error::plugin(
            format!("check what {plugin} asks for"),
            "delivery = \"exactly-once\", and all it writes goes to Cassandra: right after a failure rows there may \
             be ahead of the position",
        )
        .hint(
            "take delivery out of plugin.toml, then each route gives what its sink can; or write to Postgres; then \
             build it again",
        ));
    }
    let mut warnings: Vec<String> = short
        .iter()
        .map(|route| {
            format!(
                "it asks for delivery = \"exactly-once\", which Postgres gives, and topics where nothing else is \
                 written: a deployment has to bind route {route:?} to \"discard\""
            )
        })
        .collect();
    let topics = |route: &Route| matches!(route.target, Target::Kafka(_));
    if manifest.delivery == Some(Delivery::AtLeastOnce) && !manifest.routes.iter().any(topics) {
        warnings.push(
            "delivery = \"at-least-once\" changes nothing: every route gives more, and asking for less makes nothing \
             faster"
                .to_owned(),
        );
    }
    Ok(warnings)
}

/// Limits above a ceiling: name, what is asked for, the ceiling.
fn above(limits: &Limits, ceilings: &Ceilings) -> Vec<(&'static str, String, String)> {
    let mut above = Vec::new();
    let sizes = [
        ("memory", limits.memory, ceilings.memory),
        ("output_bytes", limits.output_bytes, ceilings.output_bytes),
    ];
    for (limit, asked, ceiling) in sizes {
        if asked > ceiling {
            above.push((limit, units::show_size(asked), units::show_size(ceiling)));
        }
    }
    if limits.run_time > ceilings.run_time {
        let show = units::show_duration;
        above.push(("run_time", show(limits.run_time), show(ceilings.run_time)));
    }
    let lines = limits.log_lines_per_second;
    let counts = [
        (
            "rows_per_record",
            limits.rows_per_record,
            ceilings.rows_per_record,
        ),
        ("log_lines_per_second", lines, ceilings.log_lines_per_second),
    ];
    for (limit, asked, ceiling) in counts {
        if asked > ceiling {
            above.push((limit, asked.to_string(), ceiling.to_string()));
        }
    }
    above
}
