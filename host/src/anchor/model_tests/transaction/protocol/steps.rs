//! Every step of hosts: they start, die and give up, hear of the group, and their lanes write. What brokers do is in
//! `brokers`. Each step is one atomic change.

use super::{
    Generation, JOINED, Kind, Label, Message, Metadata, Phase, Stage, State, Then, Transactions,
    Unknown, What, Worker, bit,
};

pub(super) type Steps = Vec<(Label, State, Kind)>;

impl Transactions {
    pub(super) fn steps(&self, state: &State, to: &mut Steps) {
        for worker in [0, 1] {
            match state.workers[worker] {
                None => self.starts(state, worker, to),
                Some(now) => {
                    self.hears(state, worker, now, to);
                    self.owns(state, worker, now, to);
                    self.fails(state, worker, now, to);
                    self.works(state, worker, now, to);
                }
            }
        }
        self.brokers(state, to);
    }

    /// The transactional id of a host's shard.
    pub(super) fn id(&self, worker: u8) -> u8 {
        if self.0.twins { 0 } else { worker }
    }

    fn starts(&self, state: &State, worker: u8, to: &mut Steps) {
        let doubled = self.0.twins && state.workers[1 - worker].is_some();
        if state.faults + u8::from(doubled) > self.0.faults {
            return;
        }
        let mut next = state.clone();
        next.faults += u8::from(doubled);
        next.workers[worker] = Some(JOINED);
        self.join(&mut next, worker);
        let kind = if doubled { Kind::Fault } else { Kind::Normal };
        to.push((("start", worker, 0, 0), next, kind));
    }

    fn join(&self, state: &mut State, worker: u8) {
        state.rebalance();
        state.members[usize::from(worker)] = true;
        if self.0.twins {
            // The same member: whoever was it before is fenced.
            state.members[usize::from(1 - worker)] = false;
            state.owner = Some(worker);
        }
        let owner = *state.owner.get_or_insert(worker);
        if owner == worker {
            state.revoking = false;
        }
        state.workers.live(worker).knows = Generation::Newest;
    }

    /// What a host hears of the group.
    fn hears(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let mut next = state.clone();
        let label = match now.knows {
            Generation::Newest => return,
            Generation::Older if state.members[usize::from(worker)] => {
                next.workers.live(worker).knows = Generation::Newest;
                "hears of the rebalance"
            }
            Generation::Older if self.0.twins => {
                // Fenced for good: the process ends.
                next.wire.orphan(worker);
                next.workers[worker] = None;
                "is fenced and ends"
            }
            Generation::Older => {
                let lane = next.workers.live(worker);
                (lane.knows, lane.lost) = (Generation::None, true);
                "hears that it is out"
            }
            Generation::None if now.lost => {
                if self.0.join {
                    next.wire.orphan(worker);
                    next.workers.live(worker).phase = Phase::NoProducer;
                }
                let lane = next.workers.live(worker);
                (lane.lost, lane.owns) = (false, false);
                "gives up what it lost"
            }
            Generation::None => {
                self.join(&mut next, worker);
                "joins again"
            }
        };
        to.push(((label, worker, 0, 0), next, Kind::Normal));
    }

    /// A host gets the partition, or gives it back.
    fn owns(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let open = !matches!(now.phase, Phase::NoProducer | Phase::Read | Phase::Idle);
        if now.knows != Generation::Newest || state.owner != Some(worker) {
            return;
        }
        let mut next = state.clone();
        let lane = next.workers.live(worker);
        let label = if state.revoking && !(open && self.0.join) {
            lane.owns = false;
            let other = 1 - worker;
            if state.members[usize::from(other)] {
                next.owner = Some(other);
            }
            next.revoking = false;
            next.rebalance();
            "gives the partition back"
        } else if !state.revoking && !now.owns && !open {
            lane.owns = true;
            if lane.phase == Phase::Idle {
                lane.phase = Phase::Read;
            }
            "is assigned the partition"
        } else {
            return;
        };
        to.push(((label, worker, 0, 0), next, Kind::Normal));
    }

    fn fails(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        if state.faults >= self.0.faults {
            return;
        }
        let mut crashed = state.clone();
        crashed.faults += 1;
        crashed.wire.orphan(worker);
        let given_up = crashed.clone();
        crashed.workers[worker] = None;
        to.push((("crash", worker, 0, 0), crashed, Kind::Fault));
        if !matches!(now.phase, Phase::NoProducer | Phase::Read | Phase::Idle) {
            let next = self.unknown(given_up, worker);
            to.push((("time-out", worker, 0, 0), next, Kind::Fault));
        }
    }

    /// Something has no answer.
    pub(super) fn unknown(&self, mut state: State, worker: u8) -> State {
        let lane = state.workers.live(worker);
        match self.0.unknown {
            // An abort without an answer is not tried for ever.
            _ if matches!(lane.phase, Phase::Abort(_)) => lane.phase = Phase::NoProducer,
            Unknown::NewProducer => lane.phase = Phase::NoProducer,
            Unknown::Abort => self.end(&mut state, worker, Phase::Abort(false)),
            Unknown::AbortThenNew => self.end(&mut state, worker, Phase::Abort(true)),
        }
        state
    }

    /// Sends the end of a transaction.
    pub(super) fn end(&self, state: &mut State, worker: u8, phase: Phase) {
        let lane = state.workers.live(worker);
        lane.phase = phase;
        let epoch = lane.epoch;
        let commits = phase == Phase::Commit;
        state.wire.send(Message {
            who: worker,
            id: self.id(worker),
            epoch,
            what: What::End { commits },
        });
    }

    fn works(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let has_lane = now.owns || (worker == 0 && self.0.records[1] > 0);
        match now.phase {
            Phase::NoProducer if has_lane && now.knows == Generation::Newest => {
                self.initialises(state, worker, to);
            }
            Phase::Read if has_lane => {
                let undecided = |at: usize| state.producers.iter().any(|p| p.pending[at] != 0);
                if self.0.stable && (undecided(0) || undecided(1)) {
                    return;
                }
                let mut next = state.clone();
                let lane = next.workers.live(worker);
                (lane.next, lane.phase, lane.kept) = (state.next, Phase::Idle, now.knows);
                to.push((("reads its positions", worker, 0, 0), next, Kind::Normal));
            }
            Phase::Idle => self.begins(state, worker, now, to),
            Phase::Write => self.written(state, worker, now, to),
            _ => {}
        }
    }

    /// A new producer: the coordinator ends what the one before left open.
    fn initialises(&self, state: &State, worker: u8, to: &mut Steps) {
        let mut next = state.clone();
        let producer = &mut next.producers[usize::from(self.id(worker))];
        let fence = u8::from(self.0.fence);
        let label = match producer.stage {
            Stage::Decided { .. } => return,
            Stage::Ongoing(offsets) => {
                producer.epoch += fence;
                producer.stage = Stage::decided(false, offsets);
                "fences its last transaction"
            }
            Stage::None => {
                producer.epoch += fence;
                let epoch = producer.epoch;
                let lane = next.workers.live(worker);
                (lane.epoch, lane.phase) = (epoch, Phase::Read);
                // A new host knows no other position.
                if self.0.then != Then::Read && lane.kept != Generation::None {
                    lane.phase = Phase::Idle;
                    if self.0.then == Then::AsCommitted {
                        lane.next = lane.to;
                    }
                }
                "has a producer"
            }
        };
        to.push(((label, worker, 0, 0), next, Kind::Normal));
    }

    fn begins(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let id = self.id(worker);
        let producer = &state.producers[usize::from(id)];
        let told = state.revoking && state.owner == Some(worker);
        let left = |at: usize| self.0.records[at].saturating_sub(now.next[at]);
        let moving = now.owns && !(told && now.knows == Generation::Newest);
        let most = [
            if moving { left(0).min(2) } else { 0 },
            if worker == 0 { left(1).min(1) } else { 0 },
        ];
        if most == [0; 2] {
            return;
        }
        if producer.epoch != now.epoch {
            let mut next = state.clone();
            next.workers.live(worker).phase = Phase::NoProducer;
            to.push((("is fenced", worker, 0, 0), next, Kind::Normal));
            return;
        }
        if producer.stage != Stage::None {
            return;
        }
        let counts = (0..=most[0]).flat_map(|moved| (0..=most[1]).map(move |stays| [moved, stays]));
        for count in counts.filter(|count| *count != [0; 2]) {
            let mut next = state.clone();
            next.producers[usize::from(id)].stage = Stage::Ongoing(false);
            let lane = next.workers.live(worker);
            lane.phase = Phase::Write;
            lane.to = [now.next[0] + count[0], now.next[1] + count[1]];
            let to_there = lane.to;
            for partition in [0, 1] {
                for record in now.next[partition]..to_there[partition] {
                    next.wire.send(Message {
                        who: worker,
                        id,
                        epoch: now.epoch,
                        what: What::Row(bit(partition, record)),
                    });
                }
            }
            let [moved, stays] = count.map(u8::cast_signed);
            to.push((("writes", worker, moved, stays), next, Kind::Normal));
        }
    }

    /// Rows are acknowledged, or nobody waits for that: positions follow.
    fn written(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let waits = state.wire.has(worker);
        if waits && self.0.drain {
            return;
        }
        let mut next = state.clone();
        if state.revoking && state.owner == Some(worker) && !waits {
            let mut next = state.clone();
            self.end(&mut next, worker, Phase::Abort(false));
            to.push((("aborts to give back", worker, 0, 0), next, Kind::Normal));
        }
        let id = self.id(worker);
        let generation = self.generation(now);
        let producer = &mut next.producers[usize::from(id)];
        let ongoing = matches!(producer.stage, Stage::Ongoing(_)) && producer.epoch == now.epoch;
        if !ongoing || (self.0.member && generation == Generation::None) {
            next.wire.orphan(worker);
            next.workers.live(worker).phase = Phase::NoProducer;
            to.push((("drops its transaction", worker, 0, 0), next, Kind::Normal));
            return;
        }
        if !self.0.together {
            self.end(&mut next, worker, Phase::Commit);
            to.push((("commits", worker, 0, 0), next, Kind::Normal));
            return;
        }
        producer.stage = Stage::Ongoing(true);
        next.workers.live(worker).phase = Phase::Offsets;
        next.wire.send(Message {
            who: worker,
            id,
            epoch: now.epoch,
            what: What::Offsets(now.moves_to(), generation),
        });
        to.push((("sends positions", worker, 0, 0), next, Kind::Normal));
    }

    pub(super) fn generation(&self, now: Worker) -> Generation {
        match self.0.metadata {
            Metadata::Fresh => now.knows,
            Metadata::Kept => now.kept,
        }
    }
}
