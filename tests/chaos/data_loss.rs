//! Records that are gone before they were read, and positions that are gone or went back: the pipeline stops and says
//! so, it never starts from a guess.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use wasmill_tests::Stage;
use wasmill_tests::records::{Made, Place};
use wasmill_tests::wait::eventually;

use super::flights::{balanced, ends_exact, more, passes, staged, total};
use crate::scenario::flights::flights_in_postgres;

const SOON: Duration = Duration::from_secs(60);

/// A stage whose host has read a part and was stopped in good order; where it stands, and where all records are.
async fn stopped_on_the_way() -> (Stage, i64, Vec<Place>) {
    let (stage, mut places) = staged(1, 4_000).await;
    let host = stage.host(&flights_in_postgres());
    passes(&stage, 1_000).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    let position = stage.position("flights").await;
    more(&stage, 1_000, &mut places);
    (stage, position, places)
}

/// Starts the host again, which has to stop by itself, say `words`, and move nothing.
async fn refuses_to_guess(stage: &Stage, position: i64, words: &[&str]) {
    let rows = stage.number("SELECT count(*) FROM flight_log").await;
    stage.again().wait(SOON).refused(words);
    assert_eq!(
        stage.position("flights").await,
        position,
        "the position moved"
    );
    assert_eq!(
        stage.number("SELECT count(*) FROM flight_log").await,
        rows,
        "rows were written"
    );
}

#[tokio::test]
async fn retention_that_passed_the_position_is_a_data_loss() {
    let (stage, position, _) = stopped_on_the_way().await;
    stage
        .broker
        .as_ref()
        .unwrap()
        .set_log_start("flights", 0, position + 500)
        .unwrap();
    refuses_to_guess(&stage, position, &["data loss"]).await;
}

#[tokio::test]
async fn retention_up_to_the_position_is_none() {
    let (stage, position, places) = stopped_on_the_way().await;
    stage
        .broker
        .as_ref()
        .unwrap()
        .set_log_start("flights", 0, position)
        .unwrap();
    let total = total(&places);
    let host = stage.again();
    passes(&stage, total).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    assert_eq!(stage.number("SELECT count(*) FROM flight_log").await, total);
}

#[tokio::test]
async fn a_recreated_topic_is_a_data_loss_even_if_it_is_longer() {
    let (stage, position, _) = stopped_on_the_way().await;
    stage
        .broker
        .as_ref()
        .unwrap()
        .delete_topic("flights")
        .unwrap();
    stage.feed.topic("flights", 1).await;
    let other: Vec<Made> = (0..position + 10)
        .map(|index| Made::new(format!("other-{index}"), "{}"))
        .collect();
    stage.feed.send("flights", &other);
    refuses_to_guess(&stage, position, &["data loss", "flights"]).await;
}

/// What an operator does who knows what became of the database: the group forgets, once its sessions have ended.
async fn forget_group(stage: &Stage) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", stage.bootstrap())
        .create()
        .unwrap();
    eventually(SOON, "the group is deleted", async || {
        let options = AdminOptions::new();
        let deleted = admin.delete_groups(&["wasmill.flights"], &options).await;
        let mut deleted = deleted.map_err(|error| error.to_string())?;
        let outcome = deleted.remove(0);
        outcome.map(drop).map_err(|(_, code)| code.to_string())
    })
    .await;
}

#[tokio::test]
async fn positions_that_are_gone_are_a_data_loss_and_no_first_start() {
    let (stage, position, places) = stopped_on_the_way().await;
    stage.execute("DELETE FROM wasmill.position").await;
    let at = format!("at least {position}");
    let words = ["data loss", &at, "--delete --group wasmill.flights"];
    refuses_to_guess(&stage, 0, &words).await;
    // Starting again does not make it go away.
    refuses_to_guess(&stage, 0, &words).await;
    // The operator wants all of it once more, from an empty table.
    stage.execute("TRUNCATE flight_log, flights").await;
    forget_group(&stage).await;
    let host = stage.again();
    passes(&stage, total(&places)).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    balanced(&stage).await;
}

#[tokio::test]
async fn the_last_partition_without_a_position_is_no_new_one() {
    let (stage, _) = staged(2, 4_000).await;
    let host = stage.host(&flights_in_postgres());
    eventually(SOON, "both partitions move", async || {
        let sql = "SELECT count(*) FROM wasmill.position WHERE next > 0";
        stage.reaches(sql, 2).await
    })
    .await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    stage
        .execute("DELETE FROM wasmill.position WHERE partition = 1")
        .await;
    let position = stage.position("flights").await;
    refuses_to_guess(&stage, position, &["data loss", "partition 1 had one"]).await;
}

#[tokio::test]
async fn a_database_that_went_back_with_its_rows_is_gone_on_from_and_ends_exact() {
    let (stage, mut places) = staged(1, 4_000).await;
    let host = stage.host(&flights_in_postgres());
    passes(&stage, 1_000).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    // A backup, and what was done after it.
    let tables = ["wasmill.position", "flight_log", "flights"];
    stage.execute("CREATE SCHEMA backup").await;
    for (n, table) in tables.iter().enumerate() {
        let save = format!("CREATE TABLE backup.t{n} AS TABLE {table}");
        stage.execute(&save).await;
    }
    let saved = stage.position("flights").await;
    more(&stage, 4_000, &mut places);
    let host = stage.again();
    passes(&stage, saved + 1_000).await;
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    let reached = stage.position("flights").await;
    for (n, table) in tables.iter().enumerate() {
        let restore = format!("TRUNCATE {table}; INSERT INTO {table} SELECT * FROM backup.t{n}");
        stage.execute(&restore).await;
    }
    let host = stage.again();
    ends_exact(&stage, &places).await;
    let told = format!("stands at {saved} and stood at {reached}");
    assert!(host.stderr().contains(&told), "{}", host.stderr());
    assert_eq!(host.stop(Duration::from_secs(25)).code, Some(0));
    balanced(&stage).await;
}
