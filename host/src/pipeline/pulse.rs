//! Whether a lane is alive: [`Pulse`], beaten by every turn it takes, and [`Watch`], which notices that it no longer is.
//!
//! The poll loop of a source always polls, so a lane that hangs shows up nowhere else. One that waits for something
//! outside takes a turn at every attempt and every pause (at most 30 s apart); only one that lost a wake-up, hangs in a
//! call without a time-out of its own, or whose shard is blocked takes none. Pure: it restarts nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::source::Waiting;

/// Turns of a lane; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// One turn.
    pub(super) fn beat(&self) {
        // Nothing is ordered by it: a watch that sees it late looks again.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Looks at a lane now and then.
#[derive(Debug)]
pub(super) struct Watch {
    pulse: Pulse,
    waiting: Waiting,
    /// Turns at the last look, and since when there were no more or nothing waited.
    seen: (u64, Instant),
}

impl Watch {
    pub(super) fn new(pulse: Pulse, waiting: Waiting) -> Self {
        Self {
            pulse,
            waiting,
            seen: (0, Instant::now()),
        }
    }

    /// How long the lane has taken no turn by `now` although records wait for it.
    pub(super) fn still(&mut self, now: Instant) -> Duration {
        let turns = self.pulse.0.load(Ordering::Relaxed);
        if turns != self.seen.0 || self.waiting.records() == 0 {
            self.seen = (turns, now);
        }
        now.saturating_duration_since(self.seen.1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::record::{Batch, Record};
    use crate::source;

    #[test]
    fn only_a_lane_without_a_turn_while_records_wait_stands_still() {
        let (inlet, mut outlet) = source::channel();
        let pulse = Pulse::default();
        let mut watch = Watch::new(pulse.clone(), inlet.waiting());
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(watch.still(at(10)), Duration::ZERO, "nothing waits");
        let mut batch = Batch::new(0, 0);
        batch.push(Record {
            key: None,
            value: Some(b"v"),
            timestamp: 0,
            offset: 0,
            headers: b"",
            marks: 0,
        });
        inlet.send(batch).unwrap();
        assert_eq!(watch.still(at(20)), Duration::from_secs(10));
        pulse.beat();
        assert_eq!(watch.still(at(30)), Duration::ZERO);
        assert_eq!(watch.still(at(95)), Duration::from_secs(65));
        outlet.try_recv().unwrap();
        assert_eq!(watch.still(at(100)), Duration::ZERO);
    }
}
