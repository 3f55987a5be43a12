//! Members that come, go, restart and contend: positions handed over leave no gap and no repeat.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use wasmill::config::Membership;
use wasmill_devbroker::{Broker, Options};

use crate::harness::{Ledger, Member, PATIENCE, create_topic, fresh, produce, real, settings};

fn together(members: &mut [&mut Member], what: &str, mut done: impl FnMut(&[&mut Member]) -> bool) {
    let begin = Instant::now();
    while !done(members) {
        let logs: Vec<_> = members.iter().map(|member| &member.log).collect();
        assert!(begin.elapsed() < PATIENCE, "not in time: {what}; {logs:?}");
        let mut busy = false;
        for member in members.iter_mut() {
            busy |= member.step();
        }
        if !busy {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn hand_over(brokers: &str, topic: &str, mode: Membership) {
    create_topic(brokers, topic, 4, &[]);
    produce(brokers, topic, 4, 0..20_000);
    let ledger = Arc::new(Ledger::default());
    let with = |id: &str| {
        let mut settings = settings(brokers, topic, id);
        settings.membership = mode;
        settings
    };
    let mut first = Member::start(with("h1"), &ledger);
    first.until("some", |member| member.ledger.total() > 1_000);
    let mut second = Member::start(with("h2"), &ledger);
    together(&mut [&mut first, &mut second], "two each", |members| {
        members.iter().all(|member| member.lanes.len() == 2)
    });
    assert_eq!(
        first.log.len(),
        2,
        "only what moves is revoked: {:?}",
        first.log
    );
    produce(brokers, topic, 4, 20_000..25_000);
    together(&mut [&mut first, &mut second], "all", |_| {
        ledger.total() == 100_000
    });
    if mode == Membership::Dynamic {
        // Leaving hands over at once, far before the session ends.
        let begin = Instant::now();
        second.shutdown();
        first.until("all four again", |member| member.lanes.len() == 4);
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{:?}",
            begin.elapsed()
        );
        produce(brokers, topic, 4, 25_000..26_000);
        first.until("the rest", |member| member.ledger.total() == 104_000);
    } else {
        second.shutdown();
    }
    assert_eq!(first.errors, []);
    first.shutdown();
}

/// Tests of sessions of 6 s on the real broker take turns: side by side they starve each other's heartbeats.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn a_second_dynamic_member_takes_over_without_gap_or_repeat() {
    let broker = Broker::start(Options::default()).unwrap();
    hand_over(&broker.bootstrap(), "dynamic", Membership::Dynamic);
}

#[test]
fn a_second_static_member_takes_over_without_gap_or_repeat() {
    let broker = Broker::start(Options::default()).unwrap();
    hand_over(&broker.bootstrap(), "static", Membership::Static);
}

#[test]
fn members_take_over_without_gap_or_repeat_on_real_kafka() {
    let _alone = alone();
    if let Some(brokers) = real() {
        hand_over(&brokers, &fresh("dynamic"), Membership::Dynamic);
        hand_over(&brokers, &fresh("static"), Membership::Static);
    }
}

fn static_restart(brokers: &str, topic: &str) {
    create_topic(brokers, topic, 4, &[]);
    produce(brokers, topic, 4, 0..100);
    let ledger = Arc::new(Ledger::default());
    let mut first = Member::start(settings(brokers, topic, "h1"), &ledger);
    // It leads the group then: a leader that restarts makes the group share out anew.
    first.until("all of it", |member| member.lanes.len() == 4);
    let mut second = Member::start(settings(brokers, topic, "h2"), &ledger);
    together(
        &mut [&mut first, &mut second],
        "two each, all read",
        |members| members.iter().all(|member| member.lanes.len() == 2) && ledger.total() == 400,
    );
    let held = second.held();
    let log = first.log.clone();
    second.shutdown();
    produce(brokers, topic, 4, 100..200);
    let mut second = Member::start(settings(brokers, topic, "h2"), &ledger);
    together(&mut [&mut first, &mut second], "the rest", |_| {
        ledger.total() == 800
    });
    assert_eq!(first.log, log, "the neighbour saw no rebalance");
    assert_eq!(second.held(), held);
    first.shutdown();
    second.shutdown();
}

#[test]
fn a_static_member_that_restarts_keeps_its_partitions() {
    let broker = Broker::start(Options::default()).unwrap();
    static_restart(&broker.bootstrap(), "restart");
}

#[test]
fn a_static_member_that_restarts_keeps_its_partitions_on_real_kafka() {
    let _alone = alone();
    if let Some(brokers) = real() {
        static_restart(&brokers, &fresh("restart"));
    }
}

fn same_id(brokers: &str, topic: &str) {
    create_topic(brokers, topic, 2, &[]);
    produce(brokers, topic, 2, 0..100);
    let ledger = Arc::new(Ledger::default());
    let mut older = Member::start(settings(brokers, topic, "h1"), &ledger);
    older.until("all", |member| member.ledger.total() == 200);
    let mut newer = Member::start(settings(brokers, topic, "h1"), &ledger);
    together(&mut [&mut older, &mut newer], "the older ends", |members| {
        members[0].ended()
    });
    let error = older.stopped();
    assert!(error.hint_text().unwrap().contains("host.id"), "{error:?}");
    newer.until("its partitions", |member| member.lanes.len() == 2);
    newer.shutdown();
}

#[test]
fn of_two_hosts_with_one_id_the_older_ends() {
    let broker = Broker::start(Options::default()).unwrap();
    same_id(&broker.bootstrap(), "twins");
}

#[test]
fn of_two_hosts_with_one_id_the_older_ends_on_real_kafka() {
    let _alone = alone();
    if let Some(brokers) = real() {
        same_id(&brokers, &fresh("twins"));
    }
}

/// A member the group has forgotten loses its partitions, joins again and goes on where the ledger is.
#[test]
fn a_member_whose_session_ended_is_told_that_its_partitions_are_lost() {
    let broker = Broker::start(Options::default()).unwrap();
    let brokers = broker.bootstrap();
    create_topic(&brokers, "lost", 2, &[]);
    produce(&brokers, "lost", 2, 0..1_000);
    let ledger = Arc::new(Ledger::default());
    let mut settings = settings(&brokers, "lost", "h1");
    settings.membership = Membership::Dynamic;
    let mut member = Member::start(settings, &ledger);
    member.until("all", |member| member.ledger.total() == 2_000);
    broker.set_available(false);
    member.until("the loss", |member| {
        member.log.contains(&"lost[0, 1]".to_owned())
    });
    broker.set_available(true);
    member.until("its partitions again", |member| member.lanes.len() == 2);
    produce(&brokers, "lost", 2, 1_000..2_000);
    member.until("the rest", |member| member.ledger.total() == 4_000);
    assert_eq!(member.log, ["+[0, 1]", "lost[0, 1]", "+[0, 1]"]);
    member.shutdown();
}

/// Stops for good, as a process that is killed, while it gives partitions up.
struct DiesRevoking(mpsc::Sender<()>);

impl ClientContext for DiesRevoking {}

impl ConsumerContext for DiesRevoking {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Revoke(_)) {
            self.0.send(()).ok();
            loop {
                thread::park();
            }
        }
    }
}

/// A static member dies between giving partitions up and joining again, and comes back: nobody shares out anew, and
/// the newcomer for whom they were would wait for ever.
fn given_up(brokers: &str, topic: &str, newcomer: Membership) {
    create_topic(brokers, topic, 4, &[]);
    produce(brokers, topic, 4, 0..100);
    let one = settings(brokers, topic, "h1");
    let (dying, dead) = mpsc::channel();
    let (given, has_all) = mpsc::channel();
    let mut config = ClientConfig::new();
    for (name, value) in [
        ("bootstrap.servers", brokers),
        ("group.id", &one.group),
        ("group.instance.id", &one.instance),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "500"),
        ("enable.auto.commit", "false"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ] {
        config.set(name, value);
    }
    let subscribed = topic.to_owned();
    thread::spawn(move || {
        let consumer: BaseConsumer<DiesRevoking> =
            config.create_with_context(DiesRevoking(dying)).unwrap();
        consumer.subscribe(&[&subscribed]).unwrap();
        loop {
            consumer.poll(Duration::from_millis(10));
            if consumer.assignment().unwrap().count() == 4 {
                given.send(()).ok();
            }
        }
    });
    has_all.recv_timeout(PATIENCE).unwrap();
    let ledger = Arc::new(Ledger::default());
    let mut other = settings(brokers, topic, "h2");
    other.membership = newcomer;
    let mut newcomer = Member::start(other, &ledger);
    dead.recv_timeout(PATIENCE).unwrap();
    let mut again = Member::start(one, &ledger);
    together(
        &mut [&mut again, &mut newcomer],
        "each has its partitions",
        |members| members.iter().all(|member| member.lanes.len() == 2),
    );
    together(&mut [&mut again, &mut newcomer], "all", |members| {
        members[0].ledger.total() == 400
    });
    newcomer.shutdown();
    again.shutdown();
}

#[test]
fn partitions_that_a_killed_member_was_giving_up_find_an_owner() {
    let broker = Broker::start(Options::default()).unwrap();
    given_up(&broker.bootstrap(), "static", Membership::Static);
    given_up(&broker.bootstrap(), "dynamic", Membership::Dynamic);
}

#[test]
fn partitions_that_a_killed_member_was_giving_up_find_an_owner_on_real_kafka() {
    let _alone = alone();
    if let Some(brokers) = real() {
        given_up(&brokers, &fresh("given-up-static"), Membership::Static);
        given_up(&brokers, &fresh("given-up-dynamic"), Membership::Dynamic);
    }
}

/// A supervisor that is gone must not hold a member back.
#[test]
fn a_source_whose_supervisor_is_gone_ends() {
    let broker = Broker::start(Options::default()).unwrap();
    create_topic(&broker.bootstrap(), "orphan", 1, &[]);
    let (commands, commanded) = std::sync::mpsc::channel();
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let source = Box::new(wasmill::kafka::KafkaSource::new(settings(
        &broker.bootstrap(),
        "orphan",
        "h1",
    )));
    let thread = thread::spawn(move || wasmill::source::Source::run(source, events, commanded));
    let begin = Instant::now();
    while seen.try_recv().is_err() {
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    drop((commands, seen));
    let begin = Instant::now();
    while !thread.is_finished() {
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "it goes on without a supervisor"
        );
        thread::sleep(Duration::from_millis(5));
    }
    thread.join().unwrap().unwrap();
}
