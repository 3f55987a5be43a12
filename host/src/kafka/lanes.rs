//! [`Transactions`]: the partitions that a host owns of one pipeline, each with the producer that owns it and the
//! position that is stored.
//!
//! It owns whether a lane may go on under its claim: one transaction at a time has the producer, and one that fails, or
//! is dropped half-way, ends the claim. It sends nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::positions::Position;
use super::transaction::{Pause, Transactional};
use crate::anchor::{Claim, CommitError, Epoch};
use crate::error::Error;

/// The partitions that a host owns of one pipeline: a claim made through one anchor is used through another.
#[derive(Clone, Debug, Default)]
pub struct Transactions {
    // Taken for a lookup, an insert or a removal.
    lanes: Arc<Mutex<BTreeMap<i32, Arc<Lane>>>>,
    /// By transactional id: each has a broker of its own that ends its transactions.
    // Taken for a lookup or an insert.
    pauses: Arc<Mutex<BTreeMap<String, Pause>>>,
}

/// A partition under one claim.
#[derive(Debug)]
struct Lane {
    epoch: Epoch,
    // Taken to look or to change, never across a suspension: flights of a lane follow each other.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What is stored, as far as is known.
    position: Position,
    live: Live,
}

/// Whether the lane may go on under its claim. Its producer is with whoever is at work, so that it goes when that is
/// dropped half-way or fails.
#[derive(Debug)]
enum Live {
    Yes(Transactional),
    /// A transaction is open. Found by anyone else, its sender was dropped: the outcome is not known.
    Flying,
    /// A change failed, and so does every other.
    Over(CommitError),
}

/// A transaction about to be: who makes it, and the position after it.
pub(super) struct Boarded {
    lane: Arc<Lane>,
    pub(super) producer: Transactional,
    pub(super) position: Position,
}

impl Transactions {
    /// How long producers of this id pause.
    pub(super) fn pause(&self, id: &str) -> Pause {
        let mut pauses = self.pauses.lock();
        pauses.entry(id.to_owned()).or_default().clone()
    }

    /// Lets go of partitions. Their clients end with them, on threads of their own.
    pub(super) fn leave(&self, partitions: &[i32]) {
        let mut lanes = self.lanes.lock();
        let left = partitions.iter().filter_map(|left| lanes.remove(left));
        let left: Vec<_> = left.collect();
        drop(lanes);
        drop(left);
    }

    /// Keeps the lane of a claim, whose position is stored.
    pub(super) fn own(&self, claim: &Claim, producer: Transactional, position: Position) {
        let lane = Lane {
            epoch: claim.epoch.clone(),
            state: Mutex::new(State {
                position,
                live: Live::Yes(producer),
            }),
        };
        let before = self.lanes.lock().insert(claim.partition, Arc::new(lane));
        drop(before);
    }

    /// Takes the producer of a claim's lane, for a transaction `what` after which its position is as `change` leaves
    /// it.
    ///
    /// # Errors
    /// `Fenced` when this host claimed the partition again; `Unknown`, or what it was, when a change before failed;
    /// `Stop` when it does not stand at `next`.
    pub(super) fn board(
        &self,
        what: impl Fn() -> String,
        claim: &Claim,
        next: i64,
        change: impl FnOnce(&mut Position),
    ) -> Result<Boarded, CommitError> {
        let unknown = |detail: &str| CommitError::Unknown(Error::outside(what(), detail));
        let lane = self.lanes.lock().get(&claim.partition).cloned();
        let lane = lane.ok_or_else(|| unknown("a claim of this host is under way, or failed"))?;
        if lane.epoch != claim.epoch {
            let detail = "this host claimed it again";
            return Err(CommitError::Fenced(Error::outside(what(), detail)));
        }
        let mut state = lane.state.lock();
        match &state.live {
            Live::Yes(_) => {}
            Live::Flying => return Err(unknown("a change before it has no answer")),
            Live::Over(error) => return Err(error.clone()),
        }
        let mut position = state.position.clone();
        if position.next != next {
            let detail = format!("it stands at {}, the change is of {next}", position.next);
            return Err(CommitError::Stop(Error::bug(what(), detail)));
        }
        change(&mut position);
        let Live::Yes(producer) = std::mem::replace(&mut state.live, Live::Flying) else {
            return Err(unknown("its producer is gone"));
        };
        drop(state);
        Ok(Boarded {
            lane,
            producer,
            position,
        })
    }
}

impl Boarded {
    /// Takes in the outcome of the transaction; the producer of a failed one goes.
    pub(super) fn land(self, committed: Result<(), CommitError>) -> Result<(), CommitError> {
        let mut state = self.lane.state.lock();
        match &committed {
            Ok(()) => {
                *state = State {
                    position: self.position,
                    live: Live::Yes(self.producer),
                };
            }
            // Nothing is visible, and yet nothing can be repeated under this claim: its producer is gone.
            Err(CommitError::Ahead(error)) => {
                state.live = Live::Over(CommitError::Unknown(error.clone()));
            }
            Err(error) => state.live = Live::Over(error.clone()),
        }
        committed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_quick_broker_of_one_id_does_not_shorten_the_pause_of_another() {
        let patience = Duration::from_secs(20);
        let all = Transactions::default();
        let (slow, quick) = (all.pause("slow"), all.pause("quick"));
        let first = slow.now();
        slow.learn(first, first, patience);
        quick.learn(first, Duration::ZERO, patience);
        assert_eq!(all.clone().pause("slow").now(), first * 2);
        assert_eq!(all.pause("quick").now(), first);
    }
}
