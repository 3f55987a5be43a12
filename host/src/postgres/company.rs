//! [`Company`]: flights of several lanes in one transaction, optimistically. One commit then serves all of them.
//!
//! A flight never waits for company: the first one takes the connection that is free. Those that come while none is
//! free wait behind the first of them, which takes them along when its turn comes. Either the transaction of them all
//! commits, or nothing of it does and each flies alone, which tells each lane its own outcome; what is unknown of the
//! transaction is unknown of each. After a failure a lane flies alone for a while.
//!
//! It owns who flies with whom and what each is told, and never touches a server: that is [`Carrier`]'s. The flights of one
//! partition never meet here: a lane has one on its way at most. `RefCell`s as in the pool: one thread, and never
//! borrowed across a suspension.

mod apart;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::anchor::CommitError;
use crate::task;

use super::failure;
use apart::Apart;

/// Most flights in one transaction: far beyond it there is little left to share.
const MOST_FLIGHTS: usize = 32;

/// Most bytes in one transaction, rows and dead letters; also what a lane may hold ready while it waits. Against the
/// work of writing a megabyte that of a commit is nothing.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// Who brings flights to the server.
pub(super) trait Carrier {
    /// A connection for the time of one transaction.
    type Lease;
    /// A flight, ready to be sent.
    type Cargo: Load;

    /// Waits for a connection.
    async fn lease(&self) -> Result<Self::Lease, CommitError>;

    /// Carries all flights in one transaction, in their order.
    async fn carry(&self, lease: Self::Lease, flights: &[Self::Cargo]) -> Result<(), CommitError>;

    /// Takes back what was carried.
    fn unload(&self, flights: Vec<Self::Cargo>);
}

/// What decides who fits.
pub(super) trait Load {
    /// Whose flight it is.
    fn partition(&self) -> i32;
    /// Bytes of its rows and dead letters.
    fn bytes(&self) -> usize;
}

/// What a flight is told.
enum Word<C> {
    Fate(Fate),
    /// Nobody leads any more: line up again, with this.
    Again(C),
}

/// What became of a flight.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// Its outcome.
    Known(Result<(), CommitError>),
    /// It was rolled back with others, whosever fault it was: it has to fly alone.
    Alone,
}

/// A flight that waits behind the one that leads.
struct Waiting<C> {
    cargo: C,
    told: oneshot::Sender<Word<C>>,
}

/// The flights of one anchor that wait for a connection.
pub(super) struct Company<C> {
    waiting: RefCell<VecDeque<Waiting<C>>>,
    /// Somebody stands in line for a connection and takes the others along.
    led: Cell<bool>,
    apart: RefCell<Apart>,
}

impl<C> Default for Company<C> {
    fn default() -> Self {
        Self {
            waiting: RefCell::default(),
            led: Cell::default(),
            apart: RefCell::default(),
        }
    }
}

impl<C> std::fmt::Debug for Company<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Company")
            .field("waiting", &self.waiting.borrow().len())
            .field("apart", &self.apart.borrow().len())
            .finish_non_exhaustive()
    }
}

impl<C: Load> Company<C> {
    /// Whether the next flight of a lane may share a transaction; counts it.
    pub(super) fn takes(&self, partition: i32) -> bool {
        self.apart.borrow_mut().takes(partition)
    }

    /// A flight that was alone failed: its lane flies alone for a while.
    pub(super) fn set_apart(&self, partition: i32) {
        self.apart.borrow_mut().alone(partition);
    }

    /// Flies with whoever waits too. Dropped while it waits, it is not flown; dropped while it leads, the outcome of those
    /// it took along is unknown to them; dropped once another has taken it along, it is flown.
    pub(super) async fn fly(&self, carrier: &impl Carrier<Cargo = C>, mut cargo: C) -> Fate {
        while self.led.get() {
            match task::ticking(self.wait(cargo)).await {
                Ok(Word::Fate(fate)) => return fate,
                Ok(Word::Again(back)) => cargo = back,
                Err(_) => {
                    let detail = "the flight that led the transaction was cut short";
                    return Fate::Known(Err(failure::unknown(detail)));
                }
            }
        }
        let line = Line::stand(self);
        let lease = match carrier.lease().await {
            Ok(lease) => lease,
            Err(error) => {
                // No connection for one is none for all: nobody has to find that out once more.
                let all = std::mem::take(&mut *self.waiting.borrow_mut());
                let fate = Fate::Known(Err(error));
                tell(all.into_iter().map(|waiting| waiting.told), &fate);
                return fate;
            }
        };
        let (flights, told) = self.gather(cargo);
        drop(line);
        let shared = flights.len() > 1;
        let outcome = carrier.carry(lease, &flights).await;
        match &outcome {
            Ok(()) => {}
            Err(_) if !shared => self.set_apart(flights[0].partition()),
            Err(error) => {
                tracing::info!(flights = flights.len(), error = %error, "shared transaction failed");
                // Whose fault a refusal is each finds out alone. Else they may be in each other's way.
                if matches!(error, CommitError::RolledBack(_)) {
                    let mut apart = self.apart.borrow_mut();
                    flights
                        .iter()
                        .for_each(|cargo| apart.in_company(cargo.partition()));
                }
            }
        }
        let fate = fate(outcome, shared);
        tell(told, &fate);
        carrier.unload(flights);
        fate
    }

    /// Waits behind the one that leads.
    fn wait(&self, cargo: C) -> oneshot::Receiver<Word<C>> {
        let (told, word) = oneshot::channel();
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|waiting| !waiting.told.is_closed());
        waiting.push_back(Waiting { cargo, told });
        word
    }

    /// Takes along who fits, first come first served, in the order in which claims lock partitions.
    fn gather(&self, mine: C) -> (Vec<C>, Vec<oneshot::Sender<Word<C>>>) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|waiting| !waiting.told.is_closed());
        let mut bytes = mine.bytes();
        let fit = waiting.iter().take(MOST_FLIGHTS - 1).take_while(|waiting| {
            bytes += waiting.cargo.bytes();
            bytes <= MOST_BYTES
        });
        let fit = fit.count();
        let mut flights = Vec::with_capacity(fit + 1);
        let mut told = Vec::with_capacity(fit);
        flights.push(mine);
        for taken in waiting.drain(..fit) {
            flights.push(taken.cargo);
            told.push(taken.told);
        }
        flights.sort_unstable_by_key(Load::partition);
        (flights, told)
    }
}

/// What the outcome of a transaction is to each of its flights.
fn fate(outcome: Result<(), CommitError>, shared: bool) -> Fate {
    match outcome {
        Ok(()) | Err(CommitError::Unknown(_)) => Fate::Known(outcome),
        Err(_) if shared => Fate::Alone,
        Err(_) => Fate::Known(outcome),
    }
}

/// Who was dropped meanwhile is not there to be told.
fn tell<C>(all: impl IntoIterator<Item = oneshot::Sender<Word<C>>>, fate: &Fate) {
    for told in all {
        told.send(Word::Fate(fate.clone())).ok();
    }
}

/// The place of the one that leads. When it leaves, those it does not take line up again.
struct Line<'a, C>(&'a Company<C>);

impl<'a, C> Line<'a, C> {
    fn stand(company: &'a Company<C>) -> Self {
        company.led.set(true);
        Self(company)
    }
}

impl<C> Drop for Line<'_, C> {
    fn drop(&mut self) {
        self.0.led.set(false);
        for left in self.0.waiting.take() {
            left.told.send(Word::Again(left.cargo)).ok();
        }
    }
}

#[cfg(test)]
mod cost;
#[cfg(test)]
mod tests;
