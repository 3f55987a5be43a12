//! How a lane treats the others of its shard, and where it should run because of that.
//!
//! A guest is preempted every 10 ms, but what the host does for it is not: lifting its output, dropping its memory,
//! encoding its rows. [`Conduct`] times the turns of a lane and is told of calls that went past a limit. A lane that
//! misbehaved is misplaced at home: it ends where it stands, is claimed again like any other that ended, and goes on in
//! quarantine, on a shard that only such lanes share, until it behaved for a while. A trap is no misbehaviour: it
//! costs microseconds, and a plugin that fails on one record in a thousand must not lose its cores for it.
//! It moves nothing itself. What a lane does to the whole host is [`Mark`]'s, which it carries.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::deaths::Mark;
use super::lane::LaneEnd;
use super::pulse::Pulse;
use crate::clock::thread_time;

/// CPU time that one turn may take. A batch holds at most 1 MiB, so a turn that copes with a whole one is far below.
const HOLD: Duration = Duration::from_millis(40);

/// Where a lane runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the shard of its partition.
    Home,
    /// On the shard of those that misbehaved, until it has behaved for `calm`.
    Quarantine { calm: Duration },
}

/// The conduct of one lane.
#[derive(Debug)]
pub(super) struct Conduct {
    place: Place,
    /// When it last misbehaved; in quarantine, at the latest when it began to process: it never leaves before.
    last: Cell<Option<Instant>>,
    why: Cell<&'static str>,
    /// What it is at, should the host die of it.
    pub(super) mark: Rc<Mark>,
    /// The same of its shadow.
    pub(super) shadow: Rc<Mark>,
    pulse: Pulse,
}

impl Conduct {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            last: Cell::new(None),
            why: Cell::new("it behaved since"),
            mark: Rc::default(),
            shadow: Rc::default(),
            pulse: Pulse::default(),
        }
    }

    /// Lets somebody feel its pulse.
    pub(super) fn with_pulse(self, pulse: &Pulse) -> Self {
        let pulse = pulse.clone();
        Self { pulse, ..self }
    }

    /// Remembers what it and its shadow are at, beyond the death of the host.
    pub(super) fn marked(self, mark: Mark, shadow: Mark) -> Self {
        Self {
            mark: Rc::new(mark),
            shadow: Rc::new(shadow),
            ..self
        }
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.place != Place::Home
    }

    /// Notes that the lane was a burden to others, and how.
    pub(super) fn misbehaved(&self, why: &'static str) {
        self.last.set(Some(Instant::now()));
        if !self.is_quarantined() {
            self.why.set(why);
        }
    }

    /// Why the lane should go on elsewhere, if it should: in quarantine after it misbehaved at home, at home after it
    /// was calm in quarantine.
    pub(super) fn misplaced(&self) -> Option<&'static str> {
        let last = self.last.get()?;
        let stays = match self.place {
            Place::Home => false,
            Place::Quarantine { calm } => last.elapsed() < calm,
        };
        (!stays).then(|| self.why.get())
    }

    /// Runs a lane and times its turns.
    pub(super) async fn timed<T>(&self, lane: impl Future<Output = T>) -> T {
        let mut lane = pin!(lane);
        std::future::poll_fn(|context| {
            let begun = thread_time();
            let polled = lane.as_mut().poll(context);
            self.pulse.beat();
            if thread_time().saturating_sub(begun) > HOLD {
                self.misbehaved("it held its shard");
            }
            polled
        })
        .await
    }

    /// Runs what may be dropped and done again, and drops it at its next turn after the lane misbehaved at home.
    /// In quarantine it is never cut short: it has to come to an end somewhere.
    pub(super) async fn unless_misplaced<T>(
        &self,
        work: impl Future<Output = Result<T, LaneEnd>>,
    ) -> Result<T, LaneEnd> {
        if self.is_quarantined() && self.last.get().is_none() {
            self.last.set(Some(Instant::now()));
        }
        let mut work = pin!(work);
        std::future::poll_fn(|context| match self.misplaced() {
            Some(why) if !self.is_quarantined() => Poll::Ready(Err(LaneEnd::Misplaced(why))),
            _ => work.as_mut().poll(context),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use futures_util::FutureExt as _;

    use super::*;

    fn burn(time: Duration) {
        let begun = thread_time();
        while thread_time() - begun < time {}
    }

    #[test]
    fn a_turn_that_is_too_long_misplaces_and_turns_that_are_not_do_not() {
        let conduct = Conduct::new(Place::Home);
        let lane = async {
            for _ in 0..6 {
                burn(HOLD / 4);
                // Nobody else is waiting: it wakes itself at once.
                let mut yielded = false;
                std::future::poll_fn(|context| {
                    context.waker().wake_by_ref();
                    match std::mem::replace(&mut yielded, true) {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                })
                .await;
            }
            // Waiting costs nobody anything.
            std::thread::sleep(HOLD * 2);
        };
        let mut timed = Box::pin(conduct.timed(lane));
        while (&mut timed).now_or_never().is_none() {}
        drop(timed);
        assert_eq!(conduct.misplaced(), None);
        let long = async { burn(HOLD * 2) };
        conduct.timed(long).now_or_never().unwrap();
        assert_eq!(conduct.misplaced(), Some("it held its shard"));
    }

    #[test]
    fn what_misbehaves_at_home_is_cut_short_and_in_quarantine_it_comes_to_an_end() {
        let calm = Duration::from_millis(50);
        for (place, ends) in [(Place::Home, false), (Place::Quarantine { calm }, true)] {
            let conduct = Conduct::new(place);
            let work = async {
                conduct.misbehaved("it did");
                futures_util::pending!();
                Ok(())
            };
            let mut work = Box::pin(conduct.unless_misplaced(work));
            assert!((&mut work).now_or_never().is_none());
            if place != Place::Home {
                std::thread::sleep(calm);
                assert_eq!(conduct.misplaced(), Some("it behaved since"));
            }
            let end = (&mut work).now_or_never().unwrap();
            assert_eq!(end.is_ok(), ends, "{end:?}");
            drop(work);
            conduct.misbehaved("it did again");
            assert_eq!(conduct.misplaced().is_some(), place == Place::Home);
        }
    }
}
