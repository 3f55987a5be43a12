//! Routes that keep what they delete: what a table should hold then.

use super::*;

/// A table that keeps deletes, as its routes make it.
fn keeping() -> Bench {
    let mut table = Table {
        guard: Some(1),
        ..table(Kind::Postgres, &[0])
    };
    let columns = table.columns.clone();
    table.columns.push(Column {
        name: "gone".to_owned(),
        ty: Type::Timestamp,
        nullable: true,
    });
    Bench {
        expected: Expected::new(table),
        columns,
        deleted_at: Some("gone"),
    }
}

#[test]
fn a_delete_that_is_kept_is_a_row_of_its_guard() {
    let fold = |found: &[C<'_>], at: Plain| {
        let mut bench = keeping();
        let into = Expected::derived;
        bench.write((0, 1), &[Int(1), Int(5), Text("old")]);
        bench.take((0, 2), Op::Delete, &[Int(1), Int(7), Alone], into);
        // Older than the delete: from its own partition and from another.
        bench.write((0, 3), &[Int(1), Int(6), Text("late")]);
        bench.write((1, 1), &[Int(1), Int(6), Text("other")]);
        assert_eq!(bench.expected.rows(), 1, "the delete is a row");
        bench.judge(false, false, &[]);
        let mut row = plain(found);
        row.push(at);
        // As `judge` ends with `finish`: the row that is not there, then the one that is.
        assert_eq!(bench.expected.tally.missing, 1, "a delete that left no row");
        bench.expected.found(row);
        bench.wrong().len() - 1
    };
    let time = Plain::Timestamp(1_002_000);
    assert_eq!(fold(&[Int(1), Int(7), Null], time.clone()), 0);
    assert_eq!(fold(&[Int(1), Int(7), Null], Plain::Null), 1);
    assert_eq!(
        fold(&[Int(1), Int(7), Null], Plain::Timestamp(1_003_000)),
        1
    );
    assert_eq!(fold(&[Int(1), Int(7), Text("old")], time), 1);
    assert_eq!(
        fold(&[Int(1), Int(6), Text("late")], Plain::Null),
        1,
        "it came back"
    );
}

#[test]
fn what_is_written_after_a_kept_delete_is_there_again_and_a_tie_is_the_later() {
    let found = |rows: &[(&[C<'_>], Plain)]| {
        let mut bench = keeping();
        let into = Expected::derived;
        bench.take((0, 1), Op::Delete, &[Int(1), Int(5), Alone], into);
        bench.write((0, 2), &[Int(1), Int(5), Text("new")]);
        bench.write((0, 3), &[Int(2), Int(5), Text("old")]);
        bench.take((0, 4), Op::Delete, &[Int(2), Int(5), Alone], into);
        bench.expected.judge(Judging {
            past: false,
            clock: Clock {
                now: NOW,
                ttl: None,
                longest: None,
            },
            keep: 10,
            moving: false,
        });
        for (row, at) in rows {
            let mut row = plain(row);
            row.push(at.clone());
            bench.expected.found(row);
        }
        bench.expected.finish();
        bench.wrong()
    };
    let time = Plain::Timestamp(1_004_000);
    let there: &[C<'_>] = &[Int(1), Int(5), Text("new")];
    let gone: &[C<'_>] = &[Int(2), Int(5), Null];
    assert_eq!(found(&[(there, Plain::Null), (gone, time.clone())]), []);
    assert_eq!(
        found(&[(there, time.clone()), (gone, Plain::Null)]),
        [
            (Wrong::Different, Some((0, 2))),
            (Wrong::Different, Some((0, 4)))
        ],
        "one that says it is gone and is not, and the other way"
    );
}
