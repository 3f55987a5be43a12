//! Apache Kafka, and then Apache Cassandra, killed under a running host and started again. Needs Java.

use std::time::Duration;

use wasmill_local::{Cassandra, CassandraOptions, Kafka, KafkaOptions};
use wasmill_tests::expected::{self, Flight, latest, shipped_flights};
use wasmill_tests::hash::TableHash;
use wasmill_tests::records::{Made, Place};
use wasmill_tests::ring::{by_airport, connection, session};
use wasmill_tests::skip::skip;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::{eventually, same};
use wasmill_tests::{Stage, artifact};

use crate::scenario::flights::table_hash;

/// How long some ten thousand records may take with Cassandra beside them on a busy machine.
pub(super) const LONG: Duration = Duration::from_secs(240);

/// Records of one sending.
const RECORDS: usize = 30_000;

const KEYSPACE: &str = "killed";

/// The topic of the flights.
pub(super) const TOPIC: &str = "flights";

/// Sends that many flights under ids of their own.
pub(super) fn send(stage: &Stage, sending: &str, records: usize, sent: &mut Sent) {
    let flights = shipped_flights(records).into_iter();
    let flights: Vec<(String, String)> = flights
        .map(|(id, text)| (format!("{sending}-{id}"), text))
        .collect();
    let made = flights
        .iter()
        .map(|(id, text)| Made::new(id.as_bytes(), text.as_bytes()));
    let places = stage.feed.send(TOPIC, &made.collect::<Vec<_>>());
    sent.places.extend(places);
    sent.flights.extend(flights);
}

/// What was sent so far.
#[derive(Default)]
pub(super) struct Sent {
    flights: Vec<(String, String)>,
    places: Vec<Place>,
}

impl Sent {
    pub(super) fn total(&self) -> i64 {
        i64::try_from(self.flights.len()).unwrap()
    }
}

/// Flights in both databases.
pub(super) fn flights_everywhere(connection: &str) -> String {
    let flights = pipeline("flights", &artifact::plugin("plugins/flights"), "");
    format!("{connection}\n{flights}")
}

/// Waits until the position has passed.
pub(super) async fn passes(stage: &Stage, position: i64) {
    let what = format!("position {position} is passed");
    eventually(LONG, &what, async || {
        match stage.position("flights").await {
            at if at >= position => Ok(()),
            at => Err(format!("at {at}")),
        }
    })
    .await;
}

/// Waits for the end and compares three tables with what was sent.
pub(super) async fn all_exact(stage: &Stage, hosts: &[String], keyspace: &str, sent: &Sent) {
    passes(stage, sent.total()).await;
    let flights = sent
        .flights
        .iter()
        .map(|(id, text)| (id.as_str(), text.as_bytes()));
    let fold = latest(flights.clone());
    assert_eq!(
        table_hash(stage, expected::sql::FLIGHTS, "flights").await,
        TableHash::of(fold.values().map(Flight::line))
    );
    let log = flights.zip(&sent.places).map(|((id, text), place)| {
        let flight = Flight::read(id, text).unwrap();
        flight.log_line(TOPIC, place.partition, place.offset)
    });
    assert_eq!(
        table_hash(stage, expected::sql::FLIGHT_LOG, "flight_log").await,
        TableHash::of(log),
        "rows lost or doubled"
    );
    assert_eq!(stage.dead().await, []);
    let wanted = TableHash::of(fold.values().map(Flight::airport_line));
    let session = session(hosts).await;
    eventually(LONG, "Cassandra holds every flight", async || {
        same(&by_airport(&session, keyspace).await?, &wanted)
    })
    .await;
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
    stage.feed.topic(TOPIC, 4).await;
    let hosts = [cassandra.contact_point()];
    let mut sent = Sent::default();
    send(&stage, "first", RECORDS, &mut sent);
    let mut host = stage.host(&flights_everywhere(&connection(&hosts, KEYSPACE, 1)));

    passes(&stage, 1_000).await;
    kafka.kill().unwrap();
    let at = stage.position("flights").await;
    assert!(
        at < sent.total(),
        "Kafka died after the end: nothing was proven"
    );
    kafka.restart().unwrap();
    host.alive().unwrap();
    send(&stage, "second", RECORDS, &mut sent);
    passes(
        &stage,
        sent.total() - i64::try_from(RECORDS).unwrap() + 1_000,
    )
    .await;

    cassandra.kill().unwrap();
    let at = stage.position("flights").await;
    assert!(
        at < sent.total(),
        "Cassandra died after the end: nothing was proven"
    );
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
    all_exact(&stage, &hosts, KEYSPACE, &sent).await;
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}
