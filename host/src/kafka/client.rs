//! [`Client`]: one connection to the brokers, through which messages go. It owns the properties that keep their order,
//! and says why one failed. When it is ended and another made is its owner's matter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer};

use super::flight::{Deliveries, Flight};
use super::{KafkaSettings, client_error};
use crate::error::Result;
use crate::sink::MAX_MESSAGE;

/// Messages a client keeps at most, of all routes together.
const QUEUED: &str = "100000";
/// KiB a client keeps at most.
const QUEUED_KBYTES: &str = "65536";
/// Pause of a sender that finds the client full; it takes tens of milliseconds to send so much.
pub(super) const FULL: Duration = Duration::from_millis(2);
/// How long a topic may be unknown before a message for it fails: a broker that has just started may not know it.
const DOUBT: Duration = Duration::from_secs(2);
/// How long a thrown-away client may be held by those who still send through it; they are being woken.
const RELEASE: Duration = Duration::from_secs(30);

/// One connection of a producer.
pub(super) struct Client {
    pub(super) producer: ThreadedProducer<Deliveries>,
}

impl Client {
    /// One whose messages stand alone.
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self> {
        let mut config = settings.client_config();
        // A flight has its own deadline, after which the whole client goes: a message that expired alone would let
        // later ones of its key overtake it.
        config.set("message.timeout.ms", "0");
        Self::of(config)
    }

    /// One whose messages are in transactions. `limit`: how long one may be open before the brokers abort it. `pause`:
    /// how long it waits, a fifth more or less, before it sends a request again.
    pub(super) fn transactional(
        settings: &KafkaSettings,
        id: &str,
        limit: Duration,
        pause: Duration,
    ) -> Result<Self> {
        let mut config = settings.client_config();
        let pause = pause.as_millis().to_string();
        // A message that expires fails its transaction, and with it all that would overtake it.
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", limit.as_millis().to_string())
            .set("retry.backoff.ms", &pause)
            .set("retry.backoff.max.ms", &pause);
        Self::of(config)
    }

    fn of(mut config: ClientConfig) -> Result<Self> {
        let producer = config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .set(
                "topic.metadata.propagation.max.ms",
                DOUBT.as_millis().to_string(),
            )
            .set("queue.buffering.max.messages", QUEUED)
            .set("queue.buffering.max.kbytes", QUEUED_KBYTES)
            .set("message.max.bytes", (MAX_MESSAGE + 4096).to_string())
            // Where the producers of the Java client put a key.
            .set("partitioner", "murmur2_random")
            .create_with_context(Deliveries)
            .map_err(|error| client_error("make a producer", &error))?;
        Ok(Self { producer })
    }

    /// Why a call or a message failed. Once the client or its transaction is at its end, all that is under way fails as
    /// purged, and every call as out of place: the reason is asked for.
    pub(super) fn cause(&self, error: KafkaError) -> KafkaError {
        use RDKafkaErrorCode as Code;
        if let Some((code, _)) = self.producer.client().fatal_error() {
            return KafkaError::MessageProduction(code);
        }
        let code = error.rdkafka_error_code();
        if !matches!(
            code,
            Some(Code::PurgeQueue | Code::PurgeInflight | Code::State)
        ) {
            return error;
        }
        // One that cannot begin a transaction, since it is in one, says what has befallen that.
        match self.producer.begin_transaction() {
            Err(why)
                if !matches!(
                    why.rdkafka_error_code(),
                    None | Some(Code::State | Code::NotConfigured)
                ) =>
            {
                why
            }
            _ => error,
        }
    }

    /// A run of messages of a flight, all for one topic, comes next.
    pub(super) fn to<'a>(&'a self, flight: &'a Arc<Flight>, topic: &'a str) -> Run<'a> {
        flight.heads_for(topic);
        Run {
            client: self,
            flight,
            topic,
        }
    }

    /// Drops what is queued and what is not acknowledged; whoever waits for it is told.
    pub(super) fn purge(&self) {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
    }

    /// Lets go of a client: its threads take a while to end, and others may still be about to learn of it.
    pub(super) fn release(mut self: Arc<Self>) {
        let begun = Instant::now();
        while begun.elapsed() < RELEASE {
            match Arc::try_unwrap(self) {
                Ok(last) => return drop(last),
                Err(shared) => self = shared,
            }
            std::thread::sleep(FULL);
        }
    }
}

/// Messages of a flight for one topic, one after the other.
pub(super) struct Run<'a> {
    client: &'a Client,
    flight: &'a Arc<Flight>,
    topic: &'a str,
}

impl Run<'_> {
    /// Queues the next one; waits while the client is full.
    ///
    /// # Errors
    /// The client refuses the message.
    pub(super) async fn send(&self, message: Outgoing<'_>) -> std::result::Result<(), KafkaError> {
        self.flight.begin();
        let mut record = BaseRecord::<[u8], [u8], Arc<Flight>>::with_opaque_to(
            self.topic,
            Arc::clone(self.flight),
        )
        .headers(message.headers);
        record.partition = message.partition;
        record.key = message.key;
        record.payload = message.value;
        record.timestamp = message.timestamp;
        loop {
            match self.client.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(FULL).await;
                }
                Err((error, _)) => {
                    self.flight.end();
                    return Err(error);
                }
            }
        }
    }
}

/// A message on its way.
pub(super) struct Outgoing<'a> {
    /// `None`: by the key.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// Milliseconds since 1970-01-01 UTC; `None`: the client's clock.
    pub(super) timestamp: Option<i64>,
    pub(super) headers: OwnedHeaders,
}
