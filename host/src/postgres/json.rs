//! Cells as JSON text: what a `map` column becomes in Postgres (`jsonb`).
//!
//! Owns the mapping: numbers and decimals as JSON numbers (exact in `jsonb`), NaN and infinities as strings,
//! bytes as base64, uuid, timestamp (RFC 3339, UTC), date and time as strings, json as itself after it was
//! checked to be one value, lists and sets as arrays, maps as objects with their keys as text. Repeated keys:
//! the last wins, as `jsonb` does. It never writes to a database.

use std::io::Write as _;

use crate::record::Type;
use crate::record::cells::{Cell, Reader};

use super::numeric;

/// Seconds of a day, microseconds of a second.
const DAY: i64 = 86_400;
const MICROS: i64 = 1_000_000;

/// Appends the value of a cell as JSON.
///
/// # Errors
/// What does not fit, as a fragment for a person.
pub(super) fn put(out: &mut Vec<u8>, ty: &Type, value: &[u8]) -> Result<(), String> {
    match ty {
        Type::List(item) | Type::Set(item) => put_list(out, item, value),
        Type::Map(key, item) => put_map(out, key, item, value),
        Type::Json => {
            serde_json::from_slice::<serde::de::IgnoredAny>(value)
                .map_err(|error| format!("json that does not parse ({error})"))?;
            out.extend_from_slice(value);
            Ok(())
        }
        _ => {
            let (text, quoted) = scalar(ty, value)?;
            if quoted {
                put_string(out, &text);
            } else {
                out.extend_from_slice(text.as_bytes());
            }
            Ok(())
        }
    }
}

fn put_list(out: &mut Vec<u8>, item: &Type, value: &[u8]) -> Result<(), String> {
    let (count, mut reader) = counted(value)?;
    out.push(b'[');
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        put_cell(out, item, reader.cell())?;
    }
    out.push(b']');
    Ok(())
}

fn put_map(out: &mut Vec<u8>, key: &Type, item: &Type, value: &[u8]) -> Result<(), String> {
    let (count, mut reader) = counted(value)?;
    out.push(b'{');
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        let Cell::Value(name) = reader.cell().map_err(|error| error.to_string())? else {
            return Err("a map with a null key".to_owned());
        };
        put_string(out, &scalar(key, name)?.0);
        out.push(b':');
        put_cell(out, item, reader.cell())?;
    }
    out.push(b'}');
    Ok(())
}

fn put_cell(
    out: &mut Vec<u8>,
    ty: &Type,
    cell: Result<Cell<'_>, crate::record::cells::CellError>,
) -> Result<(), String> {
    match cell.map_err(|error| error.to_string())? {
        Cell::Value(value) => put(out, ty, value),
        Cell::Null => {
            out.extend_from_slice(b"null");
            Ok(())
        }
        other => Err(format!("{other:?} inside a list or map")),
    }
}

/// The count in front of the cells of a list or map, and a reader over them.
pub(super) fn counted(value: &[u8]) -> Result<(usize, Reader<'_>), String> {
    let (count, cells) = value
        .split_first_chunk::<4>()
        .ok_or("a list or map shorter than its count")?;
    let count = usize::try_from(i32::from_be_bytes(*count))
        .map_err(|_| "a list or map with a negative count")?;
    Ok((count, Reader::new(cells)))
}

/// Text of a value without parts, and whether JSON quotes it.
fn scalar(ty: &Type, value: &[u8]) -> Result<(String, bool), String> {
    let unfit = || format!("{} bytes that are not a {ty}", value.len());
    let int32 = || {
        value
            .try_into()
            .map(i32::from_be_bytes)
            .map_err(|_| unfit())
    };
    let int64 = || {
        value
            .try_into()
            .map(i64::from_be_bytes)
            .map_err(|_| unfit())
    };
    let float = |value: f64, text: String| match value {
        value if value.is_nan() => ("NaN".to_owned(), true),
        f64::INFINITY => ("Infinity".to_owned(), true),
        f64::NEG_INFINITY => ("-Infinity".to_owned(), true),
        _ => (text, false),
    };
    Ok(match ty {
        Type::Boolean => (
            match value {
                [0] => "false".to_owned(),
                [1] => "true".to_owned(),
                _ => return Err(unfit()),
            },
            false,
        ),
        Type::Int16 => {
            let value = value.try_into().map(i16::from_be_bytes);
            (value.map_err(|_| unfit())?.to_string(), false)
        }
        Type::Int32 => (int32()?.to_string(), false),
        Type::Int64 => (int64()?.to_string(), false),
        Type::Float32 => {
            let value = value.try_into().map(f32::from_be_bytes);
            let value = value.map_err(|_| unfit())?;
            float(f64::from(value), format!("{value:e}"))
        }
        Type::Float64 => {
            let value = value.try_into().map(f64::from_be_bytes);
            let value = value.map_err(|_| unfit())?;
            float(value, format!("{value:e}"))
        }
        Type::Text | Type::Json => (
            std::str::from_utf8(value).map_err(|_| unfit())?.to_owned(),
            true,
        ),
        Type::Bytes => (base64(value), true),
        Type::Uuid => {
            let uuid = uuid::Uuid::from_slice(value).map_err(|_| unfit())?;
            (uuid.to_string(), true)
        }
        Type::Timestamp => {
            let micros = int64()?;
            let time = jiff::Timestamp::from_microsecond(micros)
                .map_err(|_| format!("a timestamp out of range ({micros} µs)"))?;
            (time.to_string(), true)
        }
        Type::Date => {
            let days = int32()?;
            let time = jiff::Timestamp::from_second(i64::from(days) * DAY)
                .map_err(|_| format!("a date out of range ({days} days)"))?;
            (
                time.to_zoned(jiff::tz::TimeZone::UTC).date().to_string(),
                true,
            )
        }
        Type::Time => (time_text(int64()?).ok_or_else(unfit)?, true),
        Type::Decimal { .. } => (numeric::text(value)?, false),
        Type::List(_) | Type::Set(_) | Type::Map(..) | Type::Headers => {
            return Err(format!("a {ty} where one value is expected"));
        }
    })
}

/// `hh:mm:ss.ffffff`; 24:00:00 is a time in Postgres.
fn time_text(micros: i64) -> Option<String> {
    if !(0..=DAY * MICROS).contains(&micros) {
        return None;
    }
    let (seconds, fraction) = (micros / MICROS, micros % MICROS);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    Some(format!(
        "{hours:02}:{minutes:02}:{:02}.{fraction:06}",
        seconds % 60
    ))
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => write!(out, "\\u{byte:04x}").expect("a Vec takes every write"),
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

/// RFC 4648 base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(ALPHABET[word >> (18 - 6 * place) & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::record::cells;

    fn json(ty: &str, value: &[u8]) -> Result<String, String> {
        let mut out = Vec::new();
        put(&mut out, &ty.parse().unwrap(), value)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn values_become_the_json_a_person_expects() {
        for (ty, value, expected) in [
            ("boolean", &[1][..], "true"),
            ("int64", &i64::MAX.to_be_bytes(), "9223372036854775807"),
            ("float64", &f64::NAN.to_be_bytes(), "\"NaN\""),
            ("float64", &1.5_f64.to_be_bytes(), "1.5e0"),
            ("text", b"a\"b\\c\n", r#""a\"b\\c\u000a""#),
            ("bytes", b"ab", "\"YWI=\""),
            ("bytes", b"abc", "\"YWJj\""),
            (
                "timestamp",
                &0_i64.to_be_bytes(),
                "\"1970-01-01T00:00:00Z\"",
            ),
            ("date", &(-1_i32).to_be_bytes(), "\"1969-12-31\""),
            (
                "time",
                &3_661_000_001_i64.to_be_bytes(),
                "\"01:01:01.000001\"",
            ),
            ("json", br#"{"a":[1]}"#, r#"{"a":[1]}"#),
        ] {
            assert_eq!(json(ty, value).unwrap(), expected, "{ty}");
        }
    }

    #[test]
    fn maps_and_lists_nest() {
        let mut list = 2_i32.to_be_bytes().to_vec();
        cells::put(&mut list, &7_i32.to_be_bytes());
        cells::put_null(&mut list);
        let mut map = 1_i32.to_be_bytes().to_vec();
        cells::put(&mut map, &5_i64.to_be_bytes());
        cells::put(&mut map, &list);
        assert_eq!(
            json("map<int64,list<int32>>", &map).unwrap(),
            r#"{"5":[7,null]}"#
        );
    }

    #[test]
    fn json_inside_a_map_cannot_break_out_of_it() {
        assert!(json("json", br#"1,"admin":true"#).is_err());
        assert!(json("json", b"").is_err());
        assert!(json("list<int32>", &(-1_i32).to_be_bytes()).is_err());
        assert!(json("list<int32>", &1_i32.to_be_bytes()).is_err());
        assert!(json("timestamp", &i64::MAX.to_be_bytes()).is_err());
    }
}
