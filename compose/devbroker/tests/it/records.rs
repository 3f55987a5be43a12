//! Records in, records out: order, completeness, headers, compression, offsets and times.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::clients::{PATIENCE, broker_with, consumer, next, producer, send, settle, take};

fn assign(consumer: &BaseConsumer, topic: &str, partition: i32, offset: Offset) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, offset).unwrap();
    consumer.assign(&list).unwrap();
}

#[test]
fn fifty_thousand_records_come_back_in_order() {
    const TOTAL: u32 = 50_000;
    let broker = broker_with("t", 2);
    for (partition, codec) in [(0, "none"), (1, "zstd")] {
        let producer = producer(&broker, &[("compression.codec", codec)]);
        send(&producer, "t", partition, 0..TOTAL);
        settle(&producer);
        assert_eq!(broker.log_end("t", partition), Some(i64::from(TOTAL)));
        let consumer = consumer(&broker, "g", &[]);
        assign(&consumer, "t", partition, Offset::Beginning);
        let seen = take(&consumer, 50_000);
        for (expected, record) in (0..TOTAL).zip(seen) {
            assert_eq!(
                (record.number, record.offset),
                (expected, i64::from(expected))
            );
        }
    }
}

#[test]
fn key_headers_and_timestamp_survive() {
    let broker = broker_with("t", 1);
    let producer = producer(&broker, &[]);
    let headers = OwnedHeaders::new().insert(Header {
        key: "trace",
        value: Some("abc"),
    });
    let record = BaseRecord::to("t")
        .key("k")
        .payload("7")
        .headers(headers)
        .timestamp(1_700_000_000_123);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    settle(&producer);
    let consumer = consumer(&broker, "g", &[]);
    assign(&consumer, "t", 0, Offset::Beginning);
    let record = consumer.poll(PATIENCE).unwrap().unwrap();
    assert_eq!(record.key(), Some(&b"k"[..]));
    assert_eq!(record.timestamp().to_millis(), Some(1_700_000_000_123));
    let header = record.headers().unwrap().get(0);
    assert_eq!((header.key, header.value), ("trace", Some(&b"abc"[..])));
}

#[test]
fn a_fetch_waits_for_records_and_no_longer() {
    let broker = broker_with("t", 1);
    let consumer = consumer(&broker, "g", &[("fetch.wait.max.ms", "5000")]);
    assign(&consumer, "t", 0, Offset::Beginning);
    assert!(next(&consumer, Duration::from_millis(300)).is_none());
    let started = Instant::now();
    let producer = producer(&broker, &[]);
    send(&producer, "t", 0, 0..1);
    settle(&producer);
    assert_eq!(take(&consumer, 1)[0].number, 0);
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "the fetch was not woken"
    );
}

#[test]
fn watermarks_and_offsets_by_time() {
    let broker = broker_with("t", 1);
    let producer = producer(&broker, &[]);
    for i in 0..10_i64 {
        let record = BaseRecord::<(), str>::to("t")
            .payload("0")
            .timestamp(1_000_000 + i * 1_000);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    settle(&producer);
    broker.set_log_start("t", 0, 2).unwrap();
    let consumer = consumer(&broker, "g", &[]);
    assert_eq!(
        consumer.fetch_watermarks("t", 0, PATIENCE).unwrap(),
        (2, 10)
    );
    let offset_at = |timestamp| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Offset(timestamp))
            .unwrap();
        let found = consumer.offsets_for_times(list, PATIENCE).unwrap();
        found.elements()[0].offset()
    };
    assert_eq!(offset_at(1_004_500), Offset::Offset(5));
    assert_eq!(offset_at(1_009_000), Offset::Offset(9));
    assert_eq!(offset_at(1_009_001), Offset::End);
}

#[test]
fn a_position_before_the_log_start_is_an_error_not_a_jump() {
    let broker = broker_with("t", 1);
    let producer = producer(&broker, &[]);
    send(&producer, "t", 0, 0..100);
    settle(&producer);
    broker.set_log_start("t", 0, 60).unwrap();
    assert_eq!(
        (broker.log_start("t", 0), broker.log_end("t", 0)),
        (Some(60), Some(100))
    );

    let strict = consumer(&broker, "g", &[("auto.offset.reset", "error")]);
    assign(&strict, "t", 0, Offset::Offset(10));
    let started = Instant::now();
    let error = loop {
        assert!(
            started.elapsed() < PATIENCE,
            "no error for a position that is gone"
        );
        match next(&strict, Duration::from_millis(50)) {
            Some(Err(error)) => break error,
            Some(Ok(seen)) => panic!("jumped to {seen:?}"),
            None => {}
        }
    };
    assert_eq!(
        error,
        KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)
    );

    assign(&strict, "t", 0, Offset::Offset(60));
    assert_eq!(take(&strict, 40)[0].offset, 60);
}

#[test]
fn committed_offsets_are_where_the_next_reader_starts() {
    let broker = broker_with("t", 1);
    let producer = producer(&broker, &[]);
    send(&producer, "t", 0, 0..50);
    settle(&producer);
    {
        let first = consumer(&broker, "g", &[]);
        first.subscribe(&["t"]).unwrap();
        assert_eq!(take(&first, 20).last().unwrap().number, 19);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Offset(20))
            .unwrap();
        first.commit(&list, CommitMode::Sync).unwrap();
    }
    assert_eq!(broker.committed("g", "t", 0), Some(20));
    let second = consumer(&broker, "g", &[]);
    second.subscribe(&["t"]).unwrap();
    let seen = take(&second, 30);
    assert_eq!((seen[0].number, seen[29].number), (20, 49));
    let mut list = TopicPartitionList::new();
    list.add_partition("t", 0);
    let committed = second.committed_offsets(list, PATIENCE).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(20));
    assert_eq!(broker.committed("other", "t", 0), None);
}
