//! The producers of a host: one a cluster, shared by every route that writes there.
//!
//! [`Producers`] makes them when they are first needed and keeps them; [`Producer`] is one of them. It owns the
//! rule of failure: after any failed flight the client is thrown away with what is queued in it, so that what is in
//! a partition of a topic is always a beginning of what was sent there, and the repeat keeps the order of each key.
//! It knows no rows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use tokio::sync::Notify;

use super::logs::{global_error, line};
use super::{KafkaSettings, client_error};
use crate::error::Result;
use crate::sink::MAX_MESSAGE;
use crate::task;

/// Header of each message: `topic/partition/offset/index` of the record and the row it comes from.
pub const COORDINATES: &str = "wasmill-coordinates";

/// Messages a client keeps at most, of all routes together.
const QUEUED: &str = "100000";
/// KiB a client keeps at most.
const QUEUED_KBYTES: &str = "65536";
/// Pause of a sender that finds the client full; it takes tens of milliseconds to send so much.
const FULL: Duration = Duration::from_millis(2);
/// How long a topic may be unknown before a message for it fails: a broker that has just started may not know it.
const DOUBT: Duration = Duration::from_secs(2);
/// How long a thrown-away client may be held by those who still send through it; they are being woken.
const RELEASE: Duration = Duration::from_secs(30);

/// The producers of a host, by cluster. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    // Taken for a lookup or an insert.
    all: Arc<Mutex<BTreeMap<String, Arc<Producer>>>>,
    maker: Maker,
}

/// Makes clients on a thread of its own. A client's threads inherit the priority of the one that makes it, and a lane in
/// quarantine runs on one that gives way to all others, whose lanes send through the same client.
#[derive(Clone, Debug)]
struct Maker {
    // Unbounded in type; whoever asks waits, so it holds one request a cluster.
    asked: mpsc::Sender<(KafkaSettings, mpsc::SyncSender<Result<Client>>)>,
}

impl Default for Maker {
    /// Has to be called on a thread of ordinary priority; the maker ends with the last producer.
    fn default() -> Self {
        let (asked, wanted) = mpsc::channel::<(KafkaSettings, mpsc::SyncSender<_>)>();
        task::aside("producer-maker", move || {
            for (settings, made) in wanted {
                // Whoever asked waits for it.
                made.send(Client::new(&settings)).ok();
            }
        });
        Self { asked }
    }
}

impl Maker {
    fn make(&self, settings: &KafkaSettings) -> Result<Client> {
        let (made, client) = mpsc::sync_channel(1);
        let asked = self.asked.send((settings.clone(), made)).ok();
        // Where no thread was to be had, a client of any priority is better than none.
        asked
            .and_then(|()| client.recv().ok())
            .unwrap_or_else(|| Client::new(settings))
    }
}

impl Producers {
    /// The producer of the cluster of this name; connects at the first flight.
    pub(super) fn of(&self, cluster: &str, settings: &KafkaSettings) -> Arc<Producer> {
        let mut all = self.all.lock();
        let producer = all.entry(cluster.to_owned()).or_insert_with(|| {
            Arc::new(Producer {
                settings: settings.clone(),
                maker: self.maker.clone(),
                client: Mutex::new(None),
            })
        });
        Arc::clone(producer)
    }
}

/// The producer of one cluster.
pub(super) struct Producer {
    settings: KafkaSettings,
    maker: Maker,
    // Taken to clone or replace the handle.
    client: Mutex<Option<Arc<Client>>>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer({})", self.settings.brokers)
    }
}

impl Producer {
    /// The client of now.
    ///
    /// # Errors
    /// `Config` for properties the client refuses.
    pub(super) fn client(&self) -> Result<Arc<Client>> {
        let mut current = self.client.lock();
        if let Some(client) = &*current {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.maker.make(&self.settings)?);
        *current = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Throws a client away, with every message that is not acknowledged: flights of others fail too, and are sent
    /// again through a new one. Nothing of it is sent any more when this returns.
    pub(super) async fn discard(&self, client: Arc<Client>) -> Result<()> {
        if !self.take_out(&client) {
            return Ok(());
        }
        task::blocking(move || release(client)).await
    }

    /// As [`Producer::discard`], for a flight that is dropped: it cannot wait. What others send next, they send through
    /// a new client; what was queued never follows it.
    pub(super) fn abandon(&self, client: Arc<Client>) {
        if self.take_out(&client) {
            task::aside("producer-release", move || release(client));
        }
    }

    /// Takes a client out of use and purges it; whether it was in use.
    fn take_out(&self, client: &Arc<Client>) -> bool {
        {
            let mut current = self.client.lock();
            let is_current = current.as_ref().is_some_and(|now| Arc::ptr_eq(now, client));
            if !is_current {
                return false;
            }
            *current = None;
        }
        tracing::warn!(
            brokers = self.settings.brokers,
            "producer made anew: a message was not acknowledged"
        );
        client
            .producer
            .purge(PurgeConfig::default().queue().inflight());
        true
    }
}

/// Lets go of a client: its threads take a while to end, and others may still be about to learn of it.
pub(super) fn release(mut client: Arc<Client>) {
    let begun = Instant::now();
    while begun.elapsed() < RELEASE {
        match Arc::try_unwrap(client) {
            Ok(last) => return drop(last),
            Err(shared) => client = shared,
        }
        std::thread::sleep(FULL);
    }
}

/// One connection of a producer.
pub(super) struct Client {
    pub(super) producer: ThreadedProducer<Deliveries>,
}

impl Client {
    fn new(settings: &KafkaSettings) -> Result<Self> {
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

    /// Queues a message of a flight; waits while the client is full.
    ///
    /// # Errors
    /// The client refuses the message.
    pub(super) async fn send(
        &self,
        flight: &Arc<Flight>,
        message: Outgoing<'_>,
    ) -> std::result::Result<(), KafkaError> {
        flight.begin(message.topic);
        let mut record = BaseRecord::<[u8], [u8], Arc<Flight>>::with_opaque_to(
            message.topic,
            Arc::clone(flight),
        )
        .headers(message.headers);
        record.partition = message.partition;
        record.key = message.key;
        record.payload = message.value;
        record.timestamp = message.timestamp;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(FULL).await;
                }
                Err((error, _)) => {
                    flight.end();
                    return Err(error);
                }
            }
        }
    }
}

/// A message on its way.
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    /// `None`: by the key.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// Milliseconds since 1970-01-01 UTC; `None`: the client's clock.
    pub(super) timestamp: Option<i64>,
    pub(super) headers: OwnedHeaders,
}

/// What became of the messages of one flight: told by the client's thread, awaited by the lane.
#[derive(Debug)]
pub(super) struct Flight {
    /// Messages without a verdict, and one while the sender still adds some.
    left: AtomicUsize,
    /// The first that failed, and the coordinates of its record.
    // Taken at a failure and at the end.
    failed: Mutex<Option<(KafkaError, String)>>,
    /// Where its messages go: for people.
    // Taken for each message, uncontended.
    topics: Mutex<Vec<String>>,
    /// Whether there is one: looked at for each message.
    has_failed: AtomicBool,
    changed: Notify,
}

impl Flight {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(1),
            failed: Mutex::new(None),
            topics: Mutex::default(),
            has_failed: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    fn begin(&self, topic: &str) {
        self.left.fetch_add(1, Ordering::Relaxed);
        let mut topics = self.topics.lock();
        if !topics.iter().any(|known| known == topic) {
            topics.push(topic.to_owned());
        }
    }

    /// Topics that messages were sent to, in their order.
    pub(super) fn topics(&self) -> Vec<String> {
        self.topics.lock().clone()
    }

    fn end(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_one();
        }
    }

    fn fail(&self, error: KafkaError, coordinates: String) {
        self.failed.lock().get_or_insert((error, coordinates));
        self.has_failed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Whether some message has failed already.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Waits until every message is acknowledged or one has failed; call it once, after the last message.
    ///
    /// # Errors
    /// The first failure, and whose message it was.
    pub(super) async fn landed(&self) -> std::result::Result<(), (KafkaError, String)> {
        self.end();
        loop {
            if let Some(failed) = self.failed.lock().clone() {
                return Err(failed);
            }
            if self.left.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            self.changed.notified().await;
        }
    }
}

/// Hands the client's verdicts to their flights, on the client's thread.
pub(super) struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        global_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Arc<Flight>) {
        if let Err((error, message)) = result {
            let header = message
                .headers()
                .and_then(|headers| headers.iter().find(|header| header.key == COORDINATES));
            let coordinates = header.and_then(|header| header.value).unwrap_or_default();
            flight.fail(
                error.clone(),
                String::from_utf8_lossy(coordinates).into_owned(),
            );
        }
        flight.end();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_flight_lands_with_its_last_message_and_fails_with_its_first() {
        let flight = Flight::new();
        flight.begin("t");
        flight.begin("t");
        {
            let mut landed = Box::pin(flight.landed());
            assert!(landed.as_mut().now_or_never().is_none());
        }
        let flight = Flight::new();
        flight.begin("t");
        flight.end();
        assert_eq!(flight.landed().now_or_never(), Some(Ok(())));

        let flight = Flight::new();
        flight.begin("t");
        flight.begin("t");
        flight.fail(KafkaError::Canceled, "t/0/7/0".to_owned());
        flight.end();
        flight.fail(KafkaError::Seek("later".to_owned()), "t/0/8/0".to_owned());
        let failed = flight.landed().now_or_never().unwrap();
        assert_eq!(failed, Err((KafkaError::Canceled, "t/0/7/0".to_owned())));
        assert!(flight.has_failed());
    }

    fn nobody() -> KafkaSettings {
        KafkaSettings {
            brokers: "127.0.0.1:1".to_owned(),
            security: BTreeMap::new(),
            session_timeout: Duration::from_secs(6),
            client_id: "test".to_owned(),
        }
    }

    /// Messages that the client has and nobody has acknowledged.
    fn in_flight(client: &Client) -> i32 {
        client.producer.in_flight_count()
    }

    fn message() -> Outgoing<'static> {
        Outgoing {
            topic: "t",
            partition: None,
            key: None,
            value: Some(b"v"),
            timestamp: None,
            headers: OwnedHeaders::new(),
        }
    }

    #[test]
    fn an_abandoned_client_keeps_nothing_queued_and_is_used_no_more() {
        let producer = Producers::default().of("main", &nobody());
        let client = producer.client().unwrap();
        let flight = Flight::new();
        for _ in 0..3 {
            let sent = client.send(&flight, message()).now_or_never();
            sent.expect("there is room").unwrap();
        }
        // What librdkafka says of the broker it misses waits in the same queue.
        assert!(in_flight(&client) >= 3, "no broker took them");
        producer.abandon(Arc::clone(&client));
        let deadline = Instant::now() + Duration::from_secs(10);
        while in_flight(&client) > 0 {
            assert!(Instant::now() < deadline, "they are queued still");
            std::thread::sleep(FULL);
        }
        let (error, _) = flight.landed().now_or_never().unwrap().unwrap_err();
        assert_eq!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::PurgeQueue)
        );
        assert!(!Arc::ptr_eq(&client, &producer.client().unwrap()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_client_first_needed_by_a_lane_in_quarantine_gives_way_to_nobody() {
        let own = rustix::process::nice(0).unwrap().to_string();
        let producer = Producers::default().of("main", &nobody());
        let quarantined = task::thread("quarantine", move || {
            rustix::process::nice(10).unwrap();
            producer.client().unwrap()
        });
        let client = quarantined.unwrap().join().unwrap();
        let mut threads = 0;
        for thread in std::fs::read_dir("/proc/self/task").unwrap() {
            let thread = thread.unwrap().path();
            // Threads of other tests may end meanwhile.
            let Ok(stat) = std::fs::read_to_string(thread.join("stat")) else {
                continue;
            };
            let (name, rest) = stat.rsplit_once(')').unwrap();
            if name.contains("(rdk:") {
                threads += 1;
                assert_eq!(rest.split(' ').nth(17), Some(own.as_str()), "{stat}");
            }
        }
        assert!(threads > 0);
        drop(client);
    }
}
