//! Every step of hosts: they start, die and give up, take the id, look for the position, and write. What brokers do is
//! in `brokers`. Each step is one atomic change.

use super::{
    Job, Kind, Label, Message, NEW, Owned, Phase, Reads, Stage, State, Unknown, What, Worker, bit,
};

pub(super) type Steps = Vec<(Label, State, Kind)>;

/// A log that is made part of a transaction before it is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    Rows,
    Positions,
}

impl Owned {
    pub(super) fn steps(&self, state: &State, to: &mut Steps) {
        for worker in [0, 1] {
            match state.workers[worker] {
                None => {
                    let mut next = state.clone();
                    next.workers[worker] = Some(NEW);
                    to.push((("starts", worker, 0, 0), next, Kind::Normal));
                }
                Some(now) => {
                    if state.faults < self.0.faults {
                        self.fails(state, worker, now, to);
                    }
                    self.works(state, worker, now, to);
                }
            }
        }
        self.brokers(state, to);
    }

    fn fails(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let mut next = state.fault();
        next.wire.orphan(worker);
        next.workers[worker] = None;
        to.push((("dies", worker, 0, 0), next, Kind::Fault));
        if !state.wire.has(worker) {
            return;
        }
        let gave_up = self.unknown(state.fault(), worker);
        to.push((("gives up", worker, 0, 0), gave_up, Kind::Fault));
        if let Phase::Ends(_) | Phase::Aborts = now.phase {
            // Its connection broke: the client sends the end again, over another.
            let mut next = state.fault();
            next.wire.orphan(worker);
            next.workers.live(worker).twice = true;
            let commits = now.phase != Phase::Aborts;
            Self::send(&mut next, worker, [What::End { commits }]);
            to.push((("sends the end again", worker, 0, 0), next, Kind::Fault));
        }
    }

    /// A worker has no answer and waits for none.
    pub(super) fn unknown(&self, mut next: State, worker: u8) -> State {
        next.wire.orphan(worker);
        let now = *next.workers.live(worker);
        let flies = now.phase == Phase::Ends(Job::Flight);
        match self.0.unknown {
            Unknown::Abort if !matches!(now.phase, Phase::Takes | Phase::Aborts) => {
                next.workers.live(worker).phase = Phase::Aborts;
                Self::send(&mut next, worker, [What::End { commits: false }]);
            }
            Unknown::AsAborted if flies => next.workers.live(worker).phase = Phase::Idle,
            Unknown::AsCommitted if flies => {
                let lane = next.workers.live(worker);
                (lane.phase, lane.next) = (Phase::Idle, now.to);
            }
            _ => *next.workers.live(worker) = NEW,
        }
        next
    }

    fn send(next: &mut State, worker: u8, all: impl IntoIterator<Item = What>) {
        let epoch = next.workers.live(worker).epoch;
        for what in all {
            next.wire.send(Message {
                who: worker,
                epoch,
                what,
            });
        }
    }

    fn works(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let mut next = state.clone();
        let lane = next.workers.live(worker);
        let label = match now.phase {
            Phase::Takes | Phase::Ends(_) | Phase::Aborts => return,
            Phase::Out if self.0.reads == Reads::BeforeTaking => {
                if state.undecided {
                    return;
                }
                (lane.phase, lane.next) = (Phase::Early, state.next);
                "reads"
            }
            Phase::Out | Phase::Early => {
                lane.phase = Phase::Takes;
                Self::send(&mut next, worker, [What::Take]);
                "takes the id"
            }
            Phase::Taken => match self.0.reads {
                Reads::BeforeTaking => {
                    lane.phase = Phase::Known;
                    "goes by what it read"
                }
                Reads::UpToEnd => {
                    lane.phase = Phase::Reads;
                    "needs no mark"
                }
                Reads::UpToMark | Reads::Undecided => {
                    let mark = [What::Mark];
                    return Self::writes(state, worker, Phase::Sent(Job::Mark), mark, to);
                }
            },
            Phase::Reads => return self.reads(state, worker, to),
            Phase::Known => {
                let position = [What::Position(now.next)];
                return Self::writes(state, worker, Phase::Sent(Job::Own), position, to);
            }
            Phase::Idle => {
                for end in now.next + 1..=self.0.records {
                    let mut begun = state.clone();
                    begun.workers.live(worker).to = end;
                    let rows = (now.next..end).map(|record| What::Row(bit(record)));
                    Self::writes(&begun, worker, Phase::Rows, rows, to);
                }
                return;
            }
            Phase::Rows if !self.0.together => {
                lane.phase = Phase::Sent(Job::Flight);
                "has no position to send"
            }
            Phase::Rows => {
                let position = [What::Position(now.to)];
                return Self::writes(state, worker, Phase::Sent(Job::Flight), position, to);
            }
            Phase::Follows => {
                let position = [What::Position(now.to)];
                return Self::writes(state, worker, Phase::Sent(Job::Apart), position, to);
            }
            Phase::Sent(_) if state.wire.has(worker) && self.0.drain => return,
            Phase::Sent(job) => {
                lane.phase = Phase::Ends(job);
                Self::send(&mut next, worker, [What::End { commits: true }]);
                "ends"
            }
        };
        to.push(((label, worker, 0, 0), next, Kind::Normal));
    }

    /// Makes a log part of the transaction, and sends messages to it.
    fn writes(
        state: &State,
        worker: u8,
        then: Phase,
        all: impl IntoIterator<Item = What>,
        to: &mut Steps,
    ) {
        let mut next = state.clone();
        let log = match then {
            Phase::Rows => Log::Rows,
            _ => Log::Positions,
        };
        if next.workers.live(worker).epoch < state.epoch {
            next.lets_go(worker);
            to.push((("is fenced", worker, 0, 0), next, Kind::Normal));
            return;
        }
        let (rows, positions) = match state.stage {
            // It asks again until the markers are there.
            Stage::Decided { .. } => return,
            Stage::None { .. } => (false, false),
            Stage::Ongoing { rows, positions } => (rows, positions),
        };
        next.stage = Stage::Ongoing {
            rows: rows || log == Log::Rows,
            positions: positions || log == Log::Positions,
        };
        next.workers.live(worker).phase = then;
        Self::send(&mut next, worker, all);
        let count = i8::try_from(next.wire.len()).expect("few are on the wire");
        to.push((("writes", worker, count, 0), next, Kind::Normal));
    }

    fn reads(&self, state: &State, worker: u8, to: &mut Steps) {
        let mut next = state.clone();
        let lane = next.workers.live(worker);
        lane.phase = Phase::Known;
        lane.next = match self.0.reads {
            Reads::Undecided => state.written,
            // What is undecided holds a reader up.
            _ if state.undecided => return,
            _ => state.next,
        };
        to.push((("reads", worker, 0, 0), next, Kind::Normal));
        if self.0.reads == Reads::UpToEnd && state.faults < self.0.faults {
            let mut early = state.fault();
            let lane = early.workers.live(worker);
            (lane.phase, lane.next) = (Phase::Known, state.before);
            to.push((("is told an early end", worker, 0, 0), early, Kind::Fault));
        }
    }
}
