//! A host that starts while its brokers are away: it is alive, says what it waits for, can be told to stop, and does its
//! work once they come. What is wrong with its config ends it as ever.

use std::time::{Duration, Instant};

use serde_json::Value;
use wasmill_tests::artifact::wasmill;
use wasmill_tests::host::Host;
use wasmill_tests::records::Made;
use wasmill_tests::site::Plot;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage};

use crate::scenario::flights::flights_in_postgres;

const SOON: Duration = Duration::from_secs(60);

/// Until a host that is starting listens, on a busy machine.
const LISTENS: Duration = Duration::from_secs(10);

/// Until it says why it waits: a second, on a busy machine.
const SAYS: Duration = Duration::from_secs(4);

/// Until a host that only waits has ended.
const ENDS: Duration = Duration::from_secs(2);

/// A stage whose broker is away, and a host on it that is alive.
async fn waiting(plot: &Plot) -> (Stage, Site, Host) {
    let stage = Stage::new();
    stage.feed.topic("flights", 1).await;
    stage.feed.send("flights", &[Made::new("f-1", r#"{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}"#)]);
    stage.broker.as_ref().unwrap().set_available(false);
    let site = Site::new(&stage, plot);
    let mut host = site.start();
    eventually(LISTENS, "the host is alive", async || {
        host.alive()?;
        site.api.get("/live").map(drop)
    })
    .await;
    (stage, site, host)
}

/// Why it is not ready, once it says what befell it.
async fn reason(site: &Site) -> String {
    eventually(SAYS, "it says why it waits", async || {
        let answer = site.api.get("/ready")?;
        assert_eq!(answer.status, 503, "{answer:?}");
        let reason = answer.body["reasons"][0].as_str().unwrap().to_owned();
        let words = ["waiting for the control log since 20", "wasmill.control"];
        let said = words.iter().all(|word| reason.contains(word));
        said.then_some(reason.clone()).ok_or(reason)
    })
    .await
}

#[tokio::test]
async fn it_is_alive_says_what_it_waits_for_and_works_once_the_brokers_come() {
    let plot = Plot {
        more: flights_in_postgres(),
        ..Plot::new("early")
    };
    let (stage, site, mut host) = waiting(&plot).await;
    assert_eq!(site.api.get("/live").unwrap().status, 200);
    let reason = reason(&site).await;
    assert!(reason.contains(stage.bootstrap()), "{reason}");
    let refused = site.api.get("/v1/pipelines").unwrap();
    let said = refused.refused();
    assert!(said.starts_with("503 unavailable"), "{said}");
    assert!(said.contains("waiting for the control log"), "{said}");
    assert!(site.api.metrics().contains("wasmill_host_ready{} 0.0"));
    let status = wasmill()
        .arg("status")
        .env("WASMILL_HOST", site.api.base())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert_eq!(status.status.code(), Some(1), "{said}");
    assert!(
        said.contains("waiting for the control log") && said.contains("hint"),
        "{said}"
    );
    // Said soon, and not again and again.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let log = host.stderr();
    let words = log.matches("waiting for the control log").count();
    assert!((1..=5).contains(&words), "{words} times:\n{log}");

    stage.broker.as_ref().unwrap().set_available(true);
    site.wait_ready(&mut host);
    eventually(SOON, "the record arrives", async || {
        host.alive()?;
        stage.reaches("SELECT count(*) FROM flights", 1).await
    })
    .await;
    let status = site.api.status("flights").unwrap();
    assert_eq!(status["state"], Value::from("running"), "{status:#}");
    assert!(site.api.metrics().contains("wasmill_host_ready{} 1.0"));
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn it_ends_at_once_when_told_to_while_it_waits() {
    let (_stage, site, host) = waiting(&Plot::new("told")).await;
    reason(&site).await;
    let start = Instant::now();
    let exit = host.stop(SOON);
    let took = start.elapsed();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(took < ENDS, "{took:?}:\n{}", exit.stderr);
    assert!(site.api.get("/live").is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_before_anything_is_waited_for() {
    let (_stage, site, mut host) = waiting(&Plot::new("taken")).await;
    let exit = site.start().wait(LISTENS);
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    let address = format!("listen on 127.0.0.1:{}", site.port());
    assert!(exit.stderr.contains(&address), "{}", exit.stderr);
    assert!(!exit.stderr.contains("waiting"), "{}", exit.stderr);
    host.alive().unwrap();
}

#[tokio::test]
async fn a_control_topic_that_cannot_be_one_ends_it_when_the_brokers_come() {
    let stage = Stage::new();
    stage.feed.topic("wasmill.control", 2).await;
    let broker = stage.broker.as_ref().unwrap();
    broker.set_available(false);
    let site = Site::new(&stage, &Plot::new("wrong"));
    let host = site.start();
    eventually(LISTENS, "the host is alive", async || {
        site.api.get("/live").map(drop)
    })
    .await;
    reason(&site).await;
    broker.set_available(true);
    let exit = host.wait(SOON);
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    for says in ["it has 2 partitions", "hint"] {
        assert!(exit.stderr.contains(says), "{says}: {}", exit.stderr);
    }
}
