//! State that moves with the position (delivery rule 5), explored exhaustively: a lane folds records into a state and
//! emits what the state says; both workers may think they own the partition, and changes are late, lost or doubted.
//!
//! The ledger and the last write time are such state today: they are columns of the position's own row.

use super::explore::{Kind, Label, Model, Verdict, explore};
use super::wire::{NOBODY, Sent, Wire};
use super::workers::Workers;

const RECORDS: u8 = 3;

/// When the state is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    WithPosition,
    Before,
    After,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    stored: Stored,
    /// After an unknown outcome the state is read again with the position; otherwise the lane's own goes on.
    reads: bool,
    epoch: bool,
    faults: u8,
}

const RULES: Rules = Rules {
    stored: Stored::WithPosition,
    reads: true,
    epoch: true,
    faults: 2,
};

/// How often each record was folded in.
type Fold = [u8; 3];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    /// The state alone is on the wire; then the position.
    State,
    Position,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker {
    current: bool,
    next: u8,
    fold: Fold,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum What {
    /// The position, with the state or without.
    Position(Option<Fold>),
    State(Fold),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    who: u8,
    current: bool,
    from: u8,
    what: What,
}

impl Sent for Message {
    fn who(&mut self) -> &mut u8 {
        &mut self.who
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    next: u8,
    fold: Fold,
    wire: Wire<Message>,
    workers: Workers<Worker>,
    faults: u8,
}

/// What a lane finds when it goes on is not the fold of the records below its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Apart;

/// Every record is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Drained;

struct Folding(Rules);

impl Folding {
    fn claim(&self, state: &State, who: u8) -> State {
        let mut next = state.clone();
        if self.0.epoch {
            for other in next.workers.iter_mut() {
                other.current = false;
            }
            next.wire.rewrite(|message| message.current = false);
        }
        let before = state.workers[who];
        let own = before.filter(|_| !self.0.reads).map(|now| now.fold);
        next.workers[who] = Some(Worker {
            current: true,
            next: state.next,
            fold: own.unwrap_or(state.fold),
            phase: Phase::Idle,
        });
        next
    }

    fn works(&self, state: &State, who: u8, now: Worker, to: &mut Vec<(Label, State, Kind)>) {
        if state.faults < self.0.faults {
            let mut next = state.clone();
            next.faults += 1;
            next.wire.orphan(who);
            let mut unknown = next.clone();
            next.workers[who] = None;
            to.push((("crash", who, 0, 0), next, Kind::Fault));
            if matches!(now.phase, Phase::State | Phase::Position) {
                unknown.workers[who] = Some(Worker {
                    phase: Phase::Unknown,
                    ..now
                });
                to.push((("time-out", who, 0, 0), unknown, Kind::Fault));
            }
        }
        match now.phase {
            Phase::Unknown if now.current => {
                to.push((
                    ("claim anew", who, 0, 0),
                    self.claim(state, who),
                    Kind::Normal,
                ));
            }
            Phase::Unknown => {
                let mut next = state.clone();
                next.workers[who] = None;
                to.push((("fenced", who, 0, 0), next, Kind::Normal));
            }
            Phase::Idle if now.next < RECORDS => {
                let mut next = state.clone();
                let mut fold = now.fold;
                fold[usize::from(now.next)] += 1;
                let (phase, what) = match self.0.stored {
                    Stored::WithPosition => (Phase::Position, What::Position(Some(fold))),
                    Stored::Before => (Phase::State, What::State(fold)),
                    Stored::After => (Phase::Position, What::Position(None)),
                };
                next.workers[who] = Some(Worker { fold, phase, ..now });
                next.wire.send(Message {
                    who,
                    current: now.current,
                    from: now.next,
                    what,
                });
                to.push((
                    ("folds", who, now.next.cast_signed(), 0),
                    next,
                    Kind::Normal,
                ));
            }
            _ => {}
        }
    }

    fn arrives(&self, state: &State, at: usize, to: &mut Vec<(Label, State, Kind)>) {
        let mut next = state.clone();
        let Message {
            who,
            current,
            from,
            what,
        } = next.wire.remove(at);
        if who == NOBODY {
            to.push((("lost", who, 0, 0), next.clone(), Kind::Normal));
        }
        // State by itself belongs to a position too: behind it, or right before it.
        let behind = u8::from(self.0.stored == Stored::After && matches!(what, What::State(_)));
        let holds = current && state.next == from + behind;
        if holds {
            match what {
                What::Position(fold) => {
                    next.next = from + 1;
                    next.fold = fold.unwrap_or(next.fold);
                }
                What::State(fold) => next.fold = fold,
            }
        }
        let lane = next.workers.get(who);
        let label = match what {
            What::Position(_) => ("position", who, from.cast_signed(), holds.into()),
            What::State(_) => ("state", who, from.cast_signed(), holds.into()),
        };
        let Some(mut lane) = lane else {
            to.push((label, next, Kind::Normal));
            return;
        };
        if state.faults < self.0.faults {
            let mut lost = next.clone();
            lost.faults += 1;
            lost.workers[who] = Some(Worker {
                phase: Phase::Unknown,
                ..lane
            });
            to.push((("reply lost", who, 0, 0), lost, Kind::Fault));
        }
        let alone = match (what, self.0.stored) {
            (What::State(_), Stored::Before) => Some(What::Position(None)),
            (What::Position(_), Stored::After) => Some(What::State(lane.fold)),
            _ => None,
        };
        match alone {
            _ if !holds => {
                next.workers[who] = None;
            }
            Some(what) => {
                lane.phase = match what {
                    What::State(_) => Phase::State,
                    What::Position(_) => Phase::Position,
                };
                next.workers[who] = Some(lane);
                next.wire.send(Message {
                    who,
                    current: lane.current,
                    from,
                    what,
                });
            }
            None => {
                (lane.next, lane.phase) = (from + 1, Phase::Idle);
                next.workers[who] = Some(lane);
            }
        }
        to.push((label, next, Kind::Normal));
    }
}

impl Model for Folding {
    type State = State;
    type Bad = Apart;
    type Goal = Drained;

    fn start(&self) -> State {
        State {
            next: 0,
            fold: [0; 3],
            wire: Wire::new(),
            workers: Workers::none(),
            faults: 0,
        }
    }

    fn successors(&self, state: &State, to: &mut Vec<(Label, State, Kind)>) {
        for who in [0, 1] {
            if let Some(now) = state.workers[who] {
                self.works(state, who, now, to);
                continue;
            }
            let doubled = state.workers[1 - who].is_some();
            if state.faults + u8::from(doubled) <= self.0.faults {
                let mut next = self.claim(state, who);
                next.faults += u8::from(doubled);
                let kind = if doubled { Kind::Fault } else { Kind::Normal };
                to.push((("claim", who, 0, 0), next, kind));
            }
        }
        for at in 0..state.wire.len() {
            self.arrives(state, at, to);
        }
    }

    fn bad(&self, state: &State) -> Option<Apart> {
        let fold = |next: u8| [0, 1, 2].map(|record| u8::from(record < next));
        let idle = |lane: &Worker| lane.phase == Phase::Idle && lane.fold != fold(lane.next);
        state.workers.iter().any(idle).then_some(Apart)
    }

    fn reached(&self, _: Drained, state: &State) -> bool {
        state.next == RECORDS
    }
}

fn explored(name: &str, rules: Rules) -> Verdict<Apart, Drained> {
    explore(name, &Folding(rules), &[Drained]).0
}

#[test]
fn state_and_position_are_one_step() {
    assert_eq!(explored("F0", RULES), Verdict::Safe);
    // The position's own comparison is enough for safety here.
    let without = Rules {
        epoch: false,
        ..RULES
    };
    assert_eq!(explored("F0b", without), Verdict::Safe);
}

#[test]
fn state_before_or_after_the_position_is_not_its_fold() {
    for stored in [Stored::Before, Stored::After] {
        let apart = Rules { stored, ..RULES };
        assert_eq!(
            explored("F1", apart),
            Verdict::Violated(Apart),
            "{stored:?}"
        );
    }
}

#[test]
fn state_is_read_again_with_the_position() {
    let own = Rules {
        reads: false,
        ..RULES
    };
    assert_eq!(explored("F2", own), Verdict::Violated(Apart));
}
