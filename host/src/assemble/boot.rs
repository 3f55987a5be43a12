//! [`Boot`]: from a checked config to a host that runs, on the control thread: whatever has to be waited for is waited
//! for here, with the API listening already.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::control_thread::{self, Work};
use super::hub::Hub;
use super::jobs;
use super::log;
use super::operate::Desk;
use super::progress::Progress;
use super::publish::Declared;
use super::releases::Releases;
use super::running::Shared;
use super::servers::Servers;
use super::starts::Starts;
use crate::admin::Seat;
use crate::control::{BlobStore, Control, ControlLog};
use crate::error::Result;
use crate::pipeline::{Deaths, Shards};
use crate::plugin::Engine;
use crate::task;
use crate::upload::{CheckLimits, Checker};

/// A host that is to be started.
pub(super) struct Boot {
    pub(super) progress: Arc<Progress>,
    pub(super) engine: Engine,
    pub(super) declared: Vec<Declared>,
    /// The program that checks uploads in a process of its own.
    pub(super) checker: Option<PathBuf>,
    /// Where whoever answers the API sits, where there is one.
    pub(super) seat: Option<Seat>,
}

impl Boot {
    /// Starts the host and runs it to its end.
    ///
    /// # Errors
    /// Whatever is wrong with the config, a plugin or the control log, before anything runs. What fails later is told
    /// by the hub.
    pub(super) fn run(self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let Self {
            progress,
            engine,
            declared,
            checker,
            seat,
        } = self;
        let config = Arc::clone(&progress.config);
        let store = BlobStore::open(config.host.cache.join("plugins"))?;
        for (release, bytes) in declared
            .iter()
            .filter_map(|declared| declared.file.as_ref())
        {
            store.put(&release.digest, bytes)?;
        }
        progress.at("waiting for the control log");
        let Some(log) = opened(&store, &progress, &mut stop)? else {
            return Ok(());
        };
        progress.at("loading the config's plugins");
        let control = Control::open(log, store, config.host.id.clone())?;
        let releases = Releases::new(Arc::clone(&config), engine, control.clone());
        // Held until the pipelines hold them: nothing is compiled or checked twice.
        let mut loaded = Vec::new();
        for declared in &declared {
            if *stop.borrow() {
                return Ok(());
            }
            if let Some((release, _)) = &declared.file {
                releases.trust(release);
                loaded.push(releases.load_here(&declared.pipeline, release)?);
            }
        }
        let deaths = Deaths::remembered_in(&config.host.cache.join("deaths").join(&config.host.id));
        let shards = Shards::start(config.host.shards, &deaths)?;
        let (segments, begun) = mpsc::unbounded_channel();
        let (jobs, asked) = jobs::jobs();
        let servers = Arc::new(Servers::new(&config));
        let hub = Arc::new(Hub::new(
            Arc::clone(&servers),
            control,
            releases.clone(),
            jobs,
            progress.started,
        ));
        let shared = Shared {
            servers,
            releases,
            shards,
            starts: Starts::new(),
            control: hub.control.clone(),
            segments,
            stays: config.http.is_some() || config.control.is_some(),
        };
        let desk = Desk::new(Arc::clone(&hub), checks(&progress, checker));
        let read = move || {
            if let Some(seat) = seat {
                seat.take(Arc::new(desk));
            }
        };
        progress.arrived(Arc::clone(&hub));
        let work = Work {
            declared,
            begun,
            asked,
            loaded,
            read: Box::new(read),
        };
        control_thread::run(&hub, shared, work, stop);
        Ok(())
    }
}

/// The control log; `None` when told to stop before it is there.
fn opened(
    store: &BlobStore,
    progress: &Progress,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Arc<dyn ControlLog>>> {
    let not_yet = |why| progress.not_yet(why);
    let runtime = task::runtime()?;
    let opened = runtime.block_on(async {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Ok(None),
            log = log::open(&progress.config, store, &not_yet) => log.map(Some),
        }
    });
    // A question that nobody answers keeps its thread for seconds: who is told to stop does not wait for that.
    runtime.shutdown_background();
    opened
}

/// How uploads are checked.
fn checks(progress: &Progress, exe: Option<PathBuf>) -> Checker {
    let config = &progress.config;
    let mut limits = CheckLimits::default();
    if let Some(http) = &config.http {
        limits.component = http.limits.upload;
    }
    Checker {
        exe,
        limits,
        cache: Some(config.host.cache.join("compiled")),
        ceilings: config.ceilings,
        signing: config.signing.clone(),
    }
}
