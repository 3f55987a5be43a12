//! The half of a lane that commits: one processed batch at a time, in one flight or, when something in it is
//! refused, in several.
//!
//! [`Committer`] owns the claim and everything that moves with the position. It decides what a failed commit
//! means: again, narrower, after a new claim, or the end. It never guesses: an unknown outcome is resolved by
//! claiming anew (delivery.md rule 4), a fenced lane drops everything (rule 6).

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::flight::{FlightBuilder, remove_record, set_aside_ahead};
use super::lane::{Connections, LaneContext, LaneEnd, Mode};
use super::plan::Binding;
use super::process::Processed;
use super::rate::DeadRate;
use crate::anchor::{Claim, CommitError, Flight, HereRows, Pin};
use crate::clock::{Backoff, now_micros};
use crate::error::{Blame, Error, Retry};
use crate::manifest::DataPolicy;
use crate::route::{DeadClass, DeadLetter, code};
use crate::sink::AheadRows;
use crate::source::SourceCommand;

/// Offsets granted past a flight, about four batches: below them an earlier version may have been sent ahead.
pub(super) const GRANT: i64 = 4096;
/// Rollbacks in a row, by the server's word and not for its state, before a range is halved.
const STUBBORN: u32 = 3;

/// Commits the batches of one lane.
pub(super) struct Committer {
    context: Arc<LaneContext>,
    connections: Rc<Connections>,
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

/// What follows a failed attempt.
enum Verdict {
    /// The same range again.
    Again,
    /// The range is committed after all.
    Committed,
    /// The database refuses something in it.
    Refused(Error),
    /// Rolled back by the server's word, and not for a state of the server that passes by itself.
    Stubborn(Error),
}

impl Committer {
    pub(super) fn new(
        context: Arc<LaneContext>,
        connections: Rc<Connections>,
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
            claim,
            mode,
        }
    }

    /// Commits a processed batch.
    pub(super) async fn commit(&mut self, processed: &mut Processed) -> Result<(), LaneEnd> {
        if self.context.plan.writes_ahead() {
            set_aside_ahead(processed, self.claim.reserved, now_micros() / 1000);
        }
        self.rate
            .count(processed.batch.len(), processed.dead.len())
            .map_err(LaneEnd::Stopped)?;
        let before = self.hlc;
        let ahead: Vec<u32> = processed
            .dead
            .iter()
            .filter(|dead| dead.code == code::TIMESTAMP_AHEAD)
            .map(|dead| dead.source)
            .collect();
        self.builder.stamp(&processed.batch, before, |index| {
            ahead.iter().any(|source| *source as usize == index)
        });
        let (end, stop) = self.stop_at(processed);
        let whole = 0..end;
        let mut ranges = Vec::from([whole]);
        let mut backoff = Backoff::default();
        let mut stubborn = 0;
        while let Some(range) = ranges.pop() {
            // An empty batch, or nothing before the record that stops the lane.
            if range.is_empty() {
                continue;
            }
            let failed = stubborn;
            stubborn = 0;
            match self.attempt(processed, &range, before).await? {
                Verdict::Committed => backoff = Backoff::default(),
                Verdict::Refused(_) if range.len() > 1 => halve(&mut ranges, &range),
                Verdict::Refused(error) => {
                    self.refuse(processed, range.start, &error)?;
                    ranges.push(range);
                }
                Verdict::Stubborn(_) if failed + 1 >= STUBBORN && range.len() > 1 => {
                    halve(&mut ranges, &range);
                    backoff = Backoff::default();
                }
                Verdict::Stubborn(error)
                    if failed + 1 >= STUBBORN && error.blame() != Blame::Outside =>
                {
                    return Err(self.stop(processed, range.start, "write", error.detail()));
                }
                again => {
                    if matches!(again, Verdict::Stubborn(_)) {
                        stubborn = failed + 1;
                    }
                    self.context.counters.retry();
                    ranges.push(range);
                    self.pause(&mut backoff).await?;
                }
            }
        }
        stop.map_or(Ok(()), Err)
    }

    /// One flight and what its outcome means.
    async fn attempt(
        &mut self,
        processed: &Processed,
        range: &Range<usize>,
        before: i64,
    ) -> Result<Verdict, LaneEnd> {
        let positions = self.next..processed.batch.positions(range).end;
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
            self.granted.max(positions.end + GRANT)
        } else {
            positions.end
        };
        let keep_dead = self.context.errors.data != DataPolicy::Skip;
        let flight = Flight {
            claim: &self.claim,
            from: positions.start,
            to: positions.end,
            reserved,
            hlc,
            batch: &processed.batch,
            stamps: &self.builder.stamps,
            rows: &here,
            dead: if keep_dead { &self.builder.dead } else { &[] },
        };
        let ahead = write_ahead(&self.connections, &self.builder, &self.sent, positions.end);
        let outcome = self.connections.anchor.commit(flight, ahead).await;
        let error = match outcome {
            Ok(()) => {
                self.next = positions.end;
                self.hlc = hlc;
                self.granted = reserved;
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
            CommitError::RolledBack(error) if error.retry() == Retry::Never => {
                tracing::warn!(partition = self.claim.partition, error = %error, "flight rolled back, trying again or narrower");
                Ok(Verdict::Stubborn(error))
            }
            CommitError::Ahead(error) | CommitError::RolledBack(error) => {
                tracing::warn!(partition = self.claim.partition, error = %error, "flight rolled back, trying again");
                Ok(Verdict::Again)
            }
            CommitError::Unknown(error) => {
                tracing::warn!(partition = self.claim.partition, error = %error, "outcome of a commit unknown, claiming anew");
                self.claim_anew().await?;
                if self.next == positions.end {
                    self.context.counters.add(&totals);
                    return Ok(Verdict::Committed);
                }
                if self.next == positions.start {
                    return Ok(Verdict::Again);
                }
                Err(self.moved("resolve an unknown commit", positions.start))
            }
        }
    }

    /// Stores what a lazy anchor holds back.
    pub(super) async fn settle(&mut self) -> Result<(), LaneEnd> {
        let mut backoff = Backoff::default();
        loop {
            let settled = self.connections.anchor.settle(&self.claim).await;
            let error = match settled {
                Ok(()) => return Ok(()),
                Err(CommitError::Fenced(error)) => return Err(LaneEnd::Fenced(error)),
                Err(CommitError::Stop(error)) => return Err(LaneEnd::Stopped(error)),
                Err(error) => error,
            };
            // A lane that ends without it is safe: acknowledged rows are written once more, as they are.
            tracing::warn!(partition = self.claim.partition, error = %error, "position not stored yet");
            if *self.mode.borrow() == Mode::Drain {
                return Ok(());
            }
            if let CommitError::Unknown(_) = error {
                let next = self.next;
                self.claim_anew().await?;
                if self.next == next {
                    return Ok(());
                }
                return Err(self.moved("resolve an unknown position", next));
            }
            self.pause(&mut backoff).await?;
        }
    }

    /// The end of a lane that claimed anew and found the position elsewhere than at `expected`.
    fn moved(&self, what: &str, expected: i64) -> LaneEnd {
        let error = Error::outside(
            format!("{what} of partition {}", self.claim.partition),
            format!("position is {}, expected {expected}", self.next),
        );
        if self.next < expected {
            LaneEnd::Behind(error)
        } else {
            LaneEnd::Fenced(error)
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
        if !self.context.plan.writes_ahead() || to <= self.granted {
            return Ok(());
        }
        let reserved = to + GRANT;
        let mut backoff = Backoff::default();
        loop {
            let anchor = &self.connections.anchor;
            let pin = Pin {
                reserved,
                cuts: &self.claim.cuts,
            };
            match anchor.pin(&self.claim, self.next, pin).await {
                Ok(()) => {
                    self.granted = reserved;
                    return Ok(());
                }
                Err(CommitError::Fenced(error)) => return Err(LaneEnd::Fenced(error)),
                Err(CommitError::Stop(error)) => return Err(LaneEnd::Stopped(error)),
                Err(CommitError::Unknown(_)) => {
                    let next = self.next;
                    self.claim_anew().await?;
                    if self.next != next {
                        return Err(self.moved("resolve an unknown grant", next));
                    }
                    if to <= self.granted {
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
                    // Somebody else claimed in between (or a claim of ours was applied without an answer): what
                    // is stored now may be theirs, so nothing of this lane counts (rule 6).
                    if claim.epoch.number > self.claim.epoch.number + 1 {
                        return Err(LaneEnd::Fenced(Error::outside(
                            format!("claim partition {} anew", claim.partition),
                            format!(
                                "epoch {} where {} was expected",
                                claim.epoch.number,
                                self.claim.epoch.number + 1
                            ),
                        )));
                    }
                    self.next = claim.next;
                    self.hlc = claim.hlc;
                    self.granted = claim.reserved;
                    self.claim = claim;
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
        &mut self,
        processed: &mut Processed,
        index: usize,
        error: &Error,
    ) -> Result<(), LaneEnd> {
        let offset = processed.batch.offsets()[index];
        let source = u32::try_from(index).expect("a batch holds far fewer than 2³² records");
        let at = processed.dead.partition_point(|dead| dead.source < source);
        let dead = processed.dead.get(at);
        let why = if self.context.errors.data == DataPolicy::Stop {
            Some("errors.data = \"stop\"")
        } else if dead.is_some_and(|dead| dead.source == source) {
            Some("what is refused is its dead letter or the position itself")
        } else if self.context.plan.writes_ahead()
            && offset < self.claim.reserved.max(self.sent.get())
        {
            Some("it may have been written to another sink already")
        } else {
            None
        };
        if let Some(why) = why {
            let detail = format!("{}; {why}", error.detail());
            return Err(self.stop(processed, index, "write", &detail));
        }
        remove_record(processed, source);
        processed.dead.insert(
            at,
            DeadLetter {
                source,
                class: DeadClass::Data,
                code: code::POSTGRES_REFUSED.into(),
                reason: error.detail().to_owned(),
            },
        );
        // The record itself was counted with its batch.
        self.rate.count(0, 1).map_err(LaneEnd::Stopped)
    }

    /// A stop that names the record.
    fn stop(&self, processed: &Processed, index: usize, verb: &str, detail: &str) -> LaneEnd {
        let offset = processed.batch.offsets()[index];
        let hint = if verb == "write" {
            "mend the table or the record's constraint, then restart the pipeline"
        } else {
            "mend the producer, or set errors.data = \"dead-letter\" in the manifest"
        };
        let what = format!("{verb} partition {} offset {offset}", self.claim.partition);
        LaneEnd::Stopped(Error::config(what, detail).hint(hint))
    }

    /// Up to which record a batch is committed, and what then ends the lane: `errors.data = "stop"` stops
    /// right before the first record at fault.
    fn stop_at(&self, processed: &Processed) -> (usize, Option<LaneEnd>) {
        match processed.dead.first() {
            Some(dead) if self.context.errors.data == DataPolicy::Stop => {
                let index = dead.source as usize;
                let detail = format!("{}: {}; errors.data = \"stop\"", dead.code, dead.reason);
                let end = self.stop(processed, index, "process", &detail);
                (index, Some(end))
            }
            _ => (processed.batch.len(), None),
        }
    }
}

/// Puts both halves of a range back, the earlier on top.
fn halve(ranges: &mut Vec<Range<usize>>, range: &Range<usize>) {
    let middle = range.start + range.len() / 2;
    ranges.push(middle..range.end);
    ranges.push(range.start..middle);
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
