//! Where a pipeline starts (delivery rule 7), explored exhaustively: the product's own [`start::seeds`], two hosts that
//! start, stop and die between any two steps, records and partitions that are added, positions that go missing.

use crate::anchor::model_tests::explore::{Kind, Label, Model, Verdict, explore};
use crate::anchor::{Cut, Stored};
use crate::manifest::Start;
use crate::pipeline::start;
use crate::source::TopicInfo;

/// Records that a partition ever holds: one may be there before the first deployment.
const RECORDS: u8 = 2;

/// What goes missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Nothing,
    /// The position of the first of two partitions.
    First,
    /// The position of the last of two partitions.
    Last,
    All,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    start: Start,
    /// Positions are stored before the first fetch.
    stores_first: bool,
    /// Partitions that are added start at 0; otherwise as a new pipeline does.
    added_at_zero: bool,
    /// A partition without a position is a stop; otherwise it starts as one of a new pipeline does.
    stops: bool,
    missing: Missing,
}

const RULES: Rules = Rules {
    start: Start::Latest,
    stores_first: true,
    added_at_zero: true,
    stops: true,
    missing: Missing::Nothing,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// It has read what is stored, and the topic after that; whether nothing was stored.
    Resolved(Vec<(usize, u8)>, bool),
    /// It reads from there; without a stored position from where it decided by itself.
    Runs([Option<u8>; 2]),
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Records by partition; the second partition may not exist yet.
    log: [Option<u8>; 2],
    stored: [Option<u8>; 2],
    /// First record that has to be processed, by partition, once somebody decided it.
    owed: [Option<u8>; 2],
    /// How often each record was processed.
    done: [[u8; 2]; 2],
    hosts: [Option<Host>; 2],
    deaths: u8,
    lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    Lost,
    Doubled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// What is owed is processed, or an operator was called.
    Through,
}

struct Starting(Rules);

impl Starting {
    /// What the product stores; `None` for a data-loss stop.
    fn resolve(&self, state: &State) -> Option<Vec<(usize, u8)>> {
        let partitions = state.log.iter().flatten();
        let info = TopicInfo {
            id: None,
            watermarks: partitions.map(|high| (0, (*high).into())).collect(),
        };
        let number = |at: usize| i32::try_from(at).unwrap();
        let stored = state.stored.iter().enumerate();
        let stored: Vec<Stored> = stored
            .filter_map(|(at, next)| {
                Some(Stored {
                    partition: number(at),
                    next: (*next)?.into(),
                    cuts: Vec::new(),
                    topic_id: None,
                })
            })
            .collect();
        let fresh = |at: usize| match self.0.start {
            Start::Earliest => 0,
            Start::Latest => state.log[at].unwrap_or_default(),
        };
        let cut = |_, at| Cut::new(at, "r1");
        let seeds = match start::seeds("t", &stored, &info, self.0.start, cut) {
            Ok(seeds) => seeds,
            Err(_) if self.0.stops => return None,
            Err(_) => {
                let missing = (0..2).filter(|at| state.log[*at].is_some());
                let missing = missing.filter(|at| state.stored[*at].is_none());
                return Some(missing.map(|at| (at, fresh(at))).collect());
            }
        };
        let at = |seed: &Stored| {
            let partition = usize::try_from(seed.partition).unwrap();
            let added = !stored.is_empty() && !self.0.added_at_zero;
            let next = u8::try_from(seed.next).unwrap();
            (partition, if added { fresh(partition) } else { next })
        };
        Some(seeds.iter().map(at).collect())
    }

    fn host(&self, state: &State, who: usize, host: &Host, to: &mut Vec<(Label, State, Kind)>) {
        let label = |name| (name, u8::try_from(who).unwrap(), 0, 0);
        if state.deaths < 2 && *host != Host::Stopped {
            let mut next = state.clone();
            next.deaths += 1;
            next.hosts[who] = None;
            to.push((label("dies"), next, Kind::Fault));
        }
        match host {
            Host::Stopped => {}
            Host::Resolved(seeds, first) => {
                let mut next = state.clone();
                let mut reads = state.stored;
                for (at, seed) in seeds {
                    // Who is first decides; a partition that was added since has never been skipped.
                    next.owed[*at].get_or_insert(if *first { *seed } else { 0 });
                    reads[*at].get_or_insert(*seed);
                    if self.0.stores_first {
                        next.stored[*at].get_or_insert(*seed);
                    }
                }
                next.hosts[who] = Some(Host::Runs(reads));
                to.push((label("stores positions"), next, Kind::Normal));
            }
            Host::Runs(reads) => {
                let added = |at: &usize| state.log[*at].is_some() && reads[*at].is_none();
                if (0..2).any(|at| added(&at)) {
                    let mut next = state.clone();
                    next.hosts[who] = None;
                    to.push((label("hears of a partition"), next, Kind::Normal));
                }
                for (at, read) in reads.iter().enumerate() {
                    let Some(from) = state.stored[at].or(*read) else {
                        continue;
                    };
                    // The claim finds no position although one was stored.
                    if self.0.stops && self.0.stores_first && state.stored[at].is_none() {
                        let mut next = state.clone();
                        next.hosts[who] = Some(Host::Stopped);
                        to.push((label("DATA LOSS"), next, Kind::Normal));
                        continue;
                    }
                    if state.log[at].is_some_and(|high| from < high) {
                        let mut next = state.clone();
                        next.done[at][usize::from(from)] += 1;
                        next.stored[at] = Some(from + 1);
                        to.push((label("processes"), next, Kind::Normal));
                    }
                }
            }
        }
    }
}

impl Model for Starting {
    type State = State;
    type Bad = Bad;
    type Goal = Goal;

    fn start(&self) -> State {
        let two = !matches!(self.0.missing, Missing::Nothing | Missing::All);
        State {
            log: [Some(1), two.then_some(1)],
            stored: [None; 2],
            owed: [None; 2],
            done: [[0; 2]; 2],
            hosts: [None, None],
            deaths: 0,
            lost: false,
        }
    }

    fn successors(&self, state: &State, to: &mut Vec<(Label, State, Kind)>) {
        for who in 0..2 {
            let label = |name| (name, u8::try_from(who).unwrap(), 0, 0);
            match &state.hosts[who] {
                Some(host) => self.host(state, who, host, to),
                None => {
                    let mut next = state.clone();
                    next.hosts[who] = Some(match self.resolve(state) {
                        Some(seeds) => Host::Resolved(seeds, state.stored == [None; 2]),
                        None => Host::Stopped,
                    });
                    to.push((label("starts"), next, Kind::Normal));
                }
            }
        }
        for at in 0..2 {
            let label = |name| (name, 2, i8::try_from(at).unwrap(), 0);
            let mut next = state.clone();
            match &mut next.log[at] {
                Some(high) if *high < RECORDS => *high += 1,
                None => next.log[at] = Some(0),
                Some(_) => continue,
            }
            to.push((label("grows"), next, Kind::Input));
        }
        let gone = match self.0.missing {
            Missing::Nothing => [false, false],
            Missing::First => [true, false],
            Missing::Last => [false, true],
            Missing::All => [true, true],
        };
        let there =
            (0..2).all(|at| !gone[at] || state.log[at].is_none() || state.stored[at].is_some());
        // Between reading and storing it would be the same as a first start.
        let settled = !state
            .hosts
            .iter()
            .flatten()
            .any(|host| matches!(host, Host::Resolved(..)));
        if gone != [false; 2] && !state.lost && there && settled && state.stored != [None; 2] {
            let mut next = state.clone();
            next.lost = true;
            for (stored, gone) in next.stored.iter_mut().zip(gone) {
                *stored = stored.filter(|_| !gone);
            }
            to.push((("positions are gone", 2, 0, 0), next, Kind::Fault));
        }
    }

    fn bad(&self, state: &State) -> Option<Bad> {
        for at in 0..2 {
            for record in 0..RECORDS {
                let done = state.done[at][usize::from(record)];
                if done > 1 {
                    return Some(Bad::Doubled);
                }
                let passed = state.stored[at].is_some_and(|next| record < next);
                if done == 0 && passed && state.owed[at].is_some_and(|first| record >= first) {
                    return Some(Bad::Lost);
                }
            }
        }
        None
    }

    fn reached(&self, _: Goal, state: &State) -> bool {
        let through = (0..2).all(|at| state.log[at].is_none() || state.stored[at] == state.log[at]);
        through || state.hosts.contains(&Some(Host::Stopped))
    }
}

fn explored(name: &str, rules: Rules) -> Verdict<Bad, Goal> {
    explore(name, &Starting(rules), &[Goal::Through]).0
}

#[test]
fn every_rule_kept() {
    for start in [Start::Earliest, Start::Latest] {
        assert_eq!(explored("S0", Rules { start, ..RULES }), Verdict::Safe);
        let missing = Missing::First;
        let stopped = Rules {
            start,
            missing,
            ..RULES
        };
        assert_eq!(explored("S0b", stopped), Verdict::Safe);
    }
}

#[test]
fn positions_are_stored_before_the_first_fetch() {
    let late = Rules {
        stores_first: false,
        ..RULES
    };
    assert_eq!(explored("S1", late), Verdict::Violated(Bad::Lost));
}

#[test]
fn partitions_that_are_added_start_at_zero() {
    let latest = Rules {
        added_at_zero: false,
        ..RULES
    };
    assert_eq!(explored("S2", latest), Verdict::Violated(Bad::Lost));
}

#[test]
fn a_position_that_is_gone_is_no_first_start() {
    let guesses = |start| Rules {
        start,
        stops: false,
        missing: Missing::First,
        ..RULES
    };
    let earliest = explored("S3", guesses(Start::Earliest));
    assert_eq!(earliest, Verdict::Violated(Bad::Doubled));
    let latest = explored("S3b", guesses(Start::Latest));
    assert_eq!(latest, Verdict::Violated(Bad::Doubled));
}

/// What the anchor alone cannot tell: nothing says that there were positions at all, or one more partition.
#[test]
fn all_positions_gone_or_the_last_one_look_like_a_first_start() {
    for missing in [Missing::All, Missing::Last] {
        let start = Start::Earliest;
        let gone = Rules {
            start,
            missing,
            ..RULES
        };
        assert_eq!(
            explored("S4", gone),
            Verdict::Violated(Bad::Doubled),
            "{missing:?}"
        );
    }
}
