//! [`Snapshot`]: positions, dead letters and users' tables at one instant, for checks.
//!
//! One transaction that only reads, REPEATABLE READ: rows and the position that made them are seen together, while the
//! pipeline goes on. Values come as text that the server makes of them, so nothing here shares a conversion with what
//! writes. It holds back the server's vacuum as long as it is open.

use tokio_postgres::{Row, SimpleQueryMessage};

use crate::anchor::{Ledger, SetAside, Standing, cuts};
use crate::error::{Error, Result};
use crate::record::{Column, Plain, Type};

use super::connection::{self, Session};
use super::names::{TableName, quote};
use super::positions::within;
use super::settings::Settings;

/// Rows fetched at once.
const PAGE: usize = 5000;

/// Numbers are said so that they read back; the transaction may wait for as long as its owner computes.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
     SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL extra_float_digits = 1; \
     SET LOCAL DateStyle = 'ISO'; SET LOCAL TimeZone = 'UTC'";

const STANDINGS: &str = "SELECT partition, next, reserved, cuts::text, topic_id, records, emitted, filtered, dead, retried \
     FROM wasmill.position WHERE pipeline = $1::text AND topic = $2::text ORDER BY partition";

const LETTERS: &str = "SELECT letter.partition, letter.\"offset\", letter.code, letter.retried_at IS NOT NULL, \
     letter.begun IS NOT NULL \
     FROM wasmill.dead_letter AS letter JOIN wasmill.position AS held USING (pipeline, topic, partition) \
     WHERE pipeline = $1::text AND topic = $2::text AND letter.\"offset\" < held.next";

/// See the module. Closed when it is dropped.
#[derive(Debug)]
pub struct Snapshot {
    session: Session,
    settings: Settings,
}

impl Snapshot {
    /// Opens it; what it shows is decided by the first question.
    ///
    /// # Errors
    /// `Config` for a url or a login that is refused, `Outside` when Postgres does not answer.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let config = connection::configure(settings)?;
        let session = Session::open(&config, settings).await?;
        let limit = settings.timeouts.statement;
        let begun = session.client.batch_execute(BEGIN);
        within("open a snapshot of postgres", limit, begun).await?;
        Ok(Self {
            session,
            settings: settings.clone(),
        })
    }

    async fn ask(&self, what: &str, sql: &str) -> Result<Vec<Row>> {
        let limit = self.settings.timeouts.statement;
        let (pipeline, topic) = (&self.settings.pipeline, &self.settings.topic);
        within(
            what,
            limit,
            self.session.client.query(sql, &[pipeline, topic]),
        )
        .await
    }

    /// The positions of the pipeline, ascending by partition.
    ///
    /// # Errors
    /// `Config` where nobody made the host's schema, or a row does not parse.
    pub async fn standings(&self) -> Result<Vec<Standing>> {
        const WHAT: &str = "read positions from postgres";
        let rows = self.ask(WHAT, STANDINGS).await?;
        let standing = |row: &Row| {
            let partition = row.get(0);
            let cuts = cuts::decode(row.get(3)).map_err(|detail| {
                Error::config(format!("{WHAT}, partition {partition}"), detail).hint(
                    "restore column cuts of its row in wasmill.position, or use a newer wasmill",
                )
            })?;
            Ok(Standing {
                partition,
                next: row.get(1),
                reserved: row.get(2),
                cuts,
                topic_id: row.get(4),
                ledger: Ledger::stored(
                    partition,
                    [row.get(5), row.get(6), row.get(7), row.get(8)],
                )?,
                retried: u64::try_from(row.get::<_, i64>(9)).unwrap_or(0),
            })
        };
        rows.iter().map(standing).collect()
    }

    /// The records that stand as dead letters.
    ///
    /// # Errors
    /// As [`Snapshot::standings`].
    pub async fn letters(&self) -> Result<Vec<SetAside>> {
        let rows = self.ask("read dead letters from postgres", LETTERS).await?;
        let letter = |row: &Row| SetAside {
            partition: row.get(0),
            offset: row.get(1),
            code: row.get(2),
            tried: row.get(3),
            begun: row.get(4),
        };
        Ok(rows.iter().map(letter).collect())
    }

    /// Reads a table, `table` or `schema.table`, row by row: a value for each of `columns`.
    ///
    /// # Errors
    /// `Config` when the table or a column is not there or may not be read; `Outside` when Postgres goes away.
    pub async fn read(
        &self,
        table: &str,
        columns: &[Column],
        mut each: impl FnMut(Vec<Plain>),
    ) -> Result<()> {
        let table = TableName::parse(table)?;
        let what = format!("read table {table} from postgres");
        let limit = self.settings.timeouts.statement;
        let values: Vec<String> = columns
            .iter()
            .map(|column| said(&column.ty, &quote(&column.name)))
            .collect();
        let declare = format!(
            "DECLARE checked NO SCROLL CURSOR FOR SELECT {} FROM {table}",
            values.join(", ")
        );
        let client = &self.session.client;
        within(&what, limit, client.batch_execute(&declare)).await?;
        loop {
            let fetch = format!("FETCH {PAGE} FROM checked");
            let page = within(&what, limit, client.simple_query(&fetch)).await?;
            let mut rows = 0;
            for message in &page {
                let SimpleQueryMessage::Row(row) = message else {
                    continue;
                };
                rows += 1;
                let values = columns.iter().enumerate();
                each(
                    values
                        .map(|(at, column)| read(&column.ty, row.get(at)))
                        .collect(),
                );
            }
            if rows < PAGE {
                break;
            }
        }
        within(&what, limit, client.batch_execute("CLOSE checked")).await
    }
}

/// The expression that says a value as the text which [`Plain::parse`] reads.
fn said(ty: &Type, value: &str) -> String {
    match ty {
        Type::Bytes => format!("pg_catalog.encode({value}, 'hex')"),
        // The whole seconds and the fraction apart: before 14 a number with both is a float.
        Type::Timestamp => format!(
            "CASE WHEN pg_catalog.isfinite({value}) THEN \
             ((extract(epoch FROM pg_catalog.date_trunc('second', {value}))::int8 * 1000000) \
             + (extract(microseconds FROM {value})::int8 % 1000000))::text ELSE {value}::text END"
        ),
        Type::Date => format!(
            "CASE WHEN pg_catalog.isfinite({value}) THEN ({value} - DATE '1970-01-01')::text ELSE {value}::text END"
        ),
        Type::Time => format!("(extract(epoch FROM {value}) * 1000000)::int8::text"),
        Type::List(item) | Type::Set(item) => format!(
            "CASE WHEN {value} IS NOT NULL THEN coalesce((SELECT pg_catalog.json_agg({} ORDER BY item.ord) \
             FROM unnest({value}) WITH ORDINALITY AS item (elem, ord))::text, '[]') END",
            said(item, "item.elem")
        ),
        _ => format!("{value}::text"),
    }
}

fn read(ty: &Type, text: Option<&str>) -> Plain {
    let Some(text) = text else {
        return Plain::Null;
    };
    let (Type::List(item) | Type::Set(item)) = ty else {
        return Plain::parse(ty, text);
    };
    match serde_json::from_str::<Vec<Option<String>>>(text) {
        Ok(items) => Plain::List(
            items
                .iter()
                .map(|text| read(item, text.as_deref()))
                .collect(),
        ),
        Err(_) => Plain::Text(text.to_owned()),
    }
}
