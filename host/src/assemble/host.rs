//! [`Host`]: every pipeline that is deployed, running until it is told to stop.
//!
//! The API listens first. Then one control thread waits for what a host needs (`boot`), follows the control log and
//! supervises (`control_thread`); shards compute; each pipeline's source has a thread of its own. A pipeline that has to
//! stop leaves the others running.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::boot::Boot;
use super::progress::Progress;
use super::publish;
use crate::admin::{self, Seat};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::Totals;
use crate::plugin::{Engine, EngineOptions};
use crate::task;

/// Longest drain, as promised by `wasmill run`. Lanes end earlier; a consumer whose broker is gone does not: it
/// waits for the end of its session.
const DRAIN: Duration = Duration::from_secs(25);
/// How long a host that is told to stop before it is there may take: it holds nothing yet.
const UNBEGUN: Duration = Duration::from_secs(1);
/// A second signal during the drain aborts with this status, as shells report SIGINT.
const ABORTED: i32 = 130;

/// A host that runs, or is on its way.
#[derive(Debug)]
pub struct Host {
    thread: Option<task::Thread<()>>,
    stop: watch::Sender<bool>,
    progress: Arc<Progress>,
    /// Ends with the host.
    http: Option<admin::Server>,
}

impl Host {
    /// Begins to start a host: its API listens when this returns. Then, on a thread of its own, the control log is
    /// opened, every pipeline of the config that names a file is loaded, and whatever is deployed is started. What is
    /// outside (brokers, databases) is waited for as long as it takes; what is wrong with a plugin, or with the
    /// control log, ends the host: see [`Host::failure`].
    ///
    /// # Errors
    /// Whatever is wrong with the config, a plugin's file or the address of the API, as far as nothing outside has to
    /// be asked.
    pub fn start(config: &Config) -> Result<Self> {
        Self::start_with(config, None)
    }

    /// As [`Host::start`]; `checker` is the program that checks uploads in a process of its own, `wasmill` itself.
    /// Without one they are checked in this process, without its limits.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn start_with(config: &Config, checker: Option<PathBuf>) -> Result<Self> {
        let progress = Arc::new(Progress::new(Arc::new(config.clone())));
        let engine = Engine::new(EngineOptions::default())?;
        let stays = config.http.is_some() || config.control.is_some();
        if config.pipelines.is_empty() && !stays {
            return Err(Error::config("start a host", "the config has no pipeline")
                .hint("add a [pipeline.NAME] section, or [http] to deploy by upload"));
        }
        let declared = publish::declared(config)?;
        let said = Arc::clone(&progress);
        let seat = config
            .http
            .as_ref()
            .map(|_| Seat::new(move || said.status()));
        let boot = Boot {
            progress: Arc::clone(&progress),
            engine,
            declared,
            checker,
            seat: seat.clone(),
        };
        let http = match (&config.http, seat) {
            (Some(http), Some(seat)) => {
                let uploads = config.host.cache.join("uploads");
                Some(admin::serve(http, &uploads, seat)?)
            }
            _ => None,
        };
        let (stop, stopped) = watch::channel(false);
        let come = Arc::clone(&progress);
        let thread = task::thread("control", move || {
            let run = || boot.run(stopped);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            let panicked = |_| Err(Error::bug("run the host", "the control thread panicked"));
            if let Err(error) = outcome.unwrap_or_else(panicked) {
                come.failed(error);
            }
        })?;
        Ok(Self {
            thread: Some(thread),
            stop,
            progress,
            http,
        })
    }

    /// Whether it came as far as to run pipelines.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.progress.hub().is_some()
    }

    /// Committed numbers by pipeline.
    #[must_use]
    pub fn totals(&self) -> Vec<(String, Totals)> {
        let all = self.progress.hub().map(|hub| hub.pipelines());
        all.into_iter()
            .flatten()
            .map(|(name, pipeline)| (name, pipeline.counters.totals()))
            .collect()
    }

    /// What ended the start, or the first failure that ended something, if there was one.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.progress.failure()
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
    /// signal ends the process at once, which is always safe. A host that is not there yet ends within a second.
    ///
    /// # Errors
    /// What ended the start, or the first failure of a pipeline.
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
                        let patience = if self.has_begun() { DRAIN } else { UNBEGUN };
                        if asked.is_some_and(|asked| asked.elapsed() > patience) {
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
