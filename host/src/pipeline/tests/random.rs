//! Seeded random faults: lanes that fail, are cut, fenced and started again until the input is through; then
//! the sinks must hold the fold of the input. All seeds run side by side on one thread, because most of their
//! time is back-off. A rule taken away must turn seeds red, or the checks prove nothing.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::fakes::{Broken, Fault};
use super::guest::Act;
use super::world::{Sinks, World, on_a_shard};
use crate::pipeline::conduct::Place;
use crate::pipeline::lane::LaneEnd;

/// Set to a failing seed to run it alone.
const REPLAY: Option<u64> = None;
const SEEDS: u64 = 2000;
/// Records of a seed.
const RECORDS: i64 = 60;

/// splitmix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.roll(from.len() as u64);
        from[usize::try_from(at).unwrap()]
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

const FAULTS: [Fault; 10] = [
    Fault::Stolen,
    Fault::RolledBack,
    Fault::RolledBackLate,
    Fault::UnknownDone,
    Fault::UnknownNot,
    Fault::UnknownLate,
    Fault::AheadOutside,
    Fault::AheadConfig,
    Fault::Stop,
    Fault::None,
];

fn act(seed: u64, offset: i64) -> Act {
    match Dice(seed ^ offset.unsigned_abs().wrapping_mul(0x5851_f42d)).roll(14) {
        0 => Act::Filter,
        1 => Act::Reject,
        2 => Act::Trap,
        3 => Act::Malformed,
        4 => Act::Limit,
        _ => Act::Row,
    }
}

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
async fn run(seed: u64, broken: Broken) -> Vec<String> {
    let mut dice = Dice(seed);
    let sinks = dice.pick(&[Sinks::Here, Sinks::Both, Sinks::Both, Sinks::Ahead]);
    let mut world = World::new(sinks, move |offset| act(seed, offset));
    world.anchor.lazy = sinks == Sinks::Ahead;
    world.seed(0, 0).await;
    {
        let mut store = world.store.lock();
        store.broken = broken;
        store.delay_writes = dice.roll(2) == 0;
        let fault = |dice: &mut Dice| match dice.roll(3) {
            0 => dice.pick(&FAULTS),
            _ => Fault::None,
        };
        store.faults = (0..12).map(|_| fault(&mut dice)).collect::<VecDeque<_>>();
        store.grants = (0..2).map(|_| fault(&mut dice)).collect();
        store.settle_faults = (0..2).map(|_| fault(&mut dice)).collect();
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

fn failing(seeds: std::ops::Range<u64>, broken: Broken) -> Vec<(u64, Vec<String>)> {
    on_a_shard(async {
        futures_util::stream::iter(seeds)
            .map(|seed| async move { (seed, run(seed, broken).await) })
            .buffer_unordered(2000)
            .filter(|(_, wrong)| std::future::ready(!wrong.is_empty()))
            .collect()
            .await
    })
}

#[test]
fn random_faults_lose_and_double_nothing() {
    let seeds = REPLAY.map_or(0..SEEDS, |seed| seed..seed + 1);
    let failed = failing(seeds, Broken::Nothing);
    let count = failed.len();
    assert!(
        count == 0,
        "{count} seeds fail, set REPLAY to one: {:#?}",
        &failed[..count.min(3)]
    );
}

#[test]
fn the_checks_go_red_when_a_rule_is_taken_away() {
    for broken in [
        Broken::CompareAndSet,
        Broken::SwallowedRollback,
        Broken::AheadForgotten,
        Broken::Stamps,
        Broken::Grant,
    ] {
        let failed = failing(0..200, broken);
        assert!(!failed.is_empty(), "nobody noticed that {broken:?} is gone");
    }
}
