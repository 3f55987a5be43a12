//! Cells as a person reads them, short: for differences and logs. Never for a sink: it loses precision and length.

use super::{Cell, Reader};
use crate::record::{Column, Type};

/// Characters of one value.
const SHOWN: usize = 48;

/// A row's cells as `column=value`, in column order; whatever does not read as its type is shown in hex.
#[must_use]
pub fn row(columns: &[Column], cells: &[u8]) -> String {
    let mut reader = Reader::new(cells);
    let values = columns.iter().map(|column| {
        let shown = match reader.cell() {
            Ok(Cell::Value(bytes)) => value(&column.ty, bytes),
            Ok(Cell::Null) => "null".to_owned(),
            Ok(Cell::Unset) => "unset".to_owned(),
            Ok(Cell::SourceKey) => "(the record's key)".to_owned(),
            Ok(Cell::SourceValue) => "(the record's value)".to_owned(),
            Ok(Cell::SourceTimestamp) => "(the record's time)".to_owned(),
            Ok(Cell::SourceHeaders) => "(the record's headers)".to_owned(),
            Err(_) => "(damaged)".to_owned(),
        };
        format!("{}={shown}", column.name)
    });
    values.collect::<Vec<_>>().join(" ")
}

fn value(ty: &Type, bytes: &[u8]) -> String {
    let number = || match ty {
        Type::Boolean => Some((*bytes.first()? != 0).to_string()),
        Type::Int16 => Some(i16::from_be_bytes(bytes.try_into().ok()?).to_string()),
        Type::Int32 | Type::Date => Some(i32::from_be_bytes(bytes.try_into().ok()?).to_string()),
        Type::Int64 | Type::Time => Some(i64::from_be_bytes(bytes.try_into().ok()?).to_string()),
        Type::Float32 => Some(f32::from_be_bytes(bytes.try_into().ok()?).to_string()),
        Type::Float64 => Some(f64::from_be_bytes(bytes.try_into().ok()?).to_string()),
        Type::Timestamp => {
            let micros = i64::from_be_bytes(bytes.try_into().ok()?);
            Some(jiff::Timestamp::from_microsecond(micros).ok()?.to_string())
        }
        Type::Uuid => Some(uuid::Uuid::from_slice(bytes).ok()?.to_string()),
        Type::Text | Type::Json => Some(format!("{:?}", std::str::from_utf8(bytes).ok()?)),
        _ => None,
    };
    short(number().unwrap_or_else(|| hex(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}"));
    format!("0x{}", digits.collect::<String>())
}

fn short(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{put, put_null};
    use super::*;

    #[test]
    fn a_row_reads_as_names_and_values() {
        let column = |name: &str, ty| Column {
            name: name.to_owned(),
            ty,
            nullable: true,
        };
        let columns = [
            column("id", Type::Int64),
            column("name", Type::Text),
            column("at", Type::Timestamp),
            column("raw", Type::Bytes),
            column("none", Type::Int16),
            column("long", Type::Text),
            column("odd", Type::Int32),
        ];
        let mut cells = Vec::new();
        put(&mut cells, &7_i64.to_be_bytes());
        put(&mut cells, "añ\"o".as_bytes());
        put(&mut cells, &0_i64.to_be_bytes());
        put(&mut cells, &[1, 255]);
        put_null(&mut cells);
        put(&mut cells, "é".repeat(100).as_bytes());
        put(&mut cells, &[1, 2]);
        let shown = row(&columns, &cells);
        let start = "id=7 name=\"añ\\\"o\" at=1970-01-01T00:00:00Z raw=0x01ff none=null long=\"é";
        assert!(shown.starts_with(start), "{shown}");
        assert!(shown.ends_with("… odd=0x0102"), "{shown}");
        assert!(row(&columns, &cells[..9]).ends_with("odd=(damaged)"));
    }
}
