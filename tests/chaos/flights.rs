//! Flights that flow through the pipeline `flights` of a stage: fed, waited for, and compared with what the tables show.

use std::time::Duration;

use wasmill_tests::Stage;
use wasmill_tests::expected::{self, flights, shipped_flight};
use wasmill_tests::flow::{Flow, Pace};
use wasmill_tests::hash::TableHash;
use wasmill_tests::records::{Made, Place};
use wasmill_tests::ring::{by_airport, session};
use wasmill_tests::wait::{eventually, same};

use crate::scenario::flights::table_hash;

/// How long some ten thousand records may take with Cassandra beside them on a busy machine.
pub(super) const LONG: Duration = Duration::from_secs(240);

/// Their topic.
pub(super) const TOPIC: &str = "flights";

/// Creates the topic; flights flow until the test says stop.
pub(super) async fn flowing(stage: &Stage, partitions: i32) -> Flow {
    stage.feed.topic(TOPIC, partitions).await;
    Flow::flights(stage.bootstrap(), TOPIC, Pace::default())
}

/// A stage with that many flights, and where they are.
pub(super) async fn staged(partitions: i32, count: usize) -> (Stage, Vec<Place>) {
    let stage = Stage::new();
    stage.feed.topic(TOPIC, partitions).await;
    let mut places = Vec::new();
    more(&stage, count, &mut places);
    (stage, places)
}

/// Produces the flights that follow those at `places`, and adds where they are.
pub(super) fn more(stage: &Stage, count: usize, places: &mut Vec<Place>) {
    let flights = (places.len()..places.len() + count).map(shipped_flight);
    let made = flights.map(|(id, text)| Made::new(id, text));
    places.extend(stage.feed.send(TOPIC, &made.collect::<Vec<_>>()));
}

/// How many there are, as positions count.
pub(super) fn total(places: &[Place]) -> i64 {
    i64::try_from(places.len()).unwrap()
}

/// Waits until the position has passed.
pub(super) async fn passes(stage: &Stage, position: i64) {
    eventually(
        LONG,
        &format!("position {position} is passed"),
        async || {
            let sql = "SELECT coalesce(sum(next), 0)::int8 FROM wasmill.position";
            let at: i64 = stage.try_rows(sql).await?[0].get(0);
            if at >= position {
                Ok(())
            } else {
                Err(format!("at {at}"))
            }
        },
    )
    .await;
}

/// Waits for the end and compares both tables with the flights at `places`.
pub(super) async fn ends_exact(stage: &Stage, places: &[Place]) {
    passes(stage, total(places)).await;
    let log = flights(places.len())
        .zip(places)
        .map(|(flight, place)| flight.log_line(TOPIC, place.partition, place.offset));
    assert_eq!(
        table_hash(stage, expected::sql::FLIGHT_LOG, "flight_log").await,
        TableHash::of(log),
        "rows lost or doubled"
    );
    assert_eq!(
        table_hash(stage, expected::sql::FLIGHTS, "flights").await,
        TableHash::of(flights(places.len()).map(|flight| flight.line()))
    );
    assert_eq!(stage.dead().await, []);
}

/// The same with the table in Cassandra.
pub(super) async fn all_exact(stage: &Stage, hosts: &[String], keyspace: &str, places: &[Place]) {
    ends_exact(stage, places).await;
    let wanted = TableHash::of(flights(places.len()).map(|flight| flight.airport_line()));
    let session = session(hosts).await;
    eventually(LONG, "Cassandra holds every flight", async || {
        same(&by_airport(&session, keyspace).await?, &wanted)
    })
    .await;
}

/// In one snapshot: rows appended = positions = records of the ledger. The promise for Postgres holds at every
/// instant.
pub(super) async fn balanced(stage: &Stage) {
    let sql =
        "SELECT (SELECT count(*) FROM flight_log) - (SELECT sum(next) FROM wasmill.position)::int8";
    assert_eq!(stage.number(sql).await, 0, "rows and positions disagree");
    let sql = "SELECT (sum(abs(records - next)) + sum(abs(emitted - next)) + sum(dead))::int8 FROM wasmill.position";
    assert_eq!(stage.number(sql).await, 0, "ledger and positions disagree");
}
