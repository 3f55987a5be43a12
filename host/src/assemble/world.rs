//! [`World`]: the adapters one pipeline is bound to, behind the contracts its lanes know.
//!
//! How it reaches its servers and what its lanes are given is here; what holds its positions is in `anchors`, the tables
//! and topics it writes are looked at in `targets`.

mod anchors;
mod targets;

pub(super) use anchors::postgres_route;
pub(super) use targets::look_outside;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::Semaphore;

use super::releases::{Loaded, Releases};
use super::servers::Servers;
use crate::anchor::{Anchor, MemoryAnchor};
use crate::cassandra::{CassandraSession, CassandraSink, Patience};
use crate::config::{CassandraConnection, Membership};
use crate::error::Error;
use crate::kafka::{
    self, KafkaRoute, KafkaSettings, KafkaSink, KafkaSinkSettings, KafkaSource,
    KafkaSourceSettings, Ranges, Transactions,
};
use crate::manifest::{KafkaTopic, Target};
use crate::pipeline::{AnchorPlan, Binding, InputPlan, Plan, Release, RoutePlan, Surroundings};
use crate::postgres::PostgresAnchor;
use crate::record::Batch;
use crate::sink::AheadSink;
use crate::source::{Source, TopicInfo};

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
    /// Where positions are, whatever release is in force.
    anchor: AnchorPlan,
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
            anchor: plan.anchor.clone(),
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

    /// A session as lanes use it: it gives up before the anchor's transaction is taken away for being idle, and before
    /// a successor claims.
    async fn lane_session(&self, name: &str) -> Result<CassandraSession, Error> {
        let mut patience = Patience::default();
        patience.budget = patience.budget.min(self.session_timeout()? * 3 / 5);
        CassandraSession::connect(self.cassandra(name)?, patience).await
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
            mark: self.anchor.to_string(),
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

    fn committed(&self) -> Result<BTreeMap<i32, i64>, Error> {
        if self.anchor == AnchorPlan::Memory {
            return Ok(BTreeMap::new());
        }
        let InputPlan { group, topic, .. } = &self.input;
        let catalog = self.servers.catalog(&self.input.kafka)?;
        catalog.committed(group, topic, &self.anchor.to_string(), LOOK)
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
