//! An input's declaration to a [`Decoder`]; every field that cannot be read as declared is refused here.

use super::scalar::is_scalar;
use super::{Buffers, Decoder, Field, Place, Raw, fail::Part, json, text};
use crate::error::{Error, Result};
use crate::manifest::{self, FieldSource, Format, Input, KeyFormat};
use crate::record::Type;

pub(super) fn compile(input: &Input) -> Result<Decoder> {
    let refuse = |field: &manifest::Field, detail: String| {
        Error::config(
            format!("field {:?} of input {:?}", field.column.name, input.name),
            detail,
        )
    };
    let lines = match &input.format {
        Format::Text(format) => Some(text::Lines::compile(format).map_err(|detail| {
            Error::config(format!("format of input {:?}", input.name), detail)
        })?),
        _ => None,
    };
    let mut fields = Vec::with_capacity(input.fields.len());
    for field in &input.fields {
        let place = place(input, lines.as_ref(), field)
            .and_then(|place| fits(field, &place).map(|()| place))
            .map_err(|detail| refuse(field, detail))?;
        fields.push(Field {
            name: field.column.name.clone(),
            from: describe(&field.from),
            ty: field.column.ty.clone(),
            nullable: field.column.nullable,
            unit: field.unit,
            place,
        });
    }
    let plan = |part: Part| -> Result<Option<json::Plan>> {
        let mut paths = Vec::new();
        for (index, field) in input.fields.iter().enumerate() {
            if fields[index].place != Place::Json {
                continue;
            }
            match (part, &field.from) {
                (Part::Key, FieldSource::Key) => paths.push((index, "")),
                (Part::Key, FieldSource::KeyPath(path))
                | (Part::Value, FieldSource::Value(path)) => {
                    paths.push((index, path.as_str()));
                }
                _ => {}
            }
        }
        if paths.is_empty() {
            return Ok(None);
        }
        let plan = json::Plan::compile(part, &paths).map_err(|detail| {
            Error::config(format!("fields of input {:?}", input.name), detail).hint(
                "write paths as JSON pointers: /a/b, with ~1 for a slash and ~0 for a ~ in a key",
            )
        })?;
        Ok(Some(plan))
    };
    let (key, value) = (plan(Part::Key)?, plan(Part::Value)?);
    Ok(Decoder {
        walks: key.is_some() || value.is_some(),
        key,
        value,
        fields,
        lines,
        tombstones: input.tombstones,
        scratch: Buffers::default(),
    })
}

fn place(
    input: &Input,
    lines: Option<&text::Lines>,
    field: &manifest::Field,
) -> Result<Place, String> {
    Ok(match &field.from {
        FieldSource::Value(path) => match (&input.format, path.as_str()) {
            (Format::Json, _) => Place::Json,
            (Format::Text(_), "") => Place::Line,
            (Format::Text(_), path) => {
                let name = path.strip_prefix('/').unwrap_or(path);
                let number = lines.and_then(|lines| lines.capture(name));
                Place::Capture(
                    number.ok_or_else(|| format!("the pattern has no capture named {name:?}"))?,
                )
            }
            (Format::Bytes, "") => Place::Value,
            (Format::Bytes, path) => {
                return Err(format!("path {path:?} into a value of format \"bytes\""));
            }
        },
        FieldSource::Key => match input.key_format {
            KeyFormat::Json => Place::Json,
            KeyFormat::Text => Place::Key(Raw::Text),
            KeyFormat::Bytes => Place::Key(Raw::Bytes),
        },
        FieldSource::KeyPath(path) => match input.key_format {
            KeyFormat::Json => Place::Json,
            KeyFormat::Text | KeyFormat::Bytes => {
                return Err(format!(
                    "path {path:?} into a key that is not of format \"json\""
                ));
            }
        },
        FieldSource::Header(name) => Place::Header(name.clone()),
        FieldSource::Topic => Place::Topic,
        FieldSource::Partition => Place::Partition,
        FieldSource::Offset => Place::Offset,
        FieldSource::Timestamp => Place::Timestamp,
    })
}

/// Whether the place can give the field's type.
fn fits(field: &manifest::Field, place: &Place) -> Result<(), String> {
    let ty = &field.column.ty;
    let timed = |ty: &Type| matches!(ty, Type::Timestamp | Type::Date | Type::Time);
    let possible = match place {
        Place::Json => *ty != Type::Headers,
        Place::Key(Raw::Text) | Place::Line | Place::Capture(_) | Place::Header(_) => is_scalar(ty),
        Place::Key(Raw::Bytes) | Place::Value => {
            matches!(
                ty,
                Type::Bytes
                    | Type::Text
                    | Type::Uuid
                    | Type::Int16
                    | Type::Int32
                    | Type::Int64
                    | Type::Float32
                    | Type::Float64
            )
        }
        Place::Topic => *ty == Type::Text,
        Place::Partition => *ty == Type::Int32,
        Place::Offset => *ty == Type::Int64,
        Place::Timestamp => *ty == Type::Timestamp,
    };
    if !possible {
        return Err(format!(
            "type {ty} cannot come from {}",
            describe(&field.from)
        ));
    }
    if let Some(key) = nested_key(ty) {
        return Err(format!(
            "keys of type {key} cannot come from the names of a JSON object"
        ));
    }
    let element = match ty {
        Type::List(item) | Type::Set(item) => item,
        Type::Map(_, value) => value,
        ty => ty,
    };
    let read = !matches!(
        place,
        Place::Key(Raw::Bytes) | Place::Value | Place::Timestamp
    );
    if field.unit.is_some() && !(timed(element) && read) {
        return Err(format!(
            "a unit with type {ty} from {}",
            describe(&field.from)
        ));
    }
    Ok(())
}

/// The first map key inside a type that no text can give.
fn nested_key(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Map(key, _) if !is_scalar(key) => Some(key),
        Type::Map(_, inner) | Type::List(inner) | Type::Set(inner) => nested_key(inner),
        _ => None,
    }
}

fn describe(from: &FieldSource) -> String {
    match from {
        FieldSource::Value(path) if path.is_empty() => "value".to_owned(),
        FieldSource::Value(path) => format!("value:{path}"),
        FieldSource::Key => "key".to_owned(),
        FieldSource::KeyPath(path) => format!("key:{path}"),
        FieldSource::Header(name) => format!("header:{name}"),
        FieldSource::Topic => "topic".to_owned(),
        FieldSource::Partition => "partition".to_owned(),
        FieldSource::Offset => "offset".to_owned(),
        FieldSource::Timestamp => "timestamp".to_owned(),
    }
}
