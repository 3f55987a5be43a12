//! The harness' decoder: a record written as JSON to the cells of its declared fields, by the host's rules
//! (strict types, nothing rounded, absent apart from null). Slow and small; the host has its own.

use serde_json::{Map, Value};

use crate::cell::{NULL, UNSET, length, put_bytes, put_code, put_nested};
use crate::civil::{self, Civil, DAY};
use crate::spec::{ConfigSpec, FieldSpec, InputSpec};
use crate::test::Dead;

/// Where a record comes from and what it carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Origin {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    /// Milliseconds, −1 for none.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    /// `None` for a tombstone; a string is a value of plain text.
    pub(crate) value: Option<Value>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Origin {
    /// The value's bytes on the wire.
    pub(crate) fn value_bytes(&self) -> Option<Vec<u8>> {
        Some(match self.value.as_ref()? {
            Value::String(text) => text.clone().into_bytes(),
            value => value.to_string().into_bytes(),
        })
    }
}

/// What stands at a field's place.
enum Found {
    Nothing,
    Null,
    Json(Value),
    Bytes(Vec<u8>),
}

/// The cells of an input's fields.
pub(crate) fn fields(input: &InputSpec, origin: &Origin) -> Result<Vec<u8>, Dead> {
    let mut out = Vec::new();
    for field in input.fields {
        let (name, ty) = (field.column.name, field.column.type_name());
        let (absent, cell) = match find(field, origin)? {
            Found::Nothing => (UNSET, None),
            Found::Null => (NULL, None),
            Found::Json(value) => (0, encode(&ty, field.unit, &value)),
            Found::Bytes(bytes) => (0, scalar(&ty, field.unit, bytes)),
        };
        match cell {
            Some(cell) => put_bytes(&mut out, &cell),
            // A tombstone's value fields are null whatever they say: the plugin is asked first.
            None if absent < 0 && (field.column.nullable || origin.value.is_none()) => {
                put_code(&mut out, absent)
            }
            None if absent < 0 => {
                return dead(
                    "field-missing",
                    format!("field {name:?} ({}) has no value", field.from),
                );
            }
            None => {
                return dead(
                    "field-type",
                    format!("field {name:?} ({}) is no {ty}", field.from),
                );
            }
        }
    }
    Ok(out)
}

fn dead<T>(code: &str, reason: String) -> Result<T, Dead> {
    Err(Dead {
        code: code.to_owned(),
        reason,
    })
}

fn find(field: &FieldSpec, origin: &Origin) -> Result<Found, Dead> {
    let bytes =
        |bytes: Option<&Vec<u8>>| bytes.map_or(Found::Null, |bytes| Found::Bytes(bytes.clone()));
    let at = |value: &Value, pointer: &str| match value.pointer(pointer) {
        None => Found::Nothing,
        Some(Value::Null) => Found::Null,
        Some(value) => Found::Json(value.clone()),
    };
    Ok(match field.from {
        "key" => bytes(origin.key.as_ref()),
        "value" => origin.value_bytes().map_or(Found::Null, Found::Bytes),
        "topic" => Found::Json(Value::from(origin.topic.clone())),
        "partition" => Found::Json(Value::from(origin.partition)),
        "offset" => Found::Json(Value::from(origin.offset)),
        "timestamp" if origin.timestamp < 0 => Found::Null,
        "timestamp" => Found::Json(Value::from(
            crate::Timestamp::from_millis(origin.timestamp).to_string(),
        )),
        from => match from.split_once(':') {
            Some(("header", name)) => {
                let last = origin.headers.iter().rev().find(|(known, _)| known == name);
                last.map_or(Found::Nothing, |(_, value)| bytes(value.as_ref()))
            }
            Some(("key", pointer)) => match &origin.key {
                None => Found::Null,
                Some(key) => match serde_json::from_slice::<Value>(key) {
                    Ok(key) => at(&key, pointer),
                    Err(error) => return dead("malformed", format!("the key is no JSON: {error}")),
                },
            },
            Some((_, pointer)) => match &origin.value {
                None => Found::Null,
                Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
                    Ok(value) => at(&value, pointer),
                    Err(error) => {
                        return dead("malformed", format!("the value is no JSON: {error}"));
                    }
                },
                Some(value) => at(value, pointer),
            },
            None => Found::Nothing,
        },
    })
}

/// A value from the bytes of a key, a header or a whole value.
fn scalar(ty: &str, unit: Option<&str>, bytes: Vec<u8>) -> Option<Vec<u8>> {
    if ty == "bytes" {
        return Some(bytes);
    }
    let text = String::from_utf8(bytes).ok()?;
    if ty == "text" {
        return Some(text.into_bytes());
    }
    let value = match serde_json::from_str::<Value>(&text) {
        Ok(value) if ty == "json" || !value.is_string() => value,
        _ => Value::from(text),
    };
    encode(ty, unit, &value)
}

/// The bytes of a value of a type.
pub(crate) fn encode(ty: &str, unit: Option<&str>, value: &Value) -> Option<Vec<u8>> {
    if let (Some(unit), "timestamp" | "date" | "time") = (unit, ty) {
        return epoch(ty, unit, value);
    }
    Some(match ty {
        "boolean" => vec![u8::from(value.as_bool()?)],
        "int16" => i16::try_from(whole(value)?).ok()?.to_be_bytes().to_vec(),
        "int32" => i32::try_from(whole(value)?).ok()?.to_be_bytes().to_vec(),
        "int64" => whole(value)?.to_be_bytes().to_vec(),
        "float32" => value
            .to_string()
            .parse::<f32>()
            .ok()
            .filter(|value| value.is_finite())?
            .to_be_bytes()
            .to_vec(),
        "float64" => value.as_f64()?.to_be_bytes().to_vec(),
        "text" => value.as_str()?.as_bytes().to_vec(),
        "json" => value.to_string().into_bytes(),
        "bytes" => base64(value.as_str()?)?,
        "uuid" => uuid(value.as_str()?)?,
        "timestamp" => timestamp(value.as_str()?)?.to_be_bytes().to_vec(),
        "date" => date(value.as_str()?)?.to_be_bytes().to_vec(),
        "time" => time(value.as_str()?)?.to_be_bytes().to_vec(),
        _ => return nested(ty, value),
    })
}

fn nested(ty: &str, value: &Value) -> Option<Vec<u8>> {
    let inside = |word: &str| ty.strip_prefix(word)?.strip_suffix('>');
    let mut out = Vec::new();
    if let Some(args) = ty.strip_prefix("decimal(") {
        return decimal(args.strip_suffix(')')?, value);
    } else if let Some(item) = inside("list<").or_else(|| inside("set<")) {
        let items = value.as_array()?;
        put_code(&mut out, length(items.len()));
        for value in items {
            put_item(item, value, &mut out)?;
        }
    } else {
        let (key, item) = split_map(inside("map<")?)?;
        let members = value.as_object()?;
        put_code(&mut out, length(members.len()));
        for (name, value) in members {
            put_bytes(&mut out, &scalar(key, None, name.clone().into_bytes())?);
            put_item(item, value, &mut out)?;
        }
    }
    Some(out)
}

/// `K,V` at the comma that no bracket holds.
pub(crate) fn split_map(args: &str) -> Option<(&str, &str)> {
    let mut depth = 0_i32;
    for (at, byte) in args.bytes().enumerate() {
        match byte {
            b'<' | b'(' => depth += 1,
            b'>' | b')' => depth -= 1,
            b',' if depth == 0 => return Some((&args[..at], &args[at + 1..])),
            _ => {}
        }
    }
    None
}

fn put_item(ty: &str, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    if value.is_null() {
        put_code(out, NULL);
    } else {
        put_bytes(out, &encode(ty, None, value)?);
    }
    Some(())
}

fn whole(value: &Value) -> Option<i64> {
    // 2^53: past it a float no longer says which integer it means.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_i64().or_else(|| {
        let float = value
            .as_f64()
            .filter(|float| float.fract() == 0.0 && float.abs() <= EXACT)?;
        float.to_string().parse().ok()
    })
}

fn epoch(ty: &str, unit: &str, value: &Value) -> Option<Vec<u8>> {
    let (times, over) = match unit {
        "s" => (1_000_000, 1),
        "ms" => (1000, 1),
        "us" => (1, 1),
        _ => (1, 1000),
    };
    let micros = match value.as_i64() {
        Some(number) => number.checked_mul(times)?.div_euclid(over),
        // Ten digits before the point and six after are exact enough for a test.
        None => (value.as_f64()? * 1e6)
            .floor()
            .to_string()
            .parse::<i64>()
            .ok()?
            .checked_mul(times)?
            .div_euclid(over * 1_000_000),
    };
    match ty {
        "date" => Some(
            i32::try_from(micros.div_euclid(DAY))
                .ok()?
                .to_be_bytes()
                .to_vec(),
        ),
        "time" if !(0..DAY).contains(&micros) => None,
        _ => Some(micros.to_be_bytes().to_vec()),
    }
}

fn decimal(args: &str, value: &Value) -> Option<Vec<u8>> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let (_, scale) = args.split_once(',')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let scale: usize = scale.parse().ok()?;
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > scale {
        return None;
    }
    let unscaled: i128 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
    let mut out = length(scale).to_be_bytes().to_vec();
    out.extend_from_slice(&unscaled.to_be_bytes());
    Some(out)
}

fn number<T: std::str::FromStr>(text: Option<&str>, digits: usize) -> Option<T> {
    text.filter(|text| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit()))?
        .parse()
        .ok()
}

/// `YYYY-MM-DD`.
fn date(text: &str) -> Option<i32> {
    let mut parts = text.splitn(3, '-');
    let year = number(parts.next(), 4)?;
    civil::days(Civil {
        year,
        month: number(parts.next(), 2)?,
        day: number(parts.next(), 2)?,
    })
}

/// `HH:MM:SS[.f]`.
fn time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micro = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let mut parts = clock.splitn(3, ':');
    civil::micros(
        number(parts.next(), 2)?,
        number(parts.next(), 2)?,
        number(parts.next(), 2)?,
        micro,
    )
}

/// RFC 3339.
fn timestamp(text: &str) -> Option<i64> {
    let (day, rest) = text.split_once(['T', 't', ' '])?;
    let (clock, minutes) = match rest.strip_suffix(['Z', 'z']) {
        Some(clock) => (clock, 0),
        None => {
            let (clock, zone) = rest.split_at_checked(rest.len().checked_sub(6)?)?;
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = number::<i64>(Some(hours), 2)? * 60 + number::<i64>(Some(minutes), 2)?;
            (
                clock,
                if zone.starts_with('-') {
                    -minutes
                } else {
                    minutes
                },
            )
        }
    };
    Some(i64::from(date(day)?) * DAY + time(clock)? - minutes * 60_000_000)
}

fn uuid(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    if digits.len() != 32 {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok())
        .collect()
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let six = crate::test_show::BASE64
            .iter()
            .position(|digit| *digit == byte)?;
        bits = bits << 6 | u32::try_from(six).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

/// A `headers` cell value.
pub(crate) fn headers(headers: &[(String, Option<Vec<u8>>)], out: &mut Vec<u8>) {
    put_code(out, length(headers.len()));
    for (name, value) in headers {
        put_bytes(out, name.as_bytes());
        match value {
            Some(value) => put_bytes(out, value),
            None => put_code(out, NULL),
        }
    }
}

/// The cells of `init`: names that are unknown, values that are missing or do not fit are refused.
pub(crate) fn setup(items: &[ConfigSpec], config: &Value) -> Result<Vec<u8>, String> {
    let empty = Map::new();
    let given = config.as_object().unwrap_or(&empty);
    if let Some(name) = given
        .keys()
        .find(|name| items.iter().all(|item| item.name != **name))
    {
        return Err(format!("the plugin has no configuration value {name:?}"));
    }
    let mut out = Vec::new();
    put_bytes(&mut out, b"test");
    put_bytes(&mut out, b"info");
    for item in items {
        let value = match (given.get(item.name), item.default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => {
                serde_json::from_str(default).map_err(|error| error.to_string())?
            }
            (None, None) => return Err(format!("configuration value {:?} is not set", item.name)),
        };
        let cell = encode(item.ty, None, &value);
        let cell = cell.ok_or_else(|| {
            format!(
                "configuration value {:?} is not of type {}",
                item.name, item.ty
            )
        })?;
        put_nested(&mut out, |out| out.extend_from_slice(&cell));
    }
    Ok(out)
}

/// The place of a JSON pointer, made where it is not there yet; numbers index arrays.
pub(crate) fn place<'v>(root: &'v mut Value, pointer: &str) -> &'v mut Value {
    let mut here = root;
    for name in pointer.split('/').skip(1) {
        let name = name.replace("~1", "/").replace("~0", "~");
        here = match name.parse::<usize>() {
            Ok(index) if !here.is_object() => {
                if !here.is_array() {
                    *here = Value::Array(Vec::new());
                }
                let items = here.as_array_mut().expect("made an array above");
                if items.len() <= index {
                    items.resize(index + 1, Value::Null);
                }
                &mut items[index]
            }
            _ => {
                if !here.is_object() {
                    *here = Value::Object(Map::new());
                }
                // A place still to be filled is null, so that an array can take it.
                here.as_object_mut()
                    .expect("made an object above")
                    .entry(name)
                    .or_insert(Value::Null)
            }
        };
    }
    here
}
