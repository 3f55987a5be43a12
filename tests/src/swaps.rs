//! Versions of one plugin replaced under a stream of records, while the host is killed; and what has to hold then.
//!
//! The pipeline keeps one record in five and appends it with its place and its version, so the table alone says
//! whether a row was lost, doubled or written by two versions. `history` has to say the same, and the order of
//! versions in every partition has to follow the order of deployments. Another pipeline runs beside all the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls, Statement};

use crate::dice::{Dice, seed_of_the_clock};
use crate::host::{Host, Usage};
use crate::latency::{self, Delays};
use crate::records::Feed;
use crate::site::{Plot, Site};
use crate::stage::Stage;
use crate::steady;
use crate::versioned::{self, Run, Written};
use crate::versions::{self, Version};

/// Name of the pipeline that is swapped, and of its topic.
pub const PIPELINE: &str = "swapped";
/// Name of the pipeline beside it, of its topic and its table.
pub const BESIDE: &str = "beside";
/// Partitions of the topic.
pub const PARTITIONS: i32 = 4;
/// Records a second of the topic beside.
const BESIDE_RATE: u32 = 100;
/// How long nothing may move before a run is given up.
const STALL: Duration = Duration::from_secs(120);
/// How often the table is looked at.
const LOOK: Duration = Duration::from_millis(5);

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

/// Keeps records waiting: makes more whenever fewer than `ahead` are left.
struct Ahead {
    stop: Arc<AtomicBool>,
    behind: Arc<AtomicI64>,
    thread: std::thread::JoinHandle<BTreeMap<i32, i64>>,
}

impl Ahead {
    /// Makes `backlog` records first, then what is needed.
    fn start(bootstrap: &str, backlog: i64, ahead: i64) -> Self {
        let (stop, behind) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicI64::new(0)),
        );
        let (told, position) = (Arc::clone(&stop), Arc::clone(&behind));
        let bootstrap = bootstrap.to_owned();
        let thread = std::thread::spawn(move || {
            let feed = Feed::new(&bootstrap);
            let each = backlog / i64::from(PARTITIONS);
            let mut made = 0;
            let mut more = |to: i64| {
                for n in made..to {
                    for partition in 0..PARTITIONS {
                        feed.enqueue(PIPELINE, &versioned::record(partition, n), 0);
                    }
                }
                made = made.max(to);
                made
            };
            let mut count = more(each);
            feed.settle();
            while !told.load(Ordering::Relaxed) {
                let left = count * i64::from(PARTITIONS) - position.load(Ordering::Relaxed);
                if left < ahead {
                    count = more(count + ahead / 8);
                    feed.settle();
                } else {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            (0..PARTITIONS)
                .map(|partition| (partition, count))
                .collect()
        });
        Self {
            stop,
            behind,
            thread,
        }
    }

    fn finish(self) -> BTreeMap<i32, i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .expect("the producing thread does not panic")
    }
}

/// Looks at the table through one connection.
struct Eye {
    client: Client,
    seen: Statement,
    position: Statement,
    behind: Arc<AtomicI64>,
}

impl Eye {
    async fn open(stage: &Stage, behind: Arc<AtomicI64>) -> Self {
        let (client, connection) = tokio_postgres::connect(&stage.postgres.url(), NoTls)
            .await
            .unwrap();
        tokio::spawn(async move {
            connection.await.ok();
        });
        let seen = format!(
            "SELECT count(*) FROM generate_series(0, {}) AS p WHERE EXISTS \
             (SELECT 1 FROM {} AS t WHERE t.version = $1 AND t.partition = p)",
            PARTITIONS - 1,
            versioned::TABLE
        );
        let seen = client.prepare(&seen).await.unwrap();
        let position = format!(
            "SELECT coalesce(sum(next), 0)::int8 FROM wasmill.position WHERE pipeline = '{PIPELINE}'"
        );
        // The table is the host's: it may come later.
        let start = Instant::now();
        let position = loop {
            match client.prepare(&position).await {
                Ok(statement) => break statement,
                Err(error) => assert!(start.elapsed() < STALL, "{error}"),
            }
            tokio::time::sleep(LOOK).await;
        };
        Self {
            client,
            seen,
            position,
            behind,
        }
    }

    /// Records behind the positions.
    async fn position(&self) -> i64 {
        let at: i64 = self
            .client
            .query_one(&self.position, &[])
            .await
            .unwrap()
            .get(0);
        self.behind.store(at, Ordering::Relaxed);
        at
    }

    /// Partitions that show a row of the version.
    async fn partitions_of(&self, version: &str) -> i64 {
        self.client
            .query_one(&self.seen, &[&version])
            .await
            .unwrap()
            .get(0)
    }

    /// Highest offset of a version, by partition; −1 where it has none.
    async fn reached(&self, version: &str) -> BTreeMap<i32, i64> {
        let sql = format!(
            "SELECT p, (SELECT coalesce(max(\"offset\"), -1) FROM {} AS t WHERE t.version = $1 AND t.partition = p) \
             FROM generate_series(0, {}) AS p",
            versioned::TABLE,
            PARTITIONS - 1
        );
        let rows = self.client.query(&sql, &[&version]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Waits until every partition shows a row of the version beyond `after`.
    async fn effective(&self, host: &mut Host, version: &str, after: &BTreeMap<i32, i64>) {
        let start = Instant::now();
        let fresh = after.values().all(|offset| *offset < 0);
        loop {
            let all = if fresh {
                self.partitions_of(version).await == i64::from(PARTITIONS)
            } else {
                let now = self.reached(version).await;
                now.iter()
                    .all(|(partition, offset)| *offset > after[partition])
            };
            if all {
                return;
            }
            let at = self.position().await;
            host.alive().unwrap_or_else(|ended| panic!("{ended}"));
            assert!(
                start.elapsed() < STALL,
                "{version} is not seen in every partition; positions add up to {at}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the positions add up to `wanted`.
    async fn passes(&self, host: &mut Host, wanted: i64) {
        let (mut last, mut moved) = (-1, Instant::now());
        loop {
            let at = self.position().await;
            if at >= wanted {
                return;
            }
            host.alive().unwrap_or_else(|ended| panic!("{ended}"));
            if at != last {
                (last, moved) = (at, Instant::now());
            }
            assert!(
                moved.elapsed() < STALL,
                "nothing moved for {STALL:?} at {at}, {wanted} wanted"
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A run under way.
struct Running<'s> {
    site: Site,
    host: Option<Host>,
    eye: Eye,
    options: &'s Options,
    used: Usage,
    deployed: Vec<String>,
}

impl Running<'_> {
    fn host(&mut self) -> &mut Host {
        self.host
            .as_mut()
            .expect("a host runs but between kill and restart")
    }

    fn tell(&self, text: impl std::fmt::Display) {
        if self.options.tell {
            eprintln!("swap run: {text}");
        }
    }

    /// Asks for a version; panics unless it was done.
    fn deploy(&mut self, version: &Version) {
        let answer = self.site.api.deploy(PIPELINE, &version.plugin(), json!({}));
        answer.unwrap_or_else(|error| panic!("{error}")).ok();
        self.deployed.push(version.number.clone());
    }

    /// Uploads and deploys a version nobody has seen; the time until every partition shows it.
    async fn upload_and_deploy(&mut self, version: &Version) -> Duration {
        let bytes = std::fs::read(&version.file).unwrap();
        let start = Instant::now();
        let api = self.site.api.clone();
        api.upload(&bytes)
            .unwrap_or_else(|error| panic!("{error}"))
            .ok();
        let uploaded = start.elapsed();
        self.deploy(version);
        let asked = start.elapsed();
        self.wait_effective(version, &steady_before()).await;
        let seen = start.elapsed();
        self.tell(format!(
            "{}: uploaded after {uploaded:.0?}, deployed after {asked:.0?}, everywhere after {seen:.0?}",
            version.number
        ));
        seen
    }

    async fn wait_effective(&mut self, version: &Version, after: &BTreeMap<i32, i64>) {
        let host = self
            .host
            .as_mut()
            .expect("a host runs but between kill and restart");
        self.eye.effective(host, &version.number, after).await;
    }

    /// Kills the host while a version is being deployed, starts it again and sees to it that the version gets in;
    /// says how long that took, and whether the deployment had survived.
    async fn kill_during_deploy(
        &mut self,
        version: &Version,
        after: Duration,
        before: &BTreeMap<i32, i64>,
    ) -> (Duration, bool) {
        let (api, plugin) = (self.site.api.clone(), version.plugin());
        let revisions = self.revisions();
        let asked = std::thread::spawn(move || api.deploy(PIPELINE, &plugin, json!({})));
        tokio::time::sleep(after).await;
        let killed = Instant::now();
        let usage = self.host.take().expect("it runs").kill();
        self.add(usage);
        let answered = asked.join().expect("the asking thread does not panic");
        let (host, ready) = self.site.up();
        self.host = Some(host);
        let survived = self.revisions() > revisions;
        if let Ok(answer) = &answered
            && answer.status < 300
        {
            assert!(
                survived,
                "the host said that {} is deployed, and it is not: {answer:?}",
                version.number
            );
        }
        // Again, as whoever got no answer would ask.
        self.deploy(version);
        self.wait_effective(version, before).await;
        let seen = killed.elapsed();
        self.tell(format!(
            "killed {after:.0?} into the deployment of {}: ready again after {ready:.0?}, everywhere after {seen:.0?}{}",
            version.number,
            if survived { "; it had survived" } else { "" }
        ));
        (seen, survived)
    }

    fn revisions(&self) -> u64 {
        let status = self
            .site
            .api
            .status(PIPELINE)
            .unwrap_or_else(|error| panic!("{error}"));
        status["revision"]
            .as_u64()
            .expect("a status has a revision")
    }

    fn add(&mut self, usage: Usage) {
        self.used.cpu += usage.cpu;
        self.used.peak_memory = self.used.peak_memory.max(usage.peak_memory);
    }
}

/// Offsets of a version that has none.
fn steady_before() -> BTreeMap<i32, i64> {
    (0..PARTITIONS).map(|partition| (partition, -1)).collect()
}

/// Runs it; faults of the product are in the outcome, panics are for what cannot go on.
pub async fn run(stage: &Stage, plot: &Plot, options: &Options) -> Outcome {
    let begin = Instant::now();
    stage.feed.topic(PIPELINE, PARTITIONS).await;
    stage.feed.topic(BESIDE, 2).await;
    versioned::create_table(stage).await;
    latency::create_table(stage, BESIDE).await;
    let bootstrap = stage.bootstrap().to_owned();
    let ahead = Ahead::start(&bootstrap, options.backlog, options.ahead);
    let behind = Arc::clone(&ahead.behind);
    // The backlog is there before the first record is processed.
    let backlog = options.backlog / i64::from(PARTITIONS) * i64::from(PARTITIONS);
    let site = Site::new(stage, plot);
    let (host, _) = site.up();
    let mut next_version = 0;
    let mut fresh = || {
        next_version += 1;
        versions::version(next_version - 1)
    };
    let first = fresh();
    site.api.upload_file(&first.file);
    site.api.upload_file(&latency::guest());
    let beside = steady::Steady::start(
        &bootstrap,
        BESIDE,
        BESIDE_RATE,
        steady::empty(2),
        steady::stamped,
    );
    let overlay = json!({ "overlay": latency::overlay(BESIDE, BESIDE) });
    let deployed = site.api.deploy(BESIDE, latency::PLUGIN, overlay);
    deployed.unwrap_or_else(|error| panic!("{error}")).ok();
    while !ahead.thread.is_finished() && stage_ends(stage) < backlog {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let quiet = latency::now();
    let overlay = json!({ "overlay": versioned::overlay(PIPELINE) });
    let deployed = site.api.deploy(PIPELINE, &first.plugin(), overlay);
    deployed.unwrap_or_else(|error| panic!("{error}")).ok();
    let mut running = Running {
        eye: Eye::open(stage, behind).await,
        site,
        host: Some(host),
        options,
        used: Usage::default(),
        deployed: vec![first.number.clone()],
    };

    // One: how it goes without swaps.
    running.eye.passes(running.host.as_mut().unwrap(), 1).await;
    let (moved, start_at) = (Instant::now(), running.eye.position().await);
    let share = options.backlog / 8;
    running
        .eye
        .passes(running.host.as_mut().unwrap(), share)
        .await;
    let rate_before = rate(running.eye.position().await - start_at, moved.elapsed());
    running.tell(format!("{rate_before:.0} records/s before the first swap"));

    // Two: new versions, uploaded and deployed into the stream.
    let calm = latency::now();
    let (swapping, swap_at) = (Instant::now(), running.eye.position().await);
    let mut upload_to_effect = Vec::new();
    for _ in 0..options.timed {
        upload_to_effect.push(running.upload_and_deploy(&fresh()).await);
    }

    // Three: swaps in a row.
    let round: Vec<Version> = (0..options.versions).map(|_| fresh()).collect();
    for version in &round {
        running.site.api.upload_file(&version.file);
    }
    let mut dice = Dice::new(options.seed);
    let (mut deploy_to_effect, mut kill_to_effect, mut survived) = (Vec::new(), Vec::new(), 0);
    let spared = if options.kills == 0 {
        options.swaps
    } else {
        options.swaps / 3
    };
    let between = ((options.swaps - spared) / options.kills.max(1)).max(1);
    let mut kills = 0;
    let (mut storm, mut rate_during) = (latency::now(), 0.0);
    for swap in 0..options.swaps {
        let version = &round[usize::try_from(swap).unwrap() % round.len()];
        let before = running.eye.reached(&version.number).await;
        if swap == spared {
            storm = latency::now();
            rate_during = rate(running.eye.position().await - swap_at, swapping.elapsed());
            running.tell(format!(
                "{spared} swaps without kills done; {rate_during:.0} records/s meanwhile"
            ));
        }
        if swap >= spared && kills < options.kills && (swap - spared) % between == 0 {
            kills += 1;
            let moment = Duration::from_millis(dice.below(120));
            let (took, lived) = running.kill_during_deploy(version, moment, &before).await;
            kill_to_effect.push(took);
            survived += u32::from(lived);
            continue;
        }
        let asked = Instant::now();
        running.deploy(version);
        // Some follow at once, before anybody has seen the one before.
        if dice.below(4) > 0 || swap + 1 == options.swaps {
            running.wait_effective(version, &before).await;
            if swap < spared {
                deploy_to_effect.push(asked.elapsed());
            }
        }
    }
    if spared == options.swaps {
        storm = latency::now();
        rate_during = rate(running.eye.position().await - swap_at, swapping.elapsed());
    }
    let swapping = swapping.elapsed().as_secs_f64();
    running.tell(format!(
        "all {} swaps done after {swapping:.1} s",
        options.swaps
    ));

    // Four: the rest, and what is there.
    let records = ahead.finish();
    let total: i64 = records.values().sum();
    running
        .eye
        .passes(running.host.as_mut().unwrap(), total)
        .await;
    let history = running.site.api.history(PIPELINE);
    drop(beside);
    let usage = running.host().usage();
    running.add(usage);
    let exit = running
        .host
        .take()
        .expect("it runs")
        .stop(Duration::from_secs(25));
    let mut faults = Vec::new();
    if exit.code != Some(0) {
        faults.push(format!("the host ended with {:?}", exit.code));
    }
    running.tell("checking every row");
    let written = versioned::written(stage, &records).await;
    faults.extend(written.faults.clone());
    let rows = versioned::rows_of(&records);
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
    faults.extend(against_history(&written.runs, &history));
    let beside_before = latency::delays(stage, BESIDE, quiet, calm).await;
    let beside_during = latency::delays(stage, BESIDE, calm, storm).await;
    Outcome {
        records: total,
        seconds: begin.elapsed().as_secs_f64(),
        swapping,
        rate_before,
        rate_during,
        upload_to_effect,
        deploy_to_effect,
        kill_to_effect,
        survived,
        beside_before,
        beside_during,
        used: running.used,
        deployed: running.deployed,
        faults,
        written,
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn rate(records: i64, time: Duration) -> f64 {
    records as f64 / time.as_secs_f64().max(1e-9)
}

/// Records in the swapped topic.
fn stage_ends(stage: &Stage) -> i64 {
    stage.feed.ends(PIPELINE).values().sum()
}

/// What `history` says otherwise than the rows: each run of rows lies in one segment of its version, segments leave
/// no gap, and the order of versions is the order of revisions.
pub fn against_history(runs: &BTreeMap<i32, Vec<Run>>, history: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let revisions: Vec<&str> = history["revisions"]
        .as_array()
        .into_iter()
        .flatten()
        .rev()
        .filter_map(|revision| revision["plugin"].as_str()?.split_once('@'))
        .map(|(_, version)| version)
        .collect();
    if revisions.is_empty() {
        faults.push("history has no revisions".to_owned());
    }
    for (partition, runs) in runs {
        let segments = segments(history, *partition);
        for pair in segments.windows(2) {
            if pair[0].1 != Some(pair[1].0) {
                faults.push(format!(
                    "history of partition {partition}: {:?} is followed by {:?}",
                    pair[0], pair[1]
                ));
            }
        }
        let mut revisions = revisions.iter();
        for run in runs {
            let covers = |segment: &&(i64, Option<i64>, String)| {
                segment.0 <= run.first && segment.1.is_none_or(|to| run.last < to)
            };
            match segments.iter().find(covers) {
                Some(segment) if segment.2 == run.version => {}
                Some(segment) => faults.push(format!(
                    "partition {partition}: {run:?} was written, history says {segment:?}"
                )),
                None => faults.push(format!(
                    "partition {partition}: no segment of history holds {run:?}"
                )),
            }
            if !revisions.any(|version| *version == run.version) {
                faults.push(format!(
                    "partition {partition}: {run:?} does not follow the order of revisions"
                ));
                break;
            }
        }
    }
    faults
}

/// `(from, to, version)` of a partition, in order.
fn segments(history: &Value, partition: i32) -> Vec<(i64, Option<i64>, String)> {
    let all = history["segments"].as_array().into_iter().flatten();
    let mut of: Vec<_> = all
        .filter(|segment| segment["partition"] == partition)
        .filter_map(|segment| {
            let version = segment["plugin"].as_str()?.split_once('@')?.1.to_owned();
            Some((segment["from"].as_i64()?, segment["to"].as_i64(), version))
        })
        .collect();
    of.sort_by_key(|segment| segment.0);
    // A host that claims a partition anew says again who processes it.
    of.dedup_by(|next, before| {
        let same = before.2 == next.2 && before.1 == Some(next.0);
        if same {
            before.1 = next.1;
        }
        same
    });
    of
}

/// Half are below, and the greatest.
pub fn median_and_max(times: &[Duration]) -> Option<(Duration, Duration)> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(version: &str, first: i64, last: i64) -> Run {
        Run {
            version: version.to_owned(),
            first,
            last,
        }
    }

    fn history(segments: &[(i64, Option<i64>, &str)], revisions: &[&str]) -> Value {
        let segments: Vec<Value> = segments
            .iter()
            .map(|(from, to, version)| {
                json!({ "partition": 0, "from": from, "to": to, "plugin": format!("p@{version}") })
            })
            .collect();
        let revisions: Vec<Value> = revisions
            .iter()
            .rev()
            .map(|version| json!({ "plugin": format!("p@{version}") }))
            .collect();
        json!({ "segments": segments, "revisions": revisions })
    }

    #[test]
    fn rows_that_agree_with_history_pass() {
        let runs = BTreeMap::from([(0, vec![run("a", 0, 10), run("b", 15, 20), run("a", 25, 30)])]);
        let good = history(
            &[
                (0, Some(8), "a"),
                (8, Some(12), "a"),
                (12, Some(22), "b"),
                (22, None, "a"),
            ],
            &["a", "c", "b", "a"],
        );
        assert_eq!(against_history(&runs, &good), Vec::<String>::new());
    }

    #[test]
    fn rows_that_history_does_not_know_are_faults() {
        let runs = BTreeMap::from([(0, vec![run("a", 0, 10), run("b", 15, 20)])]);
        let late = history(&[(0, Some(16), "a"), (16, None, "b")], &["a", "b"]);
        assert_eq!(against_history(&runs, &late).len(), 1);
        let gap = history(&[(0, Some(12), "a"), (13, None, "b")], &["a", "b"]);
        assert_eq!(against_history(&runs, &gap).len(), 1);
        let other = history(&[(0, Some(12), "a"), (12, None, "b")], &["b", "a"]);
        assert_eq!(against_history(&runs, &other).len(), 1);
    }
}
