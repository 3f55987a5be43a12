//! Things that are not there when a host starts: what an operator has to mend is said at once with exit code 3,
//! what may come by itself is waited for.

use std::time::Duration;

use wasmill_tests::records::Made;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Stage, artifact};

use crate::scenario::flights::flights_in_postgres;

const SOON: Duration = Duration::from_secs(60);

/// A guest whose table the host does not create.
fn trap(more: &str) -> String {
    let bind = "bind.route.seen = { connection = \"main\", table = \"seen\" }";
    pipeline(
        "p",
        &artifact::plugin("tests/guests/trap"),
        &format!("{bind}\n{more}"),
    )
}

async fn stage_with_records() -> Stage {
    let stage = Stage::new();
    stage.feed.topic("records", 1).await;
    stage
        .feed
        .send("records", &[Made::new("a", "{}"), Made::new("b", "{}")]);
    stage
}

/// Starts the host, which has to end by itself with exit code 3 and say all of `words`.
fn refused(stage: &Stage, pipelines: &str, words: &[&str]) {
    let exit = stage.host(pipelines).wait(SOON);
    exit.refused(words);
    exit.refused(&["hint"]);
}

#[tokio::test]
async fn a_missing_topic_is_named() {
    let stage = Stage::new();
    stage.execute("CREATE TABLE seen (id text)").await;
    refused(&stage, &trap(""), &["records", "topic"]);
}

#[tokio::test]
async fn a_missing_table_comes_with_the_ddl_that_makes_it() {
    let stage = stage_with_records().await;
    refused(&stage, &trap(""), &["seen", "CREATE TABLE", "text"]);
}

#[tokio::test]
async fn a_missing_column_comes_with_the_ddl_that_makes_it() {
    let stage = stage_with_records().await;
    stage.execute("CREATE TABLE seen (other text)").await;
    refused(&stage, &trap(""), &["ALTER TABLE", "ADD COLUMN", "id"]);
}

#[tokio::test]
async fn a_column_of_another_type_is_named() {
    let stage = stage_with_records().await;
    stage.execute("CREATE TABLE seen (id bigint)").await;
    refused(&stage, &trap(""), &["id", "bigint", "text"]);
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let stage = stage_with_records().await;
    stage
        .execute("CREATE TABLE seen (id text); CREATE ROLE clerk LOGIN; GRANT CREATE ON DATABASE postgres TO clerk")
        .await;
    let address = stage.postgres.tcp_address().unwrap();
    let text = format!("{}\n{}", stage.connections(), trap(""));
    let text = text.replace(
        &stage.postgres.url(),
        &format!("postgres://clerk@{address}/postgres"),
    );
    let config = stage.path("wasmill.toml");
    std::fs::write(&config, text).unwrap();
    let exit = stage.again().wait(SOON);
    assert_eq!(exit.code, Some(3), "{}", exit.stderr);
    assert!(
        exit.stderr.contains("permission") || exit.stderr.contains("GRANT"),
        "{}",
        exit.stderr
    );
}

#[tokio::test]
async fn a_mended_table_is_all_it_takes() {
    let stage = stage_with_records().await;
    stage.host(&trap("")).wait(SOON).refused(&[]);
    stage.execute("CREATE TABLE seen (id text)").await;
    let _host = stage.again();
    eventually(SOON, "both rows arrive", async || {
        stage.reaches("SELECT count(*) FROM seen", 2).await
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_comes_later_is_waited_for() {
    let stage = Stage::new();
    stage.feed.topic("flights", 1).await;
    stage.feed.send("flights", &[Made::new("f-1", r#"{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}"#)]);
    let broker = stage.broker.as_ref().unwrap();
    broker.set_available(false);
    let mut host = stage.host(&flights_in_postgres());
    tokio::time::sleep(Duration::from_secs(3)).await;
    host.alive().unwrap();
    broker.set_available(true);
    eventually(SOON, "the record arrives", async || {
        host.alive()?;
        stage.reaches("SELECT count(*) FROM flights", 1).await
    })
    .await;
}

#[tokio::test]
async fn a_database_that_comes_later_is_waited_for() {
    let mut stage = Stage::new();
    stage.feed.topic("flights", 1).await;
    stage.feed.send("flights", &[Made::new("f-1", r#"{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}"#)]);
    stage.postgres.kill().unwrap();
    let mut host = stage.host(&flights_in_postgres());
    tokio::time::sleep(Duration::from_secs(2)).await;
    host.alive().unwrap();
    stage.postgres.restart().unwrap();
    eventually(SOON, "the record arrives", async || {
        host.alive()?;
        stage.reaches("SELECT count(*) FROM flights", 1).await
    })
    .await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named() {
    let stage = stage_with_records().await;
    let text = format!("{}\n{}", stage.connections(), trap(""));
    let url = stage.postgres.url();
    let other = url
        .rsplit_once('/')
        .map(|(head, _)| format!("{head}/nowhere"))
        .unwrap();
    std::fs::write(stage.path("wasmill.toml"), text.replace(&url, &other)).unwrap();
    let exit = stage.again().wait(SOON);
    exit.refused(&["nowhere"]);
}
