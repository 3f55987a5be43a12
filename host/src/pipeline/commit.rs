//! The half of a lane that commits: one processed batch at a time, in one flight or, when something in it is
//! refused, in several.
//!
//! [`Committer`] decides what a failed commit means: again, narrower, after a new claim, or the end. The claim
//! itself, and what moves with the position, is [`Ownership`]'s.

use std::ops::Range;
use std::sync::Arc;

use super::counters::LaneCounters;
use super::flight::{FlightBuilder, remove_record, set_aside_ahead};
use super::lane::{LaneContext, LaneEnd};
use super::ownership::Ownership;
use super::process::Processed;
use super::rate::DeadRate;
use crate::anchor::{Ahead, CommitError, Flight};
use crate::clock::{Backoff, now_micros};
use crate::error::{Blame, Error, Retry};
use crate::manifest::DataPolicy;
use crate::record::Batch;
use crate::route::{DeadClass, DeadLetter, code};
use crate::source::SourceCommand;

/// Rollbacks in a row, by the server's word and not for its state, before a range is halved.
const STUBBORN: u32 = 3;

/// Commits the batches of one lane.
pub(super) struct Committer {
    context: Arc<LaneContext>,
    builder: FlightBuilder,
    pub(super) owned: Ownership,
    rate: DeadRate,
    counters: Arc<LaneCounters>,
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
    pub(super) fn new(context: Arc<LaneContext>, owned: Ownership) -> Self {
        Self {
            builder: FlightBuilder::new(&context.release.plan),
            rate: DeadRate::new(context.release.errors.max_rate),
            counters: context
                .counters
                .lane(owned.claim.partition, &context.release.id),
            context,
            owned,
        }
    }

    /// Commits a processed batch.
    pub(super) async fn commit(&mut self, processed: &mut Processed) -> Result<(), LaneEnd> {
        if self.context.release.plan.writes_ahead() {
            set_aside_ahead(processed, self.owned.found, now_micros() / 1000);
            self.refuse_unseen(processed)?;
        }
        self.rate
            .count(processed.batch.len(), processed.dead.len())
            .map_err(LaneEnd::Stopped)?;
        let before = self.owned.hlc;
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
                    self.counters.retry();
                    ranges.push(range);
                    self.owned.pause(&mut backoff).await?;
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
        let positions = self.owned.next..processed.batch.positions(range).end;
        let mut totals = self
            .builder
            .build(processed, range)
            .map_err(LaneEnd::Stopped)?;
        let ledger = self
            .owned
            .ledger
            .settle(totals.received, totals.emitted, totals.dead)
            .map_err(LaneEnd::Stopped)?;
        if range.start == 0 {
            totals.busy_micros = u64::try_from(processed.busy.as_micros()).unwrap_or(u64::MAX);
        }
        let hlc = self.builder.hlc(range.end, before);
        if self.context.release.plan.writes_ahead() {
            self.owned.grant(positions.end).await?;
        }
        self.owned.flown = self.owned.flown.max(positions.end);
        let plan = &self.context.release.plan;
        let here = self.builder.here();
        let reserved = if plan.writes_ahead() {
            self.owned.granted.max(self.owned.credit(positions.end))
        } else {
            positions.end
        };
        let keep_dead = self.context.release.errors.data != DataPolicy::Skip;
        let flight = Flight {
            claim: &self.owned.claim,
            from: positions.start,
            to: positions.end,
            reserved,
            hlc,
            ledger,
            batch: &processed.batch,
            stamps: &self.builder.stamps,
            rows: &here,
            dead: if keep_dead { &self.builder.dead } else { &[] },
        };
        let ahead = if plan.writes_ahead() {
            write_ahead(&self.owned, &self.builder, &processed.batch, positions.end)
        } else {
            Ahead::nothing()
        };
        let outcome = self.owned.connections.anchor.commit(flight, ahead).await;
        let error = match outcome {
            Ok(()) => {
                self.owned.next = positions.end;
                self.owned.hlc = hlc;
                self.owned.ledger = ledger;
                self.owned.granted = reserved;
                self.owned.waiter.done();
                let took = processed.begun.elapsed();
                self.counters.add(&totals, positions.end, ledger, took);
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
                let waiter = &self.owned.waiter;
                waiter.failed(&error, "flight rolled back, trying again or narrower");
                Ok(Verdict::Stubborn(error))
            }
            CommitError::Ahead(error) | CommitError::RolledBack(error) => {
                let waiter = &self.owned.waiter;
                waiter.failed(&error, "flight rolled back, trying again");
                Ok(Verdict::Again)
            }
            CommitError::Unknown(error) => {
                tracing::warn!(partition = self.owned.claim.partition, error = %error, "outcome of a commit unknown, claiming anew");
                self.owned.waiter.failed(&error, "commit not answered");
                self.owned.claim_anew().await?;
                if self.owned.next == positions.end {
                    self.owned.waiter.done();
                    let took = processed.begun.elapsed();
                    self.counters.add(&totals, positions.end, ledger, took);
                    return Ok(Verdict::Committed);
                }
                if self.owned.next == positions.start {
                    return Ok(Verdict::Again);
                }
                Err(self
                    .owned
                    .moved("resolve an unknown commit", positions.start))
            }
        }
    }

    /// Tells lag tools; advice to a source that has ended is nobody's loss.
    fn advise(&self, position: i64) {
        let advice = SourceCommand::Advise {
            partition: self.owned.claim.partition,
            position,
            taken: None,
        };
        self.context.source.send(advice).ok();
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
        let why = if self.context.release.errors.data == DataPolicy::Stop {
            Some("errors.data = \"stop\"")
        } else if dead.is_some_and(|dead| dead.source == source) {
            Some("what is refused is its dead letter or the position itself")
        } else if self.context.release.plan.writes_ahead()
            && offset < self.owned.found.max(self.owned.sent.get())
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

    /// A record that was set aside without a look at it may not be when an earlier owner may have sent its rows.
    fn refuse_unseen(&self, processed: &Processed) -> Result<(), LaneEnd> {
        let offsets = processed.batch.offsets();
        let unseen = processed.dead.iter().find(|dead| {
            dead.code == code::KILLS_HOST && offsets[dead.source as usize] < self.owned.found
        });
        unseen.map_or(Ok(()), |dead| {
            let (release, reserved) = (&self.context.release.id, self.owned.granted);
            let detail = format!(
                "{}; it may have been written to another sink already: it cannot be set aside, and release {release} has \
                 to complete what lies below offset {reserved}",
                dead.reason
            );
            Err(self.stop(processed, dead.source as usize, "run", &detail))
        })
    }

    /// A stop that names the record.
    fn stop(&self, processed: &Processed, index: usize, verb: &str, detail: &str) -> LaneEnd {
        let offset = processed.batch.offsets()[index];
        let hint = match verb {
            "write" => "mend the table or the record's constraint, then restart the pipeline",
            "run" => {
                "look at the host's log, and at its core file, for what it died of and mend that (memory, a limit of the \
                 machine, a newer wasmill), then resume: the record is tried three times again; a version of the plugin \
                 that does not die of it can be deployed now, and begins where that release has completed its part"
            }
            _ => "mend the producer, or set errors.data = \"dead-letter\" in the manifest",
        };
        let what = format!(
            "{verb} partition {} offset {offset}",
            self.owned.claim.partition
        );
        LaneEnd::Stopped(Error::config(what, detail).hint(hint))
    }

    /// Up to which record a batch is committed, and what then ends the lane: `errors.data = "stop"` stops
    /// right before the first record at fault.
    fn stop_at(&self, processed: &Processed) -> (usize, Option<LaneEnd>) {
        match processed.dead.first() {
            Some(dead) if self.context.release.errors.data == DataPolicy::Stop => {
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

/// The written-ahead part of a flight.
fn write_ahead<'a>(
    owned: &'a Ownership,
    builder: &'a FlightBuilder,
    batch: &'a Batch,
    to: i64,
) -> Ahead<'a> {
    Ahead::writes(async move {
        // From here on the flight's records may have been sent.
        owned.sent.set(owned.sent.get().max(to));
        builder.send(&owned.connections.ahead, batch).await
    })
}
