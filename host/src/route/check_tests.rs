//! Judging what a guest returned: each record of a call is emitted, filtered or dead, and broken output is the plugin's
//! fault. What the columns of a route let pass is in `rows`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::error::Blame;
use crate::manifest::{
    CassandraTable, Create, KafkaTopic, KeyFormat, Mode, PostgresTable, Route, Target, ValueFormat,
};
use crate::record::cells::{put, put_int32, put_null, put_text};
use crate::record::{Batch, Column, Fields, Record};

#[path = "check_rows_tests.rs"]
mod rows;

fn columns(list: &[(&str, &str)]) -> Vec<Column> {
    list.iter()
        .map(|(name, ty)| Column {
            name: (*name).to_owned(),
            ty: ty.trim_end_matches('?').parse().unwrap(),
            nullable: ty.ends_with('?'),
        })
        .collect()
}

fn postgres(list: &[(&str, &str)], key: &[usize], guard: Option<usize>) -> Route {
    Route {
        name: "pg".to_owned(),
        columns: columns(list),
        target: Target::Postgres(PostgresTable {
            table: "t".to_owned(),
            mode: if key.is_empty() {
                Mode::Append
            } else {
                Mode::Upsert
            },
            key: key.to_vec(),
            guard,
            deleted_at: None,
            create: Create::Never,
        }),
    }
}

fn cassandra(list: &[(&str, &str)], partition_key: &[usize], clustering_key: &[usize]) -> Route {
    Route {
        name: "cql".to_owned(),
        columns: columns(list),
        target: Target::Cassandra(CassandraTable {
            table: "t".to_owned(),
            partition_key: partition_key.to_vec(),
            clustering_key: clustering_key.to_vec(),
            ttl: None,
            consistency: "local-quorum".to_owned(),
            create: Create::Never,
            cross_partition_keys: false,
        }),
    }
}

fn kafka(list: &[(&str, &str)], key: &[usize], value: ValueFormat) -> Route {
    Route {
        name: "topic".to_owned(),
        columns: columns(list),
        target: Target::Kafka(KafkaTopic {
            topic: "t".to_owned(),
            key: key.to_vec(),
            key_format: KeyFormat::Text,
            value,
            headers: Vec::new(),
            create: Create::Never,
            partitions: None,
            replication: None,
        }),
    }
}

/// Five records, of which the second did not decode.
struct Call {
    batch: Batch,
    fields: Fields,
}

impl Call {
    fn new() -> Self {
        let mut batch = Batch::new(0, 0);
        for offset in 0..5 {
            batch.push(Record {
                key: (offset != 3).then_some(b"key"),
                value: Some(if offset == 4 { b"\xff" } else { b"value" }),
                timestamp: if offset == 2 { -1 } else { 1000 + offset },
                offset,
                headers: b"",
                marks: 0,
            });
        }
        let fields = Fields {
            cells: Vec::new(),
            kept: vec![0, 2, 3, 4],
            ends: vec![0; 4],
        };
        Self { batch, fields }
    }

    fn input(&self) -> GuestBatch<'_> {
        GuestBatch {
            input: 0,
            batch: &self.batch,
            fields: &self.fields,
            range: 0..4,
        }
    }
}

#[derive(Default)]
struct Guest(Output);

impl Guest {
    fn row(mut self, source: u32, route: u8, op: u8, cells: impl FnOnce(&mut Vec<u8>)) -> Self {
        cells(&mut self.0.cells);
        self.0.ends.push(u32::try_from(self.0.cells.len()).unwrap());
        self.0.sources.push(source);
        self.0.routes.push(route);
        self.0.ops.push(op);
        self
    }

    fn reject(mut self, source: u32, code: &str) -> Self {
        self.0.rejects.push(Reject {
            source,
            code: code.to_owned(),
            reason: "no\0good".to_owned(),
        });
        self
    }
}

type Verdict = (Tally, Vec<RowBatch>, Vec<DeadLetter>);

fn judge(routes: &[Route], output: &Output) -> Result<Verdict> {
    let table = RouteTable::new(routes, 3).unwrap();
    let call = Call::new();
    let (mut rows, mut dead) = (vec![RowBatch::default(); table.len()], Vec::new());
    match table.check(output, &call.input(), &mut rows, &mut dead) {
        Ok(tally) => {
            assert_eq!(tally.emitted + tally.filtered + tally.dead, 4);
            assert_eq!(tally.dead as usize, dead.len());
            Ok((tally, rows, dead))
        }
        Err(error) => {
            assert!(dead.is_empty() && rows.iter().all(RowBatch::is_empty));
            Err(error)
        }
    }
}

#[test]
fn records_are_emitted_filtered_or_dead_and_never_two_of_these() {
    let list = [("id", "int32"), ("name", "text?")];
    let routes = [postgres(&list, &[0], None), cassandra(&list, &[0], &[])];
    let good = |id: i32| {
        move |cells: &mut Vec<u8>| {
            put_int32(cells, id);
            put_text(cells, "x");
        }
    };
    let output = Guest::default()
        .row(0, 0, 0, good(1))
        .row(0, 1, 0, good(2))
        .row(1, 0, 0, good(3))
        .row(1, 1, 0, good(4))
        .row(1, 0, 0, put_null)
        .row(2, 1, 0, good(5))
        .reject(2, "too-hot")
        .0;
    let (tally, rows, dead) = judge(&routes, &output).unwrap();
    assert_eq!(
        tally,
        Tally {
            emitted: 1,
            filtered: 1,
            dead: 2
        }
    );
    assert_eq!((rows[0].len(), rows[1].len()), (1, 1));
    assert_eq!(rows[1].row(0).source, 0);
    assert_eq!(
        dead[0].source, 2,
        "the second kept record is the third of the batch"
    );
    assert_eq!(
        dead[0].reason,
        "row 2 of the record, route \"pg\", column \"id\" (int32): null"
    );
    assert_eq!(
        (dead[1].source, &*dead[1].code, dead[1].reason.as_str()),
        (3, "too-hot", "no\u{fffd}good")
    );
}

#[test]
fn calls_follow_each_other_on_one_batch() {
    let table = RouteTable::new(&[postgres(&[("id", "int32")], &[0], None)], 3).unwrap();
    let call = Call::new();
    let (mut rows, mut dead) = (vec![RowBatch::default()], Vec::new());
    for range in [0..2, 2..4] {
        let output = Guest::default()
            .row(0, 0, 0, |cells| put_int32(cells, 1))
            .row(1, 0, 0, |cells| put(cells, b"bad"))
            .0;
        let input = GuestBatch {
            range,
            ..call.input()
        };
        table.check(&output, &input, &mut rows, &mut dead).unwrap();
    }
    let sources: Vec<u32> = rows[0].iter().map(|row| row.source).collect();
    assert_eq!(sources, [0, 3]);
    assert_eq!(
        dead.iter().map(|dead| dead.source).collect::<Vec<_>>(),
        [2, 4]
    );
}

#[test]
fn malformed_output_is_the_plugins_fault() {
    let routes = [postgres(&[("id", "int32")], &[0], None)];
    let good = || {
        Guest::default()
            .row(0, 0, 0, |cells| put_int32(cells, 1))
            .row(1, 0, 0, |cells| put_int32(cells, 2))
            .reject(2, "a")
            .reject(3, "b")
            .0
    };
    assert!(judge(&routes, &good()).is_ok());
    type Spoil = fn(&mut Output);
    let faults: &[(&str, Spoil)] = &[
        ("sources", |output| output.sources.truncate(1)),
        ("routes", |output| output.routes.truncate(1)),
        ("ops", |output| output.ops.truncate(1)),
        ("times", |output| output.times.push(0)),
        ("ends do not ascend", |output| output.ends.swap(0, 1)),
        ("ends do not cover", |output| output.cells.push(0)),
        ("ends go past", |output| output.ends[1] += 1),
        ("sources descend", |output| output.sources.swap(0, 1)),
        ("source out of range", |output| output.sources[1] = 4),
        ("route", |output| output.routes[1] = 1),
        ("op", |output| output.ops[0] = 2),
        ("rejects descend", |output| output.rejects.swap(0, 1)),
        ("rejects repeat", |output| output.rejects[1].source = 2),
        ("reject out of range", |output| output.rejects[1].source = 4),
        ("code", |output| output.rejects[0].code = "A".to_owned()),
        ("empty code", |output| output.rejects[0].code.clear()),
        ("long code", |output| {
            output.rejects[0].code = "a".repeat(33)
        }),
    ];
    for (name, spoil) in faults {
        let mut output = good();
        spoil(&mut output);
        assert_eq!(
            judge(&routes, &output).unwrap_err().blame(),
            Blame::Plugin,
            "{name}"
        );
    }
}

#[test]
fn too_many_rows_of_one_record_are_the_plugins_limit() {
    let mut guest = Guest::default();
    for id in 0..4 {
        guest = guest.row(0, 0, 0, |cells| put_int32(cells, id));
    }
    let (tally, rows, dead) = judge(&[postgres(&[("id", "int32")], &[0], None)], &guest.0).unwrap();
    assert_eq!((tally.dead, rows[0].len()), (1, 0));
    assert_eq!(
        (dead[0].class, &*dead[0].code),
        (DeadClass::Plugin, code::LIMIT)
    );
}

#[test]
fn routes_no_store_can_hold_are_refused() {
    for route in [
        postgres(&[("j", "json")], &[0], None),
        postgres(&[("a", "int32")], &[1], None),
        postgres(&[("a", "int32"), ("g", "text")], &[0], Some(1)),
        postgres(&[("h", "headers")], &[], None),
        cassandra(&[("l", "list<int32>")], &[0], &[]),
    ] {
        assert_eq!(
            RouteTable::new(&[route], 1).unwrap_err().blame(),
            Blame::Config
        );
    }
}

proptest! {
    #[test]
    fn any_output_is_judged_without_a_panic(
        bytes: Vec<u8>, ends in prop::collection::vec(0_u32..40, 0..6), sort: bool,
        sources in prop::collection::vec(0_u32..5, 0..6), routes in prop::collection::vec(0_u8..3, 0..6),
        ops in prop::collection::vec(0_u8..3, 0..6),
    ) {
        let mut output = Output { cells: bytes, ends, sources, routes, ops, ..Output::default() };
        if sort {
            let rows = output.ends.len().min(output.sources.len());
            output.ends.truncate(rows);
            output.sources.truncate(rows);
            output.routes.resize(rows, 1);
            output.ops.clear();
            output.ends.sort_unstable();
            output.sources.sort_unstable();
            output.cells.resize(output.ends.last().map_or(0, |end| *end as usize), 0);
        }
        let list = [("a", "text"), ("b", "list<int16>?")];
        if let Ok((tally, rows, _)) = judge(&[postgres(&list, &[0], None), cassandra(&list, &[0], &[])], &output) {
            let kept: usize = rows.iter().map(RowBatch::len).sum();
            prop_assert!(kept >= tally.emitted as usize);
        }
    }
}
