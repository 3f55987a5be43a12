//! Where a pipeline starts, as a state machine around the product's own [`start::seeds`] and [`Evidence`]: what is stored,
//! what the group has heard of it, two hosts. It decides which state may follow which; it explores nothing.

use crate::anchor::model_tests::explore::{Kind, Label, Model};
use crate::anchor::{Claim, Cut, Epoch, Ledger, Stored};
use crate::manifest::Start;
use crate::pipeline::evidence::Evidence;
use crate::pipeline::{AnchorPlan, Plan, start};
use crate::source::TopicInfo;

/// Records that a partition ever holds: one may be there before the first deployment.
const RECORDS: u8 = 2;

/// What goes missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Nothing,
    /// The position of the first of two partitions.
    First,
    /// The position of the last of two partitions.
    Last,
    All,
    /// Nothing, but the position of the first partition is an earlier one.
    Back,
}

/// What the consumer group is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// Nothing.
    None,
    /// What it has committed, right before the anchor is asked for what that is compared with.
    Asked,
    /// The same, and it has heard of what goes missing.
    Heard,
    /// What it has committed, after the anchor was asked.
    AskedLate,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) start: Start,
    /// Positions are stored before the first fetch.
    pub(super) stores_first: bool,
    /// Partitions that are added start at 0; otherwise as a new pipeline does.
    pub(super) added_at_zero: bool,
    /// A partition without a position is a stop; otherwise it starts as one of a new pipeline does.
    pub(super) stops: bool,
    pub(super) witness: Witness,
    pub(super) missing: Missing,
}

pub(super) const RULES: Rules = Rules {
    start: Start::Latest,
    stores_first: true,
    added_at_zero: true,
    stops: true,
    witness: Witness::Asked,
    missing: Missing::Nothing,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// It has read what is stored, and the topic after that; whether nothing was stored.
    Resolved(Vec<(usize, u8)>, bool),
    /// It also has one of the two that are compared: what the group says, or what is stored now.
    Compares(Vec<(usize, u8)>, bool, [Option<u8>; 2]),
    /// Nothing speaks against what it will store.
    Cleared(Vec<(usize, u8)>, bool),
    /// It reads from there; without a stored position from where it decided by itself.
    Runs([Option<u8>; 2]),
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
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
    /// What the group has committed. It hears of what is stored at any time, or never: that is also how it stands when
    /// an older word comes after a newer one.
    group: [Option<u8>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Lost,
    Doubled,
    /// What the group says called an operator for nothing.
    Alarm,
}

fn position(at: usize, next: u8) -> Stored {
    Stored {
        partition: i32::try_from(at).unwrap(),
        next: next.into(),
        cuts: Vec::new(),
        topic_id: None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// What is owed is processed, or an operator was called.
    Through,
}

pub(super) struct Starting {
    rules: Rules,
    plan: Plan,
}

impl Starting {
    pub(super) fn new(rules: Rules) -> Self {
        let plan = super::super::plan_with(AnchorPlan::Postgres("main".to_owned()));
        Self { rules, plan }
    }

    fn evidence(&self, group: [Option<u8>; 2]) -> Evidence<'_> {
        let committed = (0..).zip(group);
        let committed = committed.filter_map(|(at, next)| Some((at, next?.into())));
        Evidence::new(&self.plan, committed.collect())
    }

    /// Whether seeds that have no position yet may be stored.
    fn allows_first(
        &self,
        seeds: &[(usize, u8)],
        group: [Option<u8>; 2],
        stored: [Option<u8>; 2],
    ) -> bool {
        let lacks = seeds.iter().filter(|(at, _)| stored[*at].is_none());
        let lacks: Vec<Stored> = lacks.map(|(at, next)| position(*at, *next)).collect();
        self.evidence(group).allows_first(&lacks).is_ok()
    }

    /// Whether a claim may go on from where it stands.
    fn allows(&self, group: [Option<u8>; 2], at: usize, next: u8) -> bool {
        let claim = Claim {
            partition: i32::try_from(at).unwrap(),
            epoch: Epoch {
                number: 1,
                id: uuid::Uuid::nil(),
            },
            next: next.into(),
            reserved: next.into(),
            hlc: 0,
            ledger: Ledger::default(),
            cuts: Vec::new(),
            topic_id: None,
        };
        self.rules.witness == Witness::None || self.evidence(group).allows(&[claim]).is_ok()
    }

    /// What the product stores; `None` for a data-loss stop.
    fn resolve(&self, state: &State) -> Option<Vec<(usize, u8)>> {
        let partitions = state.log.iter().flatten();
        let info = TopicInfo {
            id: None,
            watermarks: partitions.map(|high| (0, (*high).into())).collect(),
        };
        let stored = state.stored.iter().enumerate();
        let stored: Vec<Stored> = stored
            .filter_map(|(at, next)| Some(position(at, (*next)?)))
            .collect();
        let fresh = |at: usize| match self.rules.start {
            Start::Earliest => 0,
            Start::Latest => state.log[at].unwrap_or_default(),
        };
        let cut = |_, at| Cut::new(at, "r1");
        let seeds = match start::seeds("t", &stored, &info, self.rules.start, cut) {
            Ok(seeds) => seeds,
            Err(_) if self.rules.stops => return None,
            Err(_) => {
                let missing = (0..2).filter(|at| state.log[*at].is_some());
                let missing = missing.filter(|at| state.stored[*at].is_none());
                return Some(missing.map(|at| (at, fresh(at))).collect());
            }
        };
        let at = |seed: &Stored| {
            let partition = usize::try_from(seed.partition).unwrap();
            let added = !stored.is_empty() && !self.rules.added_at_zero;
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
            Host::Resolved(seeds, first)
                if self.rules.witness != Witness::None && !seeds.is_empty() =>
            {
                let half = match self.rules.witness {
                    Witness::AskedLate => state.stored,
                    _ => state.group,
                };
                let mut next = state.clone();
                next.hosts[who] = Some(Host::Compares(seeds.clone(), *first, half));
                to.push((label("asks one"), next, Kind::Normal));
            }
            Host::Compares(seeds, first, half) => {
                let (group, stored) = match self.rules.witness {
                    Witness::AskedLate => (state.group, *half),
                    _ => (*half, state.stored),
                };
                let mut next = state.clone();
                next.hosts[who] = Some(match self.allows_first(seeds, group, stored) {
                    true => Host::Cleared(seeds.clone(), *first),
                    false => Host::Stopped,
                });
                to.push((label("asks the other"), next, Kind::Normal));
            }
            Host::Resolved(seeds, first) | Host::Cleared(seeds, first) => {
                let mut next = state.clone();
                let mut reads = state.stored;
                for (at, seed) in seeds {
                    // Who is first decides; a partition that was added since has never been skipped.
                    next.owed[*at].get_or_insert(if *first { *seed } else { 0 });
                    reads[*at].get_or_insert(*seed);
                    if self.rules.stores_first {
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
                    if self.rules.stops && self.rules.stores_first && state.stored[at].is_none() {
                        let mut next = state.clone();
                        next.hosts[who] = Some(Host::Stopped);
                        to.push((label("DATA LOSS"), next, Kind::Normal));
                        continue;
                    }
                    if state.stored[at].is_some() && !self.allows(state.group, at, from) {
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
        let two = matches!(self.rules.missing, Missing::First | Missing::Last);
        State {
            log: [Some(1), two.then_some(1)],
            stored: [None; 2],
            owed: [None; 2],
            done: [[0; 2]; 2],
            hosts: [None, None],
            deaths: 0,
            lost: false,
            group: [None; 2],
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
        for at in 0..2 {
            let older = state.lost && state.group[at] > state.stored[at];
            let known = self.rules.witness == Witness::None || state.group[at] == state.stored[at];
            if !known && !older {
                let mut next = state.clone();
                next.group[at] = state.stored[at];
                let label = ("the group hears", 2, i8::try_from(at).unwrap(), 0);
                to.push((label, next, Kind::Input));
            }
        }
        let gone = match self.rules.missing {
            Missing::Nothing => [false, false],
            Missing::Back => [state.stored[0] > Some(0), false],
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
            .any(|host| !matches!(host, Host::Runs(_) | Host::Stopped));
        let wanted = |at: usize| match self.rules.missing {
            Missing::Back => state.group[at] == state.stored[at],
            _ => state.group[at].is_some(),
        };
        let heard = self.rules.witness != Witness::Heard
            || (0..2).all(|at| !gone[at] || state.log[at].is_none() || wanted(at));
        let possible = there && settled && heard && state.stored != [None; 2];
        if gone != [false; 2] && !state.lost && possible {
            let mut next = state.clone();
            next.lost = true;
            for (stored, gone) in next.stored.iter_mut().zip(gone) {
                *stored = match self.rules.missing {
                    Missing::Back if gone => stored.map(|next| next - 1),
                    _ => stored.filter(|_| !gone),
                };
            }
            to.push((("positions are gone", 2, 0, 0), next, Kind::Fault));
        }
    }

    fn bad(&self, state: &State) -> Option<Bad> {
        let asks = self.rules.witness != Witness::None;
        if asks && !state.lost && state.hosts.contains(&Some(Host::Stopped)) {
            return Some(Bad::Alarm);
        }
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
