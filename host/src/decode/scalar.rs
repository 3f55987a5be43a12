//! One scalar text to one cell: headers, keys, captures, and what stands between the quotes of JSON strings.
//!
//! Strict: no white space around, no `+`, no case folding, nothing rounded (but times, down to the
//! microsecond). What does not fit is described for a person; it never panics and never allocates otherwise.
//!
//! * boolean: `true`, `false`; integers: `-?[0-9]+` in range; floats: `-?digits[.digits][e±digits]`, finite
//! * decimal: the same form, exactly, at most as many digits as the type has
//! * uuid: 8-4-4-4-12 hex digits; date `YYYY-MM-DD`; time `HH:MM:SS[.f]`; timestamp RFC 3339
//! * with a unit, timestamp, date and time are numbers instead (since 1970, time since midnight)
//! * text as it is; json: one JSON value; bytes: as they are, or base64 inside JSON

use super::{base64, time};
use crate::manifest::Unit;
use crate::record::Type;
use crate::record::cells::{
    begin, check, put, put_boolean, put_decimal, put_float32, put_float64, put_int16, put_int32,
    put_int64, seal,
};
use crate::record::decimal::Exact;

/// A value that is not of the field's type: what was found, for a person.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit(pub(super) String);

/// How `bytes` are written in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BytesAs {
    /// The text's own bytes.
    Plain,
    /// Base64.
    Base64,
}

/// Longest excerpt of a value in a reason, in characters.
const EXCERPT: usize = 60;

/// A value quoted for a reason: escaped, cut after 60 characters.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}

#[cold]
fn unfit<T>(kind: &str, text: &str) -> Result<T, Unfit> {
    Err(Unfit(format!("{kind} {}", excerpt(text))))
}

/// Whether a text can become a value of `ty`.
pub(super) fn is_scalar(ty: &Type) -> bool {
    !matches!(
        ty,
        Type::List(_) | Type::Set(_) | Type::Map(..) | Type::Headers
    )
}

/// Appends the cell that `text` stands for. On an error `out` may hold a part of it.
pub(super) fn put_scalar(
    ty: &Type,
    unit: Option<Unit>,
    bytes: BytesAs,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    match ty {
        Type::Text => put(out, text.as_bytes()),
        Type::Boolean if text == "true" => put_boolean(out, true),
        Type::Boolean if text == "false" => put_boolean(out, false),
        Type::Int16 | Type::Int32 | Type::Int64 => match plain_integer(text) {
            Some(value) => return put_integer(ty, value, text, out),
            None => return unfit("text", text),
        },
        Type::Float32 | Type::Float64 if is_number(text) => return put_float(ty, text, out),
        Type::Decimal { .. } if is_number(text) => return put_exact(ty, text, out),
        Type::Timestamp | Type::Date | Type::Time => match unit {
            Some(unit) if is_number(text) => return put_epoch(ty, unit, text, out),
            Some(_) => return unfit("text", text),
            None => return put_time_text(ty, text, out),
        },
        Type::Uuid => match parse_uuid(text.as_bytes()) {
            Some(uuid) => put(out, &uuid),
            None => return unfit("text", text),
        },
        Type::Json => match check(ty, text.as_bytes()) {
            Ok(()) => put(out, text.as_bytes()),
            Err(_) => return unfit("text", text),
        },
        Type::Bytes if bytes == BytesAs::Plain => put(out, text.as_bytes()),
        Type::Bytes => {
            let at = begin(out);
            if base64::decode(text.as_bytes(), out).is_none() {
                return unfit("text that is not base64", text);
            }
            seal(out, at);
        }
        _ => return unfit("text", text),
    }
    Ok(())
}

/// Appends an integer cell when the value is in the type's range.
pub(super) fn put_integer(
    ty: &Type,
    value: i64,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    match ty {
        Type::Int64 => put_int64(out, value),
        Type::Int32 => match i32::try_from(value) {
            Ok(value) => put_int32(out, value),
            Err(_) => return unfit("number out of range", text),
        },
        _ => match i16::try_from(value) {
            Ok(value) => put_int16(out, value),
            Err(_) => return unfit("number out of range", text),
        },
    }
    Ok(())
}

/// Appends an integer cell of a number written with a fraction or exponent, when its value is whole.
pub(super) fn put_whole(ty: &Type, text: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let whole = Exact::parse(text).and_then(|value| value.unscaled(0));
    match whole.map(i64::try_from) {
        Some(Ok(value)) => put_integer(ty, value, text, out),
        Some(Err(_)) => unfit("number out of range", text),
        None => unfit("number that is not whole or out of range", text),
    }
}

/// Appends a float cell of a text that has the form of a number.
pub(super) fn put_float(ty: &Type, text: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    if *ty == Type::Float32 {
        match text.parse::<f32>() {
            Ok(value) if value.is_finite() => put_float32(out, value),
            _ => return unfit("number out of range", text),
        }
    } else {
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => put_float64(out, value),
            _ => return unfit("number out of range", text),
        }
    }
    Ok(())
}

/// Appends a decimal cell, at the scale of its type.
pub(super) fn put_exact(ty: &Type, text: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let Type::Decimal { precision, scale } = ty else {
        return unfit("number", text);
    };
    match Exact::parse(text).and_then(|value| value.fit(*precision, *scale)) {
        Some(unscaled) => put_decimal(out, unscaled, *scale),
        None => return unfit("number with too many digits", text),
    }
    Ok(())
}

/// Appends a timestamp, date or time cell of a number in `unit`.
pub(super) fn put_epoch(ty: &Type, unit: Unit, text: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let scale = match unit {
        Unit::Seconds => 6,
        Unit::Millis => 3,
        Unit::Micros => 0,
        Unit::Nanos => -3,
    };
    let micros = Exact::parse(text)
        .and_then(|value| value.floor(scale))
        .and_then(|micros| i64::try_from(micros).ok());
    put_micros(ty, micros, text, out)
}

/// Appends a timestamp, date or time cell of an integer in `unit`; the quick way of [`put_epoch`].
pub(super) fn put_epoch_integer(
    ty: &Type,
    unit: Unit,
    value: i64,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    let micros = match unit {
        Unit::Seconds => value.checked_mul(1_000_000),
        Unit::Millis => value.checked_mul(1000),
        Unit::Micros => Some(value),
        Unit::Nanos => Some(value.div_euclid(1000)),
    };
    put_micros(ty, micros, text, out)
}

fn put_micros(ty: &Type, micros: Option<i64>, text: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let Some(micros) = micros else {
        return unfit("number out of range", text);
    };
    let at = out.len();
    if *ty == Type::Date {
        let days = micros.div_euclid(time::MICROS_A_DAY);
        put_int32(
            out,
            i32::try_from(days).expect("an s64 of microseconds is less than 2^31 days"),
        );
    } else {
        put_int64(out, micros);
    }
    if check(ty, &out[at + 4..]).is_err() {
        return unfit("number out of range", text);
    }
    Ok(())
}

fn put_time_text(ty: &Type, text: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let bytes = text.as_bytes();
    let done = match ty {
        Type::Timestamp => time::timestamp(bytes).map(|micros| put_int64(out, micros)),
        Type::Date => time::date(bytes).map(|days| put_int32(out, days)),
        _ => time::time(bytes).map(|micros| put_int64(out, micros)),
    };
    done.map_or_else(|| unfit("text", text), Ok)
}

fn plain_integer(text: &str) -> Option<i64> {
    if text.starts_with('+') {
        return None;
    }
    text.parse().ok()
}

/// `-?digits[.digits][(e|E)[+-]digits]`.
fn is_number(text: &str) -> bool {
    let mut bytes = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let digits = |rest: &mut &[u8]| {
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        *rest = &rest[length..];
        length > 0
    };
    if !digits(&mut bytes) {
        return false;
    }
    if let [b'.', rest @ ..] = bytes {
        bytes = rest;
        if !digits(&mut bytes) {
            return false;
        }
    }
    if let [b'e' | b'E', rest @ ..] = bytes {
        bytes = match rest {
            [b'+' | b'-', rest @ ..] => rest,
            rest => rest,
        };
        if !digits(&mut bytes) {
            return false;
        }
    }
    bytes.is_empty()
}

/// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, either case.
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    uuid::Uuid::try_parse_ascii(text)
        .ok()
        .map(uuid::Uuid::into_bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use proptest::prelude::*;

    fn cell(ty: &str, unit: Option<Unit>, text: &str) -> Result<Vec<u8>, Unfit> {
        let mut out = Vec::new();
        put_scalar(&ty.parse().unwrap(), unit, BytesAs::Plain, text, &mut out)?;
        Ok(out.split_off(4))
    }

    #[test]
    fn texts_become_values_of_their_type() {
        let good: &[(&str, &str, &[u8])] = &[
            ("boolean", "true", &[1]),
            ("int16", "-5", &(-5_i16).to_be_bytes()),
            ("int32", "0080", &80_i32.to_be_bytes()),
            ("int64", "9223372036854775807", &i64::MAX.to_be_bytes()),
            ("float32", "1.5", &1.5_f32.to_be_bytes()),
            ("float64", "-1e3", &(-1000_f64).to_be_bytes()),
            ("text", "", b""),
            ("json", "[1]", b"[1]"),
            ("bytes", "Zg==", b"Zg=="),
            ("date", "1970-01-02", &1_i32.to_be_bytes()),
            ("time", "00:00:01", &1_000_000_i64.to_be_bytes()),
            (
                "timestamp",
                "1970-01-01T00:00:01Z",
                &1_000_000_i64.to_be_bytes(),
            ),
            ("decimal(4,2)", "1.5", &[0, 0, 0, 2, 0, 150]),
            (
                "uuid",
                "00000000-0000-0000-0000-0000000000Ff",
                &255_u128.to_be_bytes(),
            ),
        ];
        for (ty, text, bytes) in good {
            assert_eq!(cell(ty, None, text).as_deref(), Ok(*bytes), "{ty} {text}");
        }
    }

    #[test]
    fn nothing_is_coerced() {
        for (ty, text) in [
            ("boolean", "True"),
            ("boolean", "1"),
            ("int16", "32768"),
            ("int32", "1.0"),
            ("int32", "+1"),
            ("int32", ""),
            ("int64", " 1"),
            ("float64", "inf"),
            ("float64", "NaN"),
            ("float64", "1e999"),
            ("float32", "1e39"),
            ("float64", "+1"),
            ("float64", ".5"),
            ("float64", "1."),
            ("json", "{"),
            ("decimal(4,2)", "100"),
            ("decimal(4,2)", "0.001"),
            ("decimal(4,2)", "x"),
            ("uuid", "000000000000000000000000000000ff"),
            ("timestamp", "0"),
            ("date", "1970-1-1"),
            ("uuid", "{00000000-0000-0000-0000-00000000000}"),
            ("list<text>", "a"),
        ] {
            assert!(cell(ty, None, text).is_err(), "{ty} {text}");
        }
    }

    #[test]
    fn units_scale_numbers_and_round_down() {
        let micros = |ty, unit, text| {
            cell(ty, Some(unit), text).map(|cell| i64::from_be_bytes(cell.try_into().unwrap()))
        };
        assert_eq!(micros("timestamp", Unit::Seconds, "1.5"), Ok(1_500_000));
        assert_eq!(micros("timestamp", Unit::Millis, "-1"), Ok(-1000));
        assert_eq!(micros("timestamp", Unit::Micros, "7"), Ok(7));
        assert_eq!(micros("timestamp", Unit::Nanos, "-1"), Ok(-1));
        assert_eq!(micros("time", Unit::Seconds, "86399"), Ok(86_399_000_000));
        assert!(micros("time", Unit::Seconds, "86400").is_err());
        assert!(micros("timestamp", Unit::Seconds, "9223372036854775807").is_err());
        assert!(micros("timestamp", Unit::Seconds, "1970-01-01T00:00:00Z").is_err());
        assert_eq!(
            cell("date", Some(Unit::Seconds), "-1"),
            Ok((-1_i32).to_be_bytes().to_vec())
        );
    }

    #[test]
    fn excerpts_are_short_and_escaped() {
        assert_eq!(excerpt("a\0b"), "\"a\\0b\"");
        assert_eq!(excerpt(&"é".repeat(61)).chars().count(), 63);
    }

    proptest! {
        #[test]
        fn what_is_put_is_a_value_of_its_type(text in "\\PC*|[-+0-9.eE]{0,20}|[0-9]{4}-[0-9]{2}-[0-9]{2}", ty in prop::sample::select(vec![
            "boolean", "int16", "int32", "int64", "float32", "float64", "text", "json", "bytes", "uuid",
            "timestamp", "date", "time", "decimal(10,3)", "decimal(38,38)",
        ]), unit in prop::option::of(prop::sample::select(vec![Unit::Seconds, Unit::Millis, Unit::Micros, Unit::Nanos]))) {
            if let Ok(value) = cell(ty, unit, &text) {
                prop_assert_eq!(check(&ty.parse().unwrap(), &value), Ok(()));
            }
        }
    }
}
