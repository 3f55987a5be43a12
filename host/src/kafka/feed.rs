//! Creating topics and feeding records into them, acknowledged by all replicas: for the demo and tools.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::logs::Logs;
use super::{KafkaSettings, client_error};
use crate::error::Error;

/// How long creating and flushing may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An idempotent producer for one topic.
pub struct Feed {
    producer: BaseProducer,
    topic: String,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({})", self.topic)
    }
}

impl Feed {
    /// Creates the topic with `partitions` partitions of one replica, and a producer for it.
    ///
    /// # Errors
    /// The broker is not reached or refuses; a topic that exists already is an error too.
    pub async fn create(
        settings: &KafkaSettings,
        topic: &str,
        partitions: i32,
    ) -> Result<Self, Error> {
        create_topic(settings, &plain(topic, partitions), false).await?;
        Self::producer(settings, topic)
    }

    /// A producer for a topic, which is created when it does not exist.
    ///
    /// # Errors
    /// The broker is not reached or refuses.
    pub async fn open(
        settings: &KafkaSettings,
        topic: &str,
        partitions: i32,
    ) -> Result<Self, Error> {
        create_topic(settings, &plain(topic, partitions), true).await?;
        Self::producer(settings, topic)
    }

    fn producer(settings: &KafkaSettings, topic: &str) -> Result<Self, Error> {
        let producer = settings
            .client_config()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            .create()
            .map_err(|error| client_error("make a producer", &error))?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
        })
    }

    /// Queues a record; waits while the queue is full.
    ///
    /// # Errors
    /// The client refuses the record (too large).
    pub fn send(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), Error> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic);
        record.key = key;
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(5));
                    record = back;
                }
                Err((error, _)) => {
                    return Err(client_error(
                        &format!("produce to topic {:?}", self.topic),
                        &error,
                    ));
                }
            }
        }
    }

    /// Waits until every record is acknowledged.
    ///
    /// # Errors
    /// Not all were acknowledged within 30 s.
    pub fn finish(&self) -> Result<(), Error> {
        self.producer.flush(PATIENCE).map_err(|error| {
            client_error(&format!("flush records of topic {:?}", self.topic), &error)
        })
    }
}

/// A topic of one replica without properties of its own.
fn plain(topic: &str, partitions: i32) -> NewTopic<'_> {
    NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
}

/// Creates a topic; with `may_exist` one that exists is left as it is.
pub(super) async fn create_topic(
    settings: &KafkaSettings,
    new: &NewTopic<'_>,
    may_exist: bool,
) -> Result<(), Error> {
    let what = format!("create topic {:?} at {}", new.name, settings.brokers);
    let failed = |error: KafkaError| client_error(&what, &error);
    let admin: AdminClient<Logs> = settings
        .client_config()
        .create_with_context(Logs)
        .map_err(failed)?;
    let options = AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE));
    let created = admin.create_topics([new], &options).await.map_err(failed)?;
    for outcome in created {
        match outcome {
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) if may_exist => {}
            Err((_, code @ RDKafkaErrorCode::InvalidTopic)) => {
                return Err(failed(KafkaError::AdminOp(code)).hint(
                    "a topic's name is made of letters, digits, '.', '_' and '-', at most 249",
                ));
            }
            Err((_, code)) => return Err(failed(KafkaError::AdminOp(code))),
            Ok(_) => {}
        }
    }
    Ok(())
}
