//! What cannot be known: rows from before, rows that expire, tables that moved on, letters that are gone.

use super::*;

#[test]
fn what_is_not_known_is_neither_right_nor_wrong() {
    let rows: [&[C<'_>]; 2] = [&[Int(1), Int(2), Text("before")], &[Int(2), Int(2), Null]];
    for past in [false, true] {
        let mut bench = Bench::new(table(Kind::Cassandra, &[0]));
        bench.write((0, 5), &[Int(1), Int(2), Alone]);
        bench.judge(past, false, &rows);
        let tally = bench.expected.tally;
        let (wrong, unknown) = if past { (0, 2) } else { (2, 0) };
        assert_eq!((tally.wrong(), tally.past), (wrong, unknown), "{past}");
    }
    // What is known to have been written is missing whatever was before.
    let mut bench = Bench::new(table(Kind::Postgres, &[0]));
    bench.write((0, 5), &[Int(1), Int(2), Null]);
    bench.judge(true, false, &[]);
    assert_eq!(bench.wrong(), [(Wrong::Missing, Some((0, 5)))]);
}

#[test]
fn rows_that_expire_are_not_checked_and_ones_that_should_have_are() {
    let with = |seconds: u64| Table {
        ttl: Some(Duration::from_secs(seconds)),
        longest: Some(Duration::from_secs(seconds)),
        ..table(Kind::Cassandra, &[0])
    };
    let fold = |seconds: u64, rows: &[&[C<'_>]]| {
        let mut bench = Bench::new(with(seconds));
        // Ten seconds ago.
        bench.write((0, 5), &[Int(1), Int(2), Null]);
        bench.judge(false, false, rows);
        bench.expected.tally
    };
    let there: &[&[C<'_>]] = &[&[Int(1), Int(2), Null]];
    assert_eq!(fold(3600, there).equal, 1);
    assert_eq!(fold(3600, &[]).missing, 1);
    assert_eq!(fold(20, &[]).expired, 1);
    assert_eq!(fold(20, there).equal, 1);
    // Gone for longer than clocks can differ.
    let long = |rows: &[&[C<'_>]]| {
        let mut bench = Bench::new(with(1));
        let cells = row(&[Int(1), Int(2), Null]);
        let columns = bench.columns.clone();
        let derived = Derived {
            at: At {
                partition: 0,
                offset: 1,
            },
            written: NOW - 600_000_000,
            time: 0,
            columns: &columns,
            deleted_at: None,
            row: RowRef {
                cells: &cells,
                source: 0,
                op: Op::Write,
            },
        };
        bench.expected.derived(derived).unwrap();
        bench.judge(false, false, rows);
        bench.expected.tally
    };
    assert_eq!(long(&[]).expired, 1);
    assert_eq!(long(there).extra, 1);
    // Where another release lets rows live longer, one that is still there says nothing.
    let mut united = with(1);
    united.unite(&with(3600)).unwrap();
    assert_eq!(
        (united.ttl, united.longest),
        (
            Some(Duration::from_secs(1)),
            Some(Duration::from_secs(3600))
        )
    );
    let mut for_ever = with(1);
    for_ever.unite(&table(Kind::Cassandra, &[0])).unwrap();
    assert_eq!(
        (for_ever.ttl, for_ever.longest),
        (Some(Duration::from_secs(1)), None)
    );
}

#[test]
fn a_table_that_moved_on_is_right_where_a_later_record_makes_it_so() {
    let mut bench = Bench::new(table(Kind::Cassandra, &[0]));
    bench.write((0, 1), &[Int(1), Int(1), Null]);
    bench.write((0, 2), &[Int(2), Int(1), Null]);
    bench.write((0, 3), &[Int(4), Int(1), Null]);
    bench.judge(
        false,
        true,
        &[
            &[Int(1), Int(3), Null],
            // Not there any more: 2. New: 3. Of nobody: 4.
            &[Int(3), Int(1), Null],
            &[Int(4), Int(9), Null],
        ],
    );
    assert_eq!(bench.expected.tally.wrong(), 4);
    let moved = Expected::moved_on;
    bench.take((0, 10), Op::Write, &[Int(1), Int(2), Null], moved);
    assert_eq!(bench.expected.tally.wrong(), 4);
    bench.take((0, 11), Op::Write, &[Int(1), Int(3), Null], moved);
    bench.take((0, 12), Op::Delete, &[Int(2), Alone, Alone], moved);
    bench.take((0, 13), Op::Write, &[Int(3), Int(1), Null], moved);
    bench.take((0, 14), Op::Write, &[Int(4), Int(5), Null], moved);
    // Written after it was read: the row that was found stays right.
    bench.take((0, 15), Op::Write, &[Int(1), Int(4), Null], moved);
    assert_eq!(bench.wrong(), [(Wrong::Different, Some((0, 3)))]);
    assert_eq!(bench.expected.tally.wrong(), 1);
}

#[test]
fn a_letter_that_is_gone_may_have_become_a_row_or_not() {
    let possible = |expected: &mut Expected, derived: Derived<'_>| expected.possible(derived, 0);
    let fold = |rows: &[&[C<'_>]]| {
        let mut bench = Bench::new(table(Kind::Postgres, &[0]));
        bench.write((0, 1), &[Int(1), Int(1), Null]);
        bench.take((0, 2), Op::Write, &[Int(1), Int(2), Null], possible);
        bench.take((0, 3), Op::Write, &[Int(7), Int(7), Null], possible);
        bench.judge(false, false, rows);
        bench.expected.tally.wrong()
    };
    assert_eq!(fold(&[&[Int(1), Int(1), Null]]), 0);
    assert_eq!(fold(&[&[Int(1), Int(2), Null], &[Int(7), Int(7), Null]]), 0);
    assert_eq!(fold(&[&[Int(1), Int(3), Null]]), 1);
    assert_eq!(fold(&[&[Int(1), Int(1), Null], &[Int(7), Int(8), Null]]), 1);
    assert_eq!(fold(&[]), 1);

    let mut bench = Bench::new(table(Kind::Postgres, &[]));
    bench.take((0, 2), Op::Write, &[Int(1), Int(2), Null], possible);
    bench.judge(
        false,
        false,
        &[&[Int(1), Int(2), Null], &[Int(1), Int(2), Null]],
    );
    assert_eq!(bench.expected.tally.extra, 1);
}

#[test]
fn a_letter_that_is_gone_was_retried_through_one_release_at_most() {
    let first = |expected: &mut Expected, derived: Derived<'_>| expected.possible(derived, 0);
    let second = |expected: &mut Expected, derived: Derived<'_>| expected.possible(derived, 1);
    let wrong = |rows: usize| {
        let mut bench = Bench::new(table(Kind::Postgres, &[]));
        let row = [Int(1), Int(2), Null];
        // Two of one record, through two releases that agree; one of another.
        bench.take((0, 2), Op::Write, &row, first);
        bench.take((0, 2), Op::Write, &row, first);
        bench.take((0, 2), Op::Write, &row, second);
        bench.take((0, 2), Op::Write, &row, second);
        bench.take((0, 3), Op::Write, &row, first);
        bench.take((0, 3), Op::Write, &row, second);
        let found: Vec<&[C<'_>]> = vec![&row; rows];
        bench.judge(false, false, &found);
        bench.expected.tally.wrong()
    };
    assert_eq!((wrong(0), wrong(3)), (0, 0));
    assert_eq!(wrong(4), 1, "a row that is doubled");
}
