//! Any bytes as a JSON value: checked cells or one dead letter, and the scanner agrees with serde_json on
//! what is JSON (serde_json skips values without a depth limit).
//! `cargo +nightly fuzz run decode_json` in `host/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasmill::decode::Decoder;
use wasmill::manifest::{Field, FieldSource, Format, Input, KeyFormat, Start, Tombstones, Unit};
use wasmill::record::cells::{Cell, Reader, check};
use wasmill::record::{Batch, Column, Fields, Record, json};

const FIELDS: [(&str, &str, Option<Unit>); 10] = [
    ("/a", "int32", None),
    ("/b", "text", None),
    ("/c/0", "float64", None),
    ("/c/1", "decimal(20,4)", None),
    ("/d", "timestamp", Some(Unit::Millis)),
    ("/e", "bytes", None),
    ("/f", "map<text,list<int64>>", None),
    ("/g", "set<text>", None),
    ("/a/b", "json", None),
    ("", "json", None),
];

fuzz_target!(|data: &[u8]| {
    let fields = FIELDS.map(|(path, ty, unit)| Field {
        column: Column {
            name: path.to_owned(),
            ty: ty.parse().expect("a type of the list"),
            nullable: true,
        },
        from: FieldSource::Value(path.to_owned()),
        unit,
    });
    let mut decoder = Decoder::new(&Input {
        name: "fuzz".to_owned(),
        topic: "fuzz".to_owned(),
        format: Format::Json,
        key_format: KeyFormat::Text,
        start: Start::Earliest,
        tombstones: Tombstones::Pass,
        fields: fields.to_vec(),
        raw: false,
        headers: false,
    })
    .expect("fields that can be read");
    let mut batch = Batch::new(0, 0);
    batch.push(Record {
        key: None,
        value: Some(data),
        timestamp: -1,
        offset: 0,
        headers: b"",
        marks: 0,
    });
    let (mut out, mut dead) = (Fields::default(), Vec::new());
    decoder.decode(&batch, "fuzz", &mut out, &mut dead);
    assert_eq!(out.len() + dead.len(), 1);
    let mut reader = Reader::new(&out.cells);
    if dead.is_empty() {
        for field in &fields {
            if let Cell::Value(value) = reader.cell().expect("a cell a field") {
                check(&field.column.ty, value).expect("a value of its type");
            }
        }
        assert!(std::str::from_utf8(data).is_ok_and(|text| json::check(text).is_ok()));
    }
    assert!(reader.is_empty());
});
