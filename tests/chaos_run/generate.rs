//! Makes records at a rate, with acks=all, through every restart of the broker, and knows how many are stored; it waits
//! while too many are not processed yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use wasmill_tests::checker::Input;

use super::view::Shared;
use super::{PARTITIONS, TOPIC};

/// How often records are made: they come in pulses, so that hosts have more than one at a time.
const PULSE: Duration = Duration::from_millis(100);

/// No more than this wait to be processed.
const AHEAD: i64 = 60_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Generator {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<BTreeMap<i32, i64>, String>>,
}

/// Looks at the answers: each record has to get the offset that it was made for.
#[derive(Debug)]
struct Answers {
    stored: AtomicI64,
    view: Shared,
}

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, n: Self::DeliveryOpaque) {
        let as_made = matches!(result, Ok(message) if message.offset() == *n);
        if !as_made {
            let text = format!("record {n} was not stored as it was made: {result:?}");
            self.view.lock().void.get_or_insert(text);
        }
        self.stored.fetch_add(1, Ordering::Relaxed);
    }
}

impl Generator {
    /// Makes `rate` records a second until it is stopped.
    pub(crate) fn start(bootstrap: &str, input: Input, rate: u32, view: Shared) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // However long the broker is away.
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", "20000000")
            .set("linger.ms", "5")
            .set("reconnect.backoff.max.ms", "500");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let producer: ThreadedProducer<Answers> = config
                .create_with_context(Answers {
                    stored: AtomicI64::new(0),
                    view: view.clone(),
                })
                .map_err(|error| error.to_string())?;
            make(&producer, input, rate, &view, &told)
        });
        Self { stop, thread }
    }

    /// Stops, waits until all is stored, and says how many records each partition holds.
    pub(crate) fn stop(self) -> Result<BTreeMap<i32, i64>, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

fn make(
    producer: &ThreadedProducer<Answers>,
    input: Input,
    rate: u32,
    view: &Shared,
    stop: &AtomicBool,
) -> Result<BTreeMap<i32, i64>, String> {
    let answers = producer.context();
    let mut counts: BTreeMap<i32, i64> = (0..PARTITIONS).map(|one| (one, 0)).collect();
    let (mut begun, mut made, mut all) = (Instant::now(), 0_u64, 0_i64);
    while !stop.load(Ordering::Relaxed) {
        let waits =
            all - view.done() > AHEAD || all - answers.stored.load(Ordering::Relaxed) > AHEAD;
        if waits {
            // What was not made meanwhile is not made up for.
            (begun, made) = (Instant::now(), 0);
        }
        let due = begun.elapsed().as_millis() * u128::from(rate) / 1000;
        while u128::from(made) < due {
            for (partition, n) in &mut counts {
                enqueue(producer, input, *partition, *n)?;
                *n += 1;
                made += 1;
                all += 1;
            }
        }
        std::thread::sleep(PULSE);
    }
    producer
        .flush(Duration::from_secs(120))
        .map_err(|error| format!("records are not stored: {error}"))?;
    let void = view.lock().void.clone();
    void.map_or(Ok(counts), Err)
}

fn enqueue(
    producer: &ThreadedProducer<Answers>,
    input: Input,
    partition: i32,
    n: i64,
) -> Result<(), String> {
    let made = input.record(partition, n);
    let mut record = BaseRecord::<[u8], [u8], Box<i64>>::with_opaque_to(TOPIC, Box::new(n));
    record.key = made.key.as_deref();
    record.payload = made.value.as_deref();
    record.partition = made.partition;
    record.timestamp = made.timestamp;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(format!("produce to {TOPIC}: {error}")),
        }
    }
}
