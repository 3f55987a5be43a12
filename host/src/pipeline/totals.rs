//! Numbers that add up: what became of records, and how long it took.
//!
//! [`Totals`] and [`Latency`] are values: of a flight, a partition, a release or a pipeline. Who holds them, and when
//! they are counted, is in `counters`. What a plugin can make up in them is bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::route::code;

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

#[cfg(test)]
mod tests {
    use super::*;

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
