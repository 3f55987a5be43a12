//! Chaos on real servers: records flow from Kafka into Postgres (upserted and appended), Cassandra and a topic, while
//! hosts are killed, frozen and joined, servers and links fail and versions change; a checker compares a snapshot of
//! Postgres with the input ten times a second, and everything at the end.
//!
//! ```text
//! generate  ──records──▶ Kafka ──▶ hosts (fleet) ──▶ Postgres, Cassandra, Kafka
//! injector, faults        breaks them, and waits until all goes on
//! eye                     looks, and has `wasmill_tests::checker` compare
//! view                    what it saw, for the others
//! end, report             everything once more; Markdown
//! ```
//!
//! `chaos_run --help` says what can be asked; progress on standard error, the report on standard output, and the logs of
//! all hosts and servers in a folder, when one is named. Ends with 1 when anything does not hold, or when too little was
//! seen to happen.
#![allow(clippy::unwrap_used, reason = "a panic is how a check fails")]
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

mod end;
mod eye;
mod faults;
mod fleet;
mod generate;
mod injector;
mod links;
mod report;
mod tally;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Parser;
use serde_json::json;
use wasmill_local::{Cassandra, CassandraOptions, Kafka, KafkaOptions};
use wasmill_tests::checker::{Faults, Input, Kind, Live};
use wasmill_tests::dice::{Dice, seed_of_the_clock};
use wasmill_tests::proxy::{Protocol, Proxy};
use wasmill_tests::site::Plot;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage, versions};

use fleet::Fleet;
use generate::Generator;
use injector::Injector;
use report::Report;
use tally::{Tally, Trouble};
use view::Shared;

/// The pipeline.
const PIPELINE: &str = "chaos";
/// The topic it reads.
const TOPIC: &str = "chaos";
/// Partitions of it.
const PARTITIONS: i32 = 6;
/// The append table.
const LOG: &str = "witness_log";
/// The upserted table.
const LATEST: &str = "witness_latest";
/// The keyspace, and the table in it.
const KEYSPACE: &str = "chaos";
const BY_ID: &str = "witness_by_id";
/// The topic it writes.
const MESSAGES: &str = "witness";
/// Session time-out of the group, as [`Stage`] writes it.
const SESSION: Duration = Duration::from_secs(6);
/// How long the rest may take when nothing is broken any more.
const REST: Duration = Duration::from_secs(120);
/// How often hosts are looked at.
const WATCH: Duration = Duration::from_millis(250);

/// Chaos on real servers: records flow while hosts, servers and links are broken; every sink is compared.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// How long things are broken.
    #[arg(long, default_value_t = 8.0, value_parser = above_zero)]
    minutes: f64,
    /// Records a second.
    #[arg(long, default_value_t = 1_500)]
    rate: u32,
    /// What is broken when; of the clock when not given.
    #[arg(long, default_value_t = seed_of_the_clock(), hide_default_value = true)]
    seed: u64,
    /// Where the report is kept too.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Where the logs of all hosts and servers are kept.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "no number".to_owned())?;
    match number > 0.0 {
        true => Ok(number),
        false => Err("not above 0".to_owned()),
    }
}

/// The servers, and the proxies in front of them.
struct Servers {
    stage: Stage,
    kafka: Kafka,
    cassandra: Cassandra,
    to_cassandra: Proxy,
}

fn servers() -> anyhow::Result<Servers> {
    let to_kafka = Proxy::new(Protocol::Kafka);
    let options = KafkaOptions {
        proxy: Some(to_kafka.address()),
        // By default a broker takes nothing from so far ahead.
        properties: vec![(
            "log.message.timestamp.after.max.ms".to_owned(),
            i64::MAX.to_string(),
        )],
        ..KafkaOptions::default()
    };
    let kafka = std::thread::spawn(move || Kafka::start(&options));
    let cassandra = Cassandra::start(&CassandraOptions::default())?;
    let kafka = kafka.join().expect("it does not panic")?;
    to_kafka.point_at(kafka.proxied());
    let to_cassandra = Proxy::to(Protocol::Cassandra, cassandra.contact_point().parse()?);
    Ok(Servers {
        stage: Stage::durable_on(&kafka.bootstrap()).behind(to_kafka),
        kafka,
        cassandra,
        to_cassandra,
    })
}

/// Tables of the guest. The number tells in which order rows came; no index of the log is unique, so that a row written
/// twice is seen and not refused.
async fn tables(stage: &Stage) {
    let sql = format!(
        "CREATE TABLE {LOG} (number bigserial, topic text NOT NULL, partition int NOT NULL, \
           \"offset\" bigint NOT NULL, index int NOT NULL, version text NOT NULL, id text NOT NULL, seq bigint, \
           note text); \
         CREATE INDEX ON {LOG} (partition, \"offset\"); \
         CREATE TABLE {LATEST} (id text PRIMARY KEY, seq bigint NOT NULL, partition int NOT NULL, \
           \"offset\" bigint NOT NULL, version text NOT NULL)"
    );
    stage.execute(&sql).await;
}

/// The host's config, one folder a host.
fn sites(servers: &Servers) -> Vec<Site> {
    let cassandra = servers.to_cassandra.address().to_string();
    let more = format!(
        "[cassandra.main]\nhosts = [{cassandra:?}]\nkeyspace = {KEYSPACE:?}\ncreate_keyspace = 1\n"
    );
    let site = |id| {
        let plot = Plot {
            more: more.clone(),
            ..Plot::new(id)
        };
        Site::new(&servers.stage, &plot)
    };
    ["one", "two", "three"].map(site).into()
}

fn overlay() -> String {
    format!(
        "bind.input.records = {{ kafka = \"main\", topic = {TOPIC:?} }}\n\
         bind.route.log = {{ connection = \"main\", table = {LOG:?} }}\n\
         bind.route.latest = {{ connection = \"main\", table = {LATEST:?} }}\n\
         bind.route.by_id = {{ connection = \"main\", table = {BY_ID:?} }}\n\
         bind.route.messages = {{ kafka = \"main\", topic = {MESSAGES:?} }}\n"
    )
}

#[tokio::main(worker_threads = 3)]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    eprintln!(
        "chaos run: {} minutes, seed {}",
        options.minutes, options.seed
    );
    let report = run(&options).await?;
    println!("{report}");
    if let Some(file) = &options.report {
        std::fs::write(file, report.to_string())?;
    }
    if !report.passed() {
        std::process::exit(1);
    }
    Ok(())
}

async fn run(options: &Options) -> anyhow::Result<Report> {
    let missing = Kafka::available()
        .and_then(|()| Cassandra::available())
        .err();
    if let Some(missing) = missing {
        bail!("{missing}; {}", missing.hint);
    }
    let versions: Vec<_> = (0..3).map(|index| versions::of("witness", index)).collect();
    let servers = tokio::task::block_in_place(servers)?;
    let stage = &servers.stage;
    stage.feed.topic(TOPIC, PARTITIONS).await;
    tables(stage).await;
    let fleet = Fleet::new(sites(&servers));
    for host in [0, 1] {
        fleet.start(host);
    }
    eventually(Duration::from_secs(60), "hosts are ready", async || {
        fleet.api(0).ready()?;
        fleet.api(1).ready()
    })
    .await;
    for version in &versions {
        fleet.api(0).upload_file(&version.file);
    }
    let request = json!({ "overlay": overlay() });
    let answer = fleet
        .api(0)
        .deploy(PIPELINE, &versions[0].plugin(), request);
    answer.map_err(anyhow::Error::msg)?.ok();

    let input = Input {
        run: u32::try_from(options.seed % 1_000_000).expect("below a million"),
    };
    let view = Shared::default();
    let (postgres, bootstrap) = (stage.postgres.url(), stage.bootstrap().to_owned());
    let cassandra = servers.cassandra.contact_point();
    let generator = Generator::start(&bootstrap, input, options.rate, view.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let live = Live::new(input, PARTITIONS);
    let eye = tokio::spawn(eye::watch(
        postgres.clone(),
        live,
        view.clone(),
        Arc::clone(&stop),
    ));
    let (watched, told) = (fleet.clone(), Arc::clone(&stop));
    let watcher = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            watched.look();
            std::thread::sleep(WATCH);
        }
    });
    let mut injector = Injector {
        stage: servers.stage,
        kafka: servers.kafka,
        cassandra: Some(servers.cassandra),
        to_cassandra: servers.to_cassandra,
        fleet: fleet.clone(),
        view: view.clone(),
        dice: Dice::new(options.seed),
        tally: Tally::default(),
        faults: Faults::default(),
        versions,
        deployed: (0, 0),
        begun: Instant::now(),
    };
    ensure!(
        injector.flows(Duration::from_secs(60)).await,
        "no record is processed:\n{}",
        fleet.since(fleet::Mark::start(0))
    );
    // From a settled group on; it is unsettled often enough later.
    let shared = || [0, 1].iter().all(|host| fleet.held(*host) > 0);
    injector.until(REST, shared).await;
    injector.begun = Instant::now();
    injector
        .run(Duration::from_secs_f64(options.minutes * 60.0))
        .await;

    injector.tell("the rest");
    let seconds = injector.begun.elapsed().as_secs_f64();
    let records = tokio::task::block_in_place(|| generator.stop()).map_err(anyhow::Error::msg)?;
    let total: i64 = records.values().sum();
    let mut faults = std::mem::take(&mut injector.faults);
    if !injector.ends(total, REST).await {
        let text = format!("{} of {total} records are done {REST:?} later", view.done());
        faults.add(Kind::Stalled, text);
    }
    let history = end::history(fleet.api(0))?;
    for host in fleet.up() {
        let drained = tokio::task::block_in_place(|| fleet.drain(host));
        injector.tell(format!("{} drained: {drained}", fleet.name(host)));
    }
    stop.store(true, Ordering::Relaxed);
    let live = eye.await?;
    watcher.join().expect("it does not panic");
    injector.tell("comparing everything");
    let places = end::Places {
        postgres: &postgres,
        cassandra: &cassandra,
        bootstrap: &bootstrap,
    };
    let end = end::check(&places, input, &records, &history).await?;
    if let Some(folder) = &options.logs {
        fleet.keep_logs(folder)?;
        injector.keep_logs(folder)?;
    }
    let codes = dead_codes(&live);
    injector.tally.add(Trouble::Dead, codes == 6, None);
    faults.extend(end.faults.clone());
    faults.extend(std::mem::take(&mut view.lock().faults));
    faults.extend(fleet.faults());
    Ok(Report::new(report::Parts {
        minutes: options.minutes,
        seed: options.seed,
        seconds,
        total,
        tally: injector.tally.clone(),
        peak: fleet.peak(),
        end,
        view: &view,
        faults,
    }))
}

/// How many kinds of dead letters were seen while records flowed.
fn dead_codes(live: &Live) -> usize {
    let dead: &BTreeMap<_, _> = live.dead();
    dead.len()
}
