//! [`Ranges`]: the records of `[from, to)` of a partition, batch by batch, for checks. It joins no group and commits
//! nothing; only committed records come, as to a pipeline.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::logs::Logs;
use super::tail::push;
use super::{KafkaSettings, client_error};
use crate::error::{Blame, Error};
use crate::record::Batch;

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for one record before the clock is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Records of a batch at most.
const RECORDS: usize = 1000;
/// Bytes of a batch at most, but for its last record.
const BYTES: usize = 1 << 20;

/// Reads ranges of one topic, one after the other.
pub struct Ranges {
    consumer: BaseConsumer<Logs>,
    topic: String,
}

impl std::fmt::Debug for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ranges({})", self.topic)
    }
}

impl Ranges {
    /// Makes a client; nothing is connected before it reads.
    ///
    /// # Errors
    /// `Config`: the client refuses its properties.
    pub fn new(settings: &KafkaSettings, topic: &str) -> Result<Self, Error> {
        let consumer = settings
            .client_config()
            // Wanted for manual assignment; nothing joins it.
            .set("group.id", "wasmill-verify")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(Logs)
            .map_err(|error| client_error("make a client that reads records", &error))?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
        })
    }

    /// Hands the records of a partition's range over in order, until `each` breaks. Blocks.
    ///
    /// # Errors
    /// `Outside` when the broker is not reached, nothing comes for 30 s, or the records are gone.
    pub fn read(
        &self,
        partition: i32,
        offsets: &Range<i64>,
        mut each: impl FnMut(Batch) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if offsets.is_empty() {
            return Ok(());
        }
        let what = format!(
            "read records {} to {} of {}/{partition}",
            offsets.start, offsets.end, self.topic
        );
        let failed = |error: &KafkaError| {
            if is_gone(error) {
                let error =
                    Error::outside(&*what, "the first of them are gone: retention passed them");
                return error.hint("run it again: it begins at the log start");
            }
            client_error(&what, error)
        };
        let mut wanted = TopicPartitionList::new();
        wanted
            .add_partition_offset(&self.topic, partition, Offset::Offset(offsets.start))
            .and_then(|()| self.consumer.assign(&wanted))
            .map_err(|error| failed(&error))?;
        let mut batch = Batch::new(partition, offsets.start);
        let mut heard = Instant::now();
        let mut ended = false;
        while !ended {
            let message = match self.consumer.poll(POLL) {
                Some(Ok(message)) => message,
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => {
                    let told = failed(&error);
                    let waits = told.blame() == Blame::Outside && !is_gone(&error);
                    if !waits || heard.elapsed() > PATIENCE {
                        return Err(told);
                    }
                    continue;
                }
                None if heard.elapsed() > PATIENCE => {
                    let error = Error::outside(what, format!("nothing came for {PATIENCE:?}"));
                    return Err(error.hint("is the broker up?"));
                }
                None => continue,
            };
            heard = Instant::now();
            ended = message.offset() >= offsets.end;
            if !ended {
                push(&mut batch, &message);
                ended = message.offset() + 1 >= offsets.end;
            }
            if batch.len() >= RECORDS || batch.bytes() >= BYTES {
                let next = Batch::new(partition, batch.to());
                if each(std::mem::replace(&mut batch, next)).is_break() {
                    return Ok(());
                }
            }
        }
        if !batch.is_empty() {
            let _done = each(batch);
        }
        Ok(())
    }
}

/// Whether a failure says that the records asked for are not there any more.
fn is_gone(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
