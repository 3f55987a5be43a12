//! An anchor in memory, for pipelines whose routes are all discarded and for tests. It keeps the contract
//! of [`Anchor`] while the process lives, and nothing beyond: it says so in `explain`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use super::{Ahead, Anchor, Claim, CommitError, Cut, Epoch, Flight, Ledger, Pin, Stored};
use crate::error::Error;

#[derive(Clone, Debug)]
struct Position {
    epoch: Epoch,
    next: i64,
    reserved: i64,
    hlc: i64,
    ledger: Ledger,
    cuts: Vec<Cut>,
    topic_id: Option<String>,
}

impl Position {
    fn claim(&self, partition: i32) -> Claim {
        Claim {
            partition,
            epoch: self.epoch.clone(),
            next: self.next,
            reserved: self.reserved,
            hlc: self.hlc,
            ledger: self.ledger,
            cuts: self.cuts.clone(),
            topic_id: self.topic_id.clone(),
        }
    }
}

/// A handle on positions in memory; clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryAnchor {
    // A short critical section that no await crosses; shards and the supervisor share it.
    positions: Arc<Mutex<BTreeMap<i32, Position>>>,
}

impl MemoryAnchor {
    /// An anchor without positions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The reservation of a partition.
    #[cfg(test)]
    pub(crate) fn reserved(&self, partition: i32) -> i64 {
        self.positions.lock()[&partition].reserved
    }

    /// Sets a partition back to what it was earlier, as a failover to a replica that lagged does.
    #[cfg(test)]
    pub(crate) fn set_back(&self, partition: i32, next: i64, reserved: i64) {
        let mut positions = self.positions.lock();
        if let Some(position) = positions.get_mut(&partition) {
            (position.next, position.reserved) = (next, reserved);
        }
    }

    /// A partition as it stands, claimed by nobody.
    #[cfg(test)]
    pub(crate) fn read(&self, partition: i32) -> Claim {
        self.positions.lock()[&partition].claim(partition)
    }

    fn change(
        &self,
        claim: &Claim,
        from: i64,
        change: impl FnOnce(&mut Position),
    ) -> Result<(), CommitError> {
        let mut positions = self.positions.lock();
        let Some(position) = positions.get_mut(&claim.partition) else {
            return Err(CommitError::Stop(missing(claim.partition)));
        };
        if position.epoch != claim.epoch || position.next != from {
            return Err(CommitError::Fenced(Error::outside(
                format!("advance partition {}", claim.partition),
                format!(
                    "epoch {} at {} holds it now",
                    position.epoch.number, position.next
                ),
            )));
        }
        change(position);
        Ok(())
    }
}

fn missing(partition: i32) -> Error {
    Error::config(
        format!("claim partition {partition}"),
        "no position is stored for it",
    )
    .hint("this is a data-loss stop: restore the anchor or set the position")
}

impl Anchor for MemoryAnchor {
    fn stored(&self) -> LocalBoxFuture<'_, Result<Vec<Stored>, Error>> {
        let stored = self
            .positions
            .lock()
            .iter()
            .map(|(partition, position)| Stored {
                partition: *partition,
                next: position.next,
                cuts: position.cuts.clone(),
                topic_id: position.topic_id.clone(),
            })
            .collect();
        async move { Ok(stored) }.boxed_local()
    }

    fn seed<'a>(&'a self, seeds: &'a [Stored]) -> LocalBoxFuture<'a, Result<(), Error>> {
        let mut positions = self.positions.lock();
        for seed in seeds {
            positions.entry(seed.partition).or_insert_with(|| Position {
                epoch: Epoch {
                    number: 0,
                    id: uuid::Uuid::nil(),
                },
                next: seed.next,
                reserved: seed.next,
                hlc: 0,
                ledger: Ledger::default(),
                cuts: seed.cuts.clone(),
                topic_id: seed.topic_id.clone(),
            });
        }
        async { Ok(()) }.boxed_local()
    }

    fn claim<'a>(&'a self, partitions: &'a [i32]) -> LocalBoxFuture<'a, Result<Vec<Claim>, Error>> {
        let mut stored = self.positions.lock();
        let claims = partitions
            .iter()
            .map(|partition| {
                let position = stored
                    .get_mut(partition)
                    .ok_or_else(|| missing(*partition))?;
                position.epoch = Epoch {
                    number: position.epoch.number + 1,
                    id: uuid::Uuid::new_v4(),
                };
                Ok(position.claim(*partition))
            })
            .collect();
        async move { claims }.boxed_local()
    }

    fn commit<'a>(
        &'a self,
        flight: Flight<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        async move {
            self.change(flight.claim, flight.from, |_| ())?;
            ahead.await.map_err(CommitError::Ahead)?;
            self.change(flight.claim, flight.from, |position| {
                position.next = flight.to;
                position.reserved = position.reserved.max(flight.reserved);
                position.hlc = flight.hlc;
                position.ledger = flight.ledger;
            })
        }
        .boxed_local()
    }

    fn pin<'a>(
        &'a self,
        claim: &'a Claim,
        next: i64,
        pin: Pin<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        let changed = self.change(claim, next, |position| {
            position.reserved = pin.reserved;
            position.cuts = pin.cuts.to_vec();
        });
        async move { changed }.boxed_local()
    }

    fn settle<'a>(&'a self, _claim: &'a Claim) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        async { Ok(()) }.boxed_local()
    }
}
