//! Every step: claims, writes, changes of the row, and what fails. Each is one atomic change.

use super::super::super::wire::{NOBODY, Sent as _};
use super::{
    Claims, KEYS, Kind, Label, Lightweight, Message, ODD, Phase, REACH, Row, Says, State, What,
    Worker,
};

type Steps = Vec<(Label, State, Kind)>;

/// A worker that goes by a row.
fn at(epoch: super::Epoch, row: Row) -> Worker {
    Worker {
        epoch,
        phase: Phase::Run,
        known: row.next,
        time: row.time,
        sent: row.next,
        found: row.reserved,
        grant: row.reserved,
        changing: false,
    }
}

impl Lightweight {
    pub(super) fn steps(&self, state: &State, to: &mut Steps) {
        for worker in [0, 1] {
            match state.workers[worker] {
                None => self.claims(state, worker, to),
                Some(now) => {
                    self.fails(state, worker, now, to);
                    self.works(state, worker, now, to);
                }
            }
        }
        for message in 0..state.wire.len() {
            self.arrives(state, message, to);
        }
    }

    /// A SERIAL read, then the claim.
    fn claims(&self, state: &State, worker: u8, to: &mut Steps) {
        let doubled = state.workers[1 - worker].is_some();
        if state.faults + u8::from(doubled) > self.0.faults {
            return;
        }
        let mut next = state.clone();
        next.faults += u8::from(doubled);
        let seen = state.row;
        let new = (seen.epoch.0 + 1, if self.0.unique { worker } else { 0 });
        let nothing = Row {
            epoch: new,
            next: 0,
            reserved: 0,
            time: 0,
        };
        next.workers[worker] = Some(Worker {
            phase: Phase::Claim,
            ..at(new, nothing)
        });
        next.wire.send(Message::Claim {
            who: worker,
            new,
            seen,
        });
        let kind = if doubled { Kind::Fault } else { Kind::Normal };
        to.push((("claim", worker, 0, 0), next, kind));
    }

    fn fails(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        if state.faults >= self.0.faults {
            return;
        }
        let mut crashed = state.fault();
        crashed.wire.orphan(worker);
        let mut unclaimed = crashed.clone();
        crashed.workers[worker] = None;
        to.push((("crash", worker, 0, 0), crashed, Kind::Fault));
        if now.phase == Phase::Claim {
            unclaimed.workers.live(worker).phase = Phase::Read;
            to.push((("claim times out", worker, 0, 0), unclaimed, Kind::Fault));
        }
        if now.changing {
            let mut next = state.fault();
            let changes = |message: &Message| matches!(message, Message::Change { .. });
            next.wire.orphan_of(worker, changes);
            let lane = next.workers.live(worker);
            (lane.phase, lane.changing) = (Phase::Serial, false);
            to.push((("change times out", worker, 0, 0), next, Kind::Fault));
        }
    }

    fn works(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let row = state.row;
        let mut next = state.clone();
        let label = match now.phase {
            Phase::Claim | Phase::Stopped => return,
            Phase::Run => return self.runs(state, worker, now, to),
            Phase::Read => {
                let mine = row.epoch == now.epoch;
                if !mine {
                    next.wire.orphan(worker);
                }
                next.workers[worker] = mine.then(|| at(now.epoch, row));
                "read"
            }
            Phase::Serial if self.0.epoch && row.epoch != now.epoch => {
                next.wire.orphan(worker);
                next.workers[worker] = None;
                "fenced"
            }
            Phase::Serial => {
                let lane = next.workers.live(worker);
                lane.phase = Phase::Run;
                (lane.known, lane.time) = (row.next, row.time);
                lane.sent = lane.sent.max(row.next);
                lane.grant = lane.grant.max(row.reserved);
                "serial"
            }
        };
        to.push(((label, worker, 0, 0), next, Kind::Normal));
    }

    fn runs(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let all = self.0.records;
        if now.sent < all.min(now.grant) {
            let (record, time) = (now.sent, self.time(&now, now.sent));
            let mut next = state.clone();
            let dead = self.is_dead(&now, record);
            let data = |time, what| Message::Data {
                who: worker,
                record,
                time,
                what,
            };
            next.wire
                .send(data(time, if dead { What::Dead } else { What::Row }));
            if self.0.withdraws && record == ODD && !dead && record < now.found {
                next.wire.send(data(time + 1, What::Withdrawn));
            }
            next.workers.live(worker).sent += 1;
            let label = ("send", worker, record.cast_signed(), i8::from(dead));
            to.push((label, next, Kind::Normal));
        }
        if now.changing {
            return;
        }
        let mut change = |name: &'static str, to_there: u8, time: u8, reserved: u8| {
            let mut next = state.clone();
            next.workers.live(worker).changing = true;
            next.wire.send(Message::Change {
                who: worker,
                epoch: now.epoch,
                from: now.known,
                to: to_there,
                time,
                reserved: reserved.min(all),
            });
            to.push((
                (name, worker, to_there.cast_signed(), 0),
                next,
                Kind::Normal,
            ));
        };
        let waiting = state.wire.iter().filter_map(|message| match message {
            Message::Data { who, record, .. } if who == worker => Some(record),
            _ => None,
        });
        let acknowledged = waiting.min().map_or(now.sent, |first| first.min(now.sent));
        let most = if self.0.acknowledged {
            acknowledged
        } else {
            now.sent
        };
        for end in now.known + 1..=most {
            let time = if self.0.stores_time {
                self.time(&now, end - 1)
            } else {
                0
            };
            change("advance", end, time, end + REACH);
        }
        if now.sent < all && now.sent >= now.grant {
            change("reserve", now.known, now.time, now.sent + 1 + REACH);
        }
    }

    /// A message gets where it goes, or is lost with its sender.
    fn arrives(&self, state: &State, at: usize, to: &mut Steps) {
        let mut next = state.clone();
        let mut message = next.wire.remove(at);
        if *message.who() == NOBODY {
            to.push((("lost", NOBODY, 0, 0), next.clone(), Kind::Normal));
        }
        match message {
            Message::Claim { who, new, seen } => self.claimed(state, next, (who, new, seen), to),
            Message::Change { .. } => self.changed(state, next, message, to),
            Message::Data {
                who,
                record,
                time,
                what,
            } => self.data(next, (who, record, time, what), to),
        }
    }

    fn claimed(
        &self,
        state: &State,
        mut next: State,
        (who, new, seen): (u8, super::Epoch, Row),
        to: &mut Steps,
    ) {
        let row = state.row;
        let same = (row.next, row.reserved) == (seen.next, seen.reserved);
        let holds = row.epoch == seen.epoch && (self.0.claims != Claims::ComparesAll || same);
        if holds {
            next.row.epoch = new;
        }
        if who != NOBODY {
            if state.faults < self.0.faults {
                let mut lost = next.fault();
                lost.workers.live(who).phase = Phase::Read;
                to.push((("claim, reply lost", who, 0, 0), lost, Kind::Fault));
            }
            let lane = &mut next.workers[who];
            *lane = match self.0.claims {
                _ if !holds => None,
                Claims::ReadsAfter => lane.map(|lane| Worker {
                    phase: Phase::Read,
                    ..lane
                }),
                Claims::ReadsBefore | Claims::ComparesAll => Some(at(new, seen)),
            };
        }
        to.push((("claimed", who, holds.into(), 0), next, Kind::Normal));
    }

    fn changed(&self, state: &State, mut next: State, message: Message, to: &mut Steps) {
        let Message::Change {
            who,
            epoch,
            from,
            to: end,
            time,
            reserved,
        } = message
        else {
            return;
        };
        let row = state.row;
        let holds = row.next == from && (row.epoch == epoch || !self.0.epoch);
        if holds {
            (next.row.next, next.row.time) = (end, time);
            next.row.reserved = row.reserved.max(reserved);
        }
        if who != NOBODY {
            let reserved = next.row.reserved;
            if state.faults < self.0.faults {
                let mut lost = next.fault();
                let lane = lost.workers.live(who);
                (lane.phase, lane.changing) = (Phase::Serial, false);
                to.push((("change, reply lost", who, 0, 0), lost, Kind::Fault));
            }
            let lane = next.workers.live(who);
            lane.changing = false;
            if holds {
                if end > lane.known {
                    lane.time = self.time(lane, end - 1);
                }
                (lane.known, lane.grant) = (end, reserved);
            } else {
                lane.phase = Phase::Serial;
            }
        }
        let label = if holds { "changed" } else { "not changed" };
        to.push((
            (label, who, from.cast_signed(), end.cast_signed()),
            next,
            Kind::Normal,
        ));
    }

    fn data(&self, next: State, (who, record, time, what): (u8, u8, u8, What), to: &mut Steps) {
        let mut refused = next.clone();
        match self.0.says {
            Says::Server if who != NOBODY && what == What::Row && record == ODD => {
                refused.wire.send(Message::Data {
                    who,
                    record,
                    time,
                    what: What::Dead,
                });
                to.push((("refused, set aside", who, 0, 0), refused, Kind::Normal));
            }
            Says::ServerStops if who != NOBODY && what == What::Row && record == ODD => {
                refused.wire.orphan(who);
                refused.workers.live(who).phase = Phase::Stopped;
                refused.workers.live(who).changing = false;
                to.push((("refused, stop", who, 0, 0), refused, Kind::Normal));
            }
            _ => {}
        }
        let mut next = next;
        let name = match what {
            What::Row => {
                next.landed |= 1 << record;
                let cell = &mut next.cells[KEYS[usize::from(record)]];
                let write = Some((time, record));
                *cell = if self.0.stamps {
                    write.max(*cell)
                } else {
                    write
                };
                "row"
            }
            What::Dead => {
                next.landed |= 1 << record;
                next.letter = next.letter.max(Some((time, true)));
                "letter"
            }
            What::Withdrawn => {
                next.letter = next.letter.max(Some((time, false)));
                "letter withdrawn"
            }
        };
        to.push(((name, who, record.cast_signed(), 0), next, Kind::Normal));
    }
}
