//! Postgres as the anchor and Cassandra written ahead as a state machine. One flight: `BEGIN`; advance (compare-and-set
//! on position and epoch; takes the row's lock); rows; dead letters → Cassandra → `COMMIT`. Three records; Postgres
//! refuses the second, Cassandra may refuse a row of the third. At most one transaction is open: the row's lock.

mod steps;

use super::super::explore::{Kind, Label, Model};
use super::super::wire::{NOBODY, Sent, Wire};
use super::super::workers::Workers;

pub(super) const RECORDS: u8 = 3;
/// The record that Postgres refuses, and the row that Cassandra refuses.
const HERE_REFUSED: u8 = 1;
const AHEAD_REFUSED: (u8, usize) = (2, 2);

/// A server that refuses something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refuses {
    Never,
    Always,
    /// Now and then: it hangs on what else is there.
    Sometimes,
}

/// What follows a refusal by Cassandra.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The record is dead.
    Record,
    /// The record is dead, and its rows are deleted.
    Undo,
    /// Its row is dead, the others stay.
    Row,
    Stop,
}

/// One variant of the protocol; [`RULES`] is what is built where servers refuse what they want.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Cassandra is written before the commit.
    pub(super) ahead: bool,
    /// An advance checks the position.
    pub(super) compare: bool,
    /// And the epoch.
    pub(super) epoch: bool,
    /// A write's time is its record's; otherwise its arrival's.
    pub(super) stamps: bool,
    pub(super) here: Refuses,
    pub(super) cassandra: Refuses,
    pub(super) then: Then,
    /// The refused row is all that its record writes.
    pub(super) single: bool,
    /// The host finds by itself what Postgres would refuse.
    pub(super) precheck: bool,
    /// Postgres' refusal of what may have been sent ahead stops the lane.
    pub(super) reserved: bool,
    /// An unknown position is read behind the row's lock.
    pub(super) locks: bool,
    pub(super) faults: u8,
}

pub(super) const RULES: Rules = Rules {
    ahead: true,
    compare: true,
    epoch: true,
    stamps: true,
    here: Refuses::Sometimes,
    cassandra: Refuses::Sometimes,
    then: Then::Stop,
    single: false,
    precheck: false,
    reserved: true,
    locks: true,
    faults: 2,
};

/// Records and rows set aside: bit 0 to 2 a record, bit 4 the refused row.
type Dead = u8;
const ROW: Dead = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Advance,
    Ahead,
    Commit,
    Recover,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker {
    current: bool,
    next: u8,
    phase: Phase,
    range: (u8, u8),
    dead: Dead,
    /// Nothing at or above it was ever sent to Cassandra, by anybody.
    unsent: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Transaction {
    who: u8,
    range: (u8, u8),
    dead: Dead,
    /// A commit is on its way.
    commits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Advance {
        who: u8,
        current: bool,
        range: (u8, u8),
        dead: Dead,
    },
    Cell {
        who: u8,
        record: u8,
        key: usize,
    },
}

impl Sent for Message {
    fn who(&mut self) -> &mut u8 {
        match self {
            Self::Advance { who, .. } | Self::Cell { who, .. } => who,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    next: u8,
    /// The append table, in order.
    rows: Vec<u8>,
    dead: Dead,
    reserved: u8,
    open: Option<Transaction>,
    /// Newest write by key: twice its record, one more for a delete.
    cells: [Option<u8>; 3],
    wire: Wire<Message>,
    workers: Workers<Worker>,
    faults: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Postgres does not hold each record below the position once, in order.
    Here,
    /// In the end Cassandra does not hold what the records come to.
    Ahead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// All records are through.
    Drained,
}

pub(super) struct Mixed(pub(super) Rules);

type Steps = Vec<(Label, State, Kind)>;

fn within(dead: Dead, (from, to): (u8, u8)) -> Dead {
    let records: u8 = (from..to).map(|record| 1 << record).sum();
    let row = if (from..to).contains(&AHEAD_REFUSED.0) {
        ROW
    } else {
        0
    };
    dead & (records | row)
}

impl State {
    /// Its requests and its transaction stay behind.
    fn orphan(&mut self, worker: u8) {
        self.wire.orphan(worker);
        if let Some(open) = &mut self.open
            && open.who == worker
        {
            open.who = NOBODY;
        }
    }

    fn fault(&self) -> Self {
        let mut next = self.clone();
        next.faults += 1;
        next
    }
}

impl Worker {
    fn rests(&mut self, phase: Phase) {
        (self.phase, self.range) = (phase, (0, 0));
    }
}

impl Mixed {
    /// Rows that a record has in Cassandra.
    fn keys(&self, record: u8, dead: Dead) -> Vec<usize> {
        let all: &[usize] = match (record, self.0.single) {
            (0, _) => &[0],
            (1, _) => &[1],
            (_, true) => &[2],
            (_, false) => &[0, 2],
        };
        let stays = |key: &&usize| (record, **key) != AHEAD_REFUSED || dead & ROW == 0;
        let alive = dead & (1 << record) == 0;
        all.iter()
            .filter(|_| alive)
            .filter(stays)
            .copied()
            .collect()
    }
}

impl Model for Mixed {
    type State = State;
    type Bad = Bad;
    type Goal = Goal;

    fn start(&self) -> State {
        State {
            next: 0,
            rows: Vec::new(),
            dead: 0,
            reserved: if self.0.reserved { 0 } else { RECORDS },
            open: None,
            cells: [None; 3],
            wire: Wire::new(),
            workers: Workers::none(),
            faults: 0,
        }
    }

    fn successors(&self, state: &State, to: &mut Steps) {
        for worker in [0, 1] {
            match state.workers[worker] {
                None => self.claim(state, worker, to),
                Some(now) => self.works(state, worker, now, to),
            }
        }
        if let Some(open) = state.open {
            self.transaction(state, open, to);
        }
        for at in 0..state.wire.len() {
            self.arrives(state, at, to);
        }
    }

    fn bad(&self, state: &State) -> Option<Bad> {
        let alive = (0..state.next).filter(|record| state.dead & (1 << record) == 0);
        if !alive.eq(state.rows.iter().copied()) {
            return Some(Bad::Here);
        }
        if state.next < RECORDS || !state.wire.is_empty() || state.open.is_some() {
            return None;
        }
        let mut fold = [None; 3];
        for record in 0..RECORDS {
            for key in self.keys(record, state.dead) {
                fold[key] = Some(2 * record);
            }
        }
        let cells = state.cells.map(|cell| cell.filter(|write| write % 2 == 0));
        (cells != fold).then_some(Bad::Ahead)
    }

    fn reached(&self, _: Goal, state: &State) -> bool {
        state.next == RECORDS
    }
}
