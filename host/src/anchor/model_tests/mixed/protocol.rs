//! Postgres as the anchor and Cassandra written ahead as a state machine. One flight: `BEGIN`; advance (compare-and-set
//! on position and epoch; takes the row's lock); rows; dead letters → Cassandra → `COMMIT`. Three records; Postgres
//! refuses the second, Cassandra may refuse a row of the third. At most one transaction is open: the row's lock.

use super::super::explore::{Kind, Label, Model};
use super::super::wire::{NOBODY, Sent, Wire};

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
    workers: [Option<Worker>; 2],
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
    fn worker(&mut self, worker: u8) -> &mut Worker {
        self.workers[usize::from(worker)]
            .as_mut()
            .expect("only live workers act")
    }

    /// Its requests and its transaction stay behind.
    fn orphan(&mut self, worker: u8) {
        self.wire.orphan(worker, |_| true);
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

    fn send(&self, state: &mut State, who: u8, (from, to): (u8, u8), dead: Dead) {
        for record in from..to {
            for key in self.keys(record, dead) {
                state.wire.send(Message::Cell { who, record, key });
            }
        }
    }

    fn claim(&self, state: &State, worker: u8, to: &mut Steps) {
        let doubled = state.workers[usize::from(1 - worker)].is_some();
        if state.open.is_some() || state.faults + u8::from(doubled) > self.0.faults {
            return;
        }
        let mut next = state.clone();
        next.faults += u8::from(doubled);
        if self.0.epoch {
            for other in next.workers.iter_mut().flatten() {
                other.current = false;
            }
            next.wire.rewrite(|message| {
                if let Message::Advance { current, .. } = message {
                    *current = false;
                }
            });
        }
        next.workers[usize::from(worker)] = Some(Worker {
            current: true,
            next: state.next,
            phase: Phase::Idle,
            range: (0, 0),
            dead: if self.0.precheck {
                1 << HERE_REFUSED
            } else {
                0
            },
            unsent: state.reserved,
        });
        let kind = if doubled { Kind::Fault } else { Kind::Normal };
        to.push((("claim", worker, 0, 0), next, kind));
    }

    fn works(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        if state.faults < self.0.faults {
            let mut next = state.fault();
            next.orphan(worker);
            let mut given_up = next.clone();
            next.workers[usize::from(worker)] = None;
            to.push((("crash", worker, 0, 0), next, Kind::Fault));
            if matches!(now.phase, Phase::Advance | Phase::Ahead | Phase::Commit) {
                given_up.worker(worker).rests(Phase::Recover);
                to.push((("time-out", worker, 0, 0), given_up, Kind::Fault));
            }
        }
        let mut step = |label: Label, next: State| to.push((label, next, Kind::Normal));
        match now.phase {
            Phase::Idle if now.next < RECORDS => {
                let most = (now.next + 2).min(RECORDS);
                if self.0.reserved && now.next >= state.reserved && state.open.is_none() {
                    let mut next = state.clone();
                    if now.current {
                        next.reserved = most;
                    } else {
                        next.workers[usize::from(worker)] = None;
                    }
                    step(("reserve", worker, 0, 0), next);
                }
                for end in now.next + 1..=most {
                    if self.0.reserved && end > state.reserved {
                        continue;
                    }
                    let range = (now.next, end);
                    let mut next = state.clone();
                    let lane = next.worker(worker);
                    (lane.phase, lane.range) = (Phase::Advance, range);
                    next.wire.send(Message::Advance {
                        who: worker,
                        current: now.current,
                        range,
                        dead: within(now.dead, range),
                    });
                    step(
                        ("begin", worker, range.0.cast_signed(), end.cast_signed()),
                        next,
                    );
                }
            }
            // Every write is acknowledged.
            Phase::Ahead if !state.wire.has(worker) => {
                let mut next = state.clone();
                if !self.0.ahead {
                    next.worker(worker).next = now.range.1;
                    next.worker(worker).rests(Phase::Idle);
                    step(("done", worker, 0, 0), next);
                    return;
                }
                match &mut next.open {
                    Some(open) if open.who == worker => {
                        open.commits = true;
                        next.worker(worker).phase = Phase::Commit;
                    }
                    _ => next.worker(worker).rests(Phase::Recover),
                }
                step(("send COMMIT", worker, 0, 0), next);
            }
            Phase::Recover if state.open.is_none() || !self.0.locks => {
                let mut next = state.clone();
                if now.current {
                    next.worker(worker).next = state.next;
                    next.worker(worker).rests(Phase::Idle);
                } else {
                    next.workers[usize::from(worker)] = None;
                }
                step(("read again", worker, 0, 0), next);
            }
            _ => {}
        }
    }

    fn transaction(&self, state: &State, open: Transaction, to: &mut Steps) {
        let mut closed = state.clone();
        closed.open = None;
        if open.who == NOBODY {
            to.push((
                ("drops an orphan", NOBODY, 0, 0),
                closed.clone(),
                Kind::Normal,
            ));
        } else if !open.commits && state.faults < self.0.faults {
            let mut next = closed.clone();
            next.faults += 1;
            to.push((("backend killed", open.who, 0, 0), next, Kind::Fault));
        }
        if !open.commits {
            return;
        }
        closed.next = open.range.1;
        closed.dead |= open.dead;
        let alive = (open.range.0..open.range.1).filter(|record| open.dead & (1 << record) == 0);
        closed.rows.extend(alive);
        let label = |name| {
            (
                name,
                open.who,
                open.range.0.cast_signed(),
                open.range.1.cast_signed(),
            )
        };
        if open.who == NOBODY {
            to.push((label("late COMMIT"), closed, Kind::Normal));
            return;
        }
        if state.faults < self.0.faults {
            let mut lost = closed.fault();
            lost.worker(open.who).rests(Phase::Recover);
            to.push((label("COMMIT, reply lost"), lost, Kind::Fault));
        }
        if self.0.ahead {
            closed.worker(open.who).next = open.range.1;
            closed.worker(open.who).rests(Phase::Idle);
        } else {
            self.send(&mut closed, open.who, open.range, open.dead);
            closed.worker(open.who).phase = Phase::Ahead;
        }
        to.push((label("COMMIT"), closed, Kind::Normal));
    }

    fn arrives(&self, state: &State, at: usize, to: &mut Steps) {
        let mut next = state.clone();
        let mut message = next.wire.remove(at);
        if *message.who() == NOBODY {
            to.push((("lost", NOBODY, 0, 0), next.clone(), Kind::Normal));
        }
        match message {
            Message::Advance {
                who,
                current,
                range,
                dead,
            } if state.open.is_none() => {
                self.advances(state, next, (who, current, range, dead), to);
            }
            // Behind the row's lock.
            Message::Advance { .. } => {}
            Message::Cell { who, record, key } => self.cell(state, next, (who, record, key), to),
        }
    }

    fn advances(
        &self,
        state: &State,
        mut next: State,
        (who, current, range, dead): (u8, bool, (u8, u8), Dead),
        to: &mut Steps,
    ) {
        let is_here = who != NOBODY;
        let at = |name| (name, who, range.0.cast_signed(), range.1.cast_signed());
        let holds = !self.0.compare || (current && state.next == range.0);
        if !holds {
            if !is_here {
                return;
            }
            if current {
                next.worker(who).next = state.next;
                next.worker(who).rests(Phase::Idle);
            } else {
                next.workers[usize::from(who)] = None;
            }
            to.push((at("refused"), next, Kind::Normal));
            return;
        }
        let has_bad = (range.0..range.1).contains(&HERE_REFUSED) && dead & (1 << HERE_REFUSED) == 0;
        let refuses = has_bad && self.0.here != Refuses::Never;
        if refuses && is_here {
            let mut refused = next.clone();
            let lane = refused.worker(who);
            if self.0.reserved && HERE_REFUSED < lane.unsent {
                lane.rests(Phase::Stopped);
            } else {
                lane.dead |= 1 << HERE_REFUSED;
                lane.rests(Phase::Idle);
            }
            to.push((at("Postgres refuses"), refused, Kind::Normal));
        }
        if refuses && self.0.here == Refuses::Always {
            return;
        }
        next.open = Some(Transaction {
            who,
            range,
            dead,
            commits: is_here && !self.0.ahead,
        });
        if is_here {
            let lane = next.worker(who);
            lane.phase = if self.0.ahead {
                Phase::Ahead
            } else {
                Phase::Commit
            };
            if self.0.ahead {
                if self.0.reserved {
                    lane.unsent = lane.unsent.max(range.1);
                }
                self.send(&mut next, who, range, dead);
            }
        }
        to.push((at("advanced"), next, Kind::Normal));
    }

    fn cell(
        &self,
        state: &State,
        next: State,
        (who, record, key): (u8, u8, usize),
        to: &mut Steps,
    ) {
        let label = |name| {
            (
                name,
                who,
                record.cast_signed(),
                i8::try_from(key).unwrap_or(0),
            )
        };
        let refuses = (record, key) == AHEAD_REFUSED && self.0.cassandra != Refuses::Never;
        if !refuses || self.0.cassandra == Refuses::Sometimes {
            let mut next = next.clone();
            let cell = &mut next.cells[key];
            *cell = if self.0.stamps {
                (*cell).max(Some(2 * record))
            } else {
                Some(2 * record)
            };
            to.push((label("written"), next, Kind::Normal));
        }
        let ahead = |worker: Worker| worker.phase == Phase::Ahead;
        let lane = state.workers.get(usize::from(who)).copied().flatten();
        let Some(lane) = lane.filter(|lane| refuses && ahead(*lane)) else {
            return;
        };
        let mut refused = next;
        if refused.open.is_some_and(|open| open.who == who) {
            refused.open = None;
        }
        refused.orphan(who);
        let worker = refused.worker(who);
        worker.rests(Phase::Idle);
        match self.0.then {
            Then::Stop => worker.phase = Phase::Stopped,
            _ if self.0.reserved && record < lane.unsent => worker.phase = Phase::Stopped,
            Then::Row => worker.dead |= ROW,
            Then::Record | Then::Undo => worker.dead |= 1 << record,
        }
        if self.0.then == Then::Undo {
            for key in self.keys(record, 0) {
                refused.cells[key] = refused.cells[key].max(Some(2 * record + 1));
            }
        }
        to.push((label("Cassandra refuses"), refused, Kind::Normal));
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
            workers: [None; 2],
            faults: 0,
        }
    }

    fn successors(&self, state: &State, to: &mut Steps) {
        for worker in [0, 1] {
            match state.workers[usize::from(worker)] {
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
