//! Real Kafka, Postgres and Cassandra.

use std::time::Duration;

use wasmill_tests::expected::{self, Flight, latest, shipped_flights};
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
    const RECORDS: usize = 60_000;
    let stage = Stage::on(&servers.kafka.bootstrap());
    let keyspace = "three_tables";
    let topic = "three-tables";
    stage.feed.topic(topic, 4).await;
    let input = shipped_flights(RECORDS);
    let made: Vec<Made> = input
        .iter()
        .map(|(id, text)| Made::new(id.as_bytes(), text.as_bytes()))
        .collect();
    let bind = format!("bind.input.flights = {{ kafka = \"main\", topic = \"{topic}\" }}");
    let name = "three-tables";
    let flights = pipeline(name, &artifact::plugin("plugins/flights"), &bind);
    let host = stage.host(&format!("{}\n{flights}", servers.connection(keyspace)));
    let places = stage.feed.send(topic, &made);

    passes(&stage, name, 2_000).await;
    host.kill();
    let first = stage.position(name).await;
    let host = stage.again();
    passes(&stage, name, first + 10_000).await;
    host.kill();
    let second = stage.position(name).await;
    let total = i64::try_from(RECORDS).unwrap();
    assert!(
        second < total,
        "the second kill came after the end: nothing was proven"
    );
    let host = stage.again();
    eventually(LONG, "all records are processed", async || {
        stage.positioned(name, total).await
    })
    .await;
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);

    let fold = latest(
        input
            .iter()
            .map(|(id, text)| (id.as_str(), text.as_bytes())),
    );
    assert_eq!(
        table_hash(&stage, expected::sql::FLIGHTS, "flights").await,
        TableHash::of(fold.values().map(Flight::line))
    );
    let log = input.iter().zip(&places).map(|((id, text), place)| {
        Flight::read(id, text.as_bytes())
            .unwrap()
            .log_line(topic, place.partition, place.offset)
    });
    assert_eq!(
        table_hash(&stage, expected::sql::FLIGHT_LOG, "flight_log").await,
        TableHash::of(log)
    );
    let seen = by_airport(&servers.session().await, keyspace)
        .await
        .unwrap();
    assert_eq!(seen, TableHash::of(fold.values().map(Flight::airport_line)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cassandra_alone_holds_position_and_rows_through_two_kills() {
    let Some(servers) = RealServers::get() else {
        return;
    };
    const RECORDS: usize = 30_000;
    let stage = Stage::on(&servers.kafka.bootstrap());
    let (keyspace, topic) = ("alone", "alone");
    stage.feed.topic(topic, 4).await;
    let input = shipped_flights(RECORDS);
    let mut made: Vec<Made> = input
        .iter()
        .map(|(id, text)| Made::new(id.as_bytes(), text.as_bytes()))
        .collect();
    // Two records that cannot be flights: they have to be dead letters in Cassandra.
    made.push(Made::new("bad-1", "{"));
    made.push(Made::tombstone("bad-2"));
    stage.feed.send(topic, &made);
    let bind = format!(
        "bind.input.flights = {{ kafka = \"main\", topic = \"{topic}\" }}\n\
         bind.route.flights = \"discard\"\nbind.route.flight_log = \"discard\""
    );
    let flights = pipeline("alone", &artifact::plugin("plugins/flights"), &bind);
    let config = format!("{}\n{flights}", servers.connection(keyspace));
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
        assert!(
            before < RECORDS as u64,
            "the kill came after the end: nothing was proven"
        );
        host = stage.again();
    }
    let fold = latest(
        input
            .iter()
            .map(|(id, text)| (id.as_str(), text.as_bytes())),
    );
    let wanted = TableHash::of(fold.values().map(Flight::airport_line));
    eventually(LONG, "Cassandra holds every flight", async || {
        host.alive()?;
        same(&by_airport(&session, keyspace).await?, &wanted)
    })
    .await;
    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);

    let total = i64::try_from(made.len()).unwrap();
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
