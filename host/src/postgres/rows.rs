//! Rows of a route as binary parameters: which rows, in which order, in which arrays ([`arrays`] builds them).
//!
//! Rows of a keyed route are sorted by key, so that flights that meet on the same rows lock them in the same order;
//! writes and deletes are told apart, unless the route keeps what it deletes. Where a row does not fit, the error names
//! its record's offset.

mod arrays;

use crate::error::{Error, Result};
use crate::record::cells::Reader;
use crate::record::{Batch, Column, Op, RowBatch, RowRef};
use crate::route::POSTGRES_MAX_ROW;

use super::connection::RouteStatements;
use super::plan::{RoutePlan, Shape};
use super::spare::Spare;
use arrays::{Arrays, Misfit, RowArray, times};

pub(super) use arrays::fields;

/// Parameters of a route's statements, one buffer each; empty where nothing is written or deleted.
#[derive(Debug, Default)]
pub(super) struct RouteParams {
    pub(super) write: Vec<Vec<u8>>,
    pub(super) delete: Vec<Vec<u8>>,
}

impl RouteParams {
    /// How much it is.
    pub(super) fn bytes(&self) -> usize {
        self.write.iter().chain(&self.delete).map(Vec::len).sum()
    }

    /// Its buffers, for reuse.
    pub(super) fn into_buffers(self) -> impl Iterator<Item = Vec<u8>> {
        self.write.into_iter().chain(self.delete)
    }
}

/// Most bytes of one request: one row may be as large, and the server takes less than 1 GiB.
const MAX_REQUEST: usize = POSTGRES_MAX_ROW + (1 << 20);

/// Record times past the year 9999 (milliseconds) are not in the server's calendar.
const LAST_MILLIS: i64 = 253_402_300_799_999;

/// Encodes the rows of a route that came from records of `batch`.
///
/// # Errors
/// `Data` for a value the table's types cannot hold, naming its record; `Bug` for cells that were to be
/// checked before.
pub(super) fn encode(
    plan: &RoutePlan,
    statements: &RouteStatements,
    rows: &RowBatch,
    batch: &Batch,
    spare: &mut Spare,
) -> Result<RouteParams> {
    let order = order(plan, rows)?;
    let keeps = plan.keeps_deleted();
    let is_write = |row: &RowRef<'_>| keeps || row.op == Op::Write;
    let writes = rows.iter().filter(is_write).count();
    let deletes = rows.len() - writes;
    let mut params = RouteParams::default();
    let sorted = || order.iter().map(|index| rows.row(*index));
    let located = |row: &RowRef<'_>, misfit: Misfit| {
        misfit.error(plan, batch.offsets().get(row.source as usize))
    };
    let written = || {
        let gone = |row: &RowRef<'_>| (row.op == Op::Delete).then(|| deleted_at(batch, row.source));
        sorted()
            .filter(is_write)
            .map(move |row| (row, if keeps { gone(&row) } else { None }))
    };
    if writes > 0 {
        params.write = match plan.shape {
            Shape::Columns => {
                let columns: Vec<&Column> = plan.route.columns.iter().collect();
                let mut arrays = Arrays::open(&columns, writes, spare);
                for (row, gone) in written() {
                    arrays
                        .push(row.cells, gone)
                        .map_err(|misfit| located(&row, misfit))?;
                }
                let mut arrays = arrays.close();
                if keeps {
                    arrays.push(times(written().map(|(_, gone)| gone), writes, spare));
                }
                arrays
            }
            Shape::Rows => {
                let mut array = RowArray::open(plan, statements, writes, spare);
                for (row, gone) in written() {
                    array
                        .push(row.cells, gone)
                        .map_err(|misfit| located(&row, misfit))?;
                }
                array.close()
            }
        };
    }
    if deletes > 0 {
        let mut removed = sorted().filter(|row| !is_write(row)).peekable();
        if statements.delete.is_none()
            && let Some(row) = removed.peek()
        {
            let why = if plan.route.guard.is_some() {
                "a delete, but its route has a guard and no deleted_at: an older row could come back"
            } else {
                "a delete, but the route appends"
            };
            return Err(located(row, Misfit::Data(why.to_owned())));
        }
        let keys: Vec<&Column> = plan
            .route
            .key
            .iter()
            .map(|index| &plan.route.columns[*index])
            .collect();
        let mut arrays = Arrays::open(&keys, deletes, spare);
        for row in removed {
            arrays
                .push_key(row.cells, &plan.route.key, plan.route.columns.len())
                .map_err(|misfit| located(&row, misfit))?;
        }
        params.delete = arrays.close();
    }
    bounded(plan, &params, MAX_REQUEST)?;
    Ok(params)
}

/// Refuses what the server would end the connection for; the lane halves the flight then.
fn bounded(plan: &RoutePlan, params: &RouteParams, most: usize) -> Result<()> {
    for arrays in [&params.write, &params.delete] {
        let bytes: usize = arrays.iter().map(Vec::len).sum();
        if bytes > most {
            return Err(Error::data(
                format!(
                    "rows of route {:?} for postgres table {}",
                    plan.route.name, plan.route.table
                ),
                format!("{bytes} bytes in one flight, at most {most} are sent"),
            ));
        }
    }
    Ok(())
}

/// When a record's rows were deleted, microseconds: its own time, so that a replay leaves the same.
fn deleted_at(batch: &Batch, source: u32) -> i64 {
    let millis = batch.timestamps().get(source as usize).copied();
    millis.unwrap_or(0).clamp(0, LAST_MILLIS) * 1000
}

/// Indices of the rows: by key where there is one, else as they came.
///
/// The order of keys is that of their cells' bytes: not the server's, but the same in every host.
fn order(plan: &RoutePlan, rows: &RowBatch) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let Some(last) = plan.route.key.iter().max() else {
        return Ok(order);
    };
    let mut bytes = Vec::with_capacity(rows.len() * 16);
    let mut ends = Vec::with_capacity(rows.len() + 1);
    ends.push(0);
    for row in rows.iter() {
        let mut reader = Reader::new(row.cells);
        for index in 0..=*last {
            let before = reader.rest();
            reader
                .cell()
                .map_err(|error| Misfit::Bug(error.to_string()).error(plan, None))?;
            if plan.route.key.contains(&index) {
                bytes.extend_from_slice(&before[..before.len() - reader.rest().len()]);
            }
        }
        ends.push(bytes.len());
    }
    let key = |row: usize| &bytes[ends[row]..ends[row + 1]];
    order.sort_unstable_by(|a, b| key(*a).cmp(key(*b)).then(a.cmp(b)));
    Ok(order)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::error::Blame;
    use crate::manifest::{Create, Mode};
    use crate::postgres::{PostgresRoute, TableName};
    use crate::record::Type;

    #[test]
    fn a_flight_too_large_for_one_request_is_a_matter_of_its_data() {
        let plan = RoutePlan::new(PostgresRoute {
            index: 0,
            name: "r".to_owned(),
            columns: vec![Column {
                name: "id".to_owned(),
                ty: Type::Int64,
                nullable: false,
            }],
            table: TableName::parse("t").unwrap(),
            mode: Mode::Append,
            key: Vec::new(),
            guard: None,
            deleted_at: None,
            create: Create::Never,
        })
        .unwrap();
        let params = RouteParams {
            write: vec![vec![0; 60], vec![0; 41]],
            delete: Vec::new(),
        };
        assert!(bounded(&plan, &params, 101).is_ok());
        let error = bounded(&plan, &params, 100).unwrap_err();
        assert_eq!(error.blame(), Blame::Data, "so that the lane halves it");
    }
}
