//! What the databases hold, as counts and hashes; and the balance that has to hold at every instant.

use std::collections::BTreeMap;

use scylla::client::session::Session;
use wasmill_tests::Stage;
use wasmill_tests::expected::sql;
use wasmill_tests::hash::{self, TableHash};
use wasmill_tests::ring::by_airport;

/// Count and hash of every table.
pub(crate) async fn tables(
    stage: &Stage,
    session: &Session,
    keyspace: &str,
) -> anyhow::Result<BTreeMap<String, TableHash>> {
    let mut seen = BTreeMap::new();
    let dead = "concat_ws('|', topic, partition, \"offset\", code)";
    let postgres = [
        ("flights", sql::FLIGHTS, "flights"),
        ("flight_log", sql::FLIGHT_LOG, "flight_log"),
        ("dead_letter", dead, "wasmill.dead_letter"),
    ];
    for (name, line, table) in postgres {
        let rows = stage.rows(&hash::sql(line, table)).await;
        let (count, sum): (i64, String) = (rows[0].get(0), rows[0].get(1));
        seen.insert(
            name.to_owned(),
            TableHash {
                rows: u64::try_from(count)?,
                sum: sum.parse()?,
            },
        );
    }
    let cassandra = by_airport(session, keyspace)
        .await
        .map_err(anyhow::Error::msg)?;
    seen.insert("by_airport".to_owned(), cassandra);
    Ok(seen)
}

/// Rows of the append table that name different records.
pub(crate) async fn distinct_places(stage: &Stage) -> i64 {
    stage.number("SELECT count(*) FROM (SELECT DISTINCT topic, partition, \"offset\" FROM flight_log) AS places").await
}

/// Rows of the append table.
pub(crate) async fn log_rows(stage: &Stage) -> i64 {
    stage.number("SELECT count(*) FROM flight_log").await
}

/// Whether, in one snapshot, rows appended and records set aside add up to the positions.
pub(crate) async fn balance(stage: &Stage) -> bool {
    let sql = "SELECT (SELECT count(*) FROM flight_log) + (SELECT count(*) FROM wasmill.dead_letter) \
        - (SELECT coalesce(sum(next), 0) FROM wasmill.position)::int8";
    stage.number(sql).await == 0
}
