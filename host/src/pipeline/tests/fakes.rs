//! Fakes with a script: [`FakeAnchor`] over [`MemoryAnchor`] and [`FakeSink`]; what they were
//! given is in the [`Store`] they share.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use crate::anchor::{
    Ahead, Anchor, Claim, CommitError, Cut, Epoch, Flight, Ledger, MemoryAnchor, Pin, Stored, cuts,
};
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
    /// No reply, and no end of waiting for it.
    Hang,
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
    /// The sinks are never written.
    AheadForgotten,
    /// The sinks are written after the commit.
    Order,
    /// The last write to arrive wins, whatever its stamp.
    Stamps,
    /// The stamp of a write is when it was sent, not a function of its record.
    ArrivalTime,
    /// A cut that waits takes effect at the position.
    Pin,
    /// What moves with the position (ledger, last write time) is stored after it, and a host dies in between.
    StateAfter,
    /// The same, before it.
    StateBefore,
    /// An older claim is as good as the newest.
    Epoch,
    /// A claim grants more than it stored.
    Grant,
    /// A claim does not tell the reservation it found: cuts at the position, and lowering, although an earlier owner
    /// may have sent what lies above.
    Found,
    /// What the group says is compared with the position of a lazy anchor, not with its reservation.
    Reservation,
    /// After an unknown pin the position is read again, not claimed.
    ReadNotClaim,
    /// Lowering leaves the cuts that wait.
    CutsStay,
    /// Nothing keeps which release began to retry a letter.
    Mark,
    /// Connections of another release go on under the claim of the one before.
    NoClaimAtHandOver,
}

/// A commit on its way without its sender.
#[derive(Debug)]
struct Late {
    claim: Claim,
    from: i64,
    to: i64,
    hlc: i64,
    ledger: Ledger,
    here: Vec<(i64, i64)>,
    dead: Vec<(i64, String)>,
    release: i64,
}

/// A pin on its way without its sender.
#[derive(Debug)]
struct LatePin {
    claim: Claim,
    next: i64,
    reserved: i64,
    cuts: Vec<Cut>,
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
    /// The same with the release each was committed by: (from, to, release).
    pub(super) committed: Vec<(i64, i64, i64)>,
    /// Releases by offset whose rows or dead letters were committed, or sent ahead by any attempt.
    pub(super) wrote: BTreeMap<i64, BTreeSet<i64>>,
    pub(super) hlc: i64,
    /// Greatest stored reservation.
    pub(super) reserved: i64,
    /// The reservation stored now, by partition.
    current: BTreeMap<i32, i64>,
    /// Rules that were broken.
    pub(super) violations: Vec<String>,
    pub(super) claims: usize,
    pub(super) attempts: usize,
    pub(super) settles: usize,
    pub(super) pins: usize,
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
    /// What is late arrives before the next claim, or after it.
    pub(super) late_first: bool,
    late: Vec<Late>,
    late_pins: Vec<LatePin>,
    /// Writes so far, where they are stamped by that.
    sent: i64,
    /// What was not known last: a pin (true), something else (false).
    unknown: Option<bool>,
}

pub(super) type Shared = Arc<Mutex<Store>>;

/// The moving part of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    next: i64,
    reserved: i64,
    hlc: i64,
    ledger: Ledger,
}

/// What a lazy anchor knows of a lane: an object of its own for each release, as with the real one.
#[derive(Clone, Debug)]
pub(super) struct Held {
    epoch: Epoch,
    stored: Mark,
    pending: Option<Mark>,
    flights: u32,
    is_unknown: bool,
}

impl Held {
    fn new(claim: &Claim) -> Self {
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

#[derive(Clone, Debug, Default)]
pub(super) struct FakeAnchor {
    pub(super) inner: MemoryAnchor,
    pub(super) store: Shared,
    /// Positions are held back until settled or the third flight.
    pub(super) lazy: bool,
    /// Whose connection this is; 0 for the supervisor's.
    pub(super) release: i64,
    pub(super) lanes: Arc<Mutex<HashMap<i32, Held>>>,
}

fn outside(detail: &str) -> Error {
    Error::outside("fake", detail)
}

impl FakeAnchor {
    /// A connection of its own for a release.
    pub(super) fn opened(&self, release: i64) -> Self {
        Self {
            release,
            lanes: Arc::default(),
            ..self.clone()
        }
    }

    fn record(
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

    /// What was on its way arrives now.
    async fn arrive(&self) {
        let (late, pins) = {
            let mut store = self.store.lock();
            (
                std::mem::take(&mut store.late),
                std::mem::take(&mut store.late_pins),
            )
        };
        for late in late {
            let unchecked = self.store.lock().broken == Broken::CompareAndSet;
            let to = Mark {
                next: late.to,
                reserved: 0,
                hlc: late.hlc,
                ledger: late.ledger,
            };
            let landed = self.move_position(&late.claim, late.from, to).await;
            if landed.is_ok() || unchecked {
                let range = (late.from, late.to);
                self.record(range, late.hlc, &late.here, late.dead, late.release);
            }
        }
        for late in pins {
            let pin = Pin {
                reserved: late.reserved,
                cuts: &late.cuts,
            };
            self.store_pin(&late.claim, late.next, pin).await.ok();
        }
    }

    /// The bare move of a stored position.
    async fn move_position(&self, claim: &Claim, from: i64, to: Mark) -> Result<(), CommitError> {
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
        let nothing = async { Ok(()) }.boxed_local();
        let moved = self.inner.commit(flight, nothing).await;
        self.look(claim.partition);
        moved
    }

    async fn store_pin(&self, claim: &Claim, next: i64, pin: Pin<'_>) -> Result<(), CommitError> {
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

    fn unknown(&self, is_pin: bool) -> CommitError {
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
            let nothing = async { Ok(()) }.boxed_local();
            self.inner.commit(flight, nothing).await?;
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

    /// What is stored and where the lane of a claim stands.
    fn board(&self, claim: &Claim) -> Result<(Mark, Option<Mark>), CommitError> {
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

    fn with_lane(&self, partition: i32, act: impl FnOnce(&mut Held)) {
        self.lanes.lock().get_mut(&partition).map(act);
    }

    /// The outcome of a change is not known: what was held back is dropped.
    fn lose(&self, claim: &Claim, is_pin: bool) -> CommitError {
        self.with_lane(claim.partition, |lane| {
            lane.pending = None;
            lane.is_unknown = true;
        });
        self.unknown(is_pin)
    }

    async fn fly_lazily(
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
    async fn keep(&self, claim: &Claim, mark: Mark) -> Result<(), CommitError> {
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

    async fn store_held(&self, claim: &Claim) -> Result<(), CommitError> {
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

/// The cells of a row of 64-bit numbers.
pub(super) fn numbers(cells: &[u8]) -> Vec<i64> {
    let mut cells_left = Reader::new(cells);
    let mut all = Vec::new();
    while let Ok(Cell::Value(bytes)) = cells_left.cell() {
        all.push(i64::from_be_bytes(bytes.try_into().unwrap()));
    }
    all
}

impl Anchor for FakeAnchor {
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
                let numbers = numbers(row.cells);
                let (key, offset, release) = (numbers[0], numbers[1], numbers[2]);
                let mut stamp = rows.stamps[row.source as usize] + 1;
                if store.broken == Broken::ArrivalTime {
                    store.sent += 1;
                    stamp = store.sent;
                }
                let current = store.current.values().max().copied().unwrap_or(0);
                if offset >= current {
                    let text = format!("{offset} sent ahead at a reservation of {current}");
                    store.violations.push(text);
                }
                store.wrote.entry(offset).or_default().insert(release);
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
