//! Every step of brokers: the group moves a partition, a transaction is decided, a message arrives.

use super::steps::Steps;
use super::{
    Generation, Kind, Message, NOBODY, Phase, Producer, Stage, State, Transactions, What, Worker,
};

impl Transactions {
    pub(super) fn brokers(&self, state: &State, to: &mut Steps) {
        for worker in [0, 1] {
            self.expires(state, worker, to);
        }
        for id in [0, 1] {
            self.coordinates(state, id, to);
        }
        for at in 0..state.wire.len() {
            self.arrives(state, at, to);
        }
    }

    /// The group coordinator moves the partition, or takes it from a member it no longer hears.
    fn expires(&self, state: &State, worker: u8, to: &mut Steps) {
        let (at, other) = (usize::from(worker), 1 - worker);
        let waits = state.members[usize::from(other)] && state.workers[other].is_some();
        if !state.members[at] || !waits {
            return;
        }
        let mine = state.owner == Some(worker);
        let dead = state.workers[worker].is_none();
        if dead || state.faults < self.0.faults {
            let mut next = state.clone();
            next.faults += u8::from(!dead);
            next.members[at] = false;
            if mine {
                next.owner = Some(other);
                next.revoking = false;
            }
            next.rebalance();
            let kind = if dead { Kind::Normal } else { Kind::Fault };
            to.push((("session expires", worker, 0, 0), next, kind));
        }
        if mine && !state.revoking && !dead && state.moves < self.0.moves {
            let mut next = state.clone();
            next.moves += 1;
            next.revoking = true;
            next.rebalance();
            to.push((("is to give back", worker, 0, 0), next, Kind::Input));
        }
    }

    /// Markers, and transactions that take too long.
    fn coordinates(&self, state: &State, id: u8, to: &mut Steps) {
        let at = usize::from(id);
        let Producer { epoch, stage, .. } = state.producers[at];
        match stage {
            Stage::None => {}
            Stage::Ongoing(offsets) => {
                let at_work = |worker: u8| {
                    let now = state.workers[worker];
                    let now = now.filter(|_| self.id(worker) == id);
                    now.is_some_and(|now| now.epoch == epoch && now.phase != Phase::NoProducer)
                };
                let waits = at_work(0) || at_work(1);
                if waits && state.faults >= self.0.faults {
                    return;
                }
                let mut next = state.clone();
                next.faults += u8::from(waits);
                next.producers[at].epoch += 1;
                next.producers[at].stage = Stage::decided(false, offsets);
                let kind = if waits { Kind::Fault } else { Kind::Normal };
                to.push((("transaction times out", id, 0, 0), next, kind));
            }
            Stage::Decided {
                commits,
                rows,
                offsets,
            } => {
                if rows {
                    let mut next = state.clone();
                    if commits {
                        next.show(id);
                    }
                    let producer = &mut next.producers[at];
                    (producer.open, producer.twice) = (0, false);
                    producer.rows_epoch = epoch;
                    producer.stage = Stage::after(commits, false, offsets);
                    to.push((("rows are decided", id, 0, 0), next, Kind::Normal));
                }
                if offsets {
                    let mut next = state.clone();
                    let producer = &mut next.producers[at];
                    let pending = std::mem::take(&mut producer.pending);
                    producer.offsets_epoch = epoch;
                    producer.stage = Stage::after(commits, rows, false);
                    if commits {
                        store(&mut next.next, pending);
                    }
                    to.push((("positions are decided", id, 0, 0), next, Kind::Normal));
                }
            }
        }
    }

    /// A message gets where it goes; one without a sender may as well never do.
    fn arrives(&self, state: &State, at: usize, to: &mut Steps) {
        let mut next = state.clone();
        let message = next.wire.remove(at);
        let who = message.who;
        let taken = match self.takes(&mut next, message) {
            Answer::Waits => return,
            Answer::Refused if who != NOBODY => {
                self.end(&mut next, who, Phase::Abort(false));
                to.push((("positions refused", who, 0, 0), next, Kind::Normal));
                return;
            }
            Answer::Refused | Answer::Fenced => false,
            Answer::Taken => true,
        };
        if who != NOBODY && state.faults < self.0.faults {
            let mut lost = next.clone();
            lost.faults += 1;
            lost.wire.orphan(who);
            let lost = self.unknown(lost, who);
            to.push((("reply lost", who, 0, 0), lost, Kind::Fault));
        }
        let label = match message.what {
            What::Row(_) => "row",
            What::Offsets(..) => "positions",
            What::Plain(..) => "plain positions",
            What::End { commits: true } => "commit",
            What::End { commits: false } => "abort",
        };
        if who != NOBODY {
            self.answered(&mut next, who, message.what, taken);
        }
        to.push(((label, who, taken.into(), 0), next, Kind::Normal));
    }

    /// What a broker does with a message.
    fn takes(&self, next: &mut State, message: Message) -> Answer {
        let empty = next.members == [false; 2];
        let passes = |generation: Generation| {
            // What says nothing of a member is not checked inside a transaction.
            let unchecked = empty || !(self.0.fixed || self.0.twins);
            !self.0.generation
                || generation == Generation::Newest
                || (generation == Generation::None && unchecked)
        };
        let epoch = message.epoch;
        let producer = &mut next.producers[usize::from(message.id)];
        match message.what {
            What::Row(_) if epoch < producer.rows_epoch => return Answer::Fenced,
            What::Row(row) => {
                producer.twice |= producer.open & row != 0;
                producer.open |= row;
                producer.rows_epoch = epoch;
            }
            What::Offsets(_, generation) if !passes(generation) => return Answer::Refused,
            What::Offsets(..) if epoch < producer.offsets_epoch => return Answer::Fenced,
            What::Offsets(positions, _) => {
                store(&mut producer.pending, positions);
                producer.offsets_epoch = epoch;
            }
            What::Plain(_, generation) if self.0.generation && generation != Generation::Newest => {
                return Answer::Fenced;
            }
            What::Plain(positions, _) => store(&mut next.next, positions),
            What::End { .. } if epoch < producer.epoch => return Answer::Fenced,
            What::End { commits } => match producer.stage {
                Stage::None => return Answer::Fenced,
                Stage::Decided { .. } => return Answer::Waits,
                Stage::Ongoing(offsets) => producer.stage = Stage::decided(commits, offsets),
            },
        }
        Answer::Taken
    }

    /// A lane hears what became of its request.
    fn answered(&self, next: &mut State, who: u8, what: What, taken: bool) {
        if !taken {
            next.wire.orphan(who);
            next.workers.live(who).phase = Phase::NoProducer;
            return;
        }
        match what {
            What::Row(_) => {}
            What::Offsets(..) => self.end(next, who, Phase::Commit),
            What::Plain(..) => next.workers.live(who).arrives(),
            What::End { commits: true } if self.0.together => next.workers.live(who).arrives(),
            What::End { commits: true } => {
                let now = *next.workers.live(who);
                next.workers.live(who).phase = Phase::Plain;
                next.wire.send(Message {
                    who,
                    id: self.id(who),
                    epoch: now.epoch,
                    what: What::Plain(now.moves_to(), self.generation(now)),
                });
            }
            What::End { commits: false } => {
                let lane = next.workers.live(who);
                let new = lane.phase == Phase::Abort(true);
                lane.phase = if new { Phase::NoProducer } else { Phase::Idle };
                if !self.0.rewind_all {
                    lane.next[1] = lane.to[1];
                }
            }
        }
    }
}

/// What a broker says.
enum Answer {
    Taken,
    /// The transaction has to be given up, the producer may go on.
    Refused,
    /// The producer is at its end.
    Fenced,
    /// Not yet.
    Waits,
}

impl Stage {
    pub(super) fn decided(commits: bool, offsets: bool) -> Self {
        Self::after(commits, true, offsets)
    }

    /// What is left to do.
    fn after(commits: bool, rows: bool, offsets: bool) -> Self {
        if !rows && !offsets {
            return Self::None;
        }
        Self::Decided {
            commits,
            rows,
            offsets,
        }
    }
}

impl Worker {
    /// Where its transaction moves to: nothing is said of a partition it does not touch.
    pub(super) fn moves_to(&self) -> [u8; 2] {
        let moved = |at: usize| {
            if self.to[at] > self.next[at] {
                self.to[at]
            } else {
                0
            }
        };
        [moved(0), moved(1)]
    }

    /// Its transaction is through.
    fn arrives(&mut self) {
        (self.phase, self.next) = (Phase::Idle, self.to);
    }
}

fn store(into: &mut [u8; 2], positions: [u8; 2]) {
    for (into, position) in into.iter_mut().zip(positions) {
        if position > 0 {
            *into = position;
        }
    }
}
