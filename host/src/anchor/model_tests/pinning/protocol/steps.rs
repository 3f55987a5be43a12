//! Every step out of a state: what the world does, what fails, what a lane may do, what arrives. Each is one
//! atomic change of the row, of a lane or of the wire.

use super::super::super::wire::{NOBODY, Sent as _};
use super::lists::{Asks, List};
use super::{Kind, Label, Message, Phase, Pinning, Sent, State, Step, Upgrade, Worker};

type Steps = Vec<(Label, State, Step)>;

impl Pinning {
    pub(super) fn steps(&self, state: &State, to: &mut Steps) {
        self.world(state, to);
        for worker in [0, 1] {
            let Some(now) = state.workers[worker] else {
                let doubled = state.workers[1 - worker].is_some();
                let faults = state.faults + u8::from(doubled);
                if faults <= self.rules.faults {
                    let mut next = self.claim(state.clone(), worker);
                    next.faults = faults;
                    next.crashed |= doubled;
                    to.push((
                        ("claim", worker, 0, 0),
                        next,
                        if doubled { Step::Fault } else { Step::Normal },
                    ));
                }
                continue;
            };
            self.fails(state, worker, now, to);
            match now.phase {
                Phase::Idle => self.idle(state, worker, now, to),
                Phase::Data => self.acknowledged(state, worker, now, to),
                Phase::Unknown | Phase::Reread if !now.current => {
                    let mut next = state.clone();
                    next.workers[worker] = None;
                    to.push((("fenced", worker, 0, 0), next, Step::Normal));
                }
                Phase::Unknown => {
                    let next = self.claim(state.clone(), worker);
                    to.push((("claim anew", worker, 0, 0), next, Step::Normal));
                }
                Phase::Reread => {
                    let mut next = state.clone();
                    self.learn(&mut next, worker);
                    to.push((("read again", worker, 0, 0), next, Step::Normal));
                }
                Phase::Advance | Phase::Pin => {}
            }
        }
        for at in 0..state.wire.len() {
            self.arrives(state, at, to);
        }
    }

    /// Records arrive, releases are asked for, hosts learn of it.
    fn world(&self, state: &State, to: &mut Steps) {
        if state.target <= self.rules.upgrades {
            let mut next = state.clone();
            next.target += 1;
            let at = match self.rules.upgrade {
                Upgrade::AtReserved => Some(state.reserved),
                Upgrade::AtNext => Some(state.next),
                Upgrade::Pin | Upgrade::PinAtNext => None,
            };
            if let Some(at) = at {
                next.list = self.lists.added(state.list, state.next, at, next.target);
            }
            let target = i8::try_from(next.target).expect("few upgrades");
            to.push((("upgrade", NOBODY, target, 0), next, Step::Normal));
        }
        for host in [0, 1] {
            if self.rules.late && state.seen[usize::from(host)] < state.target {
                let mut next = state.clone();
                next.seen[usize::from(host)] += 1;
                to.push((("reads", host, 0, 0), next, Step::Normal));
            }
        }
        if let Some(record) = self.rules.records.get(usize::from(state.arrived)) {
            let mut next = state.clone();
            next.arrived += 1;
            to.push((("record", NOBODY, *record, 0), next, Step::Input));
        }
    }

    fn fails(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        if state.faults >= self.rules.faults {
            return;
        }
        let mut crashed = state.clone().fault();
        crashed.wire.orphan(worker);
        let mut given_up = crashed.clone();
        crashed.workers[worker] = None;
        to.push((("crash", worker, 0, 0), crashed, Step::Fault));
        let label = ("time-out", worker, 0, 0);
        match now.phase {
            Phase::Data => {
                let lane = given_up.workers.live(worker);
                (lane.phase, lane.to) = (Phase::Idle, 0);
                to.push((label, given_up, Step::Fault));
            }
            Phase::Advance | Phase::Pin => {
                to.push((label, self.unknown(given_up, worker), Step::Fault));
            }
            Phase::Idle | Phase::Unknown | Phase::Reread => {}
        }
    }

    /// All rows of a flight are acknowledged: the position may move.
    fn acknowledged(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        if state.wire.has(worker) {
            return;
        }
        let mut reserved = now.to + self.rules.reach;
        if self.rules.keeps_grant {
            reserved = reserved.max(now.grant);
        }
        let mut next = state.clone();
        next.workers.live(worker).phase = Phase::Advance;
        next.wire.send(Message::Change {
            who: worker,
            current: now.current,
            from: now.next,
            to: now.to,
            reserved,
            kind: Kind::Advance,
        });
        to.push((("advance", worker, now.next, now.to), next, Step::Normal));
    }

    /// What an owner may do that waits for nothing.
    fn idle(&self, state: &State, worker: u8, now: Worker, to: &mut Steps) {
        let arrived = &self.rules.records[..usize::from(state.arrived)];
        let mut waiting = arrived.iter().copied().filter(|record| *record >= now.next);
        let (first, second) = (waiting.next(), waiting.next());
        for last in [first, second].into_iter().flatten() {
            if last >= now.grant {
                continue;
            }
            let mut next = state.clone();
            for offset in arrived.iter().filter(|o| (now.next..=last).contains(*o)) {
                next.wire.send(Message::Data {
                    who: worker,
                    offset: *offset,
                    release: self.lists.release(now.list, *offset),
                });
            }
            let lane = next.workers.live(worker);
            (lane.phase, lane.to) = (Phase::Data, last + 1);
            lane.high = lane.high.max(last + 1);
            let known = self.known(state, worker);
            let followed = matches!(self.lists.asks(now.list, known), Asks::Nothing);
            if self.rules.late && now.current && followed {
                next.under = state.under.max(known);
            }
            to.push((("send", worker, now.next, last), next, Step::Normal));
        }
        let pins = matches!(self.rules.upgrade, Upgrade::Pin | Upgrade::PinAtNext);
        let change = |label: &'static str, reserved: i8, kind: Kind| {
            let mut next = state.clone();
            let lane = next.workers.live(worker);
            lane.phase = Phase::Pin;
            // given up before it is lowered
            lane.grant = lane.grant.min(reserved);
            next.wire.send(Message::Change {
                who: worker,
                current: now.current,
                from: now.next,
                to: now.next,
                reserved,
                kind,
            });
            ((label, worker, reserved, 0), next, Step::Normal)
        };
        if let Some(first) = first.filter(|first| *first >= now.grant && self.rules.grants) {
            let from = if self.rules.from_record {
                first
            } else {
                now.next
            };
            let kind = if pins {
                Kind::Pin(now.list)
            } else {
                Kind::Grant
            };
            to.push(change("grant", from + 1 + self.rules.reach, kind));
        }
        let unsent = match self.rules.sent {
            Sent::Never => now.next >= now.high,
            Sent::NotNow => true,
        };
        let free = unsent
            && self.rules.lowers
            && (!self.rules.past_found || now.next >= now.found)
            && !(self.rules.idle_only && first.is_some());
        if free && now.grant > now.next {
            let kind = if pins {
                Kind::Pin(self.lists.lowered(now.list, now.next))
            } else {
                Kind::Lower
            };
            to.push(change("lower", now.next, kind));
        }
        if !pins {
            return;
        }
        let known = self.known(state, worker);
        match self.lists.asks(now.list, known) {
            Asks::Nothing => return,
            Asks::Noted(list) => {
                to.push(change("note", now.grant, Kind::Pin(list)));
                return;
            }
            Asks::Cut => {}
        }
        let cut = |list: List, at: i8| Kind::Pin(self.lists.added(list, now.next, at, known));
        if self.rules.upgrade == Upgrade::PinAtNext {
            to.push(change("cut at next", now.grant, cut(now.list, now.next)));
            return;
        }
        to.push(change(
            "cut at the grant",
            now.grant,
            cut(now.list, now.grant),
        ));
        if free {
            let list = self.lists.lowered(now.list, now.next);
            to.push(change("lower and cut", now.next, cut(list, now.next)));
        }
    }

    /// A lane takes over what the row holds.
    fn learn(&self, state: &mut State, worker: u8) {
        let (next, reserved, list) = (state.next, state.reserved, state.list);
        let lane = state.workers.live(worker);
        (lane.phase, lane.to) = (Phase::Idle, 0);
        (lane.next, lane.grant, lane.list) = (next, reserved, list);
    }

    /// A message gets where it goes, or is lost with its sender.
    fn arrives(&self, state: &State, at: usize, to: &mut Steps) {
        let mut next = state.clone();
        let mut message = next.wire.remove(at);
        let who = *message.who();
        if who == NOBODY {
            to.push((("lost", who, 0, 0), next.clone(), Step::Normal));
        }
        match message {
            Message::Data {
                offset, release, ..
            } => {
                let record = self.rules.records.iter().position(|o| *o == offset);
                let record = record.expect("only records are sent");
                next.landed |= 1 << (4 * record + usize::from(release));
                let release = i8::try_from(release).expect("few releases");
                to.push((("applied", who, offset, release), next, Step::Normal));
            }
            Message::Change {
                current,
                from,
                to: moved,
                reserved,
                kind,
                ..
            } => {
                let holds = current && state.next == from;
                if holds {
                    next.next = moved;
                    if let Kind::Pin(list) = kind {
                        next.late |= self.lists.is_late(state.list, list, state.under);
                    }
                    (next.reserved, next.list) = match kind {
                        Kind::Advance if !self.rules.keeps_grant => (reserved, state.list),
                        Kind::Advance | Kind::Grant => (state.reserved.max(reserved), state.list),
                        Kind::Lower => (reserved, self.lists.lowered(state.list, moved)),
                        Kind::Pin(list) => (reserved, list),
                    };
                }
                if who != NOBODY {
                    if state.faults < self.rules.faults {
                        let lost = self.unknown(next.clone().fault(), who);
                        to.push((("reply lost", who, moved, reserved), lost, Step::Fault));
                    }
                    if holds || current {
                        self.learn(&mut next, who);
                    } else {
                        next.workers[who] = None;
                    }
                }
                let label = if holds { "changed" } else { "refused" };
                to.push(((label, who, moved, reserved), next, Step::Normal));
            }
        }
    }
}
