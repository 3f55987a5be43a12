//! [`Advice`]: which positions are committed to the group, and when. Pure.
//!
//! They tell lag tools where the pipeline is, and the next owner of a partition where it has been: an anchor that holds
//! less has lost something. So only what the anchor confirmed is ever heard of here.

use std::collections::HashMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Advice {
    /// Heard of since the last round.
    fresh: HashMap<i32, i64>,
    /// The last position that was heard of each partition.
    known: HashMap<i32, i64>,
}

impl Advice {
    /// A claim has found a position, or a lane has moved it.
    pub(super) fn hear(&mut self, partition: i32, position: i64) {
        self.fresh.insert(partition, position);
        self.known.insert(partition, position);
    }

    /// A round: what has to be committed now of the partitions still held.
    pub(super) fn due(&mut self, holds: impl Fn(i32) -> bool) -> HashMap<i32, i64> {
        let mut due = std::mem::take(&mut self.fresh);
        due.retain(|partition, _| holds(*partition));
        due
    }

    /// What may be committed of a partition at any time; `None`: it never started here.
    pub(super) fn known(&self, partition: i32) -> Option<i64> {
        self.known.get(&partition).copied()
    }

    /// Commits nothing more of what was heard so far.
    pub(super) fn withdraw(&mut self) {
        self.fresh.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: fn(i32) -> bool = |_| true;

    #[test]
    fn a_round_tells_the_last_position_once() {
        let mut advice = Advice::default();
        advice.hear(0, 5);
        advice.hear(0, 7);
        assert_eq!(advice.due(ALL), HashMap::from([(0, 7)]));
        assert_eq!(advice.due(ALL), HashMap::new());
        assert_eq!((advice.known(0), advice.known(1)), (Some(7), None));
    }

    #[test]
    fn a_claim_forgets_what_the_lane_before_it_said() {
        let mut advice = Advice::default();
        advice.hear(0, 9);
        advice.hear(0, 5);
        assert_eq!(advice.due(ALL), HashMap::from([(0, 5)]));
    }

    #[test]
    fn what_was_taken_away_is_told_by_its_next_owner() {
        let mut advice = Advice::default();
        advice.hear(0, 5);
        advice.hear(1, 6);
        assert_eq!(
            advice.due(|partition| partition == 1),
            HashMap::from([(1, 6)])
        );
        advice.hear(1, 7);
        advice.hear(0, 8);
        advice.withdraw();
        assert_eq!(advice.due(ALL), HashMap::new());
    }
}
