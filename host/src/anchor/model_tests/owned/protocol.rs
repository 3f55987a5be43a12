//! The Kafka transaction anchor that is built, as a state machine: two hosts, the coordinator of the partition's
//! transactional id, the log of rows, the log of positions, and the wire. Which state may follow which is in `steps`
//! and `brokers`.
//!
//! What brokers do is modelled after Apache Kafka 2.5 to 3.x and EndTxn of version 1: the coordinator and each log
//! compare a producer's epoch, but a log knows a newer one only by a marker or by a write; a transaction ends in two
//! steps, decision and markers; an end is taken for whatever transaction is open under its epoch. Sequence numbers of
//! the idempotent producer are left out: they refuse some late writes, not all.

mod brokers;
mod steps;

use super::super::epochs::ranks;
use super::super::explore::{Kind, Label, Model};
use super::super::wire::{NOBODY, Sent, Wire};
use super::super::workers::Workers;

/// How a claim finds the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Reads {
    /// When it has the id, up to a mark it committed, what is committed.
    UpToMark,
    /// When it has the id, up to where a broker says that the log ends: a new leader may say so too early.
    UpToEnd,
    /// Up to its mark, whatever is written.
    Undecided,
    /// Before it takes the id.
    BeforeTaking,
}

/// What follows an end without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Unknown {
    /// The producer goes; a new claim reads what is committed.
    Claim,
    /// The producer goes on where its transaction began.
    AsAborted,
    /// The producer goes on where its transaction ended.
    AsCommitted,
    /// After any request without an answer the producer aborts, and goes on.
    Abort,
}

/// What follows an end that the client sent twice, by itself, because its connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum SentTwice {
    /// The producer goes, although the end has an answer.
    Claim,
    GoesOn,
}

/// One variant of the protocol; [`RULES`] is what is built.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Rules {
    /// Taking the id ends what is open, and gives a newer epoch.
    pub(in super::super) fence: bool,
    pub(in super::super) reads: Reads,
    /// Rows and position are one transaction; otherwise the position follows in one of its own.
    pub(in super::super) together: bool,
    /// A transaction ends once all its messages are acknowledged.
    pub(in super::super) drain: bool,
    pub(in super::super) unknown: Unknown,
    pub(in super::super) sent_twice: SentTwice,
    pub(in super::super) records: u8,
    pub(in super::super) faults: u8,
}

pub(in super::super) const RULES: Rules = Rules {
    fence: true,
    reads: Reads::UpToMark,
    together: true,
    drain: true,
    unknown: Unknown::Claim,
    sent_twice: SentTwice::Claim,
    records: 2,
    faults: 2,
};

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Job {
    /// The mark of a claim.
    Mark,
    /// The position under a new claim.
    Own,
    /// Rows and the position after them, or rows alone.
    Flight,
    /// A position after its rows.
    Apart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Has no producer.
    Out,
    /// Knows a position already, and has no producer.
    Early,
    /// Taking the id is on the wire.
    Takes,
    /// It has the id.
    Taken,
    /// It looks for the position.
    Reads,
    /// It knows the position.
    Known,
    Idle,
    /// Rows are sent, the position is not.
    Rows,
    /// All messages of a transaction are sent.
    Sent(Job),
    /// Its end is.
    Ends(Job),
    /// Its abort is.
    Aborts,
    /// Rows are committed, the position has to follow.
    Follows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker {
    epoch: u8,
    phase: Phase,
    /// Next record.
    next: u8,
    /// The flight's end.
    to: u8,
    /// The end on the wire was sent before.
    twice: bool,
}

const NEW: Worker = Worker {
    epoch: 0,
    phase: Phase::Out,
    next: 0,
    to: 0,
    twice: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum What {
    /// Takes the id.
    Take,
    /// A row, by its bit.
    Row(u8),
    Mark,
    Position(u8),
    End {
        commits: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    who: u8,
    /// 0 for [`What::Take`].
    epoch: u8,
    what: What,
}

impl Sent for Message {
    fn who(&mut self) -> &mut u8 {
        &mut self.who
    }
}

/// The transaction at its coordinator, and the logs that are part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// None is open; whether the last of this epoch was committed.
    None {
        committed: bool,
    },
    Ongoing {
        rows: bool,
        positions: bool,
    },
    /// Decided; markers are due.
    Decided {
        commits: bool,
        rows: bool,
        positions: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct State {
    epoch: u8,
    stage: Stage,
    /// Newest epoch that the log of rows has seen.
    rows_epoch: u8,
    /// Undecided rows there, and whether one of them came twice.
    open: u8,
    twice: bool,
    /// Rows that a reader of committed rows sees.
    rows: u8,
    doubled: bool,
    positions_epoch: u8,
    /// Something undecided is in the log of positions.
    undecided: bool,
    /// The undecided position there.
    pending: Option<u8>,
    /// The committed position, the one before it, and the last that was written.
    next: u8,
    before: u8,
    written: u8,
    wire: Wire<Message>,
    workers: Workers<Worker>,
    faults: u8,
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Bad {
    /// The position passed a row that no reader will see.
    Lost,
    Doubled,
    /// Something undecided is left in a log: its readers wait for ever, or a later transaction decides it.
    Hung,
}

/// What must always be within reach by normal steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Goal {
    /// Every record is processed.
    Drained,
}

pub(in super::super) struct Owned(pub(in super::super) Rules);

/// The bit of a row.
fn bit(record: u8) -> u8 {
    1 << record
}

impl State {
    fn fault(&self) -> Self {
        let mut next = self.clone();
        next.faults += 1;
        next
    }

    /// A worker has no producer any more; what it sent is under way.
    fn lets_go(&mut self, worker: u8) {
        self.wire.orphan(worker);
        *self.workers.live(worker) = NEW;
    }

    /// Numbers the epochs that somebody may still use.
    fn renumber(&mut self) {
        let mut alive = vec![self.epoch];
        alive.extend(self.workers.iter().map(|worker| worker.epoch));
        alive.extend(self.wire.iter().map(|message| message.epoch));
        alive.retain(|epoch| *epoch > 0);
        let rank = ranks(alive);
        for epoch in [
            &mut self.epoch,
            &mut self.rows_epoch,
            &mut self.positions_epoch,
        ] {
            *epoch = rank(*epoch);
        }
        let workers = self.workers.iter_mut();
        for worker in workers.filter(|worker| worker.epoch > 0) {
            worker.epoch = rank(worker.epoch);
        }
        self.wire.rewrite(|message| {
            if message.epoch > 0 {
                message.epoch = rank(message.epoch);
            }
        });
    }
}

impl Owned {
    /// Makes states equal that differ in nothing that matters any more.
    fn forget(&self, state: &mut State) {
        let (rows, positions, coordinator) = (state.rows_epoch, state.positions_epoch, state.epoch);
        state.wire.drop_of(NOBODY, |message| match message.what {
            What::Take => false,
            What::Row(_) => message.epoch < rows,
            What::Mark | What::Position(_) => message.epoch < positions,
            What::End { .. } => message.epoch < coordinator,
        });
        for worker in state.workers.iter_mut() {
            match worker.phase {
                Phase::Idle | Phase::Early | Phase::Known => worker.to = worker.next,
                Phase::Taken if self.0.reads == Reads::BeforeTaking => worker.to = worker.next,
                Phase::Taken | Phase::Reads => (worker.next, worker.to) = (0, 0),
                _ => {}
            }
        }
        if self.0.reads != Reads::UpToEnd {
            state.before = 0;
        }
        if self.0.reads != Reads::Undecided {
            state.written = 0;
        }
        state.renumber();
    }
}

impl Model for Owned {
    type State = State;
    type Bad = Bad;
    type Goal = Goal;

    fn start(&self) -> State {
        State {
            epoch: 1,
            stage: Stage::None { committed: false },
            rows_epoch: 1,
            open: 0,
            twice: false,
            rows: 0,
            doubled: false,
            positions_epoch: 1,
            undecided: false,
            pending: None,
            next: 0,
            before: 0,
            written: 0,
            wire: Wire::new(),
            workers: Workers::new(Some(NEW), Some(NEW)),
            faults: 0,
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
        let decided = matches!(state.stage, Stage::Decided { .. });
        if !decided && (0..state.next).any(|record| state.rows & bit(record) == 0) {
            return Some(Bad::Lost);
        }
        let ended = matches!(state.stage, Stage::None { .. });
        (ended && (state.open != 0 || state.undecided)).then_some(Bad::Hung)
    }

    fn reached(&self, _: Goal, state: &State) -> bool {
        state.next == self.0.records && !matches!(state.stage, Stage::Decided { .. })
    }
}
