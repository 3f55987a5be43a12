//! Seeded random faults: lanes that fail, are cut, fenced and started again until the input is through; then
//! the sinks must hold the fold of the input. A rule taken away must turn seeds red, or the checks prove nothing.

use std::time::Duration;

use super::fakes::{Broken, Fault};
use super::guest::Act;
use super::seeds::{Dice, FAULTS, act, none_fails, some_fail_without};
use super::world::{Sinks, World};
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

/// Runs one seed; returns what is wrong in the end, and the faults that were left unused.
async fn run(seed: u64, broken: Broken) -> Vec<String> {
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
        if tries > 60 {
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
            LaneEnd::Done | LaneEnd::Fenced(_) | LaneEnd::Behind(_) => {}
        }
    }
    world.check(RECORDS)
}

#[test]
fn random_faults_lose_and_double_nothing() {
    none_fails(run);
}

#[test]
fn the_checks_go_red_when_a_rule_is_taken_away() {
    let rules = [
        Broken::CompareAndSet,
        Broken::SwallowedRollback,
        Broken::AheadForgotten,
        Broken::Stamps,
        Broken::Grant,
    ];
    some_fail_without(&rules, 200, run);
}
