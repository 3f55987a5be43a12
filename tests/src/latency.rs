//! How long records take from their timestamp to their row, from what the table says itself: a column that the
//! database fills when the row arrives. Needs no word of the host's.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::Stage;
use crate::artifact;

/// Creates the table of the guest `identity` under a name, with the arrival beside each row.
pub async fn create_table(stage: &Stage, table: &str) {
    let sql = format!(
        "CREATE TABLE {table} (key text, value bytea, at timestamptz, \
         seen timestamptz NOT NULL DEFAULT clock_timestamp())"
    );
    stage.execute(&sql).await;
}

/// The component of the guest.
pub fn guest() -> std::path::PathBuf {
    artifact::plugin("tests/guests/identity")
}

/// Its `name@version`.
pub const PLUGIN: &str = "identity@0.1.0";

/// Overlay of a pipeline of the guest from a topic to a table.
pub fn overlay(topic: &str, table: &str) -> String {
    format!(
        "bind.input.records = {{ kafka = \"main\", topic = \"{topic}\" }}\n\
         bind.route.copied = {{ connection = \"main\", table = \"{table}\" }}\n"
    )
}

/// Delays of the rows whose records were made in a span of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delays {
    /// Rows.
    pub rows: i64,
    /// Half are faster.
    pub p50: Duration,
    /// 99 in 100 are faster.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rows,
            p50,
            p99,
            max,
        } = self;
        write!(
            f,
            "p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms of {rows} records",
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            max.as_secs_f64() * 1e3
        )
    }
}

/// Milliseconds since 1970, as records' timestamps.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Delays of the records made in these spans of time together, milliseconds since 1970.
///
/// # Panics
/// There are none: nothing was measured.
pub async fn delays(
    stage: &Stage,
    table: &str,
    spans: impl IntoIterator<Item = Range<i64>>,
) -> Delays {
    let made: Vec<String> = spans
        .into_iter()
        .map(|Range { start, end }| {
            format!("at >= to_timestamp({start} / 1000.0) AND at < to_timestamp({end} / 1000.0)")
        })
        .collect();
    let made = made.join(" OR ");
    let delay = "extract(epoch from seen - at)::float8";
    let sql = format!(
        "SELECT count(*), percentile_disc(0.5) WITHIN GROUP (ORDER BY {delay}), \
         percentile_disc(0.99) WITHIN GROUP (ORDER BY {delay}), max({delay}) FROM {table} \
         WHERE {made}"
    );
    let rows = stage.rows(&sql).await;
    let count: i64 = rows[0].get(0);
    assert!(
        count > 0,
        "no record of {table} was made in the time asked for"
    );
    let seconds = |column: usize| {
        let value: f64 = rows[0].get(column);
        Duration::from_secs_f64(value.max(0.0))
    };
    Delays {
        rows: count,
        p50: seconds(1),
        p99: seconds(2),
        max: seconds(3),
    }
}
