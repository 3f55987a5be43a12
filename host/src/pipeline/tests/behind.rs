//! Hosts that are behind: they have not read the newest deployment, cannot read it, or lost their control log.

use std::time::{Duration, Instant};

use super::served::{NOTHING, all, committed, drained, emit, play};
use super::stand::{Host, PATIENCE, Stand, batch_of, id, until};
use super::world::{Sinks, batch, on_a_shard};
use crate::anchor::{Anchor as _, Cut, Order, Pin};
use crate::error::{Blame, Retry};
use crate::pipeline::Desired;
use crate::pipeline::lane::LaneEnd;

fn order(revision: u64) -> Order {
    Order {
        log: "log".to_owned(),
        revision,
    }
}

/// A release as a revision of the deployment names it.
fn deployed(stand: &Stand, release: i64, revision: u64) -> Desired {
    Desired {
        order: order(revision),
        ..Desired::only(stand.make(release))
    }
}

/// The newest cut of partition 0: its release and the revision that asked for it.
fn newest(stand: &Stand) -> (String, u64) {
    let cuts = stand.scene.anchor.inner.read(0).cuts;
    let newest = cuts.last().unwrap();
    (newest.release.clone(), newest.order.revision)
}

/// A host processes the first ten records, and ends.
async fn processes_ten(stand: &Stand, mut host: Host<'static>) {
    play(&mut host, async |inlet| {
        inlet.send(batch(0, 0..10)).unwrap();
        until("all", committed(stand, 10)).await;
    })
    .await;
    drained(host).await;
}

/// Another host has asked for `release` with `revision` of the log, up to which nothing was sent.
async fn asked_elsewhere(stand: &Stand, release: i64, order: Order) {
    let claim = stand.scene.anchor.claim(&[0]).await.unwrap().remove(0);
    let at = claim.next;
    let cuts = [Cut {
        order,
        ..Cut::new(at, id(release))
    }];
    let pin = Pin {
        reserved: at,
        cuts: &cuts,
    };
    stand.scene.anchor.pin(&claim, at, pin).await.unwrap();
}

#[test]
fn a_release_deployed_again_is_not_undone_by_a_host_that_read_only_what_came_between() {
    for sinks in [Sinks::Here, Sinks::Both, Sinks::Ahead] {
        on_a_shard(async {
            let stand = Stand::new(sinks, emit).await;
            stand.desired.send_replace(deployed(&stand, 1, 1));
            let mut host = stand.host().await;
            play(&mut host, async |inlet| {
                inlet.send(batch(0, 0..10)).unwrap();
                until("committed", committed(&stand, 10)).await;
                // Revision 2 named release 2; this host sees only that release 1 is back.
                stand.desired.send_replace(deployed(&stand, 1, 3));
                until("noted", || newest(&stand) == (id(1), 3)).await;
                let pins = stand.store.lock().pins;
                for from in (10..100).step_by(10) {
                    inlet.send(batch(0, from..from + 10)).unwrap();
                }
                until("all", || stand.store.lock().wrote.contains_key(&99)).await;
                let further = stand.store.lock().pins - pins;
                assert!(further <= 1, "{further} pins for nine batches");
            })
            .await;
            drained(host).await;
            // The next owner is behind.
            stand.desired.send_replace(deployed(&stand, 2, 2));
            let mut host = stand.host().await;
            play(&mut host, async |inlet| {
                inlet.send(batch(0, 100..110)).unwrap();
                until("all", committed(&stand, 110)).await;
                assert_eq!(newest(&stand), (id(1), 3), "{sinks:?}");
                // It reads on.
                stand.desired.send_replace(deployed(&stand, 1, 3));
                stand.asked.borrow_mut().push(3);
                stand.desired.send_replace(deployed(&stand, 3, 4));
                until("followed", || newest(&stand) == (id(3), 4)).await;
                inlet.send(batch(0, 110..120)).unwrap();
                until("all", || stand.store.lock().wrote.contains_key(&119)).await;
            })
            .await;
            drained(host).await;
            assert_eq!(stand.wrote(), [(0, 110, 1), (110, 120, 3)], "{sinks:?}");
            assert_eq!(stand.check(&all(120)), NOTHING);
        });
    }
}

#[test]
fn a_host_whose_control_log_is_gone_processes_what_is_pinned_and_asks_for_nothing() {
    on_a_shard(async {
        for lost in [true, false] {
            let stand = Stand::new(Sinks::Both, emit).await;
            stand.make(2);
            // The others follow another log by now.
            let theirs = Order {
                log: "another".to_owned(),
                revision: 1,
            };
            asked_elsewhere(&stand, 2, theirs.clone()).await;
            let mine = Desired {
                log_lost: lost,
                ..deployed(&stand, 1, 7)
            };
            stand.desired.send_replace(mine);
            processes_ten(&stand, stand.host().await).await;
            let by = if lost { 2 } else { 1 };
            assert_eq!(stand.wrote(), [(0, 10, by)]);
            let cuts = stand.scene.anchor.inner.read(0).cuts;
            let stands = cuts.last().unwrap().order == theirs;
            assert_eq!(stands, lost, "{cuts:?}");
        }
        // Lost while it runs, with a pipeline that nobody has asked anything of yet.
        let stand = Stand::new(Sinks::Both, emit).await;
        let claim = stand.scene.anchor.claim(&[0]).await.unwrap().remove(0);
        let cuts = &[];
        let pin = Pin { reserved: 0, cuts };
        stand.scene.anchor.pin(&claim, 0, pin).await.unwrap();
        let lost = Desired {
            log_lost: true,
            ..deployed(&stand, 1, 1)
        };
        stand.desired.send_replace(lost);
        processes_ten(&stand, stand.host().await).await;
        assert_eq!(newest(&stand), (id(1), 1));
        assert_eq!(stand.check(&all(10)), NOTHING);
    });
}

/// A partition of a host that has read revision 1 of release 1, where revision 2 of release 2, unknown here, was asked
/// for elsewhere.
async fn behind(stand: &Stand) -> Host<'static> {
    *stand.scene.behind.lock() = true;
    asked_elsewhere(stand, 2, order(2)).await;
    stand.desired.send_replace(deployed(stand, 1, 1));
    stand.host().await
}

#[test]
fn a_release_that_is_not_known_here_gives_the_partition_away_after_a_session() {
    on_a_shard(async {
        for sinks in [Sinks::Here, Sinks::Both, Sinks::Ahead] {
            let stand = Stand::new(sinks, emit).await;
            let host = behind(&stand).await;
            host.inlet.send(batch(0, 0..10)).unwrap();
            let begun = Instant::now();
            let ended = tokio::time::timeout(Duration::from_secs(5), host.run).await;
            let Ok(LaneEnd::Stopped(error)) = ended else {
                panic!("{ended:?}");
            };
            assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
            // Whoever runs the pipeline leaves for a while, and comes back.
            assert_eq!(
                (error.blame(), error.retry()),
                (Blame::Outside, Retry::Never)
            );
            assert!(error.detail().contains("r2"), "{error}");
            assert!(stand.scene.loaded.lock().len() > 1, "it was asked for once");
            assert_eq!((stand.position(), stand.wrote()), (0, vec![]));
            assert_eq!(newest(&stand), (id(2), 2));
            // The next owner knows it.
            stand.make(2);
            stand.asked.borrow_mut().push(2);
            stand.desired.send_replace(deployed(&stand, 2, 2));
            processes_ten(&stand, stand.host().await).await;
            assert_eq!(stand.check(&all(10)), NOTHING);
        }
    });
}

#[test]
fn while_a_release_is_waited_for_another_may_be_asked_for() {
    on_a_shard(async {
        let stand = Stand::new(Sinks::Both, emit).await;
        let mut host = behind(&stand).await;
        play(&mut host, async |inlet| {
            inlet.send(batch(0, 0..10)).unwrap();
            until("waiting", || stand.scene.loaded.lock().len() > 1).await;
            stand.asked.borrow_mut().push(3);
            stand.desired.send_replace(deployed(&stand, 3, 3));
            until("all", committed(&stand, 10)).await;
        })
        .await;
        drained(host).await;
        assert_eq!(stand.wrote(), [(0, 10, 3)]);
        assert_eq!(newest(&stand), (id(3), 3));
        assert_eq!(stand.check(&all(10)), NOTHING);
        // Read as far as what is waited for: it is loaded then.
        let stand = Stand::new(Sinks::Both, emit).await;
        let mut host = behind(&stand).await;
        play(&mut host, async |inlet| {
            inlet.send(batch_of(&all(10), 0, 10)).unwrap();
            until("waiting", || stand.scene.loaded.lock().len() > 1).await;
            stand.asked.borrow_mut().push(2);
            stand.desired.send_replace(deployed(&stand, 2, 2));
            until("all", committed(&stand, 10)).await;
        })
        .await;
        drained(host).await;
        assert_eq!(stand.wrote(), [(0, 10, 2)]);
        assert_eq!(stand.check(&all(10)), NOTHING);
    });
}

#[test]
fn a_sink_that_is_away_gives_nothing_away() {
    on_a_shard(async {
        let stand = Stand::new(Sinks::Both, emit).await;
        let mut host = behind(&stand).await;
        stand.make(2);
        stand.scene.away.lock().insert(2);
        play(&mut host, async |inlet| {
            inlet.send(batch(0, 0..10)).unwrap();
            tokio::time::sleep(3 * PATIENCE).await;
            assert_eq!(stand.position(), 0);
            stand.scene.away.lock().clear();
            until("all", committed(&stand, 10)).await;
        })
        .await;
        drained(host).await;
        assert_eq!(stand.wrote(), [(0, 10, 2)]);
    });
}
