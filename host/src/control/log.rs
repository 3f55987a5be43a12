//! The log that all hosts share, as a contract, and one in memory: for hosts without a control topic, and tests.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::{Condvar, Mutex};

use crate::error::Error;
use crate::task::{self, Thread};

/// Key and value to be written; no value removes what was written under the key.
pub type Write = (Vec<u8>, Option<Vec<u8>>);

/// What a follower is told.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The next record; offsets ascend, with gaps.
    Record {
        /// Its offset.
        offset: i64,
        /// Empty where it has none.
        key: &'a [u8],
        /// `None` removes what was written under the key.
        value: Option<&'a [u8]>,
    },
    /// Everything that was in the log when following began has been told. Once, even when the log is empty.
    CaughtUp,
    /// The log is gone, or is another one: nothing more comes. What the surroundings do (a broker away) is no
    /// reason: that is waited for.
    Lost(Error),
}

/// Takes what a follower is told, on the follower's thread. `Break` ends it.
pub type Sink = Box<dyn FnMut(Event<'_>) -> ControlFlow<()> + Send>;

/// One ordered, compacted log that every host appends to and follows.
pub trait ControlLog: Send + Sync + std::fmt::Debug {
    /// What it is called, for people: `topic "wasmill.control"`.
    fn name(&self) -> String;

    /// What tells this log from another one of the same name; `None` where nothing does.
    fn identity(&self) -> Option<String>;

    /// Writes records in this order; done when they will survive. After an error any number of them may have been
    /// written, or may still be.
    ///
    /// # Errors
    /// `Config`: the log refuses them or is gone. `Outside`: not known whether they were written.
    fn append(&self, records: Vec<Write>) -> BoxFuture<'_, Result<(), Error>>;

    /// Tells `sink` every record from the start on, then each new one, from a thread of its own.
    ///
    /// # Errors
    /// `Outside`: no thread, or no client for it.
    fn follow(&self, sink: Sink) -> Result<Follower, Error>;
}

/// A running follower; ends when dropped.
#[derive(Debug)]
pub struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<Thread<()>>,
}

impl Follower {
    /// Runs `body` on a thread; it looks at the flag it is given at least every 100 ms and returns when it is set.
    ///
    /// # Errors
    /// `Outside`: no thread.
    pub fn start(
        name: &str,
        body: impl FnOnce(Arc<AtomicBool>) + Send + 'static,
    ) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = task::thread(name, move || body(flag))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(Thread::is_finished)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(self.thread.take());
    }
}

/// How often a follower of a log in memory looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(20);

/// A log in memory, shared by its clones: several hosts in one process see one log. Gone with the process.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    records: Mutex<Records>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Records {
    /// With their offsets, which keep their gaps after compaction.
    all: Vec<(i64, Arc<Write>)>,
    next: i64,
    deleted: bool,
}

impl MemoryLog {
    /// A copy as compaction leaves it: only the last record of each key, at its offset; without removals where
    /// `tombstones` is [`Tombstones::Gone`].
    #[must_use]
    pub fn compacted(&self, tombstones: Tombstones) -> Self {
        let records = self.shared.records.lock();
        let mut last = std::collections::HashMap::new();
        for (offset, record) in &records.all {
            last.insert(record.0.clone(), *offset);
        }
        let kept = records.all.iter().filter(|(offset, record)| {
            let stays = record.1.is_some() || tombstones == Tombstones::Kept;
            last.get(&record.0) == Some(offset) && stays
        });
        let copy = Records {
            all: kept.cloned().collect(),
            next: records.next,
            deleted: false,
        };
        Self {
            shared: Arc::new(Shared {
                records: Mutex::new(copy),
                grown: Condvar::new(),
            }),
        }
    }

    /// Deletes the log under its followers and writers, as a topic is deleted.
    pub fn delete(&self) {
        self.shared.records.lock().deleted = true;
        self.shared.grown.notify_all();
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.records.lock().all.len()
    }

    /// The offset the next record gets.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.shared.records.lock().next
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn gone() -> Error {
        Error::config("use the control log in memory", "it was deleted")
            .hint("start the host again")
    }

    /// The records from the `from`th on, waiting for some at most [`LOOK`]; `None` when the log is gone.
    fn wait(&self, from: usize) -> Option<Vec<(i64, Arc<Write>)>> {
        let mut records = self.shared.records.lock();
        if !records.deleted && records.all.len() == from {
            self.shared.grown.wait_for(&mut records, LOOK);
        }
        (!records.deleted).then(|| records.all[from..].to_vec())
    }
}

/// What compaction does with removals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tombstones {
    /// They are still there.
    Kept,
    /// They have gone too.
    Gone,
}

impl ControlLog for MemoryLog {
    fn name(&self) -> String {
        "log in memory".to_owned()
    }

    fn identity(&self) -> Option<String> {
        None
    }

    fn append(&self, writes: Vec<Write>) -> BoxFuture<'_, Result<(), Error>> {
        let mut records = self.shared.records.lock();
        let outcome = if records.deleted {
            Err(Self::gone())
        } else {
            for write in writes {
                let offset = records.next;
                records.all.push((offset, Arc::new(write)));
                records.next += 1;
            }
            Ok(())
        };
        drop(records);
        self.shared.grown.notify_all();
        Box::pin(std::future::ready(outcome))
    }

    fn follow(&self, mut sink: Sink) -> Result<Follower, Error> {
        let log = self.clone();
        Follower::start("control-log", move |stop| {
            let end = log.len();
            let (mut told, mut caught_up) = (0, false);
            while !stop.load(Ordering::Acquire) {
                if !caught_up && told >= end {
                    caught_up = true;
                    if sink(Event::CaughtUp).is_break() {
                        return;
                    }
                }
                let Some(records) = log.wait(told) else {
                    let _ended = sink(Event::Lost(Self::gone()));
                    return;
                };
                for (offset, record) in records {
                    let (key, value) = (&record.0, record.1.as_deref());
                    if stop.load(Ordering::Acquire)
                        || sink(Event::Record { offset, key, value }).is_break()
                    {
                        return;
                    }
                    told += 1;
                }
            }
        })
    }
}
