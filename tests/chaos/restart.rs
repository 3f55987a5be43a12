//! How soon rows flow again after a kill -9, on real Kafka: the same host started again, and another host that takes
//! over. Bounds are promises; what was measured is printed (`--nocapture`).

use std::time::{Duration, Instant};

use wasmill_local::{Kafka, KafkaOptions};
use wasmill_tests::Stage;
use wasmill_tests::host::Host;
use wasmill_tests::skip::skip;
use wasmill_tests::wait::eventually;

use super::flights::{balanced, ends_exact, flowing, passes};
use super::two_hosts::second;
use crate::scenario::flights::flights_in_postgres;

/// From the start of the new process to its first committed row.
const RESTARTED: Duration = Duration::from_secs(3);
/// From the kill to the first row of another host: the session time-out of the group, and as long again as a restart.
const TAKEN_OVER: Duration = Duration::from_secs(6 + 3);
/// Kills of the host that comes back.
const KILLS: usize = 5;
const PARTITIONS: i32 = 4;

/// A stage on real Kafka; `None` where there is none.
fn on_kafka() -> Option<(Kafka, Stage)> {
    if let Err(missing) = Kafka::available() {
        skip(format_args!("{missing}; {}", missing.hint));
        return None;
    }
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    let stage = Stage::on(&kafka.bootstrap());
    Some((kafka, stage))
}

/// Where each partition stands.
async fn positions(stage: &Stage) -> Vec<i64> {
    let sql = "SELECT next FROM wasmill.position ORDER BY partition";
    let rows = stage.rows(sql).await;
    rows.iter().map(|row| row.get(0)).collect()
}

/// Where each partition stands once these do not move: a commit that was on its way when the host died may still be done.
async fn at_rest(stage: &Stage, partitions: &[usize]) -> Vec<i64> {
    let mut before = positions(stage).await;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = positions(stage).await;
        if partitions.iter().all(|at| now[*at] == before[*at]) {
            return now;
        }
        before = now;
    }
}

/// How long after `since` one of `partitions` stands elsewhere than in `before`: a row and the position are one
/// commit.
async fn first_row(
    stage: &Stage,
    since: Instant,
    before: &[i64],
    partitions: &[usize],
) -> Duration {
    loop {
        let now = positions(stage).await;
        let took = since.elapsed();
        if partitions.iter().any(|at| now[*at] > before[*at]) {
            return took;
        }
        assert!(took < Duration::from_secs(60), "no row within {took:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The host is killed while records flow and started again at once; how long until each first row.
async fn restarts(stage: &Stage) -> (Host, Vec<Duration>) {
    let mut host = stage.host(&flights_in_postgres());
    let all: Vec<usize> = (0..PARTITIONS as usize).collect();
    let mut took = Vec::new();
    for _ in 0..KILLS {
        let done = stage.position("flights").await;
        passes(stage, done + 300).await;
        host.kill();
        let before = at_rest(stage, &all).await;
        balanced(stage).await;
        let since = Instant::now();
        host = stage.again();
        took.push(first_row(stage, since, &before, &all).await);
    }
    (host, took)
}

fn median(took: &[Duration]) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

fn say(what: &str, took: &[Duration]) {
    let worst = took.iter().max().unwrap();
    eprintln!(
        "{what}: median {:.2?}, worst {worst:.2?}: {took:.2?}",
        median(took)
    );
}

#[tokio::test]
async fn a_killed_host_that_starts_again_writes_rows_within_three_seconds() {
    let Some((_kafka, stage)) = on_kafka() else {
        return;
    };
    let flow = flowing(&stage, PARTITIONS).await;
    let (host, took) = restarts(&stage).await;
    say("kill -9, started again, real Kafka", &took);
    ends_exact(&stage, &flow.stop()).await;
    balanced(&stage).await;
    assert!(took.iter().all(|took| *took <= RESTARTED), "{took:?}");
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn the_same_on_the_development_broker() {
    let stage = Stage::new();
    let flow = flowing(&stage, PARTITIONS).await;
    let (_host, took) = restarts(&stage).await;
    say("kill -9, started again, development broker", &took);
    ends_exact(&stage, &flow.stop()).await;
    balanced(&stage).await;
    assert!(took.iter().all(|took| *took <= RESTARTED), "{took:?}");
}

#[tokio::test]
async fn another_host_takes_over_within_session_timeout_and_three_seconds() {
    let Some((_kafka, stage)) = on_kafka() else {
        return;
    };
    let flow = flowing(&stage, PARTITIONS).await;
    let first = stage.host(&flights_in_postgres());
    passes(&stage, 300).await;
    let other = second(&stage);
    // Whoever owns a partition has claimed it: a second claim says that the partition moved.
    let what = "the second host claims a partition and leaves one to the first";
    let kept: Vec<usize> = eventually(Duration::from_secs(60), what, async || {
        let sql = "SELECT partition FROM wasmill.position WHERE epoch = 1";
        let rows = stage.try_rows(sql).await?;
        let kept = rows
            .iter()
            .map(|row| usize::try_from(row.get::<_, i32>(0)).unwrap());
        let kept: Vec<usize> = kept.collect();
        if (1..PARTITIONS as usize).contains(&kept.len()) {
            Ok(kept)
        } else {
            Err(format!("{} of {PARTITIONS} left", kept.len()))
        }
    })
    .await;
    let done = stage.position("flights").await;
    passes(&stage, done + 300).await;
    let since = Instant::now();
    first.kill();
    let before = at_rest(&stage, &kept).await;
    let mut took = Vec::new();
    for partition in &kept {
        took.push(first_row(&stage, since, &before, &[*partition]).await);
    }
    say("kill -9, taken over by another host, real Kafka", &took);
    ends_exact(&stage, &flow.stop()).await;
    balanced(&stage).await;
    assert!(took.iter().all(|took| *took <= TAKEN_OVER), "{took:?}");
    // Before the dead one's session can have ended nobody else may have its partitions: it was alive at the last beat,
    // at most three seconds before.
    assert!(
        took.iter().min().unwrap() > &Duration::from_secs(2),
        "{took:?}"
    );
    assert_eq!(other.stop(Duration::from_secs(25)).code, Some(0));
}
