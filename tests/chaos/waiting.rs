//! A server goes away under a running pipeline: its status names it at once, with what came back, and forgets it once it
//! is back. The host stays ready all the while: it is asked what is wrong.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::Value;
use wasmill_local::{Cassandra, CassandraOptions};
use wasmill_tests::artifact::wasmill;
use wasmill_tests::flow::{Flow, Pace};
use wasmill_tests::host::Host;
use wasmill_tests::proxy::{Protocol, Proxy};
use wasmill_tests::ring::connection;
use wasmill_tests::site::Plot;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Site, Stage};

use super::flights::{flowing, passes};
use super::servers_killed::{flights_everywhere, goes_on, real_servers};
use crate::scenario::flights::flights_in_postgres;

/// From a cut to its name in the status.
const AT_ONCE: Duration = Duration::from_secs(5);
/// From the cure to the end of the wait: lanes pause up to as long as the server was away.
const SOON: Duration = Duration::from_secs(10);
/// Where time-outs of a driver come first.
const LATER: Duration = Duration::from_secs(30);

/// An address where nobody listens.
fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Nobody listens at the other end of the link any more.
fn cut(link: &Proxy) {
    link.point_at(nowhere());
    link.close_all();
}

/// The pipeline `flights` as `wasmill status --json` tells.
fn status(site: &Site) -> Value {
    let said = wasmill()
        .args(["status", "flights", "--json"])
        .env("WASMILL_HOST", site.api.base())
        .output()
        .unwrap();
    serde_json::from_slice(&said.stdout).unwrap()
}

/// What it waits for: the entry of one server, and nothing else.
fn entry(site: &Site, server: &str) -> Result<Value, String> {
    let status = status(site);
    match status["waiting"].as_array().map(Vec::as_slice) {
        Some([one]) if one["on"] == server => Ok(one.clone()),
        _ => Err(format!("{:#}", status["waiting"])),
    }
}

/// The gauge of one server.
fn gauge(site: &Site, server: &str) -> Option<f64> {
    let name = format!("wasmill_waiting_seconds{{pipeline=\"flights\",server=\"{server}\"}} ");
    let metrics = site.api.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name))?;
    Some(line.parse().unwrap())
}

/// The server is named within `limit`, everywhere; with which error.
async fn named(site: &Site, host: &mut Host, server: &str, limit: Duration) {
    let what = format!("{server} is waited for");
    let one = eventually(limit, &what, async || entry(site, server)).await;
    assert!(one["since"].as_str().unwrap().starts_with("20"), "{one:#}");
    assert!(one["attempts"].as_u64().unwrap() > 0, "{one:#}");
    assert_eq!(one["error"]["class"], "outside", "{one:#}");
    assert!(!one["error"]["what"].as_str().unwrap().is_empty());
    assert!(!one["error"]["detail"].as_str().unwrap().is_empty());
    eventually(AT_ONCE, "the gauge rises", async || {
        match gauge(site, server) {
            Some(seconds) if seconds > 0.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // It goes on by itself, and has to be reached until then.
    let ready = site.api.get("/ready").unwrap();
    assert_eq!(ready.status, 200, "{ready:?}");
    assert!(
        ready.body["notes"].to_string().contains(server),
        "{ready:?}"
    );
    let shown = wasmill()
        .arg("status")
        .env("WASMILL_HOST", site.api.base())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let column = format!("running, waiting for {server} (");
    assert!(shown.contains(&column), "{shown}");
    host.alive().unwrap();
}

/// It is waited for no more.
async fn forgotten(site: &Site, server: &str, limit: Duration) {
    let what = format!("{server} is not waited for any more");
    eventually(limit, &what, async || {
        let status = status(site);
        match status["waiting"].is_null() {
            true => Ok(()),
            false => Err(format!("{:#}", status["waiting"])),
        }
    })
    .await;
    assert_eq!(gauge(site, server), Some(0.0));
    let ready = site.api.get("/ready").unwrap();
    assert!(ready.body["notes"].is_null(), "{ready:?}");
}

/// The log says once that the wait began, whatever number of partitions and attempts, and once that it ended.
fn told(host: &Host, server: &str, times: usize) {
    let log = host.stderr();
    let of = |text: &str| {
        let lines = log.lines().filter(|line| line.contains(text));
        lines.filter(|line| line.contains(server)).count()
    };
    assert_eq!(of(" waiting: "), times, "{log}");
    assert_eq!(of("no longer waiting"), times, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_or_a_broker_that_is_away_is_named_until_it_is_back() {
    let stage = Stage::linked();
    let flow = flowing(&stage, 2).await;
    let mut plot = Plot::new("waits");
    plot.more = flights_in_postgres();
    let site = Site::new(&stage, &plot);
    let (mut host, _) = site.up();
    passes(&stage, 1_000).await;
    assert_eq!(status(&site)["waiting"], Value::Null);
    assert_eq!(gauge(&site, "postgres.main"), Some(0.0));
    assert_eq!(gauge(&site, "kafka.main"), Some(0.0));

    let links = stage.links.as_ref().unwrap();
    let server = stage.postgres.tcp_address().unwrap();
    cut(&links.postgres);
    named(&site, &mut host, "postgres.main", AT_ONCE).await;
    links.postgres.point_at(server);
    forgotten(&site, "postgres.main", SOON).await;
    goes_on(&stage).await;
    told(&host, "postgres.main", 1);

    drop(flow.stop());
    let server = stage.bootstrap().parse().unwrap();
    cut(&links.kafka);
    named(&site, &mut host, "kafka.main", SOON).await;
    links.kafka.point_at(server);
    // With nothing to read: it is not a record that tells.
    forgotten(&site, "kafka.main", SOON).await;
    told(&host, "kafka.main", 1);
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_pipeline_from_starting_is_named_until_it_starts() {
    let stage = Stage::linked();
    let flow = flowing(&stage, 2).await;
    let mut plot = Plot::new("starts");
    plot.more = flights_in_postgres();
    let site = Site::new(&stage, &plot);
    let links = stage.links.as_ref().unwrap();
    cut(&links.postgres);
    let (mut host, _) = site.up();
    let named = eventually(LATER, "the server is named", async || {
        host.alive()?;
        entry(&site, "postgres.main")
    });
    let one = named.await;
    assert_eq!(one["partitions"], serde_json::json!([]), "{one:#}");
    assert_eq!(status(&site)["state"], "starting");
    let first = one["since"].clone();
    let another = eventually(LATER, "another attempt fails", async || {
        let one = entry(&site, "postgres.main")?;
        match one["attempts"].as_u64() {
            Some(2..) => Ok(one),
            _ => Err(format!("{one:#}")),
        }
    });
    assert_eq!(another.await["since"], first, "it is one wait");
    links
        .postgres
        .point_at(stage.postgres.tcp_address().unwrap());
    passes(&stage, 1_000).await;
    forgotten(&site, "postgres.main", SOON).await;
    drop(flow.stop());
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cassandra_that_is_away_is_named_until_it_is_back() {
    if !real_servers() {
        return;
    }
    let options = CassandraOptions {
        heap_mb: 256,
        ..CassandraOptions::default()
    };
    let cassandra = Cassandra::start(&options).unwrap();
    let link = Proxy::to(Protocol::Cassandra, cassandra.address());
    let stage = Stage::new();
    let mut plot = Plot::new("waits");
    stage.feed.topic(super::flights::TOPIC, 2).await;
    let flow = Flow::flights(stage.bootstrap(), super::flights::TOPIC, Pace::GENTLE);
    plot.more = flights_everywhere(&connection(&[link.address().to_string()], "waits", 1));
    let site = Site::new(&stage, &plot);
    let (mut host, _) = site.up();
    passes(&stage, 1_000).await;
    assert_eq!(gauge(&site, "cassandra.main"), Some(0.0));

    cut(&link);
    named(&site, &mut host, "cassandra.main", LATER).await;
    link.point_at(cassandra.address());
    forgotten(&site, "cassandra.main", LATER).await;
    goes_on(&stage).await;
    told(&host, "cassandra.main", 1);
    drop(flow.stop());
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}
