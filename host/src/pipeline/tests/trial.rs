//! A release on trial on some partitions: where it runs, and what its faults do to the others.

use std::time::Duration;

use super::served::{NOTHING, all, drained, emit, play};
use super::stand::{Stand, id, on_trial, until};
use super::world::{Sinks, batch, on_a_shard};
use crate::pipeline::lane::LaneEnd;
use crate::pipeline::{Desired, Trial};

/// Longer than a lane needs for anything here.
const WHILE: Duration = Duration::from_millis(60);

#[test]
fn a_canary_runs_on_its_partitions_only() {
    on_a_shard(async {
        let stand = Stand::new(Sinks::Here, emit).await;
        let canary = Desired {
            canary: on_trial(stand.make(2), &[1]),
            ..Desired::only(stand.make(1))
        };
        let mut hosts = [stand.host_of(0).await, stand.host_of(1).await];
        stand.desired.send_replace(canary);
        for (partition, host) in hosts.iter_mut().enumerate() {
            play(host, async |inlet| {
                let partition = i32::try_from(partition).unwrap();
                inlet.send(batch(partition, 0..10)).unwrap();
                until("committed", || {
                    stand.scene.anchor.inner.read(partition).next == 10
                })
                .await;
            })
            .await;
        }
        let by: Vec<i64> = stand
            .store
            .lock()
            .committed
            .iter()
            .map(|range| range.2)
            .collect();
        assert_eq!(by, [1, 2]);
        // Taken back: the canary's partition too is the first release's again.
        stand.desired.send_replace(Desired::only(stand.make(1)));
        play(&mut hosts[1], async |inlet| {
            inlet.send(batch(1, 10..20)).unwrap();
            until("committed", || stand.scene.anchor.inner.read(1).next == 20).await;
        })
        .await;
        assert_eq!(stand.store.lock().committed.last(), Some(&(10, 20, 1)));
        let lanes = stand.counters.lanes();
        let received: Vec<(i32, String, u64, bool)> = lanes
            .iter()
            .map(|lane| {
                (
                    lane.partition,
                    lane.release.to_string(),
                    lane.totals.received,
                    lane.running,
                )
            })
            .collect();
        assert_eq!(
            received,
            [
                (0, id(1), 10, true),
                (1, id(2), 10, false),
                (1, id(1), 10, true)
            ]
        );
        // Dropped, not ended: no lane is shown as running that is gone.
        drop(hosts);
        assert!(stand.counters.lanes().iter().all(|lane| !lane.running));
    });
}

/// A canary on partition 0 that cannot run here.
fn without(stand: &Stand) -> Desired {
    Desired {
        canary: Some(Trial {
            release: None,
            partitions: [0].into(),
        }),
        ..Desired::only(stand.make(1))
    }
}

/// Release 2 as a canary on partition 0.
fn with(stand: &Stand) -> Desired {
    Desired {
        canary: on_trial(stand.make(2), &[0]),
        ..Desired::only(stand.make(1))
    }
}

/// Releases that stopped in partition 0, with why.
fn failures(stand: &Stand) -> Vec<(String, String)> {
    let lanes = stand.counters.lanes().into_iter();
    let failed = lanes.filter_map(|lane| Some((lane.release.to_string(), lane.failure?)));
    failed
        .map(|(release, error)| (release, error.detail().to_owned()))
        .collect()
}

#[test]
fn a_release_whose_sinks_cannot_be_opened_is_to_blame_and_keeps_no_record_from_the_others() {
    for sinks in [Sinks::Here, Sinks::Both, Sinks::Ahead] {
        // Where it is asked for at once, and above what an earlier owner may have sent.
        for reserved in [0, 50] {
            on_a_shard(async {
                let stand = Stand::new(sinks, emit).await;
                if reserved > 0 {
                    stand.leave_reserved(reserved).await;
                }
                stand.scene.wrong.lock().insert(2);
                let mut host = stand.host().await;
                play(&mut host, async |_| {
                    until("it begins", || !stand.begins().is_empty()).await;
                })
                .await;
                stand.desired.send_replace(with(&stand));
                host.inlet.send(batch(0, 0..60)).unwrap();
                let end = host.run.await;
                assert!(matches!(end, LaneEnd::Stopped(_)), "{sinks:?} {end:?}");
                assert_eq!(
                    failures(&stand),
                    [(id(2), "there is no table".to_owned())],
                    "{sinks:?}"
                );
                let at = stand.position();
                // Taken back: the first goes on where it stood, and nothing waits for the other.
                stand.desired.send_replace(Desired::only(stand.make(1)));
                let mut host = stand.host().await;
                assert_eq!(host.claim.reserved.max(at), at, "{sinks:?}");
                play(&mut host, async |inlet| {
                    inlet.send(batch(0, at..60)).unwrap();
                    until("all", || stand.position() == 60).await;
                })
                .await;
                drained(host).await;
                assert_eq!(stand.wrote(), [(0, 60, 1)], "{sinks:?}");
                assert_eq!(stand.check(&all(60)), NOTHING, "{sinks:?}");
            });
        }
    }
}

#[test]
fn what_is_only_out_of_reach_is_waited_for_and_nobody_is_to_blame() {
    on_a_shard(async {
        let stand = Stand::new(Sinks::Both, emit).await;
        stand.scene.away.lock().insert(2);
        stand.desired.send_replace(with(&stand));
        let mut host = stand.host().await;
        play(&mut host, async |_| tokio::time::sleep(WHILE).await).await;
        assert_eq!(failures(&stand), []);
        drained(host).await;
    });
}

#[test]
fn what_the_cuts_name_goes_on_after_a_restart_while_the_canary_cannot_run() {
    for sinks in [Sinks::Here, Sinks::Both] {
        on_a_shard(async {
            let stand = Stand::new(sinks, emit).await;
            for to in [10, 20] {
                let mut host = stand.host().await;
                play(&mut host, async |inlet| {
                    inlet.send(batch(0, to - 10..to)).unwrap();
                    until("committed", || stand.position() == to).await;
                })
                .await;
                drained(host).await;
                // Asked for, and never pinned there.
                stand.desired.send_replace(without(&stand));
            }
            assert_eq!(stand.wrote(), [(0, 20, 1)], "{sinks:?}");
            assert_eq!(stand.check(&all(20)), NOTHING, "{sinks:?}");
        });
    }
}

#[test]
fn what_runs_goes_on_and_what_begins_waits_while_its_release_cannot_run() {
    for sinks in [Sinks::Here, Sinks::Both] {
        on_a_shard(async {
            let stand = Stand::new(sinks, emit).await;
            // It was not asked for before: the release in charge goes on.
            let mut host = stand.host().await;
            play(&mut host, async |inlet| {
                until("it begins", || !stand.begins().is_empty()).await;
                stand.desired.send_replace(without(&stand));
                inlet.send(batch(0, 0..10)).unwrap();
                until("committed", || stand.position() == 10).await;
                // It can run after all.
                stand.asked.borrow_mut().push(2);
                stand.desired.send_replace(with(&stand));
                until("the canary", || stand.begins().last() == Some(&(10, id(2)))).await;
                inlet.send(batch(0, 10..20)).unwrap();
                until("committed", || stand.position() == 20).await;
            })
            .await;
            drained(host).await;
            // A host that starts without it.
            stand.desired.send_replace(without(&stand));
            let mut host = stand.host().await;
            play(&mut host, async |inlet| {
                inlet.send(batch(0, 20..30)).unwrap();
                tokio::time::sleep(WHILE).await;
            })
            .await;
            assert_eq!(
                stand.position(),
                20,
                "pinned to the canary: nobody else may"
            );
            assert_eq!(failures(&stand), []);
            drained(host).await;
            let mut host = stand.host().await;
            play(&mut host, async |inlet| {
                inlet.send(batch(0, 20..30)).unwrap();
                tokio::time::sleep(WHILE).await;
                stand.ask(1);
                until("the first again", || stand.position() == 30).await;
            })
            .await;
            drained(host).await;
            assert_eq!(stand.wrote(), [(0, 10, 1), (10, 20, 2), (20, 30, 1)]);
            assert_eq!(stand.check(&all(30)), NOTHING, "{sinks:?}");
        });
    }
}
