//! What the checker saw last, for those who break things: where the positions are, since when, and what was wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use wasmill_tests::checker::Faults;

/// Records flow when the positions moved within this.
const FLOW: Duration = Duration::from_secs(1);

/// Shared by all that run.
pub(crate) type Shared = Arc<View>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct View(Mutex<Seen>);

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When the last snapshot was begun.
    pub(crate) taken: Option<Instant>,
    /// Positions by partition.
    pub(crate) next: BTreeMap<i32, i64>,
    /// When the position of any partition was last seen to have moved.
    pub(crate) moved: Option<Instant>,
    /// Version of the newest row of each partition.
    pub(crate) versions: BTreeMap<i32, String>,
    /// Dead letters by code.
    pub(crate) dead: BTreeMap<&'static str, i64>,
    /// Snapshots that were compared, and those that did not hold.
    pub(crate) snapshots: u64,
    pub(crate) inconsistent: u64,
    /// Looks at the whole table.
    pub(crate) counts: u64,
    /// Snapshots that Postgres did not give.
    pub(crate) missed: u64,
    /// Most sessions of hosts at once.
    pub(crate) sessions: i64,
    /// Why the records are not what they should be: nothing that follows would say anything.
    pub(crate) void: Option<String>,
    /// What did not hold.
    pub(crate) faults: Faults,
}

impl View {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("whoever holds it does not panic")
    }

    /// Whether records flow.
    pub(crate) fn flows(&self) -> bool {
        self.lock().moved.is_some_and(|at| at.elapsed() < FLOW)
    }

    /// Whether a snapshot was begun after this moment.
    pub(crate) fn since(&self, moment: Instant) -> bool {
        self.lock().taken.is_some_and(|taken| taken > moment)
    }

    /// Positions by partition.
    pub(crate) fn positions(&self) -> BTreeMap<i32, i64> {
        self.lock().next.clone()
    }

    /// Whether every partition has gone on since it stood there.
    pub(crate) fn beyond(&self, mark: &BTreeMap<i32, i64>) -> bool {
        let seen = self.lock();
        let moved = |(partition, at): (&i32, &i64)| seen.next.get(partition) > Some(at);
        !mark.is_empty() && mark.iter().all(moved)
    }

    /// Records behind the positions.
    pub(crate) fn done(&self) -> i64 {
        self.lock().next.values().sum()
    }
}
