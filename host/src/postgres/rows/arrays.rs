//! Arrays in the binary form of the server, built straight from cells, one copy, no value boxed: one a column
//! ([`Arrays`]), or one of the table's row type ([`RowArray`], [`fields`]).
//!
//! It knows no records: what does not fit ([`Misfit`]) gets its offset from whoever walks the rows.

use tokio_postgres::types::{Kind, Type as ServerType};

use crate::error::Error;
use crate::record::cells::{self, Cell, Reader};
use crate::record::{Column, Type};

use super::super::connection::RouteStatements;
use super::super::plan::RoutePlan;
use super::super::spare::Spare;
use super::super::wire;

/// Why a row cannot be encoded.
pub(super) enum Misfit {
    /// The table's types do not hold it.
    Data(String),
    /// It was to be checked before.
    Bug(String),
}

impl Misfit {
    /// For a person, with the offset of its record.
    pub(super) fn error(self, plan: &RoutePlan, offset: Option<&i64>) -> Error {
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

/// One array a column.
pub(super) struct Arrays<'a> {
    columns: &'a [&'a Column],
    buffers: Vec<Vec<u8>>,
}

impl<'a> Arrays<'a> {
    pub(super) fn open(columns: &'a [&'a Column], rows: usize, spare: &mut Spare) -> Self {
        let buffers = columns
            .iter()
            .map(|column| open_array(wire::oid(&column.ty), rows, spare))
            .collect();
        Self { columns, buffers }
    }

    /// Pushes a row; of one that is deleted (`gone`) what it leaves unset is null.
    pub(super) fn push(&mut self, cells: &[u8], gone: Option<i64>) -> Result<(), Misfit> {
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
    pub(super) fn push_key(
        &mut self,
        cells: &[u8],
        key: &[usize],
        columns: usize,
    ) -> Result<(), Misfit> {
        let mut reader = Reader::new(cells);
        for index in 0..columns {
            let cell = next(&mut reader)?;
            if let Some(at) = key.iter().position(|column| *column == index) {
                put_cell(&mut self.buffers[at], self.columns[at], cell, None)?;
            }
        }
        Ok(())
    }

    pub(super) fn close(self) -> Vec<Vec<u8>> {
        self.buffers
    }
}

/// One array of the table's row type (`record_recv`: field count, then OID, length and value of each).
pub(super) struct RowArray<'a> {
    columns: &'a [Column],
    fields: &'a [(u32, Option<usize>)],
    buffer: Vec<u8>,
}

impl<'a> RowArray<'a> {
    pub(super) fn open(
        plan: &'a RoutePlan,
        statements: &'a RouteStatements,
        rows: usize,
        spare: &mut Spare,
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

    pub(super) fn push(&mut self, cells: &[u8], gone: Option<i64>) -> Result<(), Misfit> {
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

    pub(super) fn close(self) -> Vec<Vec<u8>> {
        vec![self.buffer]
    }
}

/// The array of `deleted_at`: when each row was deleted, if it was.
pub(super) fn times(
    gone: impl Iterator<Item = Option<i64>>,
    rows: usize,
    spare: &mut Spare,
) -> Vec<u8> {
    let mut times = open_array(wire::oid(&Type::Timestamp), rows, spare);
    gone.for_each(|gone| put_time(&mut times, gone));
    times
}

/// A buffer that holds the header of an array. Its null flag is always set: the server reads the elements.
fn open_array(element: u32, rows: usize, spare: &mut Spare) -> Vec<u8> {
    let mut buffer = spare.take();
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
pub(in crate::postgres) fn fields(
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
