//! A pipeline's bindings once the plugin's names are known: written ones are checked, missing ones filled
//! in where there is exactly one choice. Takes names only, so that it knows no manifest.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{Config, InputBinding, PipelineConfig, RouteBinding};
use crate::error::{Error, Result};
use crate::toml_check::names::did_you_mean;

/// What a route can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionKind {
    /// `[postgres.NAME]`.
    Postgres,
    /// `[cassandra.NAME]`.
    Cassandra,
    /// `[kafka.NAME]`.
    Kafka,
}

impl ConnectionKind {
    fn as_text(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Cassandra => "cassandra",
            Self::Kafka => "kafka",
        }
    }

    /// How a route of this kind is bound.
    fn example(self) -> &'static str {
        match self {
            Self::Postgres | Self::Cassandra => "{ connection = \"NAME\" }",
            Self::Kafka => "{ kafka = \"NAME\" }",
        }
    }
}

/// Every input and route of a plugin with what it is bound to, in index order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bindings {
    /// By input index.
    pub inputs: Vec<InputBinding>,
    /// By route index.
    pub routes: Vec<RouteBinding>,
}

/// Why an input or route is not bound.
#[derive(Debug)]
struct Wrong {
    why: String,
    /// The section of the host's config that would bind it, where there is none.
    lacks: Option<String>,
}

impl Config {
    /// Binds a plugin's inputs and routes, given by name in index order. What the pipeline does not bind
    /// goes to the only cluster or connection of its kind.
    ///
    /// # Errors
    /// Config: a binding for a name the plugin does not have, a connection of another kind, or no binding
    /// where none or several are to choose from; all of them in one error, a line each.
    pub fn bind(
        &self,
        pipeline: &PipelineConfig,
        inputs: &[&str],
        routes: &[(&str, ConnectionKind)],
    ) -> Result<Bindings> {
        let mut wrong = Vec::new();
        let route_names: Vec<&str> = routes.iter().map(|(name, _)| *name).collect();
        unused("input", &pipeline.inputs, inputs, &mut wrong);
        unused("route", &pipeline.routes, &route_names, &mut wrong);
        let mut bindings = Bindings {
            inputs: Vec::new(),
            routes: Vec::new(),
        };
        for name in inputs {
            match self.bind_input(pipeline, name) {
                Ok(binding) => bindings.inputs.push(binding),
                Err(why) => wrong.push(why),
            }
        }
        for (name, kind) in routes {
            match self.bind_route(pipeline, name, *kind) {
                Ok(binding) => bindings.routes.push(binding),
                Err(why) => wrong.push(why),
            }
        }
        if wrong.is_empty() {
            return Ok(bindings);
        }
        let what = format!("bind pipeline {:?}", pipeline.name);
        let detail: Vec<&str> = wrong.iter().map(|wrong| wrong.why.as_str()).collect();
        Err(Error::config(what, detail.join("\n")).hint(hint(&pipeline.name, &wrong)))
    }

    fn bind_input(&self, pipeline: &PipelineConfig, name: &str) -> Result<InputBinding, Wrong> {
        if let Some(binding) = pipeline.inputs.get(name) {
            return Ok(binding.clone());
        }
        let kafka = only(&self.kafka).ok_or_else(|| {
            unbound(
                "input",
                name,
                "kafka",
                self.kafka.keys(),
                "{ kafka = \"NAME\" }",
            )
        })?;
        Ok(InputBinding { kafka, topic: None })
    }

    fn bind_route(
        &self,
        pipeline: &PipelineConfig,
        name: &str,
        kind: ConnectionKind,
    ) -> Result<RouteBinding, Wrong> {
        let (exists, only): (&dyn Fn(&str) -> bool, _) = match kind {
            ConnectionKind::Postgres => (
                &|name| self.postgres.contains_key(name),
                only(&self.postgres),
            ),
            ConnectionKind::Cassandra => (
                &|name| self.cassandra.contains_key(name),
                only(&self.cassandra),
            ),
            ConnectionKind::Kafka => (&|name| self.kafka.contains_key(name), only(&self.kafka)),
        };
        let kind_text = kind.as_text();
        let topic = kind == ConnectionKind::Kafka;
        match pipeline.routes.get(name) {
            Some(RouteBinding::Discard) => Ok(RouteBinding::Discard),
            Some(
                binding @ (RouteBinding::Connection {
                    connection: bound, ..
                }
                | RouteBinding::Topic { kafka: bound, .. }),
            ) => {
                if topic != matches!(binding, RouteBinding::Topic { .. }) {
                    let example = kind.example();
                    let why = format!(
                        "route {name:?} writes to {kind_text}: write bind.route.{name} = {example}"
                    );
                    return Err(Wrong { why, lacks: None });
                }
                if !exists(bound) {
                    let section = format!("[{kind_text}.{bound}]");
                    return Err(Wrong {
                        why: format!(
                            "route {name:?} writes to {kind_text}, and there is no {section}"
                        ),
                        lacks: Some(section),
                    });
                }
                Ok(binding.clone())
            }
            None => match only {
                Some(kafka) if topic => Ok(RouteBinding::Topic { kafka, topic: None }),
                Some(connection) => Ok(RouteBinding::Connection {
                    connection,
                    table: None,
                }),
                None => {
                    let names: Vec<&String> = match kind {
                        ConnectionKind::Postgres => self.postgres.keys().collect(),
                        ConnectionKind::Cassandra => self.cassandra.keys().collect(),
                        ConnectionKind::Kafka => self.kafka.keys().collect(),
                    };
                    let write = kind.example();
                    Err(unbound("route", name, kind_text, names.into_iter(), write))
                }
            },
        }
    }
}

/// The only name, if there is exactly one.
fn only<T>(all: &BTreeMap<String, T>) -> Option<String> {
    let mut names = all.keys();
    let first = names.next()?;
    names.next().is_none().then(|| first.clone())
}

fn unbound<'n>(
    what: &str,
    name: &str,
    kind: &str,
    all: impl Iterator<Item = &'n String>,
    write: &str,
) -> Wrong {
    let all: Vec<&str> = all.map(String::as_str).collect();
    if all.is_empty() {
        let section = format!("[{kind}.NAME]");
        return Wrong {
            why: format!("{what} {name:?} is bound to nothing: there is no {section}"),
            lacks: Some(section),
        };
    }
    let all = all.join(", ");
    let why = format!(
        "{what} {name:?} is bound to nothing and there are several: write bind.{what}.{name} = {write}, one of {all}"
    );
    Wrong { why, lacks: None }
}

/// What to do, and who can: a connection is the operator's to add, a binding whoever deploys can correct.
fn hint(pipeline: &str, wrong: &[Wrong]) -> String {
    let lacking: BTreeSet<&str> = wrong
        .iter()
        .filter_map(|one| one.lacks.as_deref())
        .collect();
    let lacking: Vec<&str> = lacking.into_iter().collect();
    let add = format!(
        "add {} to the config of every host that runs the pipeline and restart it, or bind the route elsewhere or to \
         \"discard\"",
        lacking.join(" and ")
    );
    let correct = format!(
        "correct bind in [pipeline.{pipeline}] of the host's config, or in the overlay deployed with it"
    );
    let others = wrong.iter().any(|one| one.lacks.is_none());
    match (lacking.is_empty(), others) {
        (true, _) => correct,
        (false, false) => add,
        (false, true) => format!("{add}; {correct}"),
    }
}

fn unused<T>(what: &str, written: &BTreeMap<String, T>, there: &[&str], wrong: &mut Vec<Wrong>) {
    for name in written
        .keys()
        .filter(|name| !there.contains(&name.as_str()))
    {
        let hint = did_you_mean(name, there.iter().copied());
        let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
        wrong.push(Wrong {
            why: format!("the plugin has no {what} {name:?}{hint}"),
            lacks: None,
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::ConnectionKind::{Cassandra, Kafka, Postgres};
    use super::*;

    const CONFIG: &str = r#"
        [kafka.main]
        brokers = "localhost:9092"
        [postgres.main]
        url = "postgres://localhost/x"
        [postgres.spare]
        url = "postgres://localhost/y"
        [cassandra.ring]
        hosts = ["a"]
        keyspace = "k"
        [pipeline.p]
        file = "p.wasm"
        bind.route.quakes = { connection = "main", table = "geo.quakes" }
        bind.route.audit = "discard"
    "#;

    #[test]
    fn what_is_not_bound_goes_to_the_only_one() {
        let config = Config::check(CONFIG, &|_| None).unwrap();
        let routes = [
            ("quakes", Postgres),
            ("history", Cassandra),
            ("audit", Postgres),
        ];
        let bound = config
            .bind(&config.pipelines[0], &["quakes"], &routes)
            .unwrap();
        assert_eq!(
            bound.inputs,
            [InputBinding {
                kafka: "main".into(),
                topic: None
            }]
        );
        assert_eq!(
            bound.routes,
            [
                RouteBinding::Connection {
                    connection: "main".into(),
                    table: Some("geo.quakes".into())
                },
                RouteBinding::Connection {
                    connection: "ring".into(),
                    table: None
                },
                RouteBinding::Discard,
            ]
        );
    }

    #[test]
    fn a_topic_is_bound_by_its_cluster_and_only_so() {
        let more = r#"
            bind.route.alerts = { kafka = "main", topic = "prod.alerts" }
            bind.route.tables = { topic = "t" }
        "#;
        let config = Config::check(&format!("{CONFIG}\n{more}"), &|_| None).unwrap();
        let named = [("alerts", Kafka), ("tables", Kafka), ("left", Kafka)];
        let rest = [("quakes", Postgres), ("audit", Kafka)];
        let all = [&named[..], &rest].concat();
        let bound = config.bind(&config.pipelines[0], &[], &all).unwrap();
        let topic = |topic: Option<&str>| RouteBinding::Topic {
            kafka: "main".into(),
            topic: topic.map(str::to_owned),
        };
        let wanted = [topic(Some("prod.alerts")), topic(Some("t")), topic(None)];
        assert_eq!(bound.routes[..3], wanted);
        assert_eq!(bound.routes[4], RouteBinding::Discard);
        let crossed = [
            ("alerts", Postgres),
            ("quakes", Kafka),
            ("tables", Kafka),
            ("audit", Kafka),
        ];
        let error = config
            .bind(&config.pipelines[0], &[], &crossed)
            .unwrap_err();
        assert_eq!(
            error.detail().lines().collect::<Vec<_>>(),
            [
                "route \"alerts\" writes to postgres: write bind.route.alerts = { connection = \"NAME\" }",
                "route \"quakes\" writes to kafka: write bind.route.quakes = { kafka = \"NAME\" }",
            ]
        );
    }

    #[test]
    fn every_wrong_binding_is_named() {
        let config = Config::check(CONFIG, &|_| None).unwrap();
        let routes = [("quakes", Cassandra), ("audits", Postgres)];
        let error = config.bind(&config.pipelines[0], &[], &routes).unwrap_err();
        let lines: Vec<&str> = error.detail().lines().collect();
        assert_eq!(
            lines,
            [
                "the plugin has no route \"audit\"; did you mean \"audits\"?",
                "route \"quakes\" writes to cassandra, and there is no [cassandra.main]",
                "route \"audits\" is bound to nothing and there are several: write bind.route.audits = { connection = \"NAME\" }, one of main, spare",
            ]
        );
    }
    #[test]
    fn the_hint_is_for_whoever_can_mend_it() {
        let config = Config::check(CONFIG, &|_| None).unwrap();
        let hint = |routes: &[(&str, ConnectionKind)]| {
            let bare = Config::check(
                "[kafka.main]\nbrokers = \"a:1\"\n[pipeline.p]\nfile = \"p.wasm\"",
                &|_| None,
            );
            let bare = bare.unwrap();
            let error = bare
                .bind(&bare.pipelines[0], &["quakes"], routes)
                .unwrap_err();
            error.hint_text().unwrap().to_owned()
        };
        let alone = hint(&[
            ("quakes", Postgres),
            ("more", Postgres),
            ("by_day", Cassandra),
        ]);
        assert!(
            alone.starts_with(
                "add [cassandra.NAME] and [postgres.NAME] to the config of every host"
            ),
            "{alone}"
        );
        assert!(!alone.contains("correct"), "{alone}");
        let error = config
            .bind(
                &config.pipelines[0],
                &[],
                &[("quakes", Postgres), ("audits", Postgres)],
            )
            .unwrap_err();
        let hint = error.hint_text().unwrap();
        assert!(hint.starts_with("correct bind in [pipeline.p]"), "{hint}");
        let error = config
            .bind(
                &config.pipelines[0],
                &[],
                &[("quakes", Cassandra), ("audits", Postgres)],
            )
            .unwrap_err();
        let both = error.hint_text().unwrap();
        assert!(
            both.contains("add [cassandra.main]") && both.contains("correct bind"),
            "{both}"
        );
    }
}
