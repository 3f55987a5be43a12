//! Text forms of field sources and units, and which source may have which type.

use std::fmt;
use std::str::FromStr;

use super::types::{Field, FieldSource, Format, KeyFormat, TextFormat, Unit};
use crate::record::Type;

/// Greatest length of a path or header name, bytes.
const MAX_PATH: usize = 1024;

/// A text that names no field source; prints what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseSourceError(&'static str);

const FORMS: ParseSourceError = ParseSourceError(
    "one of \"value\", \"value:/path\", \"key\", \"key:/path\", \"header:NAME\", \"topic\", \"partition\", \
     \"offset\", \"timestamp\"",
);

impl FromStr for FieldSource {
    type Err = ParseSourceError;

    fn from_str(text: &str) -> Result<Self, ParseSourceError> {
        if text.len() > MAX_PATH {
            return Err(ParseSourceError("a path has at most 1024 bytes"));
        }
        if let Some((kind, rest)) = text.split_once(':') {
            return match kind {
                "value" => Ok(Self::Value(pointer(rest)?)),
                "key" if rest.is_empty() => Ok(Self::Key),
                "key" => Ok(Self::KeyPath(pointer(rest)?)),
                "header" if rest.is_empty() => Err(ParseSourceError(
                    "write the header's name after \"header:\"",
                )),
                "header" => Ok(Self::Header(rest.to_owned())),
                _ => Err(FORMS),
            };
        }
        match text {
            "value" => Ok(Self::Value(String::new())),
            "key" => Ok(Self::Key),
            "topic" => Ok(Self::Topic),
            "partition" => Ok(Self::Partition),
            "offset" => Ok(Self::Offset),
            "timestamp" => Ok(Self::Timestamp),
            _ => Err(FORMS),
        }
    }
}

impl fmt::Display for FieldSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(path) if path.is_empty() => f.write_str("value"),
            Self::Value(path) => write!(f, "value:{path}"),
            Self::Key => f.write_str("key"),
            Self::KeyPath(path) => write!(f, "key:{path}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Topic => f.write_str("topic"),
            Self::Partition => f.write_str("partition"),
            Self::Offset => f.write_str("offset"),
            Self::Timestamp => f.write_str("timestamp"),
        }
    }
}

impl Unit {
    /// Reads `s`, `ms`, `us` or `ns`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "s" => Self::Seconds,
            "ms" => Self::Millis,
            "us" => Self::Micros,
            "ns" => Self::Nanos,
            _ => return None,
        })
    }

    /// The text form.
    #[must_use]
    pub fn as_text(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Micros => "us",
            Self::Nanos => "ns",
        }
    }
}

/// A JSON pointer (RFC 6901): empty, or `/` before each token; `~` only as `~0` and `~1`.
fn pointer(text: &str) -> Result<String, ParseSourceError> {
    if !text.is_empty() && !text.starts_with('/') {
        return Err(ParseSourceError(
            "a path is a JSON pointer: it starts with '/', e.g. \"value:/properties/mag\"",
        ));
    }
    let escapes = text.split('~').skip(1);
    if escapes
        .into_iter()
        .any(|rest| !rest.starts_with(['0', '1']))
    {
        return Err(ParseSourceError(
            "in a JSON pointer '~' is written \"~0\" and '/' inside a name \"~1\"",
        ));
    }
    Ok(text.to_owned())
}

/// Why a field cannot be had from an input of these formats; `None`: it can.
///
/// `captures` are the named groups of a `text` pattern. The decoder checks the rest (names of JSON objects as
/// map keys) when it compiles the fields.
pub(super) fn misfit(
    field: &Field,
    format: &Format,
    key_format: KeyFormat,
    captures: &[String],
) -> Option<String> {
    let (ty, source) = (&field.column.ty, &field.from);
    if *ty == Type::Headers {
        return Some(String::from(
            "a field cannot have type headers; ask for headers of the input instead",
        ));
    }
    let timed = matches!(element(ty), Type::Timestamp | Type::Date | Type::Time);
    if field.unit.is_some() && !timed {
        return Some(format!(
            "unit is for timestamp, date and time fields, not for {ty}"
        ));
    }
    let only = |allowed: &[Type]| {
        let names: Vec<String> = allowed.iter().map(Type::to_string).collect();
        let names = names.join(" or ");
        (!allowed.contains(ty)).then(|| format!("\"{source}\" has type {names}, not {ty}"))
    };
    match source {
        FieldSource::Topic => only(&[Type::Text]),
        FieldSource::Partition => only(&[Type::Int32]),
        FieldSource::Offset => only(&[Type::Int64]),
        FieldSource::Timestamp if field.unit.is_some() => Some(String::from(
            "\"timestamp\" is a timestamp already: remove unit",
        )),
        FieldSource::Timestamp => only(&[Type::Timestamp]),
        FieldSource::Header(_) => only(&[Type::Text, Type::Bytes]),
        FieldSource::KeyPath(_) if key_format != KeyFormat::Json => Some(String::from(
            "a path into the key needs key_format = \"json\"",
        )),
        FieldSource::KeyPath(_) => None,
        FieldSource::Key => match key_format {
            KeyFormat::Json => None,
            KeyFormat::Text => scalar(source, ty),
            KeyFormat::Bytes => only(&RAW),
        },
        FieldSource::Value(path) => match (format, path.strip_prefix('/')) {
            (Format::Json, _) => None,
            (Format::Bytes, None) => only(&RAW),
            (Format::Bytes, Some(_)) => Some(String::from(
                "values of format \"bytes\" have no paths; take the whole \"value\"",
            )),
            (Format::Text(_), None) => scalar(source, ty),
            (Format::Text(text), Some(name)) => {
                missing_capture(text, name, captures).or_else(|| scalar(source, ty))
            }
        },
    }
}

/// Types that bytes can be as they are: big-endian where there is an order.
const RAW: [Type; 8] = [
    Type::Bytes,
    Type::Text,
    Type::Uuid,
    Type::Int16,
    Type::Int32,
    Type::Int64,
    Type::Float32,
    Type::Float64,
];

/// What a collection holds, else the type itself: a unit applies to each element.
fn element(ty: &Type) -> &Type {
    match ty {
        Type::List(item) | Type::Set(item) | Type::Map(_, item) => item,
        ty => ty,
    }
}

/// One piece of text is one value, never a collection.
fn scalar(source: &FieldSource, ty: &Type) -> Option<String> {
    let collection = matches!(ty, Type::List(_) | Type::Set(_) | Type::Map(..));
    collection.then(|| format!("\"{source}\" is plain text here, which is no {ty}"))
}

fn missing_capture(text: &TextFormat, name: &str, captures: &[String]) -> Option<String> {
    if text.pattern.is_none() {
        return Some(format!(
            "\"value:/{name}\" needs a pattern with a capture named {name:?}"
        ));
    }
    let there = captures.iter().any(|capture| capture == name);
    (!there).then(|| format!("the pattern has no capture named {name:?}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn text_and_source_round_trip() {
        for text in [
            "value",
            "value:/a/b~1c/0",
            "key",
            "key:/id",
            "header:trace-id",
            "header:a:b",
            "topic",
            "partition",
            "offset",
            "timestamp",
        ] {
            assert_eq!(text.parse::<FieldSource>().unwrap().to_string(), text);
        }
        assert_eq!("value:".parse(), Ok(FieldSource::Value(String::new())));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "values",
            "value:mag",
            "value:/a~2",
            "value:/a~",
            "header:",
            "body:/x",
        ] {
            assert!(text.parse::<FieldSource>().is_err(), "{text}");
        }
    }
}
