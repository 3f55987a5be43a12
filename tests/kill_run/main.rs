//! The big kill run: flights from real Kafka into Postgres and Cassandra while the host is killed again and
//! again, then both databases compared, every column of every row, with what `independent_hash.py` computes from
//! the input file.
//!
//! `kill_run --help` says what can be asked; progress on standard error, the report, in Markdown, on standard output.
//! Ends with 1 when anything differs.
#![allow(clippy::unwrap_used, reason = "a panic is how a check fails")]
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

mod generate;
mod look;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use generate::{PARTITIONS, Rest};
use report::{Kill, Report};
use wasmill_tests::Stage;
use wasmill_tests::artifact::{must, plugin, repository};
use wasmill_tests::dice::{Dice, seed_of_the_clock};
use wasmill_tests::hash::TableHash;
use wasmill_tests::host::{Host, Usage};
use wasmill_tests::ring::RealServers;
use wasmill_tests::stage::pipeline;

const TOPIC: &str = "flights";
const KEYSPACE: &str = "kill_run";
const PIPELINE: &str = "flights";

/// The most memory a host may hold, bytes.
const MOST_MEMORY: u64 = 200 << 20;

/// How long nothing may move before the run is given up.
const STALL: Duration = Duration::from_secs(120);

/// Flights into Postgres and Cassandra while the host is killed; both compared with what Python makes of the input.
#[derive(Debug, Parser)]
struct Options {
    /// Records in all.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Kills, spread over the records.
    #[arg(long, default_value_t = 10)]
    kills: u64,
    /// Of the records and of the moments of the kills; of the clock when not given.
    #[arg(long, default_value_t = seed_of_the_clock(), hide_default_value = true)]
    seed: u64,
    /// Where the input is written; a temporary folder when not given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let servers = RealServers::get().context("real servers are needed: see above")?;
    let stage = Stage::on(&servers.kafka.bootstrap());
    let folder = options.folder.clone().unwrap_or_else(|| stage.path(""));
    std::fs::create_dir_all(&folder)?;
    let input = folder.join("input.tsv");
    let mut dice = Dice::new(options.seed);
    progress(format!(
        "writing {} records (seed {})",
        options.records, options.seed
    ));
    generate::write(&input, options.records, &mut dice)?;
    let wanted = std::thread::spawn({
        let input = input.clone();
        move || independent(&input)
    });
    stage.feed.topic(TOPIC, i32::try_from(PARTITIONS)?).await;
    let config = format!(
        "{}\n{}",
        servers.connection(KEYSPACE),
        pipeline(PIPELINE, &plugin("plugins/flights"), "")
    );
    stage.config(&config);

    let (stage, records) = (&stage, options.records);
    let mut report = Report::new(options.records, options.seed);
    let start = Instant::now();
    let (held, until) = mpsc::channel();
    let rest = Rest {
        from: usize::try_from(held_from(records))?,
        until,
    };
    std::thread::scope(|threads| -> anyhow::Result<()> {
        let produced = threads.spawn(|| generate::produce(&input, &stage.feed, TOPIC, rest));
        let ran = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(run(
                stage,
                &options,
                &mut dice,
                &mut report,
                held,
            ))
        });
        let stored = produced
            .join()
            .expect("the producing thread does not panic")?;
        ensure!(
            stored as u64 == records,
            "{stored} of {records} records were produced"
        );
        ran
    })?;
    report.seconds = start.elapsed().as_secs_f64();

    progress("comparing");
    let wanted = wanted
        .join()
        .expect("the computing thread does not panic")?;
    let seen = look::tables(stage, &servers.session().await, KEYSPACE).await?;
    report.compare(
        &wanted,
        &seen,
        look::distinct_places(stage).await,
        look::log_rows(stage).await,
    );
    report.memory_limit(MOST_MEMORY);
    println!("{report}");
    if !report.passed() {
        std::process::exit(1);
    }
    Ok(())
}

/// The last of the records, from this one on, come after the last kill: no kill can come after the end.
fn held_from(records: u64) -> u64 {
    records - records.div_ceil(50)
}

/// Runs hosts until every record is behind the position, killing them at random moments on the way. With the last kill
/// it drops what holds the rest of the records.
async fn run(
    stage: &Stage,
    options: &Options,
    dice: &mut Dice,
    report: &mut Report,
    held: Sender<()>,
) -> anyhow::Result<()> {
    let mut held = (options.kills > 0).then_some(held);
    let total = i64::try_from(options.records)?;
    let mut host = stage.again();
    for kill in 0..options.kills {
        // Somewhere in the kill's share of the records.
        let share = options.records / (options.kills + 1);
        let moment = share * kill + share / 4 + dice.below(share);
        let moment = moment.min(held_from(options.records));
        reach(stage, &mut host, i64::try_from(moment)?).await?;
        tokio::time::sleep(Duration::from_millis(dice.below(250))).await;
        report.used(host.kill());
        let killed = Instant::now();
        if kill + 1 == options.kills {
            held = None;
        }
        let at = stage.position(PIPELINE).await;
        let balanced = look::balance(stage).await;
        host = stage.again();
        let resumed = resumed(stage, &mut host, at, killed).await?;
        progress(format!(
            "kill {} at {at} of {total}; moving again after {resumed:.1?}",
            kill + 1
        ));
        report.kills.push(Kill {
            at,
            balanced,
            resumed,
        });
    }
    drop(held);
    reach(stage, &mut host, total).await?;
    let used: Usage = host.usage();
    let exit = host.stop(Duration::from_secs(25));
    ensure!(
        exit.code == Some(0),
        "the last host ended with {:?}:\n{}",
        exit.code,
        exit.stderr
    );
    report.used(used);
    Ok(())
}

/// Waits until the positions add up to `moment`.
async fn reach(stage: &Stage, host: &mut Host, moment: i64) -> anyhow::Result<()> {
    let (mut last, mut moved, mut told) = (-1, Instant::now(), Instant::now());
    loop {
        let at = stage.position(PIPELINE).await;
        if at >= moment {
            return Ok(());
        }
        if let Err(why) = host.alive() {
            bail!("at {at}: {why}");
        }
        if at != last {
            (last, moved) = (at, Instant::now());
        }
        ensure!(
            moved.elapsed() < STALL,
            "nothing moved for {STALL:?} at {at}:\n{}",
            host.stderr()
        );
        if told.elapsed() > Duration::from_secs(5) {
            progress(format!("{at} records processed"));
            told = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn resumed(
    stage: &Stage,
    host: &mut Host,
    at: i64,
    killed: Instant,
) -> anyhow::Result<Duration> {
    reach(stage, host, at + 1).await?;
    Ok(killed.elapsed())
}

/// What Python makes of the input: table name to count and hash.
fn independent(input: &Path) -> anyhow::Result<BTreeMap<String, TableHash>> {
    let script = repository().join("tests/independent_hash.py");
    let output = must(Command::new("python3").arg(script).arg(input).arg(TOPIC));
    let text = String::from_utf8(output.stdout)?;
    let parse = |line: &str| -> anyhow::Result<_> {
        let parts: Vec<&str> = line.split(' ').collect();
        let [name, rows, sum] = parts[..] else {
            bail!("line {line:?} has not three parts")
        };
        Ok((
            name.to_owned(),
            TableHash {
                rows: rows.parse()?,
                sum: sum.parse()?,
            },
        ))
    };
    text.lines().map(parse).collect()
}

fn progress(text: impl std::fmt::Display) {
    eprintln!("kill run: {text}");
}
