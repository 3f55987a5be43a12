//! A lane: the work of one partition under one release, in order, two batches in flight.
//!
//! While one batch commits, the next is decoded and run; when the first fails for good, the second dies with
//! it. [`Lane`] owns that order and where the release ends (its cut), nothing else: what a failed commit means is
//! `commit`'s, what a record becomes is `process`'s, which release comes next is `segments`'.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::watch;

use super::commit::Committer;
use super::conduct::Conduct;
use super::counters::{Counters, LaneCounters};
use super::ownership::Ownership;
use super::process::{Processed, Processor};
use super::release::{Desired, Release};
use super::shadow::Shadow;
use crate::anchor::{Anchor, cuts};
use crate::error::Error;
use crate::record::Batch;
use crate::sink::AheadSink;
use crate::source::{Outlet, SourceCommand};

/// A lane without work stores what a lazy anchor holds back after this long.
const IDLE: Duration = Duration::from_millis(200);

/// What a lane should do, set by its supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Work.
    Run,
    /// Finish what is in flight, settle, end.
    Drain,
}

/// How a lane ended.
#[derive(Debug)]
pub(super) enum LaneEnd {
    /// Drained, or its source is gone: everything committed is settled.
    Done,
    /// Another owner has the partition.
    Fenced(Error),
    /// The stored position lies behind what the lane worked on, under its own claim: a lazy anchor lost what
    /// it held back. To be read again from there, at once.
    Behind(Error),
    /// It goes on elsewhere, at once: in quarantine, or back from there. Why.
    Misplaced(&'static str),
    /// An operator has to act.
    Stopped(Error),
}

/// What ended a lane.
#[derive(Debug)]
pub(super) enum LaneOutcome {
    /// The partition's work here.
    Ended(LaneEnd),
    /// Another release, which takes over.
    Cut(Box<Cutover>),
}

/// What the next release of a partition takes over.
pub(super) struct Cutover {
    pub(super) owned: Ownership,
    /// Its first offset.
    pub(super) at: i64,
    /// Fetched records at or above it.
    pub(super) carried: Option<Batch>,
}

impl std::fmt::Debug for Cutover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cutover(at {})", self.at)
    }
}

/// Connections of a pipeline on one shard, shared by its lanes there.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) anchor: Rc<dyn Anchor>,
    /// By route index; `None` for routes that are not written ahead.
    pub(super) ahead: Vec<Option<Box<dyn AheadSink>>>,
}

/// What the lanes of a pipeline under one release share.
#[derive(Debug)]
pub(super) struct LaneContext {
    pub(super) release: Arc<Release>,
    pub(super) counters: Arc<Counters>,
    /// Where advisory commits go.
    pub(super) source: blocking::Sender<SourceCommand>,
}

/// What a lane waits for.
enum Wake {
    Batch(Batch),
    /// Something else may be wanted: look.
    Turn,
    /// The source is gone, or the lane drains.
    End,
}

/// The work of one partition under one release.
pub(super) struct Lane {
    context: Arc<LaneContext>,
    processor: Processor,
    committer: Committer,
    counters: Arc<LaneCounters>,
    shadow: Option<Shadow>,
    mode: watch::Receiver<Mode>,
    desired: watch::Receiver<Desired>,
    conduct: Rc<Conduct>,
    partition: i32,
    /// Where the next batch has to start.
    expected: i64,
    /// First offset of another release.
    until: Option<i64>,
    /// Something else may be wanted: nothing new is begun before that is looked at.
    turning: bool,
    /// Fetched and not begun.
    carried: Option<Batch>,
}

impl Lane {
    /// A lane that goes on at `at` with what `carried` holds.
    ///
    /// # Errors
    /// The release's input cannot be decoded.
    pub(super) fn new(
        context: Arc<LaneContext>,
        takes: Cutover,
        desired: watch::Receiver<Desired>,
        mode: watch::Receiver<Mode>,
        conduct: &Rc<Conduct>,
    ) -> Result<Self, Error> {
        let release = &context.release;
        conduct.mark.runs(&release.id);
        let partition = takes.owned.claim.partition;
        Ok(Self {
            processor: release.processor(Rc::clone(conduct))?,
            counters: context.counters.lane(partition, &release.id),
            shadow: None,
            partition,
            expected: takes.at,
            until: None,
            turning: true,
            carried: takes.carried,
            committer: Committer::new(Arc::clone(&context), takes.owned),
            context,
            mode,
            desired,
            conduct: Rc::clone(conduct),
        })
    }

    /// Runs until drained, fenced, stopped or cut. Dropping the future is safe at every point: a commit that was cut short
    /// ends with its connection, or arrives late, which the next claim waits for.
    pub(super) async fn run(mut self, outlet: &mut Outlet) -> LaneOutcome {
        let owned = &self.committer.owned;
        let quarantined = self.conduct.is_quarantined();
        let running = Arc::clone(&self.counters).runs_at(owned.next, owned.ledger, quarantined);
        let worked = Box::pin(self.work(outlet)).await;
        drop(running);
        self.conduct.mark.passed(self.committer.owned.next);
        match worked {
            Ok(None) => LaneOutcome::Ended(LaneEnd::Done),
            Ok(Some(at)) => LaneOutcome::Cut(Box::new(Cutover {
                owned: self.committer.owned,
                at,
                carried: self.carried,
            })),
            Err(end) => {
                if matches!(end, LaneEnd::Stopped(_)) {
                    self.conduct.mark.pardon();
                }
                if matches!(end, LaneEnd::Stopped(_) | LaneEnd::Misplaced(_)) {
                    self.committer.owned.leave().await;
                }
                LaneOutcome::Ended(end)
            }
        }
    }

    /// Works to the end (`None`) or to the first offset of another release.
    async fn work(&mut self, outlet: &mut Outlet) -> Result<Option<i64>, LaneEnd> {
        let mut committing: Option<Processed> = None;
        let mut spare: Vec<Processed> = Vec::new();
        loop {
            let draining = *self.mode.borrow() == Mode::Drain;
            let misplaced = self.conduct.misplaced().filter(|_| !draining);
            self.look();
            if committing.is_none()
                && let Some(why) = misplaced
            {
                return Err(LaneEnd::Misplaced(why));
            }
            if committing.is_none() && !draining && self.is_held() {
                self.turn().await?;
                if self.has_arrived() {
                    self.committer.owned.settle().await?;
                    return Ok(Some(self.expected));
                }
            }
            let waiting = if draining || misplaced.is_some() || self.is_held() {
                None
            } else if self.carried.is_some() {
                self.carried.take()
            } else if committing.is_some() {
                outlet.try_recv()
            } else {
                match self.receive(outlet).await? {
                    Wake::Batch(batch) => Some(batch),
                    Wake::Turn => continue,
                    Wake::End => None,
                }
            };
            let waiting = match waiting {
                Some(batch) => self.begin(batch)?,
                None => None,
            };
            let reuse = spare.pop().unwrap_or_default();
            let mut first = committing.take();
            committing = match (&mut first, waiting) {
                // What a cut left of a batch may be nothing: look again.
                (None, None) if self.has_arrived() && !draining => continue,
                (None, None) => break,
                (Some(first), None) => {
                    self.committer.commit(first).await?;
                    None
                }
                (None, Some(batch)) => Some(self.process(batch, reuse).await?),
                (Some(first), Some(batch)) => {
                    Some(self.commit_and_process(first, batch, reuse).await?)
                }
            };
            if let Some(mut done) = first {
                outlet.recycle(std::mem::take(&mut done.batch));
                spare.push(done);
            }
        }
        self.committer.owned.settle().await?;
        if *self.mode.borrow() == Mode::Drain {
            // The next owner then finds nothing that may have been sent, and may be upgraded where it stands.
            self.committer.owned.lower().await?;
        }
        Ok(None)
    }

    /// Notices that something else may be wanted.
    fn look(&mut self) {
        if self.desired.has_changed().unwrap_or(false) {
            self.desired.mark_unchanged();
            self.turning = true;
        }
    }

    fn is_held(&self) -> bool {
        self.turning || self.has_arrived()
    }

    /// Whether the next offset is another release's.
    fn has_arrived(&self) -> bool {
        self.until.is_some_and(|until| self.expected >= until)
    }

    /// Asks the anchor for what is wanted now, with nothing in flight, and finds out how far this release goes.
    async fn turn(&mut self) -> Result<(), LaneEnd> {
        if std::mem::take(&mut self.turning) {
            let desired = self.desired.borrow().clone();
            self.committer.owned.upgrade(&desired).await?;
            self.follow_shadow(desired.shadow.as_ref())?;
        }
        let list = &self.committer.owned.claim.cuts;
        let here = cuts::release_at(list, self.expected);
        self.until = if here.is_some_and(|here| *here != *self.context.release.id) {
            Some(self.expected)
        } else {
            cuts::next_change(list, self.expected)
        };
        Ok(())
    }

    fn follow_shadow(&mut self, wanted: Option<&Arc<Release>>) -> Result<(), LaneEnd> {
        let now = self.shadow.as_ref().map(|s| s.differences.release.as_str());
        if now == wanted.map(|release| &*release.id) {
            return Ok(());
        }
        let known = self.counters.shadow();
        if wanted.is_none() {
            self.conduct.shadow.forget();
        }
        self.shadow = wanted
            .map(|release| Shadow::new(release, known, &self.conduct))
            .transpose()
            .map_err(LaneEnd::Stopped)?;
        Ok(())
    }

    /// Checks that a batch starts where the one before it ended (a gap would be committed as if it were read),
    /// and takes what lies below the cut.
    fn begin(&mut self, mut batch: Batch) -> Result<Option<Batch>, LaneEnd> {
        let first = batch.offsets().first().copied().unwrap_or(batch.from());
        if batch.from() != self.expected || first < self.expected {
            let what = format!("read partition {}", self.partition);
            let detail = format!(
                "a batch of [{}, {}) with first offset {first} where {} was expected",
                batch.from(),
                batch.to(),
                self.expected
            );
            return Err(LaneEnd::Stopped(Error::bug(what, detail)));
        }
        let until = self.until.filter(|until| batch.to() > *until);
        let mark = &self.conduct.mark;
        mark.passed(self.committer.owned.next);
        if let Some(error) = mark.fails_canary().filter(|_| self.is_canary()) {
            return Err(LaneEnd::Stopped(error));
        }
        let ends = until.into_iter().chain(mark.cut(batch.offsets()));
        if let Some(end) = ends.min() {
            self.carried = Some(batch.split_off(end));
            self.expected = end;
            return Ok((!batch.is_empty()).then_some(batch));
        }
        self.expected = batch.to();
        Ok(Some(batch))
    }

    /// Whether the release is on trial here: what becomes of it is decided by what it does.
    fn is_canary(&self) -> bool {
        let desired = self.desired.borrow();
        let trial = desired
            .canary
            .as_ref()
            .and_then(|trial| trial.release.as_ref());
        trial.is_some_and(|release| release.id == self.context.release.id)
    }

    /// The next batch. Settles when nothing comes, and brings a cut that waits into force.
    async fn receive(&mut self, outlet: &mut Outlet) -> Result<Wake, LaneEnd> {
        let mut settled = false;
        loop {
            if self.conduct.misplaced().is_some() {
                return Ok(Wake::Turn);
            }
            // Biased to the mode: a drain must not wait behind a full inlet.
            tokio::select! {
                biased;
                changed = self.mode.changed() => {
                    if changed.is_err() || *self.mode.borrow() == Mode::Drain {
                        return Ok(Wake::End);
                    }
                }
                Ok(()) = self.desired.changed() => {
                    self.turning = true;
                    return Ok(Wake::Turn);
                }
                batch = outlet.recv() => return Ok(batch.map_or(Wake::End, Wake::Batch)),
                () = tokio::time::sleep(IDLE), if !settled || self.until.is_some() => {
                    self.committer.owned.settle().await?;
                    settled = true;
                    if self.until.is_some() {
                        self.committer.owned.lower().await?;
                        self.turn().await?;
                        if self.has_arrived() {
                            return Ok(Wake::Turn);
                        }
                    }
                }
            }
        }
    }

    async fn process(&mut self, batch: Batch, reuse: Processed) -> Result<Processed, LaneEnd> {
        let processing = async {
            let processed = self.processor.process(batch, reuse).await;
            let processed = processed.map_err(LaneEnd::Stopped)?;
            if let Some(shadow) = &mut self.shadow {
                shadow.compare(&self.context.release, &processed).await;
                self.counters.shadowed(&shadow.differences);
            }
            Ok(processed)
        };
        self.conduct.unless_misplaced(processing).await
    }

    /// Commits one batch while the next is processed. When the commit ends the lane, so does the second.
    async fn commit_and_process(
        &mut self,
        first: &mut Processed,
        batch: Batch,
        reuse: Processed,
    ) -> Result<Processed, LaneEnd> {
        if self.shadow.is_some() {
            self.committer.commit(first).await?;
            return self.process(batch, reuse).await;
        }
        let committed = self.committer.commit(first);
        let processed = async {
            let processed = self.processor.process(batch, reuse).await;
            processed.map_err(LaneEnd::Stopped)
        };
        let processed = self.conduct.unless_misplaced(processed);
        let (committed, processed) = futures_util::future::join(committed, processed).await;
        committed?;
        processed
    }
}
