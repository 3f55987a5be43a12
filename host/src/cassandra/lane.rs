//! What the anchor knows of one lane: what is stored, what is held back, and whether it still owns anything.
//!
//! Pure. The position of a lane is stored lazily, over data that is acknowledged already: a crash loses only
//! the position, and the same rows are written again with the same times.

use std::time::{Duration, Instant};

use crate::anchor::{Claim, Cut, Epoch, Ledger, Pin};

/// Shortest time between two positions stored for a lane: each costs an LWT (3 ms on one node, and a bounded
/// number a second for all lanes together).
const INTERVAL: Duration = Duration::from_millis(200);

/// The changing part of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) next: i64,
    pub(super) reserved: i64,
    pub(super) hlc: i64,
    pub(super) ledger: Ledger,
}

/// Whether the lane may go on under its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It owns the partition as far as it knows.
    Live,
    /// A change is on the wire. Found by anyone else, its sender was dropped: the outcome is not known.
    Flying,
    /// Another claim is newer.
    Fenced,
    /// The outcome of a change is not known.
    Unknown,
}

/// One lane under one claim.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) epoch: Epoch,
    pub(super) state: State,
    stored: Mark,
    cuts: Vec<Cut>,
    pending: Option<Mark>,
    last: Option<Instant>,
}

impl Lane {
    pub(super) fn new(claim: &Claim) -> Self {
        Self {
            epoch: claim.epoch.clone(),
            state: State::Live,
            stored: Mark {
                next: claim.next,
                reserved: claim.reserved,
                hlc: claim.hlc,
                ledger: claim.ledger,
            },
            cuts: claim.cuts.clone(),
            pending: None,
            last: None,
        }
    }

    /// Whether exactly this is stored, and nothing held back.
    pub(super) fn has(&self, pin: Pin<'_>) -> bool {
        !self.holds() && self.stored.reserved == pin.reserved && self.cuts == pin.cuts
    }

    /// What the anchor stores for sure.
    pub(super) fn stored(&self) -> Mark {
        self.stored
    }

    /// Where the lane stands, held back or not.
    pub(super) fn head(&self) -> Mark {
        self.pending.unwrap_or(self.stored)
    }

    /// Whether something is held back.
    pub(super) fn holds(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes an advance over acknowledged data; the grant never shrinks.
    pub(super) fn advance(&mut self, to: Mark) {
        let reserved = to.reserved.max(self.head().reserved);
        self.pending = Some(Mark { reserved, ..to });
    }

    /// Whether it is time to store: at the first flight, then at most every 200 ms.
    pub(super) fn due(&self, now: Instant) -> bool {
        self.holds()
            && self
                .last
                .is_none_or(|last| now.duration_since(last) >= INTERVAL)
    }

    /// A change to `to` was stored.
    pub(super) fn landed(&mut self, to: Mark, now: Instant) {
        self.stored = to;
        self.pending = None;
        self.last = Some(now);
        self.state = State::Live;
    }

    /// A grant and cuts were stored at the stored position; nothing was held back.
    pub(super) fn pinned(&mut self, pin: Pin<'_>) {
        self.stored.reserved = pin.reserved;
        self.cuts = pin.cuts.to_vec();
        self.state = State::Live;
    }

    /// The lane ends under this claim; what it held back is dropped.
    pub(super) fn end(&mut self, state: State) {
        self.pending = None;
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        Lane::new(&Claim {
            partition: 0,
            epoch: Epoch {
                number: 1,
                id: uuid::Uuid::nil(),
            },
            next: 10,
            reserved: 20,
            hlc: 5,
            ledger: Ledger::default(),
            cuts: Vec::new(),
            topic_id: None,
        })
    }

    fn mark(next: i64, reserved: i64) -> Mark {
        Mark {
            next,
            reserved,
            hlc: next,
            ledger: Ledger::default(),
        }
    }

    #[test]
    fn the_first_advance_is_due_and_the_next_waits() {
        let mut lane = lane();
        let start = Instant::now();
        assert!(!lane.due(start), "nothing to store");
        lane.advance(mark(11, 30));
        assert!(lane.due(start));
        lane.landed(lane.head(), start);
        assert_eq!(lane.stored(), mark(11, 30));
        lane.advance(mark(12, 25));
        lane.advance(mark(13, 25));
        assert_eq!(lane.head(), mark(13, 30), "a grant never shrinks");
        assert_eq!(lane.stored().next, 11);
        assert!(!lane.due(start + Duration::from_millis(199)));
        assert!(lane.due(start + Duration::from_millis(200)));
    }

    #[test]
    fn a_pin_stores_exactly_and_an_advance_only_raises() {
        let mut lane = lane();
        let cuts = [Cut::new(10, "a".to_owned())];
        let pin = |reserved| Pin {
            reserved,
            cuts: &cuts,
        };
        assert!(!lane.has(pin(20)), "the cuts differ");
        lane.pinned(pin(20));
        assert!(lane.has(pin(20)) && !lane.has(pin(10)));
        lane.pinned(pin(10));
        assert_eq!(
            lane.stored(),
            Mark {
                reserved: 10,
                hlc: 5,
                next: 10,
                ledger: Ledger::default()
            }
        );
        lane.advance(mark(11, 5));
        assert_eq!(lane.head().reserved, 10);
        assert!(!lane.has(pin(10)), "something is held back");
    }

    #[test]
    fn a_lane_that_ended_holds_nothing() {
        let mut lane = lane();
        lane.advance(mark(11, 30));
        lane.end(State::Fenced);
        assert!(!lane.holds());
        assert_eq!(lane.head().next, 10);
    }
}
