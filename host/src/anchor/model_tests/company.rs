//! Flights of two lanes in one transaction of the Postgres anchor, explored exhaustively. A host owns both partitions, a
//! second one takes the first from it whenever it likes; the transaction is one message, which may be late, be lost or
//! outlive its sender; its reply may be lost. The database refuses the row of one record.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::explore::{Kind, Label, Model, Verdict, explore};
use super::wire::{NOBODY, Sent, Wire};

/// What a shared transaction that failed is to each of its flights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// Nothing yet: it flies alone.
    Alone,
    /// Its own failure.
    Shared,
    /// Done: another's failure is none of its own.
    Done,
}

/// What a transaction without an outcome is to each of its flights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    ClaimAnew,
    Done,
}

/// One variant of the protocol; [`RULES`] is what is built.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// An advance that fails takes everything back.
    atomic: bool,
    /// An advance compares position and epoch.
    compares: bool,
    failed: Failed,
    unknown: Unknown,
    /// Records of each partition.
    records: [u8; 2],
    faults: u8,
}

const RULES: Rules = Rules {
    atomic: true,
    compares: true,
    failed: Failed::Alone,
    unknown: Unknown::ClaimAnew,
    records: [2, 2],
    faults: 2,
};

/// Lanes: both partitions of the first host, which share transactions; the first partition at the second host.
const LANES: usize = 3;
/// Partition and offset of what the database refuses.
const REFUSED: (usize, u8) = (1, 1);

fn partition(lane: usize) -> usize {
    lane % 2
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Claims before anything else.
    Out,
    Idle,
    /// The next flight flies alone.
    Apart,
    /// In a transaction with the other.
    Shared,
    /// In one of its own.
    Alone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lane {
    phase: Phase,
    /// Nobody claimed since.
    newest: bool,
    next: u8,
    /// The next record was refused and is set aside.
    sets_aside: bool,
}

/// A flight in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Flight {
    newest: bool,
    from: u8,
    sets_aside: bool,
}

/// A transaction on its way, by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    who: u8,
    flights: [Option<Flight>; LANES],
}

impl Sent for Message {
    fn who(&mut self) -> &mut u8 {
        &mut self.who
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The database: positions; by partition, how often each record's row is there, and whether it is set aside.
    next: [u8; 2],
    rows: [[u8; 2]; 2],
    dead: [[bool; 2]; 2],
    lanes: [Lane; LANES],
    wire: Wire<Message>,
    faults: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bad {
    Lost,
    Doubled,
    /// A record is set aside that nobody refused.
    Guiltless,
    /// An owner goes on elsewhere than at the position.
    ToldWrong,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Drained;

/// What the database says of a transaction.
#[derive(Clone, Copy, PartialEq)]
enum Reply {
    Committed,
    Fenced,
    Refused,
}

struct Company(Rules);

impl Company {
    fn execute(&self, message: &Message, state: &mut State) -> Reply {
        let flights = || {
            let flights = message.flights.iter().enumerate();
            flights.filter_map(|(lane, flight)| Some((partition(lane), (*flight)?)))
        };
        let fits = |state: &State, at: usize, flight: Flight| {
            !self.0.compares || flight.newest && state.next[at] == flight.from
        };
        let fenced = flights().any(|(at, flight)| !fits(state, at, flight));
        let refused =
            flights().any(|(at, flight)| (at, flight.from) == REFUSED && !flight.sets_aside);
        if refused || fenced && self.0.atomic {
            return if fenced {
                Reply::Fenced
            } else {
                Reply::Refused
            };
        }
        for (at, flight) in flights() {
            let offset = usize::from(flight.from);
            if flight.sets_aside {
                state.dead[at][offset] = true;
            } else {
                state.rows[at][offset] = (state.rows[at][offset] + 1).min(2);
            }
            if fits(state, at, flight) {
                state.next[at] = flight.from + 1;
            }
        }
        Reply::Committed
    }

    /// Tells each flight of a transaction what became of it; `None`: nobody knows.
    fn tell(&self, message: &Message, reply: Option<Reply>, state: &mut State) {
        let shared = message.flights.iter().flatten().count() > 1;
        for lane in (0..LANES).filter(|lane| message.flights[*lane].is_some()) {
            let lane = &mut state.lanes[lane];
            let mut done =
                || (lane.phase, lane.next, lane.sets_aside) = (Phase::Idle, lane.next + 1, false);
            match reply {
                Some(Reply::Committed) => done(),
                None if self.0.unknown == Unknown::Done => done(),
                None => (lane.phase, lane.sets_aside) = (Phase::Out, false),
                Some(_) if shared && self.0.failed == Failed::Done => done(),
                Some(_) if shared && self.0.failed == Failed::Alone => lane.phase = Phase::Apart,
                Some(Reply::Fenced) => (lane.phase, lane.sets_aside) = (Phase::Out, false),
                Some(Reply::Refused) => (lane.phase, lane.sets_aside) = (Phase::Apart, true),
            }
        }
    }

    fn send(state: &State, lanes: &[usize], phase: Phase) -> State {
        let mut state = state.clone();
        let mut message = Message {
            who: u8::try_from(lanes[0]).unwrap(),
            flights: [None; LANES],
        };
        for lane in lanes {
            let of = &mut state.lanes[*lane];
            of.phase = phase;
            message.flights[*lane] = Some(Flight {
                newest: of.newest,
                from: of.next,
                sets_aside: of.sets_aside,
            });
        }
        state.wire.send(message);
        state
    }

    fn claim(state: &State, lane: usize) -> State {
        let mut state = state.clone();
        let at = partition(lane);
        for other in (0..LANES).filter(|other| partition(*other) == at) {
            state.lanes[other].newest = other == lane;
        }
        state.wire.rewrite(|message| {
            let flights = message.flights.iter_mut().enumerate();
            flights
                .filter(|(of, _)| partition(*of) == at)
                .filter_map(|(_, flight)| flight.as_mut())
                .for_each(|flight| flight.newest = false);
        });
        state.lanes[lane].phase = Phase::Idle;
        state.lanes[lane].next = state.next[at];
        state
    }
}

impl Model for Company {
    type State = State;
    type Bad = Bad;
    type Goal = Drained;

    fn start(&self) -> State {
        let lane = |phase| Lane {
            phase,
            newest: phase == Phase::Idle,
            next: 0,
            sets_aside: false,
        };
        State {
            next: [0; 2],
            rows: [[0; 2]; 2],
            dead: [[false; 2]; 2],
            lanes: [lane(Phase::Idle), lane(Phase::Idle), lane(Phase::Out)],
            wire: Wire::new(),
            faults: self.0.faults,
        }
    }

    fn successors(&self, state: &State, to: &mut Vec<(Label, State, Kind)>) {
        let has_more = |lane: usize| state.lanes[lane].next < self.0.records[partition(lane)];
        let may = |lane: usize, phase| state.lanes[lane].phase == phase && has_more(lane);
        for lane in 0..LANES {
            let who = u8::try_from(lane).unwrap();
            if state.lanes[lane].phase == Phase::Out {
                to.push((("claim", who, 0, 0), Self::claim(state, lane), Kind::Normal));
            }
            if may(lane, Phase::Idle) || may(lane, Phase::Apart) {
                let sent = Self::send(state, &[lane], Phase::Alone);
                to.push((("fly", who, 0, 0), sent, Kind::Normal));
            }
        }
        if may(0, Phase::Idle) && may(1, Phase::Idle) {
            let sent = Self::send(state, &[0, 1], Phase::Shared);
            to.push((("fly together", 0, 0, 0), sent, Kind::Normal));
        }
        for at in 0..state.wire.len() {
            let mut rest = state.clone();
            let message = rest.wire.remove(at);
            let mut arrived = rest.clone();
            let reply = self.execute(&message, &mut arrived);
            if message.who == NOBODY {
                to.push((("arrives late", NOBODY, 0, 0), arrived, Kind::Normal));
                to.push((("never arrives", NOBODY, 0, 0), rest, Kind::Normal));
                continue;
            }
            let mut told = arrived.clone();
            self.tell(&message, Some(reply), &mut told);
            to.push((("arrives", message.who, 0, 0), told, Kind::Normal));
            if state.faults > 0 {
                arrived.faults -= 1;
                self.tell(&message, None, &mut arrived);
                to.push((("reply lost", message.who, 0, 0), arrived, Kind::Fault));
                let mut cut = state.clone();
                cut.faults -= 1;
                cut.wire.orphan_of(message.who, |other| *other == message);
                self.tell(&message, None, &mut cut);
                to.push((("cut short", message.who, 0, 0), cut, Kind::Fault));
            }
        }
    }

    fn bad(&self, state: &State) -> Option<Bad> {
        for at in 0..2 {
            for offset in 0..self.0.records[at] {
                let (row, dead) = (
                    state.rows[at][usize::from(offset)],
                    state.dead[at][usize::from(offset)],
                );
                if row + u8::from(dead) > 1 {
                    return Some(Bad::Doubled);
                }
                if dead && (at, offset) != REFUSED {
                    return Some(Bad::Guiltless);
                }
                if offset < state.next[at] && row == 0 && !dead {
                    return Some(Bad::Lost);
                }
            }
        }
        let astray = |lane: usize| {
            let of = &state.lanes[lane];
            of.newest && of.phase == Phase::Idle && of.next != state.next[partition(lane)]
        };
        (0..LANES).any(astray).then_some(Bad::ToldWrong)
    }

    fn reached(&self, _: Drained, state: &State) -> bool {
        state.next == self.0.records
    }
}

fn verdict(name: &str, rules: Rules) -> Verdict<Bad, Drained> {
    explore(name, &Company(rules), &[Drained]).0
}

#[test]
fn every_rule_kept() {
    assert_eq!(verdict("G0", RULES), Verdict::Safe);
}

#[test]
fn a_fenced_flight_takes_the_whole_transaction_back() {
    let rules = Rules {
        atomic: false,
        ..RULES
    };
    assert_eq!(verdict("G1", rules), Verdict::Violated(Bad::Doubled));
}

#[test]
fn anothers_failure_does_not_make_a_flight_done() {
    let rules = Rules {
        failed: Failed::Done,
        ..RULES
    };
    assert_eq!(verdict("G2", rules), Verdict::Violated(Bad::ToldWrong));
}

#[test]
fn anothers_refusal_sets_nothing_aside() {
    let rules = Rules {
        failed: Failed::Shared,
        ..RULES
    };
    assert_eq!(verdict("G3", rules), Verdict::Violated(Bad::Guiltless));
}

#[test]
fn what_is_unknown_of_a_transaction_is_unknown_of_each_flight() {
    let rules = Rules {
        unknown: Unknown::Done,
        ..RULES
    };
    assert_eq!(verdict("G4", rules), Verdict::Violated(Bad::ToldWrong));
}

#[test]
fn each_advance_compares() {
    let rules = Rules {
        compares: false,
        ..RULES
    };
    assert_eq!(verdict("G5", rules), Verdict::Violated(Bad::ToldWrong));
}
