//! The membership handle: a consumer that joins the group, is assigned partitions, and never fetches.
//!
//! Assigned partitions are paused at once and its queues are set to one message; records come through the
//! fetch handle. Rebalance callbacks run inside [`Membership::poll`], on the source's thread, and turn into
//! [`SourceEvent`]s; a revocation waits there until the lanes are gone, heartbeats go on meanwhile.

use std::collections::HashMap;
use std::sync::mpsc as blocking;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::source::SourceEvent;

/// How long a revocation waits for the lanes: their own budget of 10 s and a little more.
const REVOKE: Duration = Duration::from_secs(12);

/// Callbacks of the membership handle.
#[derive(Debug)]
pub(super) struct Rebalances {
    events: mpsc::UnboundedSender<SourceEvent>,
    // Answers due when a commit comes back; both sides run on the source's thread, but the callback has only
    // a shared reference.
    waiting: Mutex<HashMap<i32, Vec<oneshot::Sender<bool>>>>,
}

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else {
            return;
        };
        let partitions = partitions(list);
        if partitions.is_empty() {
            return;
        }
        if consumer.assignment_lost() {
            self.events.send(SourceEvent::Lost(partitions)).ok();
            return;
        }
        let (done, answered) = blocking::sync_channel(1);
        let asked = self.events.send(SourceEvent::Revoked { partitions, done });
        if asked.is_ok() && answered.recv_timeout(REVOKE).is_err() {
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
                    self.events.send(SourceEvent::Assigned(partitions)).ok();
                }
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => {
                let error = Error::outside("rebalance", error);
                self.events
                    .send(SourceEvent::Failed {
                        partition: None,
                        error,
                    })
                    .ok();
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut waiting = self.waiting.lock();
        for element in offsets.elements() {
            let taken = result.is_ok() && element.error().is_ok();
            for answer in waiting.remove(&element.partition()).into_iter().flatten() {
                answer.send(taken).ok();
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
            waiting: Mutex::new(HashMap::new()),
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

    /// The error that ended this member for good, if there is one.
    pub(super) fn fatal(&self) -> Option<String> {
        self.consumer
            .client()
            .fatal_error()
            .map(|(code, text)| format!("{code}: {text}"))
    }

    /// Commits offsets without waiting; advice for lag tools.
    pub(super) fn commit(&self, positions: &HashMap<i32, i64>) {
        let mut list = TopicPartitionList::new();
        for (partition, position) in positions {
            let added = list.add_partition_offset(&self.topic, *partition, Offset::Offset(*position));
            if let Err(error) = added {
                tracing::debug!(error = %error, "advisory commit");
            }
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(error = %error, "advisory commit");
        }
    }

    /// Answers when the next commit of the partition comes back.
    pub(super) fn answer(&self, partition: i32, taken: oneshot::Sender<bool>) {
        let context = self.consumer.client().context();
        context.waiting.lock().entry(partition).or_default().push(taken);
    }

    /// Gives everything back and leaves (a static member stays known to the group until its session ends).
    pub(super) fn leave(self) {
        self.consumer.unsubscribe();
        for _ in 0..20 {
            self.poll(Duration::from_millis(50));
            let held = self.consumer.assignment().map(|list| list.count());
            if held.unwrap_or(0) == 0 {
                break;
            }
        }
    }
}
