//! A release on trial beside the one in charge, and the numbers of releases side by side.

use std::sync::Arc;
use std::time::Duration;

use super::guest::{Act, FakePlugin};
use super::stand::{Acts, Host, Stand, beside, id, until};
use super::world::{Sinks, batch, on_a_shard, plan};
use crate::manifest::{DataPolicy, ErrorPolicy};
use crate::pipeline::conduct::Place;
use crate::pipeline::lane::{LaneEnd, Mode};
use crate::pipeline::{Desired, Differences, Release};

const ERRORS: ErrorPolicy = ErrorPolicy {
    data: DataPolicy::DeadLetter,
    max_rate: None,
};

fn mixed(offset: i64) -> Act {
    match offset % 10 {
        7 => Act::Filter,
        8 => Act::Reject,
        _ => Act::Row,
    }
}

/// A release that signs its rows like the first one, with its routes the other way round.
fn trial(name: &str, acts: impl Fn(i64) -> Act + Send + Sync + 'static) -> Arc<Release> {
    let mut plan = plan(Sinks::Both);
    plan.routes.reverse();
    let acts: Acts = Arc::new(acts);
    let plugin = FakePlugin {
        acts,
        routes: plan.routes.iter().map(|route| route.merges()).collect(),
        release: 1,
        init: None,
        made: Arc::default(),
    };
    Arc::new(Release::new(name, Arc::new(plan), ERRORS, Arc::new(plugin)).unwrap())
}

fn beside_first(stand: &Stand, shadow: &Arc<Release>) -> Desired {
    Desired {
        shadow: Some(Arc::clone(shadow)),
        ..Desired::only(stand.make(1))
    }
}

fn seen(stand: &Stand) -> Differences {
    let lanes = stand.counters.lanes();
    lanes[0].shadow.clone().expect("a shadow was there")
}

/// Sends `[from, to)` and waits until it is committed.
async fn through(stand: &Stand, host: &mut Host<'static>, from: i64, to: i64) {
    let inlet = host.inlet.clone();
    let script = async {
        inlet.send(batch(0, from..to)).unwrap();
        until("committed", || stand.position() == to).await;
    };
    let ended = beside(&mut host.run, script).await.0;
    assert!(ended.is_none(), "{ended:?}");
}

async fn drained(host: Host<'static>) {
    host.mode.send_replace(Mode::Drain);
    let end = host.run.await;
    assert!(matches!(end, LaneEnd::Done), "{end:?}");
}

#[test]
fn routes_are_matched_by_name_and_equal_rows_are_no_difference() {
    on_a_shard(async {
        let stand = Stand::new(Sinks::Both, mixed).await;
        stand
            .desired
            .send_replace(beside_first(&stand, &trial("same", mixed)));
        let mut host = stand.host().await;
        through(&stand, &mut host, 0, 100).await;
        through(&stand, &mut host, 100, 1500).await;
        drained(host).await;
        let seen = seen(&stand);
        assert_eq!(
            (&*seen.release, seen.compared, seen.differing),
            ("same", 1500, 0)
        );
        assert_eq!((seen.first, seen.stopped), (vec![], None));
        assert_eq!(
            stand.check(&(0..1500).collect::<Vec<_>>()),
            Vec::<String>::new()
        );
    });
}

#[test]
fn differences_are_counted_the_first_are_shown_and_nothing_is_written() {
    on_a_shard(async {
        let stand = Stand::new(Sinks::Both, mixed).await;
        let other = trial("other", |offset| match offset % 10 {
            3 => Act::Filter,
            5 => Act::Trap,
            7 => Act::Row,
            _ => mixed(offset),
        });
        stand.desired.send_replace(beside_first(&stand, &other));
        let mut host = stand.host().await;
        through(&stand, &mut host, 0, 200).await;
        let now = seen(&stand);
        assert_eq!(
            (now.compared, now.differing, now.first.len()),
            (200, 60, 20)
        );
        let text = |offset: i64| {
            let one = now.first.iter().find(|one| one.offset == offset).unwrap();
            (one.now.clone(), one.shadow.clone())
        };
        let row = text(3).0;
        assert!(
            row.starts_with("write keyed ") && row.contains("; write rows "),
            "{row}"
        );
        assert_eq!(text(3).1, "filtered");
        assert_eq!(text(5).1, "dead letter trap");
        assert_eq!(text(7).0, "filtered");
        assert!(text(7).1.starts_with("write keyed "), "{:?}", text(7));
        drained(host).await;
        // The next lane counts on, and what is no longer asked for stays to be read.
        let mut host = stand.host().await;
        through(&stand, &mut host, 200, 210).await;
        assert_eq!((seen(&stand).compared, seen(&stand).differing), (210, 63));
        stand.desired.send_replace(Desired::only(stand.make(1)));
        through(&stand, &mut host, 210, 220).await;
        assert_eq!((seen(&stand).compared, seen(&stand).differing), (210, 63));
        // Another one starts from nothing.
        stand
            .desired
            .send_replace(beside_first(&stand, &trial("third", mixed)));
        through(&stand, &mut host, 220, 230).await;
        drained(host).await;
        assert_eq!(
            (&*seen(&stand).release, seen(&stand).compared),
            ("third", 10)
        );
        assert_eq!(stand.wrote(), [(0, 230, 1)]);
        assert_eq!(
            stand.check(&(0..230).collect::<Vec<_>>()),
            Vec::<String>::new()
        );
        // The second claim tells again what decided before it: the first owner might have died before it was heard.
        assert_eq!(stand.begins(), [(0, id(1)), (0, id(1)), (200, id(1))]);
    });
}

#[test]
fn a_shadow_that_stops_stops_alone() {
    for act in [Act::Fatal, Act::Endless] {
        on_a_shard(async {
            let stand = Stand::new(Sinks::Here, mixed).await;
            // Where a call past its time is waited for.
            let calm = Duration::from_secs(600);
            stand.place.set(Place::Quarantine { calm });
            let bad = trial(
                "bad",
                move |offset| if offset == 15 { act } else { mixed(offset) },
            );
            stand.desired.send_replace(beside_first(&stand, &bad));
            let mut host = stand.host().await;
            through(&stand, &mut host, 0, 10).await;
            through(&stand, &mut host, 10, 20).await;
            through(&stand, &mut host, 20, 40).await;
            drained(host).await;
            let seen = seen(&stand);
            assert_eq!(seen.compared, 10, "{act:?}");
            assert!(seen.stopped.is_some(), "{act:?}");
            assert_eq!(
                stand.check(&(0..40).collect::<Vec<_>>()),
                Vec::<String>::new()
            );
            assert!(stand.counters.lanes()[0].failure.is_none());
        });
    }
}

#[test]
fn the_numbers_of_each_release_balance_and_add_up() {
    on_a_shard(async {
        let stand = Stand::new(Sinks::Both, mixed).await;
        let mut host = stand.host().await;
        for release in 1..4 {
            if release > 1 {
                stand.ask(release);
            }
            let from = (release - 1) * 100;
            through(&stand, &mut host, from, from + 100).await;
        }
        drained(host).await;
        let lanes = stand.counters.lanes();
        assert_eq!(lanes.len(), 3);
        for (lane, release) in lanes.iter().zip(1..) {
            let totals = &lane.totals;
            assert_eq!(&*lane.release, id(release));
            assert_eq!(
                totals.received,
                totals.emitted + totals.filtered + totals.dead
            );
            assert_eq!(
                (totals.received, totals.filtered, totals.dead),
                (100, 10, 10)
            );
            assert_eq!(totals.dead_by_code.values().sum::<u64>(), totals.dead);
            assert_eq!(lane.position, Some(release * 100));
            assert!(!lane.running);
        }
        let all = stand.counters.totals();
        assert_eq!((all.received, all.rows), (300, vec![240, 240]));
        assert_eq!(
            stand.check(&(0..300).collect::<Vec<_>>()),
            Vec::<String>::new()
        );
    });
}
