//! The plans of a config's pipelines, for people: `explain` and the demo. It runs and opens nothing but files.

use super::releases;
use crate::config::Config;
use crate::error::Error;
use crate::pipeline::Plan;
use crate::plugin::Engine;

/// The plans of a config's pipelines, or of one of them; opens only their files.
///
/// # Errors
/// Whatever is wrong with a file or its manifest, and for a pipeline the config does not have.
pub fn plans(config: &Config, only: Option<&str>) -> Result<Vec<Plan>, Error> {
    let engine = Engine::new(crate::plugin::EngineOptions::default())?;
    let wanted: Vec<_> = config
        .pipelines
        .iter()
        .filter(|pipeline| only.is_none_or(|name| name == pipeline.name))
        .collect();
    if wanted.is_empty() {
        let known: Vec<_> = config.pipelines.iter().map(|p| p.name.as_str()).collect();
        return Err(Error::config(
            match only {
                Some(name) => format!("find pipeline {name:?}"),
                None => "find a pipeline".to_owned(),
            },
            if known.is_empty() {
                "the config has none".to_owned()
            } else {
                format!("the config has: {}", known.join(", "))
            },
        )
        .hint("add a [pipeline.NAME] section"));
    }
    wanted
        .into_iter()
        .map(|pipeline| {
            let Some((release, bytes)) = releases::declared(pipeline)? else {
                return Err(Error::config(
                    format!("plan pipeline {:?}", pipeline.name),
                    "its plugin is a version that was uploaded; only its hosts have it",
                )
                .hint("ask a host: `wasmill status`"));
            };
            let (manifest, _) = releases::checked(&engine, config, &bytes)
                .map_err(|error| error.about(&release.plugin))?;
            Plan::new(pipeline, config, &manifest, release.digest)
        })
        .collect()
}
