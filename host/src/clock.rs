//! Time and patience: the wall clock in the units we use, what a thread has used of the CPU, and the pause between
//! attempts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01 UTC by the host's clock.
#[must_use]
pub fn now_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// CPU time that the current thread has used.
#[must_use]
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The first pause.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that double from 50 ms to 30 s, each shortened by up to half at random, so that many lanes that
/// lost the same database do not come back in step.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    noise: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(FIRST, LONGEST)
    }
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        let noise = uuid::Uuid::new_v4().as_u64_pair().0 | 1;
        Self {
            next: first.min(longest),
            longest,
            noise,
        }
    }

    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        // xorshift64: spreads attempts, decides nothing.
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        let whole = self.next;
        self.next = (whole * 2).min(self.longest);
        let share = u32::try_from(self.noise % 512).expect("below 512") + 512;
        whole * share / 1023
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_never_vanish() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST);
        assert!(pauses[19] >= LONGEST / 2 && pauses[19] <= LONGEST);
    }
}
