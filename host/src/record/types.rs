//! Column types: one table from the interface to every sink. [`Type`] is parsed from and printed as the
//! text that manifests and `describe` use; it holds no value and knows no database.

use std::fmt;
use std::str::FromStr;

/// The type of a field or a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// One byte, 0 or 1.
    Boolean,
    /// Two bytes, big-endian.
    Int16,
    /// Four bytes, big-endian.
    Int32,
    /// Eight bytes, big-endian.
    Int64,
    /// IEEE 754 single, big-endian.
    Float32,
    /// IEEE 754 double, big-endian.
    Float64,
    /// UTF-8.
    Text,
    /// UTF-8 that is one JSON value.
    Json,
    /// Any bytes.
    Bytes,
    /// 16 bytes.
    Uuid,
    /// s64 microseconds since 1970-01-01 UTC.
    Timestamp,
    /// s32 days since 1970-01-01.
    Date,
    /// s64 microseconds since midnight.
    Time,
    /// s32 scale, then two's complement unscaled value.
    Decimal {
        /// Greatest number of digits, 1 to 38.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// s32 count, then cells.
    List(Box<Type>),
    /// As a list; order means nothing and repeats are refused.
    Set(Box<Type>),
    /// s32 count, then key and value cells.
    Map(Box<Type>, Box<Type>),
    /// List of (name, value) cells; Kafka only.
    Headers,
}

/// A named, typed column of a route, or a field of an input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Its name, as in the table.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Whether null is allowed.
    pub nullable: bool,
}

/// A text that names no type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "type {0:?} is not known; one of boolean, int16, int32, int64, float32, float64, text, json, bytes, uuid, \
     timestamp, date, time, decimal(p,s), list<T>, set<T>, map<K,V>, headers"
)]
pub struct ParseTypeError(pub String);

/// Greatest depth of nested lists, sets and maps; deeper types are refused so that no checker recurses far.
const MAX_DEPTH: usize = 4;

impl Type {
    /// The size of every value of this type, where there is only one.
    #[must_use]
    pub fn fixed_size(&self) -> Option<usize> {
        Some(match self {
            Self::Boolean => 1,
            Self::Int16 => 2,
            Self::Int32 | Self::Float32 | Self::Date => 4,
            Self::Int64 | Self::Float64 | Self::Timestamp | Self::Time => 8,
            Self::Uuid => 16,
            _ => return None,
        })
    }

    fn parse(text: &str, depth: usize) -> Option<Self> {
        let text = text.trim();
        if depth > MAX_DEPTH {
            return None;
        }
        let inside = |prefix: &str, close: char| {
            text.strip_prefix(prefix)
                .and_then(|rest| rest.trim_end().strip_suffix(close))
        };
        Some(match text {
            "boolean" => Self::Boolean,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "float32" => Self::Float32,
            "float64" => Self::Float64,
            "text" => Self::Text,
            "json" => Self::Json,
            "bytes" => Self::Bytes,
            "uuid" => Self::Uuid,
            "timestamp" => Self::Timestamp,
            "date" => Self::Date,
            "time" => Self::Time,
            "headers" => Self::Headers,
            _ => {
                if let Some(args) = inside("decimal(", ')') {
                    let (precision, scale) = args.split_once(',')?;
                    let precision: u8 = precision.trim().parse().ok()?;
                    let scale: u8 = scale.trim().parse().ok()?;
                    if precision == 0 || precision > 38 || scale > precision {
                        return None;
                    }
                    Self::Decimal { precision, scale }
                } else if let Some(item) = inside("list<", '>') {
                    Self::List(Box::new(Self::parse_item(item, depth)?))
                } else if let Some(item) = inside("set<", '>') {
                    Self::Set(Box::new(Self::parse_item(item, depth)?))
                } else {
                    let args = inside("map<", '>')?;
                    let comma = top_level_comma(args)?;
                    Self::Map(
                        Box::new(Self::parse_item(&args[..comma], depth)?),
                        Box::new(Self::parse_item(&args[comma + 1..], depth)?),
                    )
                }
            }
        })
    }

    /// An element type: anything but headers.
    fn parse_item(text: &str, depth: usize) -> Option<Self> {
        Self::parse(text, depth + 1).filter(|ty| *ty != Self::Headers)
    }
}

fn top_level_comma(text: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' | b'(' => depth += 1,
            b'>' | b')' => depth -= 1,
            b',' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

impl FromStr for Type {
    type Err = ParseTypeError;

    fn from_str(text: &str) -> Result<Self, ParseTypeError> {
        Self::parse(text, 0).ok_or_else(|| ParseTypeError(text.to_owned()))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Int16 => f.write_str("int16"),
            Self::Int32 => f.write_str("int32"),
            Self::Int64 => f.write_str("int64"),
            Self::Float32 => f.write_str("float32"),
            Self::Float64 => f.write_str("float64"),
            Self::Text => f.write_str("text"),
            Self::Json => f.write_str("json"),
            Self::Bytes => f.write_str("bytes"),
            Self::Uuid => f.write_str("uuid"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::List(item) => write!(f, "list<{item}>"),
            Self::Set(item) => write!(f, "set<{item}>"),
            Self::Map(key, value) => write!(f, "map<{key},{value}>"),
            Self::Headers => f.write_str("headers"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn text_and_type_round_trip() {
        for text in [
            "boolean",
            "decimal(10,2)",
            "list<text>",
            "map<text,list<decimal(38,0)>>",
            "set<uuid>",
        ] {
            assert_eq!(text.parse::<Type>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "int",
            "decimal(0,0)",
            "decimal(39,0)",
            "decimal(3,4)",
            "list<>",
            "list<headers>",
            "map<text>",
            "list<text",
        ] {
            assert!(text.parse::<Type>().is_err(), "{text}");
        }
        let deep = format!("{}text{}", "list<".repeat(9), ">".repeat(9));
        assert!(deep.parse::<Type>().is_err());
    }
}
