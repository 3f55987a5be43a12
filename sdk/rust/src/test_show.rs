//! Rows as a person reads them: cells to JSON. Integers, floats, booleans and texts as they are; timestamp RFC
//! 3339 with microseconds, UTC; date `YYYY-MM-DD`; time `HH:MM:SS.ffffff`; decimal and uuid as text; bytes as
//! base64; floats that JSON cannot say as text; maps with text keys as objects, others as pairs.

use serde_json::{Map, Value};

use crate::cell::{Reader, SOURCE_KEY, SOURCE_TIMESTAMP, SOURCE_VALUE, UNSET};
use crate::spec::ColumnSpec;
use crate::test_decode::{Origin, split_map};
use crate::types::Field;
use crate::values::{Date, Time, Timestamp, Uuid};

/// RFC 4648, section 4.
pub(crate) const BASE64: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A row's columns by name; unset ones are left out.
///
/// Panics on cells that are no cells: the SDK wrote them.
pub(crate) fn row(columns: &[ColumnSpec], cells: &[u8], origin: &Origin) -> Map<String, Value> {
    let mut reader = Reader::new(cells);
    let mut out = Map::new();
    for column in columns {
        if let Some(value) = next(&mut reader, &column.type_name(), origin) {
            out.insert(column.name.to_owned(), value);
        }
    }
    assert!(
        reader.rest().is_empty(),
        "a row holds more cells than its route has columns"
    );
    out
}

/// The next cell; `None` where it is unset.
fn next(reader: &mut Reader<'_>, ty: &str, origin: &Origin) -> Option<Value> {
    let length = reader.int().expect("a row has one cell a column");
    let Ok(length) = usize::try_from(length) else {
        let bytes = match length {
            UNSET => return None,
            SOURCE_KEY => origin.key.clone(),
            SOURCE_VALUE => origin.value_bytes(),
            SOURCE_TIMESTAMP if origin.timestamp < 0 => None,
            SOURCE_TIMESTAMP => Some(
                Timestamp::from_millis(origin.timestamp)
                    .0
                    .to_be_bytes()
                    .to_vec(),
            ),
            _ => None,
        };
        return Some(bytes.map_or(Value::Null, |bytes| show(ty, &bytes, origin)));
    };
    let (value, rest) = reader.rest().split_at(length);
    *reader = Reader::new(rest);
    Some(show(ty, value, origin))
}

fn show(ty: &str, bytes: &[u8], origin: &Origin) -> Value {
    value(ty, bytes, origin).unwrap_or_else(|| panic!("{bytes:?} is no {ty}"))
}

fn value(ty: &str, bytes: &[u8], origin: &Origin) -> Option<Value> {
    let text = || std::str::from_utf8(bytes).ok();
    Some(match ty {
        "boolean" => bool::from_value(bytes)?.into(),
        "int16" => i16::from_value(bytes)?.into(),
        "int32" => i32::from_value(bytes)?.into(),
        "int64" => i64::from_value(bytes)?.into(),
        "float32" => float(f64::from(f32::from_value(bytes)?)),
        "float64" => float(f64::from_value(bytes)?),
        "text" => text()?.into(),
        "json" => serde_json::from_str(text()?).ok()?,
        "bytes" => base64(bytes).into(),
        "uuid" => Uuid::from_value(bytes)?.to_string().into(),
        "timestamp" => Timestamp::from_value(bytes)?.to_string().into(),
        "date" => Date::from_value(bytes)?.to_string().into(),
        "time" => Time::from_value(bytes)?.to_string().into(),
        _ => return nested(ty, bytes, origin),
    })
}

fn nested(ty: &str, bytes: &[u8], origin: &Origin) -> Option<Value> {
    let inside = |word: &str| ty.strip_prefix(word)?.strip_suffix('>');
    let mut reader = Reader::new(bytes);
    if ty.starts_with("decimal(") {
        return decimal(reader.int()?, reader.rest());
    }
    let count = reader.int()?;
    let mut item = |ty: &str| next(&mut reader, ty, origin);
    if let Some(ty) = inside("list<").or_else(|| inside("set<")) {
        return (0..count).map(|_| item(ty)).collect();
    }
    let (key, ty) = split_map(inside("map<")?)?;
    let pairs = (0..count)
        .map(|_| Some((item(key)?, item(ty)?)))
        .collect::<Option<Vec<_>>>()?;
    if key != "text" {
        return Some(
            pairs
                .into_iter()
                .map(|(key, value)| Value::from(vec![key, value]))
                .collect(),
        );
    }
    let members = pairs
        .into_iter()
        .map(|(key, value)| Some((key.as_str()?.to_owned(), value)));
    members.collect::<Option<Map<_, _>>>().map(Value::Object)
}

fn float(value: f64) -> Value {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        };
    }
    value.into()
}

fn decimal(scale: i32, number: &[u8]) -> Option<Value> {
    let fill = if number.first()? & 0x80 == 0 { 0 } else { 0xff };
    let mut bytes = [fill; 16];
    bytes
        .get_mut(16_usize.checked_sub(number.len())?..)?
        .copy_from_slice(number);
    let unscaled = i128::from_be_bytes(bytes);
    let scale = usize::try_from(scale).ok()?;
    let sign = if unscaled < 0 { "-" } else { "" };
    let mut digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    if scale > 0 {
        digits.insert(digits.len() - scale, '.');
    }
    Some(format!("{sign}{digits}").into())
}

fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let three = [
            chunk[0],
            *chunk.get(1).unwrap_or(&0),
            *chunk.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for at in 0..4 {
            let six = (bits >> (18 - 6 * at)) & 63;
            out.push(if at <= chunk.len() {
                char::from(BASE64[six as usize])
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Column;
    use serde_json::json;

    #[test]
    fn values_as_a_person_reads_them() {
        let mut cells = Vec::new();
        vec![Some(1_i64), None].put(&mut cells);
        f64::NAN.put(&mut cells);
        b"\x00\xff"[..].put(&mut cells);
        crate::SourceKey::<String>::new().put(&mut cells);
        "-1.50"
            .parse::<crate::Decimal<5, 2>>()
            .map(|value| value.put(&mut cells))
            .unwrap_or_default();
        crate::cell::put_unset(&mut cells);
        let columns = [
            ColumnSpec::of::<Vec<Option<i64>>>("list"),
            ColumnSpec::of::<f64>("float"),
            ColumnSpec::of::<Vec<u8>>("bytes"),
            ColumnSpec::of::<String>("key"),
            ColumnSpec::of::<crate::Decimal<5, 2>>("decimal"),
            ColumnSpec::of::<String>("unset"),
        ];
        let origin = Origin {
            key: Some(b"k".to_vec()),
            ..Origin::default()
        };
        assert_eq!(
            Value::Object(row(&columns, &cells, &origin)),
            json!({"list": [1, null], "float": "NaN", "bytes": "AP8=", "key": "k", "decimal": "-1.50"})
        );
    }
}
