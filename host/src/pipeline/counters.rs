//! What happened to the records of a pipeline, counted when it is committed and never before.
//!
//! [`Counters`] holds one [`LaneCounters`] for each partition and release, so that releases can be compared.
//! The balance `received = emitted + filtered + dead` holds at every instant a reader looks at committed
//! flights; a lane adds one flight's numbers under one short lock of its own so that no reader sees half of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::anchor::Ledger;
use crate::error::Error;
use crate::route::code;

/// Releases of one partition whose numbers are kept apart; older ones are added up.
const KEPT: usize = 4;
/// Codes a plugin may make up before further ones are counted as [`OTHER`]: they are labels of metrics, and a plugin
/// that made one of each key would fill the memory of the host and of who scrapes it.
const CODES: usize = 64;
/// Where further codes are counted.
const OTHER: &str = "other";
/// Buckets of [`Latency`]: bucket `n` counts flights that took less than 2ⁿ µs.
const BUCKETS: usize = 32;

/// Committed numbers of a pipeline, a partition or a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Records read and settled.
    pub received: u64,
    /// Records that became at least one row.
    pub emitted: u64,
    /// Records the plugin dropped on purpose.
    pub filtered: u64,
    /// Records set aside.
    pub dead: u64,
    /// Rows by route index, before merging.
    pub rows: Vec<u64>,
    /// Flights committed.
    pub flights: u64,
    /// Attempts that had to be repeated.
    pub retries: u64,
    /// Records set aside by code: the host's own and about the first 64 others, further ones as `other`.
    pub dead_by_code: BTreeMap<String, u64>,
    /// Processor time spent decoding, in the plugin and checking, µs.
    pub busy_micros: u64,
    /// Time from the start of a batch's processing to its commit.
    pub latency: Latency,
}

/// How long flights took, in powers of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Latency {
    buckets: Vec<u64>,
}

impl Latency {
    /// Counts one flight.
    pub fn count(&mut self, took: Duration) {
        self.buckets.resize(BUCKETS, 0);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
    }

    /// The upper bound of the bucket in which the given share of flights (0 to 1) ends; `None` before the first.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.buckets.iter().sum();
        if all == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts of flights are far below 2^52 and a share of one is not negative"
        )]
        let rank = (all as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_micros(1 << bucket));
            }
        }
        None
    }

    fn since(&self, earlier: &Self) -> Self {
        let buckets = self.buckets.iter().enumerate();
        Self {
            buckets: buckets
                .map(|(at, now)| now.saturating_sub(earlier.buckets.get(at).copied().unwrap_or(0)))
                .collect(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.buckets
            .resize(self.buckets.len().max(other.buckets.len()), 0);
        for (all, added) in self.buckets.iter_mut().zip(&other.buckets) {
            *all += added;
        }
    }
}

impl Totals {
    /// What came on top of earlier numbers of the same thing.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let rows = self.rows.iter().enumerate();
        let codes = self.dead_by_code.iter();
        Self {
            received: self.received.saturating_sub(earlier.received),
            emitted: self.emitted.saturating_sub(earlier.emitted),
            filtered: self.filtered.saturating_sub(earlier.filtered),
            dead: self.dead.saturating_sub(earlier.dead),
            rows: rows
                .map(|(route, now)| {
                    now.saturating_sub(earlier.rows.get(route).copied().unwrap_or(0))
                })
                .collect(),
            flights: self.flights.saturating_sub(earlier.flights),
            retries: self.retries.saturating_sub(earlier.retries),
            dead_by_code: codes
                .map(|(code, now)| {
                    let then = earlier.dead_by_code.get(code).copied().unwrap_or(0);
                    (code.clone(), now.saturating_sub(then))
                })
                .collect(),
            busy_micros: self.busy_micros.saturating_sub(earlier.busy_micros),
            latency: self.latency.since(&earlier.latency),
        }
    }

    /// Adds other numbers to these.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.emitted += other.emitted;
        self.filtered += other.filtered;
        self.dead += other.dead;
        self.flights += other.flights;
        self.retries += other.retries;
        self.busy_micros += other.busy_micros;
        self.latency.add(&other.latency);
        self.rows.resize(self.rows.len().max(other.rows.len()), 0);
        for (all, added) in self.rows.iter_mut().zip(&other.rows) {
            *all += added;
        }
        for (code, added) in &other.dead_by_code {
            let codes = &mut self.dead_by_code;
            // The host's own always: canaries are judged by them.
            let kept = codes.len() < CODES
                || codes.contains_key(code)
                || code::OWN.contains(&code.as_str());
            let code = if kept { code.as_str() } else { OTHER };
            match codes.get_mut(code) {
                Some(all) => *all += added,
                None => {
                    codes.insert(code.to_owned(), *added);
                }
            }
        }
    }
}

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
    pub shadow: Option<super::shadow::Differences>,
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
    shadow: Option<super::shadow::Differences>,
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
    pub(super) fn shadow(&self) -> Option<super::shadow::Differences> {
        self.counted.lock().shadow.clone()
    }

    pub(super) fn shadowed(&self, differences: &super::shadow::Differences) {
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
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
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

    #[test]
    fn codes_that_a_plugin_makes_up_are_bounded_and_hide_none_of_ours() {
        let mut all = Totals::default();
        let dead = |code: String| Totals {
            dead: 1,
            dead_by_code: [(code, 1)].into(),
            ..Totals::default()
        };
        for n in 0..10_000 {
            all.add(&dead(format!("key-{n}")));
        }
        all.add(&dead(code::TRAP.to_owned()));
        assert_eq!(all.dead_by_code.len(), CODES + 2);
        assert_eq!(all.dead_by_code[code::TRAP], 1);
        assert_eq!(all.dead_by_code[OTHER], 10_000 - CODES as u64);
        assert_eq!(all.dead_by_code.values().sum::<u64>(), all.dead);
    }

    #[test]
    fn quantiles_are_bounds_of_powers_of_two() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        for _ in 0..99 {
            latency.count(Duration::from_micros(900));
        }
        latency.count(Duration::from_millis(70));
        assert_eq!(latency.quantile(0.5), Some(Duration::from_micros(1024)));
        assert_eq!(latency.quantile(0.99), Some(Duration::from_micros(1024)));
        assert_eq!(latency.quantile(1.0), Some(Duration::from_micros(131_072)));
    }
}
