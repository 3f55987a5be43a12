//! Records of a topic as they are now, for tools that look at them again: the newest, or one by its coordinates. It
//! joins no group, commits nothing and follows nothing.

use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Timestamp};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::logs::Logs;
use super::{KafkaSettings, client_error};
use crate::error::Error;
use crate::record::{Batch, Mark, Record, cells};

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for one record before the clock is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The last `most` records of each partition at most, a batch a partition in order; empty ones are left out.
/// Blocks.
///
/// # Errors
/// `Config` when the topic does not exist or may not be read; `Outside` when the broker is not reached, or not
/// everything came within 30 s.
pub fn tail(settings: &KafkaSettings, topic: &str, most: i64) -> Result<Vec<Batch>, Error> {
    let what = format!("read the newest records of topic {topic:?}");
    let consumer = reader(settings, &what)?;
    let failed = |error| client_error(&what, &error);
    let metadata = consumer
        .fetch_metadata(Some(topic), PATIENCE)
        .map_err(failed)?;
    let partitions = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    let mut lanes = Vec::new();
    let mut wanted = TopicPartitionList::new();
    for partition in 0..partitions {
        let partition = i32::try_from(partition).expect("Kafka counts partitions in i32");
        let (low, end) = consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .map_err(failed)?;
        let from = low.max(end.saturating_sub(most.max(0)));
        if from < end {
            wanted
                .add_partition_offset(topic, partition, Offset::Offset(from))
                .map_err(failed)?;
        }
        lanes.push(Lane {
            batch: Batch::new(partition, from),
            end,
        });
    }
    consumer.assign(&wanted).map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    while lanes.iter().any(Lane::waits) {
        if Instant::now() > deadline {
            return Err(
                Error::outside(what, "not all of them came in time").hint("is the broker up?")
            );
        }
        let Some(message) = consumer.poll(POLL) else {
            // Offsets at the end may hold no record (compacted, or the marks of a transaction).
            for lane in &mut lanes {
                lane.skip_to(&consumer, topic);
            }
            continue;
        };
        let message = message.map_err(failed)?;
        let lane = usize::try_from(message.partition())
            .ok()
            .and_then(|at| lanes.get_mut(at));
        if let Some(lane) = lane.filter(|lane| message.offset() < lane.end) {
            push(&mut lane.batch, &message);
        }
    }
    Ok(lanes
        .into_iter()
        .map(|lane| lane.batch)
        .filter(|batch| !batch.is_empty())
        .collect())
}

/// The record at an offset, alone in its batch; `None` where there is none (any more). Blocks.
///
/// # Errors
/// As [`tail`].
pub fn record(
    settings: &KafkaSettings,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Option<Batch>, Error> {
    let what = format!("read record {partition}:{offset} of topic {topic:?}");
    let failed = |error| client_error(&what, &error);
    let consumer = reader(settings, &what)?;
    let (low, end) = consumer
        .fetch_watermarks(topic, partition, PATIENCE)
        .map_err(failed)?;
    if !(low..end).contains(&offset) {
        return Ok(None);
    }
    let mut wanted = TopicPartitionList::new();
    wanted
        .add_partition_offset(topic, partition, Offset::Offset(offset))
        .map_err(failed)?;
    consumer.assign(&wanted).map_err(failed)?;
    let mut lane = Lane {
        batch: Batch::new(partition, offset),
        end: offset + 1,
    };
    let deadline = Instant::now() + PATIENCE;
    while lane.waits() {
        if Instant::now() > deadline {
            return Err(Error::outside(what, "it did not come in time").hint("is the broker up?"));
        }
        match consumer.poll(POLL) {
            Some(message) => {
                let message = message.map_err(failed)?;
                if message.offset() > offset {
                    return Ok(None);
                }
                push(&mut lane.batch, &message);
            }
            None => {
                lane.skip_to(&consumer, topic);
                if lane.batch.is_empty() && !lane.waits() {
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(lane.batch))
}

/// A client that belongs to no group and starts where it is told.
fn reader(settings: &KafkaSettings, what: &str) -> Result<BaseConsumer<Logs>, Error> {
    settings
        .client_config()
        .set("group.id", "wasmill-tail")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create_with_context(Logs)
        .map_err(|error| client_error(what, &error))
}

/// A partition being read up to the end it had.
struct Lane {
    batch: Batch,
    end: i64,
}

impl Lane {
    fn waits(&self) -> bool {
        self.batch.to() < self.end
    }

    /// Takes the consumer's word that nothing is left below the end.
    fn skip_to(&mut self, consumer: &BaseConsumer<Logs>, topic: &str) {
        let reached = consumer.position().ok().and_then(|list| {
            list.find_partition(topic, self.batch.partition())
                .map(|found| found.offset())
        });
        if let Some(Offset::Offset(position)) = reached
            && position >= self.end
        {
            self.end = self.batch.to();
        }
    }
}

/// Appends a message to a batch, with its headers.
pub(super) fn push(batch: &mut Batch, message: &BorrowedMessage<'_>) {
    let mut headers = Vec::new();
    if let Some(found) = message.headers() {
        let count = i32::try_from(found.count()).expect("a record in memory has fewer headers");
        headers.extend_from_slice(&count.to_be_bytes());
        for header in found.iter() {
            cells::put(&mut headers, header.key.as_bytes());
            match header.value {
                Some(value) => cells::put(&mut headers, value),
                None => cells::put_null(&mut headers),
            }
        }
    } else {
        headers.extend_from_slice(&0_i32.to_be_bytes());
    }
    let (timestamp, marks) = match message.timestamp() {
        Timestamp::NotAvailable => (-1, 0),
        Timestamp::CreateTime(at) => (at, 0),
        Timestamp::LogAppendTime(at) => (at, Mark::LOG_APPEND_TIME),
    };
    batch.push(Record {
        key: message.key(),
        value: message.payload(),
        timestamp,
        offset: message.offset(),
        headers: &headers,
        marks,
    });
}
