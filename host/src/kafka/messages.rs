//! [`Messages`]: the rows of one route on their way to its topic. It owns the headers that say where a message comes
//! from, and what a refusal means; whether a transaction is around them is the caller's matter.

use std::cell::RefCell;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};

use super::client::{Client, Outgoing};
use super::flight::{COORDINATES, Flight};
use crate::error::Error;
use crate::manifest::KafkaTopic;
use crate::record::{Batch, Column, RowBatch};
use crate::sink::{Message, MessageFormat};

/// Header of each message: `pipeline/route/plugin@version`, who wrote it.
pub const WRITER: &str = "wasmill-writer";

/// In whose name messages are written.
#[derive(Clone, Debug)]
pub struct Author {
    /// The pipeline.
    pub pipeline: String,
    /// Topic of its records.
    pub input: String,
    /// `name@version`.
    pub plugin: String,
}

/// Which route, and how its rows become messages.
#[derive(Clone, Debug)]
pub struct KafkaRoute {
    /// The route.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// The topic, after binding.
    pub topic: KafkaTopic,
}

/// Makes the messages of one route. One a lane and route, or one a flight at a time.
pub(super) struct Messages {
    pub(super) what: String,
    topic: String,
    input: String,
    writer: String,
    format: MessageFormat,
    /// Taken for the time of a flight.
    scratch: RefCell<Scratch>,
}

/// Buffers kept from flight to flight.
#[derive(Debug, Default)]
struct Scratch {
    message: Message,
    coordinates: Vec<u8>,
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("what", &self.what)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Messages {
    pub(super) fn new(route: &KafkaRoute, author: &Author) -> Self {
        let Author {
            pipeline,
            input,
            plugin,
        } = author;
        Self {
            what: format!(
                "write route {:?} to topic {:?}",
                route.name, route.topic.topic
            ),
            format: MessageFormat::of(&route.columns, &route.topic),
            topic: route.topic.topic.clone(),
            input: input.clone(),
            writer: format!("{pipeline}/{}/{plugin}", route.name),
            scratch: RefCell::default(),
        }
    }

    /// Queues the messages of rows, whose records are those of `batch`; stops early where one has failed already.
    ///
    /// # Errors
    /// The client refuses one, and of which record it was.
    pub(super) async fn send(
        &self,
        client: &Client,
        flight: &Arc<Flight>,
        rows: &RowBatch,
        batch: &Batch,
    ) -> Result<(), (KafkaError, String)> {
        if rows.is_empty() {
            return Ok(());
        }
        // Left empty if this future is dropped half-way.
        let mut scratch = self.scratch.take();
        let Scratch {
            message,
            coordinates,
        } = &mut scratch;
        let run = client.to(flight, &self.topic);
        let (mut source, mut index) = (u32::MAX, 0);
        for row in rows.iter() {
            index = if row.source == source { index + 1 } else { 0 };
            source = row.source;
            let record = batch.record(row.source as usize);
            self.format.encode(row.op, row.cells, message);
            coordinates.clear();
            write!(
                coordinates,
                "{}/{}/{}/{index}",
                self.input,
                batch.partition(),
                record.offset
            )
            .expect("a Vec takes every write");
            let outgoing = Outgoing {
                partition: None,
                key: message.key(),
                value: message.value(),
                timestamp: (record.timestamp >= 0).then_some(record.timestamp),
                headers: self.headers(message, coordinates),
            };
            if let Err(error) = run.send(outgoing).await {
                return Err((error, String::from_utf8_lossy(coordinates).into_owned()));
            }
            if flight.has_failed() {
                break;
            }
        }
        self.scratch.replace(scratch);
        Ok(())
    }

    fn headers(&self, message: &Message, coordinates: &[u8]) -> OwnedHeaders {
        let own = message.headers();
        let headers = OwnedHeaders::new_with_capacity(own.len() + 2)
            .insert(Header {
                key: COORDINATES,
                value: Some(coordinates),
            })
            .insert(Header {
                key: WRITER,
                value: Some(self.writer.as_bytes()),
            });
        own.fold(headers, |headers, (key, value)| {
            headers.insert(Header { key, value })
        })
    }
}

/// One thing or several, by name.
fn named(kind: &str, names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.len() {
        0 => format!("the {kind}"),
        1 => format!("{kind} {}", quoted[0]),
        _ => format!("{kind}s {}", quoted.join(", ")),
    }
}

/// What a failed message means; `what` says what it was for, `topics` where its flight went.
pub(super) fn refused(
    what: &str,
    topics: &[String],
    error: &KafkaError,
    coordinates: &str,
) -> Error {
    use RDKafkaErrorCode as Code;
    let detail = match coordinates {
        "" => error.to_string(),
        _ => format!("record {coordinates}: {error}"),
    };
    let config = |hint: &str| Error::config(what, &detail).hint(hint);
    match error.rdkafka_error_code() {
        Some(
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::InvalidTopic,
        ) => config("the topic was deleted: create it again, then restart the pipeline"),
        Some(Code::TopicAuthorizationFailed) => config(&format!(
            "grant Write and Describe on {} to the host's principal",
            named("topic", topics)
        )),
        // Brokers before 2.8 ask for more than Write on the topic.
        Some(Code::ClusterAuthorizationFailed) => {
            config("grant IdempotentWrite on the cluster to the host's principal")
        }
        Some(Code::MessageSizeTooLarge) => config(
            "set max.message.bytes of the topic to 1048588 or more: the host sets aside what is larger by itself",
        ),
        Some(Code::InvalidTimestamp) => config(
            "raise message.timestamp.before.max.ms and message.timestamp.after.max.ms of the topic: messages carry \
             the time of their record",
        ),
        Some(Code::InvalidRecord) => {
            config("is the topic compacted, and the route without a key? mend one of the two")
        }
        Some(Code::PolicyViolation) => {
            config("ask who runs the brokers for what their policy refuses")
        }
        _ => Error::outside(what, detail),
    }
}
