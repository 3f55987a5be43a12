//! Every step of brokers: a transaction takes too long or is decided, markers are written, a message arrives.

use super::steps::Steps;
use super::{Job, Kind, Message, NOBODY, Owned, Phase, SentTwice, Stage, State, What};

/// What a broker says.
enum Answer {
    Taken,
    /// The producer is at its end.
    Fenced,
    /// Not yet: the client asks again.
    Waits,
}

impl Owned {
    pub(super) fn brokers(&self, state: &State, to: &mut Steps) {
        self.coordinates(state, to);
        for at in 0..state.wire.len() {
            self.arrives(state, at, to);
        }
    }

    /// Markers, and a transaction that takes too long.
    fn coordinates(&self, state: &State, to: &mut Steps) {
        match state.stage {
            Stage::None { .. } => {}
            Stage::Ongoing { rows, positions } => {
                let mut workers = state.workers.iter();
                let waits = workers.any(|worker| worker.epoch == state.epoch);
                if waits && state.faults >= self.0.faults {
                    return;
                }
                let mut next = if waits { state.fault() } else { state.clone() };
                next.epoch += 1;
                next.stage = Stage::Decided {
                    commits: false,
                    rows,
                    positions,
                };
                let kind = if waits { Kind::Fault } else { Kind::Normal };
                to.push((("transaction times out", 0, 0, 0), next, kind));
            }
            Stage::Decided {
                commits,
                rows,
                positions,
            } => {
                if rows {
                    let mut next = state.clone();
                    if commits {
                        next.doubled |= state.twice || state.rows & state.open != 0;
                        next.rows |= state.open;
                    }
                    (next.open, next.twice) = (0, false);
                    next.rows_epoch = state.epoch;
                    next.stage = Stage::after(commits, false, positions);
                    to.push((("rows are decided", 0, 0, 0), next, Kind::Normal));
                }
                if positions {
                    let mut next = state.clone();
                    if let Some(position) = state.pending.filter(|_| commits) {
                        (next.before, next.next) = (state.next, position);
                    }
                    (next.undecided, next.pending) = (false, None);
                    next.positions_epoch = state.epoch;
                    next.stage = Stage::after(commits, rows, false);
                    to.push((("positions are decided", 0, 0, 0), next, Kind::Normal));
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
            Answer::Waits if next.stage == state.stage => return,
            Answer::Waits => {
                next.wire.send(message);
                to.push((("what is open is aborted", who, 0, 0), next, Kind::Normal));
                return;
            }
            Answer::Taken => true,
            Answer::Fenced => false,
        };
        if who != NOBODY && state.faults < self.0.faults {
            let lost = self.unknown(next.fault(), who);
            to.push((("reply lost", who, 0, 0), lost, Kind::Fault));
        }
        let label = match message.what {
            What::Take => "id",
            What::Row(_) => "row",
            What::Mark => "mark",
            What::Position(_) => "position",
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
        let epoch = message.epoch;
        match message.what {
            What::Take if !self.0.fence => {}
            What::Take => match next.stage {
                Stage::None { .. } => {
                    next.epoch += 1;
                    next.stage = Stage::None { committed: false };
                }
                Stage::Ongoing { rows, positions } => {
                    next.epoch += 1;
                    next.stage = Stage::Decided {
                        commits: false,
                        rows,
                        positions,
                    };
                    return Answer::Waits;
                }
                Stage::Decided { .. } => return Answer::Waits,
            },
            What::Row(_) if epoch < next.rows_epoch => return Answer::Fenced,
            What::Row(row) => {
                next.twice |= next.open & row != 0;
                next.open |= row;
                next.rows_epoch = epoch;
            }
            What::Mark | What::Position(_) if epoch < next.positions_epoch => {
                return Answer::Fenced;
            }
            What::Mark | What::Position(_) => {
                next.undecided = true;
                next.positions_epoch = epoch;
                if let What::Position(position) = message.what {
                    (next.pending, next.written) = (Some(position), position);
                }
            }
            What::End { .. } if epoch < next.epoch => return Answer::Fenced,
            What::End { commits } => match next.stage {
                // The end of a transaction that has ended so.
                Stage::None { committed } if committed == commits => {}
                Stage::None { .. } => return Answer::Fenced,
                Stage::Decided { .. } => return Answer::Waits,
                Stage::Ongoing { rows, positions } => {
                    next.stage = Stage::Decided {
                        commits,
                        rows,
                        positions,
                    };
                }
            },
        }
        Answer::Taken
    }

    /// A worker hears what became of its request.
    fn answered(&self, next: &mut State, who: u8, what: What, taken: bool) {
        if !taken {
            next.lets_go(who);
            return;
        }
        let epoch = next.epoch;
        let lane = next.workers.live(who);
        match (what, lane.phase) {
            (What::Take, _) => (lane.phase, lane.epoch) = (Phase::Taken, epoch),
            (What::End { .. }, _) if lane.twice && self.0.sent_twice == SentTwice::Claim => {
                next.lets_go(who);
            }
            (What::End { .. }, phase) => {
                lane.twice = false;
                lane.phase = match phase {
                    Phase::Ends(Job::Mark) => Phase::Reads,
                    Phase::Ends(Job::Flight) if !self.0.together => Phase::Follows,
                    Phase::Ends(Job::Flight | Job::Apart) => {
                        lane.next = lane.to;
                        Phase::Idle
                    }
                    // Its answer is not known to be of the transaction before: it goes on where it began.
                    _ => Phase::Idle,
                };
            }
            _ => {}
        }
    }
}

impl Stage {
    /// What is left to do.
    fn after(commits: bool, rows: bool, positions: bool) -> Self {
        if !rows && !positions {
            return Self::None { committed: commits };
        }
        Self::Decided {
            commits,
            rows,
            positions,
        }
    }
}
