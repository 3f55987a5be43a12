//! One pipeline of a host: it does what the deployment in force says, and follows the next one.
//!
//! [`Actor::run`] is its task on the control runtime; what others may know of it is in `seen`. A deployment that the
//! running source and anchor suit is handed to the lanes, which swap at a batch boundary; any other restarts
//! the pipeline. One that cannot be loaded leaves what runs running, and a release on trial never keeps the one in
//! charge from it. It never writes to the control log.

mod prepared;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::releases::{Loaded, Releases};
use super::seen::Pipeline;
use super::servers::Servers;
use super::starts::Starts;
use super::world::World;
use crate::admin::types::PipelineState;
use crate::anchor::MemoryAnchor;
use crate::clock::Backoff;
use crate::control::{Control, Revision};
use crate::error::{Blame, Error, Retry};
use crate::pipeline::{
    self, Desired, PipelineSettings, SegmentStart, Shards, Surroundings, Waiter,
};
use prepared::Prepared;

/// Starts in a row that the plugin fails before its pipeline is parked.
const CRASHES: u32 = 4;
/// Between two attempts at a deployment that an operator has to make possible.
const MENDED: Duration = Duration::from_secs(15);
/// A run of this length was no crash.
const STEADY: Duration = Duration::from_secs(60);
/// A lane without a turn for this long, although records wait, hangs: whatever it waits for outside makes it take one
/// more often.
const STALL: Duration = Duration::from_secs(60);

/// How long a pipeline waits after a failure before it is tried again.
fn pause(error: &Error, backoff: &mut Backoff, session_timeout: Duration) -> Duration {
    match error.retry() {
        Retry::Backoff => backoff.pause(),
        // Others may be able to go on: they get the partitions when the session has timed out, not before.
        Retry::Never => session_timeout + backoff.pause(),
    }
}

/// What all pipelines of a host share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) servers: Arc<Servers>,
    pub(super) releases: Releases,
    pub(super) shards: Shards,
    pub(super) starts: Starts,
    pub(super) control: Control,
    /// Told which release begins where.
    pub(super) segments: mpsc::UnboundedSender<SegmentStart>,
    /// Whether a pipeline that gave up waits for an operator, or ends: nobody could reach the host.
    pub(super) stays: bool,
}

/// Failed runs in a row of what is deployed.
#[derive(Default)]
struct Tries {
    /// Those that the plugin failed.
    crashes: u32,
    backoff: Backoff,
}

/// How a run ended.
enum Ended {
    /// The host stops.
    Stopped,
    /// Something else is deployed.
    Changed,
    /// By itself.
    Failed(Error),
}

/// The task of one pipeline.
pub(super) struct Actor {
    shared: Shared,
    pipeline: Arc<Pipeline>,
    /// Waits for the servers without which it cannot start.
    waiter: Arc<Waiter>,
    deployed: watch::Receiver<Arc<Revision>>,
    stop: watch::Receiver<bool>,
    /// Positions of a pipeline that writes nothing: they outlive a pause.
    memory: MemoryAnchor,
    /// How long this host's partitions stay its own after it has left.
    session_timeout: Duration,
}

impl Actor {
    pub(super) fn new(
        name: &str,
        shared: Shared,
        deployed: watch::Receiver<Arc<Revision>>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let pipeline = Arc::new(Pipeline::new(name));
        Self {
            shared,
            waiter: Arc::new(pipeline.counters.waiter(&pipeline.name, None, &[])),
            pipeline,
            deployed,
            stop,
            memory: MemoryAnchor::new(),
            session_timeout: Duration::ZERO,
        }
    }

    pub(super) fn pipeline(&self) -> Arc<Pipeline> {
        Arc::clone(&self.pipeline)
    }

    /// Runs until the host stops, or the pipeline gave up and nobody could wake it.
    pub(super) async fn run(mut self) {
        let mut tries = Tries::default();
        loop {
            if *self.stop.borrow() {
                return;
            }
            let revision = Arc::clone(&self.deployed.borrow_and_update());
            let deployment = &revision.deployment;
            if deployment.removed || deployment.paused {
                self.pipeline.is(if deployment.removed {
                    PipelineState::Removed
                } else {
                    PipelineState::Paused
                });
                self.pipeline.stands_still(revision.revision);
                self.waiter.done();
                self.changed_or_stopped().await;
                continue;
            }
            self.pipeline.is(PipelineState::Starting);
            let began = std::time::Instant::now();
            let error = match self.attempt(&revision).await {
                Ended::Stopped => return,
                Ended::Changed => {
                    tries = Tries::default();
                    continue;
                }
                Ended::Failed(error) => error,
            };
            self.failed(&error);
            if began.elapsed() > STEADY {
                tries = Tries::default();
            }
            let name = &*self.pipeline.name;
            let again = match error.blame() {
                Blame::Outside => true,
                Blame::Plugin => {
                    tries.crashes += 1;
                    tries.crashes < CRASHES
                }
                Blame::Config | Blame::Data | Blame::Bug => false,
            };
            if again {
                self.waiter.failed(&error, "not running, trying again");
                self.pipeline.is(PipelineState::Starting);
                let pause = pause(&error, &mut tries.backoff, self.session_timeout);
                tokio::select! {
                    () = self.changed_or_stopped() => tries = Tries::default(),
                    () = tokio::time::sleep(pause) => {}
                }
                continue;
            }
            let state = if error.blame() == Blame::Plugin {
                PipelineState::Parked
            } else {
                PipelineState::Stopped
            };
            tracing::error!(pipeline = name, error = %error, hint = error.hint_text(), "pipeline stopped");
            self.pipeline.is(state);
            self.waiter.done();
            if !self.shared.stays {
                return;
            }
            self.changed_or_stopped().await;
            tries = Tries::default();
        }
    }

    fn failed(&self, error: &Error) {
        let revision = self.deployed.borrow().revision;
        self.pipeline.failed(revision, error);
    }

    /// Waits for another deployment or the end of the host.
    async fn changed_or_stopped(&self) {
        let (mut deployed, mut stop) = (self.deployed.clone(), self.stop.clone());
        tokio::select! {
            // Without anybody who could deploy, as while the host ends, only the stop is left to wait for.
            Ok(()) = deployed.changed() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// Loads and runs one deployment and those that may follow it without a restart.
    async fn attempt(&mut self, revision: &Revision) -> Ended {
        let looking = self.shared.starts.look();
        let prepared = tokio::select! {
            prepared = self.prepare(revision) => prepared,
            () = self.changed_or_stopped() => return self.why(),
        };
        let mut prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ended::Failed(error),
        };
        let shared = self.shared.clone();
        let memory = self.memory.clone();
        let world = World::new(&prepared.main, &shared.releases, &shared.servers, memory)
            .with_headers(prepared.needs_headers());
        let world = Arc::new(world);
        let ready = async {
            prepared.ensure(&world).await?;
            world.session_timeout()
        };
        let session_timeout = tokio::select! {
            ready = ready => ready,
            () = self.changed_or_stopped() => return self.why(),
        };
        let session_timeout = match session_timeout {
            Ok(session_timeout) => session_timeout,
            Err(error) => return Ended::Failed(error),
        };
        self.session_timeout = session_timeout;
        self.takes(revision, &prepared);
        let (desired, follows) = watch::channel(prepared.desired.clone());
        let (stop, stopped) = watch::channel(false);
        let settings = PipelineSettings {
            pipeline: Arc::clone(&self.pipeline.name),
            desired: follows,
            counters: Arc::clone(&self.pipeline.counters),
            waiter: Arc::clone(&self.waiter),
            segments: shared.segments.clone(),
            session_timeout,
            stall: STALL,
        };
        let around = Arc::clone(&world) as Arc<dyn Surroundings>;
        drop(looking);
        let run = async {
            shared.starts.turn().await;
            pipeline::run(settings, around, shared.shards.clone(), stopped).await
        };
        let follow = self.follow(&world, prepared, &desired);
        tokio::pin!(run);
        let ended = tokio::select! {
            // Biased: an end by itself is told as such.
            biased;
            outcome = &mut run => Err(outcome),
            ended = follow => Ok(ended),
        };
        let ended = match ended {
            Ok(ended) => ended,
            Err(Ok(())) => return Ended::Stopped,
            // Read from the log, and not handed over yet: it may be the cure, and nobody tells of it again.
            Err(Err(error)) if self.is_behind() => {
                self.failed(&error);
                return Ended::Changed;
            }
            Err(Err(error)) => return Ended::Failed(error),
        };
        stop.send_replace(true);
        match (run.await, &ended) {
            (Ok(()), _) => ended,
            // What is deployed now may be the cure.
            (Err(error), Ended::Changed) => {
                self.failed(&error);
                ended
            }
            (Err(error), _) => Ended::Failed(error),
        }
    }

    /// Whether something else is deployed than is in force here.
    fn is_behind(&self) -> bool {
        self.deployed.borrow().revision != self.pipeline.seen().revision
    }

    fn why(&self) -> Ended {
        if *self.stop.borrow() {
            Ended::Stopped
        } else {
            Ended::Changed
        }
    }

    /// Hands deployments that suit to the running lanes, until one does not or the host stops.
    async fn follow(
        &mut self,
        world: &World,
        prepared: Prepared,
        desired: &watch::Sender<Desired>,
    ) -> Ended {
        let suits = |now: &Loaded, then: &Prepared| {
            world.suits(now, &then.main) && world.carries(then.needs_headers())
        };
        let mut backoff = Backoff::default();
        let mut again = prepared
            .canary_fault
            .as_ref()
            .map(|error| again_in(error, &mut backoff));
        let mut now = prepared.main;
        loop {
            tokio::select! {
                _ = self.stop.wait_for(|stop| *stop) => return Ended::Stopped,
                () = self.shared.control.gone(), if !desired.borrow().log_lost => {
                    desired.send_modify(|desired| desired.log_lost = true);
                    continue;
                }
                changed = self.deployed.changed() => if changed.is_err() {
                    return Ended::Stopped;
                },
                () = tokio::time::sleep(again.unwrap_or(MENDED)), if again.is_some() => {}
            }
            let revision = Arc::clone(&self.deployed.borrow_and_update());
            let deployment = &revision.deployment;
            if deployment.paused || deployment.removed {
                return Ended::Changed;
            }
            let prepared = async {
                let mut prepared = self.prepare(&revision).await?;
                if suits(&now, &prepared) {
                    prepared.ensure(world).await?;
                }
                Ok::<_, Error>(prepared)
            };
            let prepared = tokio::select! {
                prepared = prepared => prepared,
                // Looked at above.
                () = self.changed_or_stopped() => continue,
            };
            match prepared {
                Ok(prepared) if suits(&now, &prepared) => {
                    let fault = prepared.canary_fault.as_ref();
                    again = fault.map(|error| again_in(error, &mut backoff));
                    if again.is_none() {
                        backoff = Backoff::default();
                    }
                    now = Arc::clone(&prepared.main);
                    self.takes(&revision, &prepared);
                    tracing::info!(
                        pipeline = &*self.pipeline.name,
                        revision = revision.revision,
                        plugin = now.release.plan.plugin,
                        "deployment followed"
                    );
                    desired.send_if_modified(|now| {
                        let differs = now.differs(&prepared.desired);
                        if differs {
                            *now = prepared.desired;
                        }
                        differs
                    });
                }
                Ok(_) => return Ended::Changed,
                Err(error) => {
                    again = Some(again_in(&error, &mut backoff));
                    tracing::warn!(
                        pipeline = &*self.pipeline.name, revision = revision.revision,
                        error = %error, hint = error.hint_text(),
                        "deployment not followed, what runs goes on"
                    );
                    self.failed(&error);
                }
            }
        }
    }

    /// A deployment is in force from here on.
    fn takes(&self, revision: &Revision, prepared: &Prepared) {
        if let Some(error) = &prepared.canary_fault {
            tracing::warn!(
                pipeline = &*self.pipeline.name, revision = revision.revision,
                error = %error, hint = error.hint_text(),
                "the canary cannot run here: partitions that nobody processes yet wait for it"
            );
            self.failed(error);
        }
        let fault = prepared.canary_fault.as_ref();
        self.pipeline.takes(revision, &prepared.main, fault);
    }
}

/// When something that failed is tried again. What an operator has to mend is looked at again too: a table, a grant, a
/// variable.
fn again_in(error: &Error, backoff: &mut Backoff) -> Duration {
    match error.blame() {
        Blame::Outside => backoff.pause(),
        _ => MENDED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_host_may_be_able_to_do_is_left_to_it_for_a_session() {
        let session = Duration::from_secs(45);
        let mut backoff = Backoff::default();
        let away = Error::outside("connect", "refused");
        assert!(pause(&away, &mut backoff, session) < Duration::from_secs(1));
        let unknown = Error::outside("load release", "not named").with_retry(Retry::Never);
        let pauses: Vec<_> = (0..12)
            .map(|_| pause(&unknown, &mut backoff, session))
            .collect();
        assert!(pauses.iter().all(|pause| *pause > session), "{pauses:?}");
        assert!(pauses[11] > pauses[0], "{pauses:?}");
    }
}
