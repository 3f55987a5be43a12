//! Seeded chance: dice, what they decide for every seeded test, and seeds run side by side on one thread, because
//! most of their time is back-off. It knows no scenario: `random` and `upgrades` each bring one, which says what is
//! wrong after one seed.

use futures_util::StreamExt as _;

use super::fakes::{Broken, Fault};
use super::guest::Act;
use super::world::on_a_shard;

/// Runs one seed alone: the one that a failure names.
const REPLAY: &str = "WASMILL_SEED";
/// How many seeds each seeded test runs instead of its own count.
const COUNT: &str = "WASMILL_SEEDS";
/// Seeds that run side by side on a thread: most of their time is back-off.
const AT_ONCE: usize = 250;

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
    seeds: impl Iterator<Item = u64>,
    broken: Broken,
    run: &impl AsyncFn(u64, Broken) -> Vec<String>,
) -> Vec<(u64, Vec<String>)> {
    on_a_shard(async {
        futures_util::stream::iter(seeds)
            .map(async |seed| (seed, run(seed, broken).await))
            .buffer_unordered(AT_ONCE)
            .filter(|(_, wrong)| std::future::ready(!wrong.is_empty()))
            .collect()
            .await
    })
}

/// Expects that nothing is wrong after any of so many seeds, spread over the machine's threads.
pub(super) fn none_fails<R>(seeds: u64, run: R)
where
    R: AsyncFn(u64, Broken) -> Vec<String> + Sync,
{
    let all = match (number(REPLAY), number(COUNT)) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(seeds),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let failed: Vec<_> = std::thread::scope(|scope| {
        let parts = (0..threads).map(|at| {
            let (all, run) = (all.clone(), &run);
            scope.spawn(move || {
                let mine = all.filter(|seed| seed % threads == at);
                failing(mine, Broken::Nothing, run)
            })
        });
        let parts: Vec<_> = parts.collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap())
            .collect()
    });
    let count = failed.len();
    assert!(
        count == 0,
        "{count} seeds fail, run one again with {REPLAY}=<seed>: {:#?}",
        &failed[..count.min(3)]
    );
}

/// A number that the environment gives.
#[allow(clippy::disallowed_methods, reason = "no part of the program")]
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

/// Expects that some of the first `seeds` fail without a rule, and that what is wrong with one of them is said so.
pub(super) fn goes_red(
    broken: Broken,
    seeds: u64,
    said: &str,
    run: impl AsyncFn(u64, Broken) -> Vec<String>,
) {
    let failed = failing(0..seeds, broken, &run);
    let all: Vec<&String> = failed.iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(!all.is_empty(), "nobody noticed that {broken:?} is gone");
    assert!(
        all.iter().any(|wrong| wrong.contains(said)),
        "{broken:?} is gone, and nobody says {said:?}: {:#?}",
        &all[..all.len().min(5)]
    );
}
