//! Time a record through decode, route check and merge, beside native `serde_json` in the same loop.
//!
//! `cargo run --release --example decode_bench`. Prints minimum and median of the rounds in nanoseconds a
//! record; quote the ratio, not the time. Six fields of a 279 B record, every one kept.
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark stops on anything unexpected"
)]
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Instant;

use wasmill::decode::Decoder;
use wasmill::manifest::{
    Create, Field, FieldSource, Format, Input, KeyFormat, Mode, PostgresTable, Route, Start,
    Target, Tombstones,
};
use wasmill::plugin::{GuestBatch, Output};
use wasmill::record::{Batch, Column, Fields, Record, RowBatch, cells};
use wasmill::route::RouteTable;
use wasmill::sink::Merger;

/// Records a batch.
const BATCH: usize = 256;
/// Batches a round.
const REPEAT: usize = 40;
/// Rounds; the first warms up.
const ROUNDS: usize = 25;

const FIELDS: [(&str, &str); 6] = [
    ("order_id", "int32"),
    ("user", "text"),
    ("status", "text"),
    ("amount", "float64"),
    ("country", "text"),
    ("ts", "int64"),
];

#[derive(serde::Deserialize)]
struct Order<'a> {
    order_id: i32,
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    amount: f64,
    #[serde(borrow)]
    country: Cow<'a, str>,
    ts: i64,
}

fn order(i: usize) -> String {
    let status = ["paid", "open", "void", "back", "hold"][i % 5];
    format!(
        "{{\"order_id\":{i},\"user\":\"user-{:08}\",\"status\":\"{status}\",\"amount\":{}.{:02},\"country\":\"DE\",\
         \"ts\":{},\"note\":\"lorem ipsum dolor sit amet consectetur\",\"items\":[{{\"sku\":\"A-{}\",\"q\":2}},\
         {{\"sku\":\"B-{}\",\"q\":1}}],\"ship\":{{\"city\":\"Berlin\",\"zip\":\"10115\",\"express\":false}},\
         \"tags\":[\"a\",\"b\",\"c\"]}}",
        i * 7919 % 100_000_000,
        i % 1000,
        i % 100,
        1_700_000_000_000_u64 + i as u64,
        i % 97,
        i % 89,
    )
}

fn columns() -> Vec<Column> {
    FIELDS
        .iter()
        .map(|(name, ty)| Column {
            name: (*name).to_owned(),
            ty: ty.parse().unwrap(),
            nullable: false,
        })
        .collect()
}

fn decoder() -> Decoder {
    let fields = columns().into_iter().map(|column| Field {
        from: FieldSource::Value(format!("/{}", column.name)),
        column,
        unit: None,
    });
    Decoder::new(&Input {
        name: "orders".to_owned(),
        topic: "orders".to_owned(),
        format: Format::Json,
        key_format: KeyFormat::Text,
        start: Start::Earliest,
        tombstones: Tombstones::DeadLetter,
        fields: fields.collect(),
        raw: false,
        headers: false,
    })
    .unwrap()
}

fn native(text: &str, out: &mut Vec<u8>) {
    let order: Order<'_> = serde_json::from_str(text).unwrap();
    cells::put_int32(out, order.order_id);
    cells::put_text(out, &order.user);
    cells::put_text(out, &order.status);
    cells::put_float64(out, order.amount);
    cells::put_text(out, &order.country);
    cells::put_int64(out, order.ts);
}

fn main() {
    let texts: Vec<String> = (1..=BATCH).map(order).collect();
    let mut batch = Batch::new(0, 0);
    for (text, offset) in texts.iter().zip(0..) {
        batch.push(Record {
            key: None,
            value: Some(text.as_bytes()),
            timestamp: 0,
            offset,
            headers: b"",
            marks: 0,
        });
    }
    let (mut fields, mut dead, mut cells) = (Fields::default(), Vec::new(), Vec::new());
    let mut decoder = decoder();
    decoder.decode(&batch, "orders", &mut fields, &mut dead);
    texts.iter().for_each(|text| native(text, &mut cells));
    assert!(
        dead.is_empty() && cells == fields.cells,
        "both decode alike"
    );

    let route = Route {
        name: "orders".to_owned(),
        columns: columns(),
        target: Target::Postgres(PostgresTable {
            table: "orders".to_owned(),
            mode: Mode::Upsert,
            key: vec![0],
            guard: None,
            deleted_at: None,
            create: Create::Never,
        }),
    };
    let table = RouteTable::new(&[route], 10).unwrap();
    let output = Output {
        cells: fields.cells.clone(),
        ends: fields.ends.clone(),
        sources: fields.kept.clone(),
        ..Output::default()
    };
    let mut rows = [RowBatch::default()];
    let mut merger = Merger::new(&[0], &columns(), None);
    let mut merged = RowBatch::default();
    let kept = fields.clone();

    let mut stages: [(&str, Vec<f64>); 4] =
        ["native serde_json", "decode", "route check", "merge"].map(|name| (name, Vec::new()));
    for round in 0..ROUNDS {
        for (stage, (_, times)) in stages.iter_mut().enumerate() {
            let start = Instant::now();
            for _ in 0..REPEAT {
                match stage {
                    0 => {
                        cells.clear();
                        texts.iter().for_each(|text| native(text, &mut cells));
                        black_box(&cells);
                    }
                    1 => {
                        fields.clear();
                        decoder.decode(&batch, "orders", &mut fields, &mut dead);
                        black_box(&fields);
                    }
                    2 => {
                        rows[0].clear();
                        let input = GuestBatch {
                            input: 0,
                            batch: &batch,
                            fields: &kept,
                            range: 0..BATCH,
                        };
                        let tally = table.check(&output, &input, &mut rows, &mut dead).unwrap();
                        assert_eq!(tally.emitted as usize, BATCH);
                    }
                    _ => {
                        merged.clear();
                        merger.merge(&rows[0], 0..BATCH, &mut merged);
                        assert_eq!(merged.len(), BATCH);
                    }
                }
            }
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e9 / (REPEAT * BATCH) as f64);
            }
        }
    }
    let bytes = texts.iter().map(String::len).sum::<usize>() / BATCH;
    println!("{bytes} bytes a record");
    for (name, mut times) in stages {
        times.sort_by(f64::total_cmp);
        println!(
            "{name:18} min {:7.1}  median {:7.1} ns",
            times[0],
            times[times.len() / 2]
        );
    }
}
