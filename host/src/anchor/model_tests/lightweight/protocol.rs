//! The Cassandra anchor as a state machine: a row changed by lightweight transactions, advanced lazily over
//! acknowledged data. Write times are chained from the stored one, dead letters are written ahead and keyed by
//! offset. Three records on two keys, times that go backwards. A change that got no answer may be applied after a
//! SERIAL read.

mod steps;

use super::super::explore::{Kind, Label, Model};
use super::super::wire::{Sent, Wire};
use super::super::workers::Workers;

/// The key of each record.
const KEYS: [usize; 3] = [0, 1, 0];
/// The record that may be dead.
const ODD: u8 = 1;
/// How far a grant reaches past what it is for.
const REACH: u8 = 1;

/// Who says that the odd record is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Says {
    /// Nobody: it is emitted.
    Emitted,
    /// The host, always.
    Dead,
    /// The host, at or above the reservation found at the claim: below it a later time is accepted.
    TooEarly,
    /// The server, now and then: it is set aside.
    Server,
    /// The server, now and then: the lane stops.
    ServerStops,
}

/// What a claim goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Claims {
    /// The row read after it.
    ReadsAfter,
    /// The row read before it, of which the epoch is compared.
    ReadsBefore,
    /// The row read before it, all of which is compared.
    ComparesAll,
}

/// One variant of the protocol; [`RULES`] is what is built.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Rules {
    /// A change compares the epoch.
    pub(in super::super) epoch: bool,
    /// The position advances over acknowledged data only.
    pub(in super::super) acknowledged: bool,
    /// The last write time is stored with the position.
    pub(in super::super) stores_time: bool,
    /// A write's time is its record's; otherwise its arrival's.
    pub(in super::super) stamps: bool,
    pub(in super::super) says: Says,
    /// Emitting a record that may have been set aside deletes its letter.
    pub(in super::super) withdraws: bool,
    pub(in super::super) claims: Claims,
    /// A claim carries an id of its own.
    pub(in super::super) unique: bool,
    /// Nothing is sent above what is reserved.
    pub(in super::super) reserves: bool,
    pub(in super::super) records: u8,
    pub(in super::super) faults: u8,
}

pub(in super::super) const RULES: Rules = Rules {
    epoch: true,
    acknowledged: true,
    stores_time: true,
    stamps: true,
    says: Says::Emitted,
    withdraws: false,
    claims: Claims::ReadsAfter,
    unique: true,
    reserves: false,
    records: 3,
    faults: 2,
};

/// Number and id.
type Epoch = (u8, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row {
    epoch: Epoch,
    next: u8,
    reserved: u8,
    time: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Its claim is on the wire.
    Claim,
    /// It reads the row after its claim.
    Read,
    Run,
    /// It reads the row after a change that it does not know of, or that was refused.
    Serial,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker {
    epoch: Epoch,
    phase: Phase,
    /// The position as it knows it, and the write time there.
    known: u8,
    time: u8,
    /// Sent up to.
    sent: u8,
    /// The reservation found at the claim.
    found: u8,
    grant: u8,
    /// A change is on the wire.
    changing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum What {
    Row,
    Dead,
    Withdrawn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Data {
        who: u8,
        record: u8,
        time: u8,
        what: What,
    },
    Change {
        who: u8,
        epoch: Epoch,
        from: u8,
        to: u8,
        time: u8,
        reserved: u8,
    },
    Claim {
        who: u8,
        new: Epoch,
        seen: Row,
    },
}

impl Sent for Message {
    fn who(&mut self) -> &mut u8 {
        match self {
            Self::Data { who, .. } | Self::Change { who, .. } | Self::Claim { who, .. } => who,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct State {
    row: Row,
    /// Time and record by key.
    cells: [Option<(u8, u8)>; 2],
    /// Time of the odd record's letter, and whether it is there.
    letter: Option<(u8, bool)>,
    /// Records of which a row or a letter was applied.
    landed: u8,
    wire: Wire<Message>,
    workers: Workers<Worker>,
    faults: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Bad {
    /// The position passed what was never applied.
    Lost,
    /// In the end the table is not what the records come to.
    NotTheFold,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Goal {
    /// All records are through.
    Drained,
}

pub(in super::super) struct Lightweight(pub(in super::super) Rules);

impl State {
    fn fault(&self) -> Self {
        let mut next = self.clone();
        next.faults += 1;
        next
    }
}

impl Lightweight {
    fn is_dead(&self, worker: &Worker, record: u8) -> bool {
        record == ODD
            && match self.0.says {
                Says::Dead => true,
                Says::TooEarly => record >= worker.found,
                Says::Emitted | Says::Server | Says::ServerStops => false,
            }
    }

    /// Write time of a record, chained from what is known. One that is set aside for its time only counts.
    fn time(&self, worker: &Worker, record: u8) -> u8 {
        let times = match self.0.says {
            Says::TooEarly => [1, 20, 1],
            _ => [5, 1, 1],
        };
        let mut time = worker.time;
        for at in worker.known..=record {
            time += 2;
            if !self.is_dead(worker, at) {
                time = time.max(times[usize::from(at)]);
            }
        }
        time
    }
}

impl Model for Lightweight {
    type State = State;
    type Bad = Bad;
    type Goal = Goal;

    fn start(&self) -> State {
        let reserved = if self.0.reserves {
            REACH
        } else {
            self.0.records
        };
        State {
            row: Row {
                epoch: (0, 0),
                next: 0,
                reserved,
                time: 0,
            },
            cells: [None; 2],
            letter: None,
            landed: 0,
            wire: Wire::new(),
            workers: Workers::none(),
            faults: 0,
        }
    }

    fn successors(&self, state: &State, to: &mut Vec<(Label, State, Kind)>) {
        self.steps(state, to);
    }

    fn bad(&self, state: &State) -> Option<Bad> {
        if (0..state.row.next).any(|record| state.landed & (1 << record) == 0) {
            return Some(Bad::Lost);
        }
        if state.row.next < self.0.records || !state.wire.is_empty() {
            return None;
        }
        let is_dead = state.letter.is_some_and(|letter| letter.1);
        let mut fold = [None; 2];
        for record in (0..self.0.records).filter(|record| !(is_dead && *record == ODD)) {
            fold[KEYS[usize::from(record)]] = Some(record);
        }
        let cells = state.cells.map(|cell| cell.map(|cell| cell.1));
        (cells != fold).then_some(Bad::NotTheFold)
    }

    fn reached(&self, _: Goal, state: &State) -> bool {
        state.row.next == self.0.records
    }
}
