//! Database and broker go away and come back while records flow: the host waits and goes on.

use std::time::Duration;

use wasmill_tests::Stage;
use wasmill_tests::wait::eventually;

use super::flights::{ends_exact, flowing, more, passes};
use crate::scenario::flights::flights_in_postgres;

#[tokio::test]
async fn postgres_is_killed_twice_and_the_tables_end_exact() {
    let mut stage = Stage::new();
    let flow = flowing(&stage, 4).await;
    let mut host = stage.host(&flights_in_postgres());
    for round in 1..=2 {
        passes(&stage, round * 5_000).await;
        stage.postgres.kill().unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        host.alive().unwrap();
        stage.postgres.restart().unwrap();
    }
    ends_exact(&stage, &flow.stop()).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn backends_are_terminated_again_and_again() {
    let stage = Stage::new();
    let flow = flowing(&stage, 4).await;
    let mut host = stage.host(&flights_in_postgres());
    for round in 1..=5 {
        passes(&stage, round * 3_000).await;
        let sql = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        // Right after the last round the host may still be on its way back.
        eventually(
            Duration::from_secs(30),
            "a backend is there to terminate",
            async || {
                let terminated: i64 = stage.try_rows(sql).await?[0].get(0);
                if terminated > 0 {
                    Ok(())
                } else {
                    Err("none".to_owned())
                }
            },
        )
        .await;
    }
    ends_exact(&stage, &flow.stop()).await;
    host.alive().unwrap();
}

#[tokio::test]
async fn the_broker_goes_away_and_returns() {
    let stage = Stage::new();
    let flow = flowing(&stage, 4).await;
    let broker = stage.broker.as_ref().unwrap();
    let mut host = stage.host(&flights_in_postgres());
    passes(&stage, 5_000).await;
    broker.set_available(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    host.alive().unwrap();
    broker.set_available(true);
    passes(&stage, 8_000).await;
    broker.drop_connections();
    // It is not only the rest of what was fetched: new records arrive as well.
    let mut places = flow.stop();
    more(&stage, 100, &mut places);
    ends_exact(&stage, &places).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn a_frozen_postgres_is_waited_for() {
    let mut stage = Stage::new();
    let flow = flowing(&stage, 2).await;
    let mut host = stage.host(&flights_in_postgres());
    passes(&stage, 3_000).await;
    stage.postgres.pause().unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    host.alive().unwrap();
    stage.postgres.resume().unwrap();
    eventually(
        Duration::from_secs(60),
        "the host is still there",
        async || host.alive(),
    )
    .await;
    ends_exact(&stage, &flow.stop()).await;
}

#[tokio::test]
async fn a_broker_that_is_away_for_longer_than_the_session_stops_nobody() {
    let stage = Stage::new();
    let flow = flowing(&stage, 4).await;
    let broker = stage.broker.as_ref().unwrap();
    let mut host = stage.host(&flights_in_postgres());
    passes(&stage, 2_000).await;
    broker.set_available(false);
    eventually(
        Duration::from_secs(60),
        "the host's session ends",
        async || {
            host.alive()?;
            if host.stderr().contains("WARN lost") {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        },
    )
    .await;
    broker.set_available(true);
    let mut places = flow.stop();
    more(&stage, 100, &mut places);
    ends_exact(&stage, &places).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}
