//! Any output of a guest: refused as a whole, or every record emitted, filtered or dead.
//! `cargo +nightly fuzz run output_check` in `host/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wasmill::manifest::{CassandraTable, Create, Mode, PostgresTable, Route, Target};
use wasmill::plugin::{GuestBatch, Output};
use wasmill::record::{Batch, Column, Fields, Record, RowBatch};
use wasmill::route::RouteTable;
use wasmill::sink::Merger;

const RECORDS: u32 = 4;

fn columns(types: &[&str]) -> Vec<Column> {
    let column = |ty: &&str| Column {
        name: "c".to_owned(),
        ty: ty.parse().expect("a type of the list"),
        nullable: true,
    };
    types.iter().map(column).collect()
}

fuzz_target!(|data: (Vec<u8>, Vec<(u8, u8, u8, u8)>)| {
    let (cells, rows) = data;
    let key = ["text", "timestamp", "decimal(9,2)", "list<text>", "json"];
    let routes = [
        Route {
            name: "pg".to_owned(),
            columns: columns(&key),
            target: Target::Postgres(PostgresTable {
                table: "t".to_owned(),
                mode: Mode::Upsert,
                key: vec![0],
                guard: Some(1),
                deleted_at: None,
                create: Create::Never,
            }),
        },
        Route {
            name: "cql".to_owned(),
            columns: columns(&key[..3]),
            target: Target::Cassandra(CassandraTable {
                table: "t".to_owned(),
                partition_key: vec![0, 1],
                clustering_key: vec![2],
                ttl: None,
                consistency: "one".to_owned(),
                create: Create::Never,
                cross_partition_keys: false,
            }),
        },
    ];
    let mut batch = Batch::new(0, 0);
    for offset in 0..RECORDS {
        batch.push(Record {
            key: (offset != 1).then_some(b"key"),
            value: (offset != 2).then_some(b"\xff\0"),
            timestamp: i64::from(offset) - 1,
            offset: offset.into(),
            headers: b"",
            marks: 0,
        });
    }
    let fields = Fields {
        kept: (0..RECORDS).collect(),
        ends: vec![0; RECORDS as usize],
        cells: Vec::new(),
    };
    let mut output = Output {
        cells,
        ..Output::default()
    };
    let mut end = 0;
    for (length, source, route, op) in rows {
        end += u32::from(length);
        output.ends.push(end);
        output.sources.push(u32::from(source));
        output.routes.push(route);
        output.ops.push(op);
    }
    let table = RouteTable::new(&routes, 3).expect("routes that stores can hold");
    let mut checked = vec![RowBatch::default(); 2];
    let mut dead = Vec::new();
    let input = GuestBatch {
        input: 0,
        batch: &batch,
        fields: &fields,
        range: 0..RECORDS as usize,
    };
    if let Ok(tally) = table.check(&output, &input, &mut checked, &mut dead) {
        assert_eq!(tally.emitted + tally.filtered + tally.dead, RECORDS);
        for (rows, route) in checked.iter().zip(0..) {
            let rules = table.rules(route);
            let mut merged = RowBatch::default();
            Merger::new(&rules.key, &rules.columns, rules.guard).merge(
                rows,
                0..rows.len(),
                &mut merged,
            );
            assert!(merged.len() <= rows.len());
        }
    }
});
