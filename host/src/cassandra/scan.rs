//! [`scan`]: a whole table, row by row, for checks; and the positions of a pipeline as they stand. It writes nothing and
//! takes nothing.

use std::ops::ControlFlow;

use scylla::response::PagingState;
use scylla::statement::Consistency;
use scylla::value::{CqlValue, Row};

use super::identifier::{TableName, column};
use super::session::CassandraSession;
use super::{CassandraAnchor, failure, retry};
use crate::anchor::Standing;
use crate::error::{Error, Result};
use crate::record::{Column, Plain};

/// Rows fetched at once.
const PAGE: i32 = 2000;

/// Reads a table, `table` or `keyspace.table`, row by row: a value for each of `columns`. What a quorum of the replicas
/// in this datacenter has acknowledged is seen, each page as of its own moment.
///
/// # Errors
/// `Config` when the table or a column is not there or may not be read; `Outside` when Cassandra goes away.
pub async fn scan(
    session: &CassandraSession,
    table: &str,
    columns: &[Column],
    mut each: impl FnMut(Vec<Plain>),
) -> Result<()> {
    let table = TableName::parse(table, session.keyspace())?;
    let what = format!("read table {table} from cassandra");
    let mut names = Vec::with_capacity(columns.len());
    for wanted in columns {
        column(&wanted.name)?;
        names.push(format!("\"{}\"", wanted.name));
    }
    let cql = format!("SELECT {} FROM {table}", names.join(", "));
    let mut statement = session.prepare(&cql, Consistency::LocalQuorum).await?;
    statement.set_page_size(PAGE);
    let mut state = PagingState::start();
    loop {
        let page = retry::until(session.presence(), session.deadline(), async || {
            let driver = session.driver();
            let page = Box::pin(driver.execute_single_page(&statement, &[], state.clone())).await;
            page.map_err(|error| failure::explain(&what, &error))
        });
        let (page, next) = page.await?;
        let unreadable = |error: &dyn std::fmt::Display| Error::bug(&what, error);
        let rows = page
            .into_rows_result()
            .map_err(|error| unreadable(&error))?;
        for row in rows.rows::<Row>().map_err(|error| unreadable(&error))? {
            let row = row.map_err(|error| unreadable(&error))?;
            each(
                row.columns
                    .into_iter()
                    .map(|value| value.map_or(Plain::Null, plain))
                    .collect(),
            );
        }
        match next.into_paging_control_flow() {
            ControlFlow::Break(()) => return Ok(()),
            ControlFlow::Continue(next) => state = next,
        }
    }
}

/// A value; an empty collection is none, as the server keeps it.
fn plain(value: CqlValue) -> Plain {
    let all = |items: Vec<CqlValue>| items.into_iter().map(plain).collect::<Vec<_>>();
    match value {
        CqlValue::Ascii(text) | CqlValue::Text(text) => Plain::Text(text),
        CqlValue::Boolean(value) => Plain::Boolean(value),
        CqlValue::Blob(bytes) => Plain::Bytes(bytes),
        CqlValue::TinyInt(value) => Plain::Integer(value.into()),
        CqlValue::SmallInt(value) => Plain::Integer(value.into()),
        CqlValue::Int(value) => Plain::Integer(value.into()),
        CqlValue::BigInt(value) => Plain::Integer(value),
        CqlValue::Float(value) => Plain::float(value.into()),
        CqlValue::Double(value) => Plain::float(value),
        CqlValue::Uuid(uuid) => Plain::Uuid(uuid.into_bytes()),
        CqlValue::Timeuuid(uuid) => Plain::Uuid(*uuid.as_bytes()),
        CqlValue::Timestamp(millis) => Plain::Timestamp(millis.0.saturating_mul(1000)),
        // Days from 2³¹ before 1970.
        CqlValue::Date(days) => Plain::Date((days.0 ^ (1 << 31)).cast_signed()),
        CqlValue::Time(nanos) if nanos.0 % 1000 == 0 => Plain::Time(nanos.0 / 1000),
        CqlValue::Decimal(decimal) => {
            let (bytes, scale) = decimal.as_signed_be_bytes_slice_and_exponent();
            match signed(bytes) {
                Some(digits) => Plain::decimal(digits, scale),
                None => Plain::Bytes(bytes.to_vec()),
            }
        }
        CqlValue::List(items) | CqlValue::Vector(items) if !items.is_empty() => {
            Plain::List(all(items))
        }
        CqlValue::Set(items) if !items.is_empty() => Plain::set(all(items)),
        CqlValue::Map(items) if !items.is_empty() => {
            let pairs = items.into_iter();
            Plain::map(
                pairs
                    .map(|(key, value)| (plain(key), plain(value)))
                    .collect(),
            )
        }
        CqlValue::List(_) | CqlValue::Vector(_) | CqlValue::Set(_) | CqlValue::Map(_) => {
            Plain::Null
        }
        other => Plain::Text(format!("{other:?}")),
    }
}

/// A big-endian two's complement number of at most 16 bytes.
fn signed(bytes: &[u8]) -> Option<i128> {
    let negative = *bytes.first()? >= 0x80;
    let mut all = [if negative { 0xff } else { 0 }; 16];
    let start = 16_usize.checked_sub(bytes.len())?;
    all[start..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}

impl CassandraAnchor {
    /// The positions of the pipeline, ascending by partition.
    ///
    /// # Errors
    /// `Config` where a row does not parse, `Outside` when Cassandra does not answer.
    pub async fn standings(&self) -> Result<Vec<Standing>> {
        let mut partitions = self.positions.listed().await?;
        partitions.sort_unstable();
        let mut standings = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let Some(found) = self.positions.read(partition).await? else {
                continue;
            };
            standings.push(Standing {
                partition,
                next: found.mark.next,
                reserved: found.mark.reserved,
                cuts: found.cuts,
                topic_id: found.topic_id,
                ledger: found.mark.ledger,
                retried: 0,
            });
        }
        Ok(standings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scylla::value::{CqlDate, CqlDecimal, CqlTime, CqlTimestamp};

    #[test]
    fn values_of_the_driver_are_the_plain_ones() {
        let decimal = CqlDecimal::from_signed_be_bytes_and_exponent(vec![0xff, 0x6a], 2);
        for (value, expected) in [
            (CqlValue::Date(CqlDate(1 << 31)), Plain::Date(0)),
            (CqlValue::Date(CqlDate((1 << 31) - 1)), Plain::Date(-1)),
            (
                CqlValue::Timestamp(CqlTimestamp(-5)),
                Plain::Timestamp(-5000),
            ),
            (CqlValue::Time(CqlTime(3_000)), Plain::Time(3)),
            (CqlValue::Decimal(decimal), Plain::decimal(-150, 2)),
            (CqlValue::Set(Vec::new()), Plain::Null),
            (
                CqlValue::Set(vec![CqlValue::Int(2), CqlValue::Int(1)]),
                Plain::Set(vec![Plain::Integer(1), Plain::Integer(2)]),
            ),
            (CqlValue::Float(0.1), Plain::float(f64::from(0.1_f32))),
        ] {
            assert_eq!(plain(value), expected);
        }
        assert_eq!(signed(&[0; 17]), None);
    }
}
