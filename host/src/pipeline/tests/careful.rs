//! A record that kills the host: a lane that panics stands for it, as both leave their mark.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::guest::Act;
use super::world::{Sinks, World, on_a_shard};
use crate::error::Blame;
use crate::pipeline::deaths::Deaths;
use crate::pipeline::lane::LaneEnd;

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
    assert_eq!(world.store.lock().dead, []);
    assert_eq!(on_a_shard(world.position()), 17);
}
