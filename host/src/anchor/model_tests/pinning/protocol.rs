//! The protocol of version pinning as a state machine: row, two lanes, the wire, and what may fail. It decides
//! which state may follow which; it explores nothing.

mod lists;
mod steps;

use lists::{List, Lists};

use super::super::explore::{Kind as Step, Label, Model};
use super::super::wire::{self, Wire};
use super::super::workers::Workers;

/// How an upgrade gets into the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Upgrade {
    /// Somebody adds a cut at the row's grant; the owner learns of it with its next change.
    AtReserved,
    /// The same, at the committed position.
    AtNext,
    /// The owner pins it, exactly: at the grant, or at the position with the grant given up in the same step.
    Pin,
    /// As `Pin`, but at the position without giving the grant up.
    PinAtNext,
}

/// When the owner may give up its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Sent {
    /// Nothing at or above the position was ever sent by this owner.
    Never,
    /// Nothing is being sent now: an attempt may have been given up.
    NotNow,
}

/// One variant of the protocol; [`RULES`] is the one that is built.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Rules {
    pub(in super::super) upgrade: Upgrade,
    pub(in super::super) sent: Sent,
    /// Giving up the grant waits until the position is past the reservation found at the claim.
    pub(in super::super) past_found: bool,
    /// Giving up the grant lowers the cuts above the position too.
    pub(in super::super) lower_cuts: bool,
    /// The last listed cut decides; otherwise the greatest.
    pub(in super::super) last_listed: bool,
    /// A claim fences changes of earlier ones.
    pub(in super::super) epoch: bool,
    /// After an unknown outcome the owner claims anew; otherwise it reads the row again.
    pub(in super::super) claim_anew: bool,
    /// The grant is given up only while no fetched record waits.
    pub(in super::super) idle_only: bool,
    /// The grant is given up at all.
    pub(in super::super) lowers: bool,
    /// An advance never takes back what was granted.
    pub(in super::super) keeps_grant: bool,
    /// There are commits of a grant alone.
    pub(in super::super) grants: bool,
    /// They count from the next record; otherwise from the position.
    pub(in super::super) from_record: bool,
    pub(in super::super) records: [i8; 3],
    /// How far a grant reaches past what it is for.
    pub(in super::super) reach: i8,
    pub(in super::super) faults: u8,
    pub(in super::super) upgrades: u8,
    /// The release that each revision of the deployment names.
    pub(in super::super) deployments: [u8; 3],
    /// A host may not have read the newest revisions yet.
    pub(in super::super) late: bool,
    /// A host that is behind what a cut was made for asks for nothing.
    pub(in super::super) ordered: bool,
    /// A revision that names the newest release again is noted with its cut.
    pub(in super::super) noted: bool,
}

pub(in super::super) const RULES: Rules = Rules {
    upgrade: Upgrade::AtReserved,
    sent: Sent::Never,
    past_found: true,
    lower_cuts: true,
    last_listed: true,
    epoch: true,
    claim_anew: true,
    idle_only: false,
    lowers: true,
    keeps_grant: true,
    grants: true,
    from_record: true,
    records: [0, 2, 5],
    reach: 1,
    faults: 2,
    upgrades: 1,
    deployments: [1, 2, 3],
    late: false,
    ordered: true,
    noted: true,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase {
    Idle,
    Data,
    Advance,
    Pin,
    Unknown,
    Reread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker {
    /// Holds the newest epoch.
    current: bool,
    next: i8,
    phase: Phase,
    to: i8,
    grant: i8,
    list: List,
    /// The reservation found at the claim.
    found: i8,
    /// One past the greatest offset this owner ever sent.
    high: i8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    /// A row of the record at an offset, made by a release.
    Data { who: u8, offset: i8, release: u8 },
    /// A change of the row under an epoch and the position `from`.
    Change {
        who: u8,
        current: bool,
        from: i8,
        to: i8,
        reserved: i8,
        kind: Kind,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Advance,
    /// Raises the row's grant, cuts stay.
    Grant,
    /// Lowers the row's grant and what the row lists.
    Lower,
    /// Sets both.
    Pin(List),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct State {
    next: i8,
    reserved: i8,
    list: List,
    /// The revision in force.
    target: u8,
    /// The revision that each host has read, where they may be late.
    seen: [u8; 2],
    /// The newest revision under which an owner sent a record.
    under: u8,
    /// A cut for an earlier one was stored since.
    late: bool,
    /// Bit `4 × record + release`.
    landed: u16,
    arrived: u8,
    wire: Wire<Message>,
    workers: Workers<Worker>,
    faults: u8,
    crashed: bool,
}

pub(in super::super) struct Pinning {
    rules: Rules,
    lists: Lists,
}

impl wire::Sent for Message {
    fn who(&mut self) -> &mut u8 {
        match self {
            Self::Data { who, .. } | Self::Change { who, .. } => who,
        }
    }
}

impl State {
    fn fault(mut self) -> Self {
        self.faults += 1;
        self.crashed = true;
        self
    }

    fn has(&self, record: usize, release: u8) -> bool {
        self.landed & (1 << (4 * record + usize::from(release))) != 0
    }
}

impl Pinning {
    pub(in super::super) fn new(rules: Rules) -> Self {
        let lists = Lists::new(rules);
        Self { rules, lists }
    }

    /// The revision that a host goes by.
    fn known(&self, state: &State, worker: u8) -> u8 {
        if self.rules.late {
            state.seen[usize::from(worker)]
        } else {
            state.target
        }
    }

    fn claim(&self, mut state: State, worker: u8) -> State {
        if self.rules.epoch {
            for other in state.workers.iter_mut() {
                other.current = false;
            }
            state.wire.rewrite(|message| {
                if let Message::Change { current, .. } = message {
                    *current = false;
                }
            });
        }
        state.workers[worker] = Some(Worker {
            current: true,
            next: state.next,
            phase: Phase::Idle,
            to: 0,
            grant: state.reserved,
            list: state.list,
            found: state.reserved,
            high: state.next,
        });
        state
    }

    fn unknown(&self, mut state: State, worker: u8) -> State {
        state.wire.orphan(worker);
        let phase = if self.rules.claim_anew {
            Phase::Unknown
        } else {
            Phase::Reread
        };
        let worker = state.workers.live(worker);
        (worker.phase, worker.to) = (phase, 0);
        state
    }
}

impl Model for Pinning {
    type State = State;
    type Bad = Bad;
    type Goal = Goal;

    fn start(&self) -> State {
        State {
            next: 0,
            reserved: 0,
            list: 0,
            target: 1,
            seen: [1; 2],
            under: 0,
            late: false,
            landed: 0,
            arrived: 0,
            wire: Wire::new(),
            workers: Workers::none(),
            faults: 0,
            crashed: false,
        }
    }

    fn successors(&self, state: &State, to: &mut Vec<(Label, State, Step)>) {
        self.steps(state, to);
    }

    fn bad(&self, state: &State) -> Option<Bad> {
        let Rules {
            records,
            deployments,
            ..
        } = self.rules;
        if state.late {
            return Some(Bad::Late);
        }
        let (mut deployed, mut back) = (deployments.iter().peekable(), false);
        for (record, offset) in records.iter().enumerate() {
            let releases = (state.landed >> (4 * record) & 0xf).count_ones();
            if releases > 1 {
                return Some(Bad::Ghost);
            }
            if releases == 0 && *offset < state.next {
                return Some(Bad::Lost);
            }
            let Some(release) = (1..=3).find(|release| state.has(record, *release)) else {
                continue;
            };
            while deployed.peek().is_some_and(|next| **next != release) {
                deployed.next();
            }
            back |= deployed.peek().is_none();
        }
        if back {
            return Some(Bad::Back);
        }
        let arrived = usize::from(state.arrived);
        let end = records[..arrived].last().map_or(0, |record| record + 1);
        (state.reserved > state.next.max(end) + self.rules.reach).then_some(Bad::Reserved)
    }

    fn reached(&self, goal: Goal, state: &State) -> bool {
        let target = self.rules.deployments[usize::from(state.target) - 1];
        let newest = self.lists.release(state.list, state.next) == target;
        let arrived = &self.rules.records[..usize::from(state.arrived)];
        match goal {
            Goal::Drained => arrived.last().is_none_or(|last| state.next > *last),
            Goal::Idle => newest || state.crashed,
            Goal::IdleAlways => newest,
        }
    }
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Bad {
    /// Two releases wrote one offset.
    Ghost,
    /// The position passed a record that was not written.
    Lost,
    /// Releases wrote in another order than they were deployed in.
    Back,
    /// A deployment came back that an owner had left behind: some host had not read the next one.
    Late,
    /// The grant lies further past the last record than it reaches.
    Reserved,
}

/// What must always be within reach by normal steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Goal {
    /// Every record that arrived is processed.
    Drained,
    /// Without a fault ever, the next record is the newest release's.
    Idle,
    /// The same, whatever failed before.
    IdleAlways,
}
