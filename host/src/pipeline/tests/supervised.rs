//! The whole pipeline on real shards with a scripted source.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::fakes::{FakeSink, Fault};
use super::guest::Act;
use super::stand::on_trial;
use super::world::{Sinks, World, batch, on_a_shard};
use crate::anchor::{Anchor, Cut, Order, Pin, Stored};
use crate::error::{Blame, Error, Retry};
use crate::pipeline::deaths::Deaths;
use crate::pipeline::{
    Desired, PipelineSettings, Plan, Release, SegmentStart, Shards, Surroundings, run,
};
use crate::sink::AheadSink;
use crate::source::{Inlet, Source, SourceCommand, SourceEvent, TopicInfo};

/// What a script of a source uses.
struct Stage {
    events: mpsc::UnboundedSender<SourceEvent>,
    commands: blocking::Receiver<SourceCommand>,
    over: std::cell::Cell<bool>,
}

impl Stage {
    fn assign(&self, partitions: &[i32]) {
        self.events
            .send(SourceEvent::Assigned(partitions.to_vec()))
            .unwrap();
    }

    /// Waits for a start; everything else on the way is passed over.
    fn started(&self) -> (i32, i64, Inlet) {
        loop {
            match self.commands.recv_timeout(Duration::from_secs(5)).unwrap() {
                SourceCommand::Start {
                    partition,
                    position,
                    inlet,
                } => return (partition, position, inlet),
                SourceCommand::Advise {
                    taken: Some(taken), ..
                } => drop(taken.send(true)),
                _ => {}
            }
        }
    }

    /// Whether a start comes within a time.
    fn starts_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Ok(SourceCommand::Start { .. }) =
                self.commands.recv_timeout(Duration::from_millis(5))
            {
                return true;
            }
        }
        false
    }

    fn revoke(&self, partitions: &[i32]) -> blocking::Receiver<()> {
        let (done, answered) = blocking::sync_channel(1);
        let partitions = partitions.to_vec();
        self.events
            .send(SourceEvent::Revoked { partitions, done })
            .unwrap();
        answered
    }

    fn until_shutdown(&self) {
        while !self.over.get() {
            let command = self.commands.recv_timeout(Duration::from_secs(10)).unwrap();
            self.over.set(matches!(command, SourceCommand::Shutdown));
        }
    }
}

type Script = Box<dyn FnOnce(&Stage) + Send>;

impl Source for Scripted {
    fn run(
        self: Box<Self>,
        events: mpsc::UnboundedSender<SourceEvent>,
        commands: blocking::Receiver<SourceCommand>,
    ) -> Result<(), Error> {
        let over = std::cell::Cell::new(false);
        let stage = Stage {
            events,
            commands,
            over,
        };
        (self.0)(&stage);
        stage.until_shutdown();
        Ok(())
    }
}

struct Scripted(Script);

struct Around {
    anchor: super::fakes::FakeAnchor,
    script: Mutex<Option<Script>>,
}

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Around")
    }
}

impl Surroundings for Around {
    fn anchor<'a>(&'a self, _: &'a Plan) -> LocalBoxFuture<'a, Result<Rc<dyn Anchor>, Error>> {
        let anchor = self.anchor.clone();
        async move { Ok(Rc::new(anchor) as Rc<dyn Anchor>) }.boxed_local()
    }

    fn ahead<'a>(
        &'a self,
        _: &'a Plan,
        _: usize,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AheadSink>, Error>> {
        let store = Arc::clone(&self.anchor.store);
        async move { Ok(Box::new(FakeSink { store }) as Box<dyn AheadSink>) }.boxed_local()
    }

    fn source(&self, _: Option<String>) -> Result<Box<dyn Source>, Error> {
        Ok(Box::new(Scripted(self.script.lock().take().unwrap())))
    }

    fn topic(&self) -> Result<TopicInfo, Error> {
        Ok(TopicInfo {
            id: None,
            watermarks: vec![(0, 1000), (0, 1000)],
        })
    }

    fn release<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<Arc<Release>, Error>> {
        async move {
            let detail = format!("{id} is not known");
            Err(match id {
                ELSEWHERE => Error::outside("load a release", detail).with_retry(Retry::Never),
                _ => Error::config("load a release", detail),
            })
        }
        .boxed_local()
    }
}

/// A release that other hosts may know.
const ELSEWHERE: &str = "elsewhere";

/// Runs a pipeline with a script; it is told to stop when the script has ended.
fn play(world: &World, script: impl FnOnce(&Stage) + Send + 'static) -> Result<(), Error> {
    let desired = watch::channel(Desired::only(world.release())).1;
    play_desired(world, desired, mpsc::unbounded_channel().0, script)
}

/// As [`play`], with what is wanted and who hears what begins.
fn play_desired(
    world: &World,
    desired: watch::Receiver<Desired>,
    segments: mpsc::UnboundedSender<SegmentStart>,
    script: impl FnOnce(&Stage) + Send + 'static,
) -> Result<(), Error> {
    let (stop, stopped) = watch::channel(false);
    let script = move |stage: &Stage| {
        script(stage);
        stop.send_replace(true);
    };
    let settings = PipelineSettings {
        pipeline: "p".into(),
        desired,
        segments,
        counters: Arc::clone(&world.counters),
        session_timeout: Duration::from_millis(60),
        stall: world.stall,
    };
    let around = Arc::new(Around {
        anchor: world.anchor.clone(),
        script: Mutex::new(Some(Box::new(script))),
    });
    on_a_shard(async {
        let shards = Shards::start(2, &Deaths::default()).unwrap();
        let running = run(settings, around, shards, stopped);
        tokio::time::timeout(Duration::from_secs(30), running)
            .await
            .expect("it does not end")
    })
}

fn eventually(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < until, "it never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn positions(world: &World) -> Vec<i64> {
    on_a_shard(async {
        let stored: Vec<Stored> = world.anchor.stored().await.unwrap();
        stored.iter().map(|stored| stored.next).collect()
    })
}

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

/// Releases 1 to `count - 1` over the world's plan, none at 0; the first is the world's own.
fn releases(world: &World, count: i64) -> Vec<Arc<Release>> {
    let acts: super::stand::Acts = Arc::clone(&world.plugin.acts);
    let made = (0..count).map(|number| super::stand::release(number, Sinks::Here, &acts));
    made.collect()
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
        play(&world, move |stage| {
            stage.assign(&[0, 1]);
            let mut started = [stage.started(), stage.started()];
            started.sort_by_key(|started| started.0);
            let [(_, _, first), (_, _, neighbour)] = started;
            first.send(batch(0, 0..60)).unwrap();
            let (partition, position, moved) = stage.started();
            assert_eq!((partition, position), (0, again));
            moved.send(batch(0, again..70)).unwrap();
            neighbour.send(batch(1, 0..10)).unwrap();
            eventually(|| store.lock().committed.len() == 2 + usize::from(again > 0));
            let quarantined = counters.lanes().into_iter();
            let quarantined: Vec<_> = quarantined.map(|lane| lane.quarantined).collect();
            assert_eq!(quarantined, [true, false]);
        })
        .unwrap();
        assert_eq!(positions(&world), [70, 10]);
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
