//! Versions of one plugin replaced under a stream of records, while the host is killed; and what has to hold then.
//!
//! The pipeline keeps one record in five and appends it with its place and its version, so the table alone says
//! whether a row was lost, doubled or written by two versions. `history` has to say the same, and the order of
//! versions in every partition has to follow the order of deployments. Another pipeline runs beside all the time.

mod ahead;
mod eye;
mod history;
mod running;
mod storm;

pub use history::against_history;

use std::collections::BTreeMap;
use std::iter::once;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use self::ahead::Ahead;
use self::eye::Eye;
use self::running::Running;
use crate::dice::seed_of_the_clock;
use crate::host::Usage;
use crate::latency::{self, Delays};
use crate::site::{Plot, Site};
use crate::stage::Stage;
use crate::steady::{self, Steady};
use crate::versioned::{self, Written};
use crate::versions::{self, Version};

/// Name of the pipeline that is swapped, and of its topic.
pub const PIPELINE: &str = "swapped";
/// Name of the pipeline beside it, of its topic and its table.
pub const BESIDE: &str = "beside";
/// Partitions of the topic.
pub const PARTITIONS: i32 = 4;
/// Records a second of the topic beside.
const BESIDE_RATE: u32 = 100;

/// What a run shall do.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Records before the first swap.
    #[arg(long = "records", value_name = "RECORDS", default_value_t = 2_000_000)]
    pub backlog: i64,
    /// Uploads of new versions that are timed until their rows are seen.
    #[arg(skip = 5u32)]
    pub timed: u32,
    /// Swaps in a row after that.
    #[arg(long, default_value_t = 100)]
    pub swaps: u32,
    /// Kills during those.
    #[arg(long, default_value_t = 8)]
    pub kills: u32,
    /// Different versions that they go through, round and round.
    #[arg(long, default_value_t = 10)]
    pub versions: u32,
    /// How many records there are at least to process while swaps go on: more are made when fewer wait.
    #[arg(long, default_value_t = 600_000)]
    pub ahead: i64,
    /// Of the moments of the kills; of the clock when not given.
    #[arg(long, default_value_t = seed_of_the_clock(), hide_default_value = true)]
    pub seed: u64,
    /// Whether to tell what happens on standard error.
    #[arg(skip = true)]
    pub tell: bool,
}

/// What a run showed.
#[derive(Debug)]
pub struct Outcome {
    /// Records in the topic.
    pub records: i64,
    /// Of the whole run, seconds.
    pub seconds: f64,
    /// Seconds from the first swap to the end of the last.
    pub swapping: f64,
    /// Records processed a second before the first swap.
    pub rate_before: f64,
    /// Records processed a second while versions were swapped without kills.
    pub rate_during: f64,
    /// From the start of an upload until every partition shows a row of it.
    pub upload_to_effect: Vec<Duration>,
    /// From the deploy request of a version that is there to its rows in every partition; without kills.
    pub deploy_to_effect: Vec<Duration>,
    /// From a kill until the swapped version is seen in every partition.
    pub kill_to_effect: Vec<Duration>,
    /// Deploy requests that were cut off by a kill, and went on all the same.
    pub survived: u32,
    /// Delays beside, before any swap.
    pub beside_before: Delays,
    /// Delays beside while versions were swapped without kills.
    pub beside_during: Delays,
    /// Greatest resident set of all hosts, and CPU of all.
    pub used: Usage,
    /// Deployments that were made, oldest first, as versions.
    pub deployed: Vec<String>,
    /// What does not hold; empty when all does.
    pub faults: Vec<String>,
    /// What was written.
    pub written: Written,
}

/// Runs it; faults of the product are in the outcome, panics are for what cannot go on.
pub async fn run(stage: &Stage, plot: &Plot, options: &Options) -> Outcome {
    let begin = Instant::now();
    let mut next_version = 0;
    let mut fresh = || {
        next_version += 1;
        versions::version(next_version - 1)
    };
    let Begun {
        mut running,
        ahead,
        beside,
        quiet,
    } = begun(stage, plot, options, &fresh()).await;

    // One: how it goes without swaps.
    running.passes(1).await;
    let speed = running.speed().await;
    running.passes(options.backlog / 8).await;
    let rate_before = speed.rate(&running).await;
    running.tell(format!("{rate_before:.0} records/s before the first swap"));

    // Two: new versions, uploaded and deployed into the stream.
    let calm = latency::now();
    let swapping = running.speed().await;
    let mut upload_to_effect = Vec::new();
    for _ in 0..options.timed {
        upload_to_effect.push(running.upload_and_deploy(&fresh()).await);
    }

    // Three: swaps in a row.
    let round: Vec<Version> = (0..options.versions).map(|_| fresh()).collect();
    for version in &round {
        running.site.api.upload_file(&version.file);
    }
    let storm = storm::swaps(&mut running, &round, &swapping).await;
    let swapping = swapping.since.elapsed().as_secs_f64();
    running.tell(format!(
        "all {} swaps done after {swapping:.1} s",
        options.swaps
    ));

    // Four: the rest, and what is there.
    let records = ahead.finish();
    let total: i64 = records.values().sum();
    running.passes(total).await;
    let history = running.site.api.history(PIPELINE);
    drop(beside);
    let mut faults = running.stops();
    running.tell("checking every row");
    let written = versioned::written(stage, &records).await;
    faults.extend(written.faults.clone());
    faults.extend(missing(stage, &records, &written).await);
    faults.extend(against_history(&written.runs, &history));
    Outcome {
        records: total,
        seconds: begin.elapsed().as_secs_f64(),
        swapping,
        rate_before,
        rate_during: storm.rate_before,
        upload_to_effect,
        deploy_to_effect: storm.deploy_to_effect,
        kill_to_effect: storm.kill_to_effect,
        survived: storm.survived,
        beside_before: latency::delays(stage, BESIDE, once(quiet..calm)).await,
        beside_during: latency::delays(stage, BESIDE, once(calm..storm.begun)).await,
        used: running.used,
        deployed: running.deployed,
        faults,
        written,
    }
}

/// A run whose first version is deployed.
struct Begun<'o> {
    running: Running<'o>,
    ahead: Ahead,
    /// Its records flow until it is dropped.
    beside: Steady,
    /// Since when nothing but records happens.
    quiet: i64,
}

/// Brings up a host and both pipelines, with the backlog there before the first record is processed.
async fn begun<'o>(stage: &Stage, plot: &Plot, options: &'o Options, first: &Version) -> Begun<'o> {
    stage.feed.topic(PIPELINE, PARTITIONS).await;
    stage.feed.topic(BESIDE, 2).await;
    versioned::create_table(stage).await;
    latency::create_table(stage, BESIDE).await;
    let ahead = Ahead::start(stage.bootstrap(), options.backlog, options.ahead);
    let backlog = options.backlog / i64::from(PARTITIONS) * i64::from(PARTITIONS);
    let site = Site::new(stage, plot);
    let (host, _) = site.up();
    site.api.upload_file(&first.file);
    site.api.upload_file(&latency::guest());
    let beside = Steady::start(
        stage.bootstrap(),
        BESIDE,
        BESIDE_RATE,
        steady::empty(2),
        steady::stamped,
    );
    let deploy = |pipeline: &str, plugin: &str, overlay| {
        let deployed = site
            .api
            .deploy(pipeline, plugin, json!({ "overlay": overlay }));
        deployed.unwrap_or_else(|error| panic!("{error}")).ok();
    };
    deploy(BESIDE, latency::PLUGIN, latency::overlay(BESIDE, BESIDE));
    while !ahead.thread.is_finished() && stage_ends(stage) < backlog {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let quiet = latency::now();
    deploy(PIPELINE, &first.plugin(), versioned::overlay(PIPELINE));
    let running = Running {
        eye: Eye::open(stage, Arc::clone(&ahead.behind)).await,
        site,
        host: Some(host),
        options,
        used: Usage::default(),
        deployed: vec![first.number.clone()],
    };
    Begun {
        running,
        ahead,
        beside,
        quiet,
    }
}

/// What the table lacks or has too much of, and dead letters.
async fn missing(stage: &Stage, records: &BTreeMap<i32, i64>, written: &Written) -> Vec<String> {
    let mut faults = Vec::new();
    let rows = versioned::rows_of(records);
    let appended = i64::try_from(written.rows).unwrap();
    if appended != rows {
        faults.push(format!("{appended} rows instead of {rows}"));
    }
    let dead = stage
        .number("SELECT count(*) FROM wasmill.dead_letter")
        .await;
    if dead > 0 {
        faults.push(format!("{dead} dead letters"));
    }
    faults
}

/// Records in the swapped topic.
fn stage_ends(stage: &Stage) -> i64 {
    stage.feed.ends(PIPELINE).values().sum()
}

/// Half are below, and the greatest.
pub fn median_and_max(times: &[Duration]) -> Option<(Duration, Duration)> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
}
