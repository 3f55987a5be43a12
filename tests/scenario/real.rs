//! Real Kafka, Postgres and Cassandra.

use std::time::Duration;

use wasmill_tests::expected::{self, flights};
use wasmill_tests::flow::{Flow, Pace};
use wasmill_tests::hash::TableHash;
use wasmill_tests::records::Made;
use wasmill_tests::ring::{RealServers, by_airport};
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::{eventually, same};
use wasmill_tests::{Stage, artifact};

use super::flights::table_hash;

/// How long some ten thousand records may take with Cassandra beside them on a busy machine.
const LONG: Duration = Duration::from_secs(240);

async fn passes(stage: &Stage, pipeline: &str, position: i64) {
    let what = format!("position {position} is passed");
    eventually(LONG, &what, async || {
        let at = stage.position(pipeline).await;
        if at >= position {
            Ok(())
        } else {
            Err(format!("at {at}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flights_reach_three_tables_of_two_databases_through_two_kills() {
    let Some(servers) = RealServers::get() else {
        return;
    };
    let stage = Stage::on(&servers.kafka.bootstrap());
    let keyspace = "three_tables";
    let topic = "three-tables";
    stage.feed.topic(topic, 4).await;
    let bind = format!("bind.input.flights = {{ kafka = \"main\", topic = \"{topic}\" }}");
    let name = "three-tables";
    let pipeline = pipeline(name, &artifact::plugin("plugins/flights"), &bind);
    let host = stage.host(&format!("{}\n{pipeline}", servers.connection(keyspace)));
    let flow = Flow::flights(stage.bootstrap(), topic, Pace::GENTLE);

    passes(&stage, name, 2_000).await;
    host.kill();
    let first = stage.position(name).await;
    let host = stage.again();
    passes(&stage, name, first + 10_000).await;
    host.kill();
    let host = stage.again();
    let places = flow.stop();
    let total = i64::try_from(places.len()).unwrap();
    eventually(LONG, "all records are processed", async || {
        stage.positioned(name, total).await
    })
    .await;
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);

    let wanted = || flights(places.len());
    assert_eq!(
        table_hash(&stage, expected::sql::FLIGHTS, "flights").await,
        TableHash::of(wanted().map(|flight| flight.line()))
    );
    let log = wanted()
        .zip(&places)
        .map(|(flight, place)| flight.log_line(topic, place.partition, place.offset));
    assert_eq!(
        table_hash(&stage, expected::sql::FLIGHT_LOG, "flight_log").await,
        TableHash::of(log)
    );
    let seen = by_airport(&servers.session().await, keyspace)
        .await
        .unwrap();
    assert_eq!(
        seen,
        TableHash::of(wanted().map(|flight| flight.airport_line()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cassandra_alone_holds_position_and_rows_through_two_kills() {
    let Some(servers) = RealServers::get() else {
        return;
    };
    let stage = Stage::on(&servers.kafka.bootstrap());
    let (keyspace, topic) = ("alone", "alone");
    stage.feed.topic(topic, 4).await;
    let flow = Flow::flights(stage.bootstrap(), topic, Pace::GENTLE);
    let bind = format!(
        "bind.input.flights = {{ kafka = \"main\", topic = \"{topic}\" }}\n\
         bind.route.flights = \"discard\"\nbind.route.flight_log = \"discard\""
    );
    let alone = pipeline("alone", &artifact::plugin("plugins/flights"), &bind);
    let config = format!("{}\n{alone}", servers.connection(keyspace));
    let session = servers.session().await;
    let rows = async || {
        by_airport(&session, keyspace)
            .await
            .map_or(0, |hash| hash.rows)
    };

    let mut before = 0;
    let mut host = stage.host(&config);
    for _ in 0..2 {
        eventually(LONG, "rows arrive", async || {
            if rows().await > before {
                Ok(())
            } else {
                Err("none yet".to_owned())
            }
        })
        .await;
        host.kill();
        before = rows().await + 3_000;
        host = stage.again();
    }
    let places = flow.stop();
    // Two records that cannot be flights: they have to be dead letters in Cassandra.
    let bad = [Made::new("bad-1", "{"), Made::tombstone("bad-2")];
    stage.feed.send(topic, &bad);
    let wanted = TableHash::of(flights(places.len()).map(|flight| flight.airport_line()));
    eventually(LONG, "Cassandra holds every flight", async || {
        host.alive()?;
        same(&by_airport(&session, keyspace).await?, &wanted)
    })
    .await;
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);

    let total = i64::try_from(places.len() + bad.len()).unwrap();
    let query = format!("SELECT next FROM {keyspace}.wasmill_position");
    let positions = session
        .query_unpaged(query, ())
        .await
        .unwrap()
        .into_rows_result()
        .unwrap();
    let sum: i64 = positions
        .rows::<(i64,)>()
        .unwrap()
        .map(|row| row.unwrap().0)
        .sum();
    assert_eq!(sum, total);
    let query = format!("SELECT code FROM {keyspace}.wasmill_dead_letter");
    let dead = session
        .query_unpaged(query, ())
        .await
        .unwrap()
        .into_rows_result()
        .unwrap();
    let mut codes: Vec<String> = dead
        .rows::<(String,)>()
        .unwrap()
        .map(|row| row.unwrap().0)
        .collect();
    codes.sort();
    assert_eq!(codes, ["malformed", "tombstone"]);
    assert_eq!(
        stage
            .try_rows("SELECT 1 FROM wasmill.position")
            .await
            .map(|_| ()),
        Err("relation \"wasmill.position\" does not exist".to_owned())
    );
}
