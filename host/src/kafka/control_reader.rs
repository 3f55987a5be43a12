//! The reading side of the control log: one consumer that is assigned the whole topic, on a thread of its own.
//!
//! It joins no group, commits nothing, and reconnects for ever. It ends when the topic is gone, is another one, or lost
//! records: what it would read then is not what was written.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::identity::{Identity, is_unknown};
use super::logs::Logs;
use super::{KafkaSettings, client_error};
use crate::control::{Event, Sink};
use crate::error::Error;

/// How long a round waits for a record: also how late the flag to stop is seen.
const WAIT: Duration = Duration::from_millis(50);
/// How long the cluster may take to say where the log begins and ends, which holds the loop up meanwhile.
const ENDS: Duration = Duration::from_secs(1);
/// Between two lines that the broker is away.
const REPORT: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Reader {
    topic: String,
    consumer: BaseConsumer<Logs>,
    identity: Identity,
    /// Where the log ended when it was first asked; nothing is assigned before.
    end: Option<i64>,
    next: i64,
    caught_up: bool,
    reported: Option<Instant>,
}

impl Reader {
    /// A consumer of the topic, not reading yet. `identity`: what tells it from another of the same name.
    pub(super) fn open(
        settings: &KafkaSettings,
        topic: &str,
        identity: Option<String>,
    ) -> Result<Self, Error> {
        let what = format!("follow the control log, topic {topic:?}");
        let consumer: BaseConsumer<Logs> = settings
            .client_config()
            // Wanted by librdkafka for manual assignment; nothing joins it, nothing is committed.
            .set("group.id", "wasmill-control")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("socket.nagle.disable", "true")
            // A record that comes ends the wait; this is how late the end of an empty log is told.
            .set("fetch.wait.max.ms", "250")
            .set("fetch.error.backoff.ms", "50")
            .set("queued.max.messages.kbytes", "16384")
            .create_with_context(Logs)
            .map_err(|error| client_error(&what, &error))?;
        Ok(Self {
            topic: topic.to_owned(),
            consumer,
            identity: Identity::new(topic, identity),
            end: None,
            next: 0,
            caught_up: false,
            reported: None,
        })
    }

    /// Reads until told to stop, or until there is nothing to read any more.
    pub(super) fn run(mut self, mut sink: Sink, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            match self.round(&mut sink) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return,
                Err(error) => {
                    let _ended = sink(Event::Lost(error));
                    return;
                }
            }
        }
    }

    fn round(&mut self, sink: &mut Sink) -> Result<ControlFlow<()>, Error> {
        let Some(end) = self.end else {
            self.begin()?;
            return Ok(ControlFlow::Continue(()));
        };
        let mut at_end = self.next >= end;
        let polled = if at_end && !self.caught_up {
            None
        } else {
            self.consumer.poll(WAIT)
        };
        match polled {
            None => {}
            Some(Ok(message)) => {
                let (offset, key) = (message.offset(), message.key().unwrap_or_default());
                self.next = offset + 1;
                let record = Event::Record {
                    offset,
                    key,
                    value: message.payload(),
                };
                if sink(record).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                at_end = self.next >= end;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => at_end = true,
            Some(Err(error)) => self.failed(&error)?,
        }
        if at_end && !self.caught_up {
            self.caught_up = true;
            if sink(Event::CaughtUp).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.watch()?;
        Ok(ControlFlow::Continue(()))
    }

    /// Finds both ends of the log and starts at the first record. An explicit offset: told to start at the beginning,
    /// librdkafka asks for it before it knows whom, and then waits half a second. The far end: as the partition
    /// reports it, it comes only after a whole wait for more records.
    fn begin(&mut self) -> Result<(), Error> {
        let found = self
            .consumer
            .fetch_watermarks(&self.topic, 0, ENDS)
            .and_then(|(low, high)| {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(&self.topic, 0, Offset::Offset(low))?;
                self.consumer.assign(&list)?;
                Ok((low, high))
            });
        match found {
            Ok((low, high)) => (self.next, self.end) = (low, Some(high)),
            Err(error) => {
                self.failed(&error)?;
                // Serves the client's log lines, and paces the next attempt.
                if let Some(Err(error)) = self.consumer.poll(WAIT) {
                    self.failed(&error)?;
                }
            }
        }
        self.watch()
    }

    /// Whether the topic is still the one it was.
    fn watch(&mut self) -> Result<(), Error> {
        let known = self.identity.tick(self.consumer.client(), Some(0));
        known.map_err(|error| self.lost(error.detail()))
    }

    /// What an error of the client means.
    fn failed(&mut self, error: &KafkaError) -> Result<(), Error> {
        match error.rdkafka_error_code() {
            Some(code) if is_unknown(code) => self.identity.doubt(code),
            Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => {
                return Err(self.lost(&format!(
                    "offset {} lies outside of it: records of it are gone",
                    self.next
                )));
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return Err(Error::config(self.what(), error)
                    .hint("grant Read and Describe on the topic to the host's principal, then start the host again"));
            }
            _ if self.reported.is_none_or(|at| at.elapsed() > REPORT) => {
                self.reported = Some(Instant::now());
                tracing::warn!(topic = self.topic, %error, "control log not reached; what is deployed stays as it is");
            }
            _ => tracing::debug!(topic = self.topic, %error, "control log not reached"),
        }
        Ok(())
    }

    fn lost(&self, detail: &str) -> Error {
        Error::config(self.what(), detail).hint(format!(
            "what is deployed runs on, nothing can be changed: restore topic {:?} and start the host again; the start \
             says how to accept an empty one",
            self.topic
        ))
    }

    fn what(&self) -> String {
        format!("follow the control log, topic {:?}", self.topic)
    }
}
