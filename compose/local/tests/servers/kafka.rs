//! Kafka: what was acknowledged is there after kills and restarts, in order.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use wasmill_local::{Kafka, KafkaOptions, Progress, StartError};

use crate::{here, is_gone, runtime, timed};

/// Broker-down lines are what these tests are about; keep them out of the output.
struct Quiet;
impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}
impl rdkafka::consumer::ConsumerContext for Quiet {}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.max.ms", "500");
    config
}

fn produce(bootstrap: &str, values: std::ops::Range<u32>) {
    let producer: FutureProducer<Quiet> = client(bootstrap)
        .set("acks", "all")
        .set("message.timeout.ms", "30000")
        .create_with_context(Quiet)
        .unwrap();
    runtime().block_on(async {
        for value in values {
            let value = value.to_string();
            let record = FutureRecord::<(), _>::to("t").partition(0).payload(&value);
            producer
                .send(record, Duration::from_secs(30))
                .await
                .unwrap();
        }
    });
}

fn consume(bootstrap: &str, count: usize) -> Vec<u32> {
    let consumer: BaseConsumer<Quiet> = client(bootstrap)
        .set("group.id", "g")
        .create_with_context(Quiet)
        .unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset("t", 0, rdkafka::Offset::Beginning)
        .unwrap();
    consumer.assign(&from).unwrap();
    let started = Instant::now();
    let mut values = Vec::new();
    while values.len() < count && started.elapsed() < Duration::from_secs(30) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            values.push(
                std::str::from_utf8(message.payload().unwrap())
                    .unwrap()
                    .parse()
                    .unwrap(),
            );
        }
    }
    values
}

#[test]
fn a_version_that_does_not_exist_is_mavens_own_error() {
    if !here(Kafka::available()) {
        return;
    }
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let options = KafkaOptions {
        version: "0.0.0-none".into(),
        progress: Progress::new(move |line| heard.lock().unwrap().push(line.to_owned())),
        ..KafkaOptions::default()
    };
    let error = Kafka::start(&options).unwrap_err();
    // without Maven, whose jars of the usual version are in the cache, it is what to install
    match &error {
        StartError::Fetch { what, detail } => {
            assert_eq!(what, "Apache Kafka 0.0.0-none");
            assert!(detail.contains("[ERROR]"), "{detail}");
            assert_eq!(
                *said.lock().unwrap(),
                ["fetching Apache Kafka 0.0.0-none (43 MB)…"]
            );
        }
        StartError::Missing(missing) => assert!(missing.hint.contains("install Maven")),
        other => panic!("{other}"),
    }
    assert!(error.hint().contains("Maven"), "{}", error.hint());
}

#[test]
fn kafka_survives_kills() {
    if !here(Kafka::available()) {
        return;
    }
    let options = KafkaOptions {
        heap_mb: 96,
        ..KafkaOptions::default()
    };
    let mut kafka = timed("kafka start", || Kafka::start(&options).unwrap());
    let (bootstrap, first, folder) = (
        kafka.bootstrap(),
        kafka.pid().unwrap(),
        kafka.folder().to_owned(),
    );

    let admin: AdminClient<Quiet> = client(&bootstrap).create_with_context(Quiet).unwrap();
    let topic = NewTopic::new("t", 1, TopicReplication::Fixed(1));
    let made = runtime()
        .block_on(admin.create_topics(&[topic], &AdminOptions::new()))
        .unwrap();
    assert_eq!(made, [Ok("t".to_owned())]);
    let metadata = admin
        .inner()
        .fetch_metadata(None, Duration::from_secs(10))
        .unwrap();
    assert_eq!(metadata.brokers().len(), 1);
    assert!(metadata.topics().iter().any(|topic| topic.name() == "t"));
    produce(&bootstrap, 0..100);

    timed("kafka kill", || kafka.kill().unwrap());
    assert!(is_gone(first) && kafka.pid().is_none());
    timed("kafka restart after kill", || kafka.restart().unwrap());
    assert_eq!(kafka.bootstrap(), bootstrap, "the same address");
    produce(&bootstrap, 100..120);
    assert_eq!(consume(&bootstrap, 120), (0..120).collect::<Vec<_>>());

    timed("kafka halt", || kafka.halt().unwrap());
    timed("kafka restart after halt", || kafka.restart().unwrap());
    assert_eq!(consume(&bootstrap, 120).len(), 120);

    let last = kafka.pid().unwrap();
    timed("kafka stop", || kafka.stop().unwrap());
    assert!(is_gone(last) && !folder.exists());
}
