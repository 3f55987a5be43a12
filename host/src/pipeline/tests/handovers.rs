//! Releases that take a partition over from each other on one host, each through connections of its own.

use std::time::Duration;

use super::fakes::Broken;
use super::served::{drained, for_each, holds, play};
use super::stand::{Stand, beside, on_trial, until};
use super::world::{Sinks, batch};
use crate::pipeline::Desired;
use crate::pipeline::lane::LaneEnd;

/// The first release, and another on one partition.
fn canary(stand: &Stand, release: i64, partition: i32) -> Desired {
    Desired {
        canary: on_trial(stand.make(release), &[partition]),
        ..Desired::only(stand.make(1))
    }
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
