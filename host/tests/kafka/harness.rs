//! A small supervisor that believes nothing: it answers the source's events, reads the lanes, and checks every
//! batch against a ledger shared by all members, the stand-in for an anchor.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write as _;
use std::sync::mpsc as blocking;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::mpsc;
use wasmill::config::Membership;
use wasmill::error::{Blame, Error};
use wasmill::kafka::{KafkaSettings, KafkaSource, KafkaSourceSettings};
use wasmill::record::Batch;
use wasmill::source::{Outlet, Source as _, SourceCommand, SourceEvent, channel};
use wasmill_local::{Kafka, KafkaOptions};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One real Kafka for all tests of this binary, `None` (said aloud) where it cannot run.
pub(crate) fn real() -> Option<String> {
    static KAFKA: LazyLock<Option<Mutex<Kafka>>> = LazyLock::new(|| {
        if let Err(missing) = Kafka::available() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "CI must not skip: {missing}"
            );
            // Straight to the terminal: the test runner keeps what `eprintln!` says of a test that passes.
            writeln!(
                std::io::stderr(),
                "SKIPPED real Kafka: {missing}; {}",
                missing.hint
            )
            .ok();
            return None;
        }
        let options = KafkaOptions {
            properties: vec![
                ("group.initial.rebalance.delay.ms".into(), "0".into()),
                ("log.cleaner.backoff.ms".into(), "200".into()),
            ],
            ..KafkaOptions::default()
        };
        Some(Mutex::new(Kafka::start(&options).unwrap()))
    });
    Some(KAFKA.as_ref()?.lock().unwrap().bootstrap())
}

pub(crate) fn kafka(brokers: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: brokers.to_owned(),
        security: BTreeMap::new(),
        session_timeout: Duration::from_secs(6),
        client_id: "wasmill-test".to_owned(),
    }
}

/// What sources here say with their commits.
pub(crate) const MARK: &str = "anchor";

/// Settings of a source in the group named after its topic.
pub(crate) fn settings(brokers: &str, topic: &str, id: &str) -> KafkaSourceSettings {
    KafkaSourceSettings {
        kafka: kafka(brokers),
        topic: topic.to_owned(),
        group: format!("{topic}-group"),
        mark: MARK.to_owned(),
        instance: format!("{topic}/{id}"),
        membership: Membership::Static,
        headers: false,
        queued_kbytes: 8192,
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

pub(crate) fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .unwrap()
}

pub(crate) fn create_topic(brokers: &str, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (key, value) in configs {
        new = new.set(key, value);
    }
    let created = block_on(admin(brokers).create_topics([&new], &AdminOptions::new())).unwrap();
    for outcome in created {
        outcome.unwrap();
    }
}

pub(crate) fn delete_topic(brokers: &str, topic: &str) {
    let deleted = block_on(admin(brokers).delete_topics(&[topic], &AdminOptions::new())).unwrap();
    for outcome in deleted {
        outcome.unwrap();
    }
}

pub(crate) fn producer(brokers: &str, more: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "5")
        .set("enable.idempotence", "true")
        .set("queue.buffering.max.messages", "1000000");
    for (key, value) in more {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

pub(crate) fn send(producer: &BaseProducer, mut record: BaseRecord<'_, [u8], [u8]>) {
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                producer.poll(Duration::from_millis(2));
                record = back;
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
}

/// A value of 300 bytes that says which record of its partition it is.
pub(crate) fn value(sequence: u64) -> Vec<u8> {
    let mut value = vec![b'x'; 300];
    value[..8].copy_from_slice(&sequence.to_be_bytes());
    value
}

/// Produces records `range` of every partition.
pub(crate) fn produce(brokers: &str, topic: &str, partitions: i32, range: std::ops::Range<u64>) {
    let producer = producer(brokers, &[]);
    for sequence in range {
        let value = value(sequence);
        for partition in 0..partitions {
            let record = BaseRecord::<[u8], [u8]>::to(topic)
                .partition(partition)
                .key(&b"a key of 16 byte"[..])
                .payload(&value);
            send(&producer, record);
        }
        if sequence % 500 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(PATIENCE).unwrap();
}

/// What has been taken over of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) next: i64,
    pub(crate) records: u64,
}

/// The one truth of all members: a batch that does not continue it fails the test.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<i32, Entry>>);

impl Ledger {
    pub(crate) fn get(&self, partition: i32) -> Entry {
        self.0
            .lock()
            .unwrap()
            .get(&partition)
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn set(&self, partition: i32, next: i64, records: u64) {
        self.0
            .lock()
            .unwrap()
            .insert(partition, Entry { next, records });
    }

    pub(crate) fn total(&self) -> u64 {
        self.0
            .lock()
            .unwrap()
            .values()
            .map(|entry| entry.records)
            .sum()
    }

    fn take(&self, batch: &Batch) {
        let mut entries = self.0.lock().unwrap();
        let entry = entries.entry(batch.partition()).or_default();
        assert!(!batch.is_empty());
        assert_eq!(
            batch.from(),
            entry.next,
            "partition {}: a gap or a repeat",
            batch.partition()
        );
        let mut before = entry.next - 1;
        for record in batch.iter() {
            assert!(record.offset > before, "offsets ascend");
            before = record.offset;
            let head = record.value.unwrap().first_chunk().unwrap();
            assert_eq!(
                u64::from_be_bytes(*head),
                entry.records,
                "partition {}",
                batch.partition()
            );
            entry.records += 1;
        }
        entry.next = batch.to();
    }
}

/// A running source with its supervisor; both end when it is shut down.
pub(crate) struct Member {
    pub(crate) commands: blocking::Sender<SourceCommand>,
    events: mpsc::UnboundedReceiver<SourceEvent>,
    thread: Option<thread::JoinHandle<(Result<(), Error>, Duration)>>,
    pub(crate) lanes: HashMap<i32, Outlet>,
    /// Partitions whose lane does not read for now.
    pub(crate) stalled: HashSet<i32>,
    pub(crate) ledger: Arc<Ledger>,
    /// What happened, for tests about membership: `+[0, 1]`, `-[0]`, `lost[0]`.
    pub(crate) log: Vec<String>,
    pub(crate) errors: Vec<(Option<i32>, Error)>,
    /// Whether brokers answered, each time that was told.
    pub(crate) answers: Vec<Result<(), Error>>,
    /// `false`: batches are kept in `kept` instead of being checked.
    pub(crate) checks: bool,
    pub(crate) kept: Vec<Batch>,
    /// `true`: batches are only counted.
    pub(crate) counts: bool,
    pub(crate) counted: u64,
}

impl Member {
    pub(crate) fn start(settings: KafkaSourceSettings, ledger: &Arc<Ledger>) -> Self {
        let (commands, commanded) = blocking::channel();
        let (sender, events) = mpsc::unbounded_channel();
        let thread = thread::spawn(move || {
            let outcome = Box::new(KafkaSource::new(settings)).run(sender, commanded);
            (outcome, thread_cpu())
        });
        Self {
            commands,
            events,
            thread: Some(thread),
            lanes: HashMap::new(),
            stalled: HashSet::new(),
            ledger: Arc::clone(ledger),
            log: Vec::new(),
            errors: Vec::new(),
            answers: Vec::new(),
            checks: true,
            kept: Vec::new(),
            counts: false,
            counted: 0,
        }
    }

    pub(crate) fn fetch(&mut self, partition: i32, position: i64) {
        let (inlet, outlet) = channel();
        self.lanes.insert(partition, outlet);
        let start = SourceCommand::Start {
            partition,
            position,
            inlet,
        };
        self.commands.send(start).ok();
    }

    pub(crate) fn stop(&mut self, partition: i32) -> Option<Outlet> {
        self.commands.send(SourceCommand::Stop { partition }).ok();
        self.lanes.remove(&partition)
    }

    /// Answers what waits; returns whether anything happened.
    pub(crate) fn step(&mut self) -> bool {
        let mut busy = false;
        while let Ok(event) = self.events.try_recv() {
            busy = true;
            self.event(event);
        }
        for (partition, outlet) in &mut self.lanes {
            if self.stalled.contains(partition) {
                continue;
            }
            while let Some(batch) = outlet.try_recv() {
                busy = true;
                if self.counts {
                    self.counted += u64::try_from(batch.len()).unwrap();
                    outlet.recycle(batch);
                } else if self.checks {
                    self.ledger.take(&batch);
                    outlet.recycle(batch);
                } else {
                    self.kept.push(batch);
                }
            }
        }
        busy
    }

    fn event(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assigned(mut partitions) => {
                partitions.sort_unstable();
                self.log.push(format!("+{partitions:?}"));
                for partition in partitions {
                    let position = self.ledger.get(partition).next;
                    self.fetch(partition, position);
                }
            }
            SourceEvent::Revoked {
                mut partitions,
                done,
            } => {
                partitions.sort_unstable();
                self.log.push(format!("-{partitions:?}"));
                for partition in partitions {
                    self.stop(partition);
                }
                done.send(()).unwrap();
            }
            SourceEvent::Lost(mut partitions) => {
                partitions.sort_unstable();
                self.log.push(format!("lost{partitions:?}"));
                for partition in partitions {
                    self.lanes.remove(&partition);
                }
            }
            SourceEvent::Failed { partition, error } => self.errors.push((partition, error)),
            SourceEvent::Brokers(answer) => self.answers.push(answer),
        }
    }

    /// Steps until `done`, at most [`PATIENCE`].
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(
                begin.elapsed() < PATIENCE,
                "not in time: {what}; log {:?}, errors {:?}, ledger {:?}",
                self.log,
                self.errors,
                self.ledger
            );
            assert!(
                !self.ended(),
                "the source ended early: {:?}",
                self.outcome().0
            );
            if !self.step() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    pub(crate) fn steps_for(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            if !self.step() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    pub(crate) fn held(&self) -> Vec<i32> {
        let mut held: Vec<i32> = self.lanes.keys().copied().collect();
        held.sort_unstable();
        held
    }

    pub(crate) fn ended(&self) -> bool {
        self.thread
            .as_ref()
            .is_none_or(thread::JoinHandle::is_finished)
    }

    /// Waits for the source's own end, answering events meanwhile.
    pub(crate) fn outcome(&mut self) -> (Result<(), Error>, Duration) {
        let begin = Instant::now();
        while !self.ended() {
            assert!(
                begin.elapsed() < PATIENCE,
                "the source does not end; log {:?}",
                self.log
            );
            if !self.step() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.step();
        self.thread.take().unwrap().join().unwrap()
    }

    /// The `Config` error the source ends with.
    pub(crate) fn stopped(&mut self) -> Error {
        let error = self.outcome().0.unwrap_err();
        assert_eq!(error.blame(), Blame::Config, "{error}");
        error
    }

    /// Shuts it down in good order and returns the CPU time its thread took.
    pub(crate) fn shutdown(mut self) -> Duration {
        self.commands.send(SourceCommand::Shutdown).unwrap();
        let begin = Instant::now();
        let (outcome, cpu) = self.outcome();
        outcome.unwrap();
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "left in {:?}",
            begin.elapsed()
        );
        cpu
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // A failing test must not hang: the source ends by itself, on its own thread.
        self.commands.send(SourceCommand::Shutdown).ok();
    }
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    cpu(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of this process.
pub(crate) fn process_cpu() -> Duration {
    cpu(libc::CLOCK_PROCESS_CPUTIME_ID)
}

#[allow(unsafe_code, reason = "no safe wrapper among the dependencies")]
fn cpu(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live timespec; the clock exists on every Linux.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut time) }, 0);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

/// A topic name of this run.
pub(crate) fn fresh(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}
