//! What is kept, and up to which number.

use serde_json::json;

use super::*;

#[test]
fn age_drops_what_is_said_and_then_what_is_written() {
    let mut paper = Paper::default();
    let total = KEPT_REVISIONS as u64 + 60;
    let mut losers = Vec::new();
    for revision in 1..=total {
        paper.push(write(&entry(deploy("orders", revision, revision))));
        if revision % 20 == 0 {
            let loser = entry(deploy("orders", revision, 10_000 + revision));
            losers.push(loser.key());
            paper.push(write(&loser));
        }
    }
    let live = paper.state();
    let history = live.history("orders");
    assert_eq!((history.len(), history[0].revision), (KEPT_REVISIONS, 61));
    losers.sort();
    let removable = live.removable();
    assert_eq!(removable.len(), losers.len() + 60);
    assert_eq!(removable[..losers.len()], losers, "losers go first");
    assert!(
        removable[losers.len()].starts_with("deploy/orders/1/"),
        "then winners, the oldest first"
    );
    for key in removable {
        paper.push((key.into_bytes(), None));
        // Whatever a cleaner that stops anywhere leaves, a new host ends with the same state.
        let end = paper.0.len();
        assert_eq!(seen(&paper.compacted(end).state()), seen(&live));
    }
    assert_eq!(seen(&paper.state()), seen(&live));
    assert_eq!(paper.state().removable(), <[String; 0]>::default());
    let mut compacted = paper.compacted(paper.0.len()).state();
    assert_eq!(
        apply(&mut compacted, &entry(deploy("orders", total + 1, 1))),
        Applied::Accepted
    );
    rejected(apply(&mut compacted, &entry(deploy("orders", total, 2))));
}

#[test]
fn segments_stats_and_refusals_are_kept_up_to_a_number() {
    let mut paper = Paper::default();
    let segment = |partition: i32, at: i64, number: u64| {
        entry(Change::Segment {
            pipeline: "orders".to_owned(),
            partition,
            at,
            release: release(number).id,
        })
    };
    for number in 0..KEPT_SEGMENTS as u64 + 10 {
        paper.push(write(&segment(
            0,
            i64::try_from(number).unwrap() * 100,
            number,
        )));
    }
    paper.push(write(&segment(1, 7, 1)));
    paper.push(write(&segment(1, 7, 2)));
    paper.push(write(&segment(1, 7, 2)));
    for number in 0..KEPT_DENIALS + 10 {
        let (by, what, why) = (
            "eve".to_owned(),
            format!("deploy {number}"),
            "role read".to_owned(),
        );
        paper.push(write(&entry(Change::Denied { by, what, why })));
    }
    for number in 0..KEPT_DONE + 10 {
        paper.push(write(&entry(Change::Done {
            pipeline: "orders".to_owned(),
            action: "drop dead letters".to_owned(),
            outcome: format!("{number} of them"),
        })));
    }
    for number in 0..5 {
        let (pipeline, host) = ("orders".to_owned(), "h1".to_owned());
        paper.push(write(&entry(Change::Stat {
            pipeline,
            host,
            body: json!({"records": number}),
        })));
    }
    let state = paper.state();
    let segments: Vec<_> = state.segments("orders").collect();
    assert_eq!(segments.len(), KEPT_SEGMENTS + 1);
    assert_eq!((segments[0].0, segments[0].1.at), (0, 1000));
    let (partition, last) = segments[KEPT_SEGMENTS];
    assert_eq!(
        (partition, last.at, &last.release),
        (1, 7, &release(2).id),
        "the latest at an offset counts"
    );
    let denied: Vec<_> = state.denied().map(|denial| denial.what.clone()).collect();
    assert_eq!(
        (denied.len(), denied[0].as_str()),
        (KEPT_DENIALS, "deploy 10")
    );
    let stats: Vec<_> = state
        .stats("orders")
        .map(|(host, stat)| (host, stat.body.clone()))
        .collect();
    assert_eq!(stats, [("h1", json!({"records": 4}))]);
    let done: Vec<_> = state.done().map(|done| done.outcome.as_str()).collect();
    assert_eq!((done.len(), done[0]), (KEPT_DONE, "10 of them"));
    assert_eq!(state.removable().len(), 30);
    assert!(
        state.pipeline("orders").is_none(),
        "numbers alone are no pipeline"
    );
    for key in state.removable() {
        paper.push((key.into_bytes(), None));
    }
    assert_eq!(seen(&paper.state()), seen(&state));
    assert_eq!(seen(&paper.compacted(paper.0.len()).state()), seen(&state));
}
