//! One partition from claim to end: a lane for each release, one after the other, over the same inlet.
//!
//! [`Partition::run`] decides which release processes from where (the cuts of the claim), opens its connections,
//! and hands over at a cut. It processes and commits nothing itself.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Surroundings;
use super::conduct::{Conduct, Place};
use super::counters::Counters;
use super::lane::{Connections, Cutover, Lane, LaneContext, LaneEnd, LaneOutcome, Mode};
use super::ownership::Ownership;
use super::pulse::Pulse;
use super::release::{Desired, Release, SegmentStart};
use super::shard::Local;
use super::waits::Waiter;
use crate::anchor::{Claim, Cut, cuts};
use crate::clock::Backoff;
use crate::error::{Blame, Error, Retry};
use crate::source::{Outlet, SourceCommand};

/// A lane that waits for another deployment takes a turn this often.
const TURN: Duration = Duration::from_secs(10);

/// A claimed partition and everything its lanes need; moved to the shard that owns it.
pub(super) struct Partition {
    pub(super) pipeline: Arc<str>,
    pub(super) claim: Claim,
    /// Where it was moved to.
    pub(super) place: Place,
    pub(super) surroundings: Arc<dyn Surroundings>,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) mode: watch::Receiver<Mode>,
    pub(super) counters: Arc<Counters>,
    pub(super) source: blocking::Sender<SourceCommand>,
    pub(super) segments: mpsc::UnboundedSender<SegmentStart>,
    /// The release that processes, or is about to: a stop is its.
    pub(super) release: Option<Arc<str>>,
    /// How long a release is waited for that this host does not know.
    pub(super) patience: Duration,
    /// Beaten by every turn.
    pub(super) pulse: Pulse,
    /// Told what is waited for; gone with the lane.
    pub(super) waiter: Arc<Waiter>,
}

impl Partition {
    /// Runs lane after lane until one ends for another reason than a cut.
    pub(super) async fn run(mut self, local: &Local, mut outlet: Outlet) -> LaneEnd {
        let mark = local.deaths.of(&self.pipeline, &self.claim);
        let shadow = local.deaths.of_shadow(&self.pipeline, &self.claim);
        let conduct = Rc::new(
            Conduct::new(self.place)
                .marked(mark, shadow)
                .with_pulse(&self.pulse),
        );
        // Boxed: it holds whatever a lane holds while it waits.
        let work = Box::pin(self.work(local, &mut outlet, &conduct));
        let (Ok(end) | Err(end)) = conduct.timed(work).await;
        if let (LaneEnd::Stopped(error), Some(release)) = (&end, &self.release) {
            let counters = self.counters.lane(self.claim.partition, release);
            counters.failed(error);
        }
        if let LaneEnd::Misplaced(_) = end {
            local.close_unused(&self.pipeline);
        }
        end
    }

    async fn work(
        &mut self,
        local: &Local,
        outlet: &mut Outlet,
        conduct: &Rc<Conduct>,
    ) -> Result<LaneEnd, LaneEnd> {
        // What is wanted is asked for first: where nothing was sent ahead no earlier release is needed at all.
        let (desired, wanted, connections) = loop {
            let desired = self.desired.borrow_and_update().clone();
            // What the cuts name goes on while the canary cannot run here.
            let pinned = cuts::release_at(&self.claim.cuts, self.claim.next);
            let wanted = desired
                .of(self.claim.partition)
                .or_else(|| desired.find(pinned?))
                .cloned();
            let Some(wanted) = wanted else {
                self.wait().await?;
                continue;
            };
            if let Some(connections) = self.connections(local, &wanted).await? {
                break (desired, wanted, connections);
            }
        };
        self.told_again();
        let mut owned = Ownership::new(
            connections,
            self.claim.clone(),
            self.mode.clone(),
            Arc::clone(&self.waiter),
        );
        owned.upgrade(&desired).await?;
        let (at, mut opened) = (owned.next, wanted);
        let mut release = self.go_on(local, &mut owned, at, &mut opened).await?;
        let mut takes = Cutover {
            at,
            owned,
            carried: None,
        };
        loop {
            // Told from the position on, also where the cut lies in a gap above it: what was told there would stay
            // in the history if this release never committed and a later one began at the position.
            self.begun(&release, takes.owned.next);
            let context = LaneContext {
                release: Arc::clone(&release),
                counters: Arc::clone(&self.counters),
                source: self.source.clone(),
            };
            let (desired, mode) = (self.desired.clone(), self.mode.clone());
            let lane = Lane::new(Arc::new(context), takes, desired, mode, conduct);
            let mut cut = match lane.map_err(LaneEnd::Stopped)?.run(outlet).await {
                // Another release is another conduct. Not where the cut lies in a gap above the position: the next
                // claim would begin below it, and what misbehaves above it would be moved to and fro for ever.
                LaneOutcome::Cut(cut) if conduct.is_quarantined() && cut.owned.next == cut.at => {
                    return Ok(LaneEnd::Misplaced("another release goes on"));
                }
                LaneOutcome::Cut(cut) => *cut,
                LaneOutcome::Ended(end) => return Ok(end),
            };
            let next = self.go_on(local, &mut cut.owned, cut.at, &mut opened);
            release = match next.await {
                Ok(release) => release,
                Err(end) => {
                    if matches!(end, LaneEnd::Stopped(_)) {
                        cut.owned.leave().await;
                    }
                    return Err(end);
                }
            };
            local.close_unused(&self.pipeline);
            takes = cut;
        }
    }

    /// Moves on to the release that processes `at`, over connections of its own; `opened` is the release whose
    /// connections are in use. While they are not reached, something else may be asked for: nothing was begun.
    async fn go_on(
        &mut self,
        local: &Local,
        owned: &mut Ownership,
        at: i64,
        opened: &mut Arc<Release>,
    ) -> Result<Arc<Release>, LaneEnd> {
        loop {
            if let Some(release) = self.release_at(&owned.claim.cuts, at).await? {
                self.release = Some(Arc::clone(&release.id));
                if release.id == opened.id {
                    return Ok(release);
                }
                if let Some(connections) = self.connections(local, &release).await? {
                    owned.move_to(connections).await?;
                    *opened = Arc::clone(&release);
                    return Ok(release);
                }
            }
            let desired = self.desired.borrow_and_update().clone();
            owned.upgrade(&desired).await?;
        }
    }

    /// Waits until something else is asked for.
    async fn wait(&mut self) -> Result<(), LaneEnd> {
        tracing::warn!(
            pipeline = %self.pipeline, partition = self.claim.partition,
            "waits: its release cannot run here"
        );
        loop {
            tokio::select! {
                biased;
                _ = self.mode.wait_for(|mode| *mode == Mode::Drain) => return Err(LaneEnd::Done),
                changed = self.desired.changed() => return changed.map_err(|_| LaneEnd::Done),
                // It is alive.
                () = tokio::time::sleep(TURN) => {}
            }
        }
    }

    /// The release that processes `at`: one of those wanted now, or an earlier one that has to replay; `None` when
    /// something else was asked for while it could not be loaded.
    async fn release_at(&mut self, list: &[Cut], at: i64) -> Result<Option<Arc<Release>>, LaneEnd> {
        let mut desired = self.desired.clone();
        let wanted = desired.borrow().clone();
        // Without a cut at or below, the position was never pinned: what is wanted is pinned first thing.
        let Some(id) = cuts::release_at(list, at) else {
            let release = wanted.of(self.claim.partition).unwrap_or(&wanted.release);
            return Ok(Some(Arc::clone(release)));
        };
        if let Some(release) = wanted.find(id) {
            return Ok(Some(Arc::clone(release)));
        }
        self.release = Some(id.into());
        let surroundings = Arc::clone(&self.surroundings);
        let loaded = self.patiently("load an earlier release", async || {
            let loaded = surroundings.release(id).await;
            loaded.map_err(|error| error.on("control"))
        });
        // Biased: what is loaded already is used.
        tokio::select! {
            biased;
            loaded = loaded => loaded.map(Some),
            Ok(()) = desired.changed() => Ok(None),
        }
    }

    /// The connections of a release, once they are reached; `None` when something else was asked for meanwhile.
    async fn connections(
        &mut self,
        local: &Local,
        release: &Arc<Release>,
    ) -> Result<Option<Rc<Connections>>, LaneEnd> {
        self.release = Some(Arc::clone(&release.id));
        let surroundings = Arc::clone(&self.surroundings);
        let pipeline = Arc::clone(&self.pipeline);
        let mut desired = self.desired.clone();
        let reached = self.patiently("reach the sinks", async || {
            local.connections(&pipeline, release, &*surroundings).await
        });
        // Biased: what is reached already is used.
        tokio::select! {
            biased;
            reached = reached => reached.map(Some),
            Ok(()) = desired.changed() => Ok(None),
        }
    }

    /// Tries until it succeeds, the lane drains, or an operator has to act. What only another host may be able to do
    /// is tried for a session time-out: then the partition is better given away.
    async fn patiently<T>(
        &mut self,
        what: &str,
        attempt: impl AsyncFn() -> Result<T, Error>,
    ) -> Result<T, LaneEnd> {
        let mut backoff = Backoff::default();
        let begun = Instant::now();
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    self.waiter.done();
                    return Ok(value);
                }
                Err(error) => error,
            };
            let left = match error.retry() {
                Retry::Backoff => Duration::MAX,
                Retry::Never => self.patience.saturating_sub(begun.elapsed()),
            };
            if error.blame() != Blame::Outside || left.is_zero() {
                return Err(LaneEnd::Stopped(error));
            }
            self.waiter.failed(&error, &format!("{what}: not yet"));
            tokio::select! {
                biased;
                _ = self.mode.wait_for(|mode| *mode == Mode::Drain) => return Err(LaneEnd::Done),
                () = tokio::time::sleep(backoff.pause().min(left)) => {}
            }
        }
    }

    /// Tells which release goes on from where; nobody listens once the pipeline is gone.
    fn begun(&self, release: &Release, at: i64) {
        let partition = self.claim.partition;
        tracing::info!(
            pipeline = %self.pipeline, partition, at,
            plugin = release.plan.plugin, release = %release.id,
            "processing"
        );
        self.tell(Arc::clone(&release.id), at);
    }

    /// Tells what the owner before was at work with, since the list of cuts may forget it now: it may have died
    /// between a commit and its word about it.
    fn told_again(&self) {
        let Claim {
            cuts: list, next, ..
        } = &self.claim;
        if let Some(cut) = cuts::deciding(list, *next).filter(|cut| cut.at < *next) {
            self.tell(Arc::from(cut.release.as_str()), cut.at);
        }
    }

    fn tell(&self, release: Arc<str>, at: i64) {
        let partition = self.claim.partition;
        let start = SegmentStart {
            pipeline: Arc::clone(&self.pipeline),
            partition,
            at,
            release,
        };
        self.segments.send(start).ok();
    }
}
