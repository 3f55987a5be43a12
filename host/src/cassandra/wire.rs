//! Cells to CQL values: which bytes a column's cells become on the wire, and what CQL calls the type.
//!
//! Most types are the same bytes in both (CQL binary protocol v4, section 6); the rest are converted while
//! they are written, into the driver's buffer, without an allocation. It holds no rows and checks only what
//! the cell codec cannot know: the ranges of CQL.

use scylla::serialize::SerializationError;
use scylla::serialize::writers::CellWriter;

use crate::record::Type;
use crate::record::cells::{Cell, CellError, Reader};

/// Nanoseconds a day: a CQL time is below it.
const DAY_NANOS: i64 = 86_400_000_000_000;

/// How the cells of one column become CQL values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// The same bytes.
    Same,
    /// Microseconds to milliseconds, rounded down.
    Timestamp,
    /// Signed days to days counted from −5877641-06-23 (an offset of 2³¹).
    Date,
    /// Microseconds to nanoseconds.
    Time,
    /// The same bytes, of version 1.
    TimeUuid,
    /// Count and elements; the elements are converted.
    List(Box<Wire>),
    /// Count, then keys and values, converted.
    Map(Box<Wire>, Box<Wire>),
}

/// A cell that CQL has no value for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// The cell's bytes are damaged.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// Out of the range of the CQL type.
    #[error("{0}")]
    Range(&'static str),
    /// Larger than the protocol can say.
    #[error("a value of more than 2 GiB")]
    Overflow,
}

impl Wire {
    /// The conversion for a column type.
    pub(super) fn of(ty: &Type) -> Self {
        match ty {
            Type::Timestamp => Self::Timestamp,
            Type::Date => Self::Date,
            Type::Time => Self::Time,
            Type::List(item) | Type::Set(item) => match Self::of(item) {
                Self::Same => Self::Same,
                item => Self::List(Box::new(item)),
            },
            Type::Map(key, value) => match (Self::of(key), Self::of(value)) {
                (Self::Same, Self::Same) => Self::Same,
                (key, value) => Self::Map(Box::new(key), Box::new(value)),
            },
            _ => Self::Same,
        }
    }

    /// Whether `value` can be written.
    ///
    /// # Errors
    /// What of it CQL has no value for.
    pub(super) fn check(&self, value: &[u8]) -> Result<(), WireError> {
        match self {
            Self::Same => Ok(()),
            Self::Timestamp | Self::Date | Self::Time => self.scalar(value).map(drop),
            Self::TimeUuid if value.get(6).is_some_and(|byte| byte >> 4 == 1) => Ok(()),
            Self::TimeUuid => Err(WireError::Range(
                "a uuid that is not of version 1 into a timeuuid column",
            )),
            Self::List(_) | Self::Map(..) => {
                let mut reader = self.elements(value)?;
                let mut index = 0_usize;
                while !reader.is_empty() {
                    match reader.cell()? {
                        Cell::Value(value) => self.element(index).check(value)?,
                        _ => return Err(WireError::Range("a collection with a null in it")),
                    }
                    index += 1;
                }
                Ok(())
            }
        }
    }

    /// Writes a value that [`Wire::check`] accepted.
    ///
    /// # Errors
    /// As [`Wire::check`].
    pub(super) fn write(&self, value: &[u8], writer: CellWriter<'_>) -> Result<(), WireError> {
        match self {
            Self::Same | Self::TimeUuid => set(writer, value),
            Self::Timestamp | Self::Date | Self::Time => {
                let (bytes, length) = self.scalar(value)?;
                set(writer, &bytes[..length])
            }
            Self::List(_) | Self::Map(..) => {
                let mut reader = self.elements(value)?;
                let mut builder = writer.into_value_builder();
                builder.append_bytes(&value[..4]);
                let mut index = 0_usize;
                while !reader.is_empty() {
                    let Cell::Value(value) = reader.cell()? else {
                        return Err(WireError::Range("a collection with a null in it"));
                    };
                    self.element(index)
                        .write(value, builder.make_sub_writer())?;
                    index += 1;
                }
                builder.finish().map(drop).map_err(|_| WireError::Overflow)
            }
        }
    }

    /// The bytes of a converted scalar and how many of them count.
    fn scalar(&self, value: &[u8]) -> Result<([u8; 8], usize), WireError> {
        let short = |_| WireError::Range("a value of the wrong size");
        Ok(match self {
            Self::Date => {
                // adding 2³¹ to a two's complement number flips its top bit
                let days = u32::from_be_bytes(value.try_into().map_err(short)?) ^ (1 << 31);
                let mut bytes = [0; 8];
                bytes[..4].copy_from_slice(&days.to_be_bytes());
                (bytes, 4)
            }
            Self::Time => {
                let micros = i64::from_be_bytes(value.try_into().map_err(short)?);
                let nanos = micros.checked_mul(1000);
                let nanos = nanos.filter(|nanos| (0..DAY_NANOS).contains(nanos));
                let nanos = nanos.ok_or(WireError::Range("a time outside of the day"))?;
                (nanos.to_be_bytes(), 8)
            }
            _ => {
                let micros = i64::from_be_bytes(value.try_into().map_err(short)?);
                (micros.div_euclid(1000).to_be_bytes(), 8)
            }
        })
    }

    fn elements<'a>(&self, value: &'a [u8]) -> Result<Reader<'a>, WireError> {
        let rest = value.get(4..);
        rest.map(Reader::new)
            .ok_or(WireError::Range("a collection without a count"))
    }

    /// Conversion of the `index`th cell of a collection.
    fn element(&self, index: usize) -> &Self {
        match self {
            Self::Map(_, value) if index % 2 == 1 => value,
            Self::Map(inner, _) | Self::List(inner) => inner,
            scalar => scalar,
        }
    }
}

impl From<WireError> for SerializationError {
    fn from(error: WireError) -> Self {
        Self::new(error)
    }
}

fn set(writer: CellWriter<'_>, value: &[u8]) -> Result<(), WireError> {
    writer
        .set_value(value)
        .map(drop)
        .map_err(|_| WireError::Overflow)
}

/// The CQL type that the host creates for a column; `None` where Cassandra has none (headers).
///
/// Collections are frozen: a list that is not gets its elements under ids made at arrival, so that a repeated
/// write doubles them.
pub(super) fn cql(ty: &Type) -> Option<String> {
    Some(match ty {
        Type::Boolean => "boolean".to_owned(),
        Type::Int16 => "smallint".to_owned(),
        Type::Int32 => "int".to_owned(),
        Type::Int64 => "bigint".to_owned(),
        Type::Float32 => "float".to_owned(),
        Type::Float64 => "double".to_owned(),
        Type::Text | Type::Json => "text".to_owned(),
        Type::Bytes => "blob".to_owned(),
        Type::Uuid => "uuid".to_owned(),
        Type::Timestamp => "timestamp".to_owned(),
        Type::Date => "date".to_owned(),
        Type::Time => "time".to_owned(),
        Type::Decimal { .. } => "decimal".to_owned(),
        Type::List(item) => format!("frozen<list<{}>>", cql(item)?),
        Type::Set(item) => format!("frozen<set<{}>>", cql(item)?),
        Type::Map(key, value) => format!("frozen<map<{}, {}>>", cql(key)?, cql(value)?),
        Type::Headers => return None,
    })
}

/// Whether a live column of CQL type `live` (as `system_schema` prints it) takes cells of `ty`.
///
/// A uuid fits a timeuuid column (its version is checked with each value), and sets and maps may be left
/// unfrozen: a write replaces them at its own time. A list may not.
pub(super) fn accepts(ty: &Type, live: &str) -> bool {
    let Some(wanted) = cql(ty) else { return false };
    if matches!(ty, Type::List(_)) && !live.starts_with("frozen<") {
        return false;
    }
    let live = plain(live);
    live == plain(&wanted) || (*ty == Type::Uuid && live == "timeuuid")
}

/// A type's text without `frozen<…>` and spaces.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut opened: Vec<bool> = Vec::new();
    let mut word = String::new();
    for letter in text.chars() {
        match letter {
            '<' => {
                let frozen = word == "frozen";
                opened.push(frozen);
                if !frozen {
                    out.push_str(&word);
                    out.push('<');
                }
                word.clear();
            }
            '>' => {
                out.push_str(&word);
                word.clear();
                if !opened.pop().unwrap_or(false) {
                    out.push('>');
                }
            }
            ',' => {
                out.push_str(&word);
                word.clear();
                out.push(',');
            }
            ' ' => {}
            letter => word.push(letter),
        }
    }
    out + &word
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::record::cells;

    fn written(ty: &str, value: &[u8]) -> Result<Vec<u8>, WireError> {
        let wire = Wire::of(&ty.parse().unwrap());
        wire.check(value)?;
        let mut out = Vec::new();
        wire.write(value, CellWriter::new(&mut out))?;
        Ok(out.split_off(4))
    }

    #[test]
    fn times_change_their_unit_and_their_zero() {
        let write = |ty: &str, value: i64| written(ty, &value.to_be_bytes()).unwrap();
        assert_eq!(write("timestamp", 1_999), 1_i64.to_be_bytes());
        assert_eq!(write("timestamp", -1), (-1_i64).to_be_bytes());
        assert_eq!(
            write("time", 86_399_999_999),
            86_399_999_999_000_i64.to_be_bytes()
        );
        assert_eq!(
            written("date", &0_i32.to_be_bytes()).unwrap(),
            (1_u32 << 31).to_be_bytes()
        );
        assert_eq!(
            written("date", &(-1_i32).to_be_bytes()).unwrap(),
            ((1_u32 << 31) - 1).to_be_bytes()
        );
        for wrong in [-1_i64, 86_400_000_000, i64::MAX] {
            assert!(written("time", &wrong.to_be_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_must_change_is_rewritten() {
        for ty in [
            "list<text>",
            "map<text,decimal(9,2)>",
            "set<uuid>",
            "json",
            "list<list<int64>>",
        ] {
            assert_eq!(Wire::of(&ty.parse().unwrap()), Wire::Same, "{ty}");
        }
        let mut map = 1_i32.to_be_bytes().to_vec();
        cells::put(&mut map, b"k");
        let mut list = 2_i32.to_be_bytes().to_vec();
        cells::put(&mut list, &5_000_i64.to_be_bytes());
        cells::put(&mut list, &(-5_000_i64).to_be_bytes());
        cells::put(&mut map, &list);
        let out = written("map<text,list<timestamp>>", &map).unwrap();
        let mut want = 1_i32.to_be_bytes().to_vec();
        cells::put(&mut want, b"k");
        let mut list = 2_i32.to_be_bytes().to_vec();
        cells::put(&mut list, &5_i64.to_be_bytes());
        cells::put(&mut list, &(-5_i64).to_be_bytes());
        cells::put(&mut want, &list);
        assert_eq!(out, want);
        let mut hole = 1_i32.to_be_bytes().to_vec();
        cells::put_null(&mut hole);
        assert!(written("list<date>", &hole).is_err());
        assert!(written("list<date>", b"abc").is_err());
    }

    #[test]
    fn types_have_a_cql_name_and_know_their_kin() {
        let ty = |text: &str| text.parse::<Type>().unwrap();
        assert_eq!(
            cql(&ty("map<text,list<int64>>")).unwrap(),
            "frozen<map<text, frozen<list<bigint>>>>"
        );
        assert_eq!(cql(&Type::Headers), None);
        assert!(accepts(
            &ty("map<text,list<int64>>"),
            "map<text, frozen<list<bigint>>>"
        ));
        assert!(accepts(&ty("set<text>"), "set<text>"));
        assert!(accepts(&ty("list<text>"), "frozen<list<text>>"));
        assert!(!accepts(&ty("list<text>"), "list<text>"));
        assert!(accepts(&ty("uuid"), "timeuuid"));
        assert!(!accepts(&ty("int64"), "int"));
        assert!(!accepts(&ty("text"), "frozen<list<text>>"));
    }
}
