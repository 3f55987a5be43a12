//! Every step: claims, flights, commits, what servers take and refuse. Each is one atomic change.

use super::super::super::explore::{Kind, Label};
use super::super::super::wire::{NOBODY, Sent as _};
use super::{
    AHEAD_REFUSED, Dead, HERE_REFUSED, Message, Mixed, Phase, RECORDS, ROW, Refuses, State, Steps,
    Then, Transaction, Worker, within,
};

impl Mixed {
    fn send(&self, state: &mut State, who: u8, (from, to): (u8, u8), dead: Dead) {
        for record in from..to {
            for key in self.keys(record, dead) {
                state.wire.send(Message::Cell { who, record, key });
            }
        }
    }

    pub(super) fn claim(&self, state: &State, worker: u8, to: &mut Steps) {
        let doubled = state.workers[1 - worker].is_some();
        if state.open.is_some() || state.faults + u8::from(doubled) > self.0.faults {
            return;
        }
        let mut next = state.clone();
        next.faults += u8::from(doubled);
        if self.0.epoch {
            for other in next.workers.iter_mut() {
                other.current = false;
            }
            next.wire.rewrite(|message| {
                if let Message::Advance { current, .. } = message {
                    *current = false;
                }
            });
        }
        next.workers[worker] = Some(Worker {
            current: true,
            next: state.next,
            phase: Phase::Idle,
            range: (0, 0),
            dead: if self.0.precheck {
                1 << HERE_REFUSED
            } else {
                0
            },
            unsent: state.reserved,
        });
        let kind = if doubled { Kind::Fault } else { Kind::Normal };
        to.push((("claim", worker, 0, 0), next, kind));
    }

    pub(super) fn works(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        if state.faults < self.0.faults {
            let mut next = state.fault();
            next.orphan(worker);
            let mut given_up = next.clone();
            next.workers[worker] = None;
            to.push((("crash", worker, 0, 0), next, Kind::Fault));
            if matches!(now.phase, Phase::Advance | Phase::Ahead | Phase::Commit) {
                given_up.workers.live(worker).rests(Phase::Recover);
                to.push((("time-out", worker, 0, 0), given_up, Kind::Fault));
            }
        }
        let mut step = |label: Label, next: State| to.push((label, next, Kind::Normal));
        match now.phase {
            Phase::Idle if now.next < RECORDS => {
                let most = (now.next + 2).min(RECORDS);
                if self.0.reserved && now.next >= state.reserved && state.open.is_none() {
                    let mut next = state.clone();
                    if now.current {
                        next.reserved = most;
                    } else {
                        next.workers[worker] = None;
                    }
                    step(("reserve", worker, 0, 0), next);
                }
                for end in now.next + 1..=most {
                    if self.0.reserved && end > state.reserved {
                        continue;
                    }
                    let range = (now.next, end);
                    let mut next = state.clone();
                    let lane = next.workers.live(worker);
                    (lane.phase, lane.range) = (Phase::Advance, range);
                    next.wire.send(Message::Advance {
                        who: worker,
                        current: now.current,
                        range,
                        dead: within(now.dead, range),
                    });
                    step(
                        ("begin", worker, range.0.cast_signed(), end.cast_signed()),
                        next,
                    );
                }
            }
            // Every write is acknowledged.
            Phase::Ahead if !state.wire.has(worker) => {
                let mut next = state.clone();
                if !self.0.ahead {
                    next.workers.live(worker).next = now.range.1;
                    next.workers.live(worker).rests(Phase::Idle);
                    step(("done", worker, 0, 0), next);
                    return;
                }
                match &mut next.open {
                    Some(open) if open.who == worker => {
                        open.commits = true;
                        next.workers.live(worker).phase = Phase::Commit;
                    }
                    _ => next.workers.live(worker).rests(Phase::Recover),
                }
                step(("send COMMIT", worker, 0, 0), next);
            }
            Phase::Recover if state.open.is_none() || !self.0.locks => {
                let mut next = state.clone();
                if now.current {
                    next.workers.live(worker).next = state.next;
                    next.workers.live(worker).rests(Phase::Idle);
                } else {
                    next.workers[worker] = None;
                }
                step(("read again", worker, 0, 0), next);
            }
            _ => {}
        }
    }

    pub(super) fn transaction(&self, state: &State, open: Transaction, to: &mut Steps) {
        let mut closed = state.clone();
        closed.open = None;
        if open.who == NOBODY {
            to.push((
                ("drops an orphan", NOBODY, 0, 0),
                closed.clone(),
                Kind::Normal,
            ));
        } else if !open.commits && state.faults < self.0.faults {
            let mut next = closed.clone();
            next.faults += 1;
            to.push((("backend killed", open.who, 0, 0), next, Kind::Fault));
        }
        if !open.commits {
            return;
        }
        closed.next = open.range.1;
        closed.dead |= open.dead;
        let alive = (open.range.0..open.range.1).filter(|record| open.dead & (1 << record) == 0);
        closed.rows.extend(alive);
        let label = |name| {
            (
                name,
                open.who,
                open.range.0.cast_signed(),
                open.range.1.cast_signed(),
            )
        };
        if open.who == NOBODY {
            to.push((label("late COMMIT"), closed, Kind::Normal));
            return;
        }
        if state.faults < self.0.faults {
            let mut lost = closed.fault();
            lost.workers.live(open.who).rests(Phase::Recover);
            to.push((label("COMMIT, reply lost"), lost, Kind::Fault));
        }
        if self.0.ahead {
            closed.workers.live(open.who).next = open.range.1;
            closed.workers.live(open.who).rests(Phase::Idle);
        } else {
            self.send(&mut closed, open.who, open.range, open.dead);
            closed.workers.live(open.who).phase = Phase::Ahead;
        }
        to.push((label("COMMIT"), closed, Kind::Normal));
    }

    pub(super) fn arrives(&self, state: &State, at: usize, to: &mut Steps) {
        let mut next = state.clone();
        let mut message = next.wire.remove(at);
        if *message.who() == NOBODY {
            to.push((("lost", NOBODY, 0, 0), next.clone(), Kind::Normal));
        }
        match message {
            Message::Advance {
                who,
                current,
                range,
                dead,
            } if state.open.is_none() => {
                self.advances(state, next, (who, current, range, dead), to);
            }
            // Behind the row's lock.
            Message::Advance { .. } => {}
            Message::Cell { who, record, key } => self.cell(state, next, (who, record, key), to),
        }
    }

    fn advances(
        &self,
        state: &State,
        mut next: State,
        (who, current, range, dead): (u8, bool, (u8, u8), Dead),
        to: &mut Steps,
    ) {
        let is_here = who != NOBODY;
        let at = |name| (name, who, range.0.cast_signed(), range.1.cast_signed());
        let holds = !self.0.compare || (current && state.next == range.0);
        if !holds {
            if !is_here {
                return;
            }
            if current {
                next.workers.live(who).next = state.next;
                next.workers.live(who).rests(Phase::Idle);
            } else {
                next.workers[who] = None;
            }
            to.push((at("refused"), next, Kind::Normal));
            return;
        }
        let has_bad = (range.0..range.1).contains(&HERE_REFUSED) && dead & (1 << HERE_REFUSED) == 0;
        let refuses = has_bad && self.0.here != Refuses::Never;
        if refuses && is_here {
            let mut refused = next.clone();
            let lane = refused.workers.live(who);
            if self.0.reserved && HERE_REFUSED < lane.unsent {
                lane.rests(Phase::Stopped);
            } else {
                lane.dead |= 1 << HERE_REFUSED;
                lane.rests(Phase::Idle);
            }
            to.push((at("Postgres refuses"), refused, Kind::Normal));
        }
        if refuses && self.0.here == Refuses::Always {
            return;
        }
        next.open = Some(Transaction {
            who,
            range,
            dead,
            commits: is_here && !self.0.ahead,
        });
        if is_here {
            let lane = next.workers.live(who);
            lane.phase = if self.0.ahead {
                Phase::Ahead
            } else {
                Phase::Commit
            };
            if self.0.ahead {
                if self.0.reserved {
                    lane.unsent = lane.unsent.max(range.1);
                }
                self.send(&mut next, who, range, dead);
            }
        }
        to.push((at("advanced"), next, Kind::Normal));
    }

    fn cell(
        &self,
        state: &State,
        next: State,
        (who, record, key): (u8, u8, usize),
        to: &mut Steps,
    ) {
        let label = |name| {
            (
                name,
                who,
                record.cast_signed(),
                i8::try_from(key).unwrap_or(0),
            )
        };
        let refuses = (record, key) == AHEAD_REFUSED && self.0.cassandra != Refuses::Never;
        if !refuses || self.0.cassandra == Refuses::Sometimes {
            let mut next = next.clone();
            let cell = &mut next.cells[key];
            *cell = if self.0.stamps {
                (*cell).max(Some(2 * record))
            } else {
                Some(2 * record)
            };
            to.push((label("written"), next, Kind::Normal));
        }
        let ahead = |worker: Worker| worker.phase == Phase::Ahead;
        let lane = state.workers.get(who);
        let Some(lane) = lane.filter(|lane| refuses && ahead(*lane)) else {
            return;
        };
        let mut refused = next;
        if refused.open.is_some_and(|open| open.who == who) {
            refused.open = None;
        }
        refused.orphan(who);
        let worker = refused.workers.live(who);
        worker.rests(Phase::Idle);
        match self.0.then {
            Then::Stop => worker.phase = Phase::Stopped,
            _ if self.0.reserved && record < lane.unsent => worker.phase = Phase::Stopped,
            Then::Row => worker.dead |= ROW,
            Then::Record | Then::Undo => worker.dead |= 1 << record,
        }
        if self.0.then == Then::Undo {
            for key in self.keys(record, 0) {
                refused.cells[key] = refused.cells[key].max(Some(2 * record + 1));
            }
        }
        to.push((label("Cassandra refuses"), refused, Kind::Normal));
    }
}
