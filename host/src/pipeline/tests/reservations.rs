//! How far a partition is reserved, where it is cut, and when both are lowered: whatever becomes of the requests that
//! change them, an offset stays with one release.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::fakes::{Broken, Fault};
use super::served::{
    NOTHING, all, committed, drained, emit, for_each, holds, play, served, through,
};
use super::stand::{Host, Stand, batch_of, id, until};
use super::world::{Sinks, batch, on_a_shard};
use crate::anchor::{Anchor as _, Cut, Pin};
use crate::pipeline::Desired;
use crate::pipeline::lane::{Connections, LaneEnd, Mode};
use crate::pipeline::ownership::{GRANT, Ownership};

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

/// A claim of the partition, without a lane.
pub(super) async fn own(stand: &Stand) -> Ownership {
    let anchor = &stand.scene.anchor;
    let claim = anchor.claim(&[0]).await.unwrap().remove(0);
    let connections = Connections {
        anchor: Rc::new(anchor.opened(1)),
        ahead: Vec::new(),
    };
    let mode = tokio::sync::watch::channel(Mode::Run).1;
    let waiter = stand.counters.waiter(&"p".into(), None, &[0]);
    Ownership::new(Rc::new(connections), claim, mode, Arc::new(waiter))
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
