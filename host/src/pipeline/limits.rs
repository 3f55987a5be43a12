//! What an instance of a plugin may use: what its manifest asks for, what the pipeline's section tightens, what the
//! host's ceilings allow. Pure.

use std::fmt::Debug;

use crate::config::{Ceilings, Config, PipelineConfig};
use crate::error::Error;
use crate::manifest::{Limits, Manifest};

/// The manifest's limits, tightened by the pipeline, within the ceilings.
///
/// # Errors
/// A limit that the pipeline would widen, or one past its ceiling.
pub(super) fn limits(
    pipeline: &PipelineConfig,
    config: &Config,
    manifest: &Manifest,
) -> Result<Limits, Error> {
    let what = || format!("plan pipeline {:?}", pipeline.name);
    let limits = tightened(what, pipeline, manifest.limits)?;
    let ceilings = &config.ceilings;
    let Some((limit, asked, ceiling)) = past(&limits, ceilings) else {
        return Ok(limits);
    };
    let detail = format!(
        "plugin {:?} asks for {limit} {asked}, the ceiling is {ceiling}",
        manifest.name
    );
    // What a pipeline cannot tighten, its author has to.
    let tighten = if matches!(limit, "memory" | "run_time") {
        format!("tighten limits.{limit} in [pipeline.{}]", pipeline.name)
    } else {
        format!("lower limits.{limit} in the plugin's manifest")
    };
    Err(Error::config(what(), detail).hint(format!("{tighten}, or raise {limit} in [ceilings]")))
}

/// The limits with what the pipeline's section says of them.
fn tightened(
    what: impl Fn() -> String,
    pipeline: &PipelineConfig,
    mut limits: Limits,
) -> Result<Limits, Error> {
    let wider = |detail: String| {
        Error::config(what(), detail).hint("a config may tighten a limit, never widen it")
    };
    if let Some(memory) = pipeline.memory {
        if memory > limits.memory {
            return Err(wider(format!(
                "limits.memory = {memory} is more than the plugin asks for ({})",
                limits.memory
            )));
        }
        limits.memory = memory;
        limits.recycle_after = limits.recycle_after.min(memory);
    }
    if let Some(run_time) = pipeline.run_time {
        if run_time > limits.run_time {
            return Err(wider(format!(
                "limits.run_time = {run_time:?} is more than the plugin asks for ({:?})",
                limits.run_time
            )));
        }
        limits.run_time = run_time;
    }
    Ok(limits)
}

/// The first limit past its ceiling: its name, what it is and what it may be.
fn past(limits: &Limits, ceilings: &Ceilings) -> Option<(&'static str, String, String)> {
    fn above<T: PartialOrd + Debug>(
        limit: &'static str,
        asked: T,
        ceiling: T,
    ) -> Option<(&'static str, String, String)> {
        (asked > ceiling).then(|| (limit, format!("{asked:?}"), format!("{ceiling:?}")))
    }
    let all = [
        above("memory", limits.memory, ceilings.memory),
        above("run_time", limits.run_time, ceilings.run_time),
        above("output_bytes", limits.output_bytes, ceilings.output_bytes),
        above(
            "rows_per_record",
            limits.rows_per_record,
            ceilings.rows_per_record,
        ),
        above(
            "log_lines_per_second",
            limits.log_lines_per_second,
            ceilings.log_lines_per_second,
        ),
    ];
    all.into_iter().flatten().next()
}
