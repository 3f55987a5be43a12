//! The plan of a pipeline: manifest and config together, checked against each other before anything runs.
//! It says which route is bound to what, which database is the anchor, and what is guaranteed at each sink
//! and why; `explain` prints it. Pure: it opens nothing.

use std::fmt;

use super::{delivery, tables, topics};
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

impl Plan {
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
        let anchor = choose_anchor(&pipeline.name, &input, &routes)?;
        for (plan, _) in &mut routes {
            guarantee(plan, &anchor);
        }
        let routes: Vec<RoutePlan> = routes.into_iter().map(|(plan, _)| plan).collect();
        topics::check(what(), config, &input, &routes)?;
        tables::check(what(), &routes)?;
        if let Some(route) = delivery::short(manifest, &routes) {
            let (promise, then) = match route.guarantee {
                Guarantee::AtLeastOnce => ("is at least once", "may come again"),
                _ => ("converges to exactly once", "may be ahead of the position"),
            };
            let detail = format!(
                "plugin {:?} asks for delivery = \"exactly-once\", and route {:?} {promise}: right after a failure \
                 its rows {then}",
                manifest.name, route.route.name
            );
            return Err(Error::config(what(), detail).hint(
                "bind the route to \"discard\", or take delivery out of plugin.toml and build the plugin again: then \
                 each route gives what its sink can",
            ));
        }
        if input.input.headers && !pipeline.grants.iter().any(|grant| grant == "headers") {
            crate::telemetry::denied(
                &pipeline.name,
                "headers",
                &format!("pipeline.{}.grants", pipeline.name),
            );
            return Err(Error::config(
                what(),
                format!("input {:?} asks for headers", input.input.name),
            )
            .hint(format!(
                "set grants = [\"headers\"] in [pipeline.{}]",
                pipeline.name
            )));
        }
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

/// Postgres where a route goes there, else Cassandra, else Kafka, else memory.
fn choose_anchor(
    pipeline: &str,
    input: &InputPlan,
    routes: &[(RoutePlan, Option<String>)],
) -> Result<AnchorPlan, Error> {
    let bound = |kind: &'static str| {
        routes.iter().filter_map(move |(plan, connection)| {
            connection.as_ref().filter(|_| plan.kind() == kind)
        })
    };
    let what = || format!("plan pipeline {pipeline:?}");
    if let Some(name) = bound("postgres").next() {
        return match bound("postgres").find(|other| *other != name) {
            None => Ok(AnchorPlan::Postgres(name.clone())),
            Some(other) => {
                let detail = format!("routes go to two Postgres databases, {name:?} and {other:?}");
                Err(Error::config(what(), detail)
                    .hint("one pipeline commits in one database: split it in two pipelines"))
            }
        };
    }
    let Some(name) = bound("cassandra").next() else {
        // By its name: another name for the same brokers may have other rights there.
        if let Some(other) = bound("kafka").find(|name| **name != input.kafka) {
            let detail = format!(
                "it writes to Kafka only, and to cluster {other:?}, while its input is on {:?}: no transaction holds \
                 both, and no database is there that could hold the position",
                input.kafka
            );
            return Err(Error::config(what(), detail).hint(
                "bind the route to the input's cluster, or write a table too, in Postgres or Cassandra: then its \
                 messages are at least once",
            ));
        }
        if bound("kafka").next().is_some() {
            topics::check_names(what(), pipeline, &input.topic)?;
            return Ok(AnchorPlan::Kafka(input.kafka.clone()));
        }
        return Ok(AnchorPlan::Memory);
    };
    match bound("cassandra").find(|other| *other != name) {
        None => Ok(AnchorPlan::Cassandra(name.clone())),
        Some(other) => {
            let detail = format!(
                "routes go to two Cassandra connections, {name:?} and {other:?}, and none to Postgres that could \
                 hold the position"
            );
            Err(Error::config(what(), detail).hint("split it in two pipelines"))
        }
    }
}

/// What holds at the route's sink, given the anchor.
fn guarantee(plan: &mut RoutePlan, anchor: &AnchorPlan) {
    if plan.binding == Binding::Discard {
        return;
    }
    match (&plan.route.target, anchor) {
        (Target::Postgres(_), _) => {
            plan.binding = Binding::Here;
            plan.guarantee = Guarantee::ExactlyOnce;
            plan.why = "rows, dead letters and the position commit in one transaction";
        }
        (Target::Kafka(_), AnchorPlan::Kafka(_)) => {
            plan.binding = Binding::Here;
            plan.guarantee = Guarantee::ExactlyOnceCommitted;
            plan.why = "messages, dead letters and the position commit in one transaction of Kafka; others see what is not committed, too";
        }
        (Target::Kafka(_), _) => {
            plan.guarantee = Guarantee::AtLeastOnce;
            plan.why = "written ahead and acknowledged; the position commits after, so a message may come again, with the same wasmill-coordinates header to drop it by";
        }
        (Target::Cassandra(table), _) if table.cross_partition_keys => {
            plan.guarantee = Guarantee::ConvergesExactlyOnce;
            plan.why = "written ahead with timestamps that are a function of the record; cross_partition_keys: of rows of one key from several partitions the one with the later timestamp stays, whichever was read last";
        }
        (Target::Cassandra(_), AnchorPlan::Postgres(_)) => {
            plan.guarantee = Guarantee::ConvergesExactlyOnce;
            plan.why = "written ahead with timestamps that are a function of the record; the position commits after, in Postgres";
        }
        (Target::Cassandra(_), _) => {
            plan.guarantee = Guarantee::ConvergesExactlyOnce;
            plan.why = "written ahead with timestamps that are a function of the record; the position follows by light-weight transaction";
        }
    }
}

/// The manifest's limits, tightened by the pipeline, within the ceilings.
fn limits(
    pipeline: &PipelineConfig,
    config: &Config,
    manifest: &Manifest,
) -> Result<Limits, Error> {
    let what = || format!("plan pipeline {:?}", pipeline.name);
    let mut limits = manifest.limits;
    if let Some(memory) = pipeline.memory {
        if memory > limits.memory {
            return Err(Error::config(
                what(),
                format!(
                    "limits.memory = {memory} is more than the plugin asks for ({})",
                    limits.memory
                ),
            )
            .hint("a config may tighten a limit, never widen it"));
        }
        limits.memory = memory;
        limits.recycle_after = limits.recycle_after.min(memory);
    }
    if let Some(run_time) = pipeline.run_time {
        if run_time > limits.run_time {
            return Err(Error::config(
                what(),
                format!(
                    "limits.run_time = {run_time:?} is more than the plugin asks for ({:?})",
                    limits.run_time
                ),
            )
            .hint("a config may tighten a limit, never widen it"));
        }
        limits.run_time = run_time;
    }
    let past = |limit: &str, asked: String, ceiling: String| {
        // What a pipeline cannot tighten, its author has to.
        let tighten = if matches!(limit, "memory" | "run_time") {
            format!("tighten limits.{limit} in [pipeline.{}]", pipeline.name)
        } else {
            format!("lower limits.{limit} in the plugin's manifest")
        };
        Error::config(
            what(),
            format!(
                "plugin {:?} asks for {limit} {asked}, the ceiling is {ceiling}",
                manifest.name
            ),
        )
        .hint(format!("{tighten}, or raise {limit} in [ceilings]"))
    };
    let ceilings = &config.ceilings;
    if limits.memory > ceilings.memory {
        return Err(past(
            "memory",
            limits.memory.to_string(),
            ceilings.memory.to_string(),
        ));
    }
    if limits.run_time > ceilings.run_time {
        return Err(past(
            "run_time",
            format!("{:?}", limits.run_time),
            format!("{:?}", ceilings.run_time),
        ));
    }
    if limits.output_bytes > ceilings.output_bytes {
        return Err(past(
            "output_bytes",
            limits.output_bytes.to_string(),
            ceilings.output_bytes.to_string(),
        ));
    }
    for (limit, asked, ceiling) in [
        (
            "rows_per_record",
            limits.rows_per_record,
            ceilings.rows_per_record,
        ),
        (
            "log_lines_per_second",
            limits.log_lines_per_second,
            ceilings.log_lines_per_second,
        ),
    ] {
        if asked > ceiling {
            return Err(past(limit, asked.to_string(), ceiling.to_string()));
        }
    }
    Ok(limits)
}
