//! [`Hub`]: what the parts of a host share, and looks at the surroundings of a pipeline: its topic, the live tables.
//! It starts and stops nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::releases::{Loaded, Releases};
use super::seen::Pipeline;
use super::servers::Servers;
use super::world::World;
use crate::anchor::{MemoryAnchor, Redriven};
use crate::config::Config;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::pipeline::{AnchorPlan, Surroundings as _};
use crate::task;

/// How long a look at topics and tables may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a status waits for the counts of retried dead letters.
const BRIEF: Duration = Duration::from_secs(2);
/// How old the ends of partitions and the counts of retried dead letters may be that a status shows.
const FRESH: Duration = Duration::from_secs(2);

/// What the parts of a host share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) config: Arc<Config>,
    pub(super) control: Control,
    pub(super) releases: Releases,
    pub(super) servers: Arc<Servers>,
    pub(super) started: Instant,
    /// Whether other hosts see the control log.
    pub(super) shared_log: bool,
    /// The config's pipelines are in the control log.
    published: AtomicBool,
    /// Work for the control thread, whose runtime drives the connections of a look at live tables.
    jobs: mpsc::UnboundedSender<Job>,
    // All short: a pipeline is entered once, a failure or an end now and then; no await crosses them.
    pipelines: Mutex<BTreeMap<String, Arc<Pipeline>>>,
    failures: Mutex<Vec<Error>>,
    ends: Mutex<BTreeMap<String, (Instant, Ends)>>,
    redriven: Mutex<BTreeMap<String, (Instant, Option<AllRedriven>)>>,
}

/// Low and high watermark of each partition.
pub(super) type Ends = Arc<[(i64, i64)]>;
/// Dead letters of a pipeline that were retried, by partition.
pub(super) type AllRedriven = Arc<BTreeMap<i32, Redriven>>;
/// A future of the control thread.
pub(super) type Job = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// What a look at the surroundings of a release found.
#[derive(Debug)]
pub(super) struct Look {
    /// Partitions of its topic.
    pub(super) partitions: Result<i32>,
    /// What does not fit.
    pub(super) problems: Vec<Error>,
    /// What somebody should know of tables that fit: triggers, generated columns, further unique indexes.
    pub(super) notes: Vec<String>,
}

impl Hub {
    /// The hub of a host that runs nothing yet. `jobs` are done by the control thread.
    pub(super) fn new(
        servers: Arc<Servers>,
        control: Control,
        releases: Releases,
        jobs: mpsc::UnboundedSender<Job>,
    ) -> Self {
        Self {
            shared_log: servers.config.control.is_some(),
            config: Arc::clone(&servers.config),
            servers,
            control,
            releases,
            started: Instant::now(),
            published: AtomicBool::new(false),
            jobs,
            pipelines: Mutex::default(),
            failures: Mutex::default(),
            ends: Mutex::default(),
            redriven: Mutex::default(),
        }
    }

    /// A pipeline was started here.
    pub(super) fn entered(&self, name: &str, pipeline: Arc<Pipeline>) {
        self.pipelines.lock().insert(name.to_owned(), pipeline);
    }

    /// The config's pipelines are in the control log, or cannot be.
    pub(super) fn published(&self) {
        self.published.store(true, Ordering::Release);
    }

    /// Pipelines that were started here, by name.
    pub(super) fn pipelines(&self) -> BTreeMap<String, Arc<Pipeline>> {
        self.pipelines.lock().clone()
    }

    /// Why the host does not do its work yet; empty when it does.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(error) = self.control.lost() {
            reasons.push(format!(
                "the control log is gone, nothing can be deployed: {error}"
            ));
        }
        if !*self.control.caught_up().borrow() {
            reasons.push("the control log is not read to its end yet".to_owned());
        } else if !self.published.load(Ordering::Acquire) {
            reasons.push("the config's pipelines are not deployed yet".to_owned());
        }
        let running = self.pipelines();
        for (name, revision) in self.control.state().pipelines() {
            if revision.deployment.removed || revision.deployment.paused {
                continue;
            }
            let seen = running.get(name).map(|pipeline| pipeline.seen());
            let waits = seen.is_none_or(|seen| seen.loaded.is_none() && seen.failure.is_none());
            if waits {
                reasons.push(format!("pipeline {name} is starting"));
            }
        }
        reasons
    }

    /// Looks at the topic and the live tables of a release; changes nothing.
    pub(super) async fn look(self: &Arc<Self>, loaded: Arc<Loaded>) -> Look {
        let world = World::new(&loaded, &self.releases, &self.servers, MemoryAnchor::new());
        let world = Arc::new(world);
        let asked = Arc::clone(&world);
        let topic = task::blocking(move || asked.topic()).await;
        let partitions = topic
            .and_then(|topic| topic)
            .map(|topic| i32::try_from(topic.watermarks.len()).unwrap_or(i32::MAX));
        let looked = self.at_work("look at the live tables", PATIENCE, move || {
            async move { Ok(world.look(&loaded.release.plan).await) }.boxed_local()
        });
        let (problems, notes) = looked
            .await
            .unwrap_or_else(|error| (vec![error], Vec::new()));
        Look {
            partitions,
            problems,
            notes,
        }
    }

    /// Does something on the control thread, whose runtime drives the connections it opens. It goes on there when
    /// nobody waits for it any more.
    ///
    /// # Errors
    /// Its own; `Outside` when it takes longer than `patience`, or the host is stopping.
    pub(super) async fn at_work<T: Send + 'static>(
        &self,
        what: &'static str,
        patience: Duration,
        work: impl FnOnce() -> LocalBoxFuture<'static, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            async move {
                let late = || Error::outside(what, format!("no answer within {patience:?}"));
                let done = tokio::time::timeout(patience, work()).await;
                tell.send(done.unwrap_or_else(|_| Err(late()))).ok();
            }
            .boxed_local()
        });
        let ended = || Error::outside(what, "the host is stopping");
        self.jobs.send(job).map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }

    /// The ends of a running pipeline's partitions, at most a few seconds old; `None` where the broker does not
    /// tell.
    pub(super) async fn ends(self: &Arc<Self>, pipeline: &Pipeline) -> Option<Ends> {
        let name = pipeline.name.to_string();
        if let Some((at, ends)) = self.ends.lock().get(&name)
            && at.elapsed() < FRESH
        {
            return Some(Arc::clone(ends));
        }
        let loaded = pipeline.seen().loaded?;
        let world = World::new(&loaded, &self.releases, &self.servers, MemoryAnchor::new());
        let topic = task::blocking(move || world.topic());
        let topic = tokio::time::timeout(PATIENCE, topic)
            .await
            .ok()?
            .ok()?
            .ok()?;
        let ends: Ends = topic.watermarks.into();
        self.ends
            .lock()
            .insert(name, (Instant::now(), Arc::clone(&ends)));
        Some(ends)
    }

    /// How many dead letters of a running pipeline were retried, at most a few seconds old, or as they were known
    /// last where the database does not tell; `None` where they never were.
    pub(super) async fn redriven(self: &Arc<Self>, pipeline: &Pipeline) -> Option<AllRedriven> {
        let name = pipeline.name.to_string();
        let known = self.redriven.lock().get(&name).cloned();
        if let Some((at, known)) = &known
            && at.elapsed() < FRESH
        {
            return known.clone();
        }
        let loaded = pipeline.seen().loaded?;
        let counted = match loaded.release.plan.anchor {
            AnchorPlan::Postgres(_) => {
                let world = World::new(&loaded, &self.releases, &self.servers, MemoryAnchor::new());
                let ask = move || {
                    async move {
                        let letters = world.letters(&loaded.release.plan).await?;
                        letters.redriven().await
                    }
                    .boxed_local()
                };
                self.at_work("count retried dead letters", BRIEF, ask).await
            }
            // No other anchor can retry any.
            AnchorPlan::Cassandra(_) | AnchorPlan::Kafka(_) | AnchorPlan::Memory => {
                Ok(BTreeMap::new())
            }
        };
        let counted = match counted {
            Ok(counted) => Some(Arc::new(counted)),
            Err(_) => known.and_then(|(_, known)| known),
        };
        let now = (Instant::now(), counted.clone());
        self.redriven.lock().insert(name, now);
        counted
    }

    /// Letters of a pipeline were retried here: they are counted anew for the next who asks.
    pub(super) fn retried(&self, pipeline: &str) {
        self.redriven.lock().remove(pipeline);
    }

    /// Something ended that should not have.
    pub(super) fn failed(&self, error: Error) {
        self.failures.lock().push(error);
    }

    /// The first failure that ended something.
    pub(super) fn failure(&self) -> Option<Error> {
        if let Some(error) = self.failures.lock().first() {
            return Some(error.clone());
        }
        let pipelines = self.pipelines.lock();
        pipelines.values().find_map(|pipeline| pipeline.given_up())
    }
}
