//! Versions swapped under a big backlog on real Kafka and Postgres, while the host is killed again and again; every
//! row checked afterwards.
//!
//! `swap_run --help` says what can be asked; progress on standard error, the report, in Markdown, on standard output.
//! Ends with 1 when anything does not hold.
#![allow(clippy::unwrap_used, reason = "a panic is how a check fails")]
#![expect(clippy::print_stdout, reason = "the report goes to standard output")]

use std::time::Duration;

use clap::{ArgAction, Parser};
use wasmill_local::{Kafka, KafkaOptions};
use wasmill_tests::Stage;
use wasmill_tests::site::Plot;
use wasmill_tests::swaps::{self, Options, Outcome, median_and_max};

/// An uploaded version has to be at work within this.
const EFFECT: Duration = Duration::from_secs(2);

/// The most memory a host may hold, bytes.
const MOST_MEMORY: u64 = 400 << 20;

/// What swaps may add to the delay of records beside: twice as slow, or this where that is little.
const DISTURBANCE: Duration = Duration::from_millis(250);

/// Versions swapped under a backlog while the host is killed; every row checked.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// On Apache Kafka; otherwise on the broker inside.
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    real: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { options, real } = Arguments::parse();
    let kafka = if real {
        Some(Kafka::start(&KafkaOptions::default())?)
    } else {
        None
    };
    let stage = match &kafka {
        Some(kafka) => Stage::on(&kafka.bootstrap()),
        None => Stage::new(),
    };
    let outcome = swaps::run(&stage, &Plot::new("swapper"), &options).await;
    let checks = checks(&options, &outcome);
    print(&options, &outcome, &checks);
    if checks.iter().any(|(_, held)| !held) {
        std::process::exit(1);
    }
    Ok(())
}

fn checks(options: &Options, outcome: &Outcome) -> Vec<(String, bool)> {
    let slowest = outcome.upload_to_effect.iter().max().copied();
    let beside = (outcome.beside_before.p99, outcome.beside_during.p99);
    let mut checks = vec![
        (
            format!(
                "{} rows, each once, by one version, as its record says, and as `history` says",
                outcome.written.rows
            ),
            outcome.faults.is_empty(),
        ),
        (
            format!(
                "upload + deploy takes effect within {EFFECT:?}: the slowest took {slowest:.0?}"
            ),
            slowest.is_some_and(|slowest| slowest <= EFFECT),
        ),
        (
            format!(
                "kills: {} of {}",
                outcome.kill_to_effect.len(),
                options.kills
            ),
            outcome.kill_to_effect.len() == usize::try_from(options.kills).unwrap(),
        ),
        (
            format!(
                "p99 beside: {:.0?} during swaps, {:.0?} before",
                beside.1, beside.0
            ),
            beside.1 <= (beside.0 * 2).max(beside.0 + DISTURBANCE),
        ),
        (
            format!(
                "greatest resident memory {} MB, limit {} MB",
                outcome.used.peak_memory >> 20,
                MOST_MEMORY >> 20
            ),
            outcome.used.peak_memory > 0 && outcome.used.peak_memory < MOST_MEMORY,
        ),
    ];
    checks.extend(outcome.faults.iter().map(|fault| (fault.clone(), false)));
    checks
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(options: &Options, outcome: &Outcome, checks: &[(String, bool)]) {
    let passed = checks.iter().all(|(_, held)| *held);
    let verdict = if passed { "passed" } else { "FAILED" };
    println!(
        "# Swap run: {} records, {} swaps, {} kills, {verdict}\n",
        outcome.records, options.swaps, options.kills
    );
    println!(
        "Seed {}; {:.0} s; {:.1} swaps/s over {:.1} s, kills included; {:.0} records/s before the first swap, {:.0} \
         while versions were swapped without kills; {} of {} deployments cut off by a kill had been kept.\n",
        options.seed,
        outcome.seconds,
        f64::from(options.swaps + options.timed) / outcome.swapping,
        outcome.swapping,
        outcome.rate_before,
        outcome.rate_during,
        outcome.survived,
        options.kills,
    );
    let cpu = outcome.used.cpu * 1e6 / outcome.records as f64;
    println!(
        "CPU of all hosts {:.1} s, {cpu:.2} µs a record; beside: {} before, {} during swaps.\n",
        outcome.used.cpu, outcome.beside_before, outcome.beside_during
    );
    println!(
        "| until every partition shows the version | median | slowest | of |\n|---|---|---|---|"
    );
    let times = [
        ("from the start of its upload", &outcome.upload_to_effect),
        ("from the request to deploy it", &outcome.deploy_to_effect),
        ("from a kill during its deployment", &outcome.kill_to_effect),
    ];
    for (what, times) in times {
        if let Some((median, max)) = median_and_max(times) {
            println!("| {what} | {median:.0?} | {max:.0?} | {} |", times.len());
        }
    }
    println!("\n| check | |\n|---|---|");
    for (text, held) in checks {
        println!(
            "| {text} | {} |",
            if *held { "holds" } else { "**BROKEN**" }
        );
    }
}
