//! What stops a source, what it waits out, and what it says.

use std::sync::Arc;
use std::time::Duration;

use wasmill::config::Membership;
use wasmill::error::Blame;
use wasmill::kafka::Catalog;
use wasmill_devbroker::{Broker, Options};
use wasmill_local::{Kafka, KafkaOptions};

use crate::harness::{
    Ledger, Member, create_topic, delete_topic, fresh, kafka, produce, real, settings,
};

#[test]
fn a_position_outside_the_log_is_a_data_loss_stop() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "trimmed", 2, &[]);
    produce(&brokers, "trimmed", 2, 0..100);
    broker.set_log_start("trimmed", 1, 50).unwrap();
    for position in [10, 101] {
        let ledger = Arc::new(Ledger::default());
        ledger.set(1, position, 0);
        let mut member = Member::start(settings(&brokers, "trimmed", "h1"), &ledger);
        let error = member.stopped();
        let text = error.to_string();
        assert!(text.starts_with("data loss: trimmed partition 1"), "{text}");
        assert!(text.contains(&format!("position {position}")), "{text}");
        assert!(error.hint_text().unwrap().contains("position"), "{error:?}");
        assert_eq!(ledger.get(1).records, 0, "nothing was skipped");
    }
}

#[test]
fn a_position_past_the_end_of_real_kafka_is_a_data_loss_stop() {
    let Some(brokers) = real() else { return };
    let topic = fresh("past");
    create_topic(&brokers, &topic, 1, &[]);
    produce(&brokers, &topic, 1, 0..10);
    let ledger = Arc::new(Ledger::default());
    ledger.set(0, 11, 0);
    let error = Member::start(settings(&brokers, &topic, "h1"), &ledger).stopped();
    assert!(error.to_string().contains("position 11"), "{error}");
}

fn absent(brokers: &str, topic: &str) {
    let error = Catalog::new(kafka(brokers))
        .topic(topic, Duration::from_secs(5))
        .unwrap_err();
    assert_eq!(error.blame(), Blame::Config, "{error}");
    assert!(
        error.hint_text().unwrap().contains("create the topic"),
        "{error:?}"
    );
    let ledger = Arc::new(Ledger::default());
    let error = Member::start(settings(brokers, topic, "h1"), &ledger).stopped();
    assert!(error.to_string().contains(topic), "{error}");
    assert!(
        error.hint_text().unwrap().contains("create the topic"),
        "{error:?}"
    );
}

#[test]
fn an_absent_topic_is_named() {
    let broker = Broker::start(Options::default()).unwrap();
    absent(&broker.bootstrap(), "absent");
}

#[test]
fn an_absent_topic_is_named_on_real_kafka() {
    if let Some(brokers) = real() {
        absent(&brokers, &fresh("absent"));
    }
}

/// A topic that appears a moment later is no reason to stop.
#[test]
fn a_topic_that_is_created_in_time_is_waited_for() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(&brokers, "late", "h1"), &ledger);
    member.steps_for(Duration::from_millis(1500));
    assert!(!member.ended());
    create_topic(&brokers, "late", 1, &[]);
    produce(&brokers, "late", 1, 0..10);
    member.until("its records", |member| member.ledger.total() == 10);
    member.shutdown();
}

#[test]
fn a_broker_that_comes_back_is_waited_for() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "away", 2, &[]);
    produce(&brokers, "away", 2, 0..5_000);
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(&brokers, "away", "h1"), &ledger);
    for turn in 1..=3 {
        member.until("a part", |member| member.ledger.total() >= turn * 2_000);
        broker.set_available(false);
        member.steps_for(Duration::from_millis(1500));
        broker.set_available(true);
    }
    member.until("all", |member| member.ledger.total() == 10_000);
    produce(&brokers, "away", 2, 5_000..6_000);
    member.until("the rest", |member| member.ledger.total() == 12_000);
    for (_, error) in &member.errors {
        assert_eq!(error.blame(), Blame::Outside, "{error}");
    }
    assert!(member.errors.len() < 50, "{} reports", member.errors.len());
    member.shutdown();
}

#[test]
fn brokers_that_do_not_answer_are_told_until_they_do_though_nothing_is_read() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "silent", 1, &[]);
    produce(&brokers, "silent", 1, 0..10);
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(&brokers, "silent", "h1"), &ledger);
    member.until("its records", |member| member.ledger.total() == 10);
    member.steps_for(Duration::from_secs(1));
    assert_eq!(member.answers, [], "nothing was amiss");
    broker.set_available(false);
    member.until("silence", |member| member.answers.len() >= 2);
    broker.set_available(true);
    member.until("an answer", |member| {
        member.answers.last().is_some_and(Result::is_ok)
    });
    let (last, before) = member.answers.split_last().unwrap();
    assert_eq!(last, &Ok(()));
    for answer in before {
        let error = answer.as_ref().unwrap_err();
        assert_eq!(error.blame(), Blame::Outside, "{error}");
        assert!(error.hint_text().is_some(), "{error}");
    }
    let told = member.answers.len();
    member.steps_for(Duration::from_secs(1));
    assert_eq!(member.answers.len(), told, "told once");
    member.shutdown();
}

#[test]
fn a_real_kafka_that_is_killed_and_started_again_is_waited_for() {
    if real().is_none() {
        return;
    }
    let mut kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    let brokers = kafka.bootstrap();
    create_topic(&brokers, "killed", 2, &[]);
    produce(&brokers, "killed", 2, 0..50_000);
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(&brokers, "killed", "h1"), &ledger);
    member.until("a part", |member| member.ledger.total() >= 10_000);
    kafka.kill().unwrap();
    member.steps_for(Duration::from_secs(1));
    kafka.restart().unwrap();
    member.until("all", |member| member.ledger.total() == 100_000);
    produce(&brokers, "killed", 2, 50_000..50_100);
    member.until("the rest", |member| member.ledger.total() == 100_200);
    for (_, error) in &member.errors {
        assert_eq!(error.blame(), Blame::Outside, "{error}");
    }
    member.shutdown();
}

#[test]
fn a_source_whose_broker_is_gone_leaves_all_the_same() {
    for mode in [Membership::Static, Membership::Dynamic] {
        let broker = Broker::start(Options::default()).unwrap();
        let brokers = broker.bootstrap();
        create_topic(&brokers, "leave", 1, &[]);
        produce(&brokers, "leave", 1, 0..10);
        let ledger = Arc::new(Ledger::default());
        let mut settings = settings(&brokers, "leave", "h1");
        settings.membership = mode;
        let mut member = Member::start(settings, &ledger);
        member.until("all", |member| member.ledger.total() == 10);
        broker.set_available(false);
        member.steps_for(Duration::from_millis(200));
        // Bounded by the harness: 5 s.
        member.shutdown();
    }
}

#[test]
fn waiting_for_a_broker_costs_next_to_nothing() {
    // A port nobody listens on: bound, then let go.
    let brokers = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(&brokers, "nobody", "h1"), &ledger);
    member.steps_for(Duration::from_secs(3));
    for (_, error) in &member.errors {
        assert_eq!(error.blame(), Blame::Outside, "{error}");
    }
    assert!(member.errors.len() < 50, "{} reports", member.errors.len());
    let spent = member.shutdown();
    assert!(
        spent < Duration::from_millis(150),
        "{spent:?} of CPU in 3 s"
    );
    let error = Catalog::new(kafka(&brokers))
        .topic("nobody", Duration::from_secs(1))
        .unwrap_err();
    assert_eq!(error.blame(), Blame::Outside, "{error}");
    assert!(error.hint_text().unwrap().contains("broker"), "{error:?}");
}

#[test]
fn a_topic_that_was_recreated_under_a_running_source_stops_it() {
    let Some(brokers) = real() else { return };
    let topic = fresh("recreated");
    create_topic(&brokers, &topic, 1, &[]);
    produce(&brokers, &topic, 1, 0..10);
    let ledger = Arc::new(Ledger::default());
    let mut member = Member::start(settings(&brokers, &topic, "h1"), &ledger);
    member.until("all", |member| member.ledger.total() == 10);
    member.steps_for(Duration::from_millis(500));
    delete_topic(&brokers, &topic);
    member.steps_for(Duration::from_millis(500));
    create_topic(&brokers, &topic, 1, &[]);
    produce(&brokers, &topic, 1, 0..10);
    let error = member.stopped();
    assert!(error.to_string().contains("data loss"), "{error}");
    assert_eq!(
        ledger.total(),
        10,
        "nothing of the new topic was taken for the old"
    );
}

#[test]
fn topic_info_tells_identity_and_watermarks() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "known", 3, &[]);
    produce(&brokers, "known", 2, 0..7);
    broker.set_log_start("known", 0, 5).unwrap();
    let info = Catalog::new(kafka(&brokers))
        .topic("known", Duration::from_secs(5))
        .unwrap();
    assert_eq!(info.watermarks, [(5, 7), (0, 7), (0, 0)]);
}

#[test]
fn topic_info_of_real_kafka_changes_with_the_topic() {
    let Some(brokers) = real() else { return };
    let topic = fresh("known");
    create_topic(&brokers, &topic, 2, &[]);
    produce(&brokers, &topic, 1, 0..7);
    let catalog = Catalog::new(kafka(&brokers));
    let look = || catalog.topic(&topic, Duration::from_secs(5));
    let first = look().unwrap();
    assert_eq!(first.watermarks, [(0, 7), (0, 0)]);
    assert_eq!(first, look().unwrap());
    assert!(first.id.is_some());
    delete_topic(&brokers, &topic);
    create_topic(&brokers, &topic, 1, &[]);
    let begin = std::time::Instant::now();
    let second = loop {
        match look() {
            Ok(info) if info.id != first.id => break info,
            other => assert!(begin.elapsed() < Duration::from_secs(20), "{other:?}"),
        }
    };
    assert_eq!(second.watermarks, [(0, 0)]);
}
