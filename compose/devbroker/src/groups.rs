//! All groups by name, with their committed offsets, and the calls that wait for an answer.
//!
//! Owns the link between the pure [`Group`] and waiting connections: a ticket is a one-shot channel.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use tokio::sync::oneshot;

use crate::group::{Answer, Group, Join, Joined, Sync, Ticket};
use crate::offsets::Offsets;

/// What a waiting sync gets.
pub(crate) type Assignment = Result<Bytes, ResponseError>;

/// One group's membership and offsets.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) group: Group,
    pub(crate) offsets: Offsets,
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_name: BTreeMap<String, Entry>,
    last_ticket: u64,
    /// One-shot, because a call has one answer; a connection that is gone has dropped its end.
    joins: HashMap<Ticket, oneshot::Sender<Joined>>,
    syncs: HashMap<Ticket, oneshot::Sender<Assignment>>,
}

impl Groups {
    /// Passes a join on; `build` gets the ticket. The answer comes through the channel.
    pub(crate) fn join(
        &mut self,
        now: Instant,
        name: &str,
        build: impl FnOnce(Ticket) -> Join,
    ) -> oneshot::Receiver<Joined> {
        let (sender, receiver) = oneshot::channel();
        let ticket = self.next_ticket();
        self.joins.insert(ticket, sender);
        let group = &mut self.entry(name).group;
        group.join(now, build(ticket));
        let answers = group.take_answers();
        self.deliver(answers);
        receiver
    }

    /// Passes a sync on; `build` gets the ticket. The answer comes through the channel. `None` when there is no
    /// such group.
    pub(crate) fn sync<'a>(
        &mut self,
        now: Instant,
        name: &str,
        build: impl FnOnce(Ticket) -> Sync<'a>,
    ) -> Option<oneshot::Receiver<Assignment>> {
        let ticket = self.next_ticket();
        let group = &mut self.by_name.get_mut(name)?.group;
        group.sync(now, build(ticket));
        let answers = group.take_answers();
        let (sender, receiver) = oneshot::channel();
        self.syncs.insert(ticket, sender);
        self.deliver(answers);
        Some(receiver)
    }

    /// Calls one group and delivers the answers that fall due.
    ///
    /// # Errors
    /// `UnknownMemberId` when there is no such group, else what `call` says.
    pub(crate) fn call<T>(
        &mut self,
        name: &str,
        call: impl FnOnce(&mut Group) -> Result<T, ResponseError>,
    ) -> Result<T, ResponseError> {
        let group = &mut self
            .by_name
            .get_mut(name)
            .ok_or(ResponseError::UnknownMemberId)?
            .group;
        let result = call(group);
        let answers = group.take_answers();
        self.deliver(answers);
        result
    }

    /// Lets time pass for every group.
    pub(crate) fn tick(&mut self, now: Instant) {
        let mut answers = Vec::new();
        for entry in self.by_name.values_mut() {
            entry.group.tick(now);
            answers.append(&mut entry.group.take_answers());
        }
        self.deliver(answers);
    }

    /// When [`Groups::tick`] has something to do next.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.by_name
            .values()
            .filter_map(|entry| entry.group.next_deadline(now))
            .min()
    }

    /// The group of that name, made if need be.
    pub(crate) fn entry(&mut self, name: &str) -> &mut Entry {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), Entry::default());
        }
        self.by_name
            .get_mut(name)
            .expect("present or just inserted")
    }

    /// The group of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name)
    }

    /// Forgets a group with its offsets.
    ///
    /// # Errors
    /// `GroupIdNotFound` when there is none, `NonEmptyGroup` while it has members.
    pub(crate) fn delete(&mut self, name: &str) -> Result<(), ResponseError> {
        let entry = self.get(name).ok_or(ResponseError::GroupIdNotFound)?;
        if entry.group.members().next().is_some() {
            return Err(ResponseError::NonEmptyGroup);
        }
        self.by_name.remove(name);
        Ok(())
    }

    /// All groups, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.by_name
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }

    /// Forgets the offsets of a deleted topic.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        for entry in self.by_name.values_mut() {
            entry.offsets.forget(topic);
        }
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn deliver(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let heard = match answer {
                Answer::Join(ticket, joined) => {
                    self.joins.remove(&ticket).map(|to| to.send(joined).is_ok())
                }
                Answer::Sync(ticket, result) => {
                    self.syncs.remove(&ticket).map(|to| to.send(result).is_ok())
                }
            };
            if heard != Some(true) {
                tracing::debug!("a group member went away before its answer");
            }
        }
    }
}
