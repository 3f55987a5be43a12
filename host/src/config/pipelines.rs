//! `[pipeline.NAME]`: which component runs, what it is bound to, what it may use. Whether a bound name
//! exists in the plugin is not known here: see [`super::bind`].

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Value;
use toml::de::DeValue;

use super::check::Surroundings;
use super::connections::from_env;
use super::types::{Config, InputBinding, Membership, PipelineConfig, PluginSource, RouteBinding};
use crate::toml_check::names::{self, did_you_mean};
use crate::toml_check::{At, Entry, Problem, Section, kind_of, units};

/// Capabilities an operator can grant.
const GRANTS: [&str; 1] = ["headers"];

/// All pipelines in name order. `config` holds everything but the pipelines; `table` is the whole file.
pub(super) fn read(
    root: &Section<'_>,
    around: &Surroundings<'_>,
    config: &Config,
    table: &toml::Table,
) -> Vec<PipelineConfig> {
    let all = root.sections("pipeline", names::PIPELINE);
    let read = all.into_iter().map(|(name, section)| {
        let plugin = source(&section, around);
        let written = table
            .get("pipeline")
            .and_then(|all| all.get(name.value)?.as_table());
        let overlay = written.map(overlay_text).unwrap_or_default();
        pipeline(name.value, section, around, config, plugin, overlay)
    });
    let mut pipelines: Vec<_> = read.collect();
    pipelines.sort_by(|a, b| a.name.cmp(&b.name));
    pipelines
}

/// A pipeline whose section is the whole text: the overlay of a deployment. `plugin` is what is deployed.
pub(super) fn read_overlay(
    root: Section<'_>,
    around: &Surroundings<'_>,
    config: &Config,
    name: &str,
    plugin: &str,
    table: &toml::Table,
) -> PipelineConfig {
    let plugin = PluginSource::Version(plugin.to_owned());
    pipeline(name, root, around, config, plugin, overlay_text(table))
}

/// A section without what says which component runs, keys in order.
fn overlay_text(section: &toml::Table) -> String {
    let mut section = section.clone();
    section.remove("file");
    section.remove("plugin");
    section.to_string()
}

/// `file = "…"` or `plugin = "name@version"`.
fn source(section: &Section<'_>, around: &Surroundings<'_>) -> PluginSource {
    let file = section.text("file");
    let plugin = section.text("plugin");
    match (file, plugin) {
        (Some(_), Some(plugin)) => {
            section.report().add(
                Problem::at(plugin.span, "both file and plugin are given")
                    .label("one too many")
                    .hint("keep file for a component beside this config, plugin for one that was uploaded"),
            );
            PluginSource::Version(plugin.value.to_owned())
        }
        (None, Some(plugin)) => {
            if !is_version(plugin.value) {
                section.report().add(
                    Problem::at(
                        plugin.span.clone(),
                        format!("{:?} is not a plugin version", plugin.value),
                    )
                    .label("not NAME@VERSION")
                    .hint("write it as `wasmill list` shows it, e.g. \"quakes@1.2.0\""),
                );
            }
            PluginSource::Version(plugin.value.to_owned())
        }
        (file, None) => {
            if !section.has("plugin") {
                section.need("file", "\"PLUGIN.wasm\"");
            }
            PluginSource::File(around.path(file.map_or("", |found| found.value)))
        }
    }
}

fn is_version(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, version)| {
        names::PLUGIN.fits(name) && semver::Version::parse(version).is_ok()
    })
}

fn pipeline(
    name: &str,
    section: Section<'_>,
    around: &Surroundings<'_>,
    config: &Config,
    plugin: PluginSource,
    overlay: String,
) -> PipelineConfig {
    let (inputs, routes) = bindings(&section, config);
    let (memory, run_time) = limits(&section, config);
    let membership = section.choice(
        "membership",
        &[
            ("static", Membership::Static),
            ("dynamic", Membership::Dynamic),
        ],
    );
    let grants = grants(&section);
    let values = values(&section, around);
    section.finish();
    PipelineConfig {
        name: name.to_owned(),
        plugin,
        overlay,
        inputs,
        routes,
        grants,
        memory,
        run_time,
        config: values,
        membership: membership.map_or(Membership::Static, |found| found.value),
    }
}

fn grants(section: &Section<'_>) -> Vec<String> {
    let grants = section.texts("grants");
    for grant in grants.iter().filter(|grant| !GRANTS.contains(&grant.value)) {
        section.report().add(
            Problem::at(
                grant.span.clone(),
                format!("grant {:?} is not known", grant.value),
            )
            .label("not a capability")
            .maybe_hint(did_you_mean(grant.value, GRANTS)),
        );
    }
    grants
        .into_iter()
        .map(|grant| grant.value.to_owned())
        .collect()
}

fn limits(section: &Section<'_>, config: &Config) -> (Option<u64>, Option<Duration>) {
    let Some(limits) = section.section("limits") else {
        return (None, None);
    };
    let memory = limits.size("memory", 1 << 20..=4 << 30);
    let run_time = limits.duration(
        "run_time",
        Duration::from_millis(10)..=Duration::from_mins(10),
    );
    let above = |key: &str, span, ceiling: String| {
        limits.report().add(
            Problem::at(span, format!("{key} is above the host's ceiling"))
                .label("more than any plugin may have")
                .hint(format!(
                    "at most {ceiling}; raise {key} in [ceilings] if the host can spare it"
                )),
        );
    };
    if let Some(memory) = memory
        .as_ref()
        .filter(|found| found.value > config.ceilings.memory)
    {
        above(
            "memory",
            memory.span.clone(),
            units::show_size(config.ceilings.memory),
        );
    }
    if let Some(time) = run_time
        .as_ref()
        .filter(|found| found.value > config.ceilings.run_time)
    {
        above(
            "run_time",
            time.span.clone(),
            units::show_duration(config.ceilings.run_time),
        );
    }
    limits.finish();
    (
        memory.map(|found| found.value),
        run_time.map(|found| found.value),
    )
}

type Bindings = (
    BTreeMap<String, InputBinding>,
    BTreeMap<String, RouteBinding>,
);

fn bindings(section: &Section<'_>, config: &Config) -> Bindings {
    let Some(bind) = section.section("bind") else {
        return Bindings::default();
    };
    let inputs = bind.sections("input", names::INPUT);
    let inputs = inputs
        .into_iter()
        .map(|(name, section)| (name.value.to_owned(), input(section, config)));
    let inputs = inputs.collect();
    let mut routes = BTreeMap::new();
    if let Some(section) = bind.section("route") {
        for entry in section.entries() {
            section.fits(&entry.key, names::ROUTE);
            if let Some(binding) = route(&section, &entry, config) {
                routes.insert(entry.key.value.to_owned(), binding);
            }
        }
    }
    bind.finish();
    (inputs, routes)
}

/// A topic of a cluster: what an input reads, what a route to Kafka writes.
fn input(section: Section<'_>, config: &Config) -> InputBinding {
    let kafka = section.text("kafka");
    let topic = section.name("topic", names::TOPIC);
    let clusters = || config.kafka.keys().map(String::as_str);
    let name = match &kafka {
        Some(kafka) => {
            exists(&section, "kafka cluster", kafka, clusters());
            kafka.value.to_owned()
        }
        None if config.kafka.len() == 1 => clusters().collect(),
        None => {
            if !section.has("kafka") {
                which(&section, "kafka", clusters());
            }
            String::new()
        }
    };
    section.finish();
    InputBinding {
        kafka: name,
        topic: topic.map(|topic| topic.value.to_owned()),
    }
}

fn route(parent: &Section<'_>, entry: &Entry<'_>, config: &Config) -> Option<RouteBinding> {
    if let DeValue::String(word) = entry.value.value {
        if word.as_ref() == "discard" {
            return Some(RouteBinding::Discard);
        }
        parent.report().add(
            Problem::at(
                entry.value.span.clone(),
                format!("a route cannot be bound to {word:?}"),
            )
            .label("not a binding")
            .hint("write \"discard\", { connection = \"NAME\", table = \"TABLE\" } or { kafka = \"NAME\", topic = \"TOPIC\" }"),
        );
        return None;
    }
    let section = parent.open(entry)?;
    if section.has("kafka") || section.has("topic") {
        let InputBinding { kafka, topic } = input(section, config);
        return Some(RouteBinding::Topic { kafka, topic });
    }
    section.knows(&["kafka", "topic"]);
    let connection = section.text("connection");
    let table = section.name("table", names::ANY_TABLE);
    // One name may stand for a database of each kind; the route's sink decides which is meant.
    let mut all: Vec<&str> = config
        .postgres
        .keys()
        .chain(config.cassandra.keys())
        .map(String::as_str)
        .collect();
    all.sort_unstable();
    all.dedup();
    let name = match (&connection, all.as_slice()) {
        (Some(connection), _) => {
            exists(&section, "connection", connection, all.iter().copied());
            connection.value
        }
        (None, [only]) => only,
        (None, _) => {
            if !section.has("connection") {
                which(&section, "connection", all.iter().copied());
            }
            ""
        }
    };
    section.finish();
    Some(RouteBinding::Connection {
        connection: name.to_owned(),
        table: table.map(|table| table.value.to_owned()),
    })
}

/// Reports a name that nothing has.
fn exists<'n>(
    section: &Section<'_>,
    what: &str,
    name: &At<&str>,
    all: impl Iterator<Item = &'n str>,
) {
    let all: Vec<_> = all.collect();
    if !all.contains(&name.value) {
        let hint = did_you_mean(name.value, all.iter().copied());
        section.report().add(
            Problem::at(
                name.span.clone(),
                format!("there is no {what} {:?}", name.value),
            )
            .label("not in this file")
            .maybe_hint(hint.or_else(|| Some(format!("add a section for the {what}")))),
        );
    }
}

/// Reports a choice left open.
fn which<'n>(section: &Section<'_>, key: &str, all: impl Iterator<Item = &'n str>) {
    let all: Vec<_> = all.collect();
    let hint = if all.is_empty() {
        format!("there is none in this file to take: add one, and {key} = \"NAME\" here")
    } else {
        format!("add {key} = \"NAME\", one of {}", all.join(", "))
    };
    let shown = section.shown();
    let problem = section.problem(format!("key \"{key}\" is missing from {shown}"));
    section.report().add(problem.hint(hint));
}

/// Values of the plugin's configuration; `{ env = "VARIABLE" }` takes one from the environment. They may be
/// secret, so none is ever shown.
fn values(section: &Section<'_>, around: &Surroundings<'_>) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let Some(config) = section.section("config") else {
        return all;
    };
    for entry in config.entries() {
        // A table holds the name of a variable, which is no secret.
        if !matches!(entry.value.value, DeValue::Table(_)) {
            config.hide(&entry);
        }
        config.fits(&entry.key, names::CONFIG);
        if let Some(value) = value(&config, &entry, around) {
            all.insert(entry.key.value.to_owned(), value);
        }
    }
    all
}

fn value(config: &Section<'_>, entry: &Entry<'_>, around: &Surroundings<'_>) -> Option<Value> {
    let read = match entry.value.value {
        DeValue::String(text) => Some(Value::String(text.as_ref().to_owned())),
        DeValue::Boolean(flag) => Some(Value::Boolean(*flag)),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.ok().map(Value::Integer)
        }
        DeValue::Float(number) => number.as_str().parse().ok().map(Value::Float),
        DeValue::Table(_) => {
            let section = config.open(entry)?;
            section.need("env", "\"VARIABLE\"");
            let variable = section.text("env");
            let value = variable.and_then(|name| from_env(&section, &name, around));
            section.finish();
            return value.map(Value::String);
        }
        DeValue::Array(_) | DeValue::Datetime(_) => None,
    };
    if read.is_none() {
        let (name, kind) = (entry.key.value, kind_of(entry.value.value));
        config.report().add(
            Problem::at(entry.value.span.clone(), format!("config value {name:?} cannot be this {}", &kind[2..].trim_start()))
                .label("not a value a plugin can take")
                .hint("write true, false, an integer of 64 bits, a float, a string or { env = \"VARIABLE\" }"),
        );
    }
    read
}
