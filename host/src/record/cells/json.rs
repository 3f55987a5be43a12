//! Checked cells as JSON and as plain text: what a topic carries, what a `map` column becomes in Postgres.
//!
//! Owns the mapping: numbers and decimals as JSON numbers, NaN and infinities as strings, bytes as base64 (RFC
//! 4648, section 4), uuid, timestamp (RFC 3339, UTC), date and time as strings, json as itself, lists and sets as
//! arrays, maps as objects with their keys as text, headers as pairs. The host's own JSON decoder reads what is
//! written here, but for floats that are no numbers. It allocates nothing but room in `out`; values have passed
//! [`super::check`], and anything else may panic.

use std::io::Write as _;

use super::{
    Cell, Items, get_boolean, get_decimal, get_float32, get_float64, get_int16, get_int32,
    get_int64,
};
use crate::record::Type;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Microseconds of a second.
const SECOND: i64 = 1_000_000;
/// Microseconds of a day.
const DAY: i64 = 86_400 * SECOND;
/// A write to a `Vec` never fails.
const TAKES: &str = "a Vec takes every write";

/// Appends a checked value as JSON.
pub fn put_json(out: &mut Vec<u8>, ty: &Type, value: &[u8]) {
    match ty {
        Type::Json => out.extend_from_slice(value),
        Type::Text => put_string(out, value),
        Type::List(item) | Type::Set(item) => {
            out.push(b'[');
            for (index, cell) in Items::new(value).enumerate() {
                separate(out, index);
                put_json_cell(out, item, cell);
            }
            out.push(b']');
        }
        Type::Map(key, item) => {
            out.push(b'{');
            let mut cells = Items::new(value);
            let mut index = 0;
            while let (Some(name), Some(cell)) = (cells.next(), cells.next()) {
                separate(out, index);
                index += 1;
                if let Cell::Value(name) = name {
                    put_name(out, key, name);
                }
                out.push(b':');
                put_json_cell(out, item, cell);
            }
            out.push(b'}');
        }
        Type::Headers => {
            out.push(b'[');
            let mut cells = Items::new(value);
            let mut index = 0;
            while let (Some(name), Some(cell)) = (cells.next(), cells.next()) {
                separate(out, index);
                index += 1;
                out.push(b'[');
                put_json_cell(out, &Type::Text, name);
                out.push(b',');
                put_json_cell(out, &Type::Bytes, cell);
                out.push(b']');
            }
            out.push(b']');
        }
        _ if is_bare(ty, value) => put_text(out, ty, value),
        _ => {
            // None of these texts holds what JSON escapes.
            out.push(b'"');
            put_text(out, ty, value);
            out.push(b'"');
        }
    }
}

/// Appends a cell as JSON; everything but a value is `null`.
pub fn put_json_cell(out: &mut Vec<u8>, ty: &Type, cell: Cell<'_>) {
    match cell {
        Cell::Value(value) => put_json(out, ty, value),
        _ => out.extend_from_slice(b"null"),
    }
}

/// Appends a checked value as plain text: what [`put_json`] writes without its quotes; lists, sets, maps and headers
/// as JSON.
pub fn put_text(out: &mut Vec<u8>, ty: &Type, value: &[u8]) {
    match ty {
        Type::Boolean => out.extend_from_slice(if get_boolean(value) {
            b"true"
        } else {
            b"false"
        }),
        Type::Int16 => write!(out, "{}", get_int16(value)).expect(TAKES),
        Type::Int32 => write!(out, "{}", get_int32(value)).expect(TAKES),
        Type::Int64 => write!(out, "{}", get_int64(value)).expect(TAKES),
        Type::Float32 => match get_float32(value) {
            float if float.is_finite() => write!(out, "{float:?}").expect(TAKES),
            float => put_odd(out, float.into()),
        },
        Type::Float64 => match get_float64(value) {
            float if float.is_finite() => write!(out, "{float:?}").expect(TAKES),
            float => put_odd(out, float),
        },
        Type::Text | Type::Json => out.extend_from_slice(value),
        Type::Bytes => put_base64(out, value),
        Type::Uuid => put_uuid(out, value),
        Type::Timestamp => put_timestamp(out, get_int64(value)),
        Type::Date => put_date(out, get_int32(value).into()),
        Type::Time => put_time(out, get_int64(value)),
        Type::Decimal { .. } => put_decimal_text(out, value),
        Type::List(_) | Type::Set(_) | Type::Map(..) | Type::Headers => put_json(out, ty, value),
    }
}

/// Appends UTF-8 bytes as a JSON string.
pub fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    put_escaped(out, text);
    out.push(b'"');
}

fn put_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut plain = 0;
    for (at, byte) in text.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => write!(out, "\\u{byte:04x}").expect(TAKES),
        }
    }
    out.extend_from_slice(&text[plain..]);
}

/// A map's key: a text whatever it is, and whatever its text form holds.
fn put_name(out: &mut Vec<u8>, ty: &Type, value: &[u8]) {
    match ty {
        Type::Text => put_string(out, value),
        Type::Json | Type::List(_) | Type::Set(_) | Type::Map(..) | Type::Headers => {
            let mut text = Vec::new();
            put_text(&mut text, ty, value);
            put_string(out, &text);
        }
        _ => {
            out.push(b'"');
            put_text(out, ty, value);
            out.push(b'"');
        }
    }
}

fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// Whether the text of a value stands in JSON without quotes.
fn is_bare(ty: &Type, value: &[u8]) -> bool {
    match ty {
        Type::Boolean | Type::Int16 | Type::Int32 | Type::Int64 | Type::Decimal { .. } => true,
        Type::Float32 => get_float32(value).is_finite(),
        Type::Float64 => get_float64(value).is_finite(),
        _ => false,
    }
}

/// A float that is no number.
fn put_odd(out: &mut Vec<u8>, float: f64) {
    out.extend_from_slice(if float.is_nan() {
        b"NaN"
    } else if float > 0.0 {
        b"Infinity"
    } else {
        b"-Infinity"
    });
}

fn put_uuid(out: &mut Vec<u8>, value: &[u8]) {
    for (at, byte) in value.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        write!(out, "{byte:02x}").expect(TAKES);
    }
}

/// Appends base64 with padding.
pub fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) & 63;
            out.push(if place <= chunk.len() {
                BASE64[six as usize]
            } else {
                b'='
            });
        }
    }
}

/// RFC 3339 in UTC, with the shortest fraction of a second.
fn put_timestamp(out: &mut Vec<u8>, micros: i64) {
    put_date(out, micros.div_euclid(DAY));
    out.push(b'T');
    put_time(out, micros.rem_euclid(DAY));
    while out.last() == Some(&b'0') {
        out.pop();
    }
    if out.last() == Some(&b'.') {
        out.pop();
    }
    out.push(b'Z');
}

/// Appends the civil date of a day since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`): for every day that a cell can say, far past what calendars of libraries take.
pub fn put_date(out: &mut Vec<u8>, days: i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    write!(out, "{year:04}-{month:02}-{day:02}").expect(TAKES);
}

/// Appends `HH:MM:SS.ffffff` of microseconds since midnight.
pub fn put_time(out: &mut Vec<u8>, micros: i64) {
    let (seconds, rest) = (micros.div_euclid(SECOND), micros.rem_euclid(SECOND));
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    write!(out, "{hours:02}:{minutes:02}:{:02}.{rest:06}", seconds % 60).expect(TAKES);
}

/// Appends a checked decimal with all digits of its own scale.
pub fn put_decimal_text(out: &mut Vec<u8>, value: &[u8]) {
    let (unscaled, scale) = get_decimal(value);
    let scale = usize::try_from(scale).expect("the value was checked against its type");
    if unscaled < 0 {
        out.push(b'-');
    }
    let start = out.len();
    write!(
        out,
        "{:0>width$}",
        unscaled.unsigned_abs(),
        width = scale + 1
    )
    .expect(TAKES);
    if scale > 0 {
        debug_assert!(out.len() - start > scale);
        out.insert(out.len() - scale, b'.');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::record::cells;
    use proptest::prelude::*;

    fn json(ty: &str, value: &[u8]) -> String {
        let ty = ty.parse().unwrap();
        cells::check(&ty, value).unwrap();
        let mut out = Vec::new();
        put_json(&mut out, &ty, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_become_the_json_a_person_expects() {
        for (ty, value, expected) in [
            ("boolean", &[1][..], "true"),
            ("int64", &i64::MAX.to_be_bytes(), "9223372036854775807"),
            ("float64", &f64::NAN.to_be_bytes(), "\"NaN\""),
            ("float64", &f64::NEG_INFINITY.to_be_bytes(), "\"-Infinity\""),
            ("float64", &1.5_f64.to_be_bytes(), "1.5"),
            ("float64", &1e300_f64.to_be_bytes(), "1e300"),
            ("float32", &0.1_f32.to_be_bytes(), "0.1"),
            ("text", b"a\"b\\c\n\x01", r#""a\"b\\c\n\u0001""#),
            ("bytes", b"a", "\"YQ==\""),
            ("bytes", b"ab", "\"YWI=\""),
            ("bytes", b"abc", "\"YWJj\""),
            ("uuid", &[7; 16], "\"07070707-0707-0707-0707-070707070707\""),
            (
                "timestamp",
                &0_i64.to_be_bytes(),
                "\"1970-01-01T00:00:00Z\"",
            ),
            (
                "timestamp",
                &(-1_500_000_i64).to_be_bytes(),
                "\"1969-12-31T23:59:58.5Z\"",
            ),
            (
                "timestamp",
                &i64::MAX.to_be_bytes(),
                "\"294247-01-10T04:00:54.775807Z\"",
            ),
            ("date", &(-1_i32).to_be_bytes(), "\"1969-12-31\""),
            ("date", &11_016_i32.to_be_bytes(), "\"2000-02-29\""),
            (
                "time",
                &3_661_000_001_i64.to_be_bytes(),
                "\"01:01:01.000001\"",
            ),
            ("decimal(5,2)", &[0, 0, 0, 2, 0xff, 0x6a], "-1.50"),
            ("decimal(5,2)", &[0, 0, 0, 2, 5], "0.05"),
            ("decimal(5,2)", &[0, 0, 0, 0, 5], "5"),
            ("json", br#"{"a":[1]}"#, r#"{"a":[1]}"#),
        ] {
            assert_eq!(json(ty, value), expected, "{ty}");
        }
    }

    #[test]
    fn maps_lists_and_headers_nest() {
        let mut list = 2_i32.to_be_bytes().to_vec();
        cells::put(&mut list, &7_i32.to_be_bytes());
        cells::put_null(&mut list);
        let mut map = 1_i32.to_be_bytes().to_vec();
        cells::put(&mut map, &5_i64.to_be_bytes());
        cells::put(&mut map, &list);
        assert_eq!(json("map<int64,list<int32>>", &map), r#"{"5":[7,null]}"#);
        let mut headers = 1_i32.to_be_bytes().to_vec();
        cells::put(&mut headers, b"trace");
        cells::put(&mut headers, b"ab");
        assert_eq!(json("headers", &headers), r#"[["trace","YWI="]]"#);
    }

    proptest! {
        #[test]
        fn any_text_reads_back(text: String) {
            let mut out = Vec::new();
            put_string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_float_reads_back(bits: u64) {
            let float = f64::from_bits(bits);
            prop_assume!(float.is_finite());
            let mut out = Vec::new();
            put_json(&mut out, &Type::Float64, &float.to_be_bytes());
            let back: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
            prop_assert_eq!(back.to_bits(), bits);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
        }

        #[test]
        fn any_time_reads_back(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let mut out = Vec::new();
            put_text(&mut out, &Type::Timestamp, &micros.to_be_bytes());
            let time: jiff::Timestamp = std::str::from_utf8(&out).unwrap().parse().unwrap();
            prop_assert_eq!(time.as_microsecond(), micros);
        }

        #[test]
        fn any_decimal_reads_back(unscaled: i64, scale in 0_u8..19) {
            let mut cell = Vec::new();
            cells::put_decimal(&mut cell, unscaled.into(), scale);
            let mut out = Vec::new();
            put_text(&mut out, &Type::Decimal { precision: 38, scale }, &cell[4..]);
            let text = String::from_utf8(out).unwrap();
            let digits: String = text.chars().filter(|c| *c != '.').collect();
            prop_assert_eq!(digits.parse::<i64>().unwrap(), unscaled);
            let fraction = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
            prop_assert_eq!(fraction, usize::from(scale));
        }
    }
}
