//! Tests of merging against a model: a table to which rows are applied one by one.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::record::cells::{put, put_int64, put_unset};

/// A row of (key, a, b, guard): `None` is unset, `Some(None)` null.
#[derive(Clone, Debug)]
struct Row {
    key: (u8, u8),
    cells: [Option<Option<u8>>; 2],
    guard: i64,
    op: Op,
}

fn columns() -> Vec<Column> {
    let column = |(name, ty): (&str, &str)| Column {
        name: name.to_owned(),
        ty: ty.parse().unwrap(),
        nullable: true,
    };
    [
        ("a", "bytes"),
        ("k1", "bytes"),
        ("b", "bytes"),
        ("k2", "bytes"),
        ("g", "int64"),
    ]
    .map(column)
    .into()
}

fn batch(rows: &[(u32, Row)]) -> RowBatch {
    let mut batch = RowBatch::default();
    for (source, row) in rows {
        let cells = batch.cells_mut();
        let any = |cells: &mut Vec<u8>, cell: Option<Option<u8>>| match cell {
            _ if row.op == Op::Delete => put_unset(cells),
            None => put_unset(cells),
            Some(None) => put_null(cells),
            Some(Some(value)) => put(cells, &[value]),
        };
        any(cells, row.cells[0]);
        put(cells, &[row.key.0]);
        any(cells, row.cells[1]);
        put(cells, &vec![row.key.1; usize::from(row.key.1)]);
        put_int64(cells, row.guard);
        batch.finish_row(*source, row.op);
    }
    batch
}

/// What a table holds: for each key the cells (unset shows as what stood there) or nothing.
type Table = BTreeMap<Vec<u8>, (Option<[Option<Vec<u8>>; 2]>, i64)>;

fn apply(table: &mut Table, rows: &RowBatch, guarded: bool) {
    for row in rows.iter() {
        let mut reader = Reader::new(row.cells);
        let [a, k1, b, k2, g] = std::array::from_fn(|_| reader.cell().unwrap());
        let value = |cell| match cell {
            Cell::Value(value) => value,
            other => panic!("{other:?}"),
        };
        let key = [value(k1), b"/", value(k2)].concat();
        let guard = get_int64(value(g));
        let (cells, stored) = table.entry(key).or_insert((None, i64::MIN));
        if guarded && guard < *stored {
            continue;
        }
        *stored = guard;
        if row.op == Op::Delete {
            *cells = None;
            continue;
        }
        let cells = cells.get_or_insert([None, None]);
        for (stored, cell) in cells.iter_mut().zip([a, b]) {
            match cell {
                Cell::Value(value) => *stored = Some(value.to_vec()),
                Cell::Null => *stored = None,
                _ => {}
            }
        }
    }
}

fn any_row(unset: bool) -> impl Strategy<Value = Row> {
    let cell = move || {
        prop_oneof![
            Just(if unset { None } else { Some(None) }),
            Just(Some(None)),
            any::<u8>().prop_map(|value| Some(Some(value))),
        ]
    };
    let op = prop_oneof![3 => Just(Op::Write), 1 => Just(Op::Delete)];
    ((0_u8..3, 0_u8..3), cell(), cell(), -3_i64..3, op).prop_map(|(key, a, b, guard, op)| Row {
        key,
        cells: [a, b],
        guard,
        op,
    })
}

fn numbered(rows: Vec<Row>, step: usize) -> Vec<(u32, Row)> {
    rows.into_iter()
        .enumerate()
        .map(|(at, row)| (u32::try_from(at / step).unwrap(), row))
        .collect()
}

fn judge(seed: &[(u32, Row)], rows: &[(u32, Row)], guarded: bool) -> Result<(), TestCaseError> {
    let (seed, rows) = (batch(seed), batch(rows));
    let mut merger = Merger::new(&[3, 1], &columns(), guarded.then_some(4));
    let mut merged = RowBatch::default();
    merger.merge(&rows, 0..rows.len(), &mut merged);
    // The same end from any table, so also from one that earlier batches filled.
    let (mut one_by_one, mut at_once) = (Table::new(), Table::new());
    for (table, rows) in [(&mut one_by_one, &rows), (&mut at_once, &merged)] {
        apply(table, &seed, guarded);
        apply(table, rows, guarded);
    }
    prop_assert_eq!(&one_by_one, &at_once);
    // Each key once, in source order, from a record that has a row of this key.
    let keys = |rows: &RowBatch| -> Vec<(Vec<u8>, u32)> {
        rows.iter()
            .map(|row| {
                (
                    [nth(row.cells, 1).unwrap(), b"/", nth(row.cells, 3).unwrap()].concat(),
                    row.source,
                )
            })
            .collect()
    };
    let (before, after) = (keys(&rows), keys(&merged));
    prop_assert!(after.is_sorted_by_key(|(_, source)| *source));
    let distinct: BTreeMap<_, _> = after.iter().cloned().collect();
    prop_assert_eq!(distinct.len(), after.len());
    prop_assert!(after.iter().all(|row| before.contains(row)));
    if !guarded {
        let last: BTreeMap<_, _> = before.into_iter().collect();
        prop_assert_eq!(last, distinct);
    }
    // Twice is once, and buffers left over from a larger batch do no harm.
    let mut again = RowBatch::default();
    merger.merge(&merged, 0..merged.len(), &mut again);
    prop_assert!(again.iter().eq(merged.iter()));
    Ok(())
}

proptest! {
    #[test]
    fn merging_equals_applying_one_by_one(
        seed in prop::collection::vec(any_row(true), 0..6),
        rows in prop::collection::vec(any_row(true), 0..40),
        step in 1_usize..4,
    ) {
        judge(&numbered(seed, 1), &numbered(rows, step), false)?;
    }

    #[test]
    fn guarded_merging_equals_applying_one_by_one(
        seed in prop::collection::vec(any_row(false), 0..6),
        rows in prop::collection::vec(any_row(false), 0..40),
    ) {
        judge(&numbered(seed, 1), &numbered(rows, 1), true)?;
    }

    #[test]
    fn a_range_is_merged_as_if_it_were_alone(
        rows in prop::collection::vec(any_row(true), 1..40), cut: prop::sample::Index,
    ) {
        let rows = numbered(rows, 1);
        let cut = cut.index(rows.len());
        let mut merger = Merger::new(&[1, 3], &columns(), None);
        let (mut part, mut alone) = (RowBatch::default(), RowBatch::default());
        merger.merge(&batch(&rows), cut..rows.len(), &mut part);
        merger.merge(&batch(&rows[cut..]), 0..rows.len() - cut, &mut alone);
        prop_assert!(part.iter().eq(alone.iter()));
    }

    #[test]
    fn floats_and_decimals_order_as_in_postgres(left: f64, right: f64) {
        let order = |left: f64, right: f64| {
            compare(&Type::Float64, Some(&left.to_be_bytes()), Some(&right.to_be_bytes()))
        };
        if left.is_nan() || right.is_nan() {
            prop_assert_eq!(order(left, right), left.is_nan().cmp(&right.is_nan()));
        } else {
            prop_assert_eq!(Some(order(left, right)), left.partial_cmp(&right));
        }
    }
}

#[test]
fn a_delete_clears_what_came_before() {
    let write = |a, b| Row {
        key: (0, 0),
        cells: [a, b],
        guard: 0,
        op: Op::Write,
    };
    let delete = Row {
        op: Op::Delete,
        ..write(None, None)
    };
    let rows = [
        (0, write(Some(Some(1)), Some(Some(1)))),
        (1, delete),
        (2, write(Some(Some(2)), None)),
    ];
    let rows = batch(&rows);
    let mut merger = Merger::new(&[1, 3], &columns(), None);
    let mut merged = RowBatch::default();
    merger.merge(&rows, 0..3, &mut merged);
    assert_eq!(merged.len(), 1);
    assert_eq!((merged.row(0).source, merged.row(0).op), (2, Op::Write));
    assert_eq!(nth(merged.row(0).cells, 0), Some(&[2][..]));
    let mut reader = Reader::new(merged.row(0).cells);
    let cells: [Cell<'_>; 3] = std::array::from_fn(|_| reader.cell().unwrap());
    assert_eq!(cells[2], Cell::Null, "not unset: the delete emptied it");
    merged.clear();
    merger.merge(&rows, 0..2, &mut merged);
    assert_eq!(merged.row(0).op, Op::Delete);
}
