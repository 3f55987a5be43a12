//! The retry of one dead letter as a state machine: Postgres keeps it, a sink is written ahead. Two people retry it,
//! each through a release of theirs (or through the one that began it), and somebody may drop it. The releases write
//! different keys ahead, so that rows of both are a ghost for good; a newer record's row lies at one of the keys.

use super::super::explore::{Kind, Label, Model};
use super::super::wire::{NOBODY, Sent, Wire};

/// What the mark of a beginning is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The first one stays.
    First,
    /// Whoever comes last has it.
    Last,
    None,
}

/// One variant of the protocol; [`RULES`] is what is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Kept, durably, before anything is sent ahead.
    pub(super) mark: Mark,
    /// Rows and removal are one transaction.
    pub(super) together: bool,
    /// Rows ahead are acknowledged before the commit.
    pub(super) ahead: bool,
    /// Rows ahead have the time that the record had.
    pub(super) stamps: bool,
    /// A letter whose retry was begun is not dropped.
    pub(super) keeps_begun: bool,
    pub(super) faults: u8,
}

pub(super) const RULES: Rules = Rules {
    mark: Mark::First,
    together: true,
    ahead: true,
    stamps: true,
    keeps_begun: true,
    faults: 2,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// It has read the letter.
    Read,
    /// Its mark is on the way.
    Begin,
    /// Its transaction is.
    Open,
    /// Its rows ahead are.
    Ahead,
    /// Its commit is.
    Commit,
    /// The removal alone is.
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Retrier {
    release: u8,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Begin { who: u8, release: u8 },
    Open { who: u8, release: u8 },
    Ahead { who: u8, release: u8 },
    Remove { who: u8 },
}

impl Sent for Message {
    fn who(&mut self) -> &mut u8 {
        match self {
            Self::Begin { who, .. }
            | Self::Open { who, .. }
            | Self::Ahead { who, .. }
            | Self::Remove { who } => who,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Transaction {
    who: u8,
    release: u8,
    commits: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    there: bool,
    dropped: bool,
    begun: Option<u8>,
    /// Rows in Postgres, and the release that the last is of.
    rows: u8,
    by: u8,
    /// Releases whose rows are in the sink ahead.
    cells: u8,
    /// The newer record's row is gone.
    overwritten: bool,
    open: Option<Transaction>,
    wire: Wire<Message>,
    retriers: [Option<Retrier>; 2],
    faults: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Rows twice, or rows and a letter.
    Doubled,
    /// It is gone, and not all of its rows are there.
    Lost,
    /// Rows of two releases, or of a record that stays dead.
    Ghost,
    /// An older row took the place of a newer one.
    Overwritten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The letter is decided: emitted or dropped.
    Decided,
}

pub(super) struct Letters(pub(super) Rules);

type Steps = Vec<(Label, State, Kind)>;

impl State {
    fn fault(&self) -> Self {
        let mut next = self.clone();
        next.faults += 1;
        next
    }

    /// A retrier ends: what it sent stays behind.
    fn end(&mut self, who: u8) {
        self.wire.orphan(who);
        if let Some(open) = &mut self.open
            && open.who == who
        {
            open.who = NOBODY;
        }
        self.retriers[usize::from(who)] = None;
    }

    fn phase(&mut self, who: u8, phase: Phase) {
        if let Some(Some(retrier)) = self.retrier(who) {
            retrier.phase = phase;
        }
    }

    fn retrier(&mut self, who: u8) -> Option<&mut Option<Retrier>> {
        self.retriers.get_mut(usize::from(who))
    }
}

impl Letters {
    fn begins(&self, state: &State, who: u8, to: &mut Steps) {
        if !state.there {
            return;
        }
        // Without being told otherwise, through the release that began it.
        let own = who + 1;
        let wanted = match self.0.mark {
            Mark::First => state.begun.unwrap_or(own),
            Mark::Last | Mark::None => own,
        };
        let mut next = state.clone();
        next.retriers[usize::from(who)] = Some(Retrier {
            release: wanted,
            phase: Phase::Read,
        });
        to.push((("reads", who, wanted.cast_signed(), 0), next, Kind::Normal));
    }

    fn works(&self, state: &State, who: u8, now: Retrier, to: &mut Steps) {
        let release = now.release;
        if state.faults < self.0.faults {
            let mut next = state.fault();
            next.end(who);
            to.push((("is killed", who, 0, 0), next, Kind::Fault));
            if now.phase != Phase::Read {
                // It tries again: it does not know.
                let mut next = state.fault();
                next.end(who);
                next.retriers[usize::from(who)] = Some(Retrier {
                    release,
                    phase: Phase::Read,
                });
                to.push((("time-out", who, 0, 0), next, Kind::Fault));
            }
        }
        let mut next = state.clone();
        let label = match now.phase {
            Phase::Read if self.0.mark == Mark::None => {
                next.phase(who, Phase::Open);
                next.wire.send(Message::Open { who, release });
                "opens"
            }
            Phase::Read => {
                next.phase(who, Phase::Begin);
                next.wire.send(Message::Begin { who, release });
                "begins"
            }
            Phase::Ahead if !state.wire.has(who) => {
                if !self.0.ahead {
                    next.end(who);
                } else if let Some(open) = next.open.as_mut().filter(|open| open.who == who) {
                    open.commits = true;
                    next.phase(who, Phase::Commit);
                } else {
                    next.phase(who, Phase::Read);
                }
                "is acknowledged"
            }
            _ => return,
        };
        to.push(((label, who, release.cast_signed(), 0), next, Kind::Normal));
    }

    fn transaction(&self, state: &State, open: Transaction, to: &mut Steps) {
        let who = open.who;
        let mut closed = state.clone();
        closed.open = None;
        if who == NOBODY {
            to.push((("drops an orphan", who, 0, 0), closed.clone(), Kind::Normal));
        }
        if !open.commits {
            return;
        }
        closed.there &= !self.0.together;
        closed.rows += 1;
        closed.by = open.release;
        let label = |name| (name, who, open.release.cast_signed(), 0);
        if who == NOBODY {
            to.push((label("late COMMIT"), closed, Kind::Normal));
            return;
        }
        if state.faults < self.0.faults {
            let mut lost = closed.fault();
            lost.phase(who, Phase::Read);
            to.push((label("COMMIT, reply lost"), lost, Kind::Fault));
        }
        let release = open.release;
        if !self.0.ahead {
            closed.wire.send(Message::Ahead { who, release });
            closed.phase(who, Phase::Ahead);
        } else if !self.0.together {
            closed.wire.send(Message::Remove { who });
            closed.phase(who, Phase::Remove);
        } else {
            closed.end(who);
        }
        to.push((label("COMMIT"), closed, Kind::Normal));
    }

    fn arrives(&self, state: &State, at: usize, to: &mut Steps) {
        let mut next = state.clone();
        let mut message = next.wire.remove(at);
        let who = *message.who();
        if who == NOBODY {
            to.push((("lost", who, 0, 0), next.clone(), Kind::Normal));
        }
        let label = match message {
            // Behind the row's lock.
            Message::Begin { .. } | Message::Open { .. } | Message::Remove { .. }
                if state.open.is_some() =>
            {
                return;
            }
            Message::Begin { release, .. } => {
                let other = state.begun.is_some_and(|begun| begun != release);
                let holds = state.there && !(other && self.0.mark == Mark::First);
                if holds {
                    next.begun = Some(release);
                }
                if holds && who != NOBODY {
                    next.phase(who, Phase::Open);
                    next.wire.send(Message::Open { who, release });
                } else if who != NOBODY {
                    next.end(who);
                }
                "begun"
            }
            Message::Open { release, .. } => {
                if !state.there {
                    if who != NOBODY {
                        next.end(who);
                    }
                    to.push((("is gone", who, 0, 0), next, Kind::Normal));
                    return;
                }
                next.open = Some(Transaction {
                    who,
                    release,
                    commits: who != NOBODY && !self.0.ahead,
                });
                if who != NOBODY && self.0.ahead {
                    next.wire.send(Message::Ahead { who, release });
                    next.phase(who, Phase::Ahead);
                } else {
                    next.phase(who, Phase::Commit);
                }
                "rows and removal"
            }
            Message::Ahead { release, .. } => {
                next.cells |= 1 << release;
                next.overwritten |= !self.0.stamps;
                "rows ahead"
            }
            Message::Remove { .. } => {
                next.there = false;
                if who != NOBODY {
                    next.end(who);
                }
                "removed"
            }
        };
        to.push(((label, who, 0, 0), next, Kind::Normal));
    }
}

impl Model for Letters {
    type State = State;
    type Bad = Bad;
    type Goal = Goal;

    fn start(&self) -> State {
        State {
            there: true,
            dropped: false,
            begun: None,
            rows: 0,
            by: 0,
            cells: 0,
            overwritten: false,
            open: None,
            wire: Wire::new(),
            retriers: [None; 2],
            faults: 0,
        }
    }

    fn successors(&self, state: &State, to: &mut Steps) {
        for who in [0, 1] {
            match state.retriers[usize::from(who)] {
                None => self.begins(state, who, to),
                Some(now) => self.works(state, who, now, to),
            }
        }
        if let Some(open) = state.open {
            self.transaction(state, open, to);
        } else if state.there && (state.begun.is_none() || !self.0.keeps_begun) {
            let mut next = state.clone();
            (next.there, next.dropped) = (false, true);
            to.push((("is dropped", NOBODY, 0, 0), next, Kind::Input));
        }
        for at in 0..state.wire.len() {
            self.arrives(state, at, to);
        }
    }

    fn bad(&self, state: &State) -> Option<Bad> {
        if state.overwritten {
            return Some(Bad::Overwritten);
        }
        if state.rows > 1 || (self.0.together && state.rows == 1 && state.there) {
            return Some(Bad::Doubled);
        }
        let decided = state.rows == 1 || state.dropped;
        let own = if state.rows == 1 { 1 << state.by } else { 0 };
        if state.cells.count_ones() > 1 || (decided && state.cells & !own != 0) {
            return Some(Bad::Ghost);
        }
        let quiet = state.wire.is_empty() && state.open.is_none();
        (state.rows == 1 && quiet && state.cells != own).then_some(Bad::Lost)
    }

    fn reached(&self, _: Goal, state: &State) -> bool {
        !state.there
    }
}
