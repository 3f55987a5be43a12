//! The tables and topics that a release writes: compared with what is live, created where that is allowed.

use std::sync::Arc;

use super::{LOOK, World};
use crate::cassandra::{self, CassandraAnchor, CassandraSession, Patience};
use crate::config::{CassandraConnection, Config};
use crate::error::Error;
use crate::kafka::{self, KafkaSettings, Make};
use crate::manifest::Target;
use crate::pipeline::{AnchorPlan, Binding, Plan, RoutePlan};
use crate::postgres::TableReport;
use crate::task;

impl World {
    pub(super) fn cassandra_table(
        plan: &Plan,
        route: usize,
        connection: &CassandraConnection,
    ) -> Result<cassandra::RouteTable, Error> {
        let bound = &plan.routes[route].route;
        let Target::Cassandra(declared) = &bound.target else {
            return Err(Error::bug(
                "open a sink",
                "a route written ahead that is not Cassandra's",
            ));
        };
        cassandra::RouteTable::new(
            &bound.name,
            &bound.columns,
            declared,
            None,
            &connection.keyspace,
        )
    }

    /// Compares every table and topic of a release with what the live ones are; creates nothing. Returns what does not
    /// fit, and what somebody should know of those that do.
    pub(in crate::assemble) async fn look(&self, plan: &Plan) -> (Vec<Error>, Vec<String>) {
        let mut problems = Vec::new();
        let mut notes = Vec::new();
        if let AnchorPlan::Postgres(name) = &plan.anchor {
            let looked = async {
                let tables = self.servers.tables(name)?;
                tables.look(&self.postgres(plan, name)?).await
            };
            match looked.await {
                Ok(reports) => notes.extend(told(&reports)),
                Err(error) => problems.push(error),
            }
        }
        for (index, bound) in plan.routes.iter().enumerate() {
            let Some(name) = outside(plan, bound) else {
                continue;
            };
            let looked = look_outside(&self.servers.config, plan, index, name).await;
            problems.extend(looked.err());
        }
        (problems, notes)
    }

    /// Creates or checks every table and topic of a release, before it runs.
    pub(in crate::assemble) async fn ensure(&self, plan: &Plan) -> Result<(), Error> {
        if let AnchorPlan::Postgres(name) = &plan.anchor {
            let tables = self.servers.tables(name)?;
            let reports = tables.ensure(&self.postgres(plan, name)?).await;
            let reports = reports.map_err(|error| error.on(&plan.anchor))?;
            for note in told(&reports) {
                tracing::info!(pipeline = self.pipeline, note, "table");
            }
        }
        for (index, bound) in plan.routes.iter().enumerate() {
            let Some(name) = outside(plan, bound) else {
                continue;
            };
            let server = bound.server().unwrap_or_else(|| plan.anchor.to_string());
            let ensured = self.ensure_target(plan, index, name).await;
            ensured.map_err(|error| error.on(server))?;
        }
        let ensured = self.ensure_anchor(plan).await;
        ensured.map_err(|error| error.on(&plan.anchor))
    }

    /// The table or topic of one route outside the anchor's Postgres, on the connection `name`.
    async fn ensure_target(&self, plan: &Plan, index: usize, name: &str) -> Result<(), Error> {
        let bound = &plan.routes[index].route;
        match &bound.target {
            Target::Cassandra(table) => {
                let connection = self.cassandra(name)?;
                let session = CassandraSession::connect(connection, Patience::default()).await?;
                cassandra::ensure_keyspace(&session, connection.create_keyspace).await?;
                let route = Self::cassandra_table(plan, index, connection)?;
                cassandra::ensure_table(&session, &route, table.create).await
            }
            Target::Kafka(topic) => {
                let settings = self.output(name)?;
                kafka::ensure_topic(&settings, &bound.name, topic, Make::Allowed).await
            }
            Target::Postgres(_) => Ok(()),
        }
    }

    /// What an anchor outside Postgres keeps its positions in.
    async fn ensure_anchor(&self, plan: &Plan) -> Result<(), Error> {
        if let AnchorPlan::Cassandra(name) = &plan.anchor {
            let session =
                CassandraSession::connect(self.cassandra(name)?, Patience::default()).await?;
            CassandraAnchor::create_tables(&session).await?;
        }
        if let AnchorPlan::Kafka(_) = &plan.anchor {
            let (catalog, topic) = (Arc::clone(&self.servers), self.input.clone());
            let asked = task::blocking(move || {
                let catalog = catalog.catalog(&topic.kafka)?;
                catalog.topic(&topic.topic, LOOK)
            });
            let partitions = asked.await??.watermarks.len();
            let topics = self.anchor_topics();
            topics.ensure(&self.kafka()?, partitions).await?;
        }
        Ok(())
    }
}

/// Compares the Cassandra table or the topic of a route, on the connection of this name, with what is live; creates
/// nothing. Those in Postgres are looked at otherwise.
///
/// # Errors
/// `Config` when it does not fit, `Outside` when nobody answers.
pub(in crate::assemble) async fn look_outside(
    config: &Config,
    plan: &Plan,
    index: usize,
    name: &str,
) -> Result<(), Error> {
    let missing = || Error::bug("find a sink", "the plan names one the config lacks");
    let bound = &plan.routes[index];
    match &bound.route.target {
        Target::Cassandra(table) => {
            let connection = config.cassandra.get(name).ok_or_else(missing)?;
            let session = CassandraSession::connect(connection, Patience::default()).await?;
            let route = World::cassandra_table(plan, index, connection)?;
            let replicas = connection.create_keyspace;
            cassandra::look_at_table(&session, &route, table.create, replicas).await
        }
        Target::Kafka(topic) => {
            let cluster = config.kafka.get(name).ok_or_else(missing)?;
            let settings = KafkaSettings::new(cluster, &format!("wasmill/{}", config.host.id));
            kafka::ensure_topic(&settings, &bound.route.name, topic, Make::Later).await
        }
        Target::Postgres(_) => Ok(()),
    }
}

/// What the looks at tables found and nobody has to change, each with its route and table.
fn told(reports: &[TableReport]) -> Vec<String> {
    let notes = |report: &TableReport| {
        let (route, table) = (report.route.clone(), report.table.clone());
        let tell = move |note: &String| format!("route {route}, table {table}: {note}");
        report.notes.iter().map(tell).collect::<Vec<_>>()
    };
    reports.iter().flat_map(notes).collect()
}

/// The connection of a route whose table or topic is looked at one by one; those of the anchor's Postgres are looked
/// at together.
fn outside<'a>(plan: &'a Plan, bound: &'a RoutePlan) -> Option<&'a str> {
    match (&bound.binding, &plan.anchor) {
        (Binding::Ahead(name), _) | (Binding::Here, AnchorPlan::Kafka(name)) => Some(name),
        _ => None,
    }
}
