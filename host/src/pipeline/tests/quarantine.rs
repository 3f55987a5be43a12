//! A lane that misbehaves goes on where it disturbs nobody, and comes home when it is calm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::guest::Act;
use super::served::{NOTHING, all, committed, drained, emit, play};
use super::stand::{Stand, beside, until};
use super::whole;
use super::world::{Sinks, World, batch, on_a_shard};
use crate::pipeline::conduct::Place;
use crate::pipeline::lane::LaneEnd;

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

/// Uses the CPU for a time, as what a guest's output costs the host.
fn burn(time: Duration) {
    let begun = crate::clock::thread_time();
    while crate::clock::thread_time() - begun < time {}
}

#[test]
fn a_lane_that_misbehaves_goes_on_in_quarantine_and_its_neighbour_feels_nothing() {
    // What goes past a limit is dropped half done; what only took long is finished first.
    for (guilty, again) in [(Act::Limit, 0), (Act::Row, 60)] {
        let ran: Arc<Mutex<Vec<(i64, String)>>> = Arc::default();
        let noted = Arc::clone(&ran);
        let world = World::new(Sinks::Here, move |offset| {
            let thread = std::thread::current();
            let on = thread.name().unwrap().to_owned();
            noted.lock().push((offset, on));
            if offset != 50 {
                return Act::Row;
            }
            if guilty == Act::Row {
                burn(Duration::from_millis(80));
            }
            guilty
        });
        let store = Arc::clone(&world.store);
        let counters = Arc::clone(&world.counters);
        whole::play(&world, move |stage| {
            stage.assign(&[0, 1]);
            let mut started = [stage.started(), stage.started()];
            started.sort_by_key(|started| started.0);
            let [(_, _, first), (_, _, neighbour)] = started;
            first.send(batch(0, 0..60)).unwrap();
            let (partition, position, moved) = stage.started();
            assert_eq!((partition, position), (0, again));
            moved.send(batch(0, again..70)).unwrap();
            neighbour.send(batch(1, 0..10)).unwrap();
            whole::eventually(|| store.lock().committed.len() == 2 + usize::from(again > 0));
            let quarantined = counters.lanes().into_iter();
            let quarantined: Vec<_> = quarantined.map(|lane| lane.quarantined).collect();
            assert_eq!(quarantined, [true, false]);
        })
        .unwrap();
        assert_eq!(whole::positions(&world), [70, 10]);
        let totals = world.totals();
        let dead = u64::from(guilty == Act::Limit);
        assert_eq!((totals.received, totals.dead), (80, dead));
        let on = |offset| {
            let all = ran.lock().clone();
            let all = all.into_iter().filter(|(ran, _)| *ran == offset);
            all.map(|(_, on)| on).collect::<Vec<_>>()
        };
        assert!(on(65).iter().all(|on| on == "quarantine"), "{guilty:?}");
        assert!(on(5).contains(&"shard-1".to_owned()), "the neighbour stays");
        let at_home = on(50).iter().filter(|on| *on == "shard-0").count();
        // Once (a row asks twice what to do): it is bisected where it disturbs nobody.
        assert!((1..=2).contains(&at_home), "{guilty:?} {at_home}");
    }
}
