//! One row against its route: [`fit`] checks each cell and copies the row.
//!
//! Resolves what refers to the source record (−3 to −6). Brings values that have several forms into one, so
//! that equal keys have equal bytes: decimals get the column's scale and their shortest form; in key columns
//! −0 becomes 0, every NaN the same one, and a timestamp for Cassandra whole milliseconds (rounded down).

use super::rules::{CASSANDRA_MAX_KEY, Rules, Store};
use crate::record::cells::{
    Cell, Items, Reader, check, get_decimal, get_float32, get_float64, get_int64, put, put_decimal,
    put_float32, put_float64, put_int64, put_null, put_unset,
};
use crate::record::decimal::Exact;
use crate::record::{Op, Record, Type, json};
use crate::sink::{MAX_MESSAGE, MessageFormat};

/// Why a row does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RowFault {
    /// The column at fault, where there is one.
    pub(super) column: Option<usize>,
    /// What stands there.
    pub(super) what: String,
}

#[cold]
fn fault<T>(column: impl Into<Option<usize>>, what: impl Into<String>) -> Result<T, RowFault> {
    Err(RowFault {
        column: column.into(),
        what: what.into(),
    })
}

/// Checks a row's cells and appends them to `out`; after an error `out` may hold a part of them.
pub(super) fn fit(
    rules: &Rules,
    op: Op,
    cells: &[u8],
    record: &Record<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RowFault> {
    if op == Op::Delete && !rules.deletes {
        return fault(
            None,
            if rules.key.is_empty() {
                "a delete without a key to delete by"
            } else {
                "a delete on a route with a guard and without deleted_at: an older row could come back"
            },
        );
    }
    let start = out.len();
    let mut reader = Reader::new(cells);
    let mut partition = 0;
    // Cells that leave as they came are copied together, up to the next one that does not.
    let mut copied = 0;
    for (index, column) in rules.columns.iter().enumerate() {
        if reader.is_empty() {
            return fault(
                None,
                format!("{index} cells for {} columns", rules.columns.len()),
            );
        }
        let before = cells.len() - reader.rest().len();
        let cell = reader
            .cell()
            .or_else(|error| fault(index, error.to_string()))?;
        let after = cells.len() - reader.rest().len();
        let micros;
        let own = matches!(cell, Cell::Value(_) | Cell::Null | Cell::Unset);
        let cell = match resolve(index, &column.ty, cell, record)? {
            Resolved::Cell(cell) => cell,
            Resolved::Timestamp(time) => {
                micros = time.to_be_bytes();
                Cell::Value(&micros)
            }
        };
        partition += judge(rules, op, index, cell)?;
        let several = has_several_forms(rules, index);
        if own && !several {
            continue;
        }
        out.extend_from_slice(&cells[copied..before]);
        copied = after;
        match cell {
            Cell::Value(value) if several => put_canonical(&column.ty, value, out),
            Cell::Value(value) => put(out, value),
            Cell::Unset => put_unset(out),
            _ => put_null(out),
        }
    }
    out.extend_from_slice(&cells[copied..cells.len() - reader.rest().len()]);
    if !reader.is_empty() {
        let left = reader.rest().len();
        return fault(
            None,
            format!(
                "{left} bytes after the cells of {} columns",
                rules.columns.len()
            ),
        );
    }
    if partition > CASSANDRA_MAX_KEY {
        return fault(
            None,
            format!("a partition key of {partition} bytes (at most {CASSANDRA_MAX_KEY})"),
        );
    }
    if out.len() - start > rules.max_row {
        return fault(
            None,
            format!(
                "a row of {} bytes (at most {})",
                out.len() - start,
                rules.max_row
            ),
        );
    }
    if let Some(message) = &rules.message
        && !message.fits(op, &out[start..])
    {
        return fault(
            None,
            format!("a message of more than {MAX_MESSAGE} bytes with its headers"),
        );
    }
    Ok(())
}

/// Judges one cell that refers to nothing any more; returns what it adds to a Cassandra partition key.
#[inline]
fn judge(rules: &Rules, op: Op, index: usize, cell: Cell<'_>) -> Result<usize, RowFault> {
    let column = &rules.columns[index];
    let key = rules.in_key[index];
    let needed = key || rules.guard == Some(index);
    if op == Op::Delete && !needed {
        return match cell {
            Cell::Unset => Ok(0),
            _ => fault(index, "a value outside the key in a delete"),
        };
    }
    match cell {
        Cell::Value(value) => {
            if key && value.is_empty() {
                return fault(index, "an empty key");
            }
            judge_value(rules.store, index, &column.ty, value)?;
            if key && rules.store == Store::Cassandra {
                return key_bytes(rules, index, value.len());
            }
        }
        Cell::Unset if needed || rules.store == Store::Postgres || is_payload(rules, index) => {
            return fault(index, "an unset cell");
        }
        Cell::Unset => {}
        _ if needed || !column.nullable => return fault(index, "null"),
        _ => {}
    }
    Ok(0)
}

/// Whether the column is the whole value of a message.
fn is_payload(rules: &Rules, index: usize) -> bool {
    let message = rules.message.as_ref();
    message.and_then(MessageFormat::payload) == Some(index)
}

/// What a key column adds to the partition key; one clustering value has the same limit for itself.
fn key_bytes(rules: &Rules, index: usize, length: usize) -> Result<usize, RowFault> {
    if rules.key[..rules.partition].contains(&index) {
        return Ok(if rules.partition == 1 {
            length
        } else {
            length + 3
        });
    }
    if length > CASSANDRA_MAX_KEY {
        return fault(
            index,
            format!("a clustering value of {length} bytes (at most {CASSANDRA_MAX_KEY})"),
        );
    }
    Ok(0)
}

/// A cell that refers to nothing any more.
enum Resolved<'a> {
    Cell(Cell<'a>),
    Timestamp(i64),
}

#[inline]
fn resolve<'a>(
    index: usize,
    ty: &Type,
    cell: Cell<'a>,
    record: &Record<'a>,
) -> Result<Resolved<'a>, RowFault> {
    let payload = |what: &str, bytes: Option<&'a [u8]>| {
        if !matches!(ty, Type::Bytes | Type::Text) {
            return fault(
                index,
                format!("the source's {what} (only for bytes and text)"),
            );
        }
        Ok(Resolved::Cell(bytes.map_or(Cell::Null, Cell::Value)))
    };
    match cell {
        Cell::Value(_) | Cell::Null | Cell::Unset => Ok(Resolved::Cell(cell)),
        Cell::SourceKey => payload("key", record.key),
        Cell::SourceValue => payload("value", record.value),
        Cell::SourceTimestamp if *ty != Type::Timestamp => {
            fault(index, "the source's timestamp (only for timestamp)")
        }
        Cell::SourceTimestamp if record.timestamp == -1 => Ok(Resolved::Cell(Cell::Null)),
        Cell::SourceTimestamp => match record.timestamp.checked_mul(1000) {
            Some(micros) => Ok(Resolved::Timestamp(micros)),
            None => fault(
                index,
                format!("the source's timestamp {} ms", record.timestamp),
            ),
        },
        Cell::SourceHeaders if *ty != Type::Headers => {
            fault(index, "the source's headers (only for headers)")
        }
        Cell::SourceHeaders if record.headers.is_empty() => {
            Ok(Resolved::Cell(Cell::Value(&[0; 4])))
        }
        Cell::SourceHeaders => Ok(Resolved::Cell(Cell::Value(record.headers))),
    }
}

#[inline]
fn judge_value(store: Store, index: usize, ty: &Type, value: &[u8]) -> Result<(), RowFault> {
    if let Err(error) = check(ty, value) {
        return fault(index, error.to_string());
    }
    let refused = match ty {
        Type::Text | Type::Json | Type::List(_) | Type::Set(_) | Type::Map(..) => {
            special(store, ty, value)
        }
        _ => None,
    };
    match refused {
        Some(what) => fault(index, what),
        None => Ok(()),
    }
}

/// What a store refuses inside a value of its type; `value` is checked.
fn special(store: Store, ty: &Type, value: &[u8]) -> Option<&'static str> {
    let inside = |types: [&Type; 2]| {
        types
            .into_iter()
            .cycle()
            .zip(Items::new(value))
            .find_map(|(ty, cell)| match cell {
                Cell::Value(value) => special(store, ty, value),
                _ => (store == Store::Cassandra)
                    .then_some("null inside, which Cassandra does not hold"),
            })
    };
    match (store, ty) {
        (Store::Postgres, Type::Text) if value.contains(&0) => {
            Some("text with NUL, which Postgres does not hold")
        }
        (Store::Postgres, Type::Json) => {
            let oddities = std::str::from_utf8(value)
                .ok()
                .and_then(|text| json::check(text).ok())?;
            if oddities.nul {
                return Some("JSON with \\u0000, which Postgres does not hold");
            }
            oddities
                .lone_surrogate
                .then_some("JSON with half a surrogate pair, which Postgres does not hold")
        }
        (_, Type::List(item) | Type::Set(item)) => inside([item, item]),
        (_, Type::Map(key, value)) => inside([key, value]),
        _ => None,
    }
}

/// Whether equal values of the column may come in different bytes.
#[inline]
fn has_several_forms(rules: &Rules, index: usize) -> bool {
    match rules.columns[index].ty {
        Type::Decimal { .. } => true,
        Type::Float32 | Type::Float64 => rules.in_key[index],
        Type::Timestamp => rules.in_key[index] && rules.store == Store::Cassandra,
        _ => false,
    }
}

/// Appends a checked value of such a column in the one form of it.
fn put_canonical(ty: &Type, value: &[u8], out: &mut Vec<u8>) {
    match ty {
        Type::Decimal { precision, scale } => {
            let (unscaled, own) = get_decimal(value);
            let fit =
                Exact::from_parts(unscaled, own).and_then(|value| value.fit(*precision, *scale));
            put_decimal(out, fit.expect("the check found that it fits"), *scale);
        }
        Type::Float32 => {
            let float = get_float32(value);
            put_float32(
                out,
                if float.is_nan() {
                    f32::NAN
                } else {
                    float + 0.0
                },
            );
        }
        Type::Float64 => {
            let float = get_float64(value);
            put_float64(
                out,
                if float.is_nan() {
                    f64::NAN
                } else {
                    float + 0.0
                },
            );
        }
        Type::Timestamp => {
            let micros = get_int64(value);
            put_int64(out, micros - micros.rem_euclid(1000));
        }
        _ => put(out, value),
    }
}
