//! What others may know of one pipeline of a host: what it does now, what failed, how fast it is. Its task writes it;
//! the API, the judge of canaries and `/ready` read it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::releases::Loaded;
use crate::admin::types::PipelineState;
use crate::control::{Canary, Revision};
use crate::error::{Blame, Error};
use crate::pipeline::{Counters, LaneTotals, Totals};

/// Seconds that a rate is taken over.
const SAMPLES: usize = 10;

/// What others may know of a pipeline.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) name: Arc<str>,
    pub(super) counters: Arc<Counters>,
    // Both short: written when something changes or once a second, read by whoever asks; no await crosses them.
    seen: Mutex<Seen>,
    /// What was committed at each of the last seconds, oldest first.
    samples: Mutex<VecDeque<(Instant, Totals)>>,
}

/// What a pipeline does now.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) state: PipelineState,
    /// The revision that is in force here; 0 before the first.
    pub(super) revision: u64,
    /// What runs, or ran last.
    pub(super) loaded: Option<Arc<Loaded>>,
    /// The last failure and when, milliseconds since 1970.
    pub(super) failure: Option<(i64, Error)>,
    /// The revision that was in force when something failed last, and what.
    pub(super) tried: Option<(u64, Error)>,
    /// Failures by class since the host started.
    pub(super) failures: BTreeMap<&'static str, u64>,
    /// The canary under way.
    pub(super) canary: Option<Canary>,
    /// Why it cannot run here, where it cannot.
    pub(super) canary_fault: Option<Error>,
    /// What had been counted when it began here.
    pub(super) before: Vec<LaneTotals>,
}

impl Seen {
    /// Of a pipeline that was not even looked at.
    pub(super) fn new() -> Self {
        Self {
            state: PipelineState::Starting,
            revision: 0,
            loaded: None,
            failure: None,
            tried: None,
            failures: BTreeMap::new(),
            canary: None,
            canary_fault: None,
            before: Vec::new(),
        }
    }
}

impl Pipeline {
    /// Of a pipeline that starts.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            counters: Arc::new(Counters::new()),
            seen: Mutex::new(Seen::new()),
            samples: Mutex::default(),
        }
    }

    /// Notes what is committed by now; called once a second.
    pub(super) fn sample(&self) {
        let mut samples = self.samples.lock();
        while samples.len() > SAMPLES {
            samples.pop_front();
        }
        samples.push_back((Instant::now(), self.counters.totals()));
    }

    /// What was committed in the last seconds, and how long they were.
    pub(super) fn lately(&self) -> (Duration, Totals) {
        let samples = self.samples.lock();
        let now = self.counters.totals();
        match samples.front() {
            Some((at, then)) => (at.elapsed(), now.since(then)),
            None => (Duration::ZERO, Totals::default()),
        }
    }

    /// A look at it.
    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }

    /// Whether it waits for an operator, with what it waits for.
    pub(super) fn given_up(&self) -> Option<Error> {
        let seen = self.seen.lock();
        let waits = matches!(seen.state, PipelineState::Parked | PipelineState::Stopped);
        let failure = seen.failure.as_ref().filter(|_| waits);
        failure.map(|(_, error)| error.clone())
    }

    /// Notes what it does now.
    pub(super) fn is(&self, state: PipelineState) {
        self.seen.lock().state = state;
    }

    /// A deployment that runs nothing is in force here.
    pub(super) fn stands_still(&self, revision: u64) {
        self.seen.lock().revision = revision;
    }

    /// A deployment is in force here.
    pub(super) fn takes(&self, revision: &Revision, main: &Arc<Loaded>, fault: Option<&Error>) {
        let mut seen = self.seen.lock();
        seen.state = PipelineState::Running;
        seen.revision = revision.revision;
        seen.loaded = Some(Arc::clone(main));
        seen.canary_fault = fault.cloned();
        // A pause and its end are revisions too, about the same canary.
        if seen.canary != revision.deployment.canary {
            seen.canary.clone_from(&revision.deployment.canary);
            seen.before = self.counters.lanes();
            self.counters.forget_failures();
        }
    }

    /// Something failed while a revision was in force.
    pub(super) fn failed(&self, revision: u64, error: &Error) {
        let mut seen = self.seen.lock();
        seen.tried = Some((revision, error.clone()));
        *seen.failures.entry(class(error.blame())).or_default() += 1;
        seen.failure = Some((crate::clock::now_micros() / 1000, error.clone()));
    }
}

/// The word for a class of failures.
pub(super) fn class(blame: Blame) -> &'static str {
    blame.word()
}
