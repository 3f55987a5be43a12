//! Where a pipeline's positions and dead letters are: its anchor opened for a release, and what is done to positions by
//! hand.

use std::sync::Arc;

use super::{World, kafka_route};
use crate::admin::types::Raised;
use crate::anchor::{Anchor as _, DeadLetters};
use crate::cassandra::{self, CassandraAnchor};
use crate::error::Error;
use crate::kafka::{AnchorTopics, Author, KafkaAnchor, KafkaAnchorSettings, KafkaLetters};
use crate::manifest::{PostgresTable, Target};
use crate::pipeline::{AnchorPlan, Binding, Plan, RoutePlan, added};
use crate::postgres::{self, Durability, PostgresAnchor, PostgresRoute, TableName};
use crate::source::TopicInfo;

impl World {
    pub(in crate::assemble) fn postgres(
        &self,
        plan: &Plan,
        name: &str,
    ) -> Result<postgres::Settings, Error> {
        let connection = self.servers.config.postgres.get(name).ok_or_else(|| {
            Error::bug(
                "find a postgres connection",
                "the plan names one the config lacks",
            )
        })?;
        let mut settings =
            postgres::Settings::new(connection.url.clone(), &self.pipeline, &self.input.topic);
        // A stopped host lets go of its rows before its successor, a session time-out later, claims them.
        let idle = self.session_timeout()? * 4 / 5;
        settings.timeouts.idle_in_transaction = settings.timeouts.idle_in_transaction.min(idle);
        settings.plugin.clone_from(&plan.plugin);
        settings.digest.clone_from(&plan.digest);
        if plan.writes_ahead() {
            settings.durability = Durability::Disk;
        }
        for (index, bound) in plan.routes.iter().enumerate() {
            if let (Binding::Here, Target::Postgres(table)) = (&bound.binding, &bound.route.target)
            {
                settings.routes.push(postgres_route(index, bound, table)?);
            }
        }
        Ok(settings)
    }

    pub(in crate::assemble) async fn cassandra_anchor(
        &self,
        plan: &Plan,
        name: &str,
    ) -> Result<CassandraAnchor, Error> {
        let session = self.lane_session(name).await?;
        let settings = cassandra::AnchorSettings {
            pipeline: self.pipeline.clone(),
            topic: self.input.topic.clone(),
            plugin: plan.plugin.clone(),
            digest: plan.digest.clone(),
            advances: Arc::clone(&self.advances),
        };
        CassandraAnchor::open(&session, settings).await
    }

    pub(super) fn author(&self, plan: &Plan) -> Author {
        Author {
            pipeline: self.pipeline.clone(),
            input: self.input.topic.clone(),
            plugin: plan.plugin.clone(),
        }
    }

    pub(super) fn kafka_anchor(&self, plan: &Plan) -> Result<KafkaAnchor, Error> {
        let routes = plan.routes.iter().enumerate();
        let routes =
            routes.filter_map(
                |(index, bound)| match (&bound.binding, &bound.route.target) {
                    (Binding::Here, Target::Kafka(topic)) => {
                        Some((index, kafka_route(bound, topic)))
                    }
                    _ => None,
                },
            );
        let settings = KafkaAnchorSettings {
            kafka: self.kafka()?,
            author: self.author(plan),
            digest: plan.digest.clone(),
            routes: routes.collect(),
        };
        Ok(KafkaAnchor::new(settings, &self.transactions))
    }

    pub(super) fn anchor_topics(&self) -> AnchorTopics {
        AnchorTopics::of(&self.pipeline, &self.input.topic)
    }

    /// The dead letters of the pipeline, where its release keeps them.
    ///
    /// # Errors
    /// `Config` for a pipeline that keeps none; else as the anchor is opened.
    pub(in crate::assemble) async fn letters(
        &self,
        plan: &Plan,
    ) -> Result<Box<dyn DeadLetters>, Error> {
        Ok(match &plan.anchor {
            AnchorPlan::Postgres(name) => {
                let settings = self.postgres(plan, name)?;
                self.servers.tables(name)?.ensure_schema(&settings).await?;
                Box::new(PostgresAnchor::new(settings)?)
            }
            AnchorPlan::Cassandra(name) => Box::new(self.cassandra_anchor(plan, name).await?),
            AnchorPlan::Kafka(name) => Box::new(KafkaLetters::new(
                &self.servers.producers,
                name,
                self.output(name)?,
                self.anchor_topics(),
            )),
            AnchorPlan::Memory => {
                let what = format!("find dead letters of pipeline {:?}", self.pipeline);
                let detail = "it writes nowhere: its dead letters are counted and not kept";
                return Err(Error::config(what, detail)
                    .hint("bind a route to a database, then they are kept there"));
            }
        })
    }

    /// Lifts the write times of the pipeline's partitions to the greatest, and stores positions for those the topic
    /// gained.
    ///
    /// # Errors
    /// `Config` for a pipeline without stored positions, and for a loss; else as the anchor fails.
    pub(in crate::assemble) async fn raise(
        &self,
        plan: &Plan,
        info: &TopicInfo,
    ) -> Result<Raised, Error> {
        let topic = &self.input.topic;
        if plan.timed_route().is_none() {
            let what = format!("raise write times of pipeline {:?}", self.pipeline);
            let detail = "no route of it writes to Cassandra with times that are ordered within one partition";
            return Err(Error::config(what, detail)
                .hint("there is nothing to raise: `wasmill resume` reads new partitions from 0"));
        }
        let (stored, added, write_time) = match &plan.anchor {
            AnchorPlan::Postgres(name) => {
                let anchor = PostgresAnchor::new(self.postgres(plan, name)?)?;
                let stored = anchor.stored().await?;
                let added = added(topic, &stored, info)?;
                let write_time = anchor.raise(&added).await?;
                (stored, added, write_time)
            }
            AnchorPlan::Cassandra(name) => {
                let anchor = self.cassandra_anchor(plan, name).await?;
                let stored = anchor.stored().await?;
                let added = added(topic, &stored, info)?;
                let write_time = anchor.raise(&added).await?;
                (stored, added, write_time)
            }
            AnchorPlan::Kafka(_) | AnchorPlan::Memory => {
                let what = format!("raise write times of pipeline {:?}", self.pipeline);
                return Err(Error::config(
                    what,
                    "it writes to no table, so no write time orders anything",
                )
                .hint("there is nothing to raise"));
            }
        };
        let count = |positions: usize| u32::try_from(positions).unwrap_or(u32::MAX);
        Ok(Raised {
            partitions: count(stored.len() + added.len()),
            added: count(added.len()),
            write_time,
        })
    }
}

/// A route to a table of the anchor's Postgres, as the adapter takes it.
///
/// # Errors
/// `Config` for a table that cannot be named so.
pub(in crate::assemble) fn postgres_route(
    index: usize,
    bound: &RoutePlan,
    table: &PostgresTable,
) -> Result<PostgresRoute, Error> {
    Ok(PostgresRoute {
        index,
        name: bound.route.name.clone(),
        columns: bound.route.columns.clone(),
        table: TableName::parse(&table.table)?,
        mode: table.mode,
        key: table.key.clone(),
        guard: table.guard,
        deleted_at: table.deleted_at.clone(),
        create: table.create,
    })
}
