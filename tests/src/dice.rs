//! Chance that can be repeated from its seed (xorshift64*): of the programs that break things at random moments.

use std::time::{Duration, SystemTime};

/// A seed that nobody has to think of.
pub fn seed_of_the_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::from(since.expect("it is later than 1970").subsec_nanos())
}

/// See the module.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Those of a seed; 0 is 1.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end.max(1)
    }

    /// A time between two, milliseconds.
    pub fn time(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }

    /// One in so many.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(all.len() as u64)).expect("a length fits");
        all.get(at).copied()
    }

    /// Puts them in another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            let other = usize::try_from(self.below(at as u64 + 1)).expect("a length fits");
            all.swap(at, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_run_for_ever() {
        let mut dice = Dice::new(277_087_905);
        let rolled: Vec<u64> = (0..5).map(|_| dice.below(1_000)).collect();
        assert_eq!(rolled, [274, 479, 984, 168, 766]);
    }
}
