//! The membership handle: a consumer that joins the group, is assigned partitions, and never fetches.
//!
//! Assigned partitions are paused at once and its queues are set to one message; records come through the
//! fetch handle. Rebalance callbacks run inside [`Membership::poll`], on the source's thread, and turn into
//! [`SourceEvent`]s; a revocation waits there until the lanes are gone, heartbeats go on meanwhile.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::logs;
use crate::error::Error;
use crate::source::SourceEvent;

/// How long a revocation waits for the lanes: their own budget of 10 s and a little more.
const REVOKE: Duration = Duration::from_secs(12);
/// How long leaving may take once the lanes have answered; a coordinator that is away must not hold us.
const LEAVE: Duration = Duration::from_secs(2);

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
    /// Commits under way by partition, oldest first, with who wants to know.
    commits: HashMap<i32, VecDeque<Option<oneshot::Sender<bool>>>>,
}

impl State {
    fn take_away(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.held.remove(partition);
            self.gone.push(*partition);
        }
    }

    fn committed(&mut self, partition: i32, taken: bool) {
        let commits = self.commits.get_mut(&partition);
        if let Some(answer) = commits.and_then(VecDeque::pop_front).flatten() {
            // Nobody waits any more: nobody is told.
            answer.send(taken).ok();
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

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut state = self.state.lock();
        for element in offsets.elements() {
            let taken = result.is_ok() && element.error().is_ok();
            state.committed(element.partition(), taken);
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
    consumer: BaseConsumer<Rebalances>,
    topic: String,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Membership({})", self.topic)
    }
}

impl Membership {
    /// Joins the group with prepared properties.
    pub(super) fn join(
        properties: &ClientConfig,
        topic: &str,
        events: mpsc::UnboundedSender<SourceEvent>,
    ) -> Result<Self, KafkaError> {
        let context = Rebalances {
            events,
            state: Mutex::default(),
        };
        let consumer: BaseConsumer<Rebalances> = properties.create_with_context(context)?;
        consumer.subscribe(&[topic])?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
        })
    }

    /// Serves callbacks and returns an error the client reports.
    pub(super) fn poll(&self, wait: Duration) -> Option<KafkaError> {
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

    /// Commits positions without waiting; advice for lag tools.
    pub(super) fn commit(&self, positions: &HashMap<i32, i64>) {
        self.commit_all(
            positions
                .iter()
                .map(|(partition, position)| (*partition, *position, None)),
        );
    }

    /// Commits one position and answers whether the broker took it, now or when its reply comes.
    pub(super) fn ask(&self, partition: i32, position: i64, taken: oneshot::Sender<bool>) {
        self.commit_all(std::iter::once((partition, position, Some(taken))));
    }

    fn commit_all(
        &self,
        positions: impl Iterator<Item = (i32, i64, Option<oneshot::Sender<bool>>)>,
    ) {
        let mut list = TopicPartitionList::new();
        let mut asked = Vec::new();
        for (partition, position, answer) in positions {
            match list.add_partition_offset(&self.topic, partition, Offset::Offset(position)) {
                Ok(()) => asked.push((partition, answer)),
                Err(error) => {
                    tracing::debug!(partition, position, error = %error, "advisory commit")
                }
            }
        }
        // An answer that is dropped here reads as "not taken".
        match self.consumer.commit(&list, CommitMode::Async) {
            Ok(()) => {
                let mut state = self.state().lock();
                for (partition, answer) in asked {
                    state
                        .commits
                        .entry(partition)
                        .or_default()
                        .push_back(answer);
                }
            }
            Err(error) => tracing::debug!(error = %error, "advisory commit"),
        }
    }

    /// Gives everything back and leaves (a static member stays known to the group until its session ends).
    pub(super) fn leave(self) {
        self.consumer.unsubscribe();
        let begin = Instant::now();
        while begin.elapsed() < LEAVE && !self.state().lock().held.is_empty() {
            self.poll(Duration::from_millis(10));
        }
    }

    fn state(&self) -> &Mutex<State> {
        &self.consumer.context().state
    }
}
