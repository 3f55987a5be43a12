//! [`World`]: the adapters one pipeline is bound to, behind the contracts its lanes know.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::Semaphore;

use super::releases::{Loaded, Releases};
use super::servers::Servers;
use crate::admin::types::Raised;
use crate::anchor::{Anchor, DeadLetters, MemoryAnchor};
use crate::cassandra::{self, CassandraAnchor, CassandraSession, CassandraSink, Patience};
use crate::config::{CassandraConnection, Membership};
use crate::error::Error;
use crate::kafka::{
    self, AnchorTopics, Author, KafkaAnchor, KafkaAnchorSettings, KafkaLetters, KafkaRoute,
    KafkaSettings, KafkaSink, KafkaSinkSettings, KafkaSource, KafkaSourceSettings, Make, Ranges,
    Transactions,
};
use crate::manifest::{KafkaTopic, Target};
use crate::pipeline::{
    AnchorPlan, Binding, InputPlan, Plan, Release, RoutePlan, Surroundings, added,
};
use crate::postgres::{self, Durability, PostgresAnchor, PostgresRoute, TableName, TableReport};
use crate::record::Batch;
use crate::sink::AheadSink;
use crate::source::{Source, TopicInfo};
use crate::task;

/// How long a look at the topic may take for each answer.
const LOOK: Duration = Duration::from_secs(10);
/// KiB of records a source keeps fetched ahead of its lanes.
const QUEUED_KBYTES: u32 = 16 << 10;
/// Positions a pipeline stores at once in Cassandra.
const ADVANCES: usize = 16;

/// The adapters of one pipeline.
#[derive(Debug)]
pub(super) struct World {
    pipeline: String,
    input: InputPlan,
    headers: bool,
    releases: Releases,
    servers: Arc<Servers>,
    instance: String,
    membership: Membership,
    memory: MemoryAnchor,
    advances: Arc<Semaphore>,
    transactions: Transactions,
}

impl World {
    /// The world of a pipeline; the release tells which topic it reads and how the host joins its group.
    /// `memory` keeps the positions of a pipeline that writes nothing.
    pub(super) fn new(
        loaded: &Loaded,
        releases: &Releases,
        servers: &Arc<Servers>,
        memory: MemoryAnchor,
    ) -> Self {
        let plan = &loaded.release.plan;
        Self {
            pipeline: plan.pipeline.clone(),
            input: plan.input.clone(),
            // An earlier release may have to replay what it wrote ahead, and may have read them.
            headers: plan.input.input.needs_headers() || plan.writes_ahead(),
            instance: format!("{}/{}", plan.pipeline, servers.config.host.id),
            membership: loaded.pipeline.membership,
            releases: releases.clone(),
            servers: Arc::clone(servers),
            memory,
            advances: Arc::new(Semaphore::new(ADVANCES)),
            transactions: Transactions::default(),
        }
    }

    /// As it is, but for a source that hands over headers if any release needs them.
    pub(super) fn with_headers(mut self, needed: bool) -> Self {
        self.headers |= needed;
        self
    }

    /// Whether another release can take over without another source: same topic, same anchor, same way to join.
    pub(super) fn suits(&self, now: &Loaded, then: &Loaded) -> bool {
        let (from, to) = (&now.release.plan, &then.release.plan);
        from.anchor == to.anchor
            && self.input.topic == to.input.topic
            && self.input.kafka == to.input.kafka
            && self.membership == then.pipeline.membership
            && self.carries(to.input.input.needs_headers())
    }

    /// Whether the source hands over headers, or they are not needed.
    pub(super) fn carries(&self, headers: bool) -> bool {
        self.headers || !headers
    }

    fn kafka(&self) -> Result<KafkaSettings, Error> {
        let client = format!("wasmill/{}/{}", self.pipeline, self.servers.config.host.id);
        self.cluster(&self.input.kafka, &client)
    }

    /// A cluster as routes of all pipelines write to it.
    fn output(&self, name: &str) -> Result<KafkaSettings, Error> {
        self.cluster(name, &format!("wasmill/{}", self.servers.config.host.id))
    }

    fn cluster(&self, name: &str, client: &str) -> Result<KafkaSettings, Error> {
        let cluster = self.servers.config.kafka.get(name).ok_or_else(|| {
            Error::bug(
                "find a kafka cluster",
                "the plan names one the config lacks",
            )
        })?;
        Ok(KafkaSettings::new(cluster, client))
    }

    pub(super) fn session_timeout(&self) -> Result<Duration, Error> {
        Ok(self.kafka()?.session_timeout)
    }

    fn cassandra(&self, name: &str) -> Result<&CassandraConnection, Error> {
        self.servers.config.cassandra.get(name).ok_or_else(|| {
            Error::bug(
                "find a cassandra connection",
                "the plan names one the config lacks",
            )
        })
    }

    fn cassandra_table(
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

    pub(super) fn postgres(&self, plan: &Plan, name: &str) -> Result<postgres::Settings, Error> {
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
                settings.routes.push(PostgresRoute {
                    index,
                    name: bound.route.name.clone(),
                    columns: bound.route.columns.clone(),
                    table: TableName::parse(&table.table)?,
                    mode: table.mode,
                    key: table.key.clone(),
                    guard: table.guard,
                    deleted_at: table.deleted_at.clone(),
                    create: table.create,
                });
            }
        }
        Ok(settings)
    }

    /// A session as lanes use it: it gives up before the anchor's transaction is taken away for being idle, and before
    /// a successor claims.
    async fn lane_session(&self, name: &str) -> Result<CassandraSession, Error> {
        let mut patience = Patience::default();
        patience.budget = patience.budget.min(self.session_timeout()? * 3 / 5);
        CassandraSession::connect(self.cassandra(name)?, patience).await
    }

    pub(super) async fn cassandra_anchor(
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

    fn author(&self, plan: &Plan) -> Author {
        Author {
            pipeline: self.pipeline.clone(),
            input: self.input.topic.clone(),
            plugin: plan.plugin.clone(),
        }
    }

    fn kafka_anchor(&self, plan: &Plan) -> Result<KafkaAnchor, Error> {
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

    fn anchor_topics(&self) -> AnchorTopics {
        AnchorTopics::of(&self.pipeline, &self.input.topic)
    }

    /// The dead letters of the pipeline, where its release keeps them.
    ///
    /// # Errors
    /// `Config` for a pipeline that keeps none; else as the anchor is opened.
    pub(super) async fn letters(&self, plan: &Plan) -> Result<Box<dyn DeadLetters>, Error> {
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
    pub(super) async fn raise(&self, plan: &Plan, info: &TopicInfo) -> Result<Raised, Error> {
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

    /// Connections to a Cassandra cluster of the config.
    pub(super) async fn session(&self, name: &str) -> Result<CassandraSession, Error> {
        CassandraSession::connect(self.cassandra(name)?, Patience::default()).await
    }

    /// A reader of ranges of the topic.
    ///
    /// # Errors
    /// The client refuses its properties.
    pub(super) fn ranges(&self) -> Result<Ranges, Error> {
        Ranges::new(&self.kafka()?, &self.input.topic)
    }

    /// A reader of a topic that routes write to, with the start and end of each partition; blocks.
    ///
    /// # Errors
    /// `Outside` when the broker is not reached, `Config` when there is no such topic.
    pub(super) fn output_ranges(
        &self,
        cluster: &str,
        topic: &str,
    ) -> Result<(Ranges, Vec<(i64, i64)>), Error> {
        let found = self.servers.catalog(cluster)?.topic(topic, LOOK)?;
        let ranges = Ranges::new(&self.output(cluster)?, topic)?;
        Ok((ranges, found.watermarks))
    }

    /// A record of the topic as it lies there now; blocks.
    ///
    /// # Errors
    /// `Outside` when the broker is not reached.
    pub(super) fn record(&self, partition: i32, offset: i64) -> Result<Option<Batch>, Error> {
        kafka::record(&self.kafka()?, &self.input.topic, partition, offset)
    }

    /// Compares every table and topic of a release with what the live ones are; creates nothing. Returns what does not
    /// fit, and what somebody should know of those that do.
    pub(super) async fn look(&self, plan: &Plan) -> (Vec<Error>, Vec<String>) {
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
            let looked = async {
                match &bound.route.target {
                    Target::Cassandra(table) => {
                        let connection = self.cassandra(name)?;
                        let session =
                            CassandraSession::connect(connection, Patience::default()).await?;
                        let route = Self::cassandra_table(plan, index, connection)?;
                        let replicas = connection.create_keyspace;
                        cassandra::look_at_table(&session, &route, table.create, replicas).await
                    }
                    Target::Kafka(topic) => {
                        let settings = self.output(name)?;
                        kafka::ensure_topic(&settings, &bound.route.name, topic, Make::Later).await
                    }
                    Target::Postgres(_) => Ok(()),
                }
            };
            problems.extend(looked.await.err());
        }
        (problems, notes)
    }

    /// Creates or checks every table and topic of a release, before it runs.
    pub(super) async fn ensure(&self, plan: &Plan) -> Result<(), Error> {
        if let AnchorPlan::Postgres(name) = &plan.anchor {
            let tables = self.servers.tables(name)?;
            let reports = tables.ensure(&self.postgres(plan, name)?).await?;
            for note in told(&reports) {
                tracing::info!(pipeline = self.pipeline, note, "table");
            }
        }
        for (index, bound) in plan.routes.iter().enumerate() {
            let Some(name) = outside(plan, bound) else {
                continue;
            };
            match &bound.route.target {
                Target::Cassandra(table) => {
                    let connection = self.cassandra(name)?;
                    let session =
                        CassandraSession::connect(connection, Patience::default()).await?;
                    cassandra::ensure_keyspace(&session, connection.create_keyspace).await?;
                    let route = Self::cassandra_table(plan, index, connection)?;
                    cassandra::ensure_table(&session, &route, table.create).await?;
                }
                Target::Kafka(topic) => {
                    let settings = self.output(name)?;
                    kafka::ensure_topic(&settings, &bound.route.name, topic, Make::Allowed).await?;
                }
                Target::Postgres(_) => {}
            }
        }
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

fn kafka_route(bound: &RoutePlan, topic: &KafkaTopic) -> KafkaRoute {
    KafkaRoute {
        name: bound.route.name.clone(),
        columns: bound.route.columns.clone(),
        topic: topic.clone(),
    }
}

impl Surroundings for World {
    fn anchor<'a>(&'a self, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Rc<dyn Anchor>, Error>> {
        async move {
            let anchor: Rc<dyn Anchor> = match &plan.anchor {
                AnchorPlan::Postgres(name) => {
                    Rc::new(PostgresAnchor::new(self.postgres(plan, name)?)?)
                }
                AnchorPlan::Cassandra(name) => Rc::new(self.cassandra_anchor(plan, name).await?),
                AnchorPlan::Kafka(_) => Rc::new(self.kafka_anchor(plan)?),
                AnchorPlan::Memory => Rc::new(self.memory.clone()),
            };
            Ok(anchor)
        }
        .boxed_local()
    }

    fn ahead<'a>(
        &'a self,
        plan: &'a Plan,
        route: usize,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AheadSink>, Error>> {
        async move {
            let bound = &plan.routes[route];
            let Binding::Ahead(name) = &bound.binding else {
                return Err(Error::bug(
                    "open a sink",
                    "a route that is not written ahead",
                ));
            };
            if let Target::Kafka(topic) = &bound.route.target {
                let settings = KafkaSinkSettings {
                    cluster: name.clone(),
                    kafka: self.output(name)?,
                    route: kafka_route(bound, topic),
                    author: self.author(plan),
                    // Before the anchor's transaction is taken away for being idle, and before a successor claims.
                    patience: self.session_timeout()? / 2,
                };
                let sink: Box<dyn AheadSink> =
                    Box::new(KafkaSink::new(&self.servers.producers, &settings));
                return Ok(sink);
            }
            let session = self.lane_session(name).await?;
            let table = Self::cassandra_table(plan, route, self.cassandra(name)?)?;
            let sink: Box<dyn AheadSink> = Box::new(CassandraSink::open(&session, &table).await?);
            Ok(sink)
        }
        .boxed_local()
    }

    fn source(&self, topic_id: Option<String>) -> Result<Box<dyn Source>, Error> {
        let source = KafkaSource::new(KafkaSourceSettings {
            kafka: self.kafka()?,
            topic: self.input.topic.clone(),
            group: self.input.group.clone(),
            instance: self.instance.clone(),
            membership: self.membership,
            headers: self.headers,
            queued_kbytes: QUEUED_KBYTES,
        });
        Ok(Box::new(source.expect_topic(topic_id)))
    }

    fn topic(&self) -> Result<TopicInfo, Error> {
        let catalog = self.servers.catalog(&self.input.kafka)?;
        catalog.topic(&self.input.topic, LOOK)
    }

    fn release<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<Arc<Release>, Error>> {
        async move {
            let loaded = self.releases.earlier(&self.pipeline, id).await?;
            self.ensure(&loaded.release.plan).await?;
            Ok(Arc::clone(&loaded.release))
        }
        .boxed_local()
    }
}
