//! Time and patience: the wall clock in the units we use, the processor time of a piece of work, and the pause
//! between attempts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since 1970-01-01 UTC by the host's clock.
#[must_use]
pub fn now_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Runs a future and tells how much processor time its own polls took: neither what the thread did between them, nor
/// what kept the thread from a processor, is in it. Two short system calls a poll.
pub async fn on_cpu<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let mut future = std::pin::pin!(future);
    let mut spent = Duration::ZERO;
    let output = std::future::poll_fn(|context| {
        let before = thread_time();
        let polled = future.as_mut().poll(context);
        spent += thread_time().saturating_sub(before);
        polled
    })
    .await;
    (output, spent)
}

/// Processor time of this thread so far.
#[must_use]
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
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

    /// Keeps the thread on its processor for so long.
    fn burn(time: Duration) {
        let before = thread_time();
        while thread_time() - before < time {}
    }

    #[test]
    fn only_its_own_polls_are_a_futures_processor_time() {
        let (own, foreign) = (Duration::from_millis(20), Duration::from_millis(300));
        let work = async {
            burn(own);
            tokio::task::yield_now().await;
            std::thread::sleep(foreign);
            burn(own);
        };
        let neighbour = async { burn(foreign) };
        let both = futures_util::future::join(on_cpu(work), neighbour);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let (((), spent), ()) = runtime.expect("no I/O to set up").block_on(both);
        assert!(spent >= own * 2 && spent < foreign, "{spent:?}");
    }

    #[test]
    fn an_hour_without_the_database_costs_it_a_few_attempts_a_minute() {
        for _ in 0..100 {
            let mut backoff = Backoff::default();
            let (mut waited, mut attempts) = (Duration::ZERO, 0);
            while waited < Duration::from_hours(1) {
                waited += backoff.pause();
                attempts += 1;
            }
            assert!((120..260).contains(&attempts), "{attempts}");
        }
    }

    #[test]
    fn pauses_grow_to_the_longest_and_never_vanish() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses[0] >= FIRST / 2 && pauses[0] <= FIRST);
        assert!(pauses[19] >= LONGEST / 2 && pauses[19] <= LONGEST);
    }
}
