//! One partition, one upgrade (or a few) at a time, through [`Partition::run`](super::super::segments::Partition).

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fakes::{Broken, Fault};
use super::guest::Act;
use super::stand::{Host, Stand, batch_of, beside, id, on_trial, until};
use super::world::{Sinks, batch, on_a_shard};
use crate::anchor::{Anchor as _, Cut, Pin};
use crate::error::Blame;
use crate::pipeline::Desired;
use crate::pipeline::conduct::Place;
use crate::pipeline::lane::{Connections, LaneEnd, Mode};
use crate::pipeline::ownership::{GRANT, Ownership};
use crate::source::Inlet;

pub(super) fn emit(_: i64) -> Act {
    Act::Row
}

pub(super) fn all(to: i64) -> Vec<i64> {
    (0..to).collect()
}

pub(super) const NOTHING: Vec<String> = Vec::new();

/// A stand of its own on a shard of its own for each kind of sinks; which one it was stands above a failure.
fn for_each(kinds: &[Sinks], test: impl AsyncFn(Stand)) {
    for sinks in kinds {
        eprintln!("with {sinks:?}");
        on_a_shard(async { test(Stand::new(*sinks, emit).await).await });
    }
}

/// Ends a host in order and expects that.
pub(super) async fn drained(mut host: Host<'static>) {
    host.mode.send_replace(Mode::Drain);
    let run = std::mem::replace(&mut host.run, Box::pin(std::future::pending()));
    let end = run.await;
    assert!(matches!(end, LaneEnd::Done), "{end:?}");
}

/// Runs a script beside a host that must not end by itself.
pub(super) async fn play<T>(host: &mut Host<'static>, script: impl AsyncFnOnce(&Inlet) -> T) -> T {
    let inlet = host.inlet.clone();
    let (ended, value) = beside(&mut host.run, script(&inlet)).await;
    assert!(ended.is_none(), "{ended:?}");
    value
}

/// A host from its claim to its drain, with a script beside it.
async fn served(stand: &Stand, script: impl AsyncFnOnce(&Inlet)) {
    let mut host = stand.host().await;
    play(&mut host, script).await;
    drained(host).await;
}

/// Everything that has to hold once the records below `to` are through.
fn holds(stand: &Stand, to: i64) {
    assert_eq!(stand.check(&all(to)), NOTHING);
}

pub(super) fn committed(stand: &Stand, to: i64) -> impl Fn() -> bool + '_ {
    move || stand.wrote().last().is_some_and(|last| last.1 >= to)
}

/// The first release, and another on one partition.
fn canary(stand: &Stand, release: i64, partition: i32) -> Desired {
    Desired {
        canary: on_trial(stand.make(release), &[partition]),
        ..Desired::only(stand.make(1))
    }
}

/// Hands records to a host as one batch and waits until the last is committed.
async fn through(stand: &Stand, inlet: &Inlet, offsets: Range<i64>) {
    let to = offsets.end;
    inlet.send(batch(0, offsets)).unwrap();
    until("committed", committed(stand, to)).await;
}

#[test]
fn a_swap_takes_effect_at_the_position_when_nothing_above_it_was_sent() {
    for_each(&[Sinks::Here, Sinks::Both, Sinks::Ahead], async |stand| {
        served(&stand, async |inlet| {
            // A backlog: what is in flight when the upgrade is asked for ends first.
            for at in 0..40 {
                inlet.send(batch(0, at * 1000..(at + 1) * 1000)).unwrap();
            }
            until("a first commit", || stand.store.lock().attempts >= 3).await;
            stand.ask(2);
            until("all", committed(&stand, 40_000)).await;
        })
        .await;
        holds(&stand, 40_000);
        let wrote = stand.wrote();
        let cut = wrote[0].1;
        assert_eq!(wrote, [(0, cut, 1), (cut, 40_000, 2)]);
        assert!(cut < 35_000, "{cut}");
        assert_eq!(stand.begins(), [(0, id(1)), (cut, id(2))]);
        assert_eq!(stand.cuts(), [(cut, id(2))]);
        assert!(
            stand.scene.loaded.lock().is_empty(),
            "no earlier release was needed"
        );
        // Drained in order, the partition is left without a reservation.
        assert_eq!(stand.host().await.claim.reserved, 40_000);
    });
}

#[test]
fn below_the_reservation_found_at_the_claim_the_earlier_release_goes_on() {
    for_each(&[Sinks::Both, Sinks::Ahead], async |stand| {
        stand.leave_reserved(50).await;
        stand.ask(2);
        served(&stand, async |inlet| {
            // A batch that spans the cut is split.
            inlet.send(batch(0, 0..60)).unwrap();
            until("all", || {
                stand.wrote().last().is_some_and(|last| last.2 == 2)
            })
            .await;
        })
        .await;
        holds(&stand, 60);
        assert_eq!(stand.wrote(), [(0, 50, 1), (50, 60, 2)]);
        assert_eq!(stand.begins(), [(0, id(1)), (50, id(2))]);
        assert_eq!(*stand.scene.loaded.lock(), [id(1)]);
    });
}

#[test]
fn a_cut_in_a_gap_belongs_to_the_next_record() {
    for_each(&[Sinks::Both, Sinks::Ahead], async |stand| {
        let log = [0, 3, 40, 70, 90];
        stand.leave_reserved(55).await;
        stand.ask(2);
        served(&stand, async |inlet| {
            inlet.send(batch_of(&log, 0, 41)).unwrap();
            until("the first batch", || !stand.store.lock().wrote.is_empty()).await;
            // Fetched from a position below the cut, with its first record above.
            inlet.send(batch_of(&log, 41, 91)).unwrap();
            until("the second", || stand.store.lock().wrote.contains_key(&90)).await;
        })
        .await;
        assert_eq!(stand.wrote(), [(0, 41, 1), (41, 91, 2)]);
        assert_eq!(stand.check(&log), NOTHING);
        assert_eq!(stand.begins(), [(0, id(1)), (41, id(2))]);
    });
}

#[test]
fn an_idle_partition_swaps_again_and_again() {
    for_each(&[Sinks::Here, Sinks::Both, Sinks::Ahead], async |stand| {
        served(&stand, async |inlet| {
            inlet.send(batch(0, 0..10)).unwrap();
            until("a commit", || {
                stand.begins().len() == 1 && stand.store.lock().wrote.len() >= 5
            })
            .await;
            for release in 2..6 {
                stand.ask(release);
                until("a swap without a record", || {
                    stand.begins().last() == Some(&(10, id(release)))
                })
                .await;
            }
            inlet.send(batch(0, 10..20)).unwrap();
            until("the next record", || {
                stand.store.lock().wrote.contains_key(&19)
            })
            .await;
        })
        .await;
        holds(&stand, 20);
        assert_eq!(stand.wrote(), [(0, 10, 1), (10, 20, 5)]);
    });
}

#[test]
fn a_swap_in_a_backlog_leaves_the_next_one_free() {
    // The owner of a grant knows what it sent under it: a claim of its own in between makes that no less known.
    for_each(&[Sinks::Both, Sinks::Ahead], async |stand| {
        served(&stand, async |inlet| {
            inlet.send(batch(0, 0..2000)).unwrap();
            until("a flight", || stand.store.lock().attempts >= 1).await;
            stand.ask(2);
            inlet.send(batch(0, 2000..2010)).unwrap();
            until("the second release", || {
                stand.store.lock().wrote.contains_key(&2009)
            })
            .await;
            stand.ask(3);
            until("the third", || {
                stand.begins().last() == Some(&(2010, id(3)))
            })
            .await;
        })
        .await;
        holds(&stand, 2010);
    });
}

#[test]
fn of_several_upgrades_before_the_first_took_effect_the_last_does() {
    for_each(&[Sinks::Both], async |stand| {
        stand.leave_reserved(50).await;
        stand.ask(2);
        served(&stand, async |inlet| {
            for (release, to) in [(3, 10), (4, 20)] {
                until("asked for", || {
                    stand.cuts().last().map(|last| last.1.clone()) == Some(id(release - 1))
                })
                .await;
                through(&stand, inlet, to - 10..to).await;
                stand.ask(release);
            }
            until("asked for", || stand.cuts().len() == 4).await;
            let at: Vec<i64> = stand.cuts().iter().map(|cut| cut.0).collect();
            assert_eq!(at[..2], [0, 50]);
            assert!(at[1] <= at[2] && at[2] <= at[3], "{at:?}");
            // As far as every one of them.
            through(&stand, inlet, 20..12_000).await;
        })
        .await;
        holds(&stand, 12_000);
        let wrote = stand.wrote();
        assert_eq!((wrote[0], wrote.last().unwrap().2), ((0, 50, 1), 4));
        // Restarted while all of them wait, with the newest only: the others are found, none is skipped.
        let stand = Stand::new(Sinks::Both, emit).await;
        stand.leave_reserved(50).await;
        for release in 2..5 {
            stand.ask(release);
            served(&stand, async |_| {
                until("asked for", || {
                    stand.cuts().last().unwrap().1 == id(release)
                })
                .await;
            })
            .await;
            stand.scene.loaded.lock().clear();
        }
        assert_eq!(
            stand.cuts(),
            [(0, id(1)), (50, id(2)), (50, id(3)), (50, id(4))]
        );
        served(&stand, async |inlet| {
            through(&stand, inlet, 0..60).await;
        })
        .await;
        holds(&stand, 60);
        assert_eq!(stand.wrote(), [(0, 50, 1), (50, 60, 4)]);
    });
}

#[test]
fn back_to_the_old_release_before_the_new_one_began_changes_nothing() {
    for_each(&[Sinks::Both], async |stand| {
        stand.leave_reserved(50).await;
        let mut host = stand.host().await;
        stand.ask(2);
        play(&mut host, async |inlet| {
            until("asked for", || stand.cuts().len() == 2).await;
            stand.ask(1);
            until("taken back", || stand.cuts().len() == 3).await;
            through(&stand, inlet, 0..60).await;
        })
        .await;
        drained(host).await;
        holds(&stand, 60);
        assert_eq!(stand.wrote(), [(0, 60, 1)]);
        assert_eq!(stand.begins(), [(0, id(1))]);
    });
}

#[test]
fn an_earlier_release_that_is_lost_stops_the_lane_and_nobody_takes_its_place() {
    for_each(&[Sinks::Both, Sinks::Ahead], async |stand| {
        stand.leave_reserved(50).await;
        stand.scene.known.lock().clear();
        stand.ask(2);
        let host = stand.host().await;
        host.inlet.send(batch(0, 0..60)).unwrap();
        let LaneEnd::Stopped(error) = host.run.await else {
            panic!("it goes on without release 1");
        };
        assert_eq!(error.blame(), Blame::Config);
        assert!(error.detail().contains("r1"), "{error}");
        assert_eq!((stand.position(), stand.wrote()), (0, vec![]));
        assert_eq!(stand.store.lock().wrote.len(), 0);
        // Found again, it replays, and the newer one follows.
        stand.make(1);
        served(&stand, async |inlet| {
            inlet.send(batch(0, 0..60)).unwrap();
            until("all", || stand.store.lock().wrote.contains_key(&59)).await;
        })
        .await;
        holds(&stand, 60);
        assert_eq!(stand.wrote(), [(0, 50, 1), (50, 60, 2)]);
    });
}

#[test]
fn whatever_becomes_of_a_pin_one_release_an_offset() {
    for fault in [
        Fault::RolledBack,
        Fault::UnknownDone,
        Fault::UnknownNot,
        Fault::UnknownLate,
        Fault::Stolen,
    ] {
        for reserved in [0, 30] {
            for_each(&[Sinks::Here, Sinks::Both, Sinks::Ahead], async |stand| {
                eprintln!("{fault:?}, {reserved} reserved");
                stand.leave_reserved(reserved).await;
                let mut host = stand.host().await;
                play(&mut host, async |inlet| {
                    inlet.send(batch(0, 0..10)).unwrap();
                    until("ten", || stand.store.lock().attempts >= 1).await;
                })
                .await;
                let claims = stand.store.lock().claims;
                stand.store.lock().grants = [fault].into();
                stand.ask(2);
                if fault == Fault::Stolen {
                    let end = host.run.await;
                    assert!(matches!(end, LaneEnd::Fenced(_)), "{end:?}");
                    host = stand.host().await;
                }
                let next = host.claim.next;
                play(&mut host, async |inlet| {
                    if fault == Fault::Stolen {
                        inlet.send(batch_of(&all(10), next, 10)).unwrap();
                    }
                    until("asked for", || stand.cuts().last().unwrap().1 == id(2)).await;
                    inlet.send(batch(0, 10..6000)).unwrap();
                    until("all", || stand.begins().last().unwrap().1 == id(2)).await;
                    until("all", || stand.store.lock().grants.is_empty()).await;
                })
                .await;
                drained(host).await;
                let mut host = stand.host().await;
                let left = batch_of(&all(6000), host.claim.next, 6000);
                play(&mut host, async |inlet| {
                    if !left.is_empty() {
                        inlet.send(left).unwrap();
                    }
                    until("through", || stand.position() == 6000).await;
                })
                .await;
                drained(host).await;
                holds(&stand, 6000);
                assert!(stand.store.lock().claims > claims);
                assert_eq!(stand.wrote().last().unwrap().2, 2);
            });
        }
    }
}

/// A partition at 60, past the reservation that was found, with a cut at a later grant above it.
async fn waiting_above(stand: &Stand) -> Host<'static> {
    stand.leave_reserved(50).await;
    let mut host = stand.host().await;
    play(&mut host, async |inlet| {
        through(stand, inlet, 0..10).await;
        stand.ask(2);
        until("asked for", || stand.cuts().len() == 2).await;
        assert!(stand.cuts()[1].0 > GRANT);
        inlet.send(batch(0, 10..60)).unwrap();
        until("past what was found", || stand.position() == 60).await;
    })
    .await;
    host
}

/// Loses the reply of a lowering, and has a record fetched before the request arrives.
async fn lowered_without_a_reply(broken: Broken) -> Vec<String> {
    let stand = Stand::new(Sinks::Both, emit).await;
    stand.store.lock().broken = broken;
    let mut host = waiting_above(&stand).await;
    stand.store.lock().grants = [Fault::UnknownLate].into();
    play(&mut host, async |inlet| {
        until("lowered", || stand.store.lock().grants.is_empty()).await;
        inlet.send(batch(0, 60..70)).unwrap();
        until("committed", || stand.store.lock().wrote.contains_key(&69)).await;
    })
    .await;
    drop(host);
    let mut host = stand.host().await;
    let left = batch_of(&all(12_000), host.claim.next, 12_000);
    play(&mut host, async |inlet| {
        inlet.send(left).unwrap();
        until("through", || stand.position() == 12_000).await;
    })
    .await;
    drained(host).await;
    stand.check(&all(12_000))
}

#[test]
fn an_idle_partition_lowers_its_grant_and_the_cuts_with_it() {
    on_a_shard(async {
        for broken in [Broken::Nothing, Broken::CutsStay] {
            let stand = Stand::new(Sinks::Both, emit).await;
            let mut host = waiting_above(&stand).await;
            stand.store.lock().broken = broken;
            let swapped = play(&mut host, async |_| {
                tokio::time::sleep(Duration::from_millis(900)).await;
                stand.begins().last() == Some(&(60, id(2))) && stand.cuts() == [(60, id(2))]
            })
            .await;
            assert_eq!(swapped, broken == Broken::Nothing, "{broken:?}");
        }
    });
}

#[test]
fn a_lowering_without_a_reply_is_followed_by_a_claim() {
    on_a_shard(async {
        assert_eq!(lowered_without_a_reply(Broken::Nothing).await, NOTHING);
        let wrong = lowered_without_a_reply(Broken::ReadNotClaim).await;
        assert!(
            !wrong.is_empty(),
            "nobody noticed that it was only read again"
        );
    });
}

#[test]
fn a_lazy_anchor_hands_its_position_on_and_takes_it_back() {
    for_each(&[Sinks::Ahead], async |stand| {
        // Another partition keeps the first release's connections open.
        let mut other = stand.host_of(1).await;
        let mut host = stand.host().await;
        let mut at = 0;
        for release in [1, 2, 1, 2, 3, 1] {
            stand.asked.borrow_mut().push(release);
            stand.desired.send_replace(canary(&stand, release, 0));
            play(&mut host, async |inlet| {
                until("a swap", || stand.began(release)).await;
                inlet.send(batch(0, at..at + 10)).unwrap();
                until("committed", || {
                    stand.store.lock().wrote.contains_key(&(at + 9))
                })
                .await;
            })
            .await;
            at += 10;
        }
        play(&mut other, async |_| tokio::task::yield_now().await).await;
        drained(host).await;
        holds(&stand, 60);
        let order: Vec<i64> = stand.wrote().iter().map(|range| range.2).collect();
        assert_eq!(order, [1, 2, 1, 2, 3, 1]);
    });
}

#[test]
fn connections_that_take_over_without_a_claim_do_not_go_unnoticed() {
    for_each(&[Sinks::Ahead], async |stand| {
        stand.store.lock().broken = Broken::NoClaimAtHandOver;
        // Another partition keeps the first release's connections, and what they knew of this one, open.
        let mut other = stand.host_of(1).await;
        play(&mut other, async |_| {
            tokio::time::sleep(Duration::from_millis(20)).await
        })
        .await;
        let mut host = stand.host().await;
        let inlet = host.inlet.clone();
        let script = async {
            for (release, at) in [(1, 0), (2, 10), (1, 20)] {
                stand.desired.send_replace(canary(&stand, release, 0));
                until("a swap", || stand.began(release)).await;
                inlet.send(batch(0, at..at + 10)).unwrap();
                let wrote = || stand.store.lock().wrote.contains_key(&(at + 9));
                if release == 2 || at == 0 {
                    until("committed", wrote).await;
                }
            }
        };
        let ended = match beside(&mut host.run, script).await.0 {
            Some(ended) => ended,
            None => host.run.await,
        };
        // What the first release's connections remember is no longer where the partition stands.
        assert!(!matches!(ended, LaneEnd::Done), "{ended:?}");
        assert_eq!(stand.position(), 20);
    });
}

#[test]
fn a_position_of_a_host_without_cuts_is_pinned_where_it_stands() {
    for_each(&[Sinks::Both], async |stand| {
        // As an older host left it: sent up to 50, and nothing says by whom.
        let claim = stand.scene.anchor.claim(&[0]).await.unwrap().remove(0);
        let pin = Pin {
            reserved: 50,
            cuts: &[],
        };
        stand.scene.anchor.pin(&claim, 0, pin).await.unwrap();
        let mut host = stand.host().await;
        play(&mut host, async |inlet| {
            through(&stand, inlet, 0..10).await;
        })
        .await;
        assert_eq!(stand.cuts(), [(0, id(1))]);
        // Killed, and upgraded before it starts again.
        drop(host);
        stand.ask(2);
        served(&stand, async |inlet| {
            through(&stand, inlet, 10..9000).await;
        })
        .await;
        holds(&stand, 9000);
        assert!(stand.wrote()[0].1 >= 50, "{:?}", stand.wrote());
    });
}

#[test]
fn a_rollback_is_heard_while_the_new_release_does_not_reach_its_sinks() {
    for_each(&[Sinks::Both], async |stand| {
        stand.scene.away.lock().insert(2);
        served(&stand, async |inlet| {
            through(&stand, inlet, 0..10).await;
            stand.ask(2);
            until("asked for", || stand.cuts() == [(10, id(2))]).await;
            inlet.send(batch(0, 10..20)).unwrap();
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(
                stand.position(),
                10,
                "release 2 is pinned: nobody else may go on"
            );
            stand.ask(1);
            until("the first again", || stand.position() == 20).await;
        })
        .await;
        holds(&stand, 20);
        assert_eq!(stand.wrote(), [(0, 20, 1)]);
        // The same where a host starts.
        stand.ask(2);
        served(&stand, async |inlet| {
            inlet.send(batch(0, 20..30)).unwrap();
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(stand.position(), 20);
            stand.ask(1);
            until("the first again", || stand.position() == 30).await;
        })
        .await;
        holds(&stand, 30);
    });
}

#[test]
fn a_drain_while_a_cut_waits_leaves_the_next_host_the_same_cuts() {
    for_each(&[Sinks::Both], async |stand| {
        stand.leave_reserved(50).await;
        stand.ask(2);
        served(&stand, async |inlet| {
            through(&stand, inlet, 0..10).await;
        })
        .await;
        let found = stand.scene.anchor.inner.read(0);
        assert_eq!(
            found.reserved, 50,
            "not past what was found: nothing is lowered, and nothing raised past the cut"
        );
        stand.ask(3);
        served(&stand, async |inlet| {
            through(&stand, inlet, 10..12_000).await;
        })
        .await;
        holds(&stand, 12_000);
        // The second waited at the cut of the first, so it processes nothing.
        assert_eq!(stand.wrote(), [(0, 50, 1), (50, 12_000, 3)]);
    });
}

/// A claim of the partition, without a lane.
pub(super) async fn own(stand: &Stand) -> Ownership {
    let anchor = &stand.scene.anchor;
    let claim = anchor.claim(&[0]).await.unwrap().remove(0);
    let connections = Connections {
        anchor: Rc::new(anchor.opened(1)),
        ahead: Vec::new(),
    };
    let mode = tokio::sync::watch::channel(Mode::Run).1;
    Ownership::new(Rc::new(connections), claim, mode)
}

#[test]
fn what_was_sent_is_never_lowered_below_nor_cut() {
    for_each(&[Sinks::Both], async |stand| {
        let mut owned = own(&stand).await;
        owned.grant(10).await.unwrap();
        owned.sent.set(7);
        owned.lower().await.unwrap();
        assert_eq!(
            (owned.granted, stand.scene.anchor.inner.reserved(0)),
            (10 + GRANT, 10 + GRANT)
        );
        let only = |release| Desired::only(stand.make(release));
        owned.upgrade(&only(2)).await.unwrap();
        assert_eq!(stand.cuts(), [(0, id(1)), (10 + GRANT, id(2))]);
        // Nothing was sent by the next owner, but it cannot know of the one before.
        let mut owned = own(&stand).await;
        owned.lower().await.unwrap();
        owned.upgrade(&only(3)).await.unwrap();
        assert_eq!(stand.cuts().len(), 3);
        assert_eq!(stand.scene.anchor.inner.reserved(0), 10 + GRANT);
        // A claim of its own in between leaves both as they were.
        owned.claim_anew().await.unwrap();
        owned.lower().await.unwrap();
        assert_eq!(stand.cuts().len(), 3);
        // With nothing sent and nothing found, both go down together.
        let stand = Stand::new(Sinks::Both, emit).await;
        let mut owned = own(&stand).await;
        owned.grant(10).await.unwrap();
        owned.claim.cuts.push(Cut::new(10 + GRANT, id(2)));
        owned.claim_anew().await.unwrap();
        owned.claim.cuts.push(Cut::new(10 + GRANT, id(2)));
        owned.lower().await.unwrap();
        assert_eq!(
            (stand.cuts(), stand.scene.anchor.inner.reserved(0)),
            (vec![(0, id(2))], 0)
        );
    });
}

#[test]
fn a_swap_takes_no_longer_than_what_is_in_flight() {
    for_each(&[Sinks::Both], async |stand| {
        let mut host = stand.host().await;
        let mut took = Vec::new();
        play(&mut host, async |inlet| {
            let mut from = 0;
            for release in 2..52 {
                for _ in 0..4 {
                    inlet.send(batch(0, from..from + 500)).unwrap();
                    from += 500;
                }
                tokio::task::yield_now().await;
                let asked = Instant::now();
                stand.ask(release);
                until("a swap", || stand.began(release)).await;
                took.push(asked.elapsed());
            }
            until("all", committed(&stand, from)).await;
        })
        .await;
        drained(host).await;
        holds(&stand, 100_000);
        took.sort_unstable();
        assert!(took[49] < Duration::from_millis(500), "{took:?}");
        let open = Arc::clone(&stand.scene).opened.lock().len();
        assert_eq!(open, 51, "each release's connections are opened once");
    });
}

#[test]
fn a_misplaced_lane_leaves_nothing_behind_and_goes_on_elsewhere_until_it_is_calm() {
    let acts = |offset| if offset == 25 { Act::Limit } else { Act::Row };
    let calm = Duration::from_millis(300);
    for sinks in [Sinks::Here, Sinks::Both, Sinks::Ahead] {
        on_a_shard(async {
            let stand = Stand::new(sinks, acts).await;
            let mut host = stand.host().await;
            play(&mut host, async |inlet| {
                inlet.send(batch(0, 0..20)).unwrap();
                until("a commit", committed(&stand, 20)).await;
            })
            .await;
            host.inlet.send(batch(0, 20..30)).unwrap();
            let end = host.run.await;
            assert!(matches!(end, LaneEnd::Misplaced(_)), "{end:?}");
            // What was whole before is committed, what misbehaved is to be done again by whoever comes.
            assert_eq!((stand.position(), stand.counters.totals().dead), (20, 0));
            stand.place.set(Place::Quarantine { calm });
            let mut host = stand.host().await;
            assert_eq!(
                (host.claim.next, host.claim.reserved),
                (20, 20),
                "{sinks:?}"
            );
            let came = Instant::now();
            play(&mut host, async |inlet| {
                inlet.send(batch(0, 20..30)).unwrap();
                until("the guilty batch", committed(&stand, 30)).await;
            })
            .await;
            assert_eq!(stand.counters.totals().dead, 1);
            assert!(stand.counters.lanes()[0].quarantined);
            // Calm from then on: it leaves at the first record after its time.
            for from in 30.. {
                let inlet = host.inlet.clone();
                let (ended, ()) = beside(&mut host.run, async {
                    inlet.send(batch(0, from..from + 1)).ok();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                })
                .await;
                if let Some(end) = ended {
                    assert!(matches!(end, LaneEnd::Misplaced(_)), "{end:?}");
                    break;
                }
            }
            assert!(came.elapsed() >= calm);
            stand.place.set(Place::Home);
            let to = stand.position();
            let mut host = stand.host().await;
            assert_eq!(host.claim.reserved, to, "{sinks:?}");
            play(&mut host, async |inlet| {
                inlet.send(batch(0, to..to + 5)).unwrap();
                until("home again", committed(&stand, to + 5)).await;
            })
            .await;
            drained(host).await;
            assert!(!stand.counters.lanes()[0].quarantined);
            assert_eq!(stand.check(&all(to + 5)), NOTHING, "{sinks:?}");
        });
    }
}

#[test]
fn another_release_begins_at_home() {
    on_a_shard(async {
        let stand = Stand::new(Sinks::Both, emit).await;
        let calm = Duration::from_secs(600);
        stand.place.set(Place::Quarantine { calm });
        let mut host = stand.host().await;
        let (ended, ()) = beside(&mut host.run, async {
            host.inlet.send(batch(0, 0..10)).unwrap();
            until("a commit", committed(&stand, 10)).await;
            stand.ask(2);
            tokio::time::sleep(Duration::from_secs(2)).await;
        })
        .await;
        assert!(matches!(ended, Some(LaneEnd::Misplaced(_))), "{ended:?}");
        stand.place.set(Place::Home);
        let mut host = stand.host().await;
        play(&mut host, async |inlet| {
            inlet.send(batch(0, 10..20)).unwrap();
            until("the other release", committed(&stand, 20)).await;
        })
        .await;
        drained(host).await;
        assert_eq!(stand.wrote(), [(0, 10, 1), (10, 20, 2)]);
        assert_eq!(stand.check(&all(20)), NOTHING);
    });
}

#[test]
fn nothing_is_reserved_past_a_cut_that_waits() {
    for sinks in [Sinks::Both, Sinks::Ahead] {
        on_a_shard(async {
            let stand = Stand::new(sinks, emit).await;
            stand.leave_reserved(50).await;
            stand.ask(2);
            let mut host = stand.host().await;
            play(&mut host, async |inlet| {
                inlet.send(batch(0, 0..45)).unwrap();
                until("below the cut", committed(&stand, 45)).await;
                // A lazy anchor stores it when nothing comes.
                until("stored", || stand.position() == 45).await;
            })
            .await;
            // It dies. Nobody may take the second release's offsets for sent, nor hold up the third.
            drop(host);
            stand.ask(3);
            let mut host = stand.host().await;
            assert_eq!(
                (host.claim.next, host.claim.reserved),
                (45, 50),
                "{sinks:?}"
            );
            play(&mut host, async |inlet| {
                inlet.send(batch(0, 45..60)).unwrap();
                until("all", committed(&stand, 60)).await;
            })
            .await;
            drained(host).await;
            assert_eq!(stand.wrote(), [(0, 50, 1), (50, 60, 3)], "{sinks:?}");
            assert_eq!(stand.check(&all(60)), NOTHING, "{sinks:?}");
        });
    }
}
