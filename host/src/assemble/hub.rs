//! [`Hub`]: what the parts of a host share, and looks at the surroundings of a pipeline: its topic, the live tables.
//! It starts and stops nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::jobs::Jobs;
use super::releases::{Loaded, Releases};
use super::retries::Retries;
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
/// How long a status waits for what the servers know, all pipelines and questions together.
const BRIEF: Duration = Duration::from_secs(2);
/// How old the ends of partitions may be before a status asks for them again.
const FRESH: Duration = Duration::from_secs(2);
/// Topics whose ends are asked for at once: they share a client, and one that gets no answer keeps a thread waiting.
const ASKED: usize = 8;

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
    pub(super) jobs: Jobs,
    // All short: a pipeline is entered once, a failure or an end now and then; no await crosses them.
    pipelines: Mutex<BTreeMap<String, Arc<Pipeline>>>,
    failures: Mutex<Vec<Error>>,
    ends: Mutex<BTreeMap<String, (Instant, Ends)>>,
    asking: Arc<Semaphore>,
    /// By the name of the database.
    retries: BTreeMap<String, Arc<Retries>>,
}

/// Low and high watermark of each partition.
pub(super) type Ends = Arc<[(i64, i64)]>;

/// What the servers said of a pipeline's partitions, where they did in time.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) ends: Option<Ends>,
    /// Dead letters that were retried, by partition.
    pub(super) redriven: Option<BTreeMap<i32, Redriven>>,
}

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
    /// The hub of a host that runs nothing yet and was started then. `jobs` are done by the control thread.
    pub(super) fn new(
        servers: Arc<Servers>,
        control: Control,
        releases: Releases,
        jobs: Jobs,
        started: Instant,
    ) -> Self {
        let retries = servers.config.postgres.iter();
        let retries =
            retries.map(|(name, database)| (name.clone(), Arc::new(Retries::new(database))));
        Self {
            retries: retries.collect(),
            shared_log: servers.config.control.is_some(),
            config: Arc::clone(&servers.config),
            servers,
            control,
            releases,
            started,
            published: AtomicBool::new(false),
            jobs,
            pipelines: Mutex::default(),
            failures: Mutex::default(),
            ends: Mutex::default(),
            asking: Arc::new(Semaphore::new(ASKED)),
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

    /// What pipelines wait for outside, one server an entry. No reason against being ready: lanes go on by themselves
    /// when the server is back, and a probe that failed meanwhile would only take the API, which says what is wrong,
    /// away from who has to mend it, and the host's neighbours depend on the same server.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, pipeline) in self.pipelines() {
            notes.extend(pipeline.counters.waiting().iter().map(|one| {
                let (server, seconds) = (&one.server, one.lasts.as_secs());
                format!(
                    "pipeline {name} waits for {server} since {seconds} s: {}",
                    one.error
                )
            }));
        }
        notes
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
        let looked = self
            .jobs
            .at_work("look at the live tables", PATIENCE, move || {
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

    /// What the servers know of a running pipeline. Pipelines are asked about at once: then a status takes no longer,
    /// however many there are and whoever does not answer.
    pub(super) async fn known(self: &Arc<Self>, pipeline: &Pipeline) -> Known {
        let Some(loaded) = pipeline.seen().loaded else {
            return Known::default();
        };
        let (ends, redriven) =
            futures_util::future::join(self.ends(&loaded), self.redriven(&loaded)).await;
        Known { ends, redriven }
    }

    /// The ends of partitions, as they were seconds ago at most; `None` where the broker does not tell.
    async fn ends(self: &Arc<Self>, loaded: &Arc<Loaded>) -> Option<Ends> {
        let name = &loaded.release.plan.pipeline;
        tokio::time::timeout(BRIEF, self.ask_ends(loaded))
            .await
            .ok();
        self.ends_since(name, PATIENCE)
    }

    fn ends_since(&self, pipeline: &str, oldest: Duration) -> Option<Ends> {
        let ends = self.ends.lock();
        let (at, ends) = ends.get(pipeline)?;
        (at.elapsed() < oldest).then(|| Arc::clone(ends))
    }

    /// Asks the broker, unless somebody just did. Goes on when nobody waits for it any more: the next one finds the
    /// answer.
    async fn ask_ends(self: &Arc<Self>, loaded: &Arc<Loaded>) {
        let is_fresh = || {
            let name = &loaded.release.plan.pipeline;
            self.ends_since(name, FRESH).is_some()
        };
        if is_fresh() {
            return;
        }
        let asking = Arc::clone(&self.asking).acquire_owned().await;
        let asking = asking.expect("the semaphore is never closed");
        if is_fresh() {
            return;
        }
        let world = World::new(loaded, &self.releases, &self.servers, MemoryAnchor::new());
        let (hub, name) = (Arc::clone(self), loaded.release.plan.pipeline.clone());
        let asked = task::blocking(move || {
            let _asking = asking;
            let ends: Ends = world.topic()?.watermarks.into();
            hub.ends.lock().insert(name, (Instant::now(), ends));
            Ok::<_, Error>(())
        });
        if let Err(error) | Ok(Err(error)) = asked.await {
            tracing::debug!(%error, "ends of partitions not known");
        }
    }

    /// How many dead letters were retried, by partition, as far as the database tells.
    async fn redriven(&self, loaded: &Loaded) -> Option<BTreeMap<i32, Redriven>> {
        let plan = &loaded.release.plan;
        let AnchorPlan::Postgres(database) = &plan.anchor else {
            // No other anchor can retry any.
            return Some(BTreeMap::new());
        };
        let of = (plan.pipeline.as_str(), plan.input.topic.as_str());
        let retries = self.retries.get(database)?;
        retries.of(&self.jobs, BRIEF, of).await
    }

    /// Letters were retried here: they are counted anew for the next who asks.
    pub(super) fn retried(&self) {
        self.retries.values().for_each(|retries| retries.forget());
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
