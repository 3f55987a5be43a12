//! The control log as a compacted topic of one partition: made when missing, checked, appended to.
//!
//! It owns the topic's properties and the producer; reading is in [`super::control_reader`]. It never knows what the
//! records say. A host that has seen the topic before never takes an empty one in its place: the caller says which
//! one it has seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::catalog::ask;
use super::control_reader::Reader;
use super::feed::create_topic;
use super::identity::is_unknown;
use super::logs::{Logs, Overheard};
use super::native::Described;
use super::{KafkaSettings, client_error};
use crate::control::{ControlLog, Follower, KnownLog, Sink, Write};
use crate::error::Error;
use crate::task::{self, Thread};

/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a topic may be unknown before that is believed: a broker that has just started may not know it yet, nor
/// one that has just made it.
const DOUBT: Duration = Duration::from_secs(3);
/// Between two questions while in doubt.
const AGAIN: Duration = Duration::from_millis(50);
/// How long a record may wait for its acknowledgement: below what a writer waits in all.
const DELIVERY: Duration = Duration::from_secs(8);
/// Replicas of a new topic where the config names no number.
const REPLICAS: usize = 3;
/// `max.message.bytes` of a new topic, Kafka's default; chunks and entries stay well below.
const MAX_MESSAGE: &str = "1048588";
/// `segment.bytes` of a new topic: what was overwritten goes when its segment is full.
const SEGMENT: &str = "67108864";

/// Which topic, and what is known of it.
#[derive(Clone, Debug)]
pub struct ControlLogSettings {
    /// The cluster.
    pub kafka: KafkaSettings,
    /// The topic.
    pub topic: String,
    /// Replicas of a new topic; as many as there are brokers, at most 3, by default.
    pub replication: Option<i32>,
    /// The log this host has seen under [`ControlLogSettings::name`] (`BlobStore::known_log`). With one, a missing
    /// topic is not created.
    pub known: Option<KnownLog>,
}

impl ControlLogSettings {
    /// What a log of that topic is called.
    #[must_use]
    pub fn name(topic: &str) -> String {
        format!("topic {topic:?}")
    }
}

/// See the module.
pub struct KafkaControlLog {
    settings: ControlLogSettings,
    identity: Option<String>,
    /// Replaced when it is beyond repair. A lock for the moment of cloning the handle.
    producer: Mutex<FutureProducer<Overheard>>,
    _closing: Thread<()>,
}

impl std::fmt::Debug for KafkaControlLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "KafkaControlLog({}, {:?})",
            self.settings.topic, self.identity
        )
    }
}

impl KafkaControlLog {
    /// Finds the topic, or makes it where this host has seen none. `heard` tells meanwhile why no broker is reached.
    ///
    /// # Errors
    /// `Config`: the topic is not the one this host has seen, has more than one partition, is not only compacted, or
    /// may not be used. `Outside`: no broker answers.
    pub async fn open(settings: ControlLogSettings, heard: Overheard) -> Result<Self, Error> {
        let what = format!(
            "open the control log, topic {:?} at {}",
            settings.topic, settings.kafka.brokers
        );
        let admin: AdminClient<Logs> = settings
            .kafka
            .client_config()
            .create_with_context(Logs)
            .map_err(|error| client_error(&what, &error))?;
        let admin = Arc::new(admin);
        // Made first: it connects and gets its id meanwhile.
        let producer = producer(&settings.kafka, heard)?;
        let described = match describe(&admin, &settings, settings.known.is_some()).await? {
            Ok(described) => described,
            Err(_) => make(&what, &admin, &settings).await?,
        };
        let name = ControlLogSettings::name(&settings.topic);
        if let (Some(known), Some(found)) = (&settings.known, &described.id)
            && known.differs(found)
        {
            return Err(known.another(&name, Some(found)));
        }
        if described.partitions != 1 {
            let detail = format!(
                "it has {} partitions: what order its records have is not defined",
                described.partitions
            );
            return Err(Error::config(what, detail).hint(
                "name another topic in [control], or none: the host makes one of 1 partition",
            ));
        }
        check_policy(&what, &admin, &settings.topic).await?;
        // Its threads take a while to end: nobody has to wait for that now.
        let closing = task::thread("control-admin", move || drop(admin))?;
        Ok(Self {
            settings,
            identity: described.id,
            producer: Mutex::new(producer),
            _closing: closing,
        })
    }

    async fn write(&self, records: Vec<Write>) -> Result<(), Error> {
        let producer = self.producer.lock().clone();
        let mut sent = Vec::with_capacity(records.len());
        let mut outcome = Ok(());
        for (key, value) in &records {
            let mut record = FutureRecord::<[u8], [u8]>::to(&self.settings.topic)
                .partition(0)
                .key(key);
            record.payload = value.as_deref();
            match producer.send_result(record) {
                Ok(delivery) => sent.push(delivery),
                Err((error, _)) => {
                    outcome = Err(self.write_error(&error));
                    break;
                }
            }
        }
        for delivery in sent {
            let delivered = match delivery.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err((error, _))) => Err(self.write_error(&error)),
                Err(_) => Err(self.write_error(&KafkaError::Canceled)),
            };
            outcome = outcome.and(delivered);
        }
        if outcome.is_err() {
            self.replace_broken().await?;
        }
        outcome
    }

    /// An idempotent producer that lost its thread of sequence numbers stays broken.
    async fn replace_broken(&self) -> Result<(), Error> {
        let fresh = {
            let mut current = self.producer.lock();
            let Some((code, reason)) = current.client().fatal_error() else {
                return Ok(());
            };
            tracing::warn!(topic = self.settings.topic, %code, reason, "producer of the control log made anew");
            std::mem::replace(
                &mut *current,
                producer(&self.settings.kafka, Overheard::default())?,
            )
        };
        // Waits for its thread.
        task::blocking(move || drop(fresh)).await
    }

    fn write_error(&self, error: &KafkaError) -> Error {
        let topic = &self.settings.topic;
        let what = format!("write to the control log, topic {topic:?}");
        match error.rdkafka_error_code() {
            Some(code) if is_unknown(code) => {
                Error::config(what, error).hint("the topic was deleted: restore it, then start the host again")
            }
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                Error::config(what, error).hint(format!("set max.message.bytes of the topic to {MAX_MESSAGE} or more"))
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
                Error::config(what, error)
                    .hint("grant Read, Write and Describe on the topic, and IdempotentWrite, to the host's principal")
            }
            Some(RDKafkaErrorCode::MessageTimedOut) => {
                Error::outside(what, format!("not known whether it was stored: {error}"))
                    .hint("is the broker up? look at `wasmill history` before trying again")
            }
            _ => client_error(&what, error),
        }
    }
}

impl ControlLog for KafkaControlLog {
    fn name(&self) -> String {
        ControlLogSettings::name(&self.settings.topic)
    }

    fn identity(&self) -> Option<String> {
        self.identity.clone()
    }

    fn append(&self, records: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.write(records))
    }

    fn follow(&self, sink: Sink) -> Result<Follower, Error> {
        let reader = Reader::open(
            &self.settings.kafka,
            &self.settings.topic,
            self.identity.clone(),
        )?;
        Follower::start("control-log", move |stop| reader.run(sink, &stop))
    }
}

fn producer(
    settings: &KafkaSettings,
    heard: Overheard,
) -> Result<FutureProducer<Overheard>, Error> {
    settings
        .client_config()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("socket.nagle.disable", "true")
        .set("message.timeout.ms", DELIVERY.as_millis().to_string())
        .create_with_context(heard)
        .map_err(|error| client_error("make a producer for the control log", &error))
}

/// What the cluster says of the topic; the inner error is that it knows none. In doubt it asks again for a while.
async fn describe(
    admin: &Arc<AdminClient<Logs>>,
    settings: &ControlLogSettings,
    expected: bool,
) -> Result<Result<Described, RDKafkaErrorCode>, Error> {
    let what = format!(
        "look up topic {:?} at {}",
        settings.topic, settings.kafka.brokers
    );
    let begin = Instant::now();
    loop {
        let (client, topic) = (Arc::clone(admin), settings.topic.clone());
        let answer = task::blocking(move || ask(client.inner(), &topic, ANSWER)).await?;
        match answer {
            Some(Ok(described)) => return Ok(Ok(described)),
            Some(Err(code)) if is_unknown(code) => {
                if !expected || begin.elapsed() > DOUBT {
                    let name = ControlLogSettings::name(&settings.topic);
                    return match &settings.known {
                        Some(known) if expected => Err(known.another(&name, None)),
                        _ => Ok(Err(code)),
                    };
                }
                tokio::time::sleep(AGAIN).await;
            }
            Some(Err(code)) => {
                let error = client_error(&what, &KafkaError::MetadataFetch(code));
                return Err(match error.hint_text() {
                    Some(_) => error,
                    None => error.hint("is the broker up, and is its address right?"),
                });
            }
            None => return Err(Error::config(what, "a topic's name holds no zero byte")),
        }
    }
}

/// Makes the topic, and waits until the cluster knows it. Another host may make it at the same time.
async fn make(
    what: &str,
    admin: &Arc<AdminClient<Logs>>,
    settings: &ControlLogSettings,
) -> Result<Described, Error> {
    let replicas = match settings.replication {
        Some(replicas) => replicas,
        None => {
            let client = Arc::clone(admin);
            let metadata = task::blocking(move || {
                client
                    .inner()
                    .fetch_metadata(None, ANSWER)
                    .map(|metadata| metadata.brokers().len())
            });
            let brokers = metadata
                .await?
                .map_err(|error| client_error(what, &error))?;
            i32::try_from(brokers.clamp(1, REPLICAS)).expect("at most 3")
        }
    };
    // One replica may be away without stopping writes; with one or two replicas that leaves one.
    let in_sync = (replicas - 1).max(1).to_string();
    let new = NewTopic::new(&settings.topic, 1, TopicReplication::Fixed(replicas))
        .set("cleanup.policy", "compact")
        .set("min.insync.replicas", &in_sync)
        .set("max.message.bytes", MAX_MESSAGE)
        .set("segment.bytes", SEGMENT);
    create_topic(&settings.kafka, &new, true).await.map_err(|error| match error.hint_text() {
        Some(_) => error,
        None => error.hint(
            "create it by hand: 1 partition, cleanup.policy=compact; or set replication in [control] to what the \
             cluster has",
        ),
    })?;
    tracing::info!(topic = settings.topic, replicas, "control topic created");
    let unknown = |code| Error::outside(what, format!("created, and still unknown: {code}"));
    let begin = Instant::now();
    loop {
        match describe(admin, settings, false).await? {
            Ok(described) if described.partitions > 0 => return Ok(described),
            Err(code) if begin.elapsed() > DOUBT => return Err(unknown(code)),
            _ => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Refuses a topic whose records go with age. A broker that does not tell is believed.
async fn check_policy(what: &str, admin: &AdminClient<Logs>, topic: &str) -> Result<(), Error> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let answer = admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options)
        .await;
    let found = answer.map(|all| all.into_iter().next());
    let config = match found {
        Ok(Some(Ok(config))) => config,
        other => {
            tracing::debug!(
                topic,
                ?other,
                "cleanup policy of the control topic not told"
            );
            return Ok(());
        }
    };
    let policy = config
        .get("cleanup.policy")
        .and_then(|entry| entry.value.clone());
    match policy {
        Some(policy) if policy != "compact" => {
            let detail = format!(
                "its cleanup.policy is {policy:?}: what is deployed would be deleted with age"
            );
            Err(Error::config(what, detail)
                .hint(format!("set cleanup.policy=compact on topic {topic:?}")))
        }
        _ => Ok(()),
    }
}
