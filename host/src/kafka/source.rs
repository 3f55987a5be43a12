//! The Kafka source: one thread, two handles. It serves the group through [`Membership`], fetches through
//! [`FetchQueue`] from the positions it is told, and fills the lanes' inlets with batches.

use std::collections::HashMap;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::membership::Membership;
use super::native::{FetchQueue, Fetched};
use super::{KafkaSettings, client_error};
use crate::config::Membership as MembershipMode;
use crate::error::{Blame, Error};
use crate::record::{Batch, Record};
use crate::source::{Inlet, Source, SourceCommand, SourceEvent};

/// Records of a batch at most: one guest call, one flight.
const BATCH_RECORDS: usize = 1024;
/// Bytes of a batch at most.
const BATCH_BYTES: usize = 1 << 20;
/// How long a round waits for a first message: also how late a command is seen when nothing comes.
const WAIT: Duration = Duration::from_millis(10);
/// Between advisory commits.
const ADVISE: Duration = Duration::from_secs(1);

/// What a Kafka source needs to know.
#[derive(Clone, Debug)]
pub struct KafkaSourceSettings {
    /// The cluster.
    pub kafka: KafkaSettings,
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Static instance id (`pipeline/host.id`), used when membership is static.
    pub instance: String,
    /// How to join.
    pub membership: MembershipMode,
    /// Whether records carry headers.
    pub headers: bool,
    /// Largest record fetched in one piece is bounded by the broker; this bounds what waits in memory, KiB.
    pub queued_kbytes: u32,
}

/// See the module.
#[derive(Debug)]
pub struct KafkaSource {
    settings: KafkaSourceSettings,
}

impl KafkaSource {
    /// A source; connects when run.
    #[must_use]
    pub fn new(settings: KafkaSourceSettings) -> Self {
        Self { settings }
    }

    fn membership(&self, events: mpsc::UnboundedSender<SourceEvent>) -> Result<Membership, KafkaError> {
        let mut config = self.settings.kafka.client_config();
        let session = self.settings.kafka.session_timeout.as_millis();
        config
            .set("group.id", &self.settings.group)
            .set("session.timeout.ms", session.to_string())
            .set("heartbeat.interval.ms", (session / 6).clamp(100, 3000).to_string())
            .set("max.poll.interval.ms", session.max(300_000).to_string())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // This handle never fetches: its partitions are paused, its queues hold one message.
            .set("auto.offset.reset", "latest")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "1")
            .set("fetch.message.max.bytes", "1024");
        if self.settings.membership == MembershipMode::Static {
            config.set("group.instance.id", &self.settings.instance);
        }
        Membership::join(&config, &self.settings.topic, events)
    }

    fn fetch(&self) -> Result<FetchQueue, KafkaError> {
        let consumer: BaseConsumer = self
            .settings
            .kafka
            .client_config()
            // Wanted by librdkafka for manual assignment; nothing is committed under it.
            .set("group.id", format!("{}.fetch", self.settings.group))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", self.settings.queued_kbytes.to_string())
            .create()?;
        Ok(FetchQueue::new(consumer, self.settings.headers))
    }
}

impl Source for KafkaSource {
    fn run(
        self: Box<Self>,
        events: mpsc::UnboundedSender<SourceEvent>,
        commands: blocking::Receiver<SourceCommand>,
    ) -> Result<(), Error> {
        let topic = self.settings.topic.clone();
        let failed = |error: KafkaError| client_error(&format!("consume topic {topic:?}"), &error);
        let membership = self.membership(events.clone()).map_err(failed)?;
        let fetch = self.fetch().map_err(failed)?;
        let mut fetching = Fetching {
            topic: topic.clone(),
            fetch,
            lanes: HashMap::new(),
            events,
        };
        let mut advised: HashMap<i32, i64> = HashMap::new();
        let mut last: HashMap<i32, i64> = HashMap::new();
        let mut committed_at = Instant::now();
        loop {
            if let Some(error) = membership.poll(Duration::ZERO) {
                let error = failed(error);
                if error.blame() != Blame::Outside {
                    return Err(error);
                }
                fetching.report(None, error);
            }
            if let Some(detail) = membership.fatal() {
                return Err(Error::config(format!("stay in group {:?}", self.settings.group), detail).hint(
                    "another host joined under the same host.id: give each host its own, or set membership = \"dynamic\"",
                ));
            }
            while let Ok(command) = commands.try_recv() {
                match command {
                    SourceCommand::Start { partition, position, inlet } => {
                        last.insert(partition, position);
                        fetching.start(partition, position, inlet).map_err(failed)?;
                    }
                    SourceCommand::Stop { partition } => fetching.stop(partition),
                    SourceCommand::Advise { partition, position, taken } => {
                        if position >= 0 {
                            advised.insert(partition, position);
                            last.insert(partition, position);
                        }
                        if let Some(taken) = taken {
                            membership.answer(partition, taken);
                            let position = last.get(&partition).copied().unwrap_or(0);
                            membership.commit(&HashMap::from([(partition, position)]));
                        }
                    }
                    SourceCommand::Shutdown => {
                        if !advised.is_empty() {
                            membership.commit(&advised);
                        }
                        drop(fetching);
                        membership.leave();
                        return Ok(());
                    }
                }
            }
            fetching.round()?;
            if committed_at.elapsed() >= ADVISE && !advised.is_empty() {
                membership.commit(&advised);
                advised.clear();
                committed_at = Instant::now();
            }
        }
    }
}

/// A partition being fetched.
#[derive(Debug)]
struct FetchLane {
    inlet: Inlet,
    batch: Batch,
    next: i64,
    paused: bool,
}

/// The fetch handle and its lanes.
#[derive(Debug)]
struct Fetching {
    topic: String,
    fetch: FetchQueue,
    lanes: HashMap<i32, FetchLane>,
    events: mpsc::UnboundedSender<SourceEvent>,
}

impl Fetching {
    fn start(&mut self, partition: i32, position: i64, inlet: Inlet) -> Result<(), KafkaError> {
        self.stop(partition);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(position))?;
        self.fetch.consumer().incremental_assign(&list)?;
        self.lanes.insert(
            partition,
            FetchLane {
                inlet,
                batch: Batch::new(partition, position),
                next: position,
                paused: false,
            },
        );
        Ok(())
    }

    fn stop(&mut self, partition: i32) {
        if self.lanes.remove(&partition).is_none() {
            return;
        }
        if let Err(error) = self.fetch.consumer().incremental_unassign(&self.list(partition)) {
            tracing::warn!(partition, error = %error, "cannot stop fetching");
        }
    }

    fn list(&self, partition: i32) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        list
    }

    /// One round: fetch, hand over, pause and resume.
    fn round(&mut self) -> Result<(), Error> {
        let Self { topic, fetch, lanes, events } = self;
        let mut failed = None;
        fetch.drain(WAIT, |fetched| match fetched {
            Fetched::Record(partition, record) => {
                if let Some(lane) = lanes.get_mut(&partition) {
                    lane.take(partition, record);
                }
            }
            Fetched::Failed(partition, code) => {
                let position = lanes.get(&partition).map(|lane| lane.next);
                let error = fetch_error(topic, partition, position, code);
                if error.blame() == Blame::Outside {
                    let partition = (partition >= 0).then_some(partition);
                    events.send(SourceEvent::Failed { partition, error }).ok();
                } else {
                    failed = Some(error);
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        for (partition, lane) in lanes {
            lane.hand_over(*partition);
            let mut list = TopicPartitionList::new();
            list.add_partition(topic, *partition);
            let consumer = fetch.consumer();
            let changed = if !lane.paused && lane.inlet.is_full() {
                lane.paused = true;
                consumer.pause(&list)
            } else if lane.paused && lane.inlet.has_room() {
                lane.paused = false;
                consumer.resume(&list)
            } else {
                Ok(())
            };
            if let Err(error) = changed {
                tracing::warn!(partition, error = %error, "cannot pause or resume");
            }
        }
        Ok(())
    }

    fn report(&self, partition: Option<i32>, error: Error) {
        self.events.send(SourceEvent::Failed { partition, error }).ok();
    }
}

impl FetchLane {
    fn take(&mut self, partition: i32, record: Record<'_>) {
        if record.offset < self.next {
            // Prefetched before this lane was given its position.
            return;
        }
        if self.batch.len() >= BATCH_RECORDS || self.batch.bytes() >= BATCH_BYTES {
            self.hand_over(partition);
        }
        self.next = record.offset + 1;
        self.batch.push(record);
    }

    /// Hands the records of this round to the lane; a lane that has ended does not want them.
    fn hand_over(&mut self, partition: i32) {
        if self.batch.is_empty() {
            return;
        }
        let full = std::mem::replace(&mut self.batch, Batch::new(partition, self.next));
        if self.inlet.send(full).is_err() {
            tracing::debug!(partition, "records for a lane that has ended");
        }
    }
}

/// What an error of a partition means.
fn fetch_error(topic: &str, partition: i32, position: Option<i64>, code: RDKafkaErrorCode) -> Error {
    let what = format!("fetch {topic} partition {partition}");
    match code {
        RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => {
            let at = position.map_or_else(|| "its position".to_owned(), |p| format!("position {p}"));
            Error::config(
                format!("data loss: {topic} partition {partition}"),
                format!("{at} lies outside the log"),
            )
            .hint(
                "retention passed the position or the topic was truncated: nothing was skipped; set the position on \
                 purpose or give the pipeline a new name",
            )
        }
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition => {
            Error::config(what, code).hint("the topic was deleted, or has fewer partitions than before")
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            Error::config(what, code).hint("grant Read and Describe on the topic to the host's principal")
        }
        _ => Error::outside(what, code),
    }
}
