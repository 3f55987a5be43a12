//! The membership handle: a consumer that joins the group, is assigned partitions, and never fetches.
//!
//! Assigned partitions are paused at once and its queues are set to one message; records come through the
//! fetch handle. Rebalance callbacks run inside [`Membership::poll`], on the source's thread, and turn into
//! [`SourceEvent`]s; a revocation waits there until the lanes are gone, heartbeats go on meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::logs;
use super::native::{self, Commits};
use crate::error::Error;
use crate::source::SourceEvent;

/// How long a revocation waits for the lanes: their own budget of 10 s and a little more.
const REVOKE: Duration = Duration::from_secs(12);
/// How long leaving may take once the lanes have answered; a coordinator that is away must not hold us.
const LEAVE: Duration = Duration::from_secs(2);
/// How long a broker may take to answer a member that is about to leave.
const SOON: Duration = Duration::from_millis(500);
/// How long the coordinator may take to say who is in the group.
const ANSWER: Duration = Duration::from_secs(3);
/// Length of the UUID that a broker appends to the instance id to make a static member's id (KIP-345).
const UUID: usize = 36;

/// Callbacks of the membership handle.
#[derive(Debug)]
pub(super) struct Rebalances {
    events: mpsc::UnboundedSender<SourceEvent>,
    // Both sides run on the source's thread, but a callback has only a shared reference.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: HashSet<i32>,
    gone: Vec<i32>,
}

impl State {
    fn take_away(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.held.remove(partition);
            self.gone.push(*partition);
        }
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        logs::line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        logs::global_error(&error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else {
            return;
        };
        let partitions = partitions(list);
        if partitions.is_empty() {
            return;
        }
        self.state.lock().take_away(&partitions);
        if consumer.assignment_lost() {
            self.events.send(SourceEvent::Lost(partitions)).ok();
            return;
        }
        let (done, answered) = blocking::sync_channel(1);
        let asked = self.events.send(SourceEvent::Revoked { partitions, done });
        let unanswered = Err(blocking::RecvTimeoutError::Timeout);
        if asked.is_ok() && answered.recv_timeout(REVOKE) == unanswered {
            tracing::warn!("lanes of revoked partitions did not answer in time");
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = consumer.pause(list) {
                    tracing::warn!(error = %error, "cannot pause the membership handle");
                }
                let partitions = partitions(list);
                if !partitions.is_empty() {
                    self.state.lock().held.extend(&partitions);
                    self.events.send(SourceEvent::Assigned(partitions)).ok();
                }
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => {
                let error = Error::outside("rebalance", error);
                let partition = None;
                self.events
                    .send(SourceEvent::Failed { partition, error })
                    .ok();
            }
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements()
        .iter()
        .map(|element| element.partition())
        .collect()
}

/// A member of the pipeline's group.
pub(super) struct Membership {
    // Dropped before the consumer it belongs to.
    commits: Commits,
    consumer: BaseConsumer<Rebalances>,
    topic: String,
    /// Said with every commit: whose position it is.
    mark: String,
    /// Who waits for the reply to a commit, by its ticket; 0 is for commits nobody waits for.
    asked: HashMap<usize, oneshot::Sender<bool>>,
    tickets: usize,
    is_static: bool,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Membership({})", self.topic)
    }
}

impl Membership {
    /// A handle with prepared properties that has not joined yet; it commits with `mark`.
    pub(super) fn new(
        properties: &ClientConfig,
        topic: &str,
        mark: &str,
        events: mpsc::UnboundedSender<SourceEvent>,
    ) -> Result<Self, KafkaError> {
        let context = Rebalances {
            events,
            state: Mutex::default(),
        };
        let consumer: BaseConsumer<Rebalances> = properties.create_with_context(context)?;
        Ok(Self {
            commits: Commits::new(consumer.client()),
            consumer,
            topic: topic.to_owned(),
            mark: mark.to_owned(),
            asked: HashMap::new(),
            tickets: 0,
            is_static: properties.get("group.instance.id").is_some(),
        })
    }

    /// Joins the group.
    pub(super) fn join(&self) -> Result<(), KafkaError> {
        self.consumer.subscribe(&[&self.topic])
    }

    /// Serves callbacks, answers for commits, and returns an error the client reports.
    pub(super) fn poll(&mut self, wait: Duration) -> Option<KafkaError> {
        while let Some((ticket, taken)) = self.commits.reply() {
            if let Some(answer) = self.asked.remove(&ticket) {
                // Nobody waits any more: nobody is told.
                answer.send(taken).ok();
            }
        }
        match self.consumer.poll(wait) {
            Some(Err(error)) => Some(error),
            Some(Ok(_)) | None => None,
        }
    }

    /// The handle's client, for questions about the topic.
    pub(super) fn client(&self) -> &Client<Rebalances> {
        self.consumer.client()
    }

    /// Whether the partition is assigned to this member.
    pub(super) fn holds(&self, partition: i32) -> bool {
        self.state().lock().held.contains(&partition)
    }

    /// Partitions taken away since the last call.
    pub(super) fn gone(&self) -> Vec<i32> {
        std::mem::take(&mut self.state().lock().gone)
    }

    /// Whether it is in the group.
    pub(super) fn is_member(&self) -> bool {
        native::is_member(self.client())
    }

    /// Leaves the group and joins it, which makes it share out: a static member leaves by unsubscribing, and not by
    /// ending.
    pub(super) fn join_anew(&self) -> Result<(), KafkaError> {
        self.consumer.unsubscribe();
        self.join()
    }

    /// Whether this member was told that another one has its instance id. It may be itself: a commit that waited in
    /// the client while the coordinator was away for longer than the session carries the member's former id.
    pub(super) fn is_fenced(&self) -> bool {
        let fatal = self.consumer.client().fatal_error();
        fatal.is_some_and(|(code, _)| code == RDKafkaErrorCode::FencedInstanceId)
    }

    /// Whether a member of the group has this instance id, by the coordinator's word.
    pub(super) fn is_taken(&self, group: &str, instance: &str) -> Result<bool, KafkaError> {
        let groups = self.consumer.fetch_group_list(Some(group), ANSWER)?;
        let holds = |member: &str| {
            let unique = member
                .strip_prefix(instance)
                .and_then(|rest| rest.strip_prefix('-'));
            unique.is_some_and(|unique| unique.len() == UUID)
        };
        let mut members = groups.groups().iter().flat_map(|group| group.members());
        Ok(members.any(|member| holds(member.id())))
    }

    /// Ends this member without a word to anyone; what it held.
    pub(super) fn abandon(self) -> Vec<i32> {
        let held = std::mem::take(&mut self.state().lock().held);
        held.into_iter().collect()
    }

    /// The error that ended this member for good, if there is one.
    pub(super) fn fatal(&self) -> Option<Error> {
        let (code, text) = self.consumer.client().fatal_error()?;
        let error = Error::config(format!("stay in the group of topic {:?}", self.topic), text);
        Some(match code {
            RDKafkaErrorCode::FencedInstanceId => error.hint(
                "another host joined under the same host.id: give each host its own, or set membership = \"dynamic\"",
            ),
            _ => error.hint("restart the pipeline; nothing was lost"),
        })
    }

    /// Whether a broker answers, soon.
    pub(super) fn reaches(&self) -> bool {
        self.consumer
            .fetch_metadata(Some(&self.topic), SOON)
            .is_ok()
    }

    /// Commits positions without waiting.
    pub(super) fn commit(&self, positions: &HashMap<i32, i64>) {
        self.send(positions, 0);
    }

    /// Commits one position and answers whether the broker took it. An answer that is dropped reads as "no".
    pub(super) fn ask(&mut self, partition: i32, position: i64, taken: oneshot::Sender<bool>) {
        self.tickets += 1;
        if self.send(&HashMap::from([(partition, position)]), self.tickets) {
            self.asked.insert(self.tickets, taken);
        }
    }

    fn send(&self, positions: &HashMap<i32, i64>, ticket: usize) -> bool {
        let mut list = TopicPartitionList::new();
        for (partition, position) in positions {
            let mut added = list.add_partition(&self.topic, *partition);
            added.set_metadata(&self.mark);
            if let Err(error) = added.set_offset(Offset::Offset(*position)) {
                tracing::debug!(partition, position, error = %error, "advisory commit");
                return false;
            }
        }
        let sent = self.commits.send(self.consumer.client(), &list, ticket);
        if let Err(error) = sent {
            tracing::debug!(error = %error, "advisory commit");
        }
        sent.is_ok()
    }

    /// Gives everything back and leaves. A static member stays known to the group until its session ends;
    /// a dynamic one has to say so before the handle is closed, or librdkafka keeps it to itself.
    pub(super) fn leave(mut self) {
        self.consumer.unsubscribe();
        let begin = Instant::now();
        let stays = |member: &Self| {
            !member.state().lock().held.is_empty()
                || !member.is_static && native::is_member(member.client())
        };
        while begin.elapsed() < LEAVE && stays(&self) {
            self.poll(Duration::from_millis(10));
        }
    }

    fn state(&self) -> &Mutex<State> {
        &self.consumer.context().state
    }
}
