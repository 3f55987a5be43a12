//! [`KafkaSink`]: the rows of one route as messages of a topic, written ahead of the anchor's commit.
//!
//! It owns the headers that say where a message comes from, and what a refusal means. A repeat of a flight sends the
//! same messages again, with the same headers: readers drop repeats by [`COORDINATES`]. The host has checked sizes
//! and keys before, so every refusal by a broker is an operator's matter.

use std::cell::RefCell;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};

use super::KafkaSettings;
use super::producer::{COORDINATES, Client, Flight, Outgoing, Producer, Producers};
use crate::error::{Error, Result};
use crate::manifest::KafkaTopic;
use crate::record::Column;
use crate::sink::{AheadRows, AheadSink, Message, MessageFormat};

/// Header of each message: `pipeline/route/plugin@version`, who wrote it.
pub const WRITER: &str = "wasmill-writer";

/// Which route writes where, and in whose name.
#[derive(Clone, Debug)]
pub struct KafkaSinkSettings {
    /// Name of the cluster among the host's.
    pub cluster: String,
    /// How to reach it.
    pub kafka: KafkaSettings,
    /// The topic, after binding.
    pub topic: KafkaTopic,
    /// The route's columns.
    pub columns: Vec<Column>,
    /// Topic of the records.
    pub input: String,
    /// The pipeline.
    pub pipeline: String,
    /// The route.
    pub route: String,
    /// `name@version`.
    pub plugin: String,
    /// How long a flight may take to be acknowledged.
    pub patience: Duration,
}

/// Writes the rows of one route. One a lane.
pub struct KafkaSink {
    producer: Arc<Producer>,
    what: String,
    topic: String,
    input: String,
    writer: String,
    format: MessageFormat,
    patience: Duration,
    /// Taken for the time of a flight: a lane sends one after the other.
    scratch: RefCell<Scratch>,
}

/// Buffers kept from flight to flight.
#[derive(Debug, Default)]
struct Scratch {
    message: Message,
    coordinates: Vec<u8>,
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink")
            .field("what", &self.what)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// A flight that was dropped before its end: a successor elsewhere may send the same messages and later ones, and what
/// is queued here must not follow them.
struct Unfinished<'a> {
    producer: &'a Producer,
    client: Option<Arc<Client>>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.producer.abandon(client);
        }
    }
}

impl KafkaSink {
    /// A sink of a route; it connects when there is something to send.
    #[must_use]
    pub fn new(producers: &Producers, settings: KafkaSinkSettings) -> Self {
        Self {
            producer: producers.of(&settings.cluster, &settings.kafka),
            what: format!(
                "write route {:?} to topic {:?}",
                settings.route, settings.topic.topic
            ),
            format: MessageFormat::of(&settings.columns, &settings.topic),
            topic: settings.topic.topic,
            input: settings.input,
            writer: format!(
                "{}/{}/{}",
                settings.pipeline, settings.route, settings.plugin
            ),
            patience: settings.patience,
            scratch: RefCell::default(),
        }
    }

    async fn write_all(&self, rows: AheadRows<'_>) -> Result<()> {
        let client = self.producer.client()?;
        let mut unfinished = Unfinished {
            producer: &self.producer,
            client: Some(Arc::clone(&client)),
        };
        let flight = Flight::new();
        let sent = async {
            self.send_all(&client, &flight, rows).await?;
            flight
                .landed()
                .await
                .map_err(|(error, coordinates)| self.refused(&error, &coordinates))
        };
        let outcome = match tokio::time::timeout(self.patience, sent).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::outside(
                &self.what,
                format!("not acknowledged within {:?}", self.patience),
            )
            .hint("are the brokers up, and enough replicas in sync (min.insync.replicas)?")),
        };
        unfinished.client = None;
        if outcome.is_err() {
            self.producer.discard(client).await?;
        }
        outcome
    }

    async fn send_all(
        &self,
        client: &Client,
        flight: &Arc<Flight>,
        rows: AheadRows<'_>,
    ) -> Result<()> {
        // Left empty if this future is dropped half-way.
        let mut scratch = self.scratch.take();
        let Scratch {
            message,
            coordinates,
        } = &mut scratch;
        let (mut source, mut index) = (u32::MAX, 0);
        for row in rows.rows.iter() {
            index = if row.source == source { index + 1 } else { 0 };
            source = row.source;
            let record = rows.batch.record(row.source as usize);
            self.format.encode(row.op, row.cells, message);
            coordinates.clear();
            write!(
                coordinates,
                "{}/{}/{}/{index}",
                self.input,
                rows.batch.partition(),
                record.offset
            )
            .expect("a Vec takes every write");
            let outgoing = Outgoing {
                topic: &self.topic,
                key: message.key(),
                value: message.value(),
                timestamp: (record.timestamp >= 0).then_some(record.timestamp),
                headers: self.headers(message, coordinates),
            };
            if let Err(error) = client.send(flight, outgoing).await {
                return Err(self.refused(&error, &String::from_utf8_lossy(coordinates)));
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

    /// What a failed message means.
    fn refused(&self, error: &KafkaError, coordinates: &str) -> Error {
        use RDKafkaErrorCode as Code;
        let detail = format!("record {coordinates}: {error}");
        let config = |hint: &str| Error::config(&self.what, &detail).hint(hint);
        match error.rdkafka_error_code() {
            Some(
                Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::InvalidTopic,
            ) => config("the topic was deleted: create it again, then restart the pipeline"),
            Some(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => config(
                "grant Write and Describe on the topic, and IdempotentWrite on the cluster, to the host's principal",
            ),
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
            _ => Error::outside(&self.what, detail),
        }
    }
}

impl AheadSink for KafkaSink {
    fn write<'a>(&'a self, rows: AheadRows<'a>) -> LocalBoxFuture<'a, Result<()>> {
        self.write_all(rows).boxed_local()
    }
}
