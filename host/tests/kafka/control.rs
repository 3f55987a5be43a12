//! The control log on the development broker and on a real Kafka: several hosts on one topic, start, blobs, and a
//! topic that goes away.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, Producer as _};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use wasmill::control::{BlobStore, Change, Control, Deployment, Origin, Outcome, Release, State};
use wasmill::error::{Blame, Error};
use wasmill::kafka::{ControlLogSettings, KafkaControlLog, Overheard};
use wasmill_devbroker::{Broker, Options};

use crate::harness::{
    PATIENCE, block_on, create_topic, delete_topic, fresh, kafka, producer, real, send,
};

/// Key and value.
type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// A host with a cache folder of its own.
struct Host {
    control: Control,
    folder: TempDir,
}

impl Host {
    fn start(brokers: &str, topic: &str, id: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = open(brokers, topic, id, folder.path()).unwrap();
        Self { control, folder }
    }

    fn submit(&self, change: Change) -> Outcome {
        block_on(self.control.submit("ann", change)).unwrap()
    }
}

/// As a host starts: the log it has seen before is the one it wants.
fn open(brokers: &str, topic: &str, id: &str, folder: &Path) -> Result<Control, Error> {
    let store = BlobStore::open(folder)?;
    let known = store.known_log(id, &ControlLogSettings::name(topic))?;
    let kafka = kafka(brokers);
    let settings = ControlLogSettings {
        kafka,
        topic: topic.to_owned(),
        replication: None,
        known,
    };
    block_on(async {
        let log = KafkaControlLog::open(settings, Overheard::default()).await?;
        let control = Control::open(Arc::new(log), store, id.to_owned())?;
        control.ready().await?;
        Ok(control)
    })
}

fn refused(brokers: &str, topic: &str, folder: &Path) -> Error {
    let error = open(brokers, topic, "h1", folder).unwrap_err();
    assert_eq!(error.blame(), Blame::Config, "{error}");
    error
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn deploy(revision: u64, number: usize) -> Change {
    let release = Release::new(
        "clean@1.0.0",
        digest(b"clean"),
        format!("number = {number}\n"),
    );
    let deployment = Deployment::of(release, Origin::Upload);
    Change::Deploy {
        pipeline: "orders".to_owned(),
        revision,
        deployment,
    }
}

/// What tells one state from another.
fn seen(state: &State) -> String {
    let history: Vec<_> = state.history("orders").iter().collect();
    format!(
        "{history:?} {:?} {:?}",
        state.versions(),
        state.segments("orders").collect::<Vec<_>>()
    )
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn bytes(size: usize, seed: u8) -> Vec<u8> {
    let cycle = (0..=250_u8)
        .cycle()
        .map(|byte| byte.wrapping_mul(31).wrapping_add(seed));
    cycle.take(size).collect()
}

fn put(control: &Control, bytes: &[u8]) {
    block_on(control.put_blob(&digest(bytes), bytes.to_vec())).unwrap();
}

/// Three hosts start at once on nothing, write against each other, and a fourth agrees with them.
fn several_hosts(brokers: &str) {
    let topic = fresh("control");
    let starting: Vec<_> = ["h1", "h2", "h3"]
        .map(|id| {
            let (brokers, topic) = (brokers.to_owned(), topic.clone());
            std::thread::spawn(move || Host::start(&brokers, &topic, id))
        })
        .into_iter()
        .collect();
    let hosts: Vec<Host> = starting
        .into_iter()
        .map(|host| host.join().unwrap())
        .collect();
    let writers: Vec<_> = hosts
        .iter()
        .map(|host| {
            let control = host.control.clone();
            std::thread::spawn(move || {
                let mut won = Vec::new();
                for number in 0..25 {
                    let last = control
                        .state()
                        .pipeline("orders")
                        .map_or(0, |last| last.revision);
                    let outcome =
                        block_on(control.submit("ann", deploy(last + 1, number))).unwrap();
                    if outcome == Outcome::Accepted {
                        won.push(last + 1);
                    }
                }
                won
            })
        })
        .collect();
    let mut won: Vec<u64> = writers
        .into_iter()
        .flat_map(|writer| writer.join().unwrap())
        .collect();
    won.sort_unstable();
    let chain: Vec<u64> = (1..=won.len() as u64).collect();
    assert_eq!(won, chain, "each revision was won once, without a gap");
    let blob = bytes(5_000_000, 1);
    put(&hosts[0].control, &blob);
    let newest = hosts[0].submit(deploy(won.len() as u64 + 1, 99));
    assert_eq!(newest, Outcome::Accepted);
    let expected = seen(&hosts[0].control.state());
    let late = Host::start(brokers, &topic, "h4");
    for host in hosts.iter().chain([&late]) {
        eventually("the last deployment", || {
            seen(&host.control.state()) == expected
        });
        assert_eq!(host.control.blob(&digest(&blob)).unwrap(), blob);
        assert_eq!(host.control.state().garbage().records, 0);
    }
    std::fs::remove_file(late.control.store().path(&digest(&blob)).unwrap()).unwrap();
    assert_eq!(
        late.control.blob(&digest(&blob)).unwrap(),
        blob,
        "read from the log again"
    );
}

#[test]
fn several_hosts_agree() {
    let broker = Broker::start(Options::default()).unwrap();
    several_hosts(&broker.bootstrap());
}

#[test]
fn several_hosts_agree_on_a_real_kafka() {
    let Some(brokers) = real() else { return };
    several_hosts(&brokers);
}

/// A topic that is deleted under a running host, and one that is made again, are told; nothing is taken for it.
fn deleted(brokers: &str) {
    let topic = fresh("control-gone");
    let host = Host::start(brokers, &topic, "h1");
    host.submit(deploy(1, 1));
    delete_topic(brokers, &topic);
    eventually("the loss is told", || host.control.lost().is_some());
    let lost = host.control.lost().unwrap();
    assert_eq!(lost.blame(), Blame::Config, "{lost}");
    assert!(
        lost.to_string().contains(&topic) && lost.hint_text().unwrap().contains("restore"),
        "{lost:?}"
    );
    assert_eq!(
        host.control.state().pipeline("orders").unwrap().revision,
        1,
        "what is deployed stays"
    );
    let error = block_on(host.control.submit("ann", deploy(2, 2))).unwrap_err();
    assert_eq!(error, lost);
    let folder = host.folder;
    drop(host.control);
    let error = refused(brokers, &topic, folder.path());
    assert!(error.to_string().contains("data loss"), "{error}");
    let other = Host::start(brokers, &topic, "h2");
    assert_eq!(
        other.submit(deploy(1, 7)),
        Outcome::Accepted,
        "a host that has seen none makes one"
    );
    let error = refused(brokers, &topic, folder.path());
    let hint = error.hint_text().unwrap();
    let marker = hint.split('`').nth(1).unwrap();
    std::fs::remove_file(marker).unwrap();
    let again = open(brokers, &topic, "h1", folder.path()).unwrap();
    assert_eq!(seen(&again.state()), seen(&other.control.state()));
}

#[test]
fn a_deleted_topic_is_never_taken_for_an_empty_one() {
    let broker = Broker::start(Options::default()).unwrap();
    deleted(&broker.bootstrap());
}

#[test]
fn a_deleted_topic_of_a_real_kafka_is_never_taken_for_an_empty_one() {
    let Some(brokers) = real() else { return };
    deleted(&brokers);
}

#[test]
fn garbage_in_the_topic_stops_nobody() {
    let broker = Broker::start(Options::default()).unwrap();
    let (brokers, topic) = (broker.bootstrap(), fresh("control-garbage"));
    let host = Host::start(&brokers, &topic, "h1");
    let garbage = producer(&brokers, &[]);
    let large = vec![b'{'; 900_000];
    let records: [Pair<'_>; 5] = [
        (None, None),
        (None, Some(b"no key")),
        (Some(b"deploy/orders/1/x"), Some(b"{\"format\":")),
        (Some(b"\xff\xfe"), Some(&large)),
        (Some(b"blob/sha256:../../x/0"), Some(b"x")),
    ];
    for (key, value) in records {
        let mut record = BaseRecord::<[u8], [u8]>::to(&topic);
        record.key = key;
        record.payload = value;
        send(&garbage, record);
    }
    garbage.flush(PATIENCE).unwrap();
    assert_eq!(host.submit(deploy(1, 1)), Outcome::Accepted);
    let late = Host::start(&brokers, &topic, "h2");
    for host in [&host, &late] {
        assert_eq!(host.control.state().garbage().records, 5);
        assert_eq!(host.control.state().pipeline("orders").unwrap().revision, 1);
    }
}

#[test]
fn topics_that_are_no_control_log_are_refused() {
    let broker = Broker::start(Options::default()).unwrap();
    broker.create_topic("wide", 2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&broker.bootstrap(), "wide", folder.path());
    assert!(error.detail().contains("2 partitions"), "{error}");
    let Some(brokers) = real() else { return };
    for (policy, name) in [
        ("delete", "control-aged"),
        ("compact,delete", "control-both"),
    ] {
        let topic = fresh(name);
        create_topic(&brokers, &topic, 1, &[("cleanup.policy", policy)]);
        let error = refused(&brokers, &topic, folder.path());
        assert!(
            error
                .hint_text()
                .unwrap()
                .contains("cleanup.policy=compact"),
            "{error:?}"
        );
    }
}

#[test]
fn a_broker_that_is_away_is_waited_for() {
    let broker = Broker::start(Options::default()).unwrap();
    let (brokers, topic) = (broker.bootstrap(), fresh("control-away"));
    let (one, two) = (
        Host::start(&brokers, &topic, "h1"),
        Host::start(&brokers, &topic, "h2"),
    );
    one.submit(deploy(1, 1));
    broker.set_available(false);
    let begin = Instant::now();
    let error = block_on(one.control.submit("ann", deploy(2, 2))).unwrap_err();
    assert_eq!(error.blame(), Blame::Outside, "{error}");
    assert!(
        begin.elapsed() < Duration::from_secs(11),
        "{:?}",
        begin.elapsed()
    );
    assert!(error.hint_text().is_some(), "{error:?}");
    broker.set_available(true);
    assert_eq!(one.submit(deploy(2, 3)), Outcome::Accepted);
    eventually("the other host sees it", || {
        two.control.state().pipeline("orders").unwrap().revision == 2
    });
    assert_eq!(one.control.lost(), None);
}

/// What a restart waits for: 50 plugins of 60 KB in the log.
fn start(brokers: &str) -> [Duration; 2] {
    let topic = fresh("control-start");
    let host = Host::start(brokers, &topic, "h1");
    for seed in 0..50 {
        let plugin = bytes(60_000, seed);
        put(&host.control, &plugin);
        let (name, version) = (format!("plugin-{seed}"), "1.0.0".to_owned());
        let (digest, size) = (digest(&plugin), plugin.len() as u64);
        let facts = serde_json::Value::Null;
        host.submit(Change::Version {
            name,
            version,
            digest,
            size,
            signature: None,
            facts,
        });
    }
    let begin = Instant::now();
    let warm = open(brokers, &topic, "h1", host.folder.path()).unwrap();
    let warm_time = begin.elapsed();
    let begin = Instant::now();
    let cold = Host::start(brokers, &topic, "h2");
    let cold_time = begin.elapsed();
    for control in [&warm, &cold.control] {
        assert_eq!(control.state().versions().len(), 50);
        assert!((0..50).all(|seed| control.store().have(&digest(&bytes(60_000, seed)))));
    }
    [warm_time, cold_time]
}

#[test]
fn a_start_reads_fifty_plugins_at_once() {
    let broker = Broker::start(Options::default()).unwrap();
    let mut times = vec![("development broker", start(&broker.bootstrap()))];
    times.extend(real().map(|brokers| ("real Kafka", start(&brokers))));
    for (which, [warm, cold]) in times {
        println!("{which}: topic found and read, warm {warm:?}, fresh host {cold:?}");
        // Far above what it takes, for machines that do other things as well.
        assert!(
            warm < Duration::from_secs(2) && cold < Duration::from_secs(3),
            "{which}: {warm:?}, {cold:?}"
        );
    }
}

#[test]
fn compaction_by_a_real_kafka_changes_nothing() {
    let Some(brokers) = real() else { return };
    let topic = fresh("control-compacted");
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "100"),
        ("delete.retention.ms", "100"),
    ];
    create_topic(&brokers, &topic, 1, &configs);
    let (one, two) = (
        Host::start(&brokers, &topic, "h1"),
        Host::start(&brokers, &topic, "h2"),
    );
    let begin = Instant::now();
    let mut number = 0;
    loop {
        let last = one
            .control
            .state()
            .pipeline("orders")
            .map_or(0, |last| last.revision);
        // Both at once: the loser's record is written and removed again.
        let rival = two.control.clone();
        let race =
            std::thread::spawn(move || block_on(rival.submit("bob", deploy(last + 1, 1))).unwrap());
        one.submit(deploy(last + 1, 2));
        race.join().unwrap();
        for host in ["h1", "h2"] {
            number += 1;
            let body = serde_json::json!({ "number": number });
            one.submit(Change::Stat {
                pipeline: "orders".to_owned(),
                host: host.to_owned(),
                body,
            });
        }
        let late = Host::start(&brokers, &topic, "h3");
        let live = one.control.state();
        assert_eq!(seen(&late.control.state()), seen(&live));
        let stats = |state: &State| format!("{:?}", state.stats("orders").collect::<Vec<_>>());
        assert_eq!(stats(&late.control.state()), stats(&live));
        let begun = last > 5 && compacted(&brokers, &topic);
        if begun {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "the log was never compacted");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether records are missing from the topic.
fn compacted(brokers: &str, topic: &str) -> bool {
    let settings = ControlLogSettings {
        kafka: kafka(brokers),
        topic: topic.to_owned(),
        replication: None,
        known: None,
    };
    let log = block_on(KafkaControlLog::open(settings, Overheard::default())).unwrap();
    let (sender, told) = std::sync::mpsc::channel();
    let follower = wasmill::control::ControlLog::follow(
        &log,
        Box::new(move |event| match event {
            wasmill::control::Event::Record { offset, .. } => {
                sender.send(offset).unwrap();
                std::ops::ControlFlow::Continue(())
            }
            _ => std::ops::ControlFlow::Break(()),
        }),
    );
    let offsets: Vec<i64> = told.iter().collect();
    drop(follower);
    let records = i64::try_from(offsets.len()).unwrap();
    offsets.last().is_some_and(|last| last + 1 > records)
}
