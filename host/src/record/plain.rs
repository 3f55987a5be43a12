//! [`Plain`]: a value in one form, whichever table or plugin it comes from, for comparing.
//!
//! Two values are equal when the database holds them to be the same: a decimal has no trailing zeros, JSON no order of
//! names. It is for checks, where every value is held alone; records on their way are cells (see [`super::cells`]) and
//! never come here.

mod json;

use std::cmp::Ordering;
use std::fmt;

use super::cells;
use super::types::Type;

/// A value. Equality is of the value, not of how it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plain {
    /// None.
    Null,
    /// A boolean.
    Boolean(bool),
    /// int16, int32 and int64.
    Integer(i64),
    /// Bits of a float64; a float32 is widened. One pattern for NaN.
    Float(u64),
    /// Text, and whatever of a table has no other form here.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A uuid.
    Uuid([u8; 16]),
    /// Microseconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Digits and their exponent of ten, without trailing zeros.
    Decimal(i128, i32),
    /// JSON in one form: names ascending, numbers shortest.
    Json(String),
    /// Items in their order.
    List(Vec<Plain>),
    /// Items, ascending.
    Set(Vec<Plain>),
    /// Keys and values, ascending.
    Map(Vec<(Plain, Plain)>),
}

impl Plain {
    /// A float.
    #[must_use]
    pub fn float(value: f64) -> Self {
        Self::Float(if value.is_nan() { f64::NAN } else { value }.to_bits())
    }

    /// A decimal from its unscaled value and scale.
    #[must_use]
    pub fn decimal(unscaled: i128, scale: i32) -> Self {
        let (mut digits, mut exponent) = (unscaled, scale.saturating_neg());
        if digits == 0 {
            return Self::Decimal(0, 0);
        }
        while digits % 10 == 0 {
            digits /= 10;
            exponent += 1;
        }
        Self::Decimal(digits, exponent)
    }

    /// JSON; what is none stays as it is written.
    #[must_use]
    pub fn json(text: &str) -> Self {
        Self::Json(json::canonical(text).unwrap_or_else(|| text.to_owned()))
    }

    /// A list of values without an order.
    #[must_use]
    pub fn set(mut items: Vec<Self>) -> Self {
        items.sort_unstable();
        Self::Set(items)
    }

    /// Keys with their values.
    #[must_use]
    pub fn map(mut items: Vec<(Self, Self)>) -> Self {
        items.sort_unstable();
        Self::Map(items)
    }

    /// A value from how a database says it: numbers, booleans and uuids as usual, bytes in hex, timestamps, dates and
    /// times as their number. What is not of the type stays text, and equals nothing of the type.
    #[must_use]
    pub fn parse(ty: &Type, text: &str) -> Self {
        let parsed = match ty {
            Type::Boolean => text.parse().ok().map(Self::Boolean),
            Type::Int16 | Type::Int32 | Type::Int64 => text.parse().ok().map(Self::Integer),
            Type::Float32 => text
                .parse()
                .ok()
                .map(|float: f32| Self::float(float.into())),
            Type::Float64 => text.parse().ok().map(Self::float),
            Type::Bytes => unhex(text).map(Self::Bytes),
            Type::Uuid => uuid::Uuid::parse_str(text)
                .ok()
                .map(|uuid| Self::Uuid(uuid.into_bytes())),
            Type::Timestamp => text.parse().ok().map(Self::Timestamp),
            Type::Date => text.parse().ok().map(Self::Date),
            Type::Time => text.parse().ok().map(Self::Time),
            Type::Decimal { .. } => decimal(text),
            Type::Json | Type::Map(..) => Some(Self::json(text)),
            Type::Text | Type::List(_) | Type::Set(_) | Type::Headers => None,
        };
        parsed.unwrap_or_else(|| Self::Text(text.to_owned()))
    }

    /// Order of two values of a type that has one in Postgres: NaN is the greatest number and equals itself, null is
    /// least.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Float(left), Self::Float(right)) => {
                let (left, right) = (f64::from_bits(*left), f64::from_bits(*right));
                left.partial_cmp(&right)
                    .unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
            }
            (Self::Decimal(left, a), Self::Decimal(right, b)) => {
                let low = (*a).min(*b);
                let align = |digits: i128, exponent: i32| {
                    let shift = u32::try_from(exponent - low).ok()?;
                    digits.checked_mul(10_i128.checked_pow(shift)?)
                };
                match (align(*left, *a), align(*right, *b)) {
                    (Some(left), Some(right)) => left.cmp(&right),
                    // Past 38 digits one is of another magnitude than the other.
                    _ => {
                        let float = |digits: i128, exponent| digits as f64 * 10_f64.powi(exponent);
                        float(*left, *a).total_cmp(&float(*right, *b))
                    }
                }
            }
            _ => self.cmp(other),
        }
    }
}

/// A number as JSON and databases write it; `None` for more digits than an `i128` holds.
fn decimal(text: &str) -> Option<Plain> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    if whole.starts_with('+') || !number.ends_with(|last: char| last.is_ascii_digit()) {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    scale.checked_neg().map(|_| Plain::decimal(digits, scale))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        (pair.len() == 2)
            .then(|| u8::from_str_radix(pair, 16).ok())
            .flatten()
    });
    pairs.collect()
}

/// As a person reads it; long values are cut by whoever shows them.
impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |f: &mut fmt::Formatter<'_>, ty: &Type, value: &[u8]| {
            let mut text = Vec::new();
            cells::json::put_text(&mut text, ty, value);
            f.write_str(&String::from_utf8_lossy(&text))
        };
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Uuid(bytes) => write!(f, "{}", uuid::Uuid::from_bytes(*bytes)),
            Self::Timestamp(micros) => cell(f, &Type::Timestamp, &micros.to_be_bytes()),
            Self::Date(days) => cell(f, &Type::Date, &days.to_be_bytes()),
            Self::Time(micros) => cell(f, &Type::Time, &micros.to_be_bytes()),
            Self::Decimal(digits, 0) => write!(f, "{digits}"),
            Self::Decimal(digits, exponent @ 1..20) => {
                write!(
                    f,
                    "{digits}{:0>1$}",
                    "",
                    usize::try_from(*exponent).unwrap_or(0)
                )
            }
            Self::Decimal(digits, exponent @ -38..0) => {
                let scale = usize::try_from(-exponent).unwrap_or(0);
                let sign = if *digits < 0 { "-" } else { "" };
                let all = format!("{:0>1$}", digits.unsigned_abs(), scale + 1);
                let (whole, fraction) = all.split_at(all.len() - scale);
                write!(f, "{sign}{whole}.{fraction}")
            }
            Self::Decimal(digits, exponent) => write!(f, "{digits}e{exponent}"),
            Self::Json(text) => f.write_str(text),
            Self::List(items) => list(f, ('[', ']'), items),
            Self::Set(items) => list(f, ('{', '}'), items),
            Self::Map(items) => {
                f.write_str("{")?;
                for (at, (key, value)) in items.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, (open, close): (char, char), items: &[Plain]) -> fmt::Result {
    write!(f, "{open}")?;
    for (at, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if at > 0 { ", " } else { "" })?;
    }
    write!(f, "{close}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn parse(ty: &str, text: &str) -> Plain {
        Plain::parse(&ty.parse().unwrap(), text)
    }

    #[test]
    fn what_a_database_holds_to_be_the_same_is_equal() {
        assert_eq!(parse("decimal(9,3)", "1.500"), Plain::decimal(15, 1));
        assert_eq!(parse("decimal(9,3)", "-0.050"), Plain::decimal(-50, 3));
        assert_eq!(parse("decimal(9,3)", "1200"), Plain::decimal(12_000, 1));
        assert_eq!(parse("decimal(9,3)", "0.000"), Plain::decimal(0, 0));
        assert_eq!(parse("float64", "NaN"), Plain::float(-f64::NAN));
        assert_eq!(parse("float32", "0.1"), Plain::float(f64::from(0.1_f32)));
        assert_ne!(parse("float64", "0.1"), parse("float32", "0.1"));
        assert_eq!(parse("bytes", "00ff"), Plain::Bytes(vec![0, 255]));
        assert_eq!(
            parse("json", r#"{"b": 1.0, "a": [1e2]}"#),
            parse("json", r#"{"a":[100],"b":1}"#)
        );
    }

    #[test]
    fn what_is_not_of_the_type_equals_nothing_of_it() {
        for (ty, text) in [
            ("int64", "1.0"),
            ("timestamp", "infinity"),
            ("bytes", "0"),
            ("uuid", "x"),
            ("decimal(5,2)", "NaN"),
        ] {
            assert_eq!(parse(ty, text), Plain::Text(text.to_owned()), "{ty}");
        }
    }

    #[test]
    fn guards_are_ordered_as_postgres_orders_them() {
        let less = |left: Plain, right: Plain| {
            assert_eq!(left.order(&right), Ordering::Less, "{left} {right}");
            assert_eq!(right.order(&left), Ordering::Greater, "{left} {right}");
        };
        less(Plain::float(f64::INFINITY), Plain::float(f64::NAN));
        less(Plain::float(-1.0), Plain::float(0.5));
        less(Plain::decimal(15, 1), Plain::decimal(2, 0));
        less(Plain::decimal(-3, 0), Plain::decimal(1, 30));
        less(Plain::Timestamp(-1), Plain::Timestamp(1));
        less(Plain::Null, Plain::Integer(i64::MIN));
        assert_eq!(
            Plain::float(0.0).order(&Plain::float(-0.0)),
            Ordering::Equal
        );
    }

    #[test]
    fn values_read_as_a_person_expects() {
        for (value, text) in [
            (Plain::decimal(-5, 2), "-0.05"),
            (Plain::decimal(1250, 2), "12.5"),
            (Plain::decimal(1200, 0), "1200"),
            (Plain::Timestamp(0), "1970-01-01T00:00:00Z"),
            (Plain::Date(11_016), "2000-02-29"),
            (Plain::Text("a\"b".to_owned()), r#""a\"b""#),
            (
                Plain::List(vec![Plain::Integer(1), Plain::Null]),
                "[1, null]",
            ),
        ] {
            assert_eq!(value.to_string(), text);
        }
    }
}
