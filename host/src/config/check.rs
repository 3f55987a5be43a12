//! `wasmill.toml` to [`Config`]: pure, text and [`Surroundings`] in, checked value or every problem out.
//! Values of unknown keys are starred out in every finding: one of them may be a misspelt `password`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::connections;
use super::control;
use super::http;
use super::pipelines;
use super::signing;
use super::types::{Ceilings, Config, HostConfig, PipelineConfig};
use crate::error::Error;
use crate::toml_check::{At, Problem, Problems, Report, Section, names};

/// Most shards of a host; more threads than this never pay.
const MAX_SHARDS: i64 = 1024;

/// What a config may refer to beside its own text.
#[derive(Clone)]
pub struct Surroundings<'a> {
    /// An environment variable's value.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The folder relative paths start from: the config file's.
    pub base: &'a Path,
    /// The machine's name, default of `host.id`.
    pub host_name: Option<String>,
    /// Cores, default of `host.shards`.
    pub cores: usize,
    /// Whether a Postgres database can be reached by a url: its adapter knows how one is written.
    pub postgres_url: UrlCheck,
}

/// What speaks against a url, told without any part of it: it may hold a password.
pub type UrlCheck = fn(&str) -> Result<(), Error>;

/// Takes any url.
pub(super) const ANY_URL: UrlCheck = |_| Ok(());

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("base", &self.base)
            .field("host_name", &self.host_name)
            .field("cores", &self.cores)
            .finish_non_exhaustive()
    }
}

impl Surroundings<'_> {
    /// A path as the config means it.
    pub(super) fn path(&self, written: &str) -> PathBuf {
        self.base.join(written)
    }
}

impl Config {
    /// Checks a config's text on a machine called `localhost` with one core; paths stay relative, any url is taken.
    /// [`Config::load`] is what a host uses.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        let around = Surroundings {
            env,
            base: Path::new(""),
            host_name: Some(String::from("localhost")),
            cores: 1,
            postgres_url: ANY_URL,
        };
        Self::check_in("wasmill.toml", text, &around)
    }

    /// Checks a config's text, shown as `name` in findings.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check_in(name: &str, text: &str, around: &Surroundings<'_>) -> Result<Self, Problems> {
        let report = Report::new(name, text).with_secrets();
        let config = checked(&report, text, around);
        if config.is_none() {
            report.add_if_clean("the file could not be checked");
        }
        let config = report.finish(config)?;
        Ok(config.expect("a missing value was reported, so finish returned an error"))
    }
}

impl Config {
    /// Checks the overlay of a deployment against this config's connections and ceilings, with the environment
    /// and folder of `around`. `plugin` is the version deployed, `name@version`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn overlay_in(
        &self,
        pipeline: &str,
        plugin: &str,
        text: &str,
        around: &Surroundings<'_>,
    ) -> Result<PipelineConfig, Problems> {
        let name = format!("overlay of {pipeline}");
        let report = Report::new(&name, text).with_secrets();
        let checked = report.parse().map(|table| {
            let root = Section::root(&report, table.get_ref());
            pipelines::read_overlay(root, around, self, pipeline, plugin, &plain(text))
        });
        if checked.is_none() {
            report.add_if_clean("the overlay could not be checked");
        }
        let checked = report.finish(checked)?;
        Ok(checked.expect("a missing value was reported, so finish returned an error"))
    }
}

/// The text as values, for sections that are kept as they were written; empty where it is no TOML, which is
/// reported elsewhere.
fn plain(text: &str) -> toml::Table {
    text.parse().unwrap_or_default()
}

fn checked(report: &Report<'_>, text: &str, around: &Surroundings<'_>) -> Option<Config> {
    let table = report.parse()?;
    let root = Section::root(report, table.get_ref());
    let host = host(&root, around);
    let ceilings = ceilings(&root);
    let kafka = connections::kafka(&root, around);
    let postgres = connections::postgres(&root, around);
    let cassandra = connections::cassandra(&root, around);
    let http = http::read(&root, around);
    let control = control::read(&root, &kafka);
    let mut config = Config {
        host,
        kafka,
        postgres,
        cassandra,
        pipelines: Vec::new(),
        ceilings,
        signing: signing::read(&root),
        http,
        control,
    };
    config.pipelines = pipelines::read(&root, around, &config, &plain(text));
    if let Some(entry) = root.entry("telemetry") {
        root.hide(&entry);
        report.add(
            Problem::at(
                entry.key.span,
                "[telemetry] is not available in this version",
            )
            .label("not available yet")
            .hint("remove it"),
        );
    }
    root.finish();
    Some(config)
}

fn host(root: &Section<'_>, around: &Surroundings<'_>) -> HostConfig {
    let section = root.section("host");
    let id = section
        .as_ref()
        .and_then(|host| host.name("id", names::HOST));
    let written = section.as_ref().is_some_and(|host| host.has("id"));
    let id = match (id, &around.host_name) {
        (Some(id), _) => id.value.to_owned(),
        (None, Some(name)) if names::HOST.fits(name) => name.clone(),
        (None, _) if written => String::new(),
        (None, name) => {
            let why = match name {
                Some(name) => format!("the machine's name {name:?} cannot be the host's id"),
                None => String::from("the machine has no name that could be the host's id"),
            };
            root.report().add(
                Problem::anywhere(why).hint("add id = \"NAME\" to [host], unique among your hosts"),
            );
            String::new()
        }
    };
    let shards = section
        .as_ref()
        .and_then(|host| host.integer("shards", 1..=MAX_SHARDS));
    let cache = section.as_ref().and_then(|host| host.text("cache"));
    if let Some(section) = section {
        section.finish();
    }
    HostConfig {
        id,
        shards: shards
            .and_then(|found| usize::try_from(found.value).ok())
            .unwrap_or_else(|| around.cores.max(1)),
        cache: cache.map_or_else(|| default_cache(around), |found| around.path(found.value)),
    }
}

/// `$XDG_CACHE_HOME/wasmill`, else `$HOME/.cache/wasmill`, else `.wasmill/cache` beside the config.
fn default_cache(around: &Surroundings<'_>) -> PathBuf {
    let set = |name: &str| {
        (around.env)(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(cache) = set("XDG_CACHE_HOME") {
        return cache.join("wasmill");
    }
    match set("HOME") {
        Some(home) => home.join(".cache").join("wasmill"),
        None => around.path(".wasmill/cache"),
    }
}

fn ceilings(root: &Section<'_>) -> Ceilings {
    let default = Ceilings::default();
    let Some(section) = root.section("ceilings") else {
        return default;
    };
    let memory = section.size("memory", 1 << 20..=4 << 30);
    let run_time = section.duration(
        "run_time",
        Duration::from_millis(10)..=Duration::from_mins(10),
    );
    let output = section.size("output_bytes", 1 << 10..=1 << 30);
    let rows = section.integer("rows_per_record", 1..=1_000_000);
    let lines = section.integer("log_lines_per_second", 0..=100_000);
    let count = |found: Option<At<i64>>| found.and_then(|found| u32::try_from(found.value).ok());
    section.finish();
    Ceilings {
        memory: memory.map_or(default.memory, |found| found.value),
        run_time: run_time.map_or(default.run_time, |found| found.value),
        output_bytes: output.map_or(default.output_bytes, |found| found.value),
        rows_per_record: count(rows).unwrap_or(default.rows_per_record),
        log_lines_per_second: count(lines).unwrap_or(default.log_lines_per_second),
    }
}
