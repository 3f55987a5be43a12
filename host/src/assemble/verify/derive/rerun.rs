//! Records once more through the releases that made them: their rows to what the tables should hold, and a count of what
//! each became.
//!
//! They are read on a thread of their own, a few batches ahead. It asks for the records that [`Lane`]s have not seen yet,
//! in the order of their offsets, and writes nothing.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::super::{VerifyStep, outcome, topics};
use super::{Deriver, Lane, Offsets};
use crate::assemble::releases::Loaded;
use crate::assemble::world::World;
use crate::error::{Error, Result};
use crate::manifest::DataPolicy;
use crate::pipeline::{Replay, Replayed};
use crate::record::{Batch, RowBatch};
use crate::task;
use crate::verify::{At, Derived, Span, deleted_at};

/// Batches read ahead.
const AHEAD: usize = 4;
/// Record times past the year 9999 (milliseconds) count as none, as they do for write times.
const LAST_MILLIS: i64 = 253_402_300_799_999;
/// Differences of outcomes kept a partition; all of them make the check fail.
const OUTCOMES: usize = 20;

/// Offsets of one partition that one release made.
#[derive(Clone, Debug)]
struct Job {
    partition: i32,
    span: Span,
}

impl Deriver<'_> {
    /// Derives what was not derived yet, up to `ends`.
    pub(in crate::assemble::verify) async fn derive(
        &mut self,
        ends: &BTreeMap<i32, i64>,
        which: Offsets,
    ) -> Result<()> {
        let mut jobs = Vec::new();
        for (partition, lane) in &self.lanes {
            let end = ends.get(partition).copied().unwrap_or(lane.next);
            let spans = lane.timeline.clone().within(&(lane.next..end)).spans;
            jobs.extend(spans.into_iter().map(|span| Job {
                partition: *partition,
                span,
            }));
        }
        let (send, receive) = mpsc::channel(AHEAD);
        let (world, asked) = (Arc::clone(self.world), jobs.clone());
        let reading = task::thread("verify-read", move || read(&world, &asked, &send))?;
        // It takes the receiver along: a reader whose records nobody wants ends.
        let worked = self.work(&jobs, receive, which).await;
        reading.join()??;
        worked?;
        for (partition, lane) in &mut self.lanes {
            if let (Some(end), Offsets::Below) = (ends.get(partition), which) {
                lane.next = *end;
                lane.report.to = *end;
            }
        }
        Ok(())
    }

    /// Runs the records of jobs as they come.
    async fn work(
        &mut self,
        jobs: &[Job],
        mut receive: mpsc::Receiver<(usize, Batch)>,
        which: Offsets,
    ) -> Result<()> {
        let length = |range: &Range<i64>| u64::try_from(range.end - range.start).unwrap_or(0);
        let of: u64 = jobs.iter().map(|job| length(&job.span.offsets)).sum();
        let mut done = 0;
        let mut current: Option<(usize, Replay, Arc<Loaded>)> = None;
        while let Some((index, batch)) = receive.recv().await {
            let job = &jobs[index];
            if current.as_ref().is_none_or(|(at, ..)| *at != index) {
                let Some(Ok(loaded)) = self.releases.get(&job.span.release) else {
                    continue;
                };
                let loaded = Arc::clone(loaded);
                current = Some((index, Replay::new(&loaded.release)?, loaded));
            }
            let Some((_, replay, loaded)) = &mut current else {
                continue;
            };
            done += length(&(batch.from()..batch.to()));
            let replayed = replay.run(batch).await?;
            self.take(job.partition, loaded, &replayed, which)?;
            (self.progress)(VerifyStep::Records {
                done: done.min(of),
                of,
            });
        }
        Ok(())
    }

    /// What became of a batch.
    fn take(
        &mut self,
        partition: i32,
        loaded: &Loaded,
        replayed: &Replayed<'_>,
        which: Offsets,
    ) -> Result<()> {
        let Some(lane) = self.lanes.get_mut(&partition) else {
            return Ok(());
        };
        let written = lane.write_times(replayed.batch);
        let plugin = &loaded.release.plan.plugin;
        if lane.report.plugins.last() != Some(plugin) {
            lane.report.plugins.push(plugin.clone());
        }
        self.place(partition, loaded, replayed, &written, which)?;
        if which == Offsets::Below {
            self.count(partition, loaded, replayed);
        }
        Ok(())
    }

    /// Rows to their tables and topics; those of a record that stands as a dead letter go nowhere.
    fn place(
        &mut self,
        partition: i32,
        loaded: &Loaded,
        replayed: &Replayed<'_>,
        written: &[i64],
        which: Offsets,
    ) -> Result<()> {
        let batch = replayed.batch;
        let at = |source: u32| At {
            partition,
            offset: batch.offsets()[source as usize],
        };
        for (route, rows) in replayed.rows.iter().enumerate() {
            if which == Offsets::Below {
                topics::derived(&mut self.topics, loaded, route, rows, |source| {
                    let at = at(source);
                    (!self.letters.contains_key(&at)).then_some(at)
                });
            }
            let Some(expected) = self.tables.of(&loaded.release.id, route) else {
                continue;
            };
            let bound = &loaded.release.plan.routes[route].route;
            for row in rows.iter() {
                let at = at(row.source);
                if self.letters.contains_key(&at) {
                    continue;
                }
                let derived = Derived {
                    at,
                    written: written[row.source as usize],
                    time: batch.timestamps()[row.source as usize],
                    columns: &bound.columns,
                    deleted_at: deleted_at(bound),
                    row,
                };
                let taken = match which {
                    Offsets::Below => expected.derived(derived),
                    Offsets::MaybeSent => expected.moved_on(derived),
                };
                taken.map_err(|detail| Error::bug(format!("derive the rows of {at}"), detail))?;
            }
        }
        Ok(())
    }

    /// Counts what each record became, and tells where that is not what its dead letter says.
    fn count(&mut self, partition: i32, loaded: &Loaded, replayed: &Replayed<'_>) {
        let Some(lane) = self.lanes.get_mut(&partition) else {
            return;
        };
        let mut dead = replayed
            .dead
            .iter()
            .map(|dead| dead.source as usize)
            .peekable();
        for (index, rows) in rows_of_each(replayed).into_iter().enumerate() {
            let fails = dead.next_if_eq(&index).is_some();
            let at = At {
                partition,
                offset: replayed.batch.offsets()[index],
            };
            lane.report.records += 1;
            if let Some(letter) = self.letters.get(&at) {
                lane.report.dead += 1;
                if !fails && outcome::is_told_by_the_record(letter) {
                    lane.outcomes += 1;
                    let difference = outcome::differs(at, letter, rows);
                    self.differences
                        .extend((lane.outcomes <= OUTCOMES).then_some(difference));
                }
            } else if fails {
                lane.report.dead += 1;
                match loaded.release.errors.data {
                    DataPolicy::Skip => lane.skipped += 1,
                    DataPolicy::DeadLetter | DataPolicy::Stop => {
                        lane.unlettered.insert(at.offset);
                    }
                }
            } else if rows > 0 {
                lane.report.emitted += 1;
            } else {
                lane.report.filtered += 1;
            }
        }
    }
}

impl Lane {
    /// Write times of the records that come next, microseconds: as they were when the records were first processed.
    fn write_times(&mut self, batch: &Batch) -> Vec<i64> {
        let times = batch.timestamps().iter().map(|millis| {
            let own = if (0..=LAST_MILLIS).contains(millis) {
                (millis * 1000) & !1
            } else {
                0
            };
            self.written = own.max(self.written + 2);
            self.written
        });
        times.collect()
    }
}

/// How many rows each record of a batch became.
fn rows_of_each(replayed: &Replayed<'_>) -> Vec<u32> {
    let mut counts = vec![0; replayed.batch.len()];
    for row in replayed.rows.iter().flat_map(RowBatch::iter) {
        counts[row.source as usize] += 1;
    }
    counts
}

/// Reads the records of jobs, on a thread of its own.
fn read(world: &World, jobs: &[Job], send: &mpsc::Sender<(usize, Batch)>) -> Result<()> {
    let ranges = world.ranges()?;
    for (index, job) in jobs.iter().enumerate() {
        let mut gone = false;
        ranges.read(job.partition, &job.span.offsets, |batch| {
            gone = send.blocking_send((index, batch)).is_err();
            if gone {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if gone {
            return Ok(());
        }
    }
    Ok(())
}
