//! What members ask of their group: join, sync, heartbeat, leave.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::member::{Client, Member, Protocol};
use super::{Answer, Caller, Group, Joined, Membership, State, Ticket};

/// A request to join.
#[derive(Debug)]
pub(crate) struct Join {
    /// Empty when the caller has none yet.
    pub(crate) member_id: String,
    /// The static instance id.
    pub(crate) instance: Option<String>,
    pub(crate) client: Client,
    /// How long the member may be silent.
    pub(crate) session: Duration,
    /// How long the others wait for it in a rebalance.
    pub(crate) rebalance: Duration,
    pub(crate) protocol_type: String,
    /// In order of preference.
    pub(crate) protocols: Vec<Protocol>,
    /// A member id never used before, should one be needed.
    pub(crate) fresh_id: String,
    /// Whether a dynamic member is first told its id and joins with it (KIP-394).
    pub(crate) id_first: bool,
    pub(crate) ticket: Ticket,
}

/// A request for the assignment, and from the leader the assignments of all.
#[derive(Debug)]
pub(crate) struct Sync<'a> {
    pub(crate) caller: Caller<'a>,
    /// (member id, assignment); empty from followers.
    pub(crate) assignments: Vec<(String, Bytes)>,
    pub(crate) ticket: Ticket,
}

impl Group {
    /// A member joins, for the first time or again. Answered by [`Answer::Join`], at once or when the rebalance
    /// closes.
    pub(crate) fn join(&mut self, now: Instant, join: Join) {
        let ticket = join.ticket;
        if let Err(refusal) = self.try_join(now, join) {
            self.answers.push(Answer::Join(ticket, refusal));
        }
    }

    fn try_join(&mut self, now: Instant, join: Join) -> Result<(), Joined> {
        self.check_join(&join).map_err(Joined::Refused)?;
        if !join.member_id.is_empty() {
            return self.join_known(now, join).map_err(Joined::Refused);
        }
        if let Some(instance) = &join.instance {
            match self.statics.get(instance).cloned() {
                Some(previous) => self.replace_static(now, &previous, join),
                None => self.admit(now, join.fresh_id.clone(), join),
            }
            return Ok(());
        }
        if join.id_first {
            self.pending
                .insert(join.fresh_id.clone(), now + join.session);
            return Err(Joined::NeedsId(join.fresh_id));
        }
        self.admit(now, join.fresh_id.clone(), join);
        Ok(())
    }

    fn check_join(&self, join: &Join) -> Result<(), ResponseError> {
        if join.session.is_zero() {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let others = || {
            self.members
                .iter()
                .filter(|(id, _)| **id != join.member_id)
                .map(|(_, member)| member)
        };
        if others().next().is_none() {
            return Ok(());
        }
        let shared = join
            .protocols
            .iter()
            .any(|p| others().all(|member| member.supports(&p.name)));
        if shared && join.protocol_type == self.protocol_type {
            Ok(())
        } else {
            Err(ResponseError::InconsistentGroupProtocol)
        }
    }

    fn join_known(&mut self, now: Instant, join: Join) -> Result<(), ResponseError> {
        if self.pending.remove(&join.member_id).is_some() {
            self.admit(now, join.member_id.clone(), join);
            return Ok(());
        }
        self.check_identity(&join.member_id, join.instance.as_deref())?;
        let member = self
            .members
            .get_mut(&join.member_id)
            .ok_or(ResponseError::UnknownMemberId)?;
        let unchanged = member.protocols == join.protocols;
        let is_leader = self.leader.as_deref() == Some(join.member_id.as_str());
        // A member that repeats itself lost our answer: it gets it again. A leader in a stable group asks for a
        // rebalance by joining.
        let repeated = match self.state {
            State::Empty | State::Preparing { .. } => false,
            State::Completing => unchanged,
            State::Stable => unchanged && !is_leader,
        };
        member.expires = now + join.session;
        member.session = join.session;
        if repeated {
            self.answer_join(&join.member_id, join.ticket);
            return Ok(());
        }
        if let Some(lost) = member.join.replace(join.ticket) {
            self.answers.push(Answer::Join(
                lost,
                Joined::Refused(ResponseError::RebalanceInProgress),
            ));
        }
        member.protocols = join.protocols;
        member.rebalance = join.rebalance;
        self.prepare(now);
        self.close_rebalance(now);
        Ok(())
    }

    fn admit(&mut self, now: Instant, member_id: String, join: Join) {
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type;
        }
        if let Some(instance) = &join.instance {
            self.statics.insert(instance.clone(), member_id.clone());
        }
        let member = Member {
            instance: join.instance,
            client: join.client,
            protocols: join.protocols,
            session: join.session,
            rebalance: join.rebalance,
            expires: now + join.session,
            join: Some(join.ticket),
            sync: None,
            assignment: Bytes::new(),
        };
        self.members.insert(member_id, member);
        self.prepare(now);
        self.close_rebalance(now);
    }

    /// A static member is back under a new member id: it takes the place of the old one, which is fenced. In a
    /// stable group its assignment stays and nobody else notices (KIP-345).
    fn replace_static(&mut self, now: Instant, previous: &str, join: Join) {
        let Some(mut member) = self.members.remove(previous) else {
            return self.admit(now, join.fresh_id.clone(), join);
        };
        self.dismiss(&mut member, ResponseError::FencedInstanceId);
        let leader_before = self.leader.clone().unwrap_or_default();
        let member_id = join.fresh_id;
        member.client = join.client;
        member.protocols = join.protocols;
        member.session = join.session;
        member.rebalance = join.rebalance;
        member.expires = now + join.session;
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), member_id.clone());
        }
        if leader_before == previous {
            self.leader = Some(member_id.clone());
        }
        self.members.insert(member_id.clone(), member);
        if self.state == State::Stable && self.select_protocol() == self.protocol {
            // The leader of before is named, so that a leader that came back does not assign anew.
            let membership = Membership {
                generation: self.generation,
                protocol: self.protocol.clone(),
                leader: leader_before,
                member_id,
                members: Vec::new(),
            };
            self.answers
                .push(Answer::Join(join.ticket, Joined::Member(membership)));
            return;
        }
        if let Some(member) = self.members.get_mut(&member_id) {
            member.join = Some(join.ticket);
        }
        self.prepare(now);
        self.close_rebalance(now);
    }

    /// A member asks for its assignment. Answered by [`Answer::Sync`], for followers once the leader has sent
    /// the assignments.
    pub(crate) fn sync(&mut self, now: Instant, sync: Sync<'_>) {
        let ticket = sync.ticket;
        if let Err(code) = self.try_sync(now, sync) {
            self.answers.push(Answer::Sync(ticket, Err(code)));
        }
    }

    fn try_sync(&mut self, now: Instant, sync: Sync<'_>) -> Result<(), ResponseError> {
        let state = self.state;
        let member = self.touch(now, sync.caller)?;
        match state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            State::Stable => {
                let assignment = member.assignment.clone();
                self.answers.push(Answer::Sync(sync.ticket, Ok(assignment)));
                Ok(())
            }
            State::Completing => {
                if let Some(lost) = member.sync.replace(sync.ticket) {
                    self.answers
                        .push(Answer::Sync(lost, Err(ResponseError::RebalanceInProgress)));
                }
                if self.leader.as_deref() == Some(sync.caller.member_id) {
                    self.assign(now, sync.assignments);
                }
                Ok(())
            }
        }
    }

    /// A sign of life.
    ///
    /// # Errors
    /// `RebalanceInProgress` asks the member to join again; the others tell it that it is not, or no longer, the
    /// member it thinks it is.
    pub(crate) fn heartbeat(
        &mut self,
        now: Instant,
        caller: Caller<'_>,
    ) -> Result<(), ResponseError> {
        let state = self.state;
        self.touch(now, caller)?;
        match state {
            State::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            State::Empty | State::Completing | State::Stable => Ok(()),
        }
    }

    /// A member leaves; with an instance id and no member id, a tool removes a static member.
    ///
    /// # Errors
    /// `UnknownMemberId` and `FencedInstanceId`.
    pub(crate) fn leave(
        &mut self,
        now: Instant,
        member_id: &str,
        instance: Option<&str>,
    ) -> Result<(), ResponseError> {
        if self.pending.remove(member_id).is_some() {
            self.close_rebalance(now);
            return Ok(());
        }
        let by_instance = instance
            .filter(|_| member_id.is_empty())
            .and_then(|i| self.statics.get(i).cloned());
        let member_id = by_instance.as_deref().unwrap_or(member_id);
        self.check_identity(member_id, instance)?;
        self.remove(now, member_id);
        Ok(())
    }
}
