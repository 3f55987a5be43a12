//! The host is stopped, and killed, while records flow.

use std::time::{Duration, Instant};

use wasmill_tests::Stage;
use wasmill_tests::expected::{self, Flight, shipped_flights};
use wasmill_tests::hash::TableHash;
use wasmill_tests::records::{Made, Place};
use wasmill_tests::wait::eventually;

use crate::scenario::flights::{flights_in_postgres, table_hash};

const LONG: Duration = Duration::from_secs(120);

/// Records of the tests here.
pub(super) const RECORDS: usize = 40_000;

/// The records, produced, and where each is.
pub(super) async fn stage_with_flights(
    partitions: i32,
) -> (Stage, Vec<(String, String)>, Vec<Place>) {
    with_flights(Stage::new(), partitions, RECORDS).await
}

/// The same on a stage of its own and with that many records.
pub(super) async fn with_flights(
    stage: Stage,
    partitions: i32,
    records: usize,
) -> (Stage, Vec<(String, String)>, Vec<Place>) {
    stage.feed.topic("flights", partitions).await;
    let input = shipped_flights(records);
    let made: Vec<Made> = input
        .iter()
        .map(|(id, text)| Made::new(id.as_bytes(), text.as_bytes()))
        .collect();
    let places = stage.feed.send("flights", &made);
    (stage, input, places)
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

/// Waits for the end and compares both tables with the input.
pub(super) async fn ends_exact(stage: &Stage, input: &[(String, String)], places: &[Place]) {
    passes(stage, i64::try_from(input.len()).unwrap()).await;
    let flights = || {
        input
            .iter()
            .map(|(id, text)| Flight::read(id, text.as_bytes()).unwrap())
    };
    let log = flights()
        .zip(places)
        .map(|(flight, place)| flight.log_line("flights", place.partition, place.offset));
    assert_eq!(
        table_hash(stage, expected::sql::FLIGHT_LOG, "flight_log").await,
        TableHash::of(log),
        "rows lost or doubled"
    );
    let wanted = TableHash::of(flights().map(|flight| flight.line()));
    assert_eq!(
        table_hash(stage, expected::sql::FLIGHTS, "flights").await,
        wanted
    );
    assert_eq!(stage.dead().await, []);
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

#[tokio::test]
async fn three_kills_lose_and_double_nothing() {
    let (stage, input, places) = stage_with_flights(4).await;
    let mut host = stage.host(&flights_in_postgres());
    for kill in 1..=3 {
        passes(&stage, i64::from(kill) * 4_000).await;
        host.kill();
        let at = stage.position("flights").await;
        assert!(
            at < i64::try_from(RECORDS).unwrap(),
            "kill {kill} came after the end: nothing was proven"
        );
        balanced(&stage).await;
        host = stage.again();
    }
    ends_exact(&stage, &input, &places).await;
}

#[tokio::test]
async fn sigterm_drains_quickly_and_the_next_run_goes_on_without_a_gap() {
    let (stage, input, places) = stage_with_flights(4).await;
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
    assert!(
        stage.position("flights").await < i64::try_from(RECORDS).unwrap(),
        "it ran to the end: nothing was proven"
    );
    balanced(&stage).await;
    let host = stage.again();
    ends_exact(&stage, &input, &places).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
}

#[tokio::test]
async fn a_zombie_that_wakes_up_after_its_successor_changes_nothing() {
    let (stage, input, places) = stage_with_flights(2).await;
    let zombie = stage.host(&flights_in_postgres());
    passes(&stage, 1_000).await;
    zombie.signal("STOP");
    let mut successor = stage.again();
    let at = stage.position("flights").await;
    assert!(
        at < i64::try_from(RECORDS).unwrap(),
        "it was frozen after the end: nothing was proven"
    );
    passes(&stage, at + 4_000).await;
    zombie.signal("CONT");
    ends_exact(&stage, &input, &places).await;
    balanced(&stage).await;
    successor.alive().unwrap();
}
