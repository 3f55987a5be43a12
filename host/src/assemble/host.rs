//! [`Host`]: every pipeline that is deployed, running until it is told to stop.
//!
//! One control thread with a current-thread runtime follows the control log and supervises (`control_thread`);
//! shards compute; each pipeline's source has a thread of its own. A pipeline that has to stop leaves the others running.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::control_thread::{self, Work};
use super::hub::Hub;
use super::jobs;
use super::log;
use super::operate::Desk;
use super::publish;
use super::releases::Releases;
use super::running::Shared;
use super::servers::Servers;
use super::starts::Starts;
use crate::admin;
use crate::config::Config;
use crate::control::{BlobStore, Control};
use crate::error::{Error, Result};
use crate::pipeline::{Deaths, Shards, Totals};
use crate::plugin::{Engine, EngineOptions};
use crate::task;
use crate::upload::{CheckLimits, Checker};

/// Longest drain, as promised by `wasmill run`. Lanes end earlier; a consumer whose broker is gone does not: it
/// waits for the end of its session.
const DRAIN: Duration = Duration::from_secs(25);
/// A second signal during the drain aborts with this status, as shells report SIGINT.
const ABORTED: i32 = 130;
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
        let deaths = Deaths::remembered_in(&config.host.cache.join("deaths").join(&config.host.id));
        let shards = Shards::start(config.host.shards, &deaths)?;
        let (stop, stopped) = watch::channel(false);
        let (segments, begun) = mpsc::unbounded_channel();
        let (jobs, asked) = jobs::jobs();
        let servers = Arc::new(Servers::new(&config));
        let hub = Arc::new(Hub::new(
            Arc::clone(&servers),
            control,
            releases.clone(),
            jobs,
        ));
        let shared = Shared {
            servers,
            releases,
            shards,
            starts: Starts::new(),
            control: hub.control.clone(),
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
            let run = || control_thread::run(&seen, shared, work, stopped);
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
        task::block_on(async {
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
