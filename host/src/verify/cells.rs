//! Cells of a row as [`Plain`] values, as the database of the route holds them.
//!
//! The other way than a sink's encoder: it reads what the plugin returned and says what a typed read of the table has
//! to give back. A cell that is left alone has no value.

use crate::record::cells::{
    Cell, Items, Reader, get_boolean, get_decimal, get_float32, get_float64, get_int16, get_int32,
    get_int64, get_text,
};
use crate::record::{Column, Plain, Type};

use super::Kind;

/// The values of a checked row by column; `None` for a cell that is left alone.
///
/// # Errors
/// What is wrong with the cells: a bug of ours, rows were checked.
pub(super) fn row(
    kind: Kind,
    columns: &[Column],
    cells: &[u8],
) -> Result<Vec<Option<Plain>>, String> {
    let mut reader = Reader::new(cells);
    let mut values = Vec::with_capacity(columns.len());
    for column in columns {
        let cell = reader
            .cell()
            .map_err(|error| format!("column {:?}: {error}", column.name))?;
        values.push(match cell {
            Cell::Value(value) => Some(plain(kind, &column.ty, value)),
            Cell::Null => Some(Plain::Null),
            _ => None,
        });
    }
    Ok(values)
}

/// A checked value.
fn plain(kind: Kind, ty: &Type, value: &[u8]) -> Plain {
    match ty {
        Type::Boolean => Plain::Boolean(get_boolean(value)),
        Type::Int16 => Plain::Integer(get_int16(value).into()),
        Type::Int32 => Plain::Integer(get_int32(value).into()),
        Type::Int64 => Plain::Integer(get_int64(value)),
        Type::Float32 => Plain::float(get_float32(value).into()),
        Type::Float64 => Plain::float(get_float64(value)),
        Type::Text => Plain::Text(get_text(value).to_owned()),
        // Cassandra keeps the text as it is.
        Type::Json if kind == Kind::Cassandra => Plain::Text(get_text(value).to_owned()),
        Type::Json => Plain::json(get_text(value)),
        Type::Bytes | Type::Headers => Plain::Bytes(value.to_vec()),
        Type::Uuid => match value.try_into() {
            Ok(bytes) => Plain::Uuid(bytes),
            Err(_) => Plain::Bytes(value.to_vec()),
        },
        // Cassandra counts milliseconds.
        Type::Timestamp if kind == Kind::Cassandra => {
            Plain::Timestamp(get_int64(value).div_euclid(1000).saturating_mul(1000))
        }
        Type::Timestamp => Plain::Timestamp(get_int64(value)),
        Type::Date => Plain::Date(get_int32(value)),
        Type::Time => Plain::Time(get_int64(value)),
        Type::Decimal { .. } => {
            let (unscaled, scale) = get_decimal(value);
            Plain::decimal(unscaled, scale)
        }
        Type::Map(..) if kind == Kind::Postgres => {
            let mut text = String::new();
            json(&mut text, ty, value);
            Plain::json(&text)
        }
        Type::List(_) | Type::Set(_) | Type::Map(..) => collection(kind, ty, value),
    }
}

fn collection(kind: Kind, ty: &Type, value: &[u8]) -> Plain {
    let item = |ty: &Type, cell: Cell<'_>| match cell {
        Cell::Value(value) => plain(kind, ty, value),
        _ => Plain::Null,
    };
    let mut cells = Items::new(value);
    let collected = match ty {
        Type::List(of) => Plain::List(cells.map(|cell| item(of, cell)).collect()),
        // An array of Postgres has an order.
        Type::Set(of) if kind == Kind::Postgres => {
            Plain::List(cells.map(|cell| item(of, cell)).collect())
        }
        Type::Set(of) => Plain::set(cells.map(|cell| item(of, cell)).collect()),
        Type::Map(of, to) => {
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (cells.next(), cells.next()) {
                pairs.push((item(of, key), item(to, value)));
            }
            Plain::map(pairs)
        }
        _ => Plain::Null,
    };
    absent_if_empty(kind, collected)
}

/// Cassandra does not tell an empty collection from none.
pub(super) fn absent_if_empty(kind: Kind, value: Plain) -> Plain {
    let empty = match &value {
        Plain::List(items) | Plain::Set(items) => items.is_empty(),
        Plain::Map(items) => items.is_empty(),
        _ => false,
    };
    if empty && kind == Kind::Cassandra {
        Plain::Null
    } else {
        value
    }
}

/// What a map is in a `jsonb` column: keys as text, numbers as numbers, bytes as base64, times as RFC 3339.
fn json(out: &mut String, ty: &Type, value: &[u8]) {
    match ty {
        Type::Map(of, to) => {
            out.push('{');
            let mut cells = Items::new(value);
            let mut first = true;
            while let (Some(key), Some(value)) = (cells.next(), cells.next()) {
                if !std::mem::take(&mut first) {
                    out.push(',');
                }
                let key = match key {
                    Cell::Value(key) => text(of, key),
                    _ => String::new(),
                };
                quote(out, &key);
                out.push(':');
                json_cell(out, to, value);
            }
            out.push('}');
        }
        Type::List(of) | Type::Set(of) => {
            out.push('[');
            for (at, cell) in Items::new(value).enumerate() {
                if at > 0 {
                    out.push(',');
                }
                json_cell(out, of, cell);
            }
            out.push(']');
        }
        Type::Json => out.push_str(get_text(value)),
        Type::Boolean | Type::Int16 | Type::Int32 | Type::Int64 => out.push_str(&text(ty, value)),
        Type::Decimal { .. } => out.push_str(&text(ty, value)),
        Type::Float32 if get_float32(value).is_finite() => out.push_str(&text(ty, value)),
        Type::Float64 if get_float64(value).is_finite() => out.push_str(&text(ty, value)),
        _ => quote(out, &text(ty, value)),
    }
}

fn json_cell(out: &mut String, ty: &Type, cell: Cell<'_>) {
    match cell {
        Cell::Value(value) => json(out, ty, value),
        _ => out.push_str("null"),
    }
}

/// A value as the text that stands for it in JSON.
fn text(ty: &Type, value: &[u8]) -> String {
    let odd = |float: f64| {
        (!float.is_finite()).then(|| match float {
            float if float.is_nan() => "NaN".to_owned(),
            float if float > 0.0 => "Infinity".to_owned(),
            _ => "-Infinity".to_owned(),
        })
    };
    match ty {
        Type::Text | Type::Json => get_text(value).to_owned(),
        Type::Bytes => {
            let mut text = Vec::new();
            crate::record::cells::json::put_base64(&mut text, value);
            String::from_utf8_lossy(&text).into_owned()
        }
        // The shortest text that reads back: not that of the same number as a float64.
        Type::Float32 => {
            let float = get_float32(value);
            odd(float.into()).unwrap_or_else(|| format!("{float:?}"))
        }
        Type::Float64 => {
            let float = get_float64(value);
            odd(float).unwrap_or_else(|| format!("{float:?}"))
        }
        Type::List(_) | Type::Set(_) | Type::Map(..) => {
            let mut text = String::new();
            json(&mut text, ty, value);
            text
        }
        _ => plain(Kind::Postgres, ty, value).to_string(),
    }
}

fn quote(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::record::cells;

    fn read(kind: Kind, ty: &str, value: &[u8]) -> Plain {
        let ty = ty.parse().unwrap();
        cells::check(&ty, value).unwrap();
        plain(kind, &ty, value)
    }

    #[test]
    fn each_database_keeps_what_it_can() {
        let micros = (-1_i64).to_be_bytes();
        assert_eq!(
            read(Kind::Postgres, "timestamp", &micros),
            Plain::Timestamp(-1)
        );
        assert_eq!(
            read(Kind::Cassandra, "timestamp", &micros),
            Plain::Timestamp(-1000)
        );
        let json = br#"{"b":1,"a":2}"#;
        assert_eq!(
            read(Kind::Cassandra, "json", json),
            Plain::Text(r#"{"b":1,"a":2}"#.to_owned())
        );
        assert_eq!(
            read(Kind::Postgres, "json", json),
            Plain::json(r#"{"a":2, "b":1}"#)
        );
    }

    #[test]
    fn a_map_is_json_in_one_and_a_map_in_the_other() {
        let mut map = 1_i32.to_be_bytes().to_vec();
        cells::put(&mut map, &5_i64.to_be_bytes());
        cells::put(&mut map, &[0, 0, 0, 1, 0x0f]);
        assert_eq!(
            read(Kind::Postgres, "map<int64,decimal(5,1)>", &map),
            Plain::json(r#"{"5": 1.50}"#)
        );
        assert_eq!(
            read(Kind::Cassandra, "map<int64,decimal(5,1)>", &map),
            Plain::map(vec![(Plain::Integer(5), Plain::decimal(15, 1))])
        );
        let none = 0_i32.to_be_bytes();
        assert_eq!(read(Kind::Cassandra, "list<text>", &none), Plain::Null);
        assert_eq!(
            read(Kind::Postgres, "list<text>", &none),
            Plain::List(Vec::new())
        );
    }

    #[test]
    fn a_cell_that_is_left_alone_has_no_value() {
        let columns = ["a", "b", "c"].map(|name| Column {
            name: name.to_owned(),
            ty: Type::Int16,
            nullable: true,
        });
        let mut cells = Vec::new();
        cells::put_int16(&mut cells, 7);
        cells::put_unset(&mut cells);
        cells::put_null(&mut cells);
        assert_eq!(
            row(Kind::Cassandra, &columns, &cells).unwrap(),
            [Some(Plain::Integer(7)), None, Some(Plain::Null)]
        );
        assert!(row(Kind::Cassandra, &columns, &cells[..8]).is_err());
    }
}
