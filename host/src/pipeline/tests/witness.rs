//! What the consumer group has committed, as a witness of positions that are gone or went back: a whole pipeline
//! stops, or waits for the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::guest::Act;
use super::whole::{play_beside, positions};
use super::world::{Sinks, World, on_a_shard};
use crate::error::{Blame, Error};

#[test]
fn a_first_start_of_what_the_group_knows_is_a_data_loss_and_stores_nothing() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    let knows = |partition| move || Ok(BTreeMap::from([(partition, 700)]));
    let error = play_beside(&world, knows(1), |_| ()).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    assert!(
        error.to_string().contains("data loss: t partition 1"),
        "{error}"
    );
    assert_eq!(positions(&world), Vec::<i64>::new());
    // The last partition's position alone looks like a partition that was added.
    on_a_shard(world.seed(0, 0));
    let error = play_beside(&world, knows(1), |_| ()).unwrap_err();
    assert!(error.to_string().contains("at least 700"), "{error}");
    assert_eq!(positions(&world), [0]);
    // A group that knows of others only holds nothing up.
    play_beside(&world, knows(7), |_| ()).unwrap();
    assert_eq!(positions(&world), [0, 0]);
}

#[test]
fn a_claim_that_finds_less_than_the_group_knows_is_a_data_loss_and_starts_no_lane() {
    let world = World::new(Sinks::Both, |_| Act::Row);
    on_a_shard(async {
        world.seed(0, 600).await;
        world.seed(1, 0).await;
    });
    let knows = || Ok(BTreeMap::from([(0, 601)]));
    let error = play_beside(&world, knows, |stage| {
        stage.assign(&[0, 1]);
        stage.until_shutdown();
    })
    .unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    let said = error.to_string();
    assert!(said.contains("stands at 600 and stood at 601"), "{said}");
    assert_eq!(positions(&world), [600, 0]);
    // One that is behind the anchor, as every late word is, holds nothing up.
    let late = || Ok(BTreeMap::from([(0, 600), (1, 0)]));
    play_beside(&world, late, |stage| {
        stage.assign(&[0]);
        assert_eq!(stage.started().1, 600);
    })
    .unwrap();
}

#[test]
fn a_database_that_went_back_with_all_that_was_written_is_gone_on_from() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    on_a_shard(async {
        world.seed(0, 600).await;
        world.seed(1, 0).await;
    });
    let knows = || Ok(BTreeMap::from([(0, 601)]));
    play_beside(&world, knows, |stage| {
        stage.assign(&[0]);
        assert_eq!(stage.started().1, 600);
    })
    .unwrap();
}

#[test]
fn a_group_that_does_not_answer_is_asked_again() {
    let world = World::new(Sinks::Here, |_| Act::Row);
    on_a_shard(async {
        world.seed(0, 0).await;
        world.seed(1, 0).await;
    });
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let away = move || match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0..3 => Err(Error::outside("ask the group", "no coordinator")),
        _ => Ok(BTreeMap::new()),
    };
    let store = Arc::clone(&world.store);
    play_beside(&world, away, move |stage| {
        stage.assign(&[0]);
        assert_eq!(stage.started().1, 0);
        assert_eq!(
            store.lock().claims,
            1,
            "claimed before the group had answered"
        );
    })
    .unwrap();
}
