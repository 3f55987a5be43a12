//! The Kafka transaction anchor as a state machine: two hosts with a shard each, the group, each producer's
//! transaction at its coordinator, the logs it writes to, and the wire. Which state may follow which is in `steps`.
//!
//! What brokers do is modelled after Apache Kafka 2.5 to 3.x: an offset commit inside a transaction is checked per
//! member and generation, not per partition, and not at all without a generation (−1) and a member; a producer's
//! epoch is checked by the coordinator and by every log it wrote to, but a log knows a newer epoch only by a marker
//! or by a write; a transaction ends in two steps, decision and markers. Sequence numbers of the idempotent producer
//! are left out: they refuse some late writes, not all.

mod brokers;
mod steps;

use super::super::epochs::ranks;
use super::super::explore::{Kind, Label, Model};
use super::super::wire::{NOBODY, Sent, Wire};
use super::super::workers::Workers;

/// Whose generation an offset commit carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Metadata {
    /// Asked for right before it is sent.
    Fresh,
    /// Kept from when the position was read.
    Kept,
}

/// What follows a time-out or a broken connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Unknown {
    /// Another producer of the same transactional id takes its place.
    NewProducer,
    /// The producer aborts and goes on.
    Abort,
    /// The producer aborts, then another takes its place.
    AbortThenNew,
}

/// Where a lane goes on behind a transaction without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Then {
    /// At the committed offset, read again.
    Read,
    /// At its start.
    AsAborted,
    /// At its end.
    AsCommitted,
}

/// One variant of the protocol; [`RULES`] is what is built.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Rules {
    /// A partition is given back, after a revocation or a loss, only once its transaction has ended.
    pub(in super::super) join: bool,
    pub(in super::super) metadata: Metadata,
    /// Nothing is sent for a consumer that is not in the group at the moment.
    pub(in super::super) member: bool,
    pub(in super::super) unknown: Unknown,
    pub(in super::super) then: Then,
    /// Positions are read only when no transaction is undecided about them.
    pub(in super::super) stable: bool,
    /// All writes are acknowledged before the transaction ends.
    pub(in super::super) drain: bool,
    /// Positions are part of the transaction; otherwise they are committed after it.
    pub(in super::super) together: bool,
    /// An abort takes every lane of the transaction back.
    pub(in super::super) rewind_all: bool,
    /// The broker checks generations.
    pub(in super::super) generation: bool,
    /// A new producer of a transactional id fences the one before.
    pub(in super::super) fence: bool,
    /// Members have an id of their own across restarts.
    pub(in super::super) fixed: bool,
    /// Both hosts are processes of one host: one transactional id, one member.
    pub(in super::super) twins: bool,
    /// Records of the partition that moves, and of one that stays with the first host.
    pub(in super::super) records: [u8; 2],
    pub(in super::super) faults: u8,
    pub(in super::super) moves: u8,
}

pub(in super::super) const RULES: Rules = Rules {
    join: true,
    metadata: Metadata::Fresh,
    member: true,
    unknown: Unknown::NewProducer,
    then: Then::Read,
    stable: true,
    drain: true,
    together: true,
    rewind_all: true,
    generation: true,
    fence: true,
    fixed: false,
    twins: false,
    records: [2, 0],
    faults: 2,
    moves: 1,
};

/// A generation of the group, as somebody knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Generation {
    Newest,
    Older,
    /// −1: the consumer is not in the group.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Needs a producer.
    NoProducer,
    /// Needs its positions.
    Read,
    Idle,
    /// Rows are on the wire.
    Write,
    /// Offsets are.
    Offsets,
    /// A commit is.
    Commit,
    /// An abort is; whether another producer follows.
    Abort(bool),
    /// Offsets outside the transaction are.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker {
    epoch: u8,
    /// What its consumer says of the group.
    knows: Generation,
    /// The same when the positions were read.
    kept: Generation,
    /// The moving partition has a lane.
    owns: bool,
    /// Its consumer was told that the partition is lost, the lane was not.
    lost: bool,
    phase: Phase,
    /// Next record by partition.
    next: [u8; 2],
    /// The transaction's end by partition.
    to: [u8; 2],
}

/// A host that has just joined the group.
const JOINED: Worker = Worker {
    epoch: 0,
    knows: Generation::Newest,
    kept: Generation::None,
    owns: false,
    lost: false,
    phase: Phase::NoProducer,
    next: [0; 2],
    to: [0; 2],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum What {
    /// A row, by its bit.
    Row(u8),
    /// Positions; 0 says nothing about a partition.
    Offsets([u8; 2], Generation),
    End {
        commits: bool,
    },
    Plain([u8; 2], Generation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    who: u8,
    /// Which transactional id.
    id: u8,
    epoch: u8,
    what: What,
}

impl Sent for Message {
    fn who(&mut self) -> &mut u8 {
        &mut self.who
    }
}

/// A transaction at its coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    None,
    /// Whether the offsets' log is part of it.
    Ongoing(bool),
    /// Decided; markers are due at the rows' log and at the offsets' log.
    Decided {
        commits: bool,
        rows: bool,
        offsets: bool,
    },
}

/// All that brokers know of a transactional id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Producer {
    epoch: u8,
    stage: Stage,
    /// Newest epoch that the rows' log has seen.
    rows_epoch: u8,
    /// Rows of an undecided transaction there, and those of them that came twice.
    open: u8,
    twice: bool,
    offsets_epoch: u8,
    pending: [u8; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct State {
    /// Committed offsets.
    next: [u8; 2],
    /// Rows that a reader of committed rows sees.
    rows: u8,
    doubled: bool,
    producers: [Producer; 2],
    /// Whose the moving partition is.
    owner: Option<u8>,
    revoking: bool,
    members: [bool; 2],
    wire: Wire<Message>,
    workers: Workers<Worker>,
    faults: u8,
    moves: u8,
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Bad {
    /// A position passed a row that no reader will see.
    Lost,
    Doubled,
    /// Something undecided is left in a log: its readers wait for ever, or the next commit decides it.
    Hung,
}

/// What must always be within reach by normal steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Goal {
    /// Every record is processed.
    Drained,
}

pub(in super::super) struct Transactions(pub(in super::super) Rules);

impl Transactions {
    /// Makes states equal that differ in nothing that matters any more.
    fn forget(&self, state: &mut State) {
        let read = self.0.then == Then::Read;
        for worker in state.workers.iter_mut() {
            match worker.phase {
                Phase::NoProducer | Phase::Read if read => {
                    (worker.next, worker.to, worker.kept) = ([0; 2], [0; 2], Generation::None);
                }
                Phase::Idle => worker.to = worker.next,
                _ => {}
            }
            if worker.phase == Phase::NoProducer {
                worker.epoch = 0;
            }
            if read && self.0.metadata == Metadata::Fresh {
                worker.kept = Generation::None;
            }
        }
        for id in [0, 1] {
            state.renumber(id, |worker| self.id(worker) == id);
        }
    }
}

/// The bit of a row.
fn bit(partition: usize, record: u8) -> u8 {
    1 << (4 * partition + usize::from(record))
}

impl State {
    /// A new generation of the group.
    fn rebalance(&mut self) {
        let age = |generation: &mut Generation| {
            if *generation == Generation::Newest {
                *generation = Generation::Older;
            }
        };
        for worker in self.workers.iter_mut() {
            age(&mut worker.knows);
            age(&mut worker.kept);
        }
        self.wire.rewrite(|message| {
            if let What::Offsets(_, generation) | What::Plain(_, generation) = &mut message.what {
                age(generation);
            }
        });
    }

    /// A decided transaction's rows become visible.
    fn show(&mut self, id: u8) {
        let Producer { open, twice, .. } = self.producers[usize::from(id)];
        self.doubled |= twice || self.rows & open != 0;
        self.rows |= open;
    }

    /// Numbers the epochs of a transactional id that somebody may still use.
    fn renumber(&mut self, id: u8, uses: impl Fn(u8) -> bool) {
        let at_work = |now: Worker| now.phase != Phase::NoProducer;
        let mut users = vec![0, 1];
        users.retain(|at| uses(*at) && self.workers[*at].is_some_and(at_work));
        let producer = &mut self.producers[usize::from(id)];
        let mut alive = vec![producer.epoch];
        alive.extend(users.iter().map(|at| self.workers.live(*at).epoch));
        let messages = self.wire.iter().filter(|message| message.id == id);
        alive.extend(messages.map(|message| message.epoch));
        let rank = ranks(alive);
        for epoch in [
            &mut producer.epoch,
            &mut producer.rows_epoch,
            &mut producer.offsets_epoch,
        ] {
            *epoch = rank(*epoch);
        }
        for at in users {
            let worker = self.workers.live(at);
            worker.epoch = rank(worker.epoch);
        }
        self.wire.rewrite(|message| {
            if message.id == id {
                message.epoch = rank(message.epoch);
            }
        });
    }

    fn decided(&self) -> bool {
        let decided = |producer: &Producer| matches!(producer.stage, Stage::Decided { .. });
        self.producers.iter().any(decided)
    }
}

impl Model for Transactions {
    type State = State;
    type Bad = Bad;
    type Goal = Goal;

    /// Both hosts are members, and the first has the partition; of twins only one runs.
    fn start(&self) -> State {
        let producer = Producer {
            epoch: 1,
            stage: Stage::None,
            rows_epoch: 1,
            open: 0,
            twice: false,
            offsets_epoch: 1,
            pending: [0; 2],
        };
        let both = !self.0.twins;
        State {
            next: [0; 2],
            rows: 0,
            doubled: false,
            producers: [producer; 2],
            owner: Some(0),
            revoking: false,
            members: [true, both],
            wire: Wire::new(),
            workers: Workers::new(Some(JOINED), both.then_some(JOINED)),
            faults: 0,
            moves: 0,
        }
    }

    fn successors(&self, state: &State, to: &mut Vec<(Label, State, Kind)>) {
        self.steps(state, to);
        for (_, next, _) in to {
            self.forget(next);
        }
    }

    fn bad(&self, state: &State) -> Option<Bad> {
        if state.doubled {
            return Some(Bad::Doubled);
        }
        let below = |partition: usize| (0..state.next[partition]).map(move |at| bit(partition, at));
        let passed = below(0).chain(below(1)).any(|row| state.rows & row == 0);
        if passed && !state.decided() {
            return Some(Bad::Lost);
        }
        let hung = |producer: &Producer| {
            producer.stage == Stage::None && (producer.open != 0 || producer.pending != [0; 2])
        };
        state.producers.iter().any(hung).then_some(Bad::Hung)
    }

    fn reached(&self, _: Goal, state: &State) -> bool {
        state.next == self.0.records && !state.decided()
    }
}
