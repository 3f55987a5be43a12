//! Guarded routes that keep what they delete: whatever order partitions bring a key in, the greatest guard decides.

use std::collections::BTreeMap;

use wasmill::anchor::{Anchor, Claim, CommitError};
use wasmill::postgres::{PostgresAnchor, PostgresRoute};
use wasmill::record::{Op, RowBatch};
use wasmill::sink::Merger;

use crate::support::{Is, Place, claim, commit, ensure, push, route};

/// `kept(id int64 key, v text not null, at int64 guard, …)`, with a list in it where it travels row-wise.
fn kept(list: bool) -> PostgresRoute {
    let mut columns = vec![
        ("id", "int64", false),
        ("v", "text", false),
        ("at", "int64", false),
    ];
    if list {
        columns.push(("tags", "list<text>", true));
    }
    let mut route = route("kept", &[0], &columns);
    route.guard = Some(2);
    route.deleted_at = Some("deleted_at".to_owned());
    route
}

/// One change of a key, of the record `source` of its batch.
#[derive(Clone, Copy, Debug)]
struct Change {
    key: i64,
    guard: i64,
    op: Op,
}

fn add(rows: &mut RowBatch, source: u32, change: Change, list: bool) {
    let text = format!("v{}", change.guard);
    let mut cells = vec![
        Is::Int(change.key),
        match change.op {
            Op::Write => Is::Text(&text),
            Op::Delete => Is::Unset,
        },
        Is::Int(change.guard),
    ];
    if list {
        cells.push(match change.op {
            Op::Write => Is::Null,
            Op::Delete => Is::Unset,
        });
    }
    push(rows, source, change.op, &cells);
}

/// Numbers that look random and are the same for a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// Commits the next `changes` of a partition, merged as a lane merges them.
async fn fly(anchor: &PostgresAnchor, owner: &Claim, next: i64, changes: &[Change], list: bool) {
    let mut rows = RowBatch::default();
    for (source, change) in (0..).zip(changes) {
        add(&mut rows, source, *change, list);
    }
    let mut merged = RowBatch::default();
    let route = kept(list);
    Merger::new(&route.key, &route.columns, route.guard).merge(
        &rows,
        0..changes.len(),
        &mut merged,
    );
    let to = next + i64::try_from(changes.len()).unwrap();
    commit(anchor, owner, next..to, &merged, &[]).await.unwrap();
}

async fn any_order_of_partitions_ends_as_the_fold(list: bool) {
    const KEYS: usize = 5;
    const CHANGES: usize = 80;
    let place = Place::new().await;
    let anchor = place.anchor(vec![kept(list)]).await;
    let mut deleted = 0;
    for seed in 1..=12_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        place
            .sql
            .batch_execute("TRUNCATE geo.kept; UPDATE wasmill.position SET next = 100")
            .await
            .unwrap();
        // Every change has a guard of its own and comes through any partition, at any time.
        let mut guards: Vec<usize> = (0..CHANGES).collect();
        for at in (1..CHANGES).rev() {
            guards.swap(at, dice.below(at + 1));
        }
        let mut partitions: [Vec<Change>; 4] = std::array::from_fn(|_| Vec::new());
        for guard in guards {
            let op = if dice.below(3) == 0 {
                Op::Delete
            } else {
                Op::Write
            };
            partitions[dice.below(4)].push(Change {
                key: i64::try_from(dice.below(KEYS)).unwrap(),
                guard: i64::try_from(guard).unwrap(),
                op,
            });
        }
        // A delete leaves the time of its record, which follows from the offset.
        let mut fold: BTreeMap<i64, (i64, String)> = BTreeMap::new();
        for changes in &partitions {
            for (offset, change) in (100..).zip(changes) {
                let now = match change.op {
                    Op::Write => format!("v{}", change.guard),
                    Op::Delete => format!("gone {}", 1_700_000_000_000_i64 + offset),
                };
                let known = fold.entry(change.key).or_insert((-1, String::new()));
                if change.guard >= known.0 {
                    *known = (change.guard, now);
                }
            }
        }
        deleted += fold
            .values()
            .filter(|(_, now)| now.starts_with('g'))
            .count();
        let mut owners = Vec::new();
        for partition in 0..4 {
            owners.push((claim(&anchor, partition).await, 0));
        }
        while let Some(open) = {
            let open: Vec<usize> = (0..4)
                .filter(|at| owners[*at].1 < partitions[*at].len())
                .collect();
            (!open.is_empty()).then(|| open[dice.below(open.len())])
        } {
            let (owner, done) = &mut owners[open];
            let left = &partitions[open][*done..];
            let some = &left[..=dice.below(left.len().min(9))];
            fly(
                &anchor,
                owner,
                100 + i64::try_from(*done).unwrap(),
                some,
                list,
            )
            .await;
            *done += some.len();
            *owner = claim(&anchor, i32::try_from(open).unwrap()).await;
        }
        let want: Vec<String> = fold
            .iter()
            .map(|(key, (guard, now))| format!("{key}@{guard}={now};"))
            .collect();
        let found = place
            .text(
                "SELECT concat(id, '@', at, '=', v, CASE WHEN deleted_at IS NOT NULL THEN \
                 'gone ' || (extract(epoch FROM deleted_at) * 1000)::int8 END, ';') FROM geo.kept ORDER BY id",
            )
            .await;
        assert_eq!(found, want.join(" "), "seed {seed}");
    }
    assert!(deleted > 5, "deletes decide some keys: {deleted}");
}

#[tokio::test]
async fn any_order_of_partitions_ends_as_the_fold_in_columns() {
    any_order_of_partitions_ends_as_the_fold(false).await;
}

#[tokio::test]
async fn any_order_of_partitions_ends_as_the_fold_in_rows() {
    any_order_of_partitions_ends_as_the_fold(true).await;
}

#[tokio::test]
async fn an_older_row_does_not_come_back_and_a_newer_one_does() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![kept(false)]).await;
    let change = |guard, op| Change { key: 1, guard, op };
    let steps = [
        (
            change(7, Op::Delete),
            "-7",
            "a delete of what is not there yet stays",
        ),
        (change(6, Op::Write), "-7", "older"),
        (change(7, Op::Write), "v77", "of equal ones the later"),
        (change(8, Op::Delete), "-8", "newer"),
        (change(9, Op::Write), "v99", "written again"),
        (change(8, Op::Delete), "v99", "an older delete"),
    ];
    for (offset, (change, want, why)) in (100..).zip(steps) {
        let owner = claim(&anchor, 0).await;
        fly(&anchor, &owner, offset, &[change], false).await;
        let sql =
            "SELECT concat(CASE WHEN deleted_at IS NULL THEN v ELSE '-' END, at) FROM geo.kept";
        assert_eq!(place.text(sql).await, want, "{why}");
    }
}

#[tokio::test]
async fn the_table_has_to_take_what_a_delete_leaves() {
    let place = Place::new().await;
    place
        .sql
        .batch_execute(
            "CREATE SCHEMA geo; CREATE TABLE geo.kept (id int8 PRIMARY KEY, v text NOT NULL, at int8 NOT NULL)",
        )
        .await
        .unwrap();
    let settings = place.settings(vec![kept(false)]);
    let error = ensure(&settings).await.unwrap_err();
    assert!(
        error.detail().contains("\"deleted_at\" is missing")
            && error.detail().contains("\"v\" is NOT NULL"),
        "{error}"
    );
    let hint = error.hint_text().unwrap();
    let ddl = hint.split_once('\n').unwrap().1;
    place.sql.batch_execute(ddl).await.unwrap();
    ensure(&settings).await.unwrap();
}

#[tokio::test]
async fn without_deleted_at_a_guarded_delete_is_refused() {
    let place = Place::new().await;
    let mut hard = kept(false);
    hard.deleted_at = None;
    let anchor = place.anchor(vec![hard]).await;
    let owner = claim(&anchor, 0).await;
    let mut rows = RowBatch::default();
    let gone = Change {
        key: 1,
        guard: 1,
        op: Op::Delete,
    };
    add(&mut rows, 0, gone, false);
    let outcome = commit(&anchor, &owner, 100..101, &rows, &[]).await;
    assert!(
        matches!(&outcome, Err(CommitError::Refused(error)) if error.detail().contains("deleted_at")),
        "{outcome:?}"
    );
    assert_eq!(anchor.stored().await.unwrap()[0].next, 100);
}
