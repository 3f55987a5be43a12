//! Kafka transactions: commit, abort, offsets inside, fencing, and what read-committed readers see.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use wasmill_devbroker::Broker;

use crate::clients::{PATIENCE, broker_with, consumer, next, producer, send, settle, take};

fn transactional(broker: &Broker, id: &str) -> BaseProducer {
    let producer = producer(
        broker,
        &[
            ("transactional.id", id),
            ("transaction.timeout.ms", "10000"),
        ],
    );
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

/// Polls until all is acknowledged: `commit_transaction` would do it in steps of 100 ms.
fn drain(producer: &BaseProducer) {
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
}

#[test]
fn readers_see_committed_records_only_and_in_time() {
    let broker = broker_with("t", 1);
    let producer = transactional(&broker, "x");
    producer.begin_transaction().unwrap();
    send(&producer, "t", 0, 0..10);
    drain(&producer);
    producer.commit_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "t", 0, 1000..1010);
    drain(&producer);
    producer.abort_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "t", 0, 20..25);
    drain(&producer);

    let committed = consumer(&broker, "g", &[("isolation.level", "read_committed")]);
    committed.subscribe(&["t"]).unwrap();
    let numbers: Vec<u32> = take(&committed, 10)
        .iter()
        .map(|seen| seen.number)
        .collect();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    assert!(
        next(&committed, Duration::from_millis(300)).is_none(),
        "saw an aborted or open record"
    );
    producer.commit_transaction(PATIENCE).unwrap();
    let numbers: Vec<u32> = take(&committed, 5).iter().map(|seen| seen.number).collect();
    assert_eq!(numbers, (20..25).collect::<Vec<_>>());

    let all = consumer(&broker, "h", &[("isolation.level", "read_uncommitted")]);
    all.subscribe(&["t"]).unwrap();
    assert_eq!(
        take(&all, 25)
            .iter()
            .filter(|seen| seen.number >= 1000)
            .count(),
        10
    );
}

#[test]
fn offsets_commit_with_their_transaction_or_not_at_all() {
    let broker = broker_with("t", 1);
    broker.create_topic("out", 1).unwrap();
    let plain = producer(&broker, &[]);
    send(&plain, "t", 0, 0..30);
    settle(&plain);
    let reader = consumer(&broker, "g", &[]);
    reader.subscribe(&["t"]).unwrap();
    assert_eq!(take(&reader, 30).len(), 30);
    let producer = transactional(&broker, "x");
    let stage = |offset| {
        producer.begin_transaction().unwrap();
        send(&producer, "out", 0, 0..1);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Offset(offset))
            .unwrap();
        producer
            .send_offsets_to_transaction(&list, &reader.group_metadata().unwrap(), PATIENCE)
            .unwrap();
        drain(&producer);
    };
    stage(10);
    assert_eq!(broker.committed("g", "t", 0), None);
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(broker.committed("g", "t", 0), Some(10));
    stage(20);
    producer.abort_transaction(PATIENCE).unwrap();
    assert_eq!(broker.committed("g", "t", 0), Some(10));
}

#[test]
fn a_second_producer_with_the_same_id_fences_the_first() {
    let broker = broker_with("t", 1);
    let old = transactional(&broker, "x");
    old.begin_transaction().unwrap();
    send(&old, "t", 0, 0..1);
    drain(&old);
    let new = transactional(&broker, "x");
    let error = old.commit_transaction(PATIENCE).unwrap_err();
    match error {
        KafkaError::Transaction(error) => assert_eq!(error.code(), RDKafkaErrorCode::Fenced),
        other => panic!("not a transaction error: {other}"),
    }
    new.begin_transaction().unwrap();
    send(&new, "t", 0, 1..2);
    drain(&new);
    new.commit_transaction(PATIENCE).unwrap();
    let reader = consumer(&broker, "g", &[("isolation.level", "read_committed")]);
    reader.subscribe(&["t"]).unwrap();
    assert_eq!(take(&reader, 1)[0].number, 1);
}
