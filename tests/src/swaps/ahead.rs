//! Records that are kept waiting while versions are swapped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use super::{PARTITIONS, PIPELINE};
use crate::records::Feed;
use crate::versioned;

/// Keeps records waiting: makes more whenever fewer than `ahead` are left.
pub(super) struct Ahead {
    stop: Arc<AtomicBool>,
    pub(super) behind: Arc<AtomicI64>,
    pub(super) thread: std::thread::JoinHandle<BTreeMap<i32, i64>>,
}

impl Ahead {
    /// Makes `backlog` records first, then what is needed.
    pub(super) fn start(bootstrap: &str, backlog: i64, ahead: i64) -> Self {
        let (stop, behind) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicI64::new(0)),
        );
        let (told, position) = (Arc::clone(&stop), Arc::clone(&behind));
        let bootstrap = bootstrap.to_owned();
        let thread = std::thread::spawn(move || {
            let feed = Feed::new(&bootstrap);
            let each = backlog / i64::from(PARTITIONS);
            let mut made = 0;
            let mut more = |to: i64| {
                for n in made..to {
                    for partition in 0..PARTITIONS {
                        feed.enqueue(PIPELINE, &versioned::record(partition, n), 0);
                    }
                }
                made = made.max(to);
                made
            };
            let mut count = more(each);
            feed.settle();
            while !told.load(Ordering::Relaxed) {
                let left = count * i64::from(PARTITIONS) - position.load(Ordering::Relaxed);
                if left < ahead {
                    count = more(count + ahead / 8);
                    feed.settle();
                } else {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            (0..PARTITIONS)
                .map(|partition| (partition, count))
                .collect()
        });
        Self {
            stop,
            behind,
            thread,
        }
    }

    pub(super) fn finish(self) -> BTreeMap<i32, i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .expect("the producing thread does not panic")
    }
}
