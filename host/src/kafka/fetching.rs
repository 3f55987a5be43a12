//! The fetch side of the source: which partitions are read from where, and the way of their records into the
//! lanes' inlets. Used by the source's thread only; it knows nothing of groups.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::identity::is_unknown;
use super::native::{FetchQueue, Fetched};
use crate::error::Error;
use crate::record::{Batch, Record};
use crate::source::{Inlet, SourceEvent};

/// Records of a batch at most: one guest call, one flight.
const BATCH_RECORDS: usize = 1024;
/// Bytes of a batch at most.
const BATCH_BYTES: usize = 1 << 20;
/// Between two reports that something outside is amiss; the client repeats itself far more often.
const REPORT: Duration = Duration::from_secs(1);

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
pub(super) struct Fetching {
    topic: String,
    fetch: FetchQueue,
    /// By partition: looked up for every record.
    lanes: Vec<Option<FetchLane>>,
    /// Lanes with records of the current round.
    touched: Vec<i32>,
    paused: Vec<i32>,
    events: mpsc::UnboundedSender<SourceEvent>,
    reported: Option<Instant>,
    amiss: bool,
}

impl Fetching {
    pub(super) fn new(
        topic: &str,
        fetch: FetchQueue,
        events: mpsc::UnboundedSender<SourceEvent>,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            fetch,
            lanes: Vec::new(),
            touched: Vec::new(),
            paused: Vec::new(),
            events,
            reported: None,
            amiss: false,
        }
    }

    /// Starts a partition at a position, in place of whatever it did before.
    pub(super) fn start(
        &mut self,
        partition: i32,
        position: i64,
        inlet: Inlet,
    ) -> Result<(), KafkaError> {
        self.stop(partition);
        let Ok(slot) = usize::try_from(partition) else {
            return Ok(());
        };
        assign(&self.fetch, &self.topic, partition, position)?;
        if self.lanes.len() <= slot {
            self.lanes.resize_with(slot + 1, || None);
        }
        self.lanes[slot] = Some(FetchLane {
            inlet,
            batch: Batch::new(partition, position),
            next: position,
            paused: false,
        });
        Ok(())
    }

    /// Stops a partition and drops its inlet; nothing happens when it is not fetched.
    pub(super) fn stop(&mut self, partition: i32) {
        let slot = usize::try_from(partition).ok();
        let Some(lane) = slot.and_then(|slot| self.lanes.get_mut(slot)?.take()) else {
            return;
        };
        self.paused.retain(|paused| *paused != partition);
        if !lane.paused {
            unassign(&self.fetch, &self.topic, partition);
        }
    }

    /// The highest partition being fetched.
    pub(super) fn highest(&self) -> Option<i32> {
        let slot = self.lanes.iter().rposition(Option::is_some)?;
        i32::try_from(slot).ok()
    }

    /// One round: waits at most `wait` for records, hands over, pauses and resumes. Returns what makes the
    /// topic's identity doubtful.
    ///
    /// # Errors
    /// `Config`: a position outside the log, no permission.
    pub(super) fn round(&mut self, wait: Duration) -> Result<Option<RDKafkaErrorCode>, Error> {
        let Self {
            fetch,
            lanes,
            touched,
            ..
        } = self;
        let mut failures = Vec::new();
        fetch.drain(wait, |fetched| match fetched {
            Fetched::Record(partition, record) => {
                if let Some(lane) = lane(lanes, partition) {
                    if lane.batch.is_empty() {
                        touched.push(partition);
                    }
                    lane.take(partition, record);
                }
            }
            Fetched::Failed(partition, code) => failures.push((partition, code)),
        });
        self.settle();
        let mut doubt = None;
        for (partition, code) in failures {
            if is_unknown(code) {
                doubt = Some(code);
            } else {
                self.failed(partition, code)?;
            }
        }
        Ok(doubt)
    }

    /// Tells the supervisor that something outside is amiss, now and then.
    pub(super) fn report(&mut self, partition: Option<i32>, error: Error) {
        self.amiss = true;
        if self.reported.is_some_and(|at| at.elapsed() < REPORT) {
            tracing::debug!(?partition, error = %error, "source");
            return;
        }
        self.reported = Some(Instant::now());
        self.events
            .send(SourceEvent::Failed { partition, error })
            .ok();
    }

    /// Whether something outside was amiss since the last call.
    pub(super) fn was_amiss(&mut self) -> bool {
        std::mem::take(&mut self.amiss)
    }

    /// Hands over what the round brought, pauses lanes that became full, resumes those that have room.
    fn settle(&mut self) {
        for partition in self.touched.drain(..) {
            let Some(lane) = lane(&mut self.lanes, partition) else {
                continue;
            };
            lane.hand_over(partition);
            if !lane.paused && lane.inlet.is_full() {
                lane.paused = true;
                self.paused.push(partition);
                unassign(&self.fetch, &self.topic, partition);
            }
        }
        let Self {
            topic,
            fetch,
            lanes,
            paused,
            ..
        } = self;
        paused.retain(|partition| {
            let Some(lane) = lane(lanes, *partition) else {
                return false;
            };
            if !lane.inlet.has_room() {
                return true;
            }
            match assign(fetch, topic, *partition, lane.next) {
                Ok(()) => {
                    lane.paused = false;
                    false
                }
                Err(error) => {
                    tracing::warn!(partition, error = %error, "cannot resume yet");
                    true
                }
            }
        });
    }

    /// What an error of a partition means.
    fn failed(&mut self, partition: i32, code: RDKafkaErrorCode) -> Result<(), Error> {
        let topic = &self.topic;
        match code {
            RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => {
                // An error of a partition that was stopped meanwhile is nobody's.
                let Some(lane) = lane(&mut self.lanes, partition) else {
                    return Ok(());
                };
                Err(Error::config(
                    format!("data loss: {topic} partition {partition}"),
                    format!("position {} lies outside the log", lane.next),
                )
                .hint(
                    "retention passed the position, or the topic was truncated or created again: nothing was skipped; \
                     set the position on purpose or give the pipeline a new name",
                ))
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => Err(Error::config(
                format!("fetch {topic} partition {partition}"),
                code,
            )
            .hint("grant Read and Describe on the topic to the host's principal")),
            _ => {
                let error = Error::outside(format!("fetch {topic} partition {partition}"), code);
                self.report((partition >= 0).then_some(partition), error);
                Ok(())
            }
        }
    }
}

/// Fetches a partition from a position.
///
/// Also how a paused partition goes on: librdkafka's own resume trusts the position it noted for the
/// application, and its batch call notes one past an *error* too, as if the record there had been read.
fn assign(
    fetch: &FetchQueue,
    topic: &str,
    partition: i32,
    position: i64,
) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(position))?;
    fetch.consumer().incremental_assign(&list)
}

/// Stops fetching a partition, for good or until it is assigned again; what was prefetched is dropped.
fn unassign(fetch: &FetchQueue, topic: &str, partition: i32) {
    if let Err(error) = fetch
        .consumer()
        .incremental_unassign(&one(topic, partition))
    {
        tracing::warn!(partition, error = %error, "cannot stop fetching");
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
        let to = self.batch.to();
        let full = std::mem::replace(&mut self.batch, self.inlet.spare(partition, to));
        if self.inlet.send(full).is_err() {
            tracing::debug!(partition, "records for a lane that has ended");
        }
    }
}

fn lane(lanes: &mut [Option<FetchLane>], partition: i32) -> Option<&mut FetchLane> {
    lanes.get_mut(usize::try_from(partition).ok()?)?.as_mut()
}

fn one(topic: &str, partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, partition);
    list
}
