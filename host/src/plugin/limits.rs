//! [`Meter`]: what one store may use, and what it used: memory, and ticks of the epoch in which *this*
//! guest ran. It remembers why it said no, because a guest turns most refusals into a trap of its own.
//!
//! It decides yes or no; `failure` decides what a no means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::{ResourceLimiter, UpdateDeadline};

/// Length of a tick: how long a spinning guest may hold its shard before a neighbour runs.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Most instances, tables and memories of one store: a component has a handful, a hostile one thousands.
const MOST_ITEMS: usize = 64;

/// Most elements of a table: what a slot of the pool holds (wasmtime's default), the same without a pool.
const MOST_ELEMENTS: usize = 20_000;

/// What the epoch check does when the guest may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnTick {
    /// Lets other lanes of the shard run (`call_async`).
    Yield,
    /// Goes on at once (synchronous calls: `describe`).
    Continue,
}

/// Budget and use of one store.
#[derive(Debug)]
pub(super) struct Meter {
    memory_cap: usize,
    memory: usize,
    refused_memory: Option<usize>,
    ticks_allowed: u32,
    ticks: u32,
    out_of_time: bool,
    on_tick: OnTick,
    /// Memory of all stores of the plugin, which this one's is part of while it lives.
    gauge: Arc<AtomicU64>,
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.gauge.fetch_sub(self.memory as u64, Ordering::Relaxed);
    }
}

impl Meter {
    pub(super) fn new(memory_cap: u64, run_time: Duration, on_tick: OnTick) -> Self {
        Self {
            memory_cap: usize::try_from(memory_cap).unwrap_or(usize::MAX),
            memory: 0,
            refused_memory: None,
            ticks_allowed: ticks(run_time),
            ticks: 0,
            out_of_time: false,
            on_tick,
            gauge: Arc::default(),
        }
    }

    /// Counts its memory in a gauge of the plugin too; before the store holds any.
    pub(super) fn counted_in(mut self, gauge: &Arc<AtomicU64>) -> Self {
        self.gauge = Arc::clone(gauge);
        self
    }

    /// Starts the account of a new call; memory stays.
    pub(super) fn begin(&mut self) {
        self.refused_memory = None;
        self.ticks = 0;
        self.out_of_time = false;
    }

    /// Linear memory of the store, bytes.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Bytes of memory the guest asked for in this call and was refused.
    pub(super) fn refused_memory(&self) -> Option<usize> {
        self.refused_memory
    }

    /// Whether this call was interrupted because its time was up.
    pub(super) fn out_of_time(&self) -> bool {
        self.out_of_time
    }

    /// One tick in which this guest ran.
    pub(super) fn tick(&mut self) -> UpdateDeadline {
        self.ticks += 1;
        if self.ticks > self.ticks_allowed {
            self.out_of_time = true;
            return UpdateDeadline::Interrupt;
        }
        match self.on_tick {
            // The runtime's own yield, which lets it look at its sockets: wasmtime's would only let tasks run that
            // are ready by now, and a local set polls the same one 61 times before it looks.
            OnTick::Yield => UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())),
            OnTick::Continue => UpdateDeadline::Continue(1),
        }
    }
}

fn ticks(run_time: Duration) -> u32 {
    let ticks = run_time.as_millis().div_ceil(TICK.as_millis()).max(1);
    u32::try_from(ticks).unwrap_or(u32::MAX - 1)
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let after = self.memory.saturating_add(desired.saturating_sub(current));
        if after > self.memory_cap {
            self.refused_memory = Some(after);
            return Ok(false);
        }
        self.gauge
            .fetch_add((after - self.memory) as u64, Ordering::Relaxed);
        self.memory = after;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // Past what the pool reserves, or the machine has no more: for the guest both are its limit.
        self.refused_memory.get_or_insert(self.memory);
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MOST_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MOST_ITEMS
    }

    fn tables(&self) -> usize {
        MOST_ITEMS
    }

    fn memories(&self) -> usize {
        MOST_ITEMS
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories_and_a_refusal_is_remembered_for_the_call() {
        let mut meter = Meter::new(100, Duration::from_secs(1), OnTick::Yield);
        assert!(meter.memory_growing(0, 60, None).unwrap());
        assert!(!meter.memory_growing(0, 41, None).unwrap());
        assert_eq!(meter.refused_memory(), Some(101));
        assert!(meter.memory_growing(60, 100, None).unwrap());
        assert_eq!(meter.memory(), 100);
        meter.begin();
        assert_eq!((meter.refused_memory(), meter.memory()), (None, 100));
    }

    #[test]
    fn tables_are_bounded_whatever_allocates_them() {
        let mut meter = Meter::new(1 << 30, Duration::from_secs(1), OnTick::Yield);
        assert!(meter.table_growing(0, MOST_ELEMENTS, None).unwrap());
        assert!(!meter.table_growing(5, MOST_ELEMENTS + 1, None).unwrap());
    }

    #[test]
    fn time_is_up_after_the_allowed_ticks_and_not_before() {
        let mut meter = Meter::new(0, Duration::from_millis(25), OnTick::Yield);
        for _ in 0..3 {
            assert!(matches!(meter.tick(), UpdateDeadline::YieldCustom(1, _)));
        }
        assert!(!meter.out_of_time());
        assert!(matches!(meter.tick(), UpdateDeadline::Interrupt));
        assert!(meter.out_of_time());
    }
}
