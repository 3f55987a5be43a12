//! Cells in the binary form of Postgres: the table from column types to types of the server.
//!
//! Owns the names and OIDs of the server's types and the conversion of one value. Most cells are the same
//! bytes on both sides and are copied with their length; the rest is converted in place. It never builds SQL.
//!
//! Text with a NUL byte does not arrive here: the check of rows against columns refuses it; if it did, the
//! server would (22021). Values the server has no finite form for are refused here, because their shifted
//! number would mean infinity there.

use crate::record::Type;
use crate::record::cells::{self, Cell, Reader};

use super::numeric;

/// Microseconds and days from 1970-01-01 to 2000-01-01, the epoch of Postgres.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;

/// What `timestamptz` holds, microseconds since 2000: 4714-11-24 BC to the end of 294276 AD
/// (`MIN_TIMESTAMP`, `END_TIMESTAMP` in `src/include/datatype/timestamp.h`).
const TIMESTAMPS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// What `date` holds, days since 2000 (`DATETIME_MIN_JULIAN`, `DATE_END_JULIAN`, same file).
const DATES: std::ops::Range<i32> = -2_451_545..2_145_031_949;

/// Version byte in front of `jsonb`.
const JSONB_VERSION: u8 = 1;

/// The server's name for the type of a column, as in DDL and in casts of parameters.
pub(super) fn sql_name(ty: &Type) -> String {
    match ty {
        Type::Boolean => "boolean".to_owned(),
        Type::Int16 => "smallint".to_owned(),
        Type::Int32 => "integer".to_owned(),
        Type::Int64 => "bigint".to_owned(),
        Type::Float32 => "real".to_owned(),
        Type::Float64 => "double precision".to_owned(),
        Type::Text => "text".to_owned(),
        Type::Json | Type::Map(..) => "jsonb".to_owned(),
        Type::Bytes => "bytea".to_owned(),
        Type::Uuid => "uuid".to_owned(),
        Type::Timestamp => "timestamp with time zone".to_owned(),
        Type::Date => "date".to_owned(),
        Type::Time => "time without time zone".to_owned(),
        Type::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        Type::List(item) | Type::Set(item) => format!("{}[]", sql_name(item)),
        Type::Headers => "headers".to_owned(),
    }
}

/// The server's name without modifiers, for casts of parameters: a cast to `numeric(10,2)[]` would round.
pub(super) fn parameter_name(ty: &Type) -> String {
    match ty {
        Type::Decimal { .. } => "numeric".to_owned(),
        Type::List(item) | Type::Set(item) => format!("{}[]", parameter_name(item)),
        _ => sql_name(ty),
    }
}

/// OID of the server's type of a value; of the element where the type is a list.
/// Built-in, fixed: `src/include/catalog/pg_type.dat`.
pub(super) fn oid(ty: &Type) -> u32 {
    match ty {
        Type::Boolean => 16,
        Type::Bytes => 17,
        Type::Int64 => 20,
        Type::Int16 => 21,
        Type::Int32 => 23,
        Type::Text => 25,
        Type::Float32 => 700,
        Type::Float64 => 701,
        Type::Date => 1082,
        Type::Time => 1083,
        Type::Timestamp => 1184,
        Type::Decimal { .. } => 1700,
        Type::Uuid => 2950,
        Type::Json | Type::Map(..) => 3802,
        Type::List(item) | Type::Set(item) => oid(item),
        Type::Headers => 0,
    }
}

/// Whether a cell of this type is the same bytes on the server's side, its length included.
#[inline]
pub(super) fn is_copied(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Boolean
            | Type::Int16
            | Type::Int32
            | Type::Int64
            | Type::Float32
            | Type::Float64
            | Type::Text
            | Type::Bytes
            | Type::Uuid
            | Type::Time
    )
}

/// Appends the length and the binary form of a value.
///
/// # Errors
/// What does not fit, as a fragment for a person.
pub(super) fn put(out: &mut Vec<u8>, ty: &Type, value: &[u8]) -> Result<(), String> {
    match ty {
        _ if is_copied(ty) => cells::put(out, value),
        Type::Timestamp => {
            let micros = i64::from_be_bytes(fixed(value)?);
            let shifted = micros
                .checked_sub(EPOCH_MICROS)
                .filter(|shifted| TIMESTAMPS.contains(shifted))
                .ok_or_else(|| format!("a timestamp out of range ({micros} µs)"))?;
            cells::put(out, &shifted.to_be_bytes());
        }
        Type::Date => {
            let days = i32::from_be_bytes(fixed(value)?);
            let shifted = days
                .checked_sub(EPOCH_DAYS)
                .filter(|shifted| DATES.contains(shifted))
                .ok_or_else(|| format!("a date out of range ({days} days)"))?;
            cells::put(out, &shifted.to_be_bytes());
        }
        Type::Json => {
            let length = i32::try_from(value.len() + 1).map_err(|_| "json of 2 GiB")?;
            out.extend_from_slice(&length.to_be_bytes());
            out.push(JSONB_VERSION);
            out.extend_from_slice(value);
        }
        Type::Decimal { precision, scale } => numeric::put(out, value, *precision, *scale)?,
        Type::List(item) | Type::Set(item) => put_array(out, item, value)?,
        Type::Map(..) => {
            let start = open(out);
            out.push(JSONB_VERSION);
            cells::check(ty, value).map_err(|error| error.to_string())?;
            cells::json::put_json(out, ty, value);
            close(out, start)?;
        }
        _ => return Err(format!("a value of type {ty}, which only a topic takes")),
    }
    Ok(())
}

/// Appends a list as a one-dimensional array (`array_recv`); the empty list has no dimension.
fn put_array(out: &mut Vec<u8>, item: &Type, value: &[u8]) -> Result<(), String> {
    let (count, mut reader) = counted(value)?;
    let start = open(out);
    let flags = array_header(out, oid(item), count)?;
    for _ in 0..count {
        match reader.cell().map_err(|error| error.to_string())? {
            Cell::Value(value) => put(out, item, value)?,
            Cell::Null => {
                out[flags + 3] = 1;
                cells::put_null(out);
            }
            other => return Err(format!("{other:?} inside a list")),
        }
    }
    close(out, start)
}

/// The count in front of the cells of a list, and a reader over them.
fn counted(value: &[u8]) -> Result<(usize, Reader<'_>), String> {
    let (count, cells) = value
        .split_first_chunk::<4>()
        .ok_or("a list shorter than its count")?;
    let count =
        usize::try_from(i32::from_be_bytes(*count)).map_err(|_| "a list with a negative count")?;
    Ok((count, Reader::new(cells)))
}

/// Appends the header of an array of `count` elements and returns where its flags word stands; its last byte
/// is 1 when an element is null.
pub(super) fn array_header(
    out: &mut Vec<u8>,
    element: u32,
    count: usize,
) -> Result<usize, &'static str> {
    let length = i32::try_from(count).map_err(|_| "a list of more than 2³¹ elements")?;
    let dimensions = i32::from(count > 0);
    out.extend_from_slice(&dimensions.to_be_bytes());
    let flags = out.len();
    out.extend_from_slice(&0_i32.to_be_bytes());
    out.extend_from_slice(&element.to_be_bytes());
    if count > 0 {
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
    }
    Ok(flags)
}

/// Reserves a length word; [`close`] fills it in.
pub(super) fn open(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&0_i32.to_be_bytes());
    start
}

/// Fills in the length word at `start` with what was appended since.
pub(super) fn close(out: &mut [u8], start: usize) -> Result<(), String> {
    let length = i32::try_from(out.len() - start - 4).map_err(|_| "a value of 2 GiB")?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], String> {
    value
        .try_into()
        .map_err(|_| format!("{} bytes where {N} are expected", value.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn wire(ty: &str, value: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        put(&mut out, &ty.parse().unwrap(), value)?;
        let length = i32::from_be_bytes(out[..4].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), out.len() - 4, "{ty}");
        Ok(out.split_off(4))
    }

    #[test]
    fn the_epoch_of_postgres_is_the_year_2000() {
        assert_eq!(
            wire("timestamp", &EPOCH_MICROS.to_be_bytes()).unwrap(),
            [0; 8]
        );
        assert_eq!(wire("date", &EPOCH_DAYS.to_be_bytes()).unwrap(), [0; 4]);
    }

    #[test]
    fn no_value_turns_into_infinity() {
        for micros in [
            i64::MIN,
            i64::MIN + EPOCH_MICROS,
            TIMESTAMPS.start + EPOCH_MICROS - 1,
        ] {
            assert!(
                wire("timestamp", &micros.to_be_bytes()).is_err(),
                "{micros}"
            );
        }
        for days in [i32::MIN, i32::MIN + EPOCH_DAYS, i32::MAX] {
            assert!(wire("date", &days.to_be_bytes()).is_err(), "{days}");
        }
    }

    #[test]
    fn lists_become_arrays_and_say_whether_an_element_is_null() {
        let mut list = 2_i32.to_be_bytes().to_vec();
        cells::put(&mut list, b"a");
        cells::put_null(&mut list);
        let expected: Vec<u8> = [
            &1_i32.to_be_bytes()[..],
            &1_i32.to_be_bytes(),
            &25_i32.to_be_bytes(),
            &2_i32.to_be_bytes(),
            &1_i32.to_be_bytes(),
            &1_i32.to_be_bytes(),
            b"a",
            &(-1_i32).to_be_bytes(),
        ]
        .concat();
        assert_eq!(wire("list<text>", &list).unwrap(), expected);
        assert_eq!(wire("set<text>", &0_i32.to_be_bytes()).unwrap().len(), 12);
        assert!(
            wire("list<text>", &5_i32.to_be_bytes()).is_err(),
            "cells missing"
        );
    }

    #[test]
    fn json_and_maps_carry_the_version_byte() {
        assert_eq!(wire("json", b"{}").unwrap(), b"\x01{}");
        assert_eq!(
            wire("map<text,text>", &0_i32.to_be_bytes()).unwrap(),
            b"\x01{}"
        );
    }

    #[test]
    fn json_inside_a_map_cannot_break_out_of_it() {
        let map = |value: &[u8]| {
            let mut map = 1_i32.to_be_bytes().to_vec();
            cells::put(&mut map, b"k");
            cells::put(&mut map, value);
            wire("map<text,json>", &map)
        };
        assert_eq!(map(b"[1]").unwrap(), b"\x01{\"k\":[1]}");
        assert!(map(br#"1,"admin":true"#).is_err());
        assert!(map(b"").is_err());
    }
}
