//! How a group gets from one generation to the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::{Answer, Group, INITIAL_DELAY, Joined, Membership, State, Ticket};

impl Group {
    /// Asks all members to join again, unless that is so already.
    pub(super) fn prepare(&mut self, now: Instant) {
        let not_before = match self.state {
            State::Preparing { .. } => return,
            State::Empty => now + INITIAL_DELAY,
            State::Completing | State::Stable => now,
        };
        for member in self.members.values_mut() {
            if let Some(ticket) = member.sync.take() {
                self.answers.push(Answer::Sync(
                    ticket,
                    Err(ResponseError::RebalanceInProgress),
                ));
            }
        }
        self.state = State::Preparing {
            not_before,
            deadline: not_before + self.longest_rebalance(),
        };
    }

    /// A member is gone: the others share its partitions.
    pub(super) fn rebalance_without(&mut self, now: Instant) {
        if self.members.is_empty() && self.pending.is_empty() {
            self.become_empty();
            return;
        }
        self.prepare(now);
        self.close_rebalance(now);
    }

    /// Starts the next generation if every member has joined, or the deadline has passed.
    pub(super) fn close_rebalance(&mut self, now: Instant) {
        let State::Preparing {
            not_before,
            deadline,
        } = self.state
        else {
            return;
        };
        if now < not_before {
            return;
        }
        let all_joined = self.pending.is_empty() && self.members.values().all(|m| m.join.is_some());
        if !all_joined && now < deadline {
            return;
        }
        self.drop_absent();
        if self.members.is_empty() {
            self.become_empty();
            return;
        }
        if self.members.values().all(|m| m.join.is_none()) {
            // Only static members that are away: they keep their place until their sessions end.
            self.state = State::Preparing {
                not_before,
                deadline: now + self.longest_rebalance(),
            };
            return;
        }
        self.start_generation(now);
    }

    /// Removes the dynamic members that did not join again in time; static ones stay until their session ends.
    fn drop_absent(&mut self) {
        self.members
            .retain(|_, member| member.join.is_some() || member.instance.is_some());
    }

    fn become_empty(&mut self) {
        self.state = State::Empty;
        self.generation += 1;
        self.leader = None;
        self.protocol.clear();
    }

    fn start_generation(&mut self, now: Instant) {
        self.generation += 1;
        self.protocol = self.select_protocol();
        self.elect_leader();
        self.state = State::Completing;
        let mut joined = Vec::new();
        for (id, member) in &mut self.members {
            member.assignment = Bytes::new();
            if let Some(ticket) = member.join.take() {
                member.expires = now + member.session;
                joined.push((id.clone(), ticket));
            }
        }
        for (id, ticket) in joined {
            self.answer_join(&id, ticket);
        }
    }

    /// Keeps the leader if it has joined, else takes the first member that has.
    fn elect_leader(&mut self) {
        let has_joined = |id: &String| self.members.get(id).is_some_and(|m| m.join.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return;
        }
        self.leader = self.members.keys().find(|id| has_joined(id)).cloned();
    }

    /// The protocol all members support that most of them like best; empty when there is none.
    pub(super) fn select_protocol(&self) -> String {
        let common = |name: &str| self.members.values().all(|m| m.supports(name));
        let mut votes: Vec<(&str, usize)> = Vec::new();
        for member in self.members.values() {
            let Some(best) = member.protocols.iter().find(|p| common(&p.name)) else {
                continue;
            };
            match votes.iter_mut().find(|(name, _)| *name == best.name) {
                Some((_, count)) => *count += 1,
                None => votes.push((&best.name, 1)),
            }
        }
        let winner = votes.iter().rev().max_by_key(|(_, count)| *count);
        winner
            .map(|(name, _)| (*name).to_owned())
            .unwrap_or_default()
    }

    /// Tells one member of the current generation.
    pub(super) fn answer_join(&mut self, member_id: &str, ticket: Ticket) {
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == member_id {
            self.roster()
        } else {
            Vec::new()
        };
        let membership = Membership {
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader,
            member_id: member_id.to_owned(),
            members,
        };
        self.answers
            .push(Answer::Join(ticket, Joined::Member(membership)));
    }

    fn roster(&self) -> Vec<(String, Option<String>, Bytes)> {
        let entry = |(id, member): (&String, &super::Member)| {
            (
                id.clone(),
                member.instance.clone(),
                member.metadata(&self.protocol),
            )
        };
        self.members.iter().map(entry).collect()
    }

    /// The leader has spoken: everybody who waits gets its assignment.
    pub(super) fn assign(&mut self, now: Instant, assignments: Vec<(String, Bytes)>) {
        let mut assignments: HashMap<String, Bytes> = assignments.into_iter().collect();
        self.state = State::Stable;
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
            if let Some(ticket) = member.sync.take() {
                member.expires = now + member.session;
                self.answers
                    .push(Answer::Sync(ticket, Ok(member.assignment.clone())));
            }
        }
    }

    fn longest_rebalance(&self) -> Duration {
        self.members
            .values()
            .map(|m| m.rebalance)
            .max()
            .unwrap_or_default()
    }
}
