//! Answers to a question as text, for people: the demo and tools. Never on a record's way.

use tokio_postgres::SimpleQueryMessage;

use super::connection::{self, Session};
use super::{Settings, failure};
use crate::config::PostgresConnection;
use crate::error::Result;
use crate::record::TextTable;

/// Asks one question of a database and returns the answer as text.
///
/// # Errors
/// `Outside` when Postgres does not answer, `Config` when it refuses the question.
pub async fn query_text(postgres: &PostgresConnection, sql: &str) -> Result<TextTable> {
    let settings = Settings::new(postgres.url.clone(), "look", "look");
    let config = connection::configure(&settings)?;
    let session = Session::open(&config, &settings).await?;
    let messages = session
        .client
        .simple_query(sql)
        .await
        .map_err(|error| failure::error("look into a table", &error))?;
    let mut answer = TextTable::default();
    for message in &messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                answer.columns = columns
                    .iter()
                    .map(|column| column.name().to_owned())
                    .collect();
            }
            SimpleQueryMessage::Row(row) => {
                let text = |index| row.get(index).unwrap_or("∅").to_owned();
                answer.rows.push((0..row.len()).map(text).collect());
            }
            _ => {}
        }
    }
    Ok(answer)
}
