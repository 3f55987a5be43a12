//! The anchor that holds positions back, as Cassandra's does: they are stored with every third flight, and when it is
//! told to settle.

use super::anchor::FakeAnchor;
use super::outside;
use super::script::Fault;
use crate::anchor::{Ahead, Claim, CommitError, Epoch, Flight, Ledger};
use crate::error::Error;

/// The moving part of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) next: i64,
    pub(super) reserved: i64,
    pub(super) hlc: i64,
    pub(super) ledger: Ledger,
}

/// What a lazy anchor knows of a lane: an object of its own for each release, as with the real one.
#[derive(Clone, Debug)]
pub(in super::super) struct Held {
    pub(super) epoch: Epoch,
    pub(super) stored: Mark,
    pub(super) pending: Option<Mark>,
    pub(super) flights: u32,
    pub(super) is_unknown: bool,
}

impl Held {
    pub(super) fn new(claim: &Claim) -> Self {
        Self {
            epoch: claim.epoch.clone(),
            stored: Mark {
                next: claim.next,
                reserved: claim.reserved,
                hlc: claim.hlc,
                ledger: claim.ledger,
            },
            pending: None,
            flights: 0,
            is_unknown: false,
        }
    }
}

impl FakeAnchor {
    /// What is stored and where the lane of a claim stands.
    pub(super) fn board(&self, claim: &Claim) -> Result<(Mark, Option<Mark>), CommitError> {
        let mut lanes = self.lanes.lock();
        let lane = lanes
            .entry(claim.partition)
            .or_insert_with(|| Held::new(claim));
        if lane.epoch.number < claim.epoch.number {
            *lane = Held::new(claim);
        }
        if lane.epoch != claim.epoch {
            return Err(CommitError::Fenced(outside("claimed again")));
        }
        if lane.is_unknown {
            return Err(self.unknown(false));
        }
        Ok((lane.stored, lane.pending))
    }

    pub(super) fn with_lane(&self, partition: i32, act: impl FnOnce(&mut Held)) {
        self.lanes.lock().get_mut(&partition).map(act);
    }

    /// The outcome of a change is not known: what was held back is dropped.
    pub(super) fn lose(&self, claim: &Claim, is_pin: bool) -> CommitError {
        self.with_lane(claim.partition, |lane| {
            lane.pending = None;
            lane.is_unknown = true;
        });
        self.unknown(is_pin)
    }

    pub(super) async fn fly_lazily(
        &self,
        flight: Flight<'_>,
        ahead: Ahead<'_>,
        fault: Fault,
        dead: Vec<(i64, String)>,
    ) -> Result<(), CommitError> {
        let (stored, pending) = self.board(flight.claim)?;
        let head = pending.unwrap_or(stored);
        if head.next != flight.from {
            let detail = format!("it stands at {}, not {}", head.next, flight.from);
            return Err(CommitError::Stop(Error::bug("fly", detail)));
        }
        if flight.to > stored.reserved {
            let reserved = head.reserved.max(flight.reserved).max(flight.to);
            self.keep(flight.claim, Mark { reserved, ..head }).await?;
        }
        {
            let mut store = self.store.lock();
            // Keyed by coordinates: written again, they are the same.
            for letter in dead {
                let wrote = store.wrote.entry(letter.0).or_default();
                wrote.insert(self.release);
                if !store.dead.contains(&letter) {
                    store.dead.push(letter);
                }
            }
        }
        ahead.await.map_err(CommitError::Ahead)?;
        match fault {
            Fault::RolledBackLate => return Err(CommitError::RolledBack(outside("away"))),
            Fault::UnknownNot | Fault::UnknownLate => return Err(self.lose(flight.claim, false)),
            _ => {}
        }
        let mark = Mark {
            next: flight.to,
            reserved: flight.reserved.max(head.reserved),
            hlc: flight.hlc,
            ledger: flight.ledger,
        };
        let mut due = false;
        self.with_lane(flight.claim.partition, |lane| {
            lane.pending = Some(mark);
            lane.flights += 1;
            due = lane.flights % 3 == 0;
        });
        if due || fault == Fault::UnknownDone {
            self.keep(flight.claim, mark).await?;
        }
        match fault {
            Fault::UnknownDone => Err(self.lose(flight.claim, false)),
            _ => Ok(()),
        }
    }

    /// Stores what is held back.
    pub(super) async fn keep(&self, claim: &Claim, mark: Mark) -> Result<(), CommitError> {
        let (stored, _) = self.board(claim)?;
        let range = (stored.next, mark.next);
        self.move_position(claim, stored.next, mark).await?;
        if range.0 < range.1 {
            self.record(range, mark.hlc, &[], Vec::new(), self.release);
        }
        self.with_lane(claim.partition, |lane| {
            lane.stored = mark;
            lane.pending = None;
        });
        Ok(())
    }

    pub(super) async fn store_held(&self, claim: &Claim) -> Result<(), CommitError> {
        let fault = {
            let mut store = self.store.lock();
            store.settles += 1;
            store.settle_faults.pop_front().unwrap_or(Fault::None)
        };
        match fault {
            Fault::UnknownNot => return Err(self.lose(claim, false)),
            Fault::RolledBack => return Err(CommitError::RolledBack(outside("away"))),
            _ => {}
        }
        if !self.lazy {
            return Ok(());
        }
        match self.board(claim)? {
            (_, Some(head)) => self.keep(claim, head).await,
            _ => Ok(()),
        }
    }
}
