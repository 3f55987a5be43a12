//! [`Advice`]: which positions are committed to the group, and when. Pure.
//!
//! They tell lag tools where the pipeline is, and the next owner of a partition where it has been: an anchor that holds
//! less has lost something. So nothing is committed that the anchor might still take back. A position found at a claim
//! may be told at once, for a claim is durable with all that was before it. One that a lane committed is told a round
//! later: a database with asynchronous commits, or one that fails over to a standby a little behind, may lose the last
//! of them, together with their rows, and they are read again.

use std::collections::HashMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Advice {
    /// Heard of since the last round.
    fresh: HashMap<i32, i64>,
    /// To be committed in the next round.
    ripe: HashMap<i32, i64>,
    /// The last position of each partition that was ripe.
    known: HashMap<i32, i64>,
}

impl Advice {
    /// A partition was claimed, and its position found there.
    pub(super) fn starts(&mut self, partition: i32, position: i64) {
        self.fresh.remove(&partition);
        self.ripens(partition, position);
    }

    /// A lane has moved the position.
    pub(super) fn hear(&mut self, partition: i32, position: i64) {
        self.fresh.insert(partition, position);
    }

    /// A round: what has to be committed now of the partitions still held.
    pub(super) fn due(&mut self, holds: impl Fn(i32) -> bool) -> HashMap<i32, i64> {
        let mut due = std::mem::take(&mut self.ripe);
        due.retain(|partition, _| holds(*partition));
        for (partition, position) in std::mem::take(&mut self.fresh) {
            self.ripens(partition, position);
        }
        due
    }

    /// What may be committed of a partition at any time; `None`: it never started here.
    pub(super) fn known(&self, partition: i32) -> Option<i64> {
        self.known.get(&partition).copied()
    }

    /// Commits nothing more of what was heard so far.
    pub(super) fn withdraw(&mut self) {
        self.fresh.clear();
        self.ripe.clear();
    }

    fn ripens(&mut self, partition: i32, position: i64) {
        self.ripe.insert(partition, position);
        self.known.insert(partition, position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: fn(i32) -> bool = |_| true;

    #[test]
    fn what_a_claim_found_is_told_at_once_and_what_a_lane_committed_a_round_later() {
        let mut advice = Advice::default();
        advice.starts(0, 5);
        assert_eq!(advice.due(ALL), HashMap::from([(0, 5)]));
        advice.hear(0, 7);
        assert_eq!(advice.known(0), Some(5), "it may still be taken back");
        assert_eq!(advice.due(ALL), HashMap::new());
        advice.hear(0, 9);
        assert_eq!(advice.due(ALL), HashMap::from([(0, 7)]));
        assert_eq!(advice.due(ALL), HashMap::from([(0, 9)]));
        assert_eq!((advice.known(0), advice.known(1)), (Some(9), None));
    }

    #[test]
    fn a_claim_forgets_what_the_lane_before_it_said() {
        let mut advice = Advice::default();
        advice.hear(0, 9);
        advice.starts(0, 5);
        assert_eq!(advice.due(ALL), HashMap::from([(0, 5)]));
        assert_eq!(advice.due(ALL), HashMap::new());
    }

    #[test]
    fn what_was_taken_away_is_told_by_its_next_owner() {
        let mut advice = Advice::default();
        advice.starts(0, 5);
        advice.starts(1, 6);
        assert_eq!(
            advice.due(|partition| partition == 1),
            HashMap::from([(1, 6)])
        );
        advice.starts(1, 7);
        advice.hear(0, 8);
        advice.withdraw();
        assert_eq!(advice.due(ALL), HashMap::new());
        assert_eq!(advice.due(ALL), HashMap::new());
    }
}
