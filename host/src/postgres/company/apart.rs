//! [`Apart`]: which lanes fly alone for a while after a failure, and for how long. It counts flights and knows nothing
//! else.
//!
//! A failure of a lane's own sets it apart for [`LEAST`]. One that several had together is nobody's own as far as is
//! known: they were in each other's way, or in that of another host that shares over the same keys, and will be again.
//! Each further one sets them apart for twice as long, up to [`MOST`], until they have shared as long without.

use std::collections::HashMap;

/// Flights of a lane that it flies alone after a failure: a refused record is alone within some twenty.
const LEAST: u32 = 64;

/// Most flights that a lane flies alone for having failed in company. A deadlock costs a second and company saves part
/// of a commit: one in so many costs nothing that counts. Also after how many without one the earlier are forgotten.
const MOST: u32 = 1 << 16;

/// Lanes in trouble.
#[derive(Debug, Default)]
pub(super) struct Apart(HashMap<i32, Trouble>);

#[derive(Debug, Default)]
struct Trouble {
    /// For how many flights company last set it apart.
    span: u32,
    /// How many more it flies alone; below 0, how many it has shared since.
    left: i64,
}

impl Apart {
    /// Whether the next flight of a lane may share a transaction; counts it.
    pub(super) fn takes(&mut self, partition: i32) -> bool {
        let Some(trouble) = self.0.get_mut(&partition) else {
            return true;
        };
        trouble.left -= 1;
        let left = trouble.left;
        if left <= -i64::from(MOST) {
            self.0.remove(&partition);
        }
        left < 0
    }

    /// A lane failed by itself.
    pub(super) fn alone(&mut self, partition: i32) {
        let trouble = self.0.entry(partition).or_default();
        trouble.left = trouble.left.max(LEAST.into());
    }

    /// A lane failed in company.
    pub(super) fn in_company(&mut self, partition: i32) {
        let trouble = self.0.entry(partition).or_default();
        trouble.span = (trouble.span * 2).clamp(LEAST, MOST);
        trouble.left = trouble.span.into();
    }

    /// How many lanes are in trouble.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many flights a lane flies alone from now on.
    fn alone(apart: &mut Apart, partition: i32) -> u32 {
        let mut flights = 0;
        while !apart.takes(partition) {
            flights += 1;
        }
        flights
    }

    #[test]
    fn a_lane_in_trouble_flies_alone_for_a_while() {
        let mut apart = Apart::default();
        for _ in 0..3 {
            apart.alone(3);
            assert!(apart.takes(2), "another's trouble");
            assert_eq!(alone(&mut apart, 3), LEAST);
        }
    }

    #[test]
    fn company_that_fails_again_is_left_for_twice_as_long() {
        let mut apart = Apart::default();
        let mut failures = 0_u32;
        let mut flights = 0;
        while flights < 1_000_000 {
            apart.in_company(3);
            failures += 1;
            let wanted = (LEAST << (failures - 1).min(16)).min(MOST);
            assert_eq!(alone(&mut apart, 3), wanted);
            flights += wanted;
            for _ in 0..100 {
                assert!(apart.takes(3), "a success does not make it shorter");
            }
        }
        assert!(failures < 30, "{failures}");
    }

    #[test]
    fn a_failure_of_its_own_neither_shortens_nor_lengthens_that() {
        let mut apart = Apart::default();
        apart.in_company(3);
        alone(&mut apart, 3);
        apart.in_company(3);
        apart.alone(3);
        assert_eq!(alone(&mut apart, 3), 2 * LEAST);
        apart.alone(3);
        assert_eq!(alone(&mut apart, 3), LEAST);
        apart.in_company(3);
        assert_eq!(alone(&mut apart, 3), 4 * LEAST);
    }

    #[test]
    fn trouble_is_forgotten_after_a_long_time_without() {
        let mut apart = Apart::default();
        apart.in_company(3);
        apart.in_company(3);
        alone(&mut apart, 3);
        for _ in 0..MOST {
            assert!(apart.takes(3));
        }
        assert_eq!(apart.len(), 0);
        apart.in_company(3);
        assert_eq!(alone(&mut apart, 3), LEAST);
    }
}
