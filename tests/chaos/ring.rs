//! Three brokers, three Cassandra nodes, two hosts; one of each dies, and nothing stops. Too heavy to run beside
//! everything else: `make ring`.

use std::time::Duration;

use wasmill_local::{Cassandra, CassandraOptions, Kafka, KafkaOptions};
use wasmill_tests::Stage;
use wasmill_tests::flow::{Flow, Pace};
use wasmill_tests::ring::connection;
use wasmill_tests::wait::eventually;

use super::flights::{LONG, TOPIC, all_exact, more, passes};
use super::servers_killed::{flights_everywhere, goes_on, real_servers};
use super::two_hosts::second;

const KEYSPACE: &str = "ring";
const THREE: u8 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "six servers of Java: `make ring`"]
async fn a_broker_a_node_and_a_host_die_and_the_tables_end_exact() {
    if !real_servers() {
        return;
    }
    let options = CassandraOptions {
        heap_mb: 256,
        ..CassandraOptions::default()
    };
    let ring = std::thread::spawn(move || Cassandra::ring(&options, THREE).unwrap());
    let options = KafkaOptions {
        heap_mb: 128,
        ..KafkaOptions::default()
    };
    let mut brokers = Kafka::cluster(&options, usize::from(THREE)).unwrap();
    let mut ring = ring.join().unwrap();
    let bootstrap: Vec<String> = brokers.iter().map(Kafka::bootstrap).collect();
    let hosts: Vec<String> = ring.iter().map(Cassandra::contact_point).collect();
    let stage = Stage::on(&bootstrap.join(","));
    stage.feed.topic_of(TOPIC, 6, i32::from(THREE)).await;
    let flow = Flow::flights(stage.bootstrap(), TOPIC, Pace::GENTLE);
    let first = stage.host(&flights_everywhere(&connection(&hosts, KEYSPACE, THREE)));
    passes(&stage, 500).await;
    let mut other = second(&stage);
    let moved = "SELECT count(*) FROM wasmill.position WHERE epoch > 1";
    eventually(
        LONG,
        "the second host claims a partition",
        async || match stage.try_rows(moved).await?[0].get::<_, i64>(0) {
            0 => Err("none moved".to_owned()),
            _ => Ok(()),
        },
    )
    .await;

    // The broker that leads a partition.
    let leader = stage.feed.leader(TOPIC, 0);
    let broker = &mut brokers[usize::try_from(leader - 1).unwrap()];
    broker.kill().unwrap();
    eventually(LONG, "another broker leads", async || {
        match stage.feed.leader(TOPIC, 0) {
            now if now >= 0 && now != leader => Ok(()),
            now => Err(format!("{now}")),
        }
    })
    .await;
    goes_on(&stage).await;
    broker.restart().unwrap();

    // A node: the two others are a quorum. Not the first, which all were told of as the seed.
    ring[1].kill().unwrap();
    goes_on(&stage).await;
    ring[1].restart().unwrap();

    // A host, and what comes after.
    first.kill();
    let mut places = flow.stop();
    more(&stage, 1_000, &mut places);
    all_exact(&stage, &hosts, KEYSPACE, &places).await;
    other.alive().unwrap();
    let log = other.stderr();
    assert!(!log.contains("pipeline stopped"), "{log}");
    assert_eq!(other.stop(Duration::from_secs(25)).code, Some(0));
}
