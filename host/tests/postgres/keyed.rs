//! Writes by key: upserts, deletes, guards, appends, many rows.

use wasmill::anchor::CommitError;
use wasmill::record::{Op, RowBatch};

use crate::support::{Is, Place, claim, commit, push, quake_rows, quakes, route};

#[tokio::test]
async fn writes_and_deletes_of_one_flight() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    commit(
        &anchor,
        &owner,
        100..101,
        &quake_rows(&[(1, "a"), (2, "b"), (3, "c")]),
        &[],
    )
    .await
    .unwrap();
    let mut rows = RowBatch::default();
    push(&mut rows, 0, Op::Delete, &[Is::Int(3), Is::Unset]);
    push(&mut rows, 0, Op::Write, &[Is::Int(2), Is::Null]);
    push(&mut rows, 0, Op::Delete, &[Is::Int(1), Is::Unset]);
    push(&mut rows, 0, Op::Write, &[Is::Int(4), Is::Text("d")]);
    push(&mut rows, 0, Op::Delete, &[Is::Int(99), Is::Unset]);
    commit(&anchor, &owner, 101..102, &rows, &[]).await.unwrap();
    assert_eq!(
        place
            .text("SELECT id || ':' || coalesce(place, '-') FROM geo.quakes ORDER BY id")
            .await,
        "2:- 4:d"
    );
}

#[tokio::test]
async fn keys_of_several_columns_in_another_order_than_the_table() {
    let place = Place::new().await;
    let columns = [
        ("v", "text", true),
        ("b", "text", false),
        ("a", "int64", false),
    ];
    let anchor = place.anchor(vec![route("pairs", &[2, 1], &columns)]).await;
    let owner = claim(&anchor, 0).await;
    let mut rows = RowBatch::default();
    for (a, b, v) in [(2, "x", "first"), (1, "y", "second"), (1, "x", "third")] {
        push(
            &mut rows,
            0,
            Op::Write,
            &[Is::Text(v), Is::Text(b), Is::Int(a)],
        );
    }
    commit(&anchor, &owner, 100..101, &rows, &[]).await.unwrap();
    rows.clear();
    push(
        &mut rows,
        0,
        Op::Delete,
        &[Is::Unset, Is::Text("x"), Is::Int(1)],
    );
    commit(&anchor, &owner, 101..102, &rows, &[]).await.unwrap();
    assert_eq!(
        place
            .text("SELECT concat(a, b, v) FROM geo.pairs ORDER BY a")
            .await,
        "1ysecond 2xfirst"
    );
}

#[tokio::test]
async fn an_older_guard_changes_nothing_and_deletes_are_refused() {
    let place = Place::new().await;
    let mut guarded = route(
        "guarded",
        &[0],
        &[
            ("id", "int64", false),
            ("v", "text", true),
            ("at", "int64", false),
        ],
    );
    guarded.guard = Some(2);
    let anchor = place.anchor(vec![guarded]).await;
    let owner = claim(&anchor, 0).await;
    for (from, at, text) in [
        (100, 5, "five"),
        (101, 4, "four"),
        (102, 5, "five again"),
        (103, 3, "three"),
    ] {
        let mut rows = RowBatch::default();
        push(
            &mut rows,
            0,
            Op::Write,
            &[Is::Int(1), Is::Text(text), Is::Int(at)],
        );
        commit(&anchor, &owner, from..from + 1, &rows, &[])
            .await
            .unwrap();
    }
    assert_eq!(
        place.text("SELECT v || at FROM geo.guarded").await,
        "five again5"
    );
    let mut rows = RowBatch::default();
    push(
        &mut rows,
        0,
        Op::Delete,
        &[Is::Int(1), Is::Unset, Is::Unset],
    );
    let outcome = commit(&anchor, &owner, 104..105, &rows, &[]).await;
    let Err(CommitError::Refused(error)) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        error.detail().contains("guard") && error.detail().contains("offset 104"),
        "{error}"
    );
}

#[tokio::test]
async fn appends_keep_every_row_and_refuse_deletes_and_unset() {
    let place = Place::new().await;
    let anchor = place
        .anchor(vec![route(
            "log",
            &[],
            &[("id", "int64", false), ("v", "text", true)],
        )])
        .await;
    let owner = claim(&anchor, 0).await;
    commit(
        &anchor,
        &owner,
        100..101,
        &quake_rows(&[(1, "a"), (1, "a"), (0, "b")]),
        &[],
    )
    .await
    .unwrap();
    assert_eq!(
        place.text("SELECT concat(id, v) FROM geo.log").await,
        "1a 1a 0b",
        "in order, repeats kept"
    );
    for (op, cells) in [
        (Op::Delete, [Is::Int(1), Is::Unset]),
        (Op::Write, [Is::Int(1), Is::Unset]),
        (Op::Write, [Is::Null, Is::Null]),
    ] {
        let mut rows = RowBatch::default();
        push(&mut rows, 0, op, &cells);
        let outcome = commit(&anchor, &owner, 101..102, &rows, &[]).await;
        assert!(
            matches!(outcome, Err(CommitError::Refused(_))),
            "{outcome:?}"
        );
    }
    assert_eq!(place.next(0).await, 101);
}

#[tokio::test]
async fn a_key_twice_in_one_flight_is_our_bug_and_changes_nothing() {
    let place = Place::new().await;
    let anchor = place.anchor(vec![quakes()]).await;
    let owner = claim(&anchor, 0).await;
    let outcome = commit(
        &anchor,
        &owner,
        100..101,
        &quake_rows(&[(1, "a"), (1, "b")]),
        &[],
    )
    .await;
    assert!(matches!(outcome, Err(CommitError::Stop(_))), "{outcome:?}");
    assert_eq!(place.next(0).await, 100);
}
