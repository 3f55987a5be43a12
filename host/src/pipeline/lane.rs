//! A lane: the work of one partition of one pipeline, in order, two batches in flight.
//!
//! While one batch commits, the next is decoded and run; when the first fails for good, the second dies with
//! it. [`Lane`] owns that order and nothing else: what a failed commit means is `commit`'s, what a record
//! becomes is `process`'s.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::watch;

use super::commit::Committer;
use super::counters::Counters;
use super::plan::Plan;
use super::process::{Processed, Processor};
use crate::anchor::{Anchor, Claim};
use crate::error::Error;
use crate::manifest::ErrorPolicy;
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
    /// An operator has to act.
    Stopped(Error),
}

/// Connections of a pipeline on one shard, shared by its lanes there.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) anchor: Rc<dyn Anchor>,
    /// By route index; `None` for routes that are not written ahead.
    pub(super) ahead: Vec<Option<Box<dyn AheadSink>>>,
}

/// What all lanes of a pipeline share.
#[derive(Debug)]
pub(super) struct LaneContext {
    pub(super) plan: Arc<Plan>,
    pub(super) errors: ErrorPolicy,
    pub(super) counters: Arc<Counters>,
    /// Where advisory commits go.
    pub(super) source: blocking::Sender<SourceCommand>,
}

/// The work of one partition.
pub(super) struct Lane {
    processor: Processor,
    committer: Committer,
    mode: watch::Receiver<Mode>,
    partition: i32,
    /// Where the next batch has to start.
    expected: i64,
}

impl Lane {
    pub(super) fn new(
        context: Arc<LaneContext>,
        connections: Rc<Connections>,
        processor: Processor,
        claim: Claim,
        mode: watch::Receiver<Mode>,
    ) -> Self {
        Self {
            processor,
            partition: claim.partition,
            expected: claim.next,
            committer: Committer::new(context, connections, claim, mode.clone()),
            mode,
        }
    }

    /// Runs until drained, fenced or stopped. Dropping the future is safe at every point: the anchor drops
    /// the connection of a commit that was cut short.
    pub(super) async fn run(mut self, mut outlet: Outlet) -> LaneEnd {
        match self.work(&mut outlet).await {
            Ok(()) => LaneEnd::Done,
            Err(end) => end,
        }
    }

    async fn work(&mut self, outlet: &mut Outlet) -> Result<(), LaneEnd> {
        let mut committing: Option<Processed> = None;
        let mut spare: Vec<Processed> = Vec::new();
        loop {
            let draining = *self.mode.borrow() == Mode::Drain;
            let waiting = if draining {
                None
            } else if committing.is_some() {
                outlet.try_recv()
            } else {
                self.receive(outlet).await?
            };
            if let Some(batch) = &waiting {
                self.follow(batch)?;
            }
            let reuse = spare.pop().unwrap_or_default();
            let mut first = committing.take();
            committing = match (&mut first, waiting) {
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
        self.committer.settle().await
    }

    /// Checks that a batch starts where the one before it ended: a gap would be committed as if it were read.
    fn follow(&mut self, batch: &Batch) -> Result<(), LaneEnd> {
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
        self.expected = batch.to();
        Ok(())
    }

    /// The next batch; `None` when the source is gone or the lane drains. Settles when nothing comes.
    async fn receive(&mut self, outlet: &mut Outlet) -> Result<Option<Batch>, LaneEnd> {
        let mut settled = false;
        loop {
            // Biased to the mode: a drain must not wait behind a full inlet.
            tokio::select! {
                biased;
                changed = self.mode.changed() => {
                    if changed.is_err() || *self.mode.borrow() == Mode::Drain {
                        return Ok(None);
                    }
                }
                batch = outlet.recv() => return Ok(batch),
                () = tokio::time::sleep(IDLE), if !settled => {
                    self.committer.settle().await?;
                    settled = true;
                }
            }
        }
    }

    async fn process(&mut self, batch: Batch, reuse: Processed) -> Result<Processed, LaneEnd> {
        let processed = self.processor.process(batch, reuse).await;
        processed.map_err(LaneEnd::Stopped)
    }

    /// Commits one batch while the next is processed. When the commit ends the lane, so does the second.
    async fn commit_and_process(
        &mut self,
        first: &mut Processed,
        batch: Batch,
        reuse: Processed,
    ) -> Result<Processed, LaneEnd> {
        let committed = self.committer.commit(first);
        let processed = self.processor.process(batch, reuse);
        let (committed, processed) = futures_util::future::join(committed, processed).await;
        committed?;
        processed.map_err(LaneEnd::Stopped)
    }
}
