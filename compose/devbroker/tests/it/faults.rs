//! A broker whose connections break, and one that goes away and returns.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::producer::Producer;

use crate::clients::{broker_with, consumer, next, producer, send, settle, take};

#[test]
fn connections_that_break_cost_nothing_and_double_nothing() {
    const TOTAL: u32 = 4_000;
    let broker = broker_with("t", 1);
    let consumer = consumer(&broker, "g", &[]);
    consumer.subscribe(&["t"]).unwrap();
    let producer = producer(&broker, &[]);
    for from in (0..TOTAL).step_by(100) {
        send(&producer, "t", 0, from..from + 100);
        if from % 800 == 0 {
            broker.drop_connections();
        }
    }
    settle(&producer);
    assert_eq!(broker.log_end("t", 0), Some(i64::from(TOTAL)));
    let numbers: Vec<u32> = take(&consumer, 4_000)
        .iter()
        .map(|seen| seen.number)
        .collect();
    assert_eq!(numbers, (0..TOTAL).collect::<Vec<_>>());
}

#[test]
fn a_broker_that_returns_is_found_again_with_its_records() {
    let broker = broker_with("t", 1);
    let consumer = consumer(&broker, "g", &[]);
    consumer.subscribe(&["t"]).unwrap();
    let producer = producer(&broker, &[]);
    send(&producer, "t", 0, 0..100);
    settle(&producer);
    assert_eq!(take(&consumer, 100)[99].number, 99);

    let address = broker.bootstrap();
    broker.set_available(false);
    send(&producer, "t", 0, 100..200);
    for _ in 0..10 {
        producer.poll(Duration::from_millis(50));
        assert!(
            !matches!(next(&consumer, Duration::from_millis(10)), Some(Ok(_))),
            "a record from a dead broker"
        );
    }
    assert!(producer.in_flight_count() > 0);
    assert_eq!(broker.log_end("t", 0), Some(100));

    broker.set_available(true);
    assert_eq!(broker.bootstrap(), address);
    settle(&producer);
    let numbers: Vec<u32> = take(&consumer, 100)
        .iter()
        .map(|seen| seen.number)
        .collect();
    assert_eq!(numbers, (100..200).collect::<Vec<_>>());
}
