//! A flow of records whose partitions and offsets are known: round and round, each partition with numbers of its own.

use std::collections::BTreeMap;

use crate::flow::{Flow, Pace};
use crate::latency;
use crate::records::Made;
use crate::versioned;

/// See the module. Dropping it stops it.
#[derive(Debug)]
pub struct Steady {
    flow: Flow,
    /// Records that each partition held before.
    first: BTreeMap<i32, i64>,
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
        Self::at(bootstrap, topic, Pace { backlog: 0, rate }, first, make)
    }

    /// The same with a backlog.
    pub fn at(
        bootstrap: &str,
        topic: &str,
        pace: Pace,
        first: BTreeMap<i32, i64>,
        make: Make,
    ) -> Self {
        let each: Vec<(i32, i64)> = first.clone().into_iter().collect();
        let flow = Flow::start(bootstrap, topic, pace, move |n| {
            let (partition, first) = each[n % each.len()];
            make(
                partition,
                first + i64::try_from(n / each.len()).expect("a test ends before"),
            )
        });
        Self { flow, first }
    }

    /// Of [`versioned::record`]s in partitions that hold `first` already.
    pub fn versioned(bootstrap: &str, topic: &str, rate: u32, first: BTreeMap<i32, i64>) -> Self {
        Self::start(bootstrap, topic, rate, first, versioned::record)
    }

    /// Stops, waits until all is stored, and says how many records each partition holds.
    pub fn stop(self) -> BTreeMap<i32, i64> {
        let mut counts = self.first;
        for place in self.flow.stop() {
            *counts
                .get_mut(&place.partition)
                .expect("made for one of them") += 1;
        }
        counts
    }
}

/// `partitions` partitions that hold nothing.
pub fn empty(partitions: i32) -> BTreeMap<i32, i64> {
    (0..partitions).map(|partition| (partition, 0)).collect()
}
