//! Topics through the admin client and the handle: creation, deletion, growth, ids, unknown names.

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode;
use wasmill_devbroker::{Broker, Options, Refused};

use crate::clients::{PATIENCE, config, consumer, producer, send, settle};

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn the_admin_client_creates_grows_and_deletes() {
    let broker = Broker::start(Options::default()).unwrap();
    let admin: AdminClient<DefaultClientContext> = config(&broker, &[]).create().unwrap();
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let create = |name, partitions, replicas| {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas))
            .set("cleanup.policy", "compact");
        block_on(admin.create_topics(&[topic], &options))
            .unwrap()
            .remove(0)
    };
    assert_eq!(create("t", 2, 1), Ok("t".to_owned()));
    let refused = |name: &str, code| Err((name.to_owned(), code));
    assert_eq!(
        create("t", 2, 1),
        refused("t", RDKafkaErrorCode::TopicAlreadyExists)
    );
    assert_eq!(
        create("u", 2, 3),
        refused("u", RDKafkaErrorCode::InvalidReplicationFactor)
    );
    assert_eq!(
        create("a b", 2, 1),
        refused("a b", RDKafkaErrorCode::InvalidTopic)
    );

    let grown = block_on(admin.create_partitions(&[NewPartitions::new("t", 5)], &options)).unwrap();
    assert_eq!(grown, [Ok("t".to_owned())]);
    let metadata = admin.inner().fetch_metadata(Some("t"), PATIENCE).unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 5);

    let deleted = block_on(admin.delete_topics(&["t"], &options)).unwrap();
    assert_eq!(deleted, [Ok("t".to_owned())]);
    assert_eq!(broker.topic_id("t"), None);
    let deleted = block_on(admin.delete_topics(&["t"], &options)).unwrap();
    assert_eq!(
        deleted,
        [refused("t", RDKafkaErrorCode::UnknownTopicOrPartition)]
    );
}

#[test]
fn deleting_a_topic_forgets_its_records_and_commits() {
    let broker = Broker::start(Options::default()).unwrap();
    broker.create_topic("t", 1).unwrap();
    let producer = producer(&broker, &[]);
    send(&producer, "t", 0, 0..10);
    settle(&producer);
    let consumer = consumer(&broker, "g", &[]);
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset("t", 0, rdkafka::Offset::Offset(10))
        .unwrap();
    consumer
        .commit(&list, rdkafka::consumer::CommitMode::Sync)
        .unwrap();
    assert_eq!(broker.committed("g", "t", 0), Some(10));

    broker.delete_topic("t").unwrap();
    assert_eq!(broker.log_end("t", 0), None);
    broker.create_topic("t", 1).unwrap();
    assert_eq!(
        (broker.log_end("t", 0), broker.committed("g", "t", 0)),
        (Some(0), None)
    );
}

#[test]
fn unknown_topics_are_errors_unless_asked_for() {
    let strict = Broker::start(Options::default()).unwrap();
    let metadata = |broker: &Broker| {
        let producer = producer(broker, &[]);
        let metadata = rdkafka::producer::Producer::client(&producer)
            .fetch_metadata(Some("t"), PATIENCE)
            .unwrap();
        (
            metadata.topics()[0].error().is_some(),
            metadata.topics()[0].partitions().len(),
        )
    };
    assert_eq!(metadata(&strict), (true, 0));
    assert_eq!(strict.topic_id("t"), None);
    let obliging = Broker::start(Options {
        auto_create: Some(3),
        ..Options::default()
    })
    .unwrap();
    let producer = producer(&obliging, &[]);
    send(&producer, "t", 2, 0..1);
    settle(&producer);
    assert_eq!(obliging.log_end("t", 2), Some(1));
}

#[test]
fn only_loopback_is_listened_on() {
    let everywhere = Options {
        address: "0.0.0.0".parse().unwrap(),
        ..Options::default()
    };
    let refused = Broker::start(everywhere).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("0.0.0.0"));
}

#[test]
fn stopping_frees_the_port() {
    let broker = Broker::start(Options::default()).unwrap();
    let address: std::net::SocketAddr = broker.bootstrap().parse().unwrap();
    assert!(broker.notice().contains(&broker.bootstrap()));
    let taken = Broker::start(Options {
        port: address.port(),
        ..Options::default()
    })
    .unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    broker.stop();
    let again = Broker::start(Options {
        port: address.port(),
        ..Options::default()
    })
    .unwrap();
    assert_eq!(again.bootstrap(), address.to_string());
}

#[test]
fn starting_and_stopping_inside_a_runtime_is_fine() {
    let end = block_on(async {
        let broker = Broker::start(Options::default()).unwrap();
        broker.create_topic("t", 1).unwrap();
        let end = broker.log_end("t", 0);
        broker.stop();
        end
    });
    assert_eq!(end, Some(0));
}

#[test]
fn helpers_say_why_they_refuse() {
    let broker = Broker::start(Options::default()).unwrap();
    assert_eq!(
        broker.set_log_start("t", 0, 0),
        Err(Refused::UnknownTopic("t".into()))
    );
    broker.create_topic("t", 1).unwrap();
    assert_eq!(
        broker.set_log_start("t", 1, 0),
        Err(Refused::UnknownPartition("t".into(), 1))
    );
    assert_eq!(
        broker.set_log_start("t", 0, 1),
        Err(Refused::Offset("t".into(), 0, 1))
    );
    assert_eq!(
        broker.create_topic("t", 1),
        Err(Refused::TopicExists("t".into()))
    );
    assert_eq!(
        broker.delete_topic("u"),
        Err(Refused::UnknownTopic("u".into()))
    );
}
