//! Snapshots as they have to be, and what is seen when one thing in them is lost, doubled, moved or changed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fate, Input, Kind, Last, Letter, Live, Position, Row, Snapshot};

const INPUT: Input = Input { run: 3 };
const END: i64 = 3_000;

/// All of partition 0 from one offset to another as it has to be, with a ledger from the start.
fn good(from: i64, to: i64) -> Snapshot {
    let (mut snapshot, mut ledger, mut fold) = (Snapshot::default(), [0; 4], BTreeMap::new());
    let mut number = 0;
    for offset in 0..to {
        ledger[0] += 1;
        match INPUT.fate(0, offset) {
            Fate::Filtered => ledger[2] += 1,
            Fate::Dead(code) => {
                ledger[3] += 1;
                if offset >= from {
                    snapshot.letters.push(Letter {
                        partition: 0,
                        offset,
                        code: code.to_owned(),
                    });
                }
            }
            Fate::Emitted(emitted) => {
                ledger[1] += 1;
                for index in 0..emitted.rows {
                    number += 1;
                    if offset >= from {
                        snapshot.rows.push(Row {
                            number,
                            partition: 0,
                            offset,
                            index,
                            version: "a".to_owned(),
                            id: emitted.id.clone(),
                            seq: emitted.seq,
                        });
                    }
                }
                match emitted.seq {
                    None => fold.remove(&emitted.id),
                    Some(seq) => fold.insert(
                        emitted.id,
                        Last {
                            seq,
                            partition: 0,
                            offset,
                            version: "a".to_owned(),
                        },
                    ),
                };
            }
        }
    }
    snapshot.latest = Some(fold);
    snapshot.positions.push(Position {
        partition: 0,
        next: to,
        ledger: Some(ledger),
    });
    snapshot
}

/// Kinds of the faults of a snapshot that was changed.
fn faults(change: impl FnOnce(&mut Snapshot)) -> BTreeSet<Kind> {
    let mut snapshot = good(0, END);
    change(&mut snapshot);
    let faults = Live::new(INPUT, 1).check(&snapshot);
    faults.told().iter().map(|fault| fault.kind).collect()
}

fn fated(wanted: impl Fn(Fate) -> bool) -> i64 {
    let found = (100..END).find(|offset| wanted(INPUT.fate(0, *offset)));
    found.expect("every fate occurs")
}

fn row(offset: i64) -> Row {
    Row {
        number: 1_000_000,
        partition: 0,
        offset,
        index: 0,
        version: "a".to_owned(),
        id: "0-0".to_owned(),
        seq: Some(offset),
    }
}

#[test]
fn what_has_to_be_there_passes_in_one_piece_and_in_many() {
    assert!(faults(|_| {}).is_empty());
    let mut live = Live::new(INPUT, 1);
    let mut from = 0;
    for to in [0, 1, 70, 70, 500, 1_999, END] {
        let faults = live.check(&good(from, to));
        assert_eq!(faults.told(), [], "{from}..{to}");
        from = to;
    }
    assert_eq!(live.checked(), BTreeMap::from([(0, END)]));
    assert_eq!(live.rows(), i64::try_from(good(0, END).rows.len()).unwrap());
    assert_eq!(live.ledger(), good(0, END).positions[0].ledger.unwrap());
    let [run] = &live.runs()[&0][..] else {
        panic!("one version wrote all")
    };
    assert_eq!(run.version, "a");
}

#[test]
fn a_lost_row_is_seen() {
    assert_eq!(faults(|all| drop(all.rows.remove(77))), [Kind::Lost].into());
    // the second of two rows
    let second = |all: &mut Snapshot| all.rows.retain(|row| row.index == 0);
    assert_eq!(faults(second), [Kind::Lost].into());
}

#[test]
fn a_doubled_row_is_seen() {
    let twice = |all: &mut Snapshot| {
        let again = Row {
            number: 1_000_000,
            ..all.rows[77].clone()
        };
        all.rows.push(again);
    };
    assert!(faults(twice).contains(&Kind::Doubled));
}

#[test]
fn rows_that_arrive_in_another_order_are_seen() {
    let swapped = |all: &mut Snapshot| {
        let number = all.rows[10].number;
        all.rows[10].number = all.rows[12].number;
        all.rows[12].number = number;
    };
    assert_eq!(faults(swapped), [Kind::Disorder].into());
}

#[test]
fn a_row_that_arrives_before_one_that_was_checked_is_seen() {
    let mut live = Live::new(INPUT, 1);
    assert_eq!(live.check(&good(0, 500)).total(), 0);
    let mut next = good(500, 600);
    next.rows[0].number = 3;
    assert_eq!(live.check(&next).count(Kind::Disorder), 1);
}

#[test]
fn a_row_above_the_position_is_inconsistent() {
    let above = |all: &mut Snapshot| all.rows.push(row(END));
    assert_eq!(faults(above), [Kind::Inconsistent].into());
    let letter = |all: &mut Snapshot| {
        all.letters.push(Letter {
            partition: 0,
            offset: END + 3,
            code: "crc".to_owned(),
        });
    };
    assert_eq!(faults(letter), [Kind::Inconsistent].into());
}

#[test]
fn a_position_ahead_of_its_rows_has_lost_them() {
    let ahead = |all: &mut Snapshot| {
        all.positions[0].next += 40;
        all.positions[0].ledger = None;
    };
    assert!(faults(ahead).contains(&Kind::Lost));
}

#[test]
fn a_position_that_goes_back_is_inconsistent() {
    let mut live = Live::new(INPUT, 1);
    assert_eq!(live.check(&good(0, 500)).total(), 0);
    assert_eq!(live.check(&good(500, 400)).count(Kind::Inconsistent), 1);
}

#[test]
fn a_ledger_that_does_not_say_what_became_of_the_records_is_inconsistent() {
    let moved = |all: &mut Snapshot| {
        let ledger = all.positions[0].ledger.as_mut().unwrap();
        // it still adds up
        ledger[1] -= 1;
        ledger[2] += 1;
    };
    assert_eq!(faults(moved), [Kind::Inconsistent].into());
}

#[test]
fn a_record_that_is_two_things_is_seen() {
    let filtered = fated(|fate| fate == Fate::Filtered);
    let both = |all: &mut Snapshot| {
        all.rows.insert(0, row(filtered));
    };
    assert!(faults(both).contains(&Kind::Inconsistent));
    let dead = fated(|fate| matches!(fate, Fate::Dead(_)));
    let both = |all: &mut Snapshot| all.rows.push(row(dead));
    assert!(faults(both).contains(&Kind::Inconsistent));
    let emitted = fated(|fate| matches!(fate, Fate::Emitted(_)));
    let both = |all: &mut Snapshot| {
        all.letters.push(Letter {
            partition: 0,
            offset: emitted,
            code: "crc".to_owned(),
        });
    };
    assert_eq!(faults(both), [Kind::Inconsistent].into());
}

#[test]
fn a_lost_or_mistaken_dead_letter_is_seen() {
    assert_eq!(faults(|all| drop(all.letters.pop())), [Kind::Lost].into());
    let other = |all: &mut Snapshot| all.letters[0].code = "other".to_owned();
    assert_eq!(faults(other), [Kind::Inconsistent].into());
}

#[test]
fn another_content_or_two_versions_of_one_record_are_seen() {
    let other = |all: &mut Snapshot| all.rows[5].id = "0-other".to_owned();
    assert_eq!(faults(other), [Kind::Inconsistent].into());
    let versions = |all: &mut Snapshot| {
        let second = all.rows.iter_mut().find(|row| row.index == 1).unwrap();
        second.version = "b".to_owned();
    };
    assert_eq!(faults(versions), [Kind::Inconsistent].into());
}

#[test]
fn an_upserted_row_that_is_stale_or_a_ghost_is_seen() {
    let stale = |all: &mut Snapshot| {
        let latest = all.latest.as_mut().unwrap();
        latest.values_mut().next().unwrap().offset -= 1;
    };
    assert_eq!(faults(stale), [Kind::Inconsistent].into());
    let gone = |all: &mut Snapshot| drop(all.latest.as_mut().unwrap().pop_first());
    assert_eq!(faults(gone), [Kind::Inconsistent].into());
}

#[test]
fn rows_of_a_partition_that_is_not_there_are_foreign() {
    let foreign = |all: &mut Snapshot| {
        all.rows.push(Row {
            partition: 9,
            ..row(0)
        });
    };
    assert_eq!(faults(foreign), [Kind::Foreign].into());
}
