//! Seeded chance: dice, what they decide for every seeded test, and seeds run side by side on one thread, because
//! most of their time is back-off. It knows no scenario: `random` and `upgrades` each bring one, which says what is
//! wrong after one seed.

use std::ops::Range;

use futures_util::StreamExt as _;

use super::fakes::{Broken, Fault};
use super::guest::Act;
use super::world::on_a_shard;

/// Set to a failing seed to run it alone.
const REPLAY: Option<u64> = None;
const SEEDS: u64 = 2000;

/// Faults after which a lane goes on, or another takes its place, with nobody's help.
pub(super) const FAULTS: [Fault; 8] = [
    Fault::Stolen,
    Fault::RolledBack,
    Fault::RolledBackLate,
    Fault::UnknownDone,
    Fault::UnknownNot,
    Fault::UnknownLate,
    Fault::AheadOutside,
    Fault::AheadConfig,
];

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

    /// A script of so many calls, one in three with a fault of these.
    pub(super) fn faults<C: FromIterator<Fault>>(&mut self, calls: u64, of: &[Fault]) -> C {
        let fault = |_| match self.roll(3) {
            0 => self.pick(of),
            _ => Fault::None,
        };
        (0..calls).map(fault).collect()
    }
}

/// What the plugin does with a record: each of these once in fourteen records, a row otherwise.
pub(super) fn act(seed: u64, offset: i64, of: &[Act]) -> Act {
    let roll = Dice(seed ^ offset.unsigned_abs().wrapping_mul(0x5851_f42d)).roll(14);
    let of = of.get(usize::try_from(roll).unwrap());
    of.copied().unwrap_or(Act::Row)
}

/// Runs seeds without a rule; those that fail, and what is wrong with them.
fn failing(
    seeds: Range<u64>,
    broken: Broken,
    run: &impl AsyncFn(u64, Broken) -> Vec<String>,
) -> Vec<(u64, Vec<String>)> {
    on_a_shard(async {
        futures_util::stream::iter(seeds)
            .map(async |seed| (seed, run(seed, broken).await))
            .buffer_unordered(2000)
            .filter(|(_, wrong)| std::future::ready(!wrong.is_empty()))
            .collect()
            .await
    })
}

/// Expects that nothing is wrong after any seed.
pub(super) fn none_fails(run: impl AsyncFn(u64, Broken) -> Vec<String>) {
    let seeds = REPLAY.map_or(0..SEEDS, |seed| seed..seed + 1);
    let failed = failing(seeds, Broken::Nothing, &run);
    let count = failed.len();
    assert!(
        count == 0,
        "{count} seeds fail, set REPLAY to one: {:#?}",
        &failed[..count.min(3)]
    );
}

/// Expects that some of the first `seeds` fail without a rule, whichever of these it is.
pub(super) fn some_fail_without(
    rules: &[Broken],
    seeds: u64,
    run: impl AsyncFn(u64, Broken) -> Vec<String>,
) {
    for broken in rules {
        let failed = failing(0..seeds, *broken, &run);
        assert!(!failed.is_empty(), "nobody noticed that {broken:?} is gone");
    }
}
