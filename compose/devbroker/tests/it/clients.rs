//! Clients and waiting, as every test here needs them.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, DefaultConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use wasmill_devbroker::{Broker, Options};

/// The bound on every wait: generous, because machines that run tests are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A broker with one topic.
pub(crate) fn broker_with(topic: &str, partitions: i32) -> Broker {
    let broker = Broker::start(Options::default()).unwrap();
    broker.create_topic(topic, partitions).unwrap();
    broker
}

pub(crate) fn config(broker: &Broker, extra: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker.bootstrap())
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200");
    for (key, value) in extra {
        config.set(*key, *value);
    }
    config
}

pub(crate) fn producer(broker: &Broker, extra: &[(&str, &str)]) -> BaseProducer {
    let mut config = config(
        broker,
        &[("enable.idempotence", "true"), ("linger.ms", "2")],
    );
    for (key, value) in extra {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

pub(crate) fn consumer(broker: &Broker, group: &str, extra: &[(&str, &str)]) -> BaseConsumer {
    consumer_with(broker, group, extra, DefaultConsumerContext)
}

pub(crate) fn consumer_with<C: ConsumerContext + 'static>(
    broker: &Broker,
    group: &str,
    extra: &[(&str, &str)],
    context: C,
) -> BaseConsumer<C> {
    let mut config = config(broker, &[("group.id", group)]);
    config
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "50")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200")
        .set("partition.assignment.strategy", "cooperative-sticky");
    for (key, value) in extra {
        config.set(*key, *value);
    }
    config.create_with_context(context).unwrap()
}

/// Sends the numbers `from..to` to a partition, without waiting for their acknowledgement.
pub(crate) fn send(
    producer: &BaseProducer,
    topic: &str,
    partition: i32,
    numbers: std::ops::Range<u32>,
) {
    for number in numbers {
        let payload = number.to_string();
        let mut record = BaseRecord::<(), str>::to(topic)
            .partition(partition)
            .payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::QueueFull)
            );
            producer.poll(Duration::from_millis(5));
            record = back;
        }
        producer.poll(Duration::ZERO);
    }
}

/// Waits until everything sent is acknowledged.
pub(crate) fn settle(producer: &BaseProducer) {
    producer.flush(PATIENCE).unwrap();
}

/// One record as these tests compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) number: u32,
}

/// The next record, if one comes within the time.
pub(crate) fn next<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    within: Duration,
) -> Option<Result<Seen, KafkaError>> {
    let record = match consumer.poll(within)? {
        Ok(record) => record,
        Err(error) => return Some(Err(error)),
    };
    let number = std::str::from_utf8(record.payload().unwrap())
        .unwrap()
        .parse()
        .unwrap();
    Some(Ok(Seen {
        partition: record.partition(),
        offset: record.offset(),
        number,
    }))
}

/// Reads `count` records; errors that pass (a connection lost) are waited out.
pub(crate) fn take<C: ConsumerContext>(consumer: &BaseConsumer<C>, count: usize) -> Vec<Seen> {
    let started = Instant::now();
    let mut seen = Vec::with_capacity(count);
    while seen.len() < count {
        assert!(
            started.elapsed() < PATIENCE,
            "{} of {count} records after {PATIENCE:?}",
            seen.len()
        );
        if let Some(Ok(record)) = next(consumer, Duration::from_millis(50)) {
            seen.push(record);
        }
    }
    seen
}

/// Polls a condition until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The partitions a consumer has now. No list outlives the call: dropping a consumer before one hangs.
pub(crate) fn assigned<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Vec<i32> {
    let list = consumer.assignment().unwrap();
    let mut partitions: Vec<i32> = list.elements().iter().map(|e| e.partition()).collect();
    partitions.sort_unstable();
    partitions
}
