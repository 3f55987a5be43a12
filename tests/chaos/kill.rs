//! The host is stopped, and killed, while records flow.

use std::time::{Duration, Instant};

use wasmill_tests::Stage;
use wasmill_tests::wait::eventually;

use super::flights::{LONG, balanced, ends_exact, flowing, passes};
use crate::scenario::flights::flights_in_postgres;

#[tokio::test]
async fn three_kills_lose_and_double_nothing() {
    let stage = Stage::new();
    let flow = flowing(&stage, 4).await;
    let mut host = stage.host(&flights_in_postgres());
    for kill in 1..=3 {
        passes(&stage, kill * 4_000).await;
        host.kill();
        balanced(&stage).await;
        host = stage.again();
    }
    ends_exact(&stage, &flow.stop()).await;
}

#[tokio::test]
async fn sigterm_drains_quickly_and_the_next_run_goes_on_without_a_gap() {
    let stage = Stage::new();
    let flow = flowing(&stage, 4).await;
    let host = stage.host(&flights_in_postgres());
    passes(&stage, 1_000).await;
    let asked = Instant::now();
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "the drain took {:?}",
        asked.elapsed()
    );
    balanced(&stage).await;
    let host = stage.again();
    ends_exact(&stage, &flow.stop()).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn a_zombie_that_wakes_up_after_its_successor_changes_nothing() {
    let stage = Stage::new();
    let flow = flowing(&stage, 2).await;
    let zombie = stage.host(&flights_in_postgres());
    passes(&stage, 1_000).await;
    zombie.signal("STOP");
    let mut successor = stage.again();
    let at = stage.position("flights").await;
    passes(&stage, at + 4_000).await;
    assert!(!zombie.stderr().contains("fenced"), "nobody is yet");
    zombie.signal("CONT");
    eventually(LONG, "the zombie is fenced", async || {
        let log = zombie.stderr();
        match log.contains("fenced") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
    ends_exact(&stage, &flow.stop()).await;
    balanced(&stage).await;
    successor.alive().unwrap();
}
