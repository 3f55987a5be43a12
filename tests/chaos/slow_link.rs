//! A sink that is slow, that stalls, that answers no more: partitions stay where they are, memory stays bounded, and
//! it goes on by itself.

use std::time::{Duration, Instant};

use wasmill_tests::Stage;
use wasmill_tests::expected::shipped_flight;
use wasmill_tests::flow::{Flow, Pace};
use wasmill_tests::host::Host;
use wasmill_tests::proxy::Link;
use wasmill_tests::records::{Made, Place};
use wasmill_tests::wait::eventually;

use super::flights::{TOPIC, balanced, passes, total};
use crate::scenario::flights::flights_in_postgres;

/// The group's session time-out in these tests.
const SESSION: Duration = Duration::from_secs(6);

/// Within which it has to go on once the link is good again.
const HEALED: Duration = Duration::from_secs(6 + 15);

/// Each record is padded, so that far more arrives in a session than a host may keep in memory.
const PADDING: usize = 8_000;
const PACE: Pace = Pace {
    backlog: 5_000,
    rate: 1_500,
};

/// By how much a host may grow while nothing goes out, bytes.
const GROWTH: u64 = 64 << 20;

async fn padded() -> (Stage, Flow, Host) {
    let stage = Stage::linked();
    stage.feed.topic(TOPIC, 2).await;
    let padding = "x".repeat(PADDING);
    let flow = Flow::start(stage.bootstrap(), TOPIC, PACE, move |n| {
        let (id, text) = shipped_flight(n);
        let text = text.replacen('{', &format!("{{\"padding\":\"{padding}\","), 1);
        Made::new(id, text)
    });
    let host = stage.host(&flights_in_postgres());
    passes(&stage, 1).await;
    (stage, flow, host)
}

/// Looks at the host for that long; the greatest memory it had, bytes.
async fn watch(host: &mut Host, time: Duration) -> u64 {
    let start = Instant::now();
    let mut most = 0;
    while start.elapsed() < time {
        host.alive().unwrap();
        most = most.max(host.resident());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    most
}

/// Partitions were assigned once and never taken away.
fn stayed(host: &Host) {
    let log = host.stderr();
    let moved = log
        .lines()
        .filter(|line| line.contains("revoked") || line.contains(" lost"))
        .collect::<Vec<_>>();
    assert_eq!(moved, Vec::<&str>::new());
    assert_eq!(log.matches("assigned").count(), 1, "{log}");
}

/// Memory stayed within its bound; bytes.
fn bounded(before: u64, most: u64) {
    assert!(
        most < before + GROWTH,
        "{} MB became {} MB",
        before >> 20,
        most >> 20
    );
}

/// Far more than it may keep in memory waited beyond where it stood.
fn waited(places: &[Place], at: i64) {
    let bytes = u64::try_from(total(places) - at).unwrap() * PADDING as u64;
    assert!(bytes > GROWTH, "only {} MB waited", bytes >> 20);
}

/// Waits for the end; every record became a row, once.
async fn ends(stage: &Stage, places: &[Place]) {
    passes(stage, total(places)).await;
    balanced(stage).await;
    let doubled = "SELECT count(*) - count(DISTINCT (partition, \"offset\")) FROM flight_log";
    assert_eq!(stage.number(doubled).await, 0);
}

async fn goes_on(stage: &Stage, at: i64) {
    eventually(HEALED, "it goes on", async || {
        match stage.position("flights").await {
            now if now > at => Ok(()),
            now => Err(format!("at {now}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_slow_and_then_stalled_postgres_moves_no_partition_and_fills_no_memory() {
    let (stage, flow, mut host) = padded().await;
    let link = &stage.links.as_ref().unwrap().postgres;
    link.set(Link::limited(100_000));
    let before = host.resident();
    let most = watch(&mut host, SESSION).await;
    link.set(Link::stalled());
    let most = most.max(watch(&mut host, SESSION * 3 / 2).await);
    let counts = link.counts();
    assert!(counts.limited > 0 && counts.stalled > 0, "{counts:?}");
    let at = stage.position("flights").await;
    let places = flow.stop();
    waited(&places, at);
    link.heal();
    goes_on(&stage, at).await;
    bounded(before, most);
    stayed(&host);
    ends(&stage, &places).await;
}

#[tokio::test]
async fn a_postgres_that_answers_no_more_moves_no_partition_and_is_found_again() {
    let (stage, flow, mut host) = padded().await;
    let link = &stage.links.as_ref().unwrap().postgres;
    let before = host.resident();
    link.set(Link::black_hole());
    let most = watch(&mut host, SESSION * 2).await;
    let at = stage.position("flights").await;
    let places = flow.stop();
    waited(&places, at);
    // The host may have been waiting for a reply.
    let counts = link.counts();
    assert!(counts.requests_swallowed + counts.replies_swallowed > 0);
    link.heal();
    goes_on(&stage, at).await;
    bounded(before, most);
    stayed(&host);
    ends(&stage, &places).await;
}
