//! [`Plan`]: manifest and config of a pipeline together, checked against each other before anything runs.
//!
//! It says what is read, which route is bound to what, where the position is kept, and what is promised at each sink
//! and why; `explain` prints it. How the anchor is chosen and what follows from it is in `guarantee`. Pure: it opens
//! nothing.

use std::collections::BTreeSet;
use std::fmt;

use super::limits::limits;
use super::{delivery, guarantee, tables, topics};
use crate::config::{Config, ConnectionKind, InputBinding, PipelineConfig, RouteBinding};
use crate::error::Error;
use crate::manifest::{Delivery, Input, Limits, Manifest, Mode, Route, Target};

/// What will run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pipeline's name: its identity in anchors and groups.
    pub pipeline: String,
    /// `name@version` of the plugin.
    pub plugin: String,
    /// Digest of the component.
    pub digest: String,
    /// The input.
    pub input: InputPlan,
    /// Where positions are kept.
    pub anchor: AnchorPlan,
    /// Routes in index order.
    pub routes: Vec<RoutePlan>,
    /// What an instance may use, after config and ceilings.
    pub limits: Limits,
    /// What the plugin's author asks for, where anything.
    pub asks: Option<Delivery>,
}

/// The input of a plan.
#[derive(Clone, Debug)]
pub struct InputPlan {
    /// The manifest's input.
    pub input: Input,
    /// Name of the Kafka cluster.
    pub kafka: String,
    /// Topic, after binding.
    pub topic: String,
    /// Consumer group.
    pub group: String,
}

/// Where positions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnchorPlan {
    /// In the Postgres database of this name, in the transaction of the rows.
    Postgres(String),
    /// In the Cassandra keyspace of the connection of this name, by light-weight transaction.
    Cassandra(String),
    /// In a topic of the cluster of this name, which is the input's, in the transaction of the messages.
    Kafka(String),
    /// In memory: nothing is written anywhere.
    Memory,
}

/// A route and what it is bound to.
#[derive(Clone, Debug)]
pub struct RoutePlan {
    /// The manifest's route, its table replaced by the bound one.
    pub route: Route,
    /// What it is bound to.
    pub binding: Binding,
    /// What is promised there.
    pub guarantee: Guarantee,
    /// Why not more, or how.
    pub why: &'static str,
}

/// What a route is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A table of the anchor's database: rows travel in the flight.
    Here,
    /// Another sink, written ahead; the connection's name.
    Ahead(String),
    /// Counted, not written.
    Discard,
}

/// What is promised at a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Readers see every record's effect once, at every instant.
    ExactlyOnce,
    /// The same for readers of a topic that read what is committed (`isolation.level=read_committed`).
    ExactlyOnceCommitted,
    /// The sink ends as a failure-free run would have left it; right after a failure it may lag or lead.
    ConvergesExactlyOnce,
    /// Nothing is lost; after a failure a message may stand there again, with the same coordinates.
    AtLeastOnce,
    /// Nothing is written.
    Nothing,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "exactly once",
            Self::ExactlyOnceCommitted => "exactly once for read_committed readers",
            Self::ConvergesExactlyOnce => "converges to exactly once",
            Self::AtLeastOnce => "at least once",
            Self::Nothing => "discarded",
        })
    }
}

impl fmt::Display for AnchorPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(name) => write!(f, "postgres.{name}"),
            Self::Cassandra(name) => write!(f, "cassandra.{name}"),
            Self::Kafka(name) => write!(f, "kafka.{name}"),
            Self::Memory => f.write_str("memory (nothing survives a restart)"),
        }
    }
}

impl RoutePlan {
    /// The server it is written to, in the words of the config; `None` where that is the anchor's, or nothing is written.
    #[must_use]
    pub fn server(&self) -> Option<String> {
        let Binding::Ahead(name) = &self.binding else {
            return None;
        };
        let kind = match self.route.target {
            Target::Postgres(_) => "postgres",
            Target::Cassandra(_) => "cassandra",
            Target::Kafka(_) => "kafka",
        };
        Some(format!("{kind}.{name}"))
    }

    /// Says whose an error of writing the route is.
    pub(super) fn blame(&self, error: Error) -> Error {
        match self.server() {
            Some(server) => error.on(server),
            None => error,
        }
    }

    /// Key columns (indices) of the bound table or topic; empty where there is no key.
    #[must_use]
    pub fn key(&self) -> Vec<usize> {
        self.route.target.key()
    }

    /// Guard column (index).
    #[must_use]
    pub fn guard(&self) -> Option<usize> {
        match &self.route.target {
            Target::Postgres(table) => table.guard,
            Target::Cassandra(_) | Target::Kafka(_) => None,
        }
    }

    /// Whether rows are merged per key before they are written.
    #[must_use]
    pub fn merges(&self) -> bool {
        match &self.route.target {
            Target::Postgres(table) => table.mode == Mode::Upsert,
            Target::Cassandra(_) => true,
            // Every row is a message: what a reader sees must not depend on where a batch ends.
            Target::Kafka(_) => false,
        }
    }

    /// The bound table or topic.
    #[must_use]
    pub fn table(&self) -> &str {
        self.route.target.place()
    }

    /// `postgres`, `cassandra` or `kafka`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.route.target.kind()
    }
}

impl InputPlan {
    /// The cluster it is read from, in the words of the config.
    #[must_use]
    pub fn server(&self) -> String {
        format!("kafka.{}", self.kafka)
    }
}

impl Plan {
    /// The servers it depends on, in the words of the config, in order.
    #[must_use]
    pub fn servers(&self) -> BTreeSet<String> {
        let mut servers: BTreeSet<_> = self.routes.iter().filter_map(RoutePlan::server).collect();
        servers.insert(self.input.server());
        if self.anchor != AnchorPlan::Memory {
            servers.insert(self.anchor.to_string());
        }
        servers
    }

    /// Plans a pipeline.
    ///
    /// # Errors
    /// A `Config` error for anything that does not fit together: an unbound route or input, a capability that
    /// was asked for and not granted, limits past a ceiling, two Postgres databases, more than one input, a
    /// guarantee that cannot be kept.
    pub fn new(
        pipeline: &PipelineConfig,
        config: &Config,
        manifest: &Manifest,
        digest: String,
    ) -> Result<Self, Error> {
        let what = || format!("plan pipeline {:?}", pipeline.name);
        let inputs: Vec<&str> = manifest.inputs.iter().map(|i| i.name.as_str()).collect();
        let kinds: Vec<(&str, ConnectionKind)> = manifest
            .routes
            .iter()
            .map(|route| {
                let kind = match route.target {
                    Target::Postgres(_) => ConnectionKind::Postgres,
                    Target::Cassandra(_) => ConnectionKind::Cassandra,
                    Target::Kafka(_) => ConnectionKind::Kafka,
                };
                (route.name.as_str(), kind)
            })
            .collect();
        let bindings = config.bind(pipeline, &inputs, &kinds)?;
        let input = plan_input(pipeline, &bindings.inputs[0], manifest)?;
        let mut routes: Vec<_> = manifest
            .routes
            .iter()
            .zip(&bindings.routes)
            .map(|(route, bound)| plan_route(route, bound))
            .collect();
        let anchor = guarantee::anchor(&pipeline.name, &input, &routes)?;
        for (plan, _) in &mut routes {
            guarantee::promise(plan, &anchor);
        }
        let routes: Vec<RoutePlan> = routes.into_iter().map(|(plan, _)| plan).collect();
        topics::check(what(), config, &input, &routes)?;
        tables::check(what(), &routes)?;
        delivery::check(what(), manifest, &routes)?;
        check_grants(what(), pipeline, &input.input)?;
        Ok(Self {
            pipeline: pipeline.name.clone(),
            plugin: format!("{}@{}", manifest.name, manifest.version),
            digest,
            input,
            anchor,
            routes,
            limits: limits(pipeline, config, manifest)?,
            asks: manifest.delivery,
        })
    }

    /// The routes in index order with their bound tables.
    #[must_use]
    pub fn bound_routes(&self) -> Vec<Route> {
        self.routes.iter().map(|plan| plan.route.clone()).collect()
    }

    /// A route whose sink keeps the greatest write time of a key, and whose keys are said to stay in one
    /// partition.
    #[must_use]
    pub fn timed_route(&self) -> Option<&str> {
        self.routes
            .iter()
            .find(|plan| match (&plan.binding, &plan.route.target) {
                (Binding::Ahead(_), Target::Cassandra(table)) => !table.cross_partition_keys,
                _ => false,
            })
            .map(|plan| plan.route.name.as_str())
    }

    /// Whether some route is written ahead of the anchor's commit.
    #[must_use]
    pub fn writes_ahead(&self) -> bool {
        self.routes
            .iter()
            .any(|plan| matches!(plan.binding, Binding::Ahead(_)))
    }
}

fn plan_input(
    pipeline: &PipelineConfig,
    binding: &InputBinding,
    manifest: &Manifest,
) -> Result<InputPlan, Error> {
    let [input] = manifest.inputs.as_slice() else {
        return Err(Error::config(
            format!("plan pipeline {:?}", pipeline.name),
            format!(
                "plugin {:?} has {} inputs; a pipeline reads one in this version",
                manifest.name,
                manifest.inputs.len()
            ),
        )
        .hint("split the plugin, one input each"));
    };
    Ok(InputPlan {
        input: input.clone(),
        kafka: binding.kafka.clone(),
        topic: binding.topic.clone().unwrap_or_else(|| input.topic.clone()),
        group: format!("wasmill.{}", pipeline.name),
    })
}

/// A route with its bound table, and the connection it goes to (`None`: discarded).
fn plan_route(route: &Route, bound: &RouteBinding) -> (RoutePlan, Option<String>) {
    let mut route = route.clone();
    let (binding, connection) = match bound {
        RouteBinding::Discard => (Binding::Discard, None),
        RouteBinding::Connection { connection, table } => {
            if let Some(bound) = table {
                match &mut route.target {
                    Target::Postgres(table) => table.table.clone_from(bound),
                    Target::Cassandra(table) => table.table.clone_from(bound),
                    Target::Kafka(topic) => topic.topic.clone_from(bound),
                }
            }
            (Binding::Ahead(connection.clone()), Some(connection.clone()))
        }
        RouteBinding::Topic { kafka, topic } => {
            if let (Some(bound), Target::Kafka(topic)) = (topic, &mut route.target) {
                topic.topic.clone_from(bound);
            }
            (Binding::Ahead(kafka.clone()), Some(kafka.clone()))
        }
    };
    let plan = RoutePlan {
        route,
        binding,
        guarantee: Guarantee::Nothing,
        why: "the operator bound it to discard: rows are counted, not written",
    };
    (plan, connection)
}

/// Refuses what the plugin asks to see and the operator has not granted.
fn check_grants(what: String, pipeline: &PipelineConfig, input: &Input) -> Result<(), Error> {
    if !input.headers || pipeline.grants.iter().any(|grant| grant == "headers") {
        return Ok(());
    }
    let name = &pipeline.name;
    crate::telemetry::denied(name, "headers", &format!("pipeline.{name}.grants"));
    let detail = format!("input {:?} asks for headers", input.name);
    Err(Error::config(what, detail)
        .hint(format!("set grants = [\"headers\"] in [pipeline.{name}]")))
}
