//! Apache Kafka, and then Apache Cassandra, killed under a running host and started again. Needs Java.

use std::time::Duration;

use wasmill_local::{Cassandra, CassandraOptions, Kafka, KafkaOptions};
use wasmill_tests::flow::{Flow, Pace};
use wasmill_tests::ring::connection;
use wasmill_tests::skip::skip;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Stage, artifact};

use super::flights::{LONG, TOPIC, all_exact, passes};

const KEYSPACE: &str = "killed";

/// Flights in both databases.
pub(super) fn flights_everywhere(connection: &str) -> String {
    let flights = pipeline("flights", &artifact::plugin("plugins/flights"), "");
    format!("{connection}\n{flights}")
}

/// Whether Kafka and Cassandra can run here; loud when not.
pub(super) fn real_servers() -> bool {
    let missing = Kafka::available()
        .and_then(|()| Cassandra::available())
        .err();
    if let Some(missing) = &missing {
        skip(format_args!("{missing}; {}", missing.hint));
    }
    missing.is_none()
}

/// Waits until records have passed that were stored after this call.
pub(super) async fn goes_on(stage: &Stage) {
    let stored: i64 = stage.feed.ends(TOPIC).values().sum();
    passes(stage, stored + 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_and_then_cassandra_are_killed_and_the_tables_end_exact() {
    if !real_servers() {
        return;
    }
    let kafka = std::thread::spawn(|| Kafka::start(&KafkaOptions::default()).unwrap());
    let options = CassandraOptions {
        heap_mb: 256,
        ..CassandraOptions::default()
    };
    let mut cassandra = Cassandra::start(&options).unwrap();
    let mut kafka = kafka.join().unwrap();
    let stage = Stage::on(&kafka.bootstrap());
    let hosts = [cassandra.contact_point()];
    stage.feed.topic(TOPIC, 4).await;
    let flow = Flow::flights(stage.bootstrap(), TOPIC, Pace::GENTLE);
    let mut host = stage.host(&flights_everywhere(&connection(&hosts, KEYSPACE, 1)));

    passes(&stage, 1_000).await;
    kafka.kill().unwrap();
    kafka.restart().unwrap();
    host.alive().unwrap();
    goes_on(&stage).await;

    cassandra.kill().unwrap();
    eventually(LONG, "a flight is rolled back", async || {
        host.alive()?;
        let log = host.stderr();
        if log.contains("flight rolled back") {
            Ok(())
        } else {
            Err("no flight was".to_owned())
        }
    })
    .await;
    cassandra.restart().unwrap();
    all_exact(&stage, &hosts, KEYSPACE, &flow.stop()).await;
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}
