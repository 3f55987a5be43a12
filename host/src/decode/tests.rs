//! Tests of decoding, through [`Decoder`] as the lane uses it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::manifest::{Field as Declared, FieldSource, Format, KeyFormat, Start, TextFormat};
use crate::record::Column;
use crate::record::cells::{Cell, Reader, get_int64, get_text, put_count, put_text};
use crate::route::code;

/// A field from `name`, `type` (with `?` when nullable) and `source` (with `@unit`).
pub(super) fn field(name: &str, ty: &str, from: &str) -> Declared {
    let (from, unit) = match from.split_once('@') {
        Some((from, "s")) => (from, Some(Unit::Seconds)),
        Some((from, _)) => (from, Some(Unit::Millis)),
        None => (from, None),
    };
    let from = match from.split_once(':') {
        Some(("value", path)) => FieldSource::Value(path.to_owned()),
        Some(("key", path)) => FieldSource::KeyPath(path.to_owned()),
        Some((_, name)) => FieldSource::Header(name.to_owned()),
        None => match from {
            "value" => FieldSource::Value(String::new()),
            "key" => FieldSource::Key,
            "topic" => FieldSource::Topic,
            "partition" => FieldSource::Partition,
            "offset" => FieldSource::Offset,
            _ => FieldSource::Timestamp,
        },
    };
    Declared {
        column: Column {
            name: name.to_owned(),
            ty: ty.trim_end_matches('?').parse().unwrap(),
            nullable: ty.ends_with('?'),
        },
        from,
        unit,
    }
}

pub(super) fn input(format: Format, key_format: KeyFormat, fields: Vec<Declared>) -> Input {
    Input {
        name: "in".to_owned(),
        topic: "t".to_owned(),
        format,
        key_format,
        start: Start::Earliest,
        tombstones: Tombstones::Pass,
        fields,
        raw: false,
        headers: false,
    }
}

fn json(fields: Vec<Declared>) -> Decoder {
    Decoder::new(&input(Format::Json, KeyFormat::Text, fields)).unwrap()
}

fn text(pattern: Option<&str>, encoding: &str, fields: Vec<Declared>) -> Decoder {
    let format = Format::Text(TextFormat {
        pattern: pattern.map(str::to_owned),
        encoding: encoding.to_owned(),
    });
    Decoder::new(&input(format, KeyFormat::Text, fields)).unwrap()
}

/// Key and value.
type Pair<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

fn batch(records: &[Pair<'_>]) -> Batch {
    let mut headers = Vec::new();
    put_count(&mut headers, 3);
    for value in ["first", "7"] {
        put_text(&mut headers, "n");
        put_text(&mut headers, value);
    }
    put_text(&mut headers, "none");
    put_null(&mut headers);
    let mut batch = Batch::new(4, 100);
    for (index, (key, value)) in records.iter().enumerate() {
        batch.push(Record {
            key: *key,
            value: *value,
            timestamp: if index == 0 { 1500 } else { -1 },
            offset: 100 + index as i64,
            headers: &headers,
            marks: 0,
        });
    }
    batch
}

/// Decodes one value: its cells, or code and reason.
pub(super) fn one(decoder: &mut Decoder, value: &[u8]) -> Result<Vec<u8>, (String, String)> {
    let batch = batch(&[(Some(b"k"), Some(value))]);
    let (mut fields, mut dead) = (Fields::default(), Vec::new());
    decoder.decode(&batch, "topic", &mut fields, &mut dead);
    match dead.pop() {
        Some(dead) => {
            assert!(fields.is_empty() && fields.cells.is_empty());
            Err((dead.code.into_owned(), dead.reason))
        }
        None => Ok(fields.cells),
    }
}

fn cells(bytes: &[u8]) -> Vec<Cell<'_>> {
    let mut reader = Reader::new(bytes);
    let mut cells = Vec::new();
    while !reader.is_empty() {
        cells.push(reader.cell().unwrap());
    }
    cells
}

/// The one cell of a field `ty` read from a JSON value.
fn cell(ty: &str, from: &str, value: &str) -> Result<Vec<u8>, (String, String)> {
    one(&mut json(vec![field("f", ty, from)]), value.as_bytes()).map(|cell| cell[4..].to_vec())
}

#[test]
fn fields_come_out_in_their_order_whatever_the_record_says() {
    let mut decoder = json(vec![
        field("key", "text", "key"),
        field("a", "int32", "value:/a"),
        field("offset", "int64", "offset"),
        field("deep", "text?", "value:/o/p~1q/0"),
        field("b", "float64?", "value:/b"),
    ]);
    for value in [
        r#"{"a":1,"x":[{}],"o":{"p/q":["z","y"]},"b":2}"#,
        r#" {"b":2.0,"o":{"r":1,"p\/q":["z"]},"\u0061":1} "#,
    ] {
        let bytes = one(&mut decoder, value.as_bytes()).unwrap();
        assert_eq!(
            cells(&bytes),
            [
                Cell::Value(b"k"),
                Cell::Value(&1_i32.to_be_bytes()),
                Cell::Value(&100_i64.to_be_bytes()),
                Cell::Value(b"z"),
                Cell::Value(&2_f64.to_be_bytes()),
            ],
            "{value}"
        );
    }
    let bytes = one(&mut decoder, br#"{"b":null,"o":7,"a":-1}"#).unwrap();
    assert_eq!(cells(&bytes)[3..], [Cell::Unset, Cell::Null]);
}

#[test]
fn a_record_lives_or_dies_alone() {
    let mut decoder = json(vec![field("a", "int32", "value:/a")]);
    let batch = batch(&[
        (None, Some(br#"{"a":1}"#)),
        (None, Some(br#"{"a":"#)),
        (None, Some(br#"{"a":"1"}"#)),
        (None, Some(br#"{"b":1}"#)),
        (None, None),
        (None, Some(br#"{"a":null}"#)),
        (None, Some(b"\xff")),
        (None, Some(br#"{"a":2}"#)),
    ]);
    let (mut fields, mut dead) = (Fields::default(), Vec::new());
    decoder.decode(&batch, "topic", &mut fields, &mut dead);
    assert_eq!(fields.kept, [0, 7]);
    assert_eq!(fields.ends, [8, 16]);
    let told: Vec<_> = dead
        .iter()
        .map(|dead| (dead.source, &*dead.code, dead.reason.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                1,
                code::MALFORMED,
                "the value is not JSON: no JSON value at byte 5"
            ),
            (
                2,
                code::FIELD_TYPE,
                "field \"a\" (value:/a) wants int32 and found string \"1\""
            ),
            (
                3,
                code::FIELD_MISSING,
                "field \"a\" (value:/a) is absent and not nullable"
            ),
            (
                4,
                code::FIELD_MISSING,
                "field \"a\" (value:/a) is null and not nullable"
            ),
            (
                5,
                code::FIELD_MISSING,
                "field \"a\" (value:/a) is null and not nullable"
            ),
            (6, code::MALFORMED, "the value is not UTF-8 after byte 0"),
        ]
    );
}

#[test]
fn tombstones_pass_or_not() {
    let mut declared = input(
        Format::Json,
        KeyFormat::Text,
        vec![field("a", "int32?", "value:/a")],
    );
    let batch = batch(&[(Some(b"k"), None)]);
    for (policy, kept) in [(Tombstones::Pass, 1), (Tombstones::DeadLetter, 0)] {
        declared.tombstones = policy;
        let (mut fields, mut dead) = (Fields::default(), Vec::new());
        Decoder::new(&declared)
            .unwrap()
            .decode(&batch, "topic", &mut fields, &mut dead);
        assert_eq!((fields.len(), dead.len()), (kept, 1 - kept));
        if kept == 1 {
            assert_eq!(cells(&fields.cells), [Cell::Null]);
        } else {
            assert_eq!(dead[0].code, code::TOMBSTONE);
        }
    }
}

#[test]
fn json_values_are_read_strictly_by_type() {
    let long = |value: i64| value.to_be_bytes().to_vec();
    assert_eq!(cell("int64", "value:/a", r#"{"a":1e3}"#), Ok(long(1000)));
    assert_eq!(
        cell("int64", "value:/a", r#"{"a":-9223372036854775808}"#),
        Ok(long(i64::MIN))
    );
    assert_eq!(cell("int16", "value:/a", r#"{"a":-0}"#), Ok(vec![0, 0]));
    assert_eq!(
        cell("float32", "value:/a", r#"{"a":3}"#),
        Ok(3_f32.to_be_bytes().to_vec())
    );
    assert_eq!(
        cell("text", "value:/a", r#"{"a":"\u00e9\n"}"#),
        Ok("é\n".into())
    );
    assert_eq!(
        cell("json", "value:/a", r#"{"a": {"b" : [1, 2]} }"#),
        Ok(br#"{"b" : [1, 2]}"#.to_vec())
    );
    assert_eq!(cell("json", "value", "[1]"), Ok(b"[1]".to_vec()));
    assert_eq!(
        cell("bytes", "value:/a", r#"{"a":"Zm9v"}"#),
        Ok(b"foo".to_vec())
    );
    assert_eq!(
        cell("timestamp", "value:/a", r#"{"a":"1970-01-01T00:00:01Z"}"#),
        Ok(long(1_000_000))
    );
    assert_eq!(
        cell("timestamp", "value:/a@ms", r#"{"a":1.0625}"#),
        Ok(long(1062))
    );
    assert_eq!(
        cell("decimal(20,2)", "value:/a", r#"{"a":"0.10"}"#),
        Ok(vec![0, 0, 0, 2, 10])
    );
    assert_eq!(
        cell("decimal(20,2)", "value:/a", r#"{"a":0.1}"#),
        Ok(vec![0, 0, 0, 2, 10])
    );
    assert_eq!(
        cell("boolean", "value:/a/1", r#"{"a":[0,true]}"#),
        Ok(vec![1])
    );
    assert_eq!(
        cell("text", "value:/a/01", r#"{"a":{"01":"x"}}"#),
        Ok(b"x".to_vec())
    );
    assert_eq!(cell("text", "value:/", r#"{"":"x"}"#), Ok(b"x".to_vec()));
    for (ty, from, value) in [
        ("int32", "value:/a", r#"{"a":1.5}"#),
        ("int32", "value:/a", r#"{"a":2147483648}"#),
        ("int64", "value:/a", r#"{"a":9223372036854775808}"#),
        ("int32", "value:/a", r#"{"a":"1"}"#),
        ("int32", "value:/a", r#"{"a":true}"#),
        ("boolean", "value:/a", r#"{"a":1}"#),
        ("boolean", "value:/a", r#"{"a":"true"}"#),
        ("text", "value:/a", r#"{"a":1}"#),
        ("text", "value:/a", r#"{"a":{"b":1}}"#),
        ("text", "value:/a", r#"{"a":"\ud800"}"#),
        ("float64", "value:/a", r#"{"a":1e999}"#),
        ("float64", "value:/a", r#"{"a":"1"}"#),
        ("timestamp", "value:/a", r#"{"a":1}"#),
        (
            "timestamp",
            "value:/a@ms",
            r#"{"a":"1970-01-01T00:00:01Z"}"#,
        ),
        ("timestamp", "value:/a@s", r#"{"a":1e18}"#),
        ("bytes", "value:/a", r#"{"a":"Zm9"}"#),
        ("decimal(3,2)", "value:/a", r#"{"a":10}"#),
        ("uuid", "value:/a", r#"{"a":"x"}"#),
    ] {
        let (found, reason) = cell(ty, from, value).unwrap_err();
        assert_eq!(found, code::FIELD_TYPE, "{ty} {value}: {reason}");
        assert!(
            reason.contains("\"f\"") && reason.contains("/a"),
            "{reason}"
        );
    }
}

#[test]
fn a_declared_key_that_stands_twice_is_refused() {
    for (ty, from, value) in [
        ("int32", "value:/a", r#"{"a":1,"a":2}"#),
        ("int32", "value:/a", r#"{"a":1,"\u0061":2}"#),
        ("int32?", "value:/a/b", r#"{"a":{"b":1},"a":{}}"#),
    ] {
        let (found, reason) = cell(ty, from, value).unwrap_err();
        assert_eq!(found, code::MALFORMED);
        assert_eq!(reason, "the value is ambiguous: \"/a\" stands twice");
    }
    assert!(cell("int32", "value:/a", r#"{"a":1,"b":1,"b":2}"#).is_ok());
}

#[test]
fn lists_sets_and_maps_nest() {
    let checked = |ty: &str, value: &str| {
        let bytes = cell(ty, "value", value)?;
        assert_eq!(check(&ty.parse().unwrap(), &bytes), Ok(()), "{ty} {value}");
        Ok::<_, (String, String)>(bytes)
    };
    assert_eq!(
        checked("list<int16>", "[1, null]").unwrap()[..4],
        2_i32.to_be_bytes()
    );
    assert_eq!(checked("list<text>", "[ ]").unwrap(), [0, 0, 0, 0]);
    assert!(checked("map<text,list<float64>>", r#"{"a":[1,2],"b":null}"#).is_ok());
    assert!(checked("map<int32,text>", r#"{"1":"a","2":"b"}"#).is_ok());
    assert!(checked("set<date>", r#"["2024-01-01","2024-01-02"]"#).is_ok());
    for (ty, value) in [
        ("list<int16>", "[1,\"2\"]"),
        ("list<int16>", "{}"),
        ("set<int16>", "[1,1]"),
        ("set<int16>", "[null]"),
        ("map<text,int16>", r#"{"a":1,"a":2}"#),
        ("map<int32,int16>", r#"{"x":1}"#),
        ("map<text,int16>", "[]"),
    ] {
        assert_eq!(
            checked(ty, value).unwrap_err().0,
            code::FIELD_TYPE,
            "{ty} {value}"
        );
    }
    assert_eq!(
        checked("list<int16>", "[1,").unwrap_err().0,
        code::MALFORMED
    );
}

#[test]
fn the_same_path_serves_several_fields() {
    let mut decoder = json(vec![
        field("all", "json", "value"),
        field("o", "json", "value:/o"),
        field("x", "int32", "value:/o/x"),
        field("again", "text?", "value:/t"),
        field("t", "text?", "value:/t"),
    ]);
    let value = r#"{"t":"v","o":{"x":5}}"#;
    let bytes = one(&mut decoder, value.as_bytes()).unwrap();
    let five = 5_i32.to_be_bytes();
    let expected: [&[u8]; 5] = [value.as_bytes(), br#"{"x":5}"#, &five, b"v", b"v"];
    assert_eq!(cells(&bytes), expected.map(Cell::Value));
}

#[test]
fn more_keys_than_are_searched_one_by_one() {
    let names: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    let declared = names
        .iter()
        .map(|name| field(name, "int32", &format!("value:/{name}")))
        .collect();
    let mut decoder = json(declared);
    let backwards: Vec<String> = (0..30)
        .rev()
        .map(|n| format!("\"k{n}\":{n},\"other{n}\":[]"))
        .collect();
    let bytes = one(
        &mut decoder,
        format!("{{{}}}", backwards.join(",")).as_bytes(),
    )
    .unwrap();
    for (n, cell) in cells(&bytes).into_iter().enumerate() {
        assert_eq!(cell, Cell::Value(&i32::try_from(n).unwrap().to_be_bytes()));
    }
}

#[test]
fn keys_headers_and_coordinates_are_fields() {
    let fields = vec![
        field("topic", "text", "topic"),
        field("partition", "int32", "partition"),
        field("offset", "int64", "offset"),
        field("time", "timestamp?", "timestamp"),
        field("n", "int32?", "header:n"),
        field("none", "text?", "header:none"),
        field("gone", "text?", "header:gone"),
        field("key", "int16?", "key"),
    ];
    let mut decoder = Decoder::new(&input(Format::Bytes, KeyFormat::Text, fields)).unwrap();
    let batch = batch(&[
        (Some(b"9"), Some(b"\xff")),
        (None, None),
        (Some(b"\xff"), None),
    ]);
    let (mut out, mut dead) = (Fields::default(), Vec::new());
    decoder.decode(&batch, "topic", &mut out, &mut dead);
    let (first, second) = out.cells.split_at(out.ends[0] as usize);
    let seven = 7_i32.to_be_bytes();
    assert_eq!(
        cells(first),
        [
            Cell::Value(b"topic"),
            Cell::Value(&4_i32.to_be_bytes()),
            Cell::Value(&100_i64.to_be_bytes()),
            Cell::Value(&1_500_000_i64.to_be_bytes()),
            Cell::Value(&seven),
            Cell::Null,
            Cell::Unset,
            Cell::Value(&[0, 9]),
        ]
    );
    assert_eq!(cells(second)[3], Cell::Unset, "no timestamp");
    assert_eq!(cells(second)[7], Cell::Null, "no key");
    assert_eq!(dead[0].reason, "the key is not UTF-8");
}

#[test]
fn keys_are_read_by_their_format() {
    let decode = |format, ty: &str, from: &str, key: &[u8]| {
        let declared = input(Format::Bytes, format, vec![field("f", ty, from)]);
        let batch = batch(&[(Some(key), Some(b""))]);
        let (mut out, mut dead) = (Fields::default(), Vec::new());
        Decoder::new(&declared)
            .unwrap()
            .decode(&batch, "t", &mut out, &mut dead);
        dead.pop().map_or(Ok(out.cells), |dead| Err(dead.code))
    };
    let long = 5_i64.to_be_bytes();
    assert_eq!(
        decode(KeyFormat::Bytes, "int64", "key", &long).map(|cell| get_int64(&cell[4..])),
        Ok(5)
    );
    assert_eq!(
        decode(KeyFormat::Bytes, "int64", "key", b"x"),
        Err(code::FIELD_TYPE.into())
    );
    assert_eq!(
        decode(KeyFormat::Json, "int64", "key:/id", br#"{"id":5}"#)
            .map(|cell| get_int64(&cell[4..])),
        Ok(5)
    );
    assert_eq!(
        decode(KeyFormat::Json, "text", "key", br#""a""#)
            .map(|cell| get_text(&cell[4..]).to_owned()),
        Ok("a".into())
    );
    assert_eq!(
        decode(KeyFormat::Json, "text", "key", b"a"),
        Err(code::MALFORMED.into())
    );
}

#[test]
fn lines_match_or_die() {
    let pattern = r"^(?P<level>\w+) (?P<code>\d+)( (?P<rest>.*))?$";
    let mut decoder = text(
        Some(pattern),
        "utf-8",
        vec![
            field("level", "text", "value:/level"),
            field("code", "int16", "value:/code"),
            field("rest", "text?", "value:/rest"),
            field("line", "text", "value"),
        ],
    );
    for ending in ["", "\n", "\r\n"] {
        let bytes = one(&mut decoder, format!("INFO 007{ending}").as_bytes()).unwrap();
        assert_eq!(
            cells(&bytes),
            [
                Cell::Value(b"INFO"),
                Cell::Value(&[0, 7]),
                Cell::Unset,
                Cell::Value(b"INFO 007")
            ]
        );
    }
    let (found, reason) = one(&mut decoder, b"no match here").unwrap_err();
    assert_eq!(found, code::MALFORMED);
    assert_eq!(
        reason,
        "the value is a line the pattern does not match: \"no match here\""
    );
    assert_eq!(
        one(&mut decoder, b"A 99999").unwrap_err().0,
        code::FIELD_TYPE
    );
    assert_eq!(one(&mut decoder, b"A \xff").unwrap_err().0, code::MALFORMED);
}

#[test]
fn lines_of_other_encodings_are_converted_and_never_replaced() {
    let mut latin = text(None, "latin1", vec![field("line", "text", "value")]);
    assert_eq!(
        cells(&one(&mut latin, b"caf\xe9\r\n").unwrap()),
        [Cell::Value("café".as_bytes())]
    );
    let mut japanese = text(None, "shift_jis", vec![field("line", "text", "value")]);
    assert_eq!(
        cells(&one(&mut japanese, b"\x83\x65").unwrap()),
        [Cell::Value("テ".as_bytes())]
    );
    let (found, reason) = one(&mut japanese, b"\x83").unwrap_err();
    assert_eq!(
        (found.as_str(), reason.as_str()),
        (code::MALFORMED, "the value is not valid Shift_JIS")
    );
    let mut wide = text(None, "utf-16le", vec![field("line", "text", "value")]);
    assert_eq!(
        cells(&one(&mut wide, b"a\0\n\0").unwrap()),
        [Cell::Value(b"a")]
    );
}

#[test]
fn fields_no_source_can_give_are_refused_at_once() {
    let refused = |format: Format, fields| {
        let error = Decoder::new(&input(format, KeyFormat::Text, fields)).unwrap_err();
        assert_eq!(error.blame(), crate::error::Blame::Config);
        error.to_string()
    };
    let lines = Format::Text(TextFormat {
        pattern: Some("(?P<a>.)".into()),
        encoding: "utf-8".into(),
    });
    assert_eq!(
        refused(lines.clone(), vec![field("f", "text", "value:/b")]),
        "field \"f\" of input \"in\": the pattern has no capture named \"b\""
    );
    for (format, ty, from) in [
        (lines, "list<text>", "value:/a"),
        (Format::Bytes, "text", "value:/a"),
        (Format::Bytes, "json", "value"),
        (Format::Json, "headers", "value:/a"),
        (Format::Json, "text", "value:a"),
        (Format::Json, "text", "value:/a~2"),
        (Format::Json, "text", "key:/a"),
        (Format::Json, "list<text>", "header:h"),
        (Format::Json, "int32", "offset"),
        (Format::Json, "int64", "timestamp"),
        (Format::Json, "text", "value:/a@ms"),
        (Format::Json, "timestamp", "timestamp@ms"),
        (Format::Json, "map<list<text>,text>", "value:/a"),
    ] {
        refused(format, vec![field("f", ty, from)]);
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map("[abc]|.{0,3}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn paths_find_what_serde_json_finds(value in any_json()) {
        // Once through text: serde_json does not read every float back exactly.
        let value: serde_json::Value = serde_json::from_str(&value.to_string()).unwrap();
        let paths = ["", "/a", "/b", "/a/b", "/c/0", "/c/1/a", "/0", "/1/c"];
        let fields = paths.iter().map(|path| field("f", "json?", &format!("value:{path}"))).collect();
        let bytes = one(&mut json(fields), value.to_string().as_bytes()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&value.to_string()).unwrap();
        for (path, cell) in paths.iter().zip(cells(&bytes)) {
            match (value.pointer(path), cell) {
                (None, Cell::Unset) | (Some(serde_json::Value::Null), Cell::Null) => {}
                (Some(found), Cell::Value(bytes)) => {
                    prop_assert_eq!(found, &serde_json::from_slice::<serde_json::Value>(bytes).unwrap());
                }
                other => prop_assert!(false, "{path}: {other:?}"),
            }
        }
    }

    #[test]
    fn any_bytes_give_checked_cells_or_one_dead_letter(
        value in any_json(), at: prop::sample::Index, byte: u8, mutate: bool,
        types in prop::collection::vec(prop::sample::select(vec![
            "boolean?", "int16?", "int64", "float32?", "float64", "text?", "json", "bytes?", "timestamp?",
            "decimal(9,2)?", "list<int64>?", "set<text>?", "map<text,json>?",
        ]), 1..6),
    ) {
        let paths = ["", "/a", "/b/0", "/a/b", "/c"];
        let fields: Vec<_> = types.iter().zip(paths)
            .map(|(ty, path)| field("f", ty, &format!("value:{path}"))).collect();
        let mut text = value.to_string().into_bytes();
        if mutate {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if let Ok(bytes) = one(&mut json(fields.clone()), &text) {
            let cells = cells(&bytes);
            prop_assert_eq!(cells.len(), fields.len());
            for (cell, field) in cells.iter().zip(&fields) {
                match cell {
                    Cell::Value(value) => prop_assert_eq!(check(&field.column.ty, value), Ok(())),
                    Cell::Null | Cell::Unset => prop_assert!(field.column.nullable),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_a_topic_gets_reads_back_as_the_same_cells(
        texts in prop::collection::vec(".*", 0..4), bytes: Vec<u8>, number: i64, float: f64, uuid: [u8; 16],
        micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000, days in -719_162..2_932_896_i32,
        time in 0..86_400_000_000_i64, unscaled in -999_999_999_i64..=999_999_999,
    ) {
        prop_assume!(float.is_finite());
        let mut list = Vec::new();
        put_count(&mut list, texts.len());
        texts.iter().for_each(|text| put_text(&mut list, text));
        let mut map = Vec::new();
        put_count(&mut map, 2);
        for (key, value) in [(number, &texts.concat()), (number.wrapping_add(1), &String::new())] {
            put(&mut map, &key.to_be_bytes());
            put_text(&mut map, value);
        }
        let mut decimal = Vec::new();
        crate::record::cells::put_decimal(&mut decimal, unscaled.into(), 4);
        for (ty, value) in [
            ("text", texts.concat().as_bytes()),
            ("bytes", &bytes),
            ("int64", &number.to_be_bytes()),
            ("float64", &float.to_be_bytes()),
            ("uuid", &uuid),
            ("timestamp", &micros.to_be_bytes()),
            ("date", &days.to_be_bytes()),
            ("time", &time.to_be_bytes()),
            ("decimal(9,4)", &decimal[4..]),
            ("list<text>", &list),
            ("map<int64,text>", &map),
        ] {
            let mut message = b"{\"v\":".to_vec();
            crate::record::cells::json::put_json(&mut message, &ty.parse().unwrap(), value);
            message.push(b'}');
            let back = one(&mut json(vec![field("v", ty, "value:/v")]), &message);
            let shown = String::from_utf8_lossy(&message).into_owned();
            let back = back.map(|cell| cell[4..].to_vec());
            if ty.starts_with("decimal") {
                // The same number, perhaps with fewer zeros at its end.
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                let ty = ty.parse().unwrap();
                crate::record::cells::json::put_json(&mut ours, &ty, value);
                crate::record::cells::json::put_json(&mut theirs, &ty, &back.unwrap());
                let number = |text: Vec<u8>| String::from_utf8(text).unwrap().parse::<f64>().unwrap();
                prop_assert_eq!(number(ours).to_bits(), number(theirs).to_bits(), "{}", shown);
            } else {
                prop_assert_eq!(back, Ok(value.to_vec()), "{} {}", ty, shown);
            }
        }
    }

    #[test]
    fn how_records_are_batched_changes_nothing(
        values in prop::collection::vec(any_json(), 1..12), cut: prop::sample::Index,
    ) {
        let mut decoder = json(vec![field("a", "json", "value:/a"), field("b", "json?", "value:/b")]);
        let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        let records: Vec<_> = texts.iter().map(|text| (None, Some(text.as_bytes()))).collect();
        let (mut whole, mut dead) = (Fields::default(), Vec::new());
        decoder.decode(&batch(&records), "t", &mut whole, &mut dead);
        let (mut parts, mut dead_parts) = (Fields::default(), Vec::new());
        let (left, right) = records.split_at(cut.index(records.len()));
        for part in [left, right] {
            decoder.decode(&batch(part), "t", &mut parts, &mut dead_parts);
        }
        prop_assert_eq!(whole.cells, parts.cells);
        prop_assert_eq!(whole.ends, parts.ends);
        prop_assert!(dead.iter().map(|dead| &dead.reason).eq(dead_parts.iter().map(|dead| &dead.reason)));
    }
}
