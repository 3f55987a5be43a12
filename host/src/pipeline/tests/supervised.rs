//! Partitions of a whole pipeline that come, go and are fenced, lanes that stop or hang, a source that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fakes::Fault;
use super::guest::Act;
use super::whole::{eventually, play, positions};
use super::world::{Sinks, World, batch};
use crate::error::{Blame, Error};
use crate::source::{SourceCommand, SourceEvent};

#[test]
fn a_revocation_waits_for_what_is_in_flight_and_the_next_owner_goes_on_there() {
    let world = World::new(Sinks::Both, |_| Act::Row);
    let store = Arc::clone(&world.store);
    play(&world, move |stage| {
        stage.assign(&[0]);
        let (_, position, inlet) = stage.started();
        assert_eq!(position, 0);
        store.lock().held = [0].into();
        inlet.send(batch(0, 0..10)).unwrap();
        eventually(|| store.lock().attempts == 1);
        let done = stage.revoke(&[0]);
        assert!(
            done.recv_timeout(Duration::from_millis(50)).is_err(),
            "answered too early"
        );
        store.lock().held.clear();
        done.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(store.lock().ranges, [(0, 10)]);
        assert_eq!(store.lock().released, [0]);
        stage.assign(&[0]);
        let (_, position, inlet) = stage.started();
        assert_eq!(position, 10);
        inlet.send(batch(0, 10..20)).unwrap();
        eventually(|| store.lock().ranges.len() == 2);
        assert_eq!(store.lock().released, [0]);
    })
    .unwrap();
    assert_eq!(world.check(20), Vec::<String>::new());
    assert_eq!(world.totals().received, 20);
}

#[test]
fn a_lost_partition_commits_nothing_more() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let store = Arc::clone(&world.store);
    play(&world, move |stage| {
        stage.assign(&[0]);
        let (_, _, inlet) = stage.started();
        store.lock().held = [0].into();
        inlet.send(batch(0, 0..10)).unwrap();
        eventually(|| store.lock().attempts == 1);
        stage.events.send(SourceEvent::Lost(vec![0])).unwrap();
        eventually(|| inlet.send(batch(0, 10..11)).is_err());
        eventually(|| store.lock().released == [0]);
        store.lock().held.clear();
        assert!(!stage.starts_within(Duration::from_millis(200)));
    })
    .unwrap();
    assert_eq!(
        (positions(&world), world.totals().received),
        (vec![0, 0], 0)
    );
}

#[test]
fn a_fenced_lane_claims_again_after_the_time_out_and_a_taken_advisory_commit() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let store = Arc::clone(&world.store);
    play(&world, move |stage| {
        store.lock().faults = [Fault::Stolen].into();
        stage.assign(&[0]);
        let (_, _, inlet) = stage.started();
        inlet.send(batch(0, 0..10)).unwrap();
        eventually(|| store.lock().attempts == 1);
        let fenced = Instant::now();
        let mut asked = 0;
        loop {
            match stage.commands.recv_timeout(Duration::from_secs(5)).unwrap() {
                SourceCommand::Advise {
                    taken: Some(taken), ..
                } => {
                    asked += 1;
                    assert_eq!(store.lock().claims, 1, "claimed before it was allowed to");
                    taken.send(asked == 3).unwrap();
                }
                SourceCommand::Start {
                    position, inlet, ..
                } => {
                    assert_eq!((asked, position), (3, 0));
                    assert!(fenced.elapsed() >= Duration::from_millis(3 * 60 - 20));
                    inlet.send(batch(0, 0..10)).unwrap();
                    break eventually(|| store.lock().ranges.len() == 1);
                }
                _ => {}
            }
        }
    })
    .unwrap();
    assert_eq!(world.check(10), Vec::<String>::new());
}

#[test]
fn a_fenced_lane_does_not_claim_what_was_revoked_meanwhile_and_a_stop_does_not_wait_for_it() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let store = Arc::clone(&world.store);
    let begun = Instant::now();
    play(&world, move |stage| {
        store.lock().faults = [Fault::Stolen].into();
        stage.assign(&[0]);
        let (_, _, inlet) = stage.started();
        inlet.send(batch(0, 0..10)).unwrap();
        while !matches!(
            stage.commands.recv(),
            Ok(SourceCommand::Stop { partition: 0 })
        ) {}
        stage
            .revoke(&[0])
            .recv_timeout(Duration::from_secs(5))
            .unwrap();
        // Several session time-outs: neither claimed nor asked for any more.
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            match stage.commands.recv_timeout(Duration::from_millis(5)) {
                Ok(SourceCommand::Advise { taken: Some(_), .. }) => {
                    panic!("asked for although revoked")
                }
                Ok(SourceCommand::Start { .. }) => panic!("claimed although revoked"),
                _ => {}
            }
        }
    })
    .unwrap();
    assert_eq!(world.store.lock().claims, 1);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_revocation_does_not_wait_for_an_anchor_that_is_away() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let store = Arc::clone(&world.store);
    play(&world, move |stage| {
        store.lock().away = true;
        stage.assign(&[0, 1]);
        std::thread::sleep(Duration::from_millis(100));
        stage
            .revoke(&[0])
            .recv_timeout(Duration::from_secs(1))
            .unwrap();
        store.lock().away = false;
        // Only what is still held is claimed.
        let (partition, _, _inlet) = stage.started();
        assert_eq!(partition, 1);
        assert!(!stage.starts_within(Duration::from_millis(200)));
    })
    .unwrap();
    assert_eq!(world.store.lock().claims, 1);
}

#[test]
fn a_lane_that_stops_while_another_drains_is_heard() {
    let world = World::new(Sinks::Here, |offset| {
        if offset == 555 { Act::Fatal } else { Act::Row }
    });
    let store = Arc::clone(&world.store);
    let error = play(&world, move |stage| {
        stage.assign(&[0, 1]);
        let mut inlets = [stage.started(), stage.started()];
        inlets.sort_by_key(|started| started.0);
        store.lock().held = [0].into();
        inlets[0].2.send(batch(0, 0..10)).unwrap();
        eventually(|| store.lock().attempts == 1);
        let done = stage.revoke(&[0]);
        inlets[1].2.send(batch(1, 0..600)).unwrap();
        eventually(|| inlets[1].2.send(batch(1, 600..601)).is_err());
        store.lock().held.clear();
        done.recv_timeout(Duration::from_secs(5)).unwrap();
        stage.until_shutdown();
    })
    .unwrap_err();
    assert_eq!(error.detail(), "the table is wrong");
    assert_eq!(positions(&world), [10, 0]);
}

#[test]
fn a_stop_while_draining_is_not_swallowed_and_a_panic_is_a_bug() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let store = Arc::clone(&world.store);
    let error = play(&world, move |stage| {
        stage.assign(&[0]);
        let (_, _, inlet) = stage.started();
        store.lock().faults = [Fault::Stop].into();
        store.lock().held = [0].into();
        inlet.send(batch(0, 0..10)).unwrap();
        eventually(|| store.lock().attempts == 1);
        let _done = stage.revoke(&[0]);
        store.lock().held.clear();
        stage.until_shutdown();
    })
    .unwrap_err();
    assert_eq!(error.detail(), "no table");
    let world = World::new(Sinks::Here, |_| Act::Panic);
    let error = play(&world, move |stage| {
        stage.assign(&[0]);
        stage.started().2.send(batch(0, 0..10)).unwrap();
        stage.until_shutdown();
    })
    .unwrap_err();
    assert_eq!(error.blame(), Blame::Bug);
    assert_eq!(positions(&world), [0, 0]);
}

#[test]
fn a_source_that_fails_stops_the_pipeline_unless_the_outside_is_to_blame() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let error = play(&world, move |stage| {
        for error in [
            Error::outside("fetch", "broker away"),
            Error::config("data loss", "recreated"),
        ] {
            let partition = Some(0);
            stage
                .events
                .send(SourceEvent::Failed { partition, error })
                .unwrap();
        }
        stage.until_shutdown();
    })
    .unwrap_err();
    assert_eq!(error.detail(), "recreated");
}

#[test]
fn what_lanes_wait_for_is_told_until_they_get_on_or_are_given_away_or_stopped() {
    let world = World::new(Sinks::Both, |_| Act::Row);
    let (store, counters) = (Arc::clone(&world.store), Arc::clone(&world.counters));
    play(&world, move |stage| {
        stage.assign(&[0, 1]);
        let inlets =
            [stage.started(), stage.started()].map(|(partition, _, inlet)| (partition, inlet));
        assert_eq!(counters.waiting(), [], "it could start after all");
        store.lock().sink_away = true;
        for (partition, inlet) in &inlets {
            inlet.send(batch(*partition, 0..10)).unwrap();
        }
        let waiting = || counters.waiting().pop();
        eventually(|| waiting().is_some_and(|one| one.partitions == [0, 1] && one.attempts > 3));
        let one = waiting().unwrap();
        assert_eq!(
            (&*one.server, one.error.detail()),
            ("cassandra.c", "no node answers")
        );
        assert_eq!(counters.waiting().len(), 1);
        stage
            .revoke(&[1])
            .recv_timeout(Duration::from_secs(5))
            .unwrap();
        eventually(|| waiting().is_some_and(|one| one.partitions == [0]));
        assert!(waiting().unwrap().lasts > Duration::ZERO);
        store.lock().sink_away = false;
        eventually(|| counters.totals().received == 10);
        assert_eq!(waiting(), None, "a commit is a success");
        store.lock().sink_away = true;
        let first = inlets.iter().find(|(partition, _)| *partition == 0);
        first.unwrap().1.send(batch(0, 10..20)).unwrap();
        eventually(|| waiting().is_some());
    })
    .unwrap();
    assert_eq!(world.counters.waiting(), [], "it was stopped");
}

#[test]
fn brokers_that_do_not_answer_are_waited_for_by_the_whole_pipeline() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let counters = Arc::clone(&world.counters);
    play(&world, move |stage| {
        let brokers = |answer| stage.events.send(SourceEvent::Brokers(answer)).unwrap();
        brokers(Err(Error::outside("ask for the topic", "timed out")));
        brokers(Err(Error::outside("ask for the topic", "timed out again")));
        let waiting = || counters.waiting().pop().filter(|one| one.attempts == 2);
        eventually(|| waiting().is_some());
        let one = waiting().unwrap();
        assert_eq!((&*one.server, one.partitions.len()), ("kafka.k", 0));
        assert_eq!(one.error.detail(), "timed out again");
        brokers(Ok(()));
        eventually(|| counters.waiting().is_empty());
        brokers(Err(Error::outside("ask for the topic", "timed out")));
        eventually(|| counters.waiting().len() == 1);
    })
    .unwrap();
    assert_eq!(world.counters.waiting(), [], "it was stopped");
}

#[test]
fn a_lane_that_hangs_is_told_and_restarted_once_records_wait_for_it() {
    const STALL: Duration = Duration::from_secs(1);
    let mut world = World::new(Sinks::Here, |_| Act::Row);
    world.stall = STALL;
    world.store.lock().faults = [Fault::None, Fault::Hang].into();
    let counters = Arc::clone(&world.counters);
    let ended = play(&world, move |stage| {
        stage.assign(&[0]);
        let (partition, position, inlet) = stage.started();
        assert_eq!((partition, position), (0, 0));
        inlet.send(batch(0, 0..10)).unwrap();
        eventually(|| counters.totals().received == 10);
        inlet.send(batch(0, 10..20)).unwrap();
        // Nothing waits behind the two batches in flight yet: a lane without work is not stalled.
        std::thread::sleep(2 * STALL);
        assert!(!counters.lanes()[0].stalled);
        for from in [20, 1044, 2068] {
            inlet.send(batch(0, from..from + 1024)).unwrap();
        }
        let (partition, position, inlet) = stage.started();
        assert_eq!((partition, position), (0, 10));
        assert!(counters.lanes()[0].stalled);
        inlet.send(batch(0, 10..30)).unwrap();
        eventually(|| counters.totals().received == 30);
        assert!(!counters.lanes()[0].stalled);
    });
    ended.unwrap();
    assert_eq!(world.check(30), Vec::<String>::new());
}
