//! The control thread: it follows the control log, starts and supervises a task for each pipeline, and does what
//! other threads ask of its runtime. It decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::canaries;
use super::hub::Hub;
use super::jobs::Asked;
use super::publish::Declared;
use super::releases::Loaded;
use super::running::{Actor, Shared};
use crate::clock::Backoff;
use crate::control::{Change, Revision};
use crate::error::{Blame, Error};
use crate::pipeline::SegmentStart;
use crate::task;

/// How long a thread for blocking calls is kept without any: every pipeline makes one or two when it starts.
const SPARE_THREAD: Duration = Duration::from_secs(1);

/// What the control thread has to do beside following.
pub(super) struct Work {
    pub(super) declared: Vec<Declared>,
    pub(super) begun: mpsc::UnboundedReceiver<SegmentStart>,
    pub(super) asked: Asked,
    /// Given up when the config's pipelines are deployed.
    pub(super) loaded: Vec<Arc<Loaded>>,
    /// Called once the control log was read to its end, or is lost: what is deployed is known then.
    pub(super) read: Box<dyn FnOnce() + Send>,
}

/// Follows the control log and supervises all pipelines to their end.
pub(super) fn run(hub: &Arc<Hub>, shared: Shared, work: Work, stop: watch::Receiver<bool>) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(SPARE_THREAD)
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
        let _reading = {
            let control = hub.control.clone();
            task::local(async move {
                // A host whose log is lost tells of that itself.
                control.ready().await.ok();
                (work.read)();
            })
        };
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
            () = work.asked.answer() => {}
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
                        hub.entered(name, actor.pipeline());
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
    // At once: one that waits for its database keeps no other one waiting.
    let all = declared
        .iter()
        .map(|declared| publish(&hub, declared, stop.clone()));
    futures_util::future::join_all(all).await;
    hub.published();
}

/// Puts one of them there; tries again as long as something outside is in the way.
async fn publish(hub: &Arc<Hub>, declared: &Declared, mut stop: watch::Receiver<bool>) {
    let mut backoff = Backoff::default();
    while let Err(error) = declared.publish(hub).await {
        if error.blame() != Blame::Outside {
            tracing::error!(pipeline = declared.pipeline, error = %error, hint = error.hint_text(), "not deployed");
            hub.failed(error);
            return;
        }
        tracing::warn!(pipeline = declared.pipeline, error = %error, "not deployed yet");
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

/// Writes into the control log which release processes from where. History for people: what is lost in a crash is
/// written again by the next owner of the partition.
async fn keep_history(hub: Arc<Hub>, mut begun: mpsc::UnboundedReceiver<SegmentStart>) {
    let by = format!("host:{}", hub.config.host.id);
    while let Some(start) = begun.recv().await {
        let pipeline = &*start.pipeline;
        let state = hub.control.state();
        let mut known = state
            .segments(pipeline)
            .filter(|(partition, segment)| {
                *partition == start.partition && *segment.release == *start.release
            })
            .map(|(_, segment)| segment.at);
        // The end of the list is not enough: the next owner tells again what the one before was at work with.
        let last = state
            .segments(pipeline)
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
            tracing::warn!(pipeline, error = %error, "history not written");
        }
    }
}
