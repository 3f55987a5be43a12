//! [`Host`]: every pipeline of a config, running until it is told to stop.
//!
//! One control thread with a current-thread runtime supervises; shards compute; each pipeline's source has a
//! thread of its own. A pipeline that has to stop leaves the others running.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::load::{Loaded, load};
use super::world::World;
use crate::clock::Backoff;
use crate::config::Config;
use crate::error::{Blame, Error};
use crate::pipeline::{self, Counters, PipelineSettings, Shards, Surroundings, Totals};
use crate::plugin::{Engine, EngineOptions};
use crate::task;

/// Longest drain, as promised by `wasmill run`. Lanes end earlier; a consumer whose broker is gone does not: it
/// waits for the end of its session.
const DRAIN: Duration = Duration::from_secs(25);
/// A second signal during the drain aborts with this status, as shells report SIGINT.
const ABORTED: i32 = 130;

/// Everything one pipeline runs with.
struct Ready {
    name: String,
    settings: PipelineSettings,
    world: Arc<World>,
}

/// A running host.
#[derive(Debug)]
pub struct Host {
    control: Option<task::Thread<()>>,
    stop: watch::Sender<bool>,
    counters: Vec<(String, Arc<Counters>)>,
    // Written once a pipeline, read by whoever waits: no await crosses it.
    failures: Arc<Mutex<Vec<(String, Error)>>>,
}

impl Host {
    /// Loads every pipeline and starts it. Returns when all are planned; whatever is outside (brokers,
    /// databases) is waited for as long as it takes.
    ///
    /// # Errors
    /// Whatever is wrong with the config or a plugin, before anything runs.
    pub fn start(config: &Config) -> Result<Self, Error> {
        let engine = Engine::new(EngineOptions::default())?;
        if config.pipelines.is_empty() {
            return Err(Error::config("start a host", "the config has no pipeline")
                .hint("add a [pipeline.NAME] section"));
        }
        let mut ready = Vec::new();
        for pipeline in &config.pipelines {
            let loaded = load(config, pipeline, &engine)?;
            ready.push(prepare(&loaded, config, pipeline)?);
        }
        let shards = Shards::start(config.host.shards)?;
        let (stop, stopped) = watch::channel(false);
        let failures = Arc::new(Mutex::new(Vec::new()));
        let counters = ready
            .iter()
            .map(|ready| (ready.name.clone(), Arc::clone(&ready.settings.counters)))
            .collect();
        let seen = Arc::clone(&failures);
        let control = task::thread("control", move || control(ready, &shards, &stopped, &seen))?;
        Ok(Self {
            control: Some(control),
            stop,
            counters,
            failures,
        })
    }

    /// Committed numbers by pipeline.
    #[must_use]
    pub fn totals(&self) -> Vec<(String, Totals)> {
        self.counters
            .iter()
            .map(|(name, counters)| (name.clone(), counters.totals()))
            .collect()
    }

    /// The first pipeline's failure, if one had to stop.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.failures.lock().first().map(|(_, error)| error.clone())
    }

    /// Drains every pipeline and waits for the end.
    ///
    /// # Errors
    /// The first failure of a pipeline.
    pub fn stop(mut self) -> Result<(), Error> {
        self.stop.send_replace(true);
        self.join()
    }

    /// Runs until SIGTERM or SIGINT (then drains) or until every pipeline has stopped by itself. A second
    /// signal ends the process at once, which is always safe.
    ///
    /// # Errors
    /// The first failure of a pipeline.
    pub fn run_until_signal(&self) -> Result<(), Error> {
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
        self.control.as_ref().is_none_or(task::Thread::is_finished)
    }

    fn join(&mut self) -> Result<(), Error> {
        if let Some(control) = self.control.take() {
            control.join()?;
        }
        self.failure().map_or(Ok(()), Err)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn prepare(
    loaded: &Loaded,
    config: &Config,
    pipeline: &crate::config::PipelineConfig,
) -> Result<Ready, Error> {
    let world = Arc::new(World::new(loaded, config, pipeline));
    Ok(Ready {
        name: pipeline.name.clone(),
        settings: PipelineSettings {
            plan: Arc::clone(&loaded.plan),
            errors: loaded.manifest.errors,
            counters: Arc::new(Counters::new(loaded.plan.routes.len())),
            session_timeout: world.session_timeout()?,
        },
        world,
    })
}

/// The control thread: supervises all pipelines to their end.
fn control(
    ready: Vec<Ready>,
    shards: &Shards,
    stop: &watch::Receiver<bool>,
    failures: &Arc<Mutex<Vec<(String, Error)>>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::outside("start the control runtime", error);
            failures.lock().push(("host".to_owned(), error));
            return;
        }
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut tasks = Vec::new();
        for ready in ready {
            let (shards, stop, failures) = (shards.clone(), stop.clone(), Arc::clone(failures));
            tasks.push(task::local(async move {
                let name = ready.name.clone();
                if let Err(error) = supervise(ready, shards, stop).await {
                    tracing::error!(pipeline = name, error = %error, hint = error.hint_text(), "pipeline stopped");
                    failures.lock().push((name, error));
                }
            }));
        }
        for running in tasks {
            if let Err(error) = running.join().await {
                failures.lock().push(("host".to_owned(), error));
            }
        }
    });
}

/// Runs one pipeline, waiting for what is outside.
async fn supervise(
    ready: Ready,
    shards: Shards,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut backoff = Backoff::default();
    loop {
        let attempt = async {
            ready.world.ensure().await?;
            let world = Arc::clone(&ready.world) as Arc<dyn Surroundings>;
            pipeline::run(ready.settings.clone(), world, shards.clone(), stop.clone()).await
        };
        match attempt.await {
            Err(error) if error.blame() == Blame::Outside => {
                tracing::warn!(pipeline = ready.name, error = %error, hint = error.hint_text(), "not running yet, trying again");
            }
            outcome => return outcome,
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}
