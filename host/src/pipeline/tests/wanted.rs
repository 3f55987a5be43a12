//! What is wanted of a whole pipeline, and what another host has asked for: followed partition by partition, or left to
//! who can.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::guest::Act;
use super::stand::{Acts, on_trial, release};
use super::whole::{ELSEWHERE, eventually, play_desired, positions};
use super::world::{Sinks, World, batch, on_a_shard};
use crate::anchor::{Anchor as _, Cut, Order, Pin};
use crate::error::{Blame, Retry};
use crate::pipeline::{Desired, Release, SegmentStart};
use crate::source::SourceCommand;

/// Releases 0 to `count - 1` over the world's plan. The host knows them all: a lane may come to replay one that is not
/// wanted any more.
fn releases(world: &World, count: i64) -> Vec<Arc<Release>> {
    let acts: Acts = Arc::clone(&world.plugin.acts);
    let made = (0..count).map(|number| release(number, Sinks::Here, &acts));
    let made: Vec<_> = made.collect();
    world.known.borrow_mut().clone_from(&made);
    made
}

/// Waits for what begins in a partition.
fn begins(
    begun: &mut mpsc::UnboundedReceiver<SegmentStart>,
    all: &mut Vec<(i32, i64, String)>,
    partition: i32,
    release: &str,
) {
    eventually(|| {
        while let Ok(start) = begun.try_recv() {
            all.push((start.partition, start.at, start.release.to_string()));
        }
        let last = all.iter().rev().find(|start| start.0 == partition);
        last.is_some_and(|last| last.2 == release)
    });
}

#[test]
fn a_swap_of_one_partition_is_not_felt_by_the_others() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let made = releases(&world, 4);
    let (desired, follows) = watch::channel(Desired::only(Arc::clone(&made[1])));
    let (says, mut begun) = mpsc::unbounded_channel();
    let store = Arc::clone(&world.store);
    play_desired(&world, follows, says, move |stage| {
        stage.assign(&[0, 1]);
        let mut inlets = [stage.started(), stage.started()];
        inlets.sort_by_key(|started| started.0);
        let mut all = Vec::new();
        for partition in [0, 1] {
            begins(&mut begun, &mut all, partition, "r1");
        }
        // Partition 0 has a flight that does not end while partition 1 swaps to and fro.
        store.lock().held = [0].into();
        inlets[0].2.send(batch(0, 0..10)).unwrap();
        eventually(|| store.lock().attempts == 1);
        let claims = store.lock().claims;
        let mut took = Vec::new();
        for round in 0..25 {
            for number in [2, 1] {
                let asked = Instant::now();
                desired.send_replace(Desired {
                    canary: on_trial(Arc::clone(&made[number]), &[1]),
                    ..Desired::only(Arc::clone(&made[1]))
                });
                begins(&mut begun, &mut all, 1, &format!("r{number}"));
                took.push(asked.elapsed());
            }
            let from = round * 10;
            inlets[1].2.send(batch(1, from..from + 10)).unwrap();
        }
        took.sort_unstable();
        assert!(took[48] < Duration::from_secs(1), "{took:?}");
        store.lock().held.clear();
        eventually(|| store.lock().ranges.contains(&(0, 10)));
        assert_eq!(
            all.iter().filter(|start| start.0 == 0).count(),
            1,
            "{all:?}"
        );
        assert_eq!(
            store.lock().claims,
            claims + 50,
            "a claim a swap, and no other"
        );
        // No lane was ended or begun for it.
        while let Ok(command) = stage.commands.try_recv() {
            let felt = matches!(
                command,
                SourceCommand::Start { .. } | SourceCommand::Stop { .. }
            );
            assert!(!felt, "{command:?}");
        }
        eventually(|| {
            let to = store.lock().committed.iter().map(|range| range.1).max();
            to == Some(250)
        });
    })
    .unwrap();
    assert_eq!(positions(&world), [10, 250]);
}

#[test]
fn what_is_wanted_changes_while_partitions_come_and_go() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let made = releases(&world, 6);
    let (desired, follows) = watch::channel(Desired::only(Arc::clone(&made[1])));
    let (says, mut begun) = mpsc::unbounded_channel();
    let store = Arc::clone(&world.store);
    play_desired(&world, follows, says, move |stage| {
        let mut all = Vec::new();
        for number in 1..6 {
            let from = (i64::try_from(number).unwrap() - 1) * 20;
            desired.send_replace(Desired::only(Arc::clone(&made[number])));
            stage.assign(&[0]);
            let (_, position, inlet) = stage.started();
            assert_eq!(position, from);
            begins(&mut begun, &mut all, 0, &format!("r{number}"));
            inlet.send(batch(0, from..from + 10)).unwrap();
            // Asked for while the partition is being taken away with a flight on its way.
            store.lock().held = [0].into();
            inlet.send(batch(0, from + 10..from + 20)).unwrap();
            let done = stage.revoke(&[0]);
            desired.send_replace(Desired::only(Arc::clone(&made[(number + 1).min(5)])));
            store.lock().held.clear();
            done.recv_timeout(Duration::from_secs(5)).unwrap();
            // What was in flight is committed, what was not is read again.
            let stored = store.lock().ranges.last().map_or(0, |range| range.1);
            if stored < from + 20 {
                stage.assign(&[0]);
                let (_, position, inlet) = stage.started();
                assert_eq!(position, stored);
                inlet.send(batch(0, stored..from + 20)).unwrap();
                eventually(|| store.lock().ranges.last().map(|range| range.1) == Some(from + 20));
                stage
                    .revoke(&[0])
                    .recv_timeout(Duration::from_secs(5))
                    .unwrap();
            }
        }
    })
    .unwrap();
    assert_eq!(world.check(100), Vec::<String>::new());
    let by: Vec<i64> = world
        .store
        .lock()
        .wrote
        .values()
        .map(|by| by.len() as i64)
        .collect();
    assert_eq!(by, vec![1; 100]);
    let order: Vec<i64> = world
        .store
        .lock()
        .wrote
        .values()
        .flatten()
        .copied()
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(order.last(), Some(&5));
}

/// Release [`ELSEWHERE`] processes partition 0 up to 50, as another host has asked with a revision.
fn asked_elsewhere(world: &World, revision: u64) {
    on_a_shard(async {
        for partition in 0..2 {
            world.seed(partition, 0).await;
        }
        let claim = world.anchor.claim(&[0]).await.unwrap().remove(0);
        let cut = Cut {
            order: order(revision),
            ..Cut::new(0, ELSEWHERE)
        };
        let pin = Pin {
            reserved: 50,
            cuts: &[cut],
        };
        world.anchor.pin(&claim, 0, pin).await.unwrap();
    });
}

fn order(revision: u64) -> Order {
    Order {
        log: "log".to_owned(),
        revision,
    }
}

/// What a host wants that has read revision 5.
fn wants(world: &World) -> watch::Receiver<Desired> {
    let wanted = Desired {
        order: order(5),
        ..Desired::only(world.release())
    };
    watch::channel(wanted).1
}

#[test]
fn a_host_that_is_behind_what_was_asked_for_does_not_join() {
    let world = World::new(Sinks::Both, |_| Act::Row);
    asked_elsewhere(&world, 6);
    let says = mpsc::unbounded_channel().0;
    let error = play_desired(&world, wants(&world), says, |_| panic!("it joined")).unwrap_err();
    assert_eq!(
        (error.blame(), error.retry()),
        (Blame::Outside, Retry::Never)
    );
    assert!(error.detail().contains(ELSEWHERE), "{error}");
    assert_eq!(
        (world.store.lock().claims, positions(&world)),
        (1, vec![0, 0])
    );
}

#[test]
fn what_only_another_host_can_replay_ends_the_run_so_that_it_gets_it() {
    let world = World::new(Sinks::Both, |_| Act::Row);
    asked_elsewhere(&world, 4);
    let store = Arc::clone(&world.store);
    let (says, mut begun) = mpsc::unbounded_channel();
    let started = Instant::now();
    let error = play_desired(&world, wants(&world), says, move |stage| {
        stage.assign(&[0, 1]);
        let mut inlets = [stage.started(), stage.started()];
        inlets.sort_by_key(|started| started.0);
        inlets[1].2.send(batch(1, 0..10)).unwrap();
        // Not before a session is over, and what runs is finished first.
        eventually(|| store.lock().attempts == 1);
        stage.until_shutdown();
    })
    .unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(60));
    assert!(error.detail().contains(ELSEWHERE), "{error}");
    assert_eq!(
        (error.blame(), error.retry()),
        (Blame::Outside, Retry::Never)
    );
    assert_eq!(positions(&world), [0, 10]);
    // Whatever began is told by the time the run is over, and by whom.
    let mut told = Vec::new();
    while let Ok(start) = begun.try_recv() {
        assert_eq!(&*start.pipeline, "p");
        told.push((start.partition, start.at));
    }
    assert_eq!(told, [(1, 0)]);
}
