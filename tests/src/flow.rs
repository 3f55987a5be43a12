//! Records that flow until the test says stop: a fault that comes meanwhile comes while records flow, however fast the
//! host is.
//!
//! ```text
//! start ──▶ backlog, at once ──▶ a thread: so many a second ──▶ stop: all is stored, and here is where each is
//! ```
//! A record is made from its number, so the places alone, in that order, say all that was produced. It has a producer
//! of its own and never looks at the host. Where the broker is away it waits, and what was due meanwhile comes after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::expected::shipped_flight;
use crate::records::{Feed, Made, Place};

/// How often a few records are made.
const BEAT: Duration = Duration::from_millis(10);

/// How many records there are.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Stored before anything else happens.
    pub backlog: usize,
    /// A second, from then on.
    pub rate: u32,
}

/// More than a host does in the time in which it is killed, and some ten seconds of it are no burden.
impl Default for Pace {
    fn default() -> Self {
        Self {
            backlog: 10_000,
            rate: 5_000,
        }
    }
}

/// See the module. Dropping it stops it, and what is not stored yet never will be.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Feed>>,
}

impl Pace {
    /// Where Cassandra is written too, or servers have to come back meanwhile.
    pub const GENTLE: Self = Self {
        backlog: 10_000,
        rate: 1_000,
    };
}

impl Flow {
    /// Of shipped flights.
    pub fn flights(bootstrap: &str, topic: &str, pace: Pace) -> Self {
        Self::start(bootstrap, topic, pace, |n| {
            let (id, text) = shipped_flight(n);
            Made::new(id, text)
        })
    }

    /// Stores the backlog and then makes the rest; `make` says what the n-th record is, from 0.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        pace: Pace,
        make: impl Fn(usize) -> Made + Send + 'static,
    ) -> Self {
        let feed = Feed::new(bootstrap);
        (0..pace.backlog).for_each(|n| feed.enqueue(topic, &make(n), n));
        feed.settle();
        let stop = Arc::new(AtomicBool::new(false));
        let (told, topic) = (Arc::clone(&stop), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let mut made = pace.backlog;
            while !told.load(Ordering::Relaxed) {
                let due = start.elapsed().as_millis() * u128::from(pace.rate) / 1000;
                let due = usize::try_from(due).expect("a test ends before") + pace.backlog;
                (made..due).for_each(|n| feed.enqueue(&topic, &make(n), n));
                made = made.max(due);
                std::thread::sleep(BEAT);
            }
            feed
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Stops, waits until all is stored, and says where each record is, in the order of their numbers.
    pub fn stop(mut self) -> Vec<Place> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stop and drop take it");
        let feed = thread.join().expect("the producing thread does not panic");
        feed.places()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
