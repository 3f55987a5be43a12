//! One JSON value to one cell, strictly by type.
//!
//! Refused: any coercion (no number from a string or string from a number), an integer from a number with a
//! fraction (`1.0` and `1e3` are whole and accepted), a number out of range, bytes that are not base64, half
//! surrogate pairs in text, a timestamp, date or time from a number without a unit or from a text with one.
//! A decimal is read exactly from a number or a string. A map is an object whose keys are read as texts; null
//! is allowed in lists and as a map's value. Only an escaped string for a type other than text, and a set
//! or map of more than 16 entries, allocate.

use super::scalar::{
    BytesAs, Unfit, excerpt, put_epoch, put_epoch_integer, put_exact, put_float, put_integer,
    put_scalar, put_whole,
};
use crate::manifest::Unit;
use crate::record::Type;
use crate::record::cells::{begin, check, put, put_boolean, put_count, put_null, seal};
use crate::record::json::{Malformed, Number, Scanner, Str};

/// Why a value is not taken.
pub(super) enum Fault {
    /// It is not JSON.
    Malformed(Malformed),
    /// It is JSON of another type.
    Unfit(Unfit),
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Unfit> for Fault {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

/// Takes a value that is not null and appends its cell.
#[inline]
pub(super) fn put_value(
    scan: &mut Scanner<'_>,
    ty: &Type,
    unit: Option<Unit>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let first = scan.peek();
    if *ty == Type::Json {
        let from = scan.at();
        scan.skip_value()?;
        put(out, scan.since(from).as_bytes());
        return Ok(());
    }
    match first {
        Some(b'"') => {
            let string = scan.string()?;
            put_string(ty, unit, string, out).map_err(Fault::Unfit)
        }
        Some(b'-' | b'0'..=b'9') => {
            let number = scan.number()?;
            put_number(ty, unit, number, out).map_err(Fault::Unfit)
        }
        Some(b't') if *ty == Type::Boolean => {
            scan.literal("true")?;
            put_boolean(out, true);
            Ok(())
        }
        Some(b'f') if *ty == Type::Boolean => {
            scan.literal("false")?;
            put_boolean(out, false);
            Ok(())
        }
        Some(b'[') if matches!(ty, Type::List(_) | Type::Set(_)) => list(scan, ty, unit, out),
        Some(b'{') if matches!(ty, Type::Map(..)) => map(scan, ty, unit, out),
        _ => mismatch(scan),
    }
}

/// Takes a value of another kind and names it.
#[cold]
fn mismatch(scan: &mut Scanner<'_>) -> Result<(), Fault> {
    let kind = match scan.peek() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        _ => "null",
    };
    let from = scan.at();
    scan.skip_value()?;
    Err(Unfit(format!("{kind} {}", excerpt(scan.since(from)))).into())
}

#[inline]
fn put_number(
    ty: &Type,
    unit: Option<Unit>,
    number: Number<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    match (ty, unit) {
        (Type::Int16 | Type::Int32 | Type::Int64, _) => match number.as_i64() {
            Some(value) => put_integer(ty, value, number.raw, out),
            None => put_whole(ty, number.raw, out),
        },
        (Type::Float32 | Type::Float64, _) => put_float(ty, number.raw, out),
        (Type::Decimal { .. }, _) => put_exact(ty, number.raw, out),
        (Type::Timestamp | Type::Date | Type::Time, Some(unit)) => match number.as_i64() {
            Some(value) => put_epoch_integer(ty, unit, value, number.raw, out),
            None => put_epoch(ty, unit, number.raw, out),
        },
        (Type::Timestamp | Type::Date | Type::Time, None) => Err(Unfit(format!(
            "number {} (numbers need a unit)",
            excerpt(number.raw)
        ))),
        _ => Err(Unfit(format!("number {}", excerpt(number.raw)))),
    }
}

#[inline]
fn put_string(
    ty: &Type,
    unit: Option<Unit>,
    string: Str<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Unfit> {
    match ty {
        Type::Text if !string.escaped => {
            put(out, string.raw.as_bytes());
            Ok(())
        }
        Type::Text => {
            let at = begin(out);
            string
                .unescape(out)
                .map_err(|_| half_surrogate(string.raw))?;
            seal(out, at);
            Ok(())
        }
        Type::Bytes | Type::Uuid | Type::Decimal { .. } => quoted(ty, None, string, out),
        Type::Timestamp | Type::Date | Type::Time if unit.is_none() => {
            quoted(ty, None, string, out)
        }
        _ => Err(Unfit(format!("string {}", excerpt(string.raw)))),
    }
}

/// Reads what stands between quotes as a text of `ty`; escapes are rare here and may allocate.
fn quoted(ty: &Type, unit: Option<Unit>, string: Str<'_>, out: &mut Vec<u8>) -> Result<(), Unfit> {
    if !string.escaped {
        return put_scalar(ty, unit, BytesAs::Base64, string.raw, out);
    }
    let mut text = Vec::new();
    string
        .unescape(&mut text)
        .map_err(|_| half_surrogate(string.raw))?;
    let text = std::str::from_utf8(&text).expect("unescaping UTF-8 gives UTF-8");
    put_scalar(ty, unit, BytesAs::Base64, text, out)
}

#[cold]
fn half_surrogate(raw: &str) -> Unfit {
    Unfit(format!(
        "a string with half a surrogate pair {}",
        excerpt(raw)
    ))
}

/// Takes a value or null inside a list or map.
fn item(
    scan: &mut Scanner<'_>,
    ty: &Type,
    unit: Option<Unit>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    if scan.peek() == Some(b'n') {
        scan.literal("null")?;
        put_null(out);
        return Ok(());
    }
    put_value(scan, ty, unit, out)
}

fn list(
    scan: &mut Scanner<'_>,
    ty: &Type,
    unit: Option<Unit>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let (Type::List(inner) | Type::Set(inner)) = ty else {
        return mismatch(scan);
    };
    let at = begin(out);
    put_count(out, 0);
    let mut count = 0_u32;
    scan.enter()?;
    if scan.peek() == Some(b']') {
        scan.leave();
    } else {
        loop {
            item(scan, inner, unit, out)?;
            count += 1;
            if !scan.more(b']')? {
                break;
            }
        }
    }
    close(ty, at, count, out)
}

fn map(
    scan: &mut Scanner<'_>,
    ty: &Type,
    unit: Option<Unit>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let Type::Map(key, inner) = ty else {
        return mismatch(scan);
    };
    let at = begin(out);
    put_count(out, 0);
    let mut count = 0_u32;
    scan.enter()?;
    if scan.peek() == Some(b'}') {
        scan.leave();
    } else {
        loop {
            let name = scan.key()?;
            quoted(key, unit, name, out)?;
            item(scan, inner, unit, out)?;
            count += 1;
            if !scan.more(b'}')? {
                break;
            }
        }
    }
    close(ty, at, count, out)
}

/// Writes count and length of a list, set or map; repeats and nulls where they may not be are found here.
fn close(ty: &Type, at: usize, count: u32, out: &mut [u8]) -> Result<(), Fault> {
    out[at..at + 4].copy_from_slice(&count.to_be_bytes());
    seal(out, at);
    if !matches!(ty, Type::List(_)) {
        check(ty, &out[at..]).map_err(|error| Unfit(error.to_string()))?;
    }
    Ok(())
}
