//! Nothing missing, nothing twice: plain reading, stalls, stops, restarts.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use wasmill::error::Blame;
use wasmill::kafka::Catalog;
use wasmill::source::SourceCommand;
use wasmill_devbroker::{Broker, Options};

use crate::harness::{Ledger, MARK, Member, create_topic, fresh, kafka, produce, real, settings};

fn everything_in_order(brokers: &str, topic: &str) {
    create_topic(brokers, topic, 4, &[]);
    produce(brokers, topic, 4, 0..30_000);
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(brokers, topic, "h1"), &ledger);
    member.until("the first half", |member| member.ledger.total() >= 60_000);
    produce(brokers, topic, 4, 30_000..50_000);
    member.until("all", |member| member.ledger.total() == 200_000);
    member.steps_for(Duration::from_millis(300));
    for partition in 0..4 {
        assert_eq!(ledger.get(partition).records, 50_000);
        assert_eq!(ledger.get(partition).next, 50_000);
    }
    assert_eq!(member.errors, []);
    member.shutdown();
}

#[test]
fn everything_arrives_once_and_in_order() {
    let broker = Broker::start(Options::default()).unwrap();
    everything_in_order(&broker.bootstrap(), "orders");
}

#[test]
fn everything_arrives_once_and_in_order_from_real_kafka() {
    if let Some(brokers) = real() {
        everything_in_order(&brokers, &fresh("orders"));
    }
}

fn stalled_lanes(brokers: &str, topic: &str) {
    create_topic(brokers, topic, 3, &[]);
    produce(brokers, topic, 3, 0..60_000);
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(brokers, topic, "h1"), &ledger);
    member.stalled.extend([0, 1]);
    // Neighbours of a stalled lane go on.
    member.until("partition 2", |member| {
        member.ledger.get(2).records == 60_000
    });
    member.steps_for(Duration::from_millis(500));
    assert_eq!((ledger.get(0).records, ledger.get(1).records), (0, 0));

    // What waits for a lane that does not read is bounded: by the inlet's mark and what one round had returned.
    let mut outlet = member.stop(1).unwrap();
    member.steps_for(Duration::from_millis(200));
    let mut waiting = 0;
    while let Some(batch) = outlet.try_recv() {
        waiting += batch.len();
    }
    assert!(
        (4_000..24_000).contains(&waiting),
        "{waiting} records waited"
    );
    member.stalled.clear();
    member.fetch(1, 0);
    member.until("the stalled ones", |member| {
        member.ledger.total() == 180_000
    });
    assert_eq!(member.errors, []);
    member.shutdown();
}

#[test]
fn a_lane_that_does_not_read_is_paused_and_loses_nothing() {
    let broker = Broker::start(Options::default()).unwrap();
    stalled_lanes(&broker.bootstrap(), "stall");
}

#[test]
fn a_lane_that_does_not_read_is_paused_and_loses_nothing_from_real_kafka() {
    if let Some(brokers) = real() {
        stalled_lanes(&brokers, &fresh("stall"));
    }
}

/// Again and again, while records flow: messages fetched under an earlier start must never show up.
fn stop_and_start(brokers: &str, topic: &str) {
    create_topic(brokers, topic, 2, &[]);
    produce(brokers, topic, 2, 0..40_000);
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(brokers, topic, "h1"), &ledger);
    member.until("the start", |member| member.ledger.get(0).records > 0);
    for turn in 1..=20_u64 {
        let before = ledger.get(0).records;
        member.until("some more", |member| {
            member.ledger.get(0).records >= (before + 500).min(40_000)
        });
        member.stop(0);
        let back = ledger.get(0).records.saturating_sub(turn * 37);
        ledger.set(0, i64::try_from(back).unwrap(), back);
        member.fetch(0, i64::try_from(back).unwrap());
        if turn % 3 == 0 {
            // A second start without a stop replaces the first.
            member.fetch(0, i64::try_from(back).unwrap());
        }
    }
    member.until("all", |member| member.ledger.total() == 80_000);
    assert_eq!(member.errors, []);
    member.shutdown();
}

#[test]
fn a_restart_at_an_earlier_position_reads_again_exactly() {
    let broker = Broker::start(Options::default()).unwrap();
    stop_and_start(&broker.bootstrap(), "again");
}

#[test]
fn a_restart_at_an_earlier_position_reads_again_exactly_from_real_kafka() {
    if let Some(brokers) = real() {
        stop_and_start(&brokers, &fresh("again"));
    }
}

fn advice(brokers: &str, topic: &str) {
    create_topic(brokers, topic, 1, &[]);
    produce(brokers, topic, 1, 0..100);
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(brokers, topic, "h1"), &ledger);
    member.until("all", |member| member.ledger.total() == 100);
    let (taken, mut answer) = tokio::sync::oneshot::channel();
    let advise = SourceCommand::Advise {
        partition: 0,
        position: 100,
        taken: Some(taken),
    };
    member.commands.send(advise).unwrap();
    let mut answered = None;
    member.until("an answer", |_| {
        answered = answer.try_recv().ok();
        answered.is_some()
    });
    assert_eq!(answered, Some(true));
    // −1 asks with the position last heard of.
    let (taken, mut answer) = tokio::sync::oneshot::channel();
    let advise = SourceCommand::Advise {
        partition: 0,
        position: -1,
        taken: Some(taken),
    };
    member.commands.send(advise).unwrap();
    member.until("an answer", |_| answer.try_recv() == Ok(true));
    // A partition this member never had is not taken.
    let (taken, mut answer) = tokio::sync::oneshot::channel();
    let advise = SourceCommand::Advise {
        partition: 99,
        position: -1,
        taken: Some(taken),
    };
    member.commands.send(advise).unwrap();
    member.until("an answer", |_| answer.try_recv() == Ok(false));
    member.shutdown();
    witness(brokers, topic);
}

/// What the group of [`advice`] says counts while it was said by a source with the same mark.
fn witness(brokers: &str, topic: &str) {
    let catalog = Catalog::new(kafka(brokers));
    let group = format!("{topic}-group");
    let said = |group: &str, topic: &str, mark: &str| {
        let answer = catalog.committed(group, topic, mark, Duration::from_secs(20));
        answer.unwrap()
    };
    assert_eq!(said(&group, topic, MARK), [(0, 100)].into());
    assert_eq!(said(&group, topic, "another"), [].into());
    assert_eq!(said(&group, "another", MARK), [].into());
    assert_eq!(said("another", topic, MARK), [].into());
    // A static member is one until its session ends; then a tool may reset the offset, and says nothing with it.
    let tool: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", &group)
        .create()
        .unwrap();
    let begun = std::time::Instant::now();
    loop {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(100))
            .unwrap();
        match tool.commit(&list, CommitMode::Sync) {
            Ok(()) => break,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(said(&group, topic, MARK), [].into());
}

#[test]
fn advice_is_taken_and_answered() {
    let broker = Broker::start(Options::default()).unwrap();
    advice(&broker.bootstrap(), "advice");
    assert_eq!(broker.committed("advice-group", "advice", 0), Some(100));
}

#[test]
fn advice_is_taken_and_answered_by_real_kafka() {
    if let Some(brokers) = real() {
        advice(&brokers, &fresh("advice"));
    }
}

/// In librdkafka 2.12.1 a client of no group dies of this answer, and the whole process with it (librdkafka#5040).
#[test]
fn a_coordinator_that_moved_is_a_server_away() {
    let broker = Broker::start(Options::default()).unwrap();
    let catalog = Catalog::new(kafka(&broker.bootstrap()));
    let ask = || catalog.committed("group", "topic", MARK, Duration::from_secs(5));
    assert_eq!(ask().unwrap(), [].into());
    broker.set_coordinator_moved(true);
    let error = ask().unwrap_err();
    assert_eq!(error.blame(), Blame::Outside, "{error:?}");
    broker.set_coordinator_moved(false);
    assert_eq!(ask().unwrap(), [].into());
}

#[test]
fn advice_without_an_answer_reaches_the_broker_too() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "lag", 1, &[]);
    produce(&brokers, "lag", 1, 0..10);
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(&brokers, "lag", "h1"), &ledger);
    member.until("all", |member| member.ledger.total() == 10);
    let advise = |position| SourceCommand::Advise {
        partition: 0,
        position,
        taken: None,
    };
    member.commands.send(advise(7)).unwrap();
    member.until("a commit", |_| {
        broker.committed("lag-group", "lag", 0) == Some(7)
    });
    // The last word is not lost when the source leaves.
    member.commands.send(advise(10)).unwrap();
    member.shutdown();
    assert_eq!(broker.committed("lag-group", "lag", 0), Some(10));
}
