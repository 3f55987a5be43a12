//! Fakes with a script: [`FakeAnchor`] over [`MemoryAnchor`] and [`FakeSink`]; what they were
//! given is in the [`Store`] they share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use crate::anchor::{Ahead, Anchor, Claim, CommitError, Flight, MemoryAnchor, Pin, Stored};
use crate::error::{Error, Retry};
use crate::record::cells::{Cell, Reader};
use crate::sink::{AheadRows, AheadSink};

/// What happens to one call of the anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Another owner claims first.
    Stolen,
    RolledBack,
    /// Rolled back after the sinks were written.
    RolledBackLate,
    /// Committed, the reply is lost.
    UnknownDone,
    /// Not committed, the reply is lost.
    UnknownNot,
    /// The reply is lost; the request arrives with the next commit.
    UnknownLate,
    AheadOutside,
    AheadConfig,
    Stop,
}

/// A rule taken away, to see the checks go red.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Broken {
    #[default]
    Nothing,
    /// The position moves without compare-and-set.
    CompareAndSet,
    /// A rolled-back commit is reported as done.
    SwallowedRollback,
    /// The sinks are not written before the commit.
    AheadForgotten,
    /// The last write to arrive wins, whatever its stamp.
    Stamps,
    /// A claim grants more than it stored.
    Grant,
}

/// A commit on its way without its sender.
#[derive(Debug)]
struct Late {
    claim: Claim,
    from: i64,
    to: i64,
    hlc: i64,
    here: Vec<i64>,
    dead: Vec<(i64, String)>,
}

/// Everything the fakes were given.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Offsets of the rows of the append table, in commit order.
    pub(super) here: Vec<i64>,
    /// Dead letters in commit order.
    pub(super) dead: Vec<(i64, String)>,
    /// The keyed table written ahead: stamp and offset by key.
    pub(super) ahead: BTreeMap<i64, (i64, i64)>,
    /// Stamps a row of an offset was sent with.
    pub(super) stamps: BTreeMap<i64, BTreeSet<i64>>,
    /// Committed ranges.
    pub(super) ranges: Vec<(i64, i64)>,
    pub(super) hlc: i64,
    /// Greatest stored reservation.
    pub(super) reserved: i64,
    /// Rules that were broken.
    pub(super) violations: Vec<String>,
    pub(super) claims: usize,
    pub(super) attempts: usize,
    pub(super) settles: usize,
    /// Script of the anchor's commits; empty: no fault.
    pub(super) faults: VecDeque<Fault>,
    /// Script of its grants.
    pub(super) grants: VecDeque<Fault>,
    /// Script of settles.
    pub(super) settle_faults: VecDeque<Fault>,
    /// Offsets refused by the database.
    pub(super) refused: BTreeSet<i64>,
    /// Offsets whose dead letters are refused too.
    pub(super) refused_dead: BTreeSet<i64>,
    /// Offsets that roll a flight back each time; with whether their error is blamed on the outside.
    pub(super) stubborn: BTreeMap<i64, bool>,
    /// Partitions whose commits wait.
    pub(super) held: BTreeSet<i32>,
    /// The anchor does not answer claims.
    pub(super) away: bool,
    pub(super) broken: Broken,
    /// Writes that arrive with the next one although they failed.
    late_writes: Vec<(i64, i64, i64)>,
    pub(super) delay_writes: bool,
    late: Vec<Late>,
}

pub(super) type Shared = Arc<Mutex<Store>>;

/// Claim, stored position, position and write time held back.
type Held = (Claim, i64, i64, i64);

#[derive(Clone, Debug, Default)]
pub(super) struct FakeAnchor {
    pub(super) inner: MemoryAnchor,
    pub(super) store: Shared,
    /// Positions are held back until settled or the third flight.
    pub(super) lazy: bool,
    pub(super) head: Arc<Mutex<Option<Held>>>,
}

fn outside(detail: &str) -> Error {
    Error::outside("fake", detail)
}

impl FakeAnchor {
    fn record(&self, range: (i64, i64), hlc: i64, here: Vec<i64>, dead: Vec<(i64, String)>) {
        let mut store = self.store.lock();
        store.ranges.push(range);
        store.hlc = hlc;
        store.here.extend(here);
        store.dead.extend(dead);
    }

    /// A commit that was on its way arrives now.
    async fn arrive(&self) {
        let late = std::mem::take(&mut self.store.lock().late);
        for late in late {
            let batch = crate::record::Batch::default();
            let flight = Flight {
                claim: &late.claim,
                from: late.from,
                to: late.to,
                reserved: 0,
                hlc: late.hlc,
                batch: &batch,
                stamps: &[],
                rows: &[],
                dead: &[],
            };
            let unchecked = self.store.lock().broken == Broken::CompareAndSet;
            let landed = self
                .inner
                .commit(flight, async { Ok(()) }.boxed_local())
                .await;
            if landed.is_ok() || unchecked {
                self.record((late.from, late.to), late.hlc, late.here, late.dead);
            }
        }
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
        let here: Vec<i64> = flight
            .rows
            .iter()
            .flat_map(|here| here.rows.iter())
            .map(|row| offsets[row.source as usize])
            .collect();
        let dead: Vec<(i64, String)> = flight
            .dead
            .iter()
            .map(|dead| (offsets[dead.source as usize], dead.code.to_string()))
            .collect();
        {
            let store = self.store.lock();
            if here.iter().any(|offset| store.refused.contains(offset))
                || dead
                    .iter()
                    .any(|(offset, _)| store.refused_dead.contains(offset))
            {
                return Err(CommitError::Refused(Error::data("fake", "refused (23514)")));
            }
            if let Some(outside_blame) = here.iter().find_map(|at| store.stubborn.get(at)) {
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
            _ => {}
        }
        let ahead = async move {
            match fault {
                Fault::AheadOutside => return Err(outside("timed out")),
                Fault::AheadConfig => return Err(Error::config("fake", "refused by the sink")),
                _ => {}
            }
            if broken != Broken::AheadForgotten {
                ahead.await?;
            }
            Ok(())
        }
        .boxed_local();
        let keep = (flight.from, flight.to);
        let late = matches!(
            fault,
            Fault::RolledBackLate | Fault::UnknownNot | Fault::UnknownLate
        );
        if late {
            ahead.await.map_err(CommitError::Ahead)?;
            if fault == Fault::UnknownLate && !self.lazy {
                self.store.lock().late.push(Late {
                    claim: flight.claim.clone(),
                    from: flight.from,
                    to: flight.to,
                    hlc: flight.hlc,
                    here,
                    dead,
                });
            }
            *self.head.lock() = None;
            return match fault {
                Fault::RolledBackLate if broken == Broken::SwallowedRollback => {
                    // The position is kept in step, or the next flight would be fenced.
                    self.inner
                        .commit(flight, async { Ok(()) }.boxed_local())
                        .await
                }
                Fault::RolledBackLate => Err(CommitError::RolledBack(outside("deadlock (40P01)"))),
                _ => Err(CommitError::Unknown(outside("no reply"))),
            };
        }
        if self.lazy {
            return self.fly_lazily(flight, ahead, fault, dead).await;
        }
        self.inner.commit(flight, ahead).await?;
        self.reserved(flight.reserved);
        self.record(keep, flight.hlc, here, dead);
        match fault {
            Fault::UnknownDone => Err(CommitError::Unknown(outside("no reply"))),
            _ => Ok(()),
        }
    }

    async fn fly_lazily(
        &self,
        flight: Flight<'_>,
        ahead: Ahead<'_>,
        fault: Fault,
        dead: Vec<(i64, String)>,
    ) -> Result<(), CommitError> {
        self.reserved(flight.reserved);
        ahead.await.map_err(CommitError::Ahead)?;
        {
            let mut store = self.store.lock();
            // Keyed by coordinates: written again, they are the same.
            for letter in dead {
                if !store.dead.contains(&letter) {
                    store.dead.push(letter);
                }
            }
        }
        let from = {
            let mut head = self.head.lock();
            let from = match &*head {
                Some((claim, from, ..)) if claim.epoch == flight.claim.epoch => *from,
                _ => flight.from,
            };
            *head = Some((flight.claim.clone(), from, flight.to, flight.hlc));
            from
        };
        if fault == Fault::UnknownDone {
            let whole = Flight { from, ..flight };
            let stored = self
                .inner
                .commit(whole, async { Ok(()) }.boxed_local())
                .await;
            *self.head.lock() = None;
            stored?;
            self.store.lock().ranges.push((from, flight.to));
            return Err(CommitError::Unknown(outside("no reply")));
        }
        Ok(())
    }

    fn reserved(&self, reserved: i64) {
        let mut store = self.store.lock();
        store.reserved = store.reserved.max(reserved);
    }

    async fn store_held(&self, claim: &Claim) -> Result<(), CommitError> {
        let fault = {
            let mut store = self.store.lock();
            store.settles += 1;
            store.settle_faults.pop_front().unwrap_or(Fault::None)
        };
        match fault {
            Fault::UnknownNot => {
                *self.head.lock() = None;
                return Err(CommitError::Unknown(outside("no reply")));
            }
            Fault::RolledBack => return Err(CommitError::RolledBack(outside("away"))),
            _ => {}
        }
        let Some((held, from, to, hlc)) = self.head.lock().take() else {
            return Ok(());
        };
        if held.epoch != claim.epoch {
            return Ok(());
        }
        let batch = crate::record::Batch::default();
        let flight = Flight {
            claim,
            from,
            to,
            reserved: 0,
            hlc,
            batch: &batch,
            stamps: &[],
            rows: &[],
            dead: &[],
        };
        let stored = self
            .inner
            .commit(flight, async { Ok(()) }.boxed_local())
            .await;
        if stored.is_ok() {
            self.store.lock().ranges.push((from, to));
        }
        stored
    }
}

impl Anchor for FakeAnchor {
    fn stored(&self) -> LocalBoxFuture<'_, Result<Vec<Stored>, Error>> {
        self.inner.stored()
    }

    fn seed<'a>(&'a self, positions: &'a [Stored]) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.inner.seed(positions)
    }

    fn claim<'a>(&'a self, partitions: &'a [i32]) -> LocalBoxFuture<'a, Result<Vec<Claim>, Error>> {
        async move {
            if self.store.lock().away {
                return Err(outside("connection refused"));
            }
            let mut claims = self.inner.claim(partitions).await?;
            let mut store = self.store.lock();
            store.claims += 1;
            for claim in &mut claims {
                if store.broken == Broken::Grant {
                    claim.reserved += 1 << 40;
                } else {
                    store.reserved = store.reserved.max(claim.reserved);
                }
            }
            Ok(claims)
        }
        .boxed_local()
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
        async move {
            let fault = self.store.lock().grants.pop_front().unwrap_or(Fault::None);
            match fault {
                Fault::RolledBack => return Err(CommitError::RolledBack(outside("away"))),
                Fault::UnknownNot => return Err(CommitError::Unknown(outside("no reply"))),
                _ => {}
            }
            if !self.lazy {
                self.inner.pin(claim, next, pin).await?;
            }
            self.reserved(pin.reserved);
            match fault {
                Fault::UnknownDone => Err(CommitError::Unknown(outside("no reply"))),
                _ => Ok(()),
            }
        }
        .boxed_local()
    }

    fn settle<'a>(&'a self, claim: &'a Claim) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        self.store_held(claim).boxed_local()
    }
}

/// A keyed table that decides by stamp.
#[derive(Debug)]
pub(super) struct FakeSink {
    pub(super) store: Shared,
}

impl AheadSink for FakeSink {
    fn write<'a>(&'a self, rows: AheadRows<'a>) -> LocalBoxFuture<'a, Result<(), Error>> {
        async move {
            tokio::task::yield_now().await;
            let mut store = self.store.lock();
            for row in rows.rows.iter() {
                let mut cells = Reader::new(row.cells);
                let mut number = || match cells.cell() {
                    Ok(Cell::Value(bytes)) => i64::from_be_bytes(bytes.try_into().unwrap()),
                    other => panic!("{other:?}"),
                };
                let (key, offset) = (number(), number());
                let stamp = rows.stamps[row.source as usize] + 1;
                if offset >= store.reserved {
                    let text =
                        format!("{offset} sent ahead at a reservation of {}", store.reserved);
                    store.violations.push(text);
                }
                store.stamps.entry(offset).or_default().insert(stamp);
                if store.delay_writes && offset % 3 == 0 {
                    store.late_writes.push((key, stamp, offset));
                }
                store.apply(key, stamp, offset);
            }
            if !store.delay_writes {
                for (key, stamp, offset) in std::mem::take(&mut store.late_writes) {
                    store.apply(key, stamp, offset);
                }
            }
            Ok(())
        }
        .boxed_local()
    }
}

impl Store {
    fn apply(&mut self, key: i64, stamp: i64, offset: i64) {
        let newer = self
            .ahead
            .get(&key)
            .is_none_or(|(known, _)| *known <= stamp);
        if newer || self.broken == Broken::Stamps {
            self.ahead.insert(key, (stamp, offset));
        }
    }

    /// Requests of ended owners arrive.
    pub(super) fn late_writes_arrive(&mut self) {
        for (key, stamp, offset) in std::mem::take(&mut self.late_writes) {
            self.apply(key, stamp, offset);
        }
    }
}
