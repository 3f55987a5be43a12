//! Somebody joins the group under the host's own instance id: another host, or what the host itself left behind.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use wasmill_tests::Stage;
use wasmill_tests::wait::eventually;

use super::flights::{balanced, ends_exact, flowing, more, passes};
use crate::scenario::flights::flights_in_postgres;

const SOON: Duration = Duration::from_secs(60);

/// A member with the instance id of the host of these tests, in the group of its pipeline.
fn namesake(bootstrap: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "wasmill.flights")
        .set("group.instance.id", "flights/test-host")
        .set("session.timeout.ms", "6000")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&["flights"]).unwrap();
    consumer
}

#[tokio::test]
async fn a_host_fenced_by_what_is_there_no_more_comes_back() {
    let stage = Stage::new();
    let flow = flowing(&stage, 2).await;
    let mut host = stage.host(&flights_in_postgres());
    passes(&stage, 500).await;
    let shadow = namesake(stage.bootstrap());
    eventually(SOON, "the host is fenced", async || {
        host.alive()?;
        shadow.poll(Duration::from_millis(10));
        if host.stderr().contains("fenced from the group") {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    // A static member does not say that it leaves: its session has to end.
    drop(shadow);
    let mut places = flow.stop();
    more(&stage, 1_000, &mut places);
    ends_exact(&stage, &places).await;
    balanced(&stage).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn a_host_whose_id_another_one_has_stops_and_says_so() {
    let stage = Stage::new();
    let _flow = flowing(&stage, 2).await;
    let mut host = stage.host(&flights_in_postgres());
    passes(&stage, 500).await;
    let other = namesake(stage.bootstrap());
    eventually(SOON, "the host has ended", async || {
        other.poll(Duration::from_millis(10));
        match host.alive() {
            Ok(()) => Err("it runs".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    host.wait(SOON).refused(&["give each host its own"]);
    balanced(&stage).await;
}
