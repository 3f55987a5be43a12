//! One consumer group's membership: a pure state machine, after Kafka's classic group coordinator.
//!
//! Owns the members, the generation and the assignments. Never does I/O and never reads a clock: time is passed in,
//! calls that must wait carry a [`Ticket`], and their answers are collected with [`Group::take_answers`] after any
//! call. Committed offsets live elsewhere ([`crate::offsets`]).
//!
//! ```text
//!            first join                all joined, or the deadline           leader's sync
//!   Empty ───────────────▶ Preparing ────────────────────────────▶ Completing ─────────────▶ Stable
//!     ▲                      ▲    ▲                                     │                       │
//!     └── last member gone ──┘    └──── a member joins, leaves, changes or is silent too long ───┘
//! ```
//!
//! Source: KIP-62, KIP-345 (static members), KIP-394 (member id first), and Kafka's `GroupCoordinator`.

mod member;
mod rebalance;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

pub(crate) use member::{Client, MemberInfo, Protocol};
pub(crate) use requests::{Join, Sync};

use member::Member;

/// How long the first rebalance of an empty group waits for more members: long enough for two that are started
/// together, short enough not to be felt.
const INITIAL_DELAY: Duration = Duration::from_millis(30);

/// Names one call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// An answer for a waiting call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// For [`Group::join`].
    Join(Ticket, Joined),
    /// For [`Group::sync`]: the member's assignment.
    Sync(Ticket, Result<Bytes, ResponseError>),
}

/// How a join ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The caller is a member of this generation.
    Member(Membership),
    /// The caller has to join again with this member id (KIP-394).
    NeedsId(String),
    /// The caller may not join.
    Refused(ResponseError),
}

/// A generation as one of its members sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) generation: i32,
    /// The protocol all members support.
    pub(crate) protocol: String,
    /// The member id of the leader, who assigns the partitions.
    pub(crate) leader: String,
    /// The caller's own id.
    pub(crate) member_id: String,
    /// All members, for the leader only: (member id, instance id, metadata in `protocol`).
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

/// Who calls: a member id, the static instance id if it has one, and the generation it believes in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance: Option<&'a str>,
    pub(crate) generation: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    /// Members have to join; closes between `not_before` and `deadline`.
    Preparing {
        not_before: Instant,
        deadline: Instant,
    },
    /// The leader has to send the assignments.
    Completing,
    Stable,
}

/// One consumer group.
#[derive(Debug)]
pub(crate) struct Group {
    state: State,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: Option<String>,
    /// By member id.
    members: BTreeMap<String, Member>,
    /// Member id by instance id, for static members.
    statics: HashMap<String, String>,
    /// Member ids handed out whose second join is awaited, until when.
    pending: HashMap<String, Instant>,
    answers: Vec<Answer>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: None,
            members: BTreeMap::new(),
            statics: HashMap::new(),
            pending: HashMap::new(),
            answers: Vec::new(),
        }
    }
}

impl Group {
    /// The answers for waiting calls since the last time.
    pub(crate) fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// When [`Group::tick`] has something to do next, if nothing else happens.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let rebalance = match self.state {
            State::Preparing { not_before, .. } if now < not_before => Some(not_before),
            State::Preparing { deadline, .. } => Some(deadline),
            State::Empty | State::Completing | State::Stable => None,
        };
        let sessions = self
            .members
            .values()
            .filter(|m| !m.is_waiting())
            .map(|m| m.expires);
        sessions
            .chain(self.pending.values().copied())
            .chain(rebalance)
            .min()
    }

    /// Lets time pass: expires silent members, and closes a rebalance that waited long enough.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.pending.retain(|_, until| *until > now);
        let silent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| !member.is_waiting() && member.expires <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in silent {
            tracing::info!(
                member = id,
                "session timed out, member removed from its group"
            );
            self.remove(now, &id);
        }
        self.close_rebalance(now);
    }

    /// Whether `caller` may commit offsets, which also counts as a sign of life.
    ///
    /// A negative generation commits from outside the group, allowed while it has no members.
    ///
    /// # Errors
    /// The protocol's error for the commit.
    pub(crate) fn may_commit(
        &mut self,
        now: Instant,
        caller: Caller<'_>,
    ) -> Result<(), ResponseError> {
        if caller.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let state = self.state;
        self.touch(now, caller)?;
        match state {
            State::Completing => Err(ResponseError::RebalanceInProgress),
            State::Empty | State::Preparing { .. } | State::Stable => Ok(()),
        }
    }

    /// The group's name for its state, as Kafka's tools print it.
    pub(crate) fn state_name(&self) -> &'static str {
        match self.state {
            State::Empty => "Empty",
            State::Preparing { .. } => "PreparingRebalance",
            State::Completing => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }

    /// The kind of members (`consumer`), empty before the first.
    pub(crate) fn protocol_type(&self) -> &str {
        &self.protocol_type
    }

    /// The protocol of the current generation.
    pub(crate) fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The members, for tools.
    pub(crate) fn members(&self) -> impl Iterator<Item = MemberInfo<'_>> {
        self.members
            .iter()
            .map(|(id, member)| member.info(id, &self.protocol))
    }

    /// The member a caller claims to be, after the fencing checks; its session starts anew.
    fn touch(&mut self, now: Instant, caller: Caller<'_>) -> Result<&mut Member, ResponseError> {
        self.check_identity(caller.member_id, caller.instance)?;
        if caller.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        let member = self
            .members
            .get_mut(caller.member_id)
            .ok_or(ResponseError::UnknownMemberId)?;
        member.expires = now + member.session;
        Ok(member)
    }

    fn check_identity(&self, member_id: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(current) if current != member_id => {
                    return Err(ResponseError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(ResponseError::UnknownMemberId)
        }
    }

    fn remove(&mut self, now: Instant, member_id: &str) {
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        self.dismiss(&mut member, ResponseError::UnknownMemberId);
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = None;
        }
        self.rebalance_without(now);
    }

    /// Answers whatever the member was waiting for with an error.
    fn dismiss(&mut self, member: &mut Member, why: ResponseError) {
        if let Some(ticket) = member.join.take() {
            self.answers
                .push(Answer::Join(ticket, Joined::Refused(why)));
        }
        if let Some(ticket) = member.sync.take() {
            self.answers.push(Answer::Sync(ticket, Err(why)));
        }
    }
}
