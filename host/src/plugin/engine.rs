//! [`Engine`]: one wasmtime engine a host, set so that the same plugin and batch give the same rows on
//! every machine, and its ticker thread. It compiles nothing itself (`compile`) and holds no plugin.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};

use wasmtime::component::Linker;
use wasmtime::{
    Config, Enabled, Inlining, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

use super::abi::TransformPlugin;
use super::compile::Compiled;
use super::hostcalls::{Here, HostState};
use super::limits::TICK;
use crate::error::{Error, Result};
use crate::task;

/// Core instances a component is made of, at most: its own module, adapters and shims (2 × ran out).
const CORE_INSTANCES_EACH: u32 = 6;
/// Memory of a slot that stays resident between two instances, bytes: saves the page faults of a small guest.
const KEEP_RESIDENT: usize = 1 << 20;

/// Where instances live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Allocation {
    /// Slots reserved at start (virtual memory only: 4 GiB each): a fresh instance costs microseconds.
    Pooled {
        /// Live instances of all plugins together, at most.
        instances: u32,
    },
    /// Mapped when needed: slower, but runs where address space is scarce (valgrind, small containers).
    OnDemand,
}

/// How an engine is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Where instances live.
    pub allocation: Allocation,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            allocation: Allocation::Pooled { instances: 1024 },
        }
    }
}

/// One engine: compiles and runs plugins. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    // Before `wasmtime`, so that it is joined first.
    _ticker: Ticker,
    wasmtime: wasmtime::Engine,
    linker: Linker<HostState>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// Sets up an engine and starts its ticker, which ends with the last clone of the engine and the
    /// last plugin loaded by it.
    ///
    /// # Errors
    /// Config: the machine cannot reserve the address space, or has no thread left.
    pub fn new(options: EngineOptions) -> Result<Self> {
        let refused = |error: wasmtime::Error| {
            Error::config("start the plugin engine", format!("{error:#}"))
                .hint("raise the limit on address space (`ulimit -v unlimited`)")
        };
        let wasmtime = wasmtime::Engine::new(&config(options)).map_err(refused)?;
        let mut linker = Linker::new(&wasmtime);
        TransformPlugin::add_to_linker::<_, Here>(&mut linker, |state| state).map_err(refused)?;
        let ticker = Ticker::start(wasmtime.clone())?;
        Ok(Self {
            inner: Arc::new(Inner {
                _ticker: ticker,
                wasmtime,
                linker,
            }),
        })
    }

    /// Checks a component and makes native code of it, from the cache in `cache` where that has it.
    ///
    /// # Errors
    /// Blames the plugin: not a component of this host's track, a foreign import, wrong types of the
    /// interface. Config: the cache folder is open to others. Never fails because of a damaged entry.
    pub fn load(&self, component: &[u8], cache: Option<&Path>) -> Result<Compiled> {
        Compiled::load(self, component, cache)
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.wasmtime
    }

    pub(super) fn linker(&self) -> &Linker<HostState> {
        &self.inner.linker
    }
}

fn config(options: EngineOptions) -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .consume_fuel(false)
        .cranelift_opt_level(OptLevel::Speed)
        // rustc, clang and Go have inlined already. Measured: doing it again changed no figure of a call, doubled
        // the time to compile and needed 7 times the memory, since every function is then held at once.
        .compiler_inlining(Inlining::No)
        // Outputs must not depend on the CPU.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false);
    if let Allocation::Pooled { instances } = options.allocation {
        let core = instances.saturating_mul(CORE_INSTANCES_EACH);
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances)
            .total_core_instances(core)
            .total_memories(instances)
            .total_tables(core)
            .total_stacks(instances);
        keep_resident(&mut pool);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// Keeping pages pays only where the kernel says which ones were touched (`PAGEMAP_SCAN`, Linux 6.7).
fn keep_resident(pool: &mut PoolingAllocationConfig) {
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Auto)
            .linear_memory_keep_resident(KEEP_RESIDENT);
    }
}

/// The thread that advances the epoch; ends and is joined with the engine.
struct Ticker {
    // Dropped to end the thread; nothing is ever sent.
    stop: Option<Sender<()>>,
    /// Joined when dropped, after `stop`.
    _thread: task::Thread<()>,
}

impl Ticker {
    fn start(engine: wasmtime::Engine) -> Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = task::thread("ticker", move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        })?;
        Ok(Self {
            stop: Some(stop),
            _thread: thread,
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn the_ticker_ends_with_the_engine() {
        let engine = Engine::new(EngineOptions {
            allocation: Allocation::OnDemand,
        })
        .unwrap();
        let weak = engine.wasmtime().weak();
        let clone = engine.clone();
        drop(engine);
        assert!(weak.upgrade().is_some());
        drop(clone);
        assert!(
            weak.upgrade().is_none(),
            "the ticker still holds the engine"
        );
    }
}
