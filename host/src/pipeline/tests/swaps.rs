//! Where an upgrade takes effect: one partition, one upgrade (or a few) at a time, through
//! [`Partition::run`](super::super::segments::Partition).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::served::{NOTHING, committed, drained, emit, for_each, holds, play, served, through};
use super::stand::{Stand, batch_of, id, until};
use super::world::{Sinks, batch};
use crate::error::Blame;
use crate::pipeline::lane::LaneEnd;

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
