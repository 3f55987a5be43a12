//! What a table should hold against what it holds: each way to be wrong. Each way not to know is in [`unsure`].
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use super::*;
use crate::record::{RowRef, Type, cells};
use crate::verify::{Clock, Kind};

mod kept;
mod unsure;

const NOW: i64 = 1_000_000_000_000_000;

fn table(kind: Kind, key: &[usize]) -> Table {
    let column = |name: &str, ty: Type| Column {
        name: name.to_owned(),
        ty,
        nullable: true,
    };
    Table {
        kind,
        connection: "main".to_owned(),
        name: "public.t".to_owned(),
        columns: vec![
            column("id", Type::Int64),
            column("a", Type::Int64),
            column("b", Type::Text),
        ],
        key: key.to_vec(),
        guard: None,
        ttl: None,
        longest: None,
        whole: kind == Kind::Postgres,
    }
}

/// A cell of a made row: a value, null, or left alone.
#[derive(Clone, Copy)]
enum C<'a> {
    Int(i64),
    Text(&'a str),
    Null,
    Alone,
}
use C::{Alone, Int, Null, Text};

fn row(values: &[C<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        match value {
            Int(value) => cells::put_int64(&mut out, *value),
            Text(value) => cells::put_text(&mut out, value),
            Null => cells::put_null(&mut out),
            Alone => cells::put_unset(&mut out),
        }
    }
    out
}

fn plain(values: &[C<'_>]) -> Vec<Plain> {
    values
        .iter()
        .map(|value| match value {
            Int(value) => Plain::Integer(*value),
            Text(value) => Plain::Text((*value).to_owned()),
            Null | Alone => Plain::Null,
        })
        .collect()
}

struct Bench {
    expected: Expected,
    columns: Vec<Column>,
    deleted_at: Option<&'static str>,
}

impl Bench {
    fn new(table: Table) -> Self {
        Self {
            columns: table.columns.clone(),
            expected: Expected::new(table),
            deleted_at: None,
        }
    }

    fn take(
        &mut self,
        (partition, offset): (i32, i64),
        op: Op,
        values: &[C<'_>],
        into: fn(&mut Expected, Derived<'_>) -> Result<(), String>,
    ) {
        let cells = row(values);
        let derived = Derived {
            at: At { partition, offset },
            written: NOW - 10_000_000 + offset,
            time: 1_000 + offset,
            columns: &self.columns,
            deleted_at: self.deleted_at,
            row: RowRef {
                cells: &cells,
                source: 0,
                op,
            },
        };
        into(&mut self.expected, derived).unwrap();
    }

    fn write(&mut self, at: (i32, i64), values: &[C<'_>]) {
        self.take(at, Op::Write, values, Expected::derived);
    }

    fn delete(&mut self, at: (i32, i64), id: i64) {
        self.take(at, Op::Delete, &[Int(id), Alone, Alone], Expected::derived);
    }

    fn judge(&mut self, past: bool, moving: bool, rows: &[&[C<'_>]]) {
        self.expected.judge(Judging {
            past,
            clock: Clock {
                now: NOW,
                ttl: self.expected.table.ttl,
                longest: self.expected.table.longest,
            },
            keep: 10,
            moving,
        });
        for row in rows {
            self.expected.found(plain(row));
        }
        self.expected.finish();
    }

    /// What is wrong, and which record says so.
    fn wrong(&mut self) -> Vec<(Wrong, Option<(i32, i64)>)> {
        let standing = self.expected.standing(10);
        standing
            .iter()
            .map(|one| (one.wrong, one.at.map(|at| (at.partition, at.offset))))
            .collect()
    }
}

#[test]
fn a_table_as_the_records_say_is_equal_whatever_the_order_of_its_rows() {
    let mut bench = Bench::new(table(Kind::Postgres, &[0]));
    bench.write((0, 1), &[Int(1), Int(10), Text("x")]);
    bench.write((0, 2), &[Int(2), Int(20), Null]);
    bench.write((0, 3), &[Int(1), Int(11), Text("y")]);
    bench.delete((0, 4), 2);
    bench.write((1, 1), &[Int(3), Int(30), Text("")]);
    assert_eq!(bench.expected.rows(), 2);
    bench.judge(
        false,
        false,
        &[&[Int(3), Int(30), Text("")], &[Int(1), Int(11), Text("y")]],
    );
    assert_eq!(bench.wrong(), []);
    assert_eq!(
        (bench.expected.tally.equal, bench.expected.tally.rows),
        (2, 2)
    );
}

#[test]
fn lost_extra_changed_and_ghost_rows_are_told_with_their_records() {
    let mut bench = Bench::new(table(Kind::Postgres, &[0]));
    bench.write((0, 1), &[Int(1), Int(10), Text("x")]);
    bench.write((0, 2), &[Int(2), Int(20), Text("x")]);
    bench.write((0, 3), &[Int(3), Int(30), Text("x")]);
    bench.delete((0, 4), 3);
    bench.judge(
        false,
        false,
        &[
            // The cell of another version.
            &[Int(1), Int(11), Text("x")],
            // Deleted, and back.
            &[Int(3), Int(30), Text("x")],
            // Nobody's.
            &[Int(9), Int(90), Text("x")],
        ],
    );
    assert_eq!(
        bench.wrong(),
        [
            (Wrong::Extra, None),
            (Wrong::Different, Some((0, 1))),
            (Wrong::Missing, Some((0, 2))),
            (Wrong::Extra, Some((0, 4))),
        ]
    );
    assert_eq!(bench.expected.tally.wrong(), 4);
}

#[test]
fn a_guard_lets_the_greatest_win_from_whichever_partition() {
    let guarded = || Table {
        guard: Some(1),
        ..table(Kind::Postgres, &[0])
    };
    let fold = |bench: &mut Bench| {
        bench.write((0, 1), &[Int(1), Int(5), Text("new")]);
        bench.write((0, 2), &[Int(1), Int(3), Text("old")]);
        bench.write((1, 1), &[Int(1), Int(4), Text("other")]);
        // A tie within a partition: the later.
        bench.write((0, 3), &[Int(2), Int(7), Text("first")]);
        bench.write((0, 4), &[Int(2), Int(7), Text("second")]);
        // A tie between partitions: either.
        bench.write((0, 5), &[Int(3), Int(7), Text("here")]);
        bench.write((1, 5), &[Int(3), Int(7), Text("there")]);
    };
    let mut bench = Bench::new(guarded());
    fold(&mut bench);
    let right: [&[C<'_>]; 3] = [
        &[Int(1), Int(5), Text("new")],
        &[Int(2), Int(7), Text("second")],
        &[Int(3), Int(7), Text("there")],
    ];
    bench.judge(false, false, &right);
    assert_eq!(bench.wrong(), []);

    let mut bench = Bench::new(guarded());
    fold(&mut bench);
    let stale: [&[C<'_>]; 3] = [
        &[Int(1), Int(4), Text("other")],
        &[Int(2), Int(7), Text("first")],
        &[Int(3), Int(7), Text("nobody")],
    ];
    bench.judge(false, false, &stale);
    assert_eq!(bench.expected.tally.different, 3);

    // A greater guard than any that is known: of a record that is not.
    let mut bench = Bench::new(guarded());
    fold(&mut bench);
    let newer: [&[C<'_>]; 3] = [&[Int(1), Int(9), Text("gone")], right[1], right[2]];
    bench.judge(true, false, &newer);
    assert_eq!((bench.wrong(), bench.expected.tally.past), (Vec::new(), 1));
}

#[test]
fn a_key_of_several_partitions_holds_the_last_word_of_one_of_them() {
    let fold = |found: &[C<'_>]| {
        let mut bench = Bench::new(table(Kind::Postgres, &[0]));
        bench.write((0, 1), &[Int(1), Int(1), Null]);
        bench.write((0, 2), &[Int(1), Int(2), Null]);
        bench.write((1, 9), &[Int(1), Int(3), Null]);
        bench.judge(false, false, &[found]);
        bench.expected.tally
    };
    assert_eq!(fold(&[Int(1), Int(2), Null]).equal, 1);
    assert_eq!(fold(&[Int(1), Int(3), Null]).equal, 1);
    assert_eq!(fold(&[Int(1), Int(1), Null]).different, 1);
}

#[test]
fn appended_rows_are_counted() {
    let mut bench = Bench::new(table(Kind::Postgres, &[]));
    bench.write((0, 1), &[Int(1), Int(1), Null]);
    bench.write((0, 2), &[Int(1), Int(1), Null]);
    bench.write((0, 3), &[Int(2), Int(1), Null]);
    bench.write((0, 4), &[Int(3), Int(1), Null]);
    bench.judge(
        false,
        false,
        &[
            &[Int(1), Int(1), Null],
            &[Int(2), Int(1), Null],
            &[Int(2), Int(1), Null],
            &[Int(3), Int(1), Null],
            &[Int(4), Int(1), Null],
        ],
    );
    assert_eq!(
        bench.wrong(),
        [
            (Wrong::Extra, None),
            (Wrong::Missing, Some((0, 2))),
            (Wrong::Extra, Some((0, 3))),
        ]
    );
    assert_eq!(bench.expected.tally.equal, 3);
}

#[test]
fn cells_of_cassandra_are_folded_one_by_one() {
    let fold = |found: &[C<'_>]| {
        let mut bench = Bench::new(table(Kind::Cassandra, &[0]));
        bench.write((0, 1), &[Int(1), Int(1), Text("kept")]);
        bench.write((0, 2), &[Int(1), Int(2), Alone]);
        bench.judge(false, false, &[found]);
        bench.expected.tally
    };
    assert_eq!(fold(&[Int(1), Int(2), Text("kept")]).equal, 1);
    assert_eq!(fold(&[Int(1), Int(1), Text("kept")]).different, 1);
    assert_eq!(fold(&[Int(1), Int(2), Null]).different, 1);

    // A delete empties what a later write leaves alone.
    let mut bench = Bench::new(table(Kind::Cassandra, &[0]));
    bench.write((0, 1), &[Int(1), Int(1), Text("torn")]);
    bench.delete((0, 2), 1);
    bench.write((0, 3), &[Int(1), Int(3), Alone]);
    bench.judge(false, false, &[&[Int(1), Int(3), Text("torn")]]);
    assert_eq!(bench.wrong(), [(Wrong::Different, Some((0, 3)))]);
}

#[test]
fn a_difference_names_the_record_whose_guard_is_the_greatest() {
    let mut bench = Bench::new(Table {
        guard: Some(1),
        ..table(Kind::Postgres, &[0])
    });
    bench.write((0, 1), &[Int(1), Int(5), Text("a")]);
    bench.write((1, 9), &[Int(1), Int(6), Text("b")]);
    bench.judge(false, false, &[&[Int(1), Int(5), Text("a")]]);
    assert_eq!(bench.wrong(), [(Wrong::Different, Some((1, 9)))]);
}

#[test]
fn releases_with_other_columns_are_folded_together() {
    let mut united = table(Kind::Postgres, &[0]);
    let mut newer = united.clone();
    newer.columns.swap(1, 2);
    united.unite(&newer).unwrap();
    assert!(united.whole, "the same columns in another order");
    newer.columns.push(Column {
        name: "c".to_owned(),
        ty: Type::Int64,
        nullable: true,
    });
    united.unite(&newer).unwrap();
    assert!(!united.whole);
    let mut bench = Bench::new(united);
    bench.columns = newer.columns.clone();
    bench.write((0, 1), &[Int(1), Text("x"), Int(10), Int(5)]);
    bench.columns.pop();
    bench.write((0, 2), &[Int(1), Text("y"), Int(11)]);
    // What the older release does not know stays as it was.
    bench.judge(false, false, &[&[Int(1), Int(11), Text("y"), Int(5)]]);
    assert_eq!(bench.wrong(), []);

    let mut other = newer.clone();
    other.columns[3].ty = Type::Text;
    assert!(newer.unite(&other).is_err());
    other = newer.clone();
    other.key = vec![2];
    assert!(newer.unite(&other).is_err());
}

#[test]
fn a_key_takes_as_little_as_the_help_says() {
    // A map is between half and seven eighths full: 100 to 200 MB a million keys, and half of that on top while it grows.
    assert!(
        size_of::<(Key, Slot)>() <= 96,
        "{}",
        size_of::<(Key, Slot)>()
    );
}
