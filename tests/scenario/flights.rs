//! The shipped plugins on their shipped records: every row as computed here from the file.

use std::time::Duration;

use wasmill_tests::expected::{self, Flight, latest, quake_line, shipped_flights, shipped_quakes};
use wasmill_tests::hash::{self, TableHash};
use wasmill_tests::records::Made;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::eventually;
use wasmill_tests::{Stage, artifact};

/// How long a few thousand records may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Flights with everything but Cassandra.
pub(crate) fn flights_in_postgres() -> String {
    let bind = "bind.route.by_airport = \"discard\"";
    pipeline("flights", &artifact::plugin("plugins/flights"), bind)
}

/// Count and hash of a Postgres table's lines.
pub(crate) async fn table_hash(stage: &Stage, line: &str, table: &str) -> TableHash {
    let rows = stage.rows(&hash::sql(line, table)).await;
    let (count, sum): (i64, String) = (rows[0].get(0), rows[0].get(1));
    TableHash {
        rows: u64::try_from(count).unwrap(),
        sum: sum.parse().unwrap(),
    }
}

#[tokio::test]
async fn flights_reach_both_tables_as_the_file_says() {
    let stage = Stage::new();
    stage.feed.topic("flights", 4).await;
    let mut input = shipped_flights(5_000);
    // Every 50th flight is published again, later, with another delay.
    let updates: Vec<_> = input
        .iter()
        .step_by(50)
        .map(|(id, text)| (id.clone(), text.replace("\"delay\":", "\"delay\":1")))
        .collect();
    let updates = updates
        .into_iter()
        .filter(|(_, text)| !text.contains("1-"))
        .collect::<Vec<_>>();
    assert!(updates.len() > 20, "the sample has flights to update");
    input.extend(updates);
    let made: Vec<Made> = input
        .iter()
        .map(|(id, text)| Made::new(id.as_bytes(), text.as_bytes()))
        .collect();
    let host = stage.host(&flights_in_postgres());
    let places = stage.feed.send("flights", &made);
    let total = i64::try_from(input.len()).unwrap();
    eventually(SOON, "all records are processed", async || {
        stage.positioned("flights", total).await
    })
    .await;

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
        let flight = Flight::read(id, text.as_bytes()).expect("a shipped flight is good");
        flight.log_line("flights", place.partition, place.offset)
    });
    assert_eq!(
        table_hash(&stage, expected::sql::FLIGHT_LOG, "flight_log").await,
        TableHash::of(log)
    );
    assert_eq!(stage.dead().await, []);

    let exit = host.stop(Duration::from_secs(25));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

#[tokio::test]
async fn quakes_are_rows_until_a_tombstone_takes_them_back() {
    const LINE: &str = "concat_ws('|', id, coalesce(encode(float8send(mag), 'hex'), 'null'), coalesce(place, 'null'), \
        (extract(epoch from \"time\") * 1000000)::int8, (extract(epoch from updated) * 1000000)::int8, \
        encode(float8send(longitude), 'hex'), encode(float8send(latitude), 'hex'), \
        coalesce(encode(float8send(depth), 'hex'), 'null'))";
    let stage = Stage::new();
    stage.feed.topic("earthquakes", 2).await;
    let quakes: Vec<(String, String, String)> = shipped_quakes()
        .into_iter()
        .map(|text| {
            quake_line(&text)
                .map(|(id, line)| (id, line, text))
                .expect("a shipped quake is good")
        })
        .collect();
    let mut made: Vec<Made> = quakes
        .iter()
        .map(|(id, _, text)| Made::new(id.as_bytes(), text.as_bytes()))
        .collect();
    // Every tenth quake turns out not to have happened; some are taken back twice, one before it is known.
    let gone: Vec<&String> = quakes.iter().step_by(10).map(|(id, ..)| id).collect();
    made.extend(gone.iter().map(|id| Made::tombstone(id.as_bytes())));
    made.extend(
        gone.iter()
            .step_by(3)
            .map(|id| Made::tombstone(id.as_bytes())),
    );
    made.push(Made::tombstone("never-known"));
    // One of them happened after all.
    let (back, _, text) = &quakes[0];
    made.push(Made::new(back.as_bytes(), text.as_bytes()));
    let bind = "";
    let _host = stage.host(&pipeline(
        "quakes",
        &artifact::plugin("plugins/earthquakes"),
        bind,
    ));
    stage.feed.send("earthquakes", &made);
    let total = i64::try_from(made.len()).unwrap();
    eventually(SOON, "all records are processed", async || {
        stage.positioned("quakes", total).await
    })
    .await;

    let stay = quakes
        .iter()
        .filter(|(id, ..)| id == back || !gone.contains(&id))
        .map(|(_, line, _)| line);
    assert_eq!(
        table_hash(&stage, LINE, "quakes").await,
        TableHash::of(stay)
    );
    assert_eq!(stage.dead().await, []);
}
