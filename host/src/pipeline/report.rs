//! How a lane's end reaches its supervisor: exactly once, also when the lane panics, or the supervisor would
//! count on it for ever.

use tokio::sync::mpsc;

use super::lane::LaneEnd;
use crate::error::Error;

/// A lane's end, reported from its shard.
pub(super) struct Ended {
    pub(super) partition: i32,
    /// Which of the partition's lanes.
    pub(super) generation: u64,
    pub(super) end: LaneEnd,
}

/// The duty to report an end: dropped without [`Report::say`] it reports a bug.
pub(super) struct Report {
    ended: mpsc::UnboundedSender<Ended>,
    partition: i32,
    generation: u64,
    end: Option<LaneEnd>,
}

impl Report {
    pub(super) fn new(
        ended: mpsc::UnboundedSender<Ended>,
        partition: i32,
        generation: u64,
    ) -> Self {
        Self {
            ended,
            partition,
            generation,
            end: None,
        }
    }

    /// Reports the end.
    pub(super) fn say(mut self, end: LaneEnd) {
        self.end = Some(end);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let end = self.end.take().unwrap_or_else(|| {
            let what = format!("run the lane of partition {}", self.partition);
            LaneEnd::Stopped(Error::bug(what, "it ended without a word: it panicked"))
        });
        let ended = Ended {
            partition: self.partition,
            generation: self.generation,
            end,
        };
        // Nobody listens once the pipeline is gone.
        self.ended.send(ended).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Blame;

    #[test]
    fn a_lane_that_panics_is_reported_as_a_bug() {
        let (ended, mut heard) = mpsc::unbounded_channel();
        let report = Report::new(ended.clone(), 3, 7);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _report = report;
            panic!("lane");
        }));
        assert!(outcome.is_err());
        Report::new(ended, 4, 8).say(LaneEnd::Done);
        let first = heard.try_recv().map(|e| (e.partition, e.generation, e.end));
        assert!(
            matches!(first, Ok((3, 7, LaneEnd::Stopped(error))) if error.blame() == Blame::Bug)
        );
        let second = heard.try_recv().map(|e| (e.partition, e.generation, e.end));
        assert!(matches!(second, Ok((4, 8, LaneEnd::Done))));
        assert!(heard.try_recv().is_err());
    }
}
