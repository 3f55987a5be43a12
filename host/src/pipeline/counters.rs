//! Who counts what happened to the records of a pipeline: when it is committed and never before.
//!
//! [`Counters`] holds one [`LaneCounters`] for each partition and release, so that releases can be compared.
//! The balance `received = emitted + filtered + dead` of [`Totals`] holds at every instant a reader looks at committed
//! flights; a lane adds one flight's numbers under one short lock of its own so that no reader sees half of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::shadow::Differences;
pub(super) use super::totals::Totals;
use super::waits::{Waiter, Waiting, Waits};
use crate::anchor::Ledger;
use crate::error::Error;

/// Releases of one partition whose numbers are kept apart; older ones are added up.
const KEPT: usize = 4;

/// One partition under one release, as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneTotals {
    /// The partition.
    pub partition: i32,
    /// The release.
    pub release: Arc<str>,
    /// Whether a lane runs there now.
    pub running: bool,
    /// How long lanes ran there since the process started.
    pub ran: Duration,
    /// Whether the lane runs, or ran last, apart from its partition's shard because it misbehaved there.
    pub quarantined: bool,
    /// Whether it took no turn for long although records waited, and has committed nothing since.
    pub stalled: bool,
    /// Committed position; `None` before the first lane of this process.
    pub position: Option<i64>,
    /// What became of every record of the partition below the position.
    pub ledger: Ledger,
    /// The numbers since the process started.
    pub totals: Totals,
    /// Why the release stopped there, or did not even begin, where that was the last that happened.
    pub failure: Option<Error>,
    /// What the shadow release did differently here.
    pub shadow: Option<Differences>,
}

#[derive(Debug, Default)]
struct Counted {
    // A lane that was dropped may still be there when the next one begins.
    running: u32,
    /// Since when any does.
    since: Option<Instant>,
    /// How long others did before.
    ran: Duration,
    quarantined: bool,
    stalled: bool,
    position: Option<i64>,
    ledger: Ledger,
    totals: Totals,
    failure: Option<Error>,
    shadow: Option<Differences>,
}

impl Counted {
    fn ran(&self) -> Duration {
        self.ran + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// The numbers of one partition under one release.
#[derive(Debug, Default)]
pub(super) struct LaneCounters {
    // Taken once a flight by the one lane that writes, and by readers; never across an await.
    counted: Mutex<Counted>,
}

impl LaneCounters {
    /// Adds a committed flight that ends at `position` with `ledger`, `took` after its processing began.
    pub(super) fn add(&self, flight: &Totals, position: i64, ledger: Ledger, took: Duration) {
        let mut counted = self.counted.lock();
        counted.totals.add(flight);
        counted.totals.latency.count(took);
        counted.position = Some(position);
        counted.ledger = ledger;
        counted.stalled = false;
    }

    /// Counts one attempt that has to be repeated.
    pub(super) fn retry(&self) {
        self.counted.lock().totals.retries += 1;
    }

    /// A lane goes on here, at a committed position, until what is returned is dropped: also with a lane that is
    /// cut short.
    pub(super) fn runs_at(
        self: Arc<Self>,
        position: i64,
        ledger: Ledger,
        quarantined: bool,
    ) -> Running {
        {
            let mut counted = self.counted.lock();
            counted.running += 1;
            counted.since.get_or_insert_with(Instant::now);
            counted.position = Some(position);
            counted.ledger = ledger;
            counted.quarantined = quarantined;
            counted.failure = None;
        }
        Running(self)
    }

    /// The release stopped here, or could not begin.
    pub(super) fn failed(&self, error: &Error) {
        self.counted.lock().failure = Some(error.clone());
    }

    /// What a shadow did differently so far.
    pub(super) fn shadow(&self) -> Option<Differences> {
        self.counted.lock().shadow.clone()
    }

    pub(super) fn shadowed(&self, differences: &Differences) {
        self.counted.lock().shadow = Some(differences.clone());
    }
}

/// A lane that runs.
#[derive(Debug)]
pub(super) struct Running(Arc<LaneCounters>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut counted = self.0.counted.lock();
        counted.running -= 1;
        if counted.running == 0 {
            counted.ran = counted.ran();
            counted.since = None;
        }
    }
}

/// The numbers of a release.
type ByRelease = (Arc<str>, Arc<LaneCounters>);

#[derive(Debug, Default)]
struct Lanes {
    // Oldest first in each partition.
    lanes: BTreeMap<i32, Vec<ByRelease>>,
    retired: Totals,
}

/// Shared counters of a pipeline.
#[derive(Debug, Default)]
pub struct Counters {
    // Taken when a lane starts and by readers; never on the way of a record.
    lanes: Mutex<Lanes>,
    waits: Arc<Waits>,
}

impl Counters {
    /// Zero everywhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters of a partition under a release: those it had, or new ones.
    pub(super) fn lane(&self, partition: i32, release: &Arc<str>) -> Arc<LaneCounters> {
        let mut all = self.lanes.lock();
        let Lanes { lanes, retired } = &mut *all;
        let kept = lanes.entry(partition).or_default();
        if let Some(at) = kept.iter().position(|(id, _)| id == release) {
            let found = kept.remove(at);
            let counters = Arc::clone(&found.1);
            kept.push(found);
            return counters;
        }
        while kept.len() >= KEPT {
            let (_, oldest) = kept.remove(0);
            retired.add(&oldest.counted.lock().totals);
        }
        let counters = Arc::new(LaneCounters::default());
        kept.push((Arc::clone(release), Arc::clone(&counters)));
        counters
    }

    /// The lane that runs a partition stands still.
    pub(super) fn stalled(&self, partition: i32) {
        let all = self.lanes.lock();
        for (_, counters) in all.lanes.get(&partition).into_iter().flatten() {
            let mut counted = counters.counted.lock();
            counted.stalled = counted.running > 0;
        }
    }

    /// Forgets why releases stopped: what follows is another attempt, to be judged by itself.
    pub fn forget_failures(&self) {
        for (_, counters) in self.lanes.lock().lanes.values().flatten() {
            counters.counted.lock().failure = None;
        }
    }

    /// Something that may have to wait for servers, for these partitions or, without any, for the whole pipeline.
    /// `server`: whose fault it is where an error does not say, in the words of the config.
    #[must_use]
    pub fn waiter(
        &self,
        pipeline: &Arc<str>,
        server: Option<String>,
        partitions: &[i32],
    ) -> Waiter {
        self.waits.waiter(pipeline, server, partitions)
    }

    /// What the pipeline waits for now, by server; empty when it gets on.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        self.waits.seen()
    }

    /// Everything since the process started.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let all = self.lanes.lock();
        let mut totals = all.retired.clone();
        for (_, counters) in all.lanes.values().flatten() {
            totals.add(&counters.counted.lock().totals);
        }
        totals
    }

    /// The latest releases of each partition, ascending by partition, oldest release first.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneTotals> {
        let all = self.lanes.lock();
        let mut seen = Vec::new();
        for (partition, kept) in &all.lanes {
            for (release, counters) in kept {
                let counted = counters.counted.lock();
                seen.push(LaneTotals {
                    partition: *partition,
                    release: Arc::clone(release),
                    running: counted.running > 0,
                    ran: counted.ran(),
                    quarantined: counted.quarantined,
                    stalled: counted.stalled,
                    position: counted.position,
                    ledger: counted.ledger,
                    totals: counted.totals.clone(),
                    failure: counted.failure.clone(),
                    shadow: counted.shadow.clone(),
                });
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_releases_long_gone_stay_in_the_sum() {
        let counters = Counters::new();
        let flight = Totals {
            received: 3,
            emitted: 2,
            dead: 1,
            rows: vec![2],
            dead_by_code: [("trap".to_owned(), 1)].into(),
            ..Totals::default()
        };
        for release in 0..10 {
            let id: Arc<str> = format!("r{release}").into();
            for _ in 0..2 {
                let lane = counters.lane(0, &id);
                lane.add(&flight, release, Ledger::default(), Duration::ZERO);
            }
        }
        let totals = counters.totals();
        assert_eq!((totals.received, totals.dead), (60, 20));
        assert_eq!(
            (totals.rows, totals.dead_by_code["trap"]),
            (vec![40_u64], 20)
        );
        assert_eq!(counters.lanes().len(), KEPT);
        assert_eq!(&*counters.lanes()[KEPT - 1].release, "r9");
    }

    #[test]
    fn only_the_time_with_a_lane_counts_as_run() {
        let counters = Counters::new();
        let lane = counters.lane(0, &"r".into());
        let ran = || counters.lanes()[0].ran;
        let pause = || std::thread::sleep(Duration::from_millis(20));
        pause();
        assert_eq!(ran(), Duration::ZERO);
        // The next lane begins before the last one is gone.
        let first = Arc::clone(&lane).runs_at(0, Ledger::default(), false);
        let second = Arc::clone(&lane).runs_at(0, Ledger::default(), false);
        pause();
        drop(first);
        assert!(ran() >= Duration::from_millis(20));
        drop(second);
        let so_far = ran();
        pause();
        assert_eq!(ran(), so_far, "nobody runs");
        let _third = lane.runs_at(0, Ledger::default(), false);
        pause();
        assert!(ran() >= so_far + Duration::from_millis(20));
    }
}
