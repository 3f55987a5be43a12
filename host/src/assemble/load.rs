//! From a component's file to a plugin that may run: compiled, described, its manifest checked against what
//! it says of itself, planned against the config.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, PipelineConfig};
use crate::error::Error;
use crate::manifest::{self, Manifest};
use crate::pipeline::{Plan, setup};
use crate::plugin::{Engine, GuestPlugin, LogLevel, PluginSettings};

/// A pipeline that could run: nothing was opened but its file.
#[derive(Debug)]
pub struct Loaded {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The checked manifest.
    pub manifest: Arc<Manifest>,
    /// The compiled plugin with its configuration.
    pub plugin: Arc<GuestPlugin>,
}

/// Loads one pipeline.
///
/// # Errors
/// `Config` for a file that cannot be read or a config that does not fit, `Plugin` for a component that is
/// none, has no manifest, or describes something else than its manifest.
pub fn load(config: &Config, pipeline: &PipelineConfig, engine: &Engine) -> Result<Loaded, Error> {
    let bytes = read(&pipeline.file, &pipeline.name)?;
    let cache = config.host.cache.join("compiled");
    let file = |error: Error| error.about(pipeline.file.display());
    let compiled = engine.load(&bytes, Some(&cache)).map_err(file)?;
    let embedded = manifest::extract(&bytes).map_err(file)?;
    let described = compiled.describe().map_err(file)?;
    if described != embedded.describe {
        return Err(Error::plugin(
            format!("load {}", pipeline.file.display()),
            "the component describes something else than the manifest embedded in it",
        )
        .hint("build it again with `wasmill plugin build`; do not edit a built component"));
    }
    let manifest = embedded.check().map_err(Error::from)?;
    let plan = Plan::new(
        pipeline,
        config,
        &manifest,
        manifest::digest(&bytes).to_string(),
    )?;
    let level = LogLevel::default();
    let mut settings = PluginSettings::of(
        &manifest,
        &pipeline.name,
        setup::encode(&pipeline.name, level.as_str(), &manifest, &pipeline.config)?,
    );
    settings.limits = plan.limits;
    settings.log_level = level;
    Ok(Loaded {
        plan: Arc::new(plan),
        manifest: Arc::new(manifest),
        plugin: compiled.into_plugin(settings),
    })
}

/// The plans of a config's pipelines, or of one of them; opens only their files.
///
/// # Errors
/// As [`load`], and for a pipeline the config does not have.
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
            let loaded = load(config, pipeline, &engine)?;
            Ok(Plan::clone(&loaded.plan))
        })
        .collect()
}

fn read(file: &Path, pipeline: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| {
        Error::config(
            format!("read the plugin of pipeline {pipeline:?}"),
            format!("{}: {error}", file.display()),
        )
        .hint("build it with `wasmill plugin build`, then name the .wasm in file = \"…\"")
    })
}
