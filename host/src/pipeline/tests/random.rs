//! Seeded random faults: lanes that fail, are cut, fenced and started again until the input is through; then
//! the sinks must hold the fold of the input. What it would notice is in `mutation`.

use std::time::Duration;

use super::fakes::{Broken, Fault};
use super::guest::Act;
use super::seeds::{Dice, FAULTS, act, none_fails};
use super::world::{Sinks, World};
use crate::pipeline::conduct::Place;
use crate::pipeline::lane::LaneEnd;

/// Records of a seed.
const RECORDS: i64 = 60;

const ACTS: [Act; 5] = [
    Act::Filter,
    Act::Reject,
    Act::Trap,
    Act::Malformed,
    Act::Limit,
];

/// Where a lane goes on that is misplaced: for a while, or to the end.
pub(super) fn elsewhere(place: Place, dice: &mut Dice) -> Place {
    match place {
        Place::Home => Place::Quarantine {
            calm: Duration::from_millis(dice.pick(&[10, 100, 600_000])),
        },
        Place::Quarantine { .. } => Place::Home,
    }
}

/// Runs one seed; returns what is wrong in the end, and the faults that were left unused.
pub(super) async fn run(seed: u64, broken: Broken) -> Vec<String> {
    let mut dice = Dice(seed);
    let sinks = dice.pick(&[Sinks::Here, Sinks::Both, Sinks::Both, Sinks::Ahead]);
    let mut world = World::new(sinks, move |offset| act(seed, offset, &ACTS));
    world.anchor.lazy = sinks == Sinks::Ahead;
    world.seed(0, 0).await;
    {
        let mut store = world.store.lock();
        store.broken = broken;
        store.delay_writes = dice.roll(2) == 0;
        let faults = [&FAULTS[..], &[Fault::Stop, Fault::None]].concat();
        store.faults = dice.faults(12, &faults);
        store.grants = dice.faults(2, &faults);
        store.settle_faults = dice.faults(2, &faults);
        store.refused = (0..dice.roll(3)).map(|_| dice.roll(60) as i64).collect();
    }
    let mut tries = 0;
    loop {
        tries += 1;
        if tries > 90 {
            return vec![format!("no end in sight at {}", world.position().await)];
        }
        let mut cuts = vec![];
        let mut cut = world.position().await;
        while cut < RECORDS {
            cut = (cut + 1 + dice.roll(16) as i64).min(RECORDS);
            cuts.push(cut);
        }
        let end = if dice.roll(4) == 0 {
            let limit = Duration::from_millis(dice.roll(90));
            match tokio::time::timeout(limit, world.run(&cuts)).await {
                Ok(end) => end,
                Err(_) => continue,
            }
        } else {
            world.run(&cuts).await
        };
        match end {
            LaneEnd::Done if world.position().await >= RECORDS => break,
            LaneEnd::Stopped(error) if error.blame() == crate::error::Blame::Bug => {
                return vec![error.to_string()];
            }
            // An operator mends what the database refuses, and starts again.
            LaneEnd::Stopped(_) => world.store.lock().refused.clear(),
            LaneEnd::Misplaced(_) => world.place.set(elsewhere(world.place.get(), &mut dice)),
            LaneEnd::Done | LaneEnd::Fenced(_) | LaneEnd::Behind(_) => {}
        }
    }
    world.check(RECORDS)
}

#[test]
fn random_faults_lose_and_double_nothing() {
    none_fails(5000, run);
}
