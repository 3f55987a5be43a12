//! Records that come all the time: one thread, a rate, until it is told to stop; it knows what it made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::latency;
use crate::records::{Feed, Made};
use crate::versioned;

/// How often a few records are made.
const BEAT: Duration = Duration::from_millis(10);

/// See the module. Dropping it stops it.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeMap<i32, i64>>>,
}

/// What is made: partition and number within the partition.
pub type Make = fn(i32, i64) -> Made;

/// A record with the time of its making, for [`latency::delays`].
pub fn stamped(partition: i32, n: i64) -> Made {
    Made {
        timestamp: Some(latency::now()),
        ..Made::new(format!("{partition}-{n}"), "x").on(partition)
    }
}

impl Steady {
    /// Makes `rate` records a second in `partitions` partitions of a topic, round and round; `first` says how many
    /// records each partition holds already.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        rate: u32,
        first: BTreeMap<i32, i64>,
        make: Make,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, topic, bootstrap) = (Arc::clone(&stop), topic.to_owned(), bootstrap.to_owned());
        let thread = std::thread::spawn(move || {
            let feed = Feed::new(&bootstrap);
            let mut counts = first;
            let start = Instant::now();
            let mut made = 0_u64;
            while !told.load(Ordering::Relaxed) {
                let due = start.elapsed().as_millis() * u128::from(rate) / 1000;
                while u128::from(made) < due {
                    for (partition, n) in &mut counts {
                        feed.enqueue(&topic, &make(*partition, *n), 0);
                        *n += 1;
                        made += 1;
                    }
                }
                std::thread::sleep(BEAT);
            }
            feed.settle();
            counts
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Of [`versioned::record`]s in partitions that hold `first` already.
    pub fn versioned(bootstrap: &str, topic: &str, rate: u32, first: BTreeMap<i32, i64>) -> Self {
        Self::start(bootstrap, topic, rate, first, versioned::record)
    }

    /// Stops, waits until all is stored, and says how many records each partition holds.
    pub fn stop(mut self) -> BTreeMap<i32, i64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stop and drop take it");
        thread.join().expect("the producing thread does not panic")
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// `partitions` partitions that hold nothing.
pub fn empty(partitions: i32) -> BTreeMap<i32, i64> {
    (0..partitions).map(|partition| (partition, 0)).collect()
}
