//! Whether bytes are a value of a type: the one judgement that decoder, route check and tests share.
//!
//! It knows the limits all sinks share (see the constants) and nothing of a particular table: nullability,
//! keys, NUL in text and sizes are the route's rules. It never panics and never allocates, except for a set
//! or map of more than [`QUADRATIC`] entries.
//!
//! Accepted on purpose: any float (infinities and NaN with any payload), a decimal in more bytes than needed,
//! null inside a list or as a map's value (a route to Cassandra refuses those).

use std::collections::HashSet;

use super::{Cell, CellError, Reader};
use crate::record::Type;
use crate::record::decimal::{Exact, from_twos_complement};
use crate::record::json;

/// First timestamp Postgres holds (4714-11-24 BC), microseconds since 1970; Cassandra holds every s64.
///
/// There is no upper limit: Postgres ends in the year 294276, an s64 of microseconds since 1970 before that.
pub const MIN_TIMESTAMP: i64 = -210_866_803_200_000_000;
/// First date Postgres holds (4714-11-24 BC), days since 1970; Cassandra holds every s32.
pub const MIN_DATE: i32 = -2_440_588;
/// Last date Postgres holds (5874897-12-31), days since 1970.
pub const MAX_DATE: i32 = 2_145_042_905;
/// Last time of a day, microseconds since midnight. Postgres would take 24:00:00, Cassandra does not.
pub const MAX_TIME: i64 = 86_399_999_999;

/// Up to this many entries of a set or map are compared one by one, above with a hash set.
const QUADRATIC: usize = 16;

/// Checks that `bytes` are a value of `ty`.
///
/// # Errors
/// What stands there and the type it does not fit.
#[inline]
pub fn check(ty: &Type, bytes: &[u8]) -> Result<(), CellError> {
    if let Some(size) = ty.fixed_size()
        && bytes.len() != size
    {
        return unfit(ty, format!("a value of {} bytes", bytes.len()));
    }
    match ty {
        Type::Boolean if bytes[0] > 1 => unfit(ty, format!("byte {}", bytes[0])),
        Type::Timestamp => within(ty, long(bytes), MIN_TIMESTAMP, i64::MAX),
        Type::Time => within(ty, long(bytes), 0, MAX_TIME),
        Type::Date => {
            let days = i32::from_be_bytes(bytes.try_into().expect("four bytes: checked above"));
            within(ty, days.into(), MIN_DATE.into(), MAX_DATE.into())
        }
        Type::Text => utf8(ty, bytes).map(|_| ()),
        Type::Json => match json::check(utf8(ty, bytes)?) {
            Ok(_) => Ok(()),
            Err(malformed) => unfit(ty, malformed.to_string()),
        },
        Type::Decimal { precision, scale } => decimal(ty, bytes, *precision, *scale),
        Type::List(item) => list(ty, item, bytes, Repeats::Kept),
        Type::Set(item) => list(ty, item, bytes, Repeats::Refused),
        Type::Map(key, value) => map(ty, key, value, bytes),
        Type::Headers => headers(ty, bytes),
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Kept,
    Refused,
}

#[cold]
fn unfit<T>(ty: &Type, reason: impl Into<String>) -> Result<T, CellError> {
    Err(CellError::Unfit {
        ty: ty.to_string(),
        reason: reason.into(),
    })
}

fn long(bytes: &[u8]) -> i64 {
    i64::from_be_bytes(bytes.try_into().expect("eight bytes: the size was checked"))
}

fn within(ty: &Type, value: i64, from: i64, to: i64) -> Result<(), CellError> {
    if value < from || value > to {
        return unfit(ty, format!("{value} (allowed: {from} to {to})"));
    }
    Ok(())
}

fn utf8<'a>(ty: &Type, bytes: &'a [u8]) -> Result<&'a str, CellError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => unfit(ty, "text that is not UTF-8"),
    }
}

fn decimal(ty: &Type, bytes: &[u8], precision: u8, scale: u8) -> Result<(), CellError> {
    let Some((head, digits)) = bytes.split_first_chunk::<4>() else {
        return unfit(ty, format!("a value of {} bytes", bytes.len()));
    };
    let own = i32::from_be_bytes(*head);
    if own < 0 || own > i32::from(scale) {
        return unfit(ty, format!("scale {own}"));
    }
    let Some(unscaled) = from_twos_complement(digits) else {
        return unfit(ty, format!("{} bytes of digits (1 to 16)", digits.len()));
    };
    if Exact::from_parts(unscaled, own)
        .and_then(|value| value.fit(precision, scale))
        .is_none()
    {
        return unfit(ty, format!("{unscaled}e-{own}"));
    }
    Ok(())
}

/// The count in front of a list, set, map or headers value, refused when the bytes cannot hold that many.
fn count<'a>(ty: &Type, bytes: &'a [u8]) -> Result<(usize, Reader<'a>), CellError> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else {
        return unfit(ty, format!("a value of {} bytes", bytes.len()));
    };
    let count = i32::from_be_bytes(*head);
    match usize::try_from(count) {
        Ok(count) if count <= rest.len() / 4 => Ok((count, Reader::new(rest))),
        _ => unfit(ty, format!("a count of {count} in {} bytes", bytes.len())),
    }
}

fn finish(reader: &Reader<'_>) -> Result<(), CellError> {
    if reader.is_empty() {
        Ok(())
    } else {
        Err(CellError::Long(reader.rest().len()))
    }
}

/// The next cell inside a value: null or of type `ty`.
fn inner<'a>(
    outer: &Type,
    ty: &Type,
    reader: &mut Reader<'a>,
) -> Result<Option<&'a [u8]>, CellError> {
    match reader.cell()? {
        Cell::Null => Ok(None),
        Cell::Value(value) => {
            check(ty, value)?;
            Ok(Some(value))
        }
        _ => unfit(outer, "an unset or source cell inside"),
    }
}

fn list(ty: &Type, item: &Type, bytes: &[u8], repeats: Repeats) -> Result<(), CellError> {
    let (count, mut reader) = count(ty, bytes)?;
    let all = reader.clone();
    for _ in 0..count {
        let value = inner(ty, item, &mut reader)?;
        if value.is_none() && repeats == Repeats::Refused {
            return unfit(ty, "null inside");
        }
    }
    finish(&reader)?;
    if repeats == Repeats::Refused {
        distinct(ty, all, count, 1)?;
    }
    Ok(())
}

fn map(ty: &Type, key: &Type, value: &Type, bytes: &[u8]) -> Result<(), CellError> {
    let (count, mut reader) = count(ty, bytes)?;
    let all = reader.clone();
    for _ in 0..count {
        if inner(ty, key, &mut reader)?.is_none() {
            return unfit(ty, "a null key");
        }
        inner(ty, value, &mut reader)?;
    }
    finish(&reader)?;
    distinct(ty, all, count, 2)
}

/// Refuses equal cells among the first of every `stride` cells; `reader` holds checked cells.
fn distinct(ty: &Type, reader: Reader<'_>, count: usize, stride: usize) -> Result<(), CellError> {
    let next = |reader: &mut Reader<'_>| -> Result<(), CellError> {
        for _ in 0..stride {
            reader.cell()?;
        }
        Ok(())
    };
    let repeated = if count <= QUADRATIC {
        let mut found = false;
        let mut one = reader;
        for left in (0..count).rev() {
            let mut other = one.clone();
            next(&mut other)?;
            let cell = one.cell()?;
            one = other.clone();
            for _ in 0..left {
                found |= other.clone().cell()? == cell;
                next(&mut other)?;
            }
        }
        found
    } else {
        let mut seen = HashSet::with_capacity(count);
        let mut reader = reader;
        let mut found = false;
        for _ in 0..count {
            if let Cell::Value(value) = reader.clone().cell()? {
                found |= !seen.insert(value);
            }
            next(&mut reader)?;
        }
        found
    };
    if repeated {
        return unfit(ty, "an entry that stands twice");
    }
    Ok(())
}

fn headers(ty: &Type, bytes: &[u8]) -> Result<(), CellError> {
    let (count, mut reader) = count(ty, bytes)?;
    for _ in 0..count {
        if inner(ty, &Type::Text, &mut reader)?.is_none() {
            return unfit(ty, "a header without a name");
        }
        inner(ty, &Type::Bytes, &mut reader)?;
    }
    finish(&reader)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
