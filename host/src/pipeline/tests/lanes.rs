//! One lane, one fault at a time.

use super::fakes::Fault;
use super::guest::Act;
use super::world::{Sinks, World, batch, on_a_shard};
use crate::anchor::Anchor as _;
use crate::error::Blame;
use crate::manifest::DataPolicy;
use crate::pipeline::lane::{LaneEnd, Mode};
use crate::pipeline::ownership::GRANT;

fn emit(_: i64) -> Act {
    Act::Row
}

fn mixed(offset: i64) -> Act {
    match offset % 6 {
        4 => Act::Filter,
        5 => Act::Reject,
        _ => Act::Row,
    }
}

async fn world(sinks: Sinks, acts: fn(i64) -> Act) -> World {
    let world = World::new(sinks, acts);
    world.seed(0, 0).await;
    world
}

fn stopped(end: LaneEnd) -> crate::error::Error {
    match end {
        LaneEnd::Stopped(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_record_ends_at_one_place_after_each_fault_that_passes() {
    for sinks in [Sinks::Here, Sinks::Both] {
        for fault in [
            Fault::None,
            Fault::RolledBack,
            Fault::RolledBackLate,
            Fault::UnknownDone,
            Fault::UnknownNot,
            Fault::UnknownLate,
            Fault::AheadOutside,
        ] {
            on_a_shard(async {
                let world = world(sinks, mixed).await;
                world.store.lock().faults = [Fault::None, fault, fault, Fault::None, fault].into();
                let end = world.run(&[7, 20, 21, 40, 64]).await;
                assert!(matches!(end, LaneEnd::Done), "{fault:?} {end:?}");
                assert_eq!(world.check(64), Vec::<String>::new(), "{sinks:?} {fault:?}");
                let totals = world.totals();
                assert_eq!(
                    (totals.received, world.position().await),
                    (64, 64),
                    "{fault:?}"
                );
                assert_eq!((totals.filtered, totals.dead), (10, 10));
                // Batches that wait are joined: how many flights there were is the scheduler's choice.
                let script = [Fault::None, fault, fault, Fault::None, fault];
                let store = world.store.lock();
                let used = &script[..script.len() - store.faults.len()];
                let is_unknown = |fault: &&Fault| {
                    matches!(
                        fault,
                        Fault::UnknownDone | Fault::UnknownNot | Fault::UnknownLate
                    )
                };
                assert!(used.len() >= 2, "{fault:?} never happened");
                let unknown = used.iter().filter(is_unknown).count();
                assert_eq!(store.claims, 1 + unknown, "{fault:?}");
            });
        }
    }
}

#[test]
fn what_an_operator_has_to_mend_stops_the_lane_and_a_newer_claim_fences_it() {
    on_a_shard(async {
        for fault in [Fault::Stop, Fault::AheadConfig] {
            let world = world(Sinks::Both, emit).await;
            world.store.lock().faults = [Fault::None, fault].into();
            let error = stopped(world.run(&[3, 1500, 2900]).await);
            assert_eq!(error.blame(), Blame::Config);
            assert_eq!(world.totals().received as i64, world.position().await);
        }
        let world = world(Sinks::Both, emit).await;
        world.store.lock().faults = [Fault::None, Fault::Stolen].into();
        assert!(matches!(
            world.run(&[3, 1500, 2900]).await,
            LaneEnd::Fenced(_)
        ));
        assert_eq!(world.totals().received as i64, world.position().await);
        assert!(matches!(world.run(&[1500, 2900]).await, LaneEnd::Done));
        assert_eq!(world.check(2900), Vec::<String>::new());
    });
}

#[test]
fn a_refused_record_alone_becomes_a_dead_letter() {
    on_a_shard(async {
        let world = world(Sinks::Here, mixed).await;
        world.store.lock().refused = [0, 301, 302, 998].into();
        assert!(matches!(world.run(&[1000]).await, LaneEnd::Done));
        assert_eq!(world.check(1000), Vec::<String>::new());
        let store = world.store.lock();
        let refused: Vec<i64> = store
            .dead
            .iter()
            .filter(|dead| dead.1 == "postgres-refused")
            .map(|dead| dead.0)
            .collect();
        assert_eq!(refused, [0, 301, 302, 998]);
        assert_eq!(world.totals().received, 1000);
    });
}

#[test]
fn a_record_that_may_have_been_sent_ahead_never_becomes_a_dead_letter() {
    on_a_shard(async {
        // Never sent: the database has its say first, on offsets this owner was the first to be granted.
        let world = world(Sinks::Both, emit).await;
        world.store.lock().refused = [5].into();
        assert!(matches!(world.run(&[10]).await, LaneEnd::Done));
        assert_eq!(world.check(10), Vec::<String>::new());
        // The next owner finds a reservation: below it, it cannot know.
        world.store.lock().refused = [15].into();
        let error = stopped(world.run(&[20]).await);
        assert!(error.to_string().contains("offset 15"), "{error}");
        assert_eq!((error.blame(), world.position().await), (Blame::Config, 15));
        // Sent by this owner itself, then rolled back, then refused.
        let world = self::world(Sinks::Both, emit).await;
        world.store.lock().faults = [Fault::RolledBackLate].into();
        let (lane, inlet, outlet, _) = world.lane().await;
        inlet.send(batch(0, 0..10)).unwrap();
        drop(inlet);
        let refuse = async {
            while !world.store.lock().stamps.contains_key(&9) {
                tokio::task::yield_now().await;
            }
            world.store.lock().refused = [3].into();
        };
        let end = futures_util::future::join(lane.run(outlet), refuse).await.0;
        assert!(stopped(end).to_string().contains("offset 3"));
        assert_eq!(world.store.lock().dead, []);
    });
}

#[test]
fn a_dead_letter_that_is_refused_itself_stops_the_lane() {
    on_a_shard(async {
        let world = world(Sinks::Here, mixed).await;
        world.store.lock().refused_dead = [5].into();
        let error = stopped(world.run(&[10]).await);
        assert!(error.to_string().contains("offset 5"), "{error}");
        assert_eq!(world.position().await, 5);
        let world = self::world(Sinks::Here, emit).await;
        world.store.lock().refused = [5].into();
        world.store.lock().refused_dead = [5].into();
        assert!(
            stopped(world.run(&[10]).await)
                .detail()
                .contains("dead letter")
        );
        assert_eq!(world.totals().received, 5);
    });
}

#[test]
fn a_flight_that_rolls_back_for_ever_is_narrowed_to_its_record() {
    on_a_shard(async {
        let world = world(Sinks::Here, emit).await;
        world.store.lock().stubborn = [(6, false)].into();
        let error = stopped(world.run(&[8]).await);
        assert!(
            error.to_string().contains("offset 6: raised (P0001)"),
            "{error}"
        );
        assert_eq!(world.position().await, 6);
        assert_eq!(world.store.lock().dead, []);
        // Too slow is a state of the world: halved, never the end.
        let world = self::world(Sinks::Here, emit).await;
        world.store.lock().stubborn = [(1, true)].into();
        let mend = async {
            while world.position().await < 1 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let before = world.store.lock().attempts;
            while world.store.lock().attempts < before + 4 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            world.store.lock().stubborn.clear();
        };
        let end = futures_util::future::join(world.run(&[4]), mend).await.0;
        assert!(matches!(end, LaneEnd::Done));
        assert_eq!(world.check(4), Vec::<String>::new());
    });
}

#[test]
fn nothing_is_sent_above_the_stored_reservation() {
    on_a_shard(async {
        let world = world(Sinks::Both, emit).await;
        world.store.lock().grants = [Fault::RolledBack, Fault::UnknownDone].into();
        assert!(matches!(
            world.run(&[10, 6000, 6001, 13000]).await,
            LaneEnd::Done
        ));
        assert_eq!(world.check(13000), Vec::<String>::new());
        assert!(world.store.lock().reserved >= 13000 + GRANT);
        let world = self::world(Sinks::Both, emit).await;
        world.store.lock().grants = [Fault::UnknownNot, Fault::UnknownNot].into();
        assert!(matches!(world.run(&[10]).await, LaneEnd::Done));
        assert_eq!(
            (world.check(10), world.store.lock().claims),
            (Vec::new(), 3)
        );
        // Postgres alone reserves nothing.
        let world = self::world(Sinks::Here, emit).await;
        assert!(matches!(world.run(&[10, 20]).await, LaneEnd::Done));
        assert_eq!(world.anchor.inner.reserved(0), 20);
    });
}

#[test]
fn a_lazy_anchor_that_lost_its_position_is_claimed_anew_and_read_again() {
    on_a_shard(async {
        let mut world = world(Sinks::Ahead, mixed).await;
        world.anchor.lazy = true;
        // Unknown while idle: nothing lost, the lane goes on under its new claim.
        world.store.lock().settle_faults = [Fault::None, Fault::UnknownNot].into();
        let (lane, inlet, outlet, _) = world.lane().await;
        let feed = async {
            inlet.send(batch(0, 0..10)).unwrap();
            while world.store.lock().settles < 1 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            inlet.send(batch(0, 10..20)).unwrap();
            while world.store.lock().settles < 2 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let end = futures_util::future::join(lane.run(outlet), feed).await.0;
        assert!(matches!(end, LaneEnd::Behind(_)), "{end:?}");
        assert_eq!((world.position().await, world.store.lock().claims), (10, 2));
        // An unknown flight loses those held back before it: read again, and the same in the end.
        world.store.lock().faults = [Fault::None, Fault::UnknownNot].into();
        let end = world.run(&[15, 1500]).await;
        assert!(matches!(end, LaneEnd::Behind(_)), "{end:?}");
        assert!(matches!(world.run(&[12, 1500]).await, LaneEnd::Done));
        assert_eq!(
            (world.check(1500), world.position().await),
            (Vec::new(), 1500)
        );
    });
}

#[test]
fn a_database_that_lost_what_it_confirmed_stops_a_lane_that_wrote_ahead() {
    on_a_shard(async {
        for (sinks, reserved, stops) in [
            (Sinks::Both, 4, true),
            // All that was sent is known to have been: it is read again, by the version that sent it.
            (Sinks::Both, 4000, false),
            // Rows and position were lost together.
            (Sinks::Here, 4, false),
        ] {
            let world = world(sinks, emit).await;
            let (lane, inlet, outlet, _) = world.lane().await;
            let feed = async {
                inlet.send(batch(0, 0..10)).unwrap();
                while world.position().await < 10 {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                world.anchor.inner.set_back(0, 4, reserved);
                world.store.lock().faults = [Fault::UnknownNot].into();
                inlet.send(batch(0, 10..20)).unwrap();
            };
            let end = futures_util::future::join(lane.run(outlet), feed).await.0;
            match end {
                LaneEnd::Stopped(error) if stops => {
                    assert!(error.detail().contains("is back at 4"), "{error}");
                    assert!(error.hint_text().is_some());
                }
                LaneEnd::Behind(_) if !stops => {}
                other => panic!("{sinks:?} {reserved}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_drain_commits_what_is_in_flight_and_gives_up_what_fails() {
    on_a_shard(async {
        for (fault, committed) in [(Fault::None, 10), (Fault::RolledBack, 0)] {
            let world = world(Sinks::Both, emit).await;
            world.store.lock().faults = [fault].into();
            world.store.lock().held = [0].into();
            let (lane, inlet, outlet, _) = world.lane().await;
            let drain = async {
                inlet.send(batch(0, 0..10)).unwrap();
                while world.store.lock().attempts == 0 {
                    tokio::task::yield_now().await;
                }
                world.mode.send_replace(Mode::Drain);
                world.store.lock().held.clear();
            };
            let end = futures_util::future::join(lane.run(outlet), drain).await.0;
            assert!(matches!(end, LaneEnd::Done), "{end:?}");
            assert_eq!(world.position().await, committed);
            assert_eq!(world.totals().received as i64, committed);
            // Whoever comes next finishes it.
            world.mode.send_replace(Mode::Run);
            assert!(matches!(world.run(&[12]).await, LaneEnd::Done));
            assert_eq!(world.check(12), Vec::<String>::new());
        }
    });
}

#[test]
fn stop_ends_right_before_the_record_and_skip_only_counts_it() {
    on_a_shard(async {
        let mut world = world(Sinks::Here, mixed).await;
        world.errors.data = DataPolicy::Stop;
        let error = stopped(world.run(&[20]).await);
        assert!(error.to_string().contains("offset 5"), "{error}");
        assert_eq!((world.position().await, world.totals().received), (5, 5));
        world.errors.data = DataPolicy::Skip;
        assert!(matches!(world.run(&[20]).await, LaneEnd::Done));
        assert_eq!((world.totals().received, world.totals().dead), (20, 3));
        assert_eq!(world.store.lock().dead, []);
        assert_eq!(world.store.lock().here.len(), 14);
    });
}

#[test]
fn a_lane_that_stops_gives_back_what_it_never_sent_so_that_another_release_can_mend_it() {
    for sinks in [Sinks::Both, Sinks::Ahead] {
        on_a_shard(async {
            let mut world = world(sinks, mixed).await;
            world.errors.data = DataPolicy::Stop;
            assert_eq!(stopped(world.run(&[20]).await).blame(), Blame::Config);
            let position = world.position().await;
            assert_eq!(position, 5);
            let claim = world.anchor.claim(&[0]).await.unwrap().remove(0);
            assert_eq!((claim.next, claim.reserved), (5, 5), "{sinks:?}");
        });
    }
}

#[test]
fn too_many_dead_letters_stop_also_those_the_database_makes() {
    on_a_shard(async {
        let mut world = world(Sinks::Here, mixed).await;
        world.errors.max_rate = Some((0.05, 100));
        let error = stopped(world.run(&[1000]).await);
        assert!(error.what().contains("max_rate"), "{error}");
        assert_eq!(world.position().await, 0);
        let mut world = self::world(Sinks::Here, emit).await;
        world.errors.max_rate = Some((0.05, 100));
        world.store.lock().refused = (0..6).map(|n| n * 10).collect();
        assert!(stopped(world.run(&[100]).await).what().contains("max_rate"));
        assert_eq!(world.store.lock().dead.len(), 5);
    });
}

#[test]
fn a_gap_between_batches_is_a_bug_and_not_committed() {
    on_a_shard(async {
        for next in [11..20, 9..20] {
            let world = world(Sinks::Here, emit).await;
            let (lane, inlet, outlet, _) = world.lane().await;
            inlet.send(batch(0, 0..10)).unwrap();
            inlet.send(batch(0, next)).unwrap();
            drop(inlet);
            assert_eq!(stopped(lane.run(outlet).await).blame(), Blame::Bug);
            assert!(world.position().await <= 10);
        }
    });
}

#[test]
fn stamps_are_the_same_under_any_split_and_after_a_replay() {
    on_a_shard(async {
        let mut seen = Vec::new();
        for cuts in [&[60_i64][..], &[1, 2, 30, 31, 60], &[17, 60]] {
            let world = world(Sinks::Both, mixed).await;
            for cut in cuts {
                // A lane a batch: each goes on from the stored write time.
                assert!(matches!(world.run(&[*cut]).await, LaneEnd::Done));
            }
            assert_eq!(world.check(60), Vec::<String>::new());
            seen.push(world.store.lock().stamps.clone());
        }
        // Of several rows of a key only the last is sent, so each split shows other offsets.
        let mut all: std::collections::BTreeMap<i64, std::collections::BTreeSet<i64>> =
            std::collections::BTreeMap::new();
        for (offset, stamps) in seen.into_iter().flatten() {
            all.entry(offset).or_default().extend(stamps);
        }
        assert!(all.len() >= 14, "{all:?}");
        assert!(all.values().all(|stamps| stamps.len() == 1), "{all:?}");
        let all: Vec<i64> = all.values().flatten().copied().collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
    });
}
