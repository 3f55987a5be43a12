//! A record that kills the host: a lane that panics stands for it, as both leave their mark.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::guest::Act;
use super::world::{Sinks, World, on_a_shard};
use crate::error::Blame;
use crate::pipeline::deaths::Deaths;
use crate::pipeline::lane::LaneEnd;
use crate::pipeline::release::{Desired, Release, Trial};

/// Records of these tests.
const RECORDS: i64 = 40;

fn deadly(offset: i64) -> Act {
    if offset == 17 { Act::Panic } else { Act::Row }
}

/// Runs lanes, each as if a new process began with it, until one ends by itself; how many died before.
fn until_it_lives(world: &World) -> (usize, LaneEnd) {
    for died in 0..20 {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            on_a_shard(async { world.run(&[10, RECORDS]).await })
        }));
        if let Ok(end) = ended {
            return (died, end);
        }
    }
    panic!("the host dies for ever");
}

fn world(sinks: Sinks, folder: &tempfile::TempDir) -> World {
    on_a_shard(async {
        let mut world = World::new(sinks, deadly);
        world.deaths = Deaths::remembered_in(folder.path());
        world.seed(0, 0).await;
        world
    })
}

#[test]
fn a_record_that_kills_the_host_is_narrowed_down_and_set_aside_alone() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(Sinks::Here, &folder);
    let (died, end) = until_it_lives(&world);
    assert!(matches!(end, LaneEnd::Done), "{end:?}");
    // Three times in a batch, three times alone.
    assert_eq!(died, 6);
    assert_eq!(world.store.lock().dead, [(17, "kills-host".to_owned())]);
    assert_eq!(world.check(RECORDS), Vec::<String>::new());
    assert_eq!(world.store.lock().here.len(), 39);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "what was passed is forgotten");
}

#[test]
fn where_it_may_have_been_sent_ahead_the_lane_stops_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(Sinks::Both, &folder);
    let (died, end) = until_it_lives(&world);
    let LaneEnd::Stopped(error) = end else {
        panic!("{end:?}")
    };
    assert_eq!((died, error.blame()), (6, Blame::Config));
    assert!(error.to_string().contains("offset 17"), "{error}");
    // Who may complete it, and what an operator can do.
    let release = world.release().id.clone();
    let said = error.detail();
    assert!(said.contains("cannot be set aside"), "{said}");
    assert!(said.contains(&format!("release {release} has")), "{said}");
    let hint = error.hint_text().unwrap();
    for action in ["core file", "newer wasmill", "resume", "can be deployed"] {
        assert!(hint.contains(action), "{action}: {hint}");
    }
    assert_eq!(world.store.lock().dead, []);
    assert_eq!(on_a_shard(world.position()), 17);
}

/// A world whose stable release runs every record, and one on trial that kills the host.
fn on_trial(sinks: Sinks, folder: &tempfile::TempDir) -> (World, Arc<Release>) {
    let mut world = world(sinks, folder);
    let killing = world.plugin.clone();
    world.plugin.acts = Arc::new(|_| Act::Row);
    let release = world.release_of("0000000000000002", killing);
    (world, release)
}

#[test]
fn a_canary_that_kills_the_host_is_stopped_and_its_record_is_the_stable_release_s() {
    let folder = tempfile::tempdir().unwrap();
    let (mut world, release) = on_trial(Sinks::Here, &folder);
    let canary = Trial {
        release: Some(release),
        partitions: [0].into(),
    };
    world.wanted = Some(Desired {
        canary: Some(canary),
        ..Desired::only(world.release())
    });
    let (died, end) = until_it_lives(&world);
    let LaneEnd::Stopped(error) = end else {
        panic!("{end:?}")
    };
    // Three times in a batch, once alone.
    assert_eq!((died, error.blame()), (4, Blame::Plugin));
    assert!(error.to_string().contains("[17, 18)"), "{error}");
    // Until somebody takes it back it stops again, and the host lives.
    let (died, end) = until_it_lives(&world);
    assert!(died == 0 && matches!(end, LaneEnd::Stopped(_)), "{end:?}");
    world.wanted = None;
    let (died, end) = until_it_lives(&world);
    assert!(died == 0 && matches!(end, LaneEnd::Done), "{end:?}");
    assert_eq!(world.store.lock().dead, []);
    assert_eq!(world.check(RECORDS), Vec::<String>::new());
    assert_eq!(world.store.lock().here.len(), 40);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "what was passed is forgotten");
}

#[test]
fn a_shadow_that_kills_the_host_is_stopped_and_condemns_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut world, release) = on_trial(Sinks::Here, &folder);
    world.wanted = Some(Desired {
        shadow: Some(release),
        ..Desired::only(world.release())
    });
    let mut died = 0;
    let end = loop {
        // A new process looks at what the one before has left.
        world.deaths = Deaths::remembered_in(folder.path());
        let ended = catch_unwind(AssertUnwindSafe(|| {
            on_a_shard(async { world.run(&[10, RECORDS]).await })
        }));
        match ended {
            Ok(end) => break end,
            Err(_) => died += 1,
        }
        assert!(died < 20, "the host dies for ever");
    };
    assert!(died == 3 && matches!(end, LaneEnd::Done), "{died}: {end:?}");
    assert_eq!(world.store.lock().dead, []);
    assert_eq!(world.check(RECORDS), Vec::<String>::new());
    let lanes = world.counters.lanes();
    let shadow = lanes[0].shadow.clone().unwrap();
    let why = shadow.stopped.unwrap_or_default();
    assert!(why.contains("died 3 times"), "{why}");
}
