//! Answers to a question as text, for people: the demo and tools. Never on a record's way.

use scylla::value::{CqlValue, Row};

use super::{CassandraSession, Patience};
use crate::config::CassandraConnection;
use crate::error::{Error, Result};
use crate::record::TextTable;

/// Asks one question of a cluster and returns the answer as text.
///
/// # Errors
/// `Outside` when Cassandra does not answer, `Config` when it refuses the question.
pub async fn query_text(connection: &CassandraConnection, cql: &str) -> Result<TextTable> {
    let session = CassandraSession::connect(connection, Patience::default()).await?;
    let Some(answer) = session.query("look into a table", cql).await? else {
        return Ok(TextTable::default());
    };
    let columns = answer
        .column_specs()
        .iter()
        .map(|column| column.name().to_owned())
        .collect();
    let unreadable = |error: &dyn std::fmt::Display| Error::outside("read an answer", error);
    let rows = answer
        .rows::<Row>()
        .map_err(|error| unreadable(&error))?
        .map(|row| {
            let row = row.map_err(|error| unreadable(&error))?;
            Ok(row.columns.iter().map(text).collect())
        })
        .collect::<Result<_>>()?;
    Ok(TextTable { columns, rows })
}

fn text(value: &Option<CqlValue>) -> String {
    value
        .as_ref()
        .map_or_else(|| "∅".to_owned(), ToString::to_string)
}
