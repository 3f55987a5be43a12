//! [`Host`]: every pipeline that is deployed, running until it is told to stop.
//!
//! One control thread with a current-thread runtime follows the control log and supervises; shards compute; each
//! pipeline's source has a thread of its own. A pipeline that has to stop leaves the others running.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::canaries;
use super::log;
use super::operate::Desk;
use super::publish::{self, Declared};
use super::releases::{Loaded, Releases};
use super::running::{Actor, Pipeline, Shared};
use super::world::World;
use crate::admin;
use crate::anchor::MemoryAnchor;
use crate::clock::Backoff;
use crate::config::Config;
use crate::control::{BlobStore, Change, Control, Revision};
use crate::error::{Blame, Error, Result};
use crate::pipeline::{SegmentStart, Shards, Surroundings as _, Totals};
use crate::plugin::{Engine, EngineOptions};
use crate::task;
use crate::upload::{CheckLimits, Checker};

/// Longest drain, as promised by `wasmill run`. Lanes end earlier; a consumer whose broker is gone does not: it
/// waits for the end of its session.
const DRAIN: Duration = Duration::from_secs(25);
/// A second signal during the drain aborts with this status, as shells report SIGINT.
const ABORTED: i32 = 130;
/// How long a look at topics and tables may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How old the ends of partitions may be that a status shows.
const FRESH: Duration = Duration::from_secs(2);

/// What the parts of a host share.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) config: Arc<Config>,
    pub(super) control: Control,
    pub(super) releases: Releases,
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
}

/// Low and high watermark of each partition.
type Ends = Arc<[(i64, i64)]>;
/// A future of the control thread.
type Job = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// What a look at the surroundings of a release found.
#[derive(Debug)]
pub(super) struct Look {
    /// Partitions of its topic.
    pub(super) partitions: Result<i32>,
    /// What does not fit.
    pub(super) problems: Vec<Error>,
}

impl Hub {
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
        let world = World::new(&loaded, &self.releases, &self.config, MemoryAnchor::new());
        let world = Arc::new(world);
        let asked = Arc::clone(&world);
        let topic = task::blocking(move || asked.topic()).await;
        let partitions = topic
            .and_then(|topic| topic)
            .map(|topic| i32::try_from(topic.watermarks.len()).unwrap_or(i32::MAX));
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            async move {
                let looked = world.look(&loaded.release.plan);
                let problems = match tokio::time::timeout(PATIENCE, looked).await {
                    Ok(problems) => problems,
                    Err(_) => vec![Error::outside(
                        "look at the live tables",
                        format!("no answer within {PATIENCE:?}"),
                    )],
                };
                tell.send(problems).ok();
            }
            .boxed_local()
        });
        let ended = || {
            vec![Error::outside(
                "look at the live tables",
                "the host is stopping",
            )]
        };
        let problems = match self.jobs.send(job) {
            Ok(()) => told.await.unwrap_or_else(|_| ended()),
            Err(_) => ended(),
        };
        Look {
            partitions,
            problems,
        }
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
        let world = World::new(&loaded, &self.releases, &self.config, MemoryAnchor::new());
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

    fn failed(&self, error: Error) {
        self.failures.lock().push(error);
    }

    /// The first failure that ended something.
    fn failure(&self) -> Option<Error> {
        if let Some(error) = self.failures.lock().first() {
            return Some(error.clone());
        }
        let pipelines = self.pipelines.lock();
        pipelines.values().find_map(|pipeline| pipeline.given_up())
    }
}

/// A running host.
#[derive(Debug)]
pub struct Host {
    thread: Option<task::Thread<()>>,
    stop: watch::Sender<bool>,
    hub: Arc<Hub>,
    /// Ends with the host.
    http: Option<admin::Server>,
}

impl Host {
    /// Loads every pipeline of the config that names a file, then starts whatever is deployed. Returns when all
    /// are planned; whatever is outside (brokers, databases) is waited for as long as it takes.
    ///
    /// # Errors
    /// Whatever is wrong with the config or a plugin, before anything runs.
    pub fn start(config: &Config) -> Result<Self> {
        Self::start_with(config, None)
    }

    /// As [`Host::start`]; `checker` is the program that checks uploads in a process of its own, `wasmill` itself.
    /// Without one they are checked in this process, without its limits.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn start_with(config: &Config, checker: Option<PathBuf>) -> Result<Self> {
        let config = Arc::new(config.clone());
        let engine = Engine::new(EngineOptions::default())?;
        let stays = config.http.is_some() || config.control.is_some();
        if config.pipelines.is_empty() && !stays {
            return Err(Error::config("start a host", "the config has no pipeline")
                .hint("add a [pipeline.NAME] section, or [http] to deploy by upload"));
        }
        let declared = publish::declared(&config)?;
        let store = BlobStore::open(config.host.cache.join("plugins"))?;
        for (release, bytes) in declared
            .iter()
            .filter_map(|declared| declared.file.as_ref())
        {
            store.put(&release.digest, bytes)?;
        }
        let log = log::open(&config, &store)?;
        let identity = log.identity().unwrap_or_default();
        let control = Control::open(log, store, config.host.id.clone())?;
        let releases = Releases::new(Arc::clone(&config), engine.clone(), control.clone());
        // Held until the pipelines hold them: nothing is compiled or checked twice.
        let mut loaded = Vec::new();
        for declared in &declared {
            if let Some((release, _)) = &declared.file {
                releases.trust(release);
                loaded.push(releases.load_here(&declared.pipeline, release)?);
            }
        }
        let shards = Shards::start(config.host.shards)?;
        let (stop, stopped) = watch::channel(false);
        let (segments, begun) = mpsc::unbounded_channel();
        let (jobs, asked) = mpsc::unbounded_channel();
        let hub = Arc::new(Hub {
            shared_log: config.control.is_some(),
            config: Arc::clone(&config),
            control,
            releases: releases.clone(),
            started: Instant::now(),
            published: AtomicBool::new(false),
            jobs,
            pipelines: Mutex::default(),
            failures: Mutex::default(),
            ends: Mutex::default(),
        });
        let shared = Shared {
            config: Arc::clone(&config),
            releases,
            shards,
            log: identity,
            segments,
            stays,
        };
        let http = match &config.http {
            Some(http) => {
                let checker = Checker {
                    exe: checker,
                    limits: CheckLimits {
                        component: http.limits.upload,
                        ..CheckLimits::default()
                    },
                    cache: Some(config.host.cache.join("compiled")),
                    ceilings: config.ceilings,
                    signing: config.signing.clone(),
                };
                let desk = Arc::new(Desk::new(Arc::clone(&hub), checker));
                Some(admin::serve(
                    http,
                    &config.host.cache.join("uploads"),
                    desk,
                )?)
            }
            None => None,
        };
        let seen = Arc::clone(&hub);
        let thread = task::thread("control", move || {
            let work = Work {
                declared,
                begun,
                asked,
                loaded,
            };
            let run = || control_thread(&seen, shared, work, stopped);
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                seen.failed(Error::bug(
                    "follow the control log",
                    "the control thread panicked",
                ));
            }
        })?;
        Ok(Self {
            thread: Some(thread),
            stop,
            hub,
            http,
        })
    }

    /// Where the HTTP API listens, if it does.
    #[must_use]
    pub fn http_addr(&self) -> Option<std::net::SocketAddr> {
        self.http.as_ref().map(admin::Server::addr)
    }

    /// Committed numbers by pipeline.
    #[must_use]
    pub fn totals(&self) -> Vec<(String, Totals)> {
        let all = self.hub.pipelines();
        all.into_iter()
            .map(|(name, pipeline)| (name, pipeline.counters.totals()))
            .collect()
    }

    /// The first failure that ended something, if there was one.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.hub.failure()
    }

    /// Drains every pipeline and waits for the end.
    ///
    /// # Errors
    /// The first failure of a pipeline.
    pub fn stop(mut self) -> Result<()> {
        self.stop.send_replace(true);
        self.join()
    }

    /// Runs until SIGTERM or SIGINT (then drains) or until every pipeline has stopped by itself. A second
    /// signal ends the process at once, which is always safe.
    ///
    /// # Errors
    /// The first failure of a pipeline.
    pub fn run_until_signal(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::outside("start a runtime", error))?;
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let listen =
                |kind| signal(kind).map_err(|error| Error::outside("listen for signals", error));
            let mut terminate = listen(SignalKind::terminate())?;
            let mut interrupt = listen(SignalKind::interrupt())?;
            let mut asked: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = tokio::time::sleep(Duration::from_millis(50)) => {
                        if self.has_ended() {
                            break;
                        }
                        if asked.is_some_and(|asked| asked.elapsed() > DRAIN) {
                            tracing::warn!("not everything ended in time: going anyway, nothing is lost");
                            break;
                        }
                        continue;
                    }
                }
                if asked.is_some() {
                    tracing::warn!("second signal: ending at once, nothing is lost");
                    std::process::exit(ABORTED);
                }
                asked = Some(Instant::now());
                tracing::info!("draining");
                self.stop.send_replace(true);
            }
            if let Some(asked) = asked {
                tracing::info!(seconds = asked.elapsed().as_secs_f64(), "drained");
            }
            Ok::<(), Error>(())
        })?;
        self.failure().map_or(Ok(()), Err)
    }

    /// Whether every pipeline has ended. A host that has not may be left behind with the process, never dropped:
    /// dropping it waits.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(task::Thread::is_finished)
    }

    fn join(&mut self) -> Result<()> {
        if let Some(thread) = self.thread.take() {
            thread.join()?;
        }
        if let Some(http) = self.http.take() {
            http.stop()?;
        }
        self.failure().map_or(Ok(()), Err)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// What the control thread has to do beside following.
struct Work {
    declared: Vec<Declared>,
    begun: mpsc::UnboundedReceiver<(Arc<str>, SegmentStart)>,
    asked: mpsc::UnboundedReceiver<Job>,
    /// Given up when the config's pipelines are deployed.
    loaded: Vec<Arc<Loaded>>,
}

/// The control thread: follows the control log and supervises all pipelines to their end.
fn control_thread(hub: &Arc<Hub>, shared: Shared, work: Work, stop: watch::Receiver<bool>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            hub.failed(Error::outside("start the control runtime", error));
            return;
        }
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut actors: Vec<task::LocalTask<()>> = Vec::new();
        let history = task::local(keep_history(Arc::clone(hub), work.begun));
        let publishing = {
            let (hub, stop) = (Arc::clone(hub), stop.clone());
            task::local(async move {
                publish_all(hub, work.declared, stop).await;
                drop(work.loaded);
            })
        };
        tokio::select! {
            () = follow(hub, &shared, &mut actors, &publishing, stop) => {}
            () = canaries::watch(Arc::clone(hub)) => {}
            () = answer(work.asked) => {}
        }
        drop(shared);
        for actor in actors {
            if let Err(error) = actor.join().await {
                hub.failed(error);
            }
        }
        for running in [publishing, history] {
            if let Err(error) = running.join().await {
                hub.failed(error);
            }
        }
    });
}

/// Does what other threads ask for, several things at once.
async fn answer(mut asked: mpsc::UnboundedReceiver<Job>) {
    let mut running = futures_util::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            job = asked.recv() => match job {
                Some(job) => running.push(job()),
                None => return std::future::pending().await,
            },
            Some(()) = running.next(), if !running.is_empty() => {}
        }
    }
}

/// Starts a task for each pipeline and tells it what is deployed, until the host stops or nothing is left to do.
async fn follow(
    hub: &Arc<Hub>,
    shared: &Shared,
    actors: &mut Vec<task::LocalTask<()>>,
    publishing: &task::LocalTask<()>,
    mut stop: watch::Receiver<bool>,
) {
    let mut told: BTreeMap<String, watch::Sender<Arc<Revision>>> = BTreeMap::new();
    let mut changed = hub.control.changed();
    let mut caught_up = hub.control.caught_up();
    loop {
        changed.borrow_and_update();
        if *caught_up.borrow_and_update() {
            for (name, revision) in hub.control.state().pipelines() {
                match told.get(name) {
                    Some(told) => {
                        told.send_if_modified(|now| {
                            let newer = now.revision != revision.revision;
                            if newer {
                                *now = Arc::clone(revision);
                            }
                            newer
                        });
                    }
                    None if revision.deployment.removed => {}
                    None => {
                        let (tell, deployed) = watch::channel(Arc::clone(revision));
                        let actor = Actor::new(name, shared.clone(), deployed, stop.clone());
                        hub.pipelines
                            .lock()
                            .insert(name.to_owned(), actor.pipeline());
                        actors.push(task::local(actor.run()));
                        told.insert(name.to_owned(), tell);
                    }
                }
            }
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            changed = changed.changed() => if changed.is_err() {
                return;
            },
            // The end may be known only after the last record: then nothing else wakes this up.
            caught = caught_up.changed() => if caught.is_err() {
                return;
            },
            // Without anybody who could deploy something, a host ends with its last pipeline.
            () = tokio::time::sleep(Duration::from_millis(50)), if !shared.stays => {
                if publishing.is_finished() && actors.iter().all(task::LocalTask::is_finished) {
                    return;
                }
            }
        }
    }
}

/// Puts the config's pipelines into the control log.
async fn publish_all(hub: Arc<Hub>, declared: Vec<Declared>, mut stop: watch::Receiver<bool>) {
    let mut caught_up = hub.control.caught_up();
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => return,
        caught = caught_up.wait_for(|caught_up| *caught_up) => if caught.is_err() {
            return;
        },
    }
    for declared in declared {
        let mut backoff = Backoff::default();
        loop {
            let error = match declared.publish(&hub).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if error.blame() != Blame::Outside {
                tracing::error!(pipeline = declared.pipeline, error = %error, hint = error.hint_text(), "not deployed");
                hub.failed(error);
                break;
            }
            tracing::warn!(pipeline = declared.pipeline, error = %error, "not deployed yet");
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }
    hub.published.store(true, Ordering::Release);
}

/// Writes into the control log which release processes from where. History for people: what is lost in a crash is
/// written again by the next owner of the partition.
async fn keep_history(hub: Arc<Hub>, mut begun: mpsc::UnboundedReceiver<(Arc<str>, SegmentStart)>) {
    let by = format!("host:{}", hub.config.host.id);
    while let Some((pipeline, start)) = begun.recv().await {
        let state = hub.control.state();
        let mut known = state
            .segments(&pipeline)
            .filter(|(partition, segment)| {
                *partition == start.partition && *segment.release == *start.release
            })
            .map(|(_, segment)| segment.at);
        // The end of the list is not enough: the next owner tells again what the one before was at work with.
        let last = state
            .segments(&pipeline)
            .filter(|(partition, _)| *partition == start.partition)
            .last();
        let goes_on = last.is_some_and(|(_, last)| {
            *last.release == *start.release
                && last.host == hub.config.host.id
                && last.at <= start.at
        });
        if goes_on || known.any(|at| at == start.at) {
            continue;
        }
        let change = Change::Segment {
            pipeline: pipeline.to_string(),
            partition: start.partition,
            at: start.at,
            release: start.release.to_string(),
        };
        if let Err(error) = hub.control.submit(&by, change).await {
            tracing::warn!(%pipeline, error = %error, "history not written");
        }
    }
}
