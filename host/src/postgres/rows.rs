//! Rows of a route as binary parameters: arrays built straight from cells, one copy, no value boxed.
//!
//! It owns order and shape: rows of a keyed route are sorted by key, so that flights that meet on the same
//! rows lock them in the same order; writes and deletes are told apart, unless the route keeps what it deletes. Where a row does not fit, the error
//! names its record's offset.

use tokio_postgres::types::{Kind, Type as ServerType};

use crate::error::{Error, Result};
use crate::record::cells::{self, Cell, Reader};
use crate::record::{Batch, Column, Op, RowBatch, RowRef, Type};
use crate::route::POSTGRES_MAX_ROW;

use super::connection::RouteStatements;
use super::plan::{RoutePlan, Shape};
use super::wire;

/// Buffers kept for reuse are dropped past this size.
const KEEP_BYTES: usize = 1 << 20;

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

    /// Gives the buffers back.
    pub(super) fn recycle(self, spare: &mut Vec<Vec<u8>>) {
        spare.extend(
            self.write
                .into_iter()
                .chain(self.delete)
                .filter(|buffer| buffer.capacity() <= KEEP_BYTES),
        );
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
    spare: &mut Vec<Vec<u8>>,
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
                    let mut times = open_array(wire::oid(&Type::Timestamp), writes, spare);
                    written().for_each(|(_, gone)| put_time(&mut times, gone));
                    arrays.push(times);
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

/// Why a row cannot be encoded.
enum Misfit {
    Data(String),
    Bug(String),
}

impl Misfit {
    fn error(self, plan: &RoutePlan, offset: Option<&i64>) -> Error {
        let what = format!(
            "row of route {:?} for postgres table {}",
            plan.route.name, plan.route.table
        );
        let offset = offset.map_or_else(
            || "an unknown offset".to_owned(),
            |offset| format!("offset {offset}"),
        );
        match self {
            Self::Data(detail) => {
                Error::data(what, format!("{detail}, from the record at {offset}"))
            }
            Self::Bug(detail) => Error::bug(what, format!("{detail}, from the record at {offset}")),
        }
    }
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

/// One array a column.
struct Arrays<'a> {
    columns: &'a [&'a Column],
    buffers: Vec<Vec<u8>>,
}

impl<'a> Arrays<'a> {
    fn open(columns: &'a [&'a Column], rows: usize, spare: &mut Vec<Vec<u8>>) -> Self {
        let buffers = columns
            .iter()
            .map(|column| open_array(wire::oid(&column.ty), rows, spare))
            .collect();
        Self { columns, buffers }
    }

    /// Pushes a row; of one that is deleted (`gone`) what it leaves unset is null.
    fn push(&mut self, cells: &[u8], gone: Option<i64>) -> Result<(), Misfit> {
        let mut reader = Reader::new(cells);
        for (column, buffer) in self.columns.iter().zip(&mut self.buffers) {
            let before = reader.rest();
            let cell = next(&mut reader)?;
            if matches!(cell, Cell::Value(_)) && wire::is_copied(&column.ty) {
                // Length and value as they stand: most cells of most tables.
                buffer.extend_from_slice(&before[..before.len() - reader.rest().len()]);
            } else {
                put_cell(buffer, column, cell, gone)?;
            }
        }
        Ok(())
    }

    /// Pushes only the key of a row, in the key's order.
    fn push_key(&mut self, cells: &[u8], key: &[usize], columns: usize) -> Result<(), Misfit> {
        let mut reader = Reader::new(cells);
        for index in 0..columns {
            let cell = next(&mut reader)?;
            if let Some(at) = key.iter().position(|column| *column == index) {
                put_cell(&mut self.buffers[at], self.columns[at], cell, None)?;
            }
        }
        Ok(())
    }

    fn close(self) -> Vec<Vec<u8>> {
        self.buffers
    }
}

/// One array of the table's row type (`record_recv`: field count, then OID, length and value of each).
struct RowArray<'a> {
    columns: &'a [Column],
    fields: &'a [(u32, Option<usize>)],
    buffer: Vec<u8>,
}

impl<'a> RowArray<'a> {
    fn open(
        plan: &'a RoutePlan,
        statements: &'a RouteStatements,
        rows: usize,
        spare: &mut Vec<Vec<u8>>,
    ) -> Self {
        let element = match statements.write.params()[0].kind() {
            Kind::Array(element) => element.oid(),
            _ => 0,
        };
        Self {
            columns: &plan.route.columns,
            fields: &statements.fields,
            buffer: open_array(element, rows, spare),
        }
    }

    fn push(&mut self, cells: &[u8], gone: Option<i64>) -> Result<(), Misfit> {
        let mut reader = Reader::new(cells);
        let mut row = Vec::with_capacity(self.columns.len());
        for _ in self.columns {
            row.push(next(&mut reader)?);
        }
        let start = wire::open(&mut self.buffer);
        let count = i32::try_from(self.fields.len()).expect("a table has at most 1600 columns");
        self.buffer.extend_from_slice(&count.to_be_bytes());
        for (oid, column) in self.fields {
            self.buffer.extend_from_slice(&oid.to_be_bytes());
            match column {
                Some(index) if *index == self.columns.len() => put_time(&mut self.buffer, gone),
                Some(index) => {
                    put_cell(&mut self.buffer, &self.columns[*index], row[*index], gone)?
                }
                None => cells::put_null(&mut self.buffer),
            }
        }
        wire::close(&mut self.buffer, start).map_err(Misfit::Data)
    }

    fn close(self) -> Vec<Vec<u8>> {
        vec![self.buffer]
    }
}

/// A buffer that holds the header of an array. Its null flag is always set: the server reads the elements.
fn open_array(element: u32, rows: usize, spare: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let mut buffer = spare.pop().unwrap_or_default();
    buffer.clear();
    let flags = wire::array_header(&mut buffer, element, rows)
        .expect("a batch has far fewer than 2³¹ rows");
    buffer[flags + 3] = 1;
    buffer
}

fn next<'a>(reader: &mut Reader<'a>) -> Result<Cell<'a>, Misfit> {
    reader
        .cell()
        .map_err(|error| Misfit::Bug(error.to_string()))
}

/// The time of a delete in `deleted_at`; null for a row that is there.
fn put_time(out: &mut Vec<u8>, gone: Option<i64>) {
    match gone {
        None => cells::put_null(out),
        Some(micros) => wire::put(out, &Type::Timestamp, &micros.to_be_bytes())
            .expect("kept within the server's calendar"),
    }
}

fn put_cell(
    out: &mut Vec<u8>,
    column: &Column,
    cell: Cell<'_>,
    gone: Option<i64>,
) -> Result<(), Misfit> {
    match cell {
        Cell::Unset if gone.is_some() => {
            cells::put_null(out);
            Ok(())
        }
        Cell::Value(value) => wire::put(out, &column.ty, value)
            .map_err(|detail| Misfit::Data(format!("column {:?}: {detail}", column.name))),
        Cell::Null if column.nullable => {
            cells::put_null(out);
            Ok(())
        }
        Cell::Null => Err(Misfit::Data(format!(
            "column {:?} is null and not nullable",
            column.name
        ))),
        Cell::Unset => Err(Misfit::Data(format!(
            "column {:?} is left unset, which postgres routes do not take",
            column.name
        ))),
        other => Err(Misfit::Bug(format!(
            "column {:?} still refers to its source: {other:?}",
            column.name
        ))),
    }
}

/// The fields of a table's row type against the columns of a route that travels row-wise.
///
/// # Errors
/// The columns whose type is not exactly the route's: a row type converts nothing.
pub(super) fn fields(
    plan: &RoutePlan,
    array: &ServerType,
) -> Result<Vec<(u32, Option<usize>)>, String> {
    let Kind::Array(row) = array.kind() else {
        return Err(format!(
            "parameter of type {array}, an array of rows was expected"
        ));
    };
    let Kind::Composite(fields) = row.kind() else {
        return Err(format!("{row} is not the row type of a table"));
    };
    let mut problems = Vec::new();
    let mut out = Vec::with_capacity(fields.len());
    for field in fields {
        let index = plan
            .columns
            .iter()
            .position(|column| column.name == field.name());
        if let Some(index) = index
            && !travels(&plan.columns[index].ty, field.type_())
        {
            let column = &plan.columns[index];
            problems.push(format!(
                "column {:?} is {}, the route needs {}",
                column.name,
                field.type_(),
                wire::sql_name(&column.ty)
            ));
        }
        out.push((field.type_().oid(), index));
    }
    if problems.is_empty() {
        Ok(out)
    } else {
        Err(problems.join("; "))
    }
}

/// Whether the binary form of `ty` is that of the server's type.
fn travels(ty: &Type, server: &ServerType) -> bool {
    match ty {
        Type::List(item) | Type::Set(item) => {
            matches!(server.kind(), Kind::Array(element) if element.oid() == wire::oid(item))
        }
        Type::Text => [ServerType::TEXT, ServerType::VARCHAR].contains(server),
        Type::Timestamp => [ServerType::TIMESTAMPTZ, ServerType::TIMESTAMP].contains(server),
        _ => server.oid() == wire::oid(ty),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::error::Blame;
    use crate::manifest::{Create, Mode};
    use crate::postgres::{PostgresRoute, TableName};

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
