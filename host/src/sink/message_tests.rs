//! Rows as messages: what each format writes, and that a size bound holds.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::manifest::Create;
use crate::record::cells;

fn columns(all: &[(&str, &str)]) -> Vec<Column> {
    all.iter()
        .map(|(name, ty)| Column {
            name: (*name).to_owned(),
            ty: ty.parse().unwrap(),
            nullable: true,
        })
        .collect()
}

fn topic(key: &[usize], key_format: KeyFormat, value: ValueFormat) -> KafkaTopic {
    KafkaTopic {
        topic: "alerts".to_owned(),
        key: key.to_vec(),
        key_format,
        value,
        headers: Vec::new(),
        create: Create::Never,
        partitions: None,
        replication: None,
    }
}

fn encoded(format: &MessageFormat, op: Op, row: &[u8]) -> Message {
    let mut message = Message::default();
    // A used one has to be as good as a new one.
    message.bytes.extend_from_slice(b"left over");
    format.encode(op, row, &mut message);
    message
}

fn text(bytes: Option<&[u8]>) -> Option<&str> {
    bytes.map(|bytes| std::str::from_utf8(bytes).unwrap())
}

fn alert() -> (Vec<Column>, Vec<u8>) {
    let columns = columns(&[
        ("id", "text"),
        ("mag", "float64"),
        ("at", "timestamp"),
        ("note", "text"),
        ("left", "int32"),
        ("raw", "bytes"),
    ]);
    let mut row = Vec::new();
    cells::put_text(&mut row, "a\"1");
    cells::put_float64(&mut row, 6.5);
    cells::put_int64(&mut row, 1_500_000);
    cells::put_null(&mut row);
    cells::put_unset(&mut row);
    cells::put(&mut row, &[0, 0xff]);
    (columns, row)
}

#[test]
fn a_json_value_is_an_object_by_column_without_what_is_unset() {
    let (columns, row) = alert();
    let format = MessageFormat::of(&columns, &topic(&[0], KeyFormat::Text, ValueFormat::Json));
    let message = encoded(&format, Op::Write, &row);
    assert_eq!(text(message.key()), Some("a\"1"));
    assert_eq!(
        text(message.value()),
        Some(r#"{"id":"a\"1","mag":6.5,"at":"1970-01-01T00:00:01.5Z","note":null,"raw":"AP8="}"#)
    );
    assert_eq!(message.headers().len(), 0);
}

#[test]
fn a_key_of_several_columns_is_an_object() {
    let (columns, row) = alert();
    let format = MessageFormat::of(
        &columns,
        &topic(&[1, 0], KeyFormat::Json, ValueFormat::Json),
    );
    let message = encoded(&format, Op::Write, &row);
    assert_eq!(text(message.key()), Some(r#"{"mag":6.5,"id":"a\"1"}"#));
}

#[test]
fn a_delete_is_a_tombstone_with_its_key() {
    let (columns, _) = alert();
    let format = MessageFormat::of(&columns, &topic(&[0], KeyFormat::Text, ValueFormat::Csv));
    let mut row = Vec::new();
    cells::put_text(&mut row, "gone");
    (1..columns.len()).for_each(|_| cells::put_unset(&mut row));
    let message = encoded(&format, Op::Delete, &row);
    assert_eq!(text(message.key()), Some("gone"));
    assert_eq!(message.value(), None);
}

#[test]
fn a_csv_value_is_quoted_where_rfc_4180_says_so() {
    let columns = columns(&[("a", "text"), ("b", "text"), ("c", "text"), ("d", "int64")]);
    let format = MessageFormat::of(&columns, &topic(&[], KeyFormat::Text, ValueFormat::Csv));
    let row = |texts: [Option<&str>; 3]| {
        let mut row = Vec::new();
        for text in texts {
            match text {
                Some(text) => cells::put_text(&mut row, text),
                None => cells::put_null(&mut row),
            }
        }
        cells::put_int64(&mut row, -7);
        row
    };
    for (texts, expected) in [
        ([Some("plain"), None, Some("")], "plain,,\"\",-7"),
        (
            [Some("a,b"), Some("say \"hi\""), Some("two\r\nlines")],
            "\"a,b\",\"say \"\"hi\"\"\",\"two\r\nlines\",-7",
        ),
        (
            [Some("\""), Some("\"\""), Some(" ")],
            "\"\"\"\",\"\"\"\"\"\", ,-7",
        ),
    ] {
        let message = encoded(&format, Op::Write, &row(texts));
        assert_eq!(text(message.value()), Some(expected));
        assert_eq!(message.key(), None);
    }
}

#[test]
fn bytes_of_one_column_are_the_value_and_a_bytes_key_is_raw() {
    let (columns, row) = alert();
    let format = MessageFormat::of(
        &columns,
        &topic(&[5], KeyFormat::Bytes, ValueFormat::Bytes(0)),
    );
    let message = encoded(&format, Op::Write, &row);
    assert_eq!(message.key(), Some(&[0, 0xff][..]));
    assert_eq!(message.value(), Some(&b"a\"1"[..]));
    assert_eq!(format.payload(), Some(0));
}

#[test]
fn headers_come_from_columns_and_from_the_record() {
    let mut columns = alert().0;
    columns.extend(self::columns(&[("trace", "headers")]));
    let mut row = alert().1;
    let mut pairs = 2_i32.to_be_bytes().to_vec();
    cells::put(&mut pairs, b"trace-id");
    cells::put(&mut pairs, &[1, 2]);
    cells::put(&mut pairs, b"none");
    cells::put_null(&mut pairs);
    cells::put(&mut row, &pairs);
    let mut topic = topic(&[0], KeyFormat::Text, ValueFormat::Json);
    topic.headers = vec![
        ("id".to_owned(), 0),
        ("mag".to_owned(), 1),
        ("note".to_owned(), 3),
        ("left".to_owned(), 4),
        ("raw".to_owned(), 5),
    ];
    let format = MessageFormat::of(&columns, &topic);
    let message = encoded(&format, Op::Write, &row);
    let headers: Vec<_> = message.headers().collect();
    assert_eq!(
        headers,
        [
            ("id", Some(&b"a\"1"[..])),
            ("mag", Some(b"6.5")),
            ("note", None),
            ("raw", Some(&[0, 0xff])),
            ("trace-id", Some(&[1, 2])),
            ("none", None),
        ]
    );
    assert!(!text(message.value()).unwrap().contains("trace"));
}

#[test]
fn a_row_past_the_limit_is_found_however_it_grows() {
    let columns = columns(&[("id", "text"), ("note", "text")]);
    let format = MessageFormat::of(&columns, &topic(&[0], KeyFormat::Text, ValueFormat::Json));
    let fits = |note: &str| {
        let mut row = Vec::new();
        cells::put_text(&mut row, "k");
        cells::put_text(&mut row, note);
        format.fits(Op::Write, &row)
    };
    let frame = r#"k{"id":"k","note":""}"#.len();
    let room = MAX_MESSAGE - HOST_HEADERS - frame;
    assert!(fits(&"x".repeat(room)));
    assert!(!fits(&"x".repeat(room + 1)));
    assert!(fits(&"\u{1}".repeat(room / 6)));
    assert!(!fits(&"\u{1}".repeat(room / 6 + 1)));
}

proptest! {
    #[test]
    fn the_quick_bound_never_lies(texts in prop::collection::vec(".*", 3), number: i64, float: f32, flag: bool) {
        let columns = columns(&[
            ("a", "text"), ("b", "text"), ("c", "text"), ("n", "int64"), ("f", "float32"), ("x", "boolean"), ("d", "decimal(38,38)"),
        ]);
        let mut row = Vec::new();
        texts.iter().for_each(|text| cells::put_text(&mut row, text));
        cells::put_int64(&mut row, number);
        cells::put_float32(&mut row, float);
        cells::put_boolean(&mut row, flag);
        cells::put_decimal(&mut row, 7, 38);
        for value in [ValueFormat::Json, ValueFormat::Csv] {
            let mut topic = topic(&[0, 6], KeyFormat::Json, value);
            topic.headers = vec![("h".to_owned(), 1)];
            let format = MessageFormat::of(&columns, &topic);
            let message = encoded(&format, Op::Write, &row);
            prop_assert!(message.size() <= row.len() * GROWTH * 3 + format.around);
        }
    }

    #[test]
    fn a_csv_row_reads_back(texts in prop::collection::vec("[a,\"\r\n]{0,6}", 1..4)) {
        let columns: Vec<_> = texts.iter().map(|_| ("c", "text")).collect();
        let format = MessageFormat::of(&self::columns(&columns), &topic(&[], KeyFormat::Text, ValueFormat::Csv));
        let mut row = Vec::new();
        texts.iter().for_each(|text| cells::put_text(&mut row, text));
        let message = encoded(&format, Op::Write, &row);
        prop_assert_eq!(fields(text(message.value()).unwrap()), texts);
    }
}

/// A reader of one row of RFC 4180.
fn fields(row: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = row.chars().peekable();
    while let Some(next) = chars.next() {
        let field = fields.last_mut().unwrap();
        match next {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    assert!(!quoted);
    fields
}
