//! A lane: the work of one partition of one pipeline, in order, two batches in flight.
//!
//! While one batch commits, the next is decoded and run; when the first fails for good, the second dies with
//! it. [`Lane`] decides what a failed commit means: again, narrower, after a new claim, or the end. It never
//! guesses: an unknown outcome is resolved by claiming anew (delivery.md rule 4), a fenced lane drops
//! everything (rule 6).

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::counters::Counters;
use super::flight::{FlightBuilder, remove_record};
use super::plan::{Binding, Plan};
use super::process::{Processed, Processor};
use super::rate::DeadRate;
use crate::anchor::{Anchor, Claim, CommitError, Flight, HereRows};
use crate::clock::{Backoff, now_micros};
use crate::error::{Blame, Error};
use crate::manifest::{DataPolicy, ErrorPolicy};
use crate::route::{DeadClass, DeadLetter, code};
use crate::sink::{AheadRows, AheadSink};
use crate::source::{Outlet, SourceCommand};

/// Offsets granted past a flight, about four batches: below them an earlier version may have been sent ahead.
const GRANT: i64 = 4096;
/// A lane without work stores what a lazy anchor holds back after this long.
const IDLE: Duration = Duration::from_millis(200);
/// How far ahead of the host's clock a record's time may lie.
const AHEAD: Duration = Duration::from_secs(3600);

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
    context: Arc<LaneContext>,
    connections: Rc<Connections>,
    processor: Processor,
    builder: FlightBuilder,
    claim: Claim,
    /// Next offset to commit.
    next: i64,
    /// Write time of the last committed record.
    hlc: i64,
    /// Offsets below it may be sent ahead.
    granted: i64,
    /// Offsets below it may have been sent ahead by this owner.
    sent: Cell<i64>,
    rate: DeadRate,
    mode: watch::Receiver<Mode>,
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
            builder: FlightBuilder::new(&context.plan),
            next: claim.next,
            hlc: claim.hlc,
            granted: claim.reserved,
            sent: Cell::new(claim.next),
            rate: DeadRate::new(context.errors.max_rate),
            context,
            connections,
            processor,
            claim,
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
            let reuse = spare.pop().unwrap_or_default();
            committing = match (committing.take(), waiting) {
                (None, None) => break,
                (Some(mut first), None) => {
                    self.commit(&mut first).await?;
                    outlet.recycle(std::mem::take(&mut first.batch));
                    spare.push(first);
                    None
                }
                (None, Some(batch)) => Some(self.process(batch, reuse).await?),
                (Some(mut first), Some(batch)) => {
                    let second = self.commit_and_process(&mut first, batch, reuse).await?;
                    outlet.recycle(std::mem::take(&mut first.batch));
                    spare.push(first);
                    Some(second)
                }
            };
        }
        self.settle().await
    }

    /// The next batch; `None` when the source is gone or the lane drains. Settles when nothing comes.
    async fn receive(
        &mut self,
        outlet: &mut Outlet,
    ) -> Result<Option<crate::record::Batch>, LaneEnd> {
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
                    self.settle().await?;
                    settled = true;
                }
            }
        }
    }

    async fn process(
        &mut self,
        batch: crate::record::Batch,
        reuse: Processed,
    ) -> Result<Processed, LaneEnd> {
        let processed = self.processor.process(batch, reuse).await;
        processed.map_err(LaneEnd::Stopped)
    }

    /// Commits one batch while the next is processed. When the commit ends the lane, so does the second.
    async fn commit_and_process(
        &mut self,
        first: &mut Processed,
        batch: crate::record::Batch,
        reuse: Processed,
    ) -> Result<Processed, LaneEnd> {
        // Split the lane so that both halves can run: the processor touches nothing the commit needs.
        let Self {
            context,
            connections,
            processor,
            builder,
            claim,
            next,
            hlc,
            granted,
            sent,
            rate,
            mode,
        } = self;
        let mut committer = Committer {
            context,
            connections,
            builder,
            claim,
            next,
            hlc,
            granted,
            sent,
            rate,
            mode,
        };
        let (committed, processed) =
            futures_util::future::join(committer.commit(first), processor.process(batch, reuse))
                .await;
        committed?;
        processed.map_err(LaneEnd::Stopped)
    }

    async fn commit(&mut self, processed: &mut Processed) -> Result<(), LaneEnd> {
        let mut committer = Committer {
            context: &self.context,
            connections: &self.connections,
            builder: &mut self.builder,
            claim: &mut self.claim,
            next: &mut self.next,
            hlc: &mut self.hlc,
            granted: &mut self.granted,
            sent: &self.sent,
            rate: &mut self.rate,
            mode: &mut self.mode,
        };
        committer.commit(processed).await
    }

    async fn settle(&mut self) -> Result<(), LaneEnd> {
        let mut backoff = Backoff::default();
        loop {
            let settled = self.connections.anchor.settle(&self.claim).await;
            match settled {
                Ok(()) => return Ok(()),
                Err(CommitError::Fenced(error)) => return Err(LaneEnd::Fenced(error)),
                Err(CommitError::Stop(error)) => return Err(LaneEnd::Stopped(error)),
                // An unknown settle moves only positions over acknowledged data: asking again is safe, and a
                // lane that ends without it repeats idempotent writes.
                Err(error) => {
                    tracing::warn!(error = %error, "position not stored yet, trying again");
                    if *self.mode.borrow() == Mode::Drain {
                        return Ok(());
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }
}

/// The half of a lane that commits.
struct Committer<'l> {
    context: &'l Arc<LaneContext>,
    connections: &'l Rc<Connections>,
    builder: &'l mut FlightBuilder,
    claim: &'l mut Claim,
    next: &'l mut i64,
    hlc: &'l mut i64,
    granted: &'l mut i64,
    sent: &'l Cell<i64>,
    rate: &'l mut DeadRate,
    mode: &'l mut watch::Receiver<Mode>,
}

/// What follows a failed attempt.
enum Verdict {
    /// The same range again.
    Again,
    /// The range is committed after all.
    Committed,
    /// The database refuses something in it.
    Refused(Error),
}

impl Committer<'_> {
    /// Commits a processed batch, in one flight or, when the database refuses something in it, in several.
    async fn commit(&mut self, processed: &mut Processed) -> Result<(), LaneEnd> {
        self.set_aside_ahead(processed);
        self.apply_policy(processed)?;
        let before = *self.hlc;
        let ahead: Vec<u32> = processed
            .dead
            .iter()
            .filter(|dead| dead.code == code::TIMESTAMP_AHEAD)
            .map(|dead| dead.source)
            .collect();
        self.builder.stamp(&processed.batch, before, |index| {
            ahead.iter().any(|source| *source as usize == index)
        });
        let whole = 0..processed.batch.len();
        let mut ranges = Vec::from([whole]);
        let mut backoff = Backoff::default();
        while let Some(range) = ranges.pop() {
            match self.attempt(processed, &range, before).await? {
                Verdict::Committed => backoff = Backoff::default(),
                Verdict::Again => {
                    self.context.counters.retry();
                    ranges.push(range);
                    self.pause(&mut backoff).await?;
                }
                Verdict::Refused(_) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
                Verdict::Refused(error) => {
                    self.refuse(processed, range.start, &error)?;
                    ranges.push(range);
                }
            }
        }
        Ok(())
    }

    /// One flight and what its outcome means.
    async fn attempt(
        &mut self,
        processed: &Processed,
        range: &Range<usize>,
        before: i64,
    ) -> Result<Verdict, LaneEnd> {
        let positions = *self.next..processed.batch.positions(range).end;
        let totals = self.builder.build(processed, range);
        let hlc = self.builder.hlc(range.end, before);
        self.grant(processed, range).await?;
        let plan = &self.context.plan;
        let here: Vec<HereRows<'_>> = (0..plan.routes.len())
            .filter(|route| plan.routes[*route].binding == Binding::Here)
            .map(|route| HereRows {
                route,
                rows: &self.builder.rows[route],
            })
            .filter(|here| !here.rows.is_empty())
            .collect();
        let reserved = if plan.writes_ahead() {
            (*self.granted).max(positions.end + GRANT)
        } else {
            positions.end
        };
        let keep_dead = self.context.errors.data != DataPolicy::Skip;
        let flight = Flight {
            claim: self.claim,
            from: positions.start,
            to: positions.end,
            reserved,
            hlc,
            batch: &processed.batch,
            stamps: &self.builder.stamps,
            rows: &here,
            dead: if keep_dead { &self.builder.dead } else { &[] },
        };
        let ahead = write_ahead(self.connections, self.builder, self.sent, positions.end);
        let outcome = self.connections.anchor.commit(flight, ahead).await;
        let error = match outcome {
            Ok(()) => {
                *self.next = positions.end;
                *self.hlc = hlc;
                *self.granted = reserved;
                self.context.counters.add(&totals);
                self.advise(positions.end);
                return Ok(Verdict::Committed);
            }
            Err(error) => error,
        };
        match error {
            CommitError::Fenced(error) => Err(LaneEnd::Fenced(error)),
            CommitError::Refused(error) => Ok(Verdict::Refused(error)),
            CommitError::Stop(error) => Err(LaneEnd::Stopped(error)),
            CommitError::Ahead(error) if error.blame() != Blame::Outside => {
                Err(LaneEnd::Stopped(error))
            }
            CommitError::Ahead(error) | CommitError::RolledBack(error) => {
                tracing::warn!(partition = self.claim.partition, error = %error, "flight rolled back, trying again");
                Ok(Verdict::Again)
            }
            CommitError::Unknown(error) => {
                tracing::warn!(partition = self.claim.partition, error = %error, "outcome of a commit unknown, claiming anew");
                self.claim_anew().await?;
                if *self.next == positions.end {
                    *self.hlc = hlc;
                    self.context.counters.add(&totals);
                    return Ok(Verdict::Committed);
                }
                if *self.next == positions.start {
                    return Ok(Verdict::Again);
                }
                let detail = format!(
                    "position is {}, neither {} nor {}",
                    self.next, positions.start, positions.end
                );
                Err(LaneEnd::Fenced(Error::outside(
                    "resolve an unknown commit",
                    detail,
                )))
            }
        }
    }

    /// Tells lag tools; advice to a source that has ended is nobody's loss.
    fn advise(&self, position: i64) {
        let advice = SourceCommand::Advise {
            partition: self.claim.partition,
            position,
            taken: None,
        };
        self.context.source.send(advice).ok();
    }

    /// Makes sure every record of the range lies below the grant before it is sent ahead (rule 4).
    async fn grant(&mut self, processed: &Processed, range: &Range<usize>) -> Result<(), LaneEnd> {
        let to = processed.batch.positions(range).end;
        if !self.context.plan.writes_ahead() || to <= *self.granted {
            return Ok(());
        }
        let reserved = to + GRANT;
        let mut backoff = Backoff::default();
        loop {
            let anchor = &self.connections.anchor;
            match anchor.reserve(self.claim, *self.next, reserved).await {
                Ok(()) => {
                    *self.granted = reserved;
                    return Ok(());
                }
                Err(CommitError::Fenced(error)) => return Err(LaneEnd::Fenced(error)),
                Err(CommitError::Stop(error)) => return Err(LaneEnd::Stopped(error)),
                Err(CommitError::Unknown(_)) => {
                    let next = *self.next;
                    self.claim_anew().await?;
                    if *self.next != next {
                        let detail = format!("position is {}, expected {next}", self.next);
                        return Err(LaneEnd::Fenced(Error::outside(
                            "resolve an unknown grant",
                            detail,
                        )));
                    }
                    if to <= *self.granted {
                        return Ok(());
                    }
                }
                Err(error) => {
                    tracing::warn!(partition = self.claim.partition, error = %error, "grant not stored, trying again");
                    self.pause(&mut backoff).await?;
                }
            }
        }
    }

    /// A new claim of the same partition: the only way to learn what an unknown commit did.
    async fn claim_anew(&mut self) -> Result<(), LaneEnd> {
        let mut backoff = Backoff::default();
        loop {
            let claimed = self.connections.anchor.claim(&[self.claim.partition]).await;
            match claimed {
                Ok(claims) => {
                    let claim = claims.into_iter().next().ok_or_else(|| {
                        LaneEnd::Stopped(Error::bug(
                            "claim a partition",
                            "no claim for the partition asked for",
                        ))
                    })?;
                    *self.next = claim.next;
                    *self.granted = claim.reserved;
                    *self.claim = claim;
                    return Ok(());
                }
                Err(error) if error.blame() == Blame::Outside => {
                    tracing::warn!(partition = self.claim.partition, error = %error, "cannot claim anew yet");
                    self.pause(&mut backoff).await?;
                }
                Err(error) => return Err(LaneEnd::Stopped(error)),
            }
        }
    }

    /// Waits before another attempt; a draining lane gives up instead (nothing is lost: it is read again).
    async fn pause(&mut self, backoff: &mut Backoff) -> Result<(), LaneEnd> {
        tokio::select! {
            biased;
            _ = self.mode.wait_for(|mode| *mode == Mode::Drain) => Err(LaneEnd::Done),
            () = tokio::time::sleep(backoff.pause()) => Ok(()),
        }
    }

    /// A record the database refuses becomes a dead letter only where it was certainly never sent ahead
    /// (rule 2b); elsewhere that could contradict a write already applied, so the lane stops.
    fn refuse(
        &self,
        processed: &mut Processed,
        index: usize,
        error: &Error,
    ) -> Result<(), LaneEnd> {
        let offset = processed.batch.offsets()[index];
        let maybe_sent = offset < self.claim.reserved.max(self.sent.get());
        let stop = self.context.errors.data == DataPolicy::Stop;
        if stop || (self.context.plan.writes_ahead() && maybe_sent) {
            let why = if stop {
                "errors.data = \"stop\""
            } else {
                "it may have been written to another sink already"
            };
            return Err(LaneEnd::Stopped(
                Error::config(
                    format!("write partition {} offset {offset}", self.claim.partition),
                    format!("{}; {why}", error.detail()),
                )
                .hint("mend the table or the record's constraint, then restart the pipeline"),
            ));
        }
        let source = u32::try_from(index).expect("a batch holds far fewer than 2³² records");
        remove_record(processed, source);
        let at = processed.dead.partition_point(|dead| dead.source < source);
        processed.dead.insert(
            at,
            DeadLetter {
                source,
                class: DeadClass::Data,
                code: code::POSTGRES_REFUSED.into(),
                reason: error.detail().to_owned(),
            },
        );
        Ok(())
    }

    /// Records far ahead of the clock would poison the write times: they are set aside. Below the reservation
    /// found at the claim the limit doubles, so that a replay on a slower clock accepts what an earlier owner
    /// may have written.
    fn set_aside_ahead(&self, processed: &mut Processed) {
        if !self.context.plan.writes_ahead() {
            return;
        }
        let hour = i64::try_from(AHEAD.as_millis()).expect("an hour fits");
        let now = now_micros() / 1000;
        for index in 0..processed.batch.len() {
            let millis = processed.batch.timestamps()[index];
            let offset = processed.batch.offsets()[index];
            let limit = if offset < self.claim.reserved {
                2 * hour
            } else {
                hour
            };
            if millis <= now + limit {
                continue;
            }
            let source = u32::try_from(index).expect("a batch holds far fewer than 2³² records");
            let at = processed.dead.partition_point(|dead| dead.source < source);
            if processed
                .dead
                .get(at)
                .is_some_and(|dead| dead.source == source)
            {
                continue;
            }
            remove_record(processed, source);
            processed.dead.insert(
                at,
                DeadLetter {
                    source,
                    class: DeadClass::Data,
                    code: code::TIMESTAMP_AHEAD.into(),
                    reason: format!(
                        "timestamp {millis} ms lies more than an hour ahead of the host"
                    ),
                },
            );
        }
    }

    /// `errors.data = "stop"` and `errors.max_rate`.
    fn apply_policy(&mut self, processed: &Processed) -> Result<(), LaneEnd> {
        if self.context.errors.data == DataPolicy::Stop
            && let Some(dead) = processed.dead.first()
        {
            let offset = processed.batch.offsets()[dead.source as usize];
            return Err(LaneEnd::Stopped(
                Error::config(
                    format!("process partition {} offset {offset}", self.claim.partition),
                    format!("{}: {}; errors.data = \"stop\"", dead.code, dead.reason),
                )
                .hint("mend the producer, or set errors.data = \"dead-letter\" in the manifest"),
            ));
        }
        self.rate
            .count(processed.batch.len(), processed.dead.len())
            .map_err(LaneEnd::Stopped)
    }
}

/// The written-ahead part of a flight: every such sink, concurrently, acknowledged.
fn write_ahead<'a>(
    connections: &'a Connections,
    builder: &'a FlightBuilder,
    sent: &'a Cell<i64>,
    to: i64,
) -> crate::anchor::Ahead<'a> {
    async move {
        // From here on the flight's records may have been sent.
        sent.set(sent.get().max(to));
        let now = now_micros();
        let writes = connections
            .ahead
            .iter()
            .zip(&builder.rows)
            .filter_map(|(sink, rows)| {
                let sink = sink.as_ref()?;
                let rows = AheadRows {
                    rows,
                    stamps: &builder.stamps,
                    now,
                };
                (!rows.rows.is_empty()).then(|| sink.write(rows))
            });
        futures_util::future::try_join_all(writes).await.map(|_| ())
    }
    .boxed_local()
}
