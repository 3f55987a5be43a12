//! [`FakeAnchor`]: a [`MemoryAnchor`] whose every call can fail as its script says, with rules that can be taken away.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use super::late::{Late, LatePin};
use super::lazy::{Held, Mark};
use super::script::{Broken, Fault};
use super::store::Shared;
use super::{numbers, outside};
use crate::anchor::{
    Ahead, Anchor, Claim, CommitError, Cut, Flight, MemoryAnchor, Pin, Stored, cuts,
};
use crate::error::{Error, Retry};

#[derive(Clone, Debug, Default)]
pub(in super::super) struct FakeAnchor {
    pub(in super::super) inner: MemoryAnchor,
    pub(in super::super) store: Shared,
    /// Positions are held back until settled or the third flight.
    pub(in super::super) lazy: bool,
    /// Whose connection this is; 0 for the supervisor's.
    pub(in super::super) release: i64,
    pub(in super::super) lanes: Arc<Mutex<HashMap<i32, Held>>>,
}

impl FakeAnchor {
    /// A connection of its own for a release.
    pub(in super::super) fn opened(&self, release: i64) -> Self {
        Self {
            release,
            lanes: Arc::default(),
            ..self.clone()
        }
    }

    pub(super) fn record(
        &self,
        (from, to): (i64, i64),
        hlc: i64,
        here: &[(i64, i64)],
        dead: Vec<(i64, String)>,
        by: i64,
    ) {
        let mut store = self.store.lock();
        store.ranges.push((from, to));
        store.committed.push((from, to, by));
        store.hlc = hlc;
        for (offset, release) in here {
            store.here.push(*offset);
            store.wrote.entry(*offset).or_default().insert(*release);
        }
        for (offset, _) in &dead {
            store.wrote.entry(*offset).or_default().insert(by);
        }
        store.dead.extend(dead);
    }

    /// A claim as the row's check sees it.
    fn checked(&self, claim: &Claim) -> Claim {
        let mut claim = claim.clone();
        if self.store.lock().broken == Broken::Epoch {
            claim.epoch = self.inner.read(claim.partition).epoch;
        }
        claim
    }

    /// The bare move of a stored position.
    pub(super) async fn move_position(
        &self,
        claim: &Claim,
        from: i64,
        to: Mark,
    ) -> Result<(), CommitError> {
        let claim = &self.checked(claim);
        let flight = Flight {
            claim,
            from,
            to: to.next,
            reserved: to.reserved,
            hlc: to.hlc,
            ledger: to.ledger,
            batch: &crate::record::Batch::default(),
            stamps: &[],
            rows: &[],
            dead: &[],
        };
        let moved = self.inner.commit(flight, Ahead::nothing()).await;
        self.look(claim.partition);
        moved
    }

    pub(super) async fn store_pin(
        &self,
        claim: &Claim,
        next: i64,
        pin: Pin<'_>,
    ) -> Result<(), CommitError> {
        let stored = self.inner.read(claim.partition);
        let mut list = pin.cuts.to_vec();
        if self.store.lock().broken == Broken::CutsStay && pin.reserved < stored.reserved {
            list = stored.cuts;
            let newest = cuts::newest(pin.cuts).map(|cut| cut.release.clone());
            if newest != cuts::newest(&list).map(|cut| cut.release.clone()) {
                list.push(Cut::new(next, newest.unwrap()));
            }
        }
        let pin = Pin { cuts: &list, ..pin };
        self.store.lock().pins += 1;
        let claim = &self.checked(claim);
        let pinned = self.inner.pin(claim, next, pin).await;
        self.look(claim.partition);
        pinned
    }

    /// Takes note of the reservation that is stored now.
    fn look(&self, partition: i32) {
        let reserved = self.inner.reserved(partition);
        let mut store = self.store.lock();
        store.current.insert(partition, reserved);
        store.reserved = store.reserved.max(reserved);
    }

    pub(super) fn unknown(&self, is_pin: bool) -> CommitError {
        self.store.lock().unknown = Some(is_pin);
        CommitError::Unknown(outside("no reply"))
    }

    async fn fly(&self, flight: Flight<'_>, ahead: Ahead<'_>) -> Result<(), CommitError> {
        let (fault, broken) = {
            let mut store = self.store.lock();
            store.attempts += 1;
            (
                store.faults.pop_front().unwrap_or(Fault::None),
                store.broken,
            )
        };
        self.arrive().await;
        while self.store.lock().held.contains(&flight.claim.partition) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let offsets = flight.batch.offsets();
        let here: Vec<(i64, i64)> = flight
            .rows
            .iter()
            .flat_map(|here| here.rows.iter())
            .map(|row| (offsets[row.source as usize], numbers(row.cells)[1]))
            .collect();
        let dead: Vec<(i64, String)> = flight
            .dead
            .iter()
            .map(|dead| (offsets[dead.source as usize], dead.code.to_string()))
            .collect();
        {
            let store = self.store.lock();
            if here
                .iter()
                .any(|(offset, _)| store.refused.contains(offset))
                || dead
                    .iter()
                    .any(|(offset, _)| store.refused_dead.contains(offset))
            {
                return Err(CommitError::Refused(Error::data("fake", "refused (23514)")));
            }
            if let Some(outside_blame) = here.iter().find_map(|(at, _)| store.stubborn.get(at)) {
                return Err(CommitError::RolledBack(if *outside_blame {
                    outside("too slow (57014)").with_retry(Retry::Never)
                } else {
                    Error::config("fake", "raised (P0001)")
                }));
            }
        }
        match fault {
            Fault::Stolen => {
                self.inner.claim(&[flight.claim.partition]).await.unwrap();
            }
            Fault::RolledBack => return Err(CommitError::RolledBack(outside("deadlock (40P01)"))),
            Fault::Stop => return Err(CommitError::Stop(Error::config("fake", "no table"))),
            Fault::Hang => std::future::pending().await,
            _ => {}
        }
        let ahead = Ahead::writes(async move {
            match fault {
                Fault::AheadOutside => return Err(outside("timed out")),
                Fault::AheadConfig => return Err(Error::config("fake", "refused by the sink")),
                _ => {}
            }
            if broken != Broken::AheadForgotten {
                ahead.await?;
            }
            Ok(())
        });
        if self.lazy {
            return self.fly_lazily(flight, ahead, fault, dead).await;
        }
        let claim = &self.checked(flight.claim);
        let flight = Flight { claim, ..flight };
        let keep = (flight.from, flight.to);
        let late = matches!(
            fault,
            Fault::RolledBackLate | Fault::UnknownNot | Fault::UnknownLate
        );
        if late {
            ahead.await.map_err(CommitError::Ahead)?;
            if fault == Fault::UnknownLate {
                self.store.lock().late.push(Late {
                    claim: flight.claim.clone(),
                    from: flight.from,
                    to: flight.to,
                    hlc: flight.hlc,
                    ledger: flight.ledger,
                    here,
                    dead,
                    release: self.release,
                });
            }
            return match fault {
                Fault::RolledBackLate if broken == Broken::SwallowedRollback => {
                    // The position is kept in step, or the next flight would be fenced.
                    let to = Mark {
                        next: flight.to,
                        reserved: flight.reserved,
                        hlc: flight.hlc,
                        ledger: flight.ledger,
                    };
                    self.move_position(flight.claim, flight.from, to).await
                }
                Fault::RolledBackLate => {
                    if broken == Broken::StateBefore {
                        let before = Mark {
                            next: flight.from,
                            reserved: 0,
                            hlc: flight.hlc,
                            ledger: flight.ledger,
                        };
                        self.move_position(flight.claim, flight.from, before)
                            .await?;
                    }
                    Err(CommitError::RolledBack(outside("deadlock (40P01)")))
                }
                _ => Err(self.unknown(false)),
            };
        }
        if broken == Broken::Order {
            self.inner.commit(flight, Ahead::nothing()).await?;
            self.look(flight.claim.partition);
            self.record(keep, flight.hlc, &here, dead, self.release);
            return ahead.await.map_err(CommitError::Ahead);
        }
        let stored = self.inner.read(flight.claim.partition);
        let flight = match (broken, fault) {
            (Broken::StateAfter, Fault::UnknownDone) => Flight {
                ledger: stored.ledger,
                hlc: stored.hlc,
                ..flight
            },
            _ => flight,
        };
        self.inner.commit(flight, ahead).await?;
        self.look(flight.claim.partition);
        self.record(keep, flight.hlc, &here, dead, self.release);
        match fault {
            Fault::UnknownDone => Err(self.unknown(false)),
            _ => Ok(()),
        }
    }

    async fn pin_lane(&self, claim: &Claim, next: i64, pin: Pin<'_>) -> Result<(), CommitError> {
        let fault = self.store.lock().grants.pop_front().unwrap_or(Fault::None);
        self.arrive().await;
        if self.lazy {
            let (stored, pending) = self.board(claim)?;
            if let Some(head) = pending {
                self.keep(claim, head).await?;
            }
            let at = pending.unwrap_or(stored).next;
            if at != next {
                return Err(CommitError::Fenced(outside("it stands elsewhere")));
            }
        }
        match fault {
            Fault::RolledBack => return Err(CommitError::RolledBack(outside("away"))),
            Fault::UnknownNot => return Err(self.lose(claim, true)),
            Fault::UnknownLate => {
                self.store.lock().late_pins.push(LatePin {
                    claim: claim.clone(),
                    next,
                    reserved: pin.reserved,
                    cuts: pin.cuts.to_vec(),
                });
                return Err(self.lose(claim, true));
            }
            Fault::Stolen => {
                self.inner.claim(&[claim.partition]).await.unwrap();
            }
            _ => {}
        }
        tokio::task::yield_now().await;
        self.store_pin(claim, next, pin).await?;
        self.with_lane(claim.partition, |lane| lane.stored.reserved = pin.reserved);
        match fault {
            Fault::UnknownDone => Err(self.lose(claim, true)),
            _ => Ok(()),
        }
    }

    async fn take(&self, partitions: &[i32]) -> Result<Vec<Claim>, Error> {
        if self.store.lock().away {
            return Err(outside("connection refused"));
        }
        tokio::task::yield_now().await;
        if self.store.lock().late_first {
            self.arrive().await;
        }
        let (broken, unknown) = {
            let mut store = self.store.lock();
            (store.broken, store.unknown.take())
        };
        let reads = match broken {
            Broken::ReadNotClaim => unknown == Some(true),
            Broken::NoClaimAtHandOver => unknown.is_none() && self.release != 0,
            _ => false,
        };
        if reads {
            let read: Vec<Claim> = partitions.iter().map(|at| self.inner.read(*at)).collect();
            if broken == Broken::ReadNotClaim {
                let fresh = read.iter().map(|claim| (claim.partition, Held::new(claim)));
                self.lanes.lock().extend(fresh);
            }
            return Ok(read);
        }
        let mut claims = self.inner.claim(partitions).await?;
        self.store.lock().claims += 1;
        for claim in &mut claims {
            self.look(claim.partition);
            self.lanes.lock().insert(claim.partition, Held::new(claim));
            match broken {
                Broken::Grant => claim.reserved += 1 << 40,
                Broken::Found => claim.reserved = claim.next,
                Broken::Pin => claim.cuts = cuts::lower(&claim.cuts, claim.next),
                _ => {}
            }
        }
        Ok(claims)
    }
}

impl Anchor for FakeAnchor {
    fn release(&self, partitions: &[i32]) {
        self.store.lock().released.extend(partitions);
    }

    fn stored(&self) -> LocalBoxFuture<'_, Result<Vec<Stored>, Error>> {
        self.inner.stored()
    }

    fn seed<'a>(&'a self, positions: &'a [Stored]) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.inner.seed(positions)
    }

    fn claim<'a>(&'a self, partitions: &'a [i32]) -> LocalBoxFuture<'a, Result<Vec<Claim>, Error>> {
        self.take(partitions).boxed_local()
    }

    fn commit<'a>(
        &'a self,
        flight: Flight<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        self.fly(flight, ahead).boxed_local()
    }

    fn pin<'a>(
        &'a self,
        claim: &'a Claim,
        next: i64,
        pin: Pin<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        self.pin_lane(claim, next, pin).boxed_local()
    }

    fn settle<'a>(&'a self, claim: &'a Claim) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        self.store_held(claim).boxed_local()
    }
}
