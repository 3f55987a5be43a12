//! Plugins as the pipeline sees them: something that turns fields into rows, and fails in known ways.
//! The engine behind it (wasmtime) is an adapter; tests use closures.
//!
//! The contract is in this file and knows nothing of WebAssembly. Its adapter: [`Engine`] compiles a
//! component (checked by `component`, native code kept by `cache`), [`Compiled`] can be asked to
//! `describe` itself and becomes a [`GuestPlugin`], whose instances lower a batch (`arguments`), call the
//! guest within its `limits`, serve its `hostcalls` and name its `failure`. `wasmtime` appears only here.

mod abi;
mod arguments;
mod cache;
mod compile;
mod component;
mod describe;
mod engine;
mod failure;
#[cfg(test)]
mod guests;
mod hostcalls;
mod instance;
mod limits;
#[cfg(test)]
mod tests;

use std::ops::Range;

use futures_util::future::LocalBoxFuture;

use crate::error::Error;
use crate::record::{Batch, Fields};

pub use compile::Compiled;
pub use component::Facts;
pub use engine::{Allocation, Engine, EngineOptions};
pub use hostcalls::{Counters, LogLevel};
pub use instance::{GuestPlugin, InputSettings, PluginSettings};

/// Records handed to a plugin in one call: the kept records `range` of a decoded batch.
#[derive(Clone, Debug)]
pub struct GuestBatch<'a> {
    /// Index of the input in `describe`.
    pub input: u16,
    /// Where offsets, timestamps, marks and raw bytes come from.
    pub batch: &'a Batch,
    /// Decoded fields; `fields.kept` maps to the batch.
    pub fields: &'a Fields,
    /// Which kept records (indices into `fields.kept`).
    pub range: Range<usize>,
}

/// A record the plugin refused. `source` counts from the start of the call's range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// Index within the call.
    pub source: u32,
    /// `[a-z0-9-]{1,32}`.
    pub code: String,
    /// One sentence.
    pub reason: String,
}

/// What a call returned, exactly as the guest said it: not checked yet (see [`crate::route`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Cells of all rows.
    pub cells: Vec<u8>,
    /// One per row: where it ends.
    pub ends: Vec<u32>,
    /// One per row: index within the call, ascending.
    pub sources: Vec<u32>,
    /// One per row: route index; empty means 0.
    pub routes: Vec<u8>,
    /// One per row: 0 write, 1 delete; empty means write.
    pub ops: Vec<u8>,
    /// One per row: Kafka output timestamp; empty means the record's.
    pub times: Vec<i64>,
    /// Refused records, ascending.
    pub rejects: Vec<Reject>,
}

/// How a call failed. The instance is gone in every case but `Fatal`; ask for a fresh one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunFailure {
    /// The guest trapped (deterministic).
    #[error("trap: {0}")]
    Trap(Error),
    /// Memory or output went past the limit (deterministic).
    #[error("limit: {0}")]
    Limit(Error),
    /// Run time went past the limit (depends on the machine: never decides a dead letter).
    #[error("run time: {0}")]
    RunTime(Error),
    /// The guest said that no record can be processed, or `init` failed: the pipeline stops.
    #[error("fatal: {0}")]
    Fatal(Error),
}

/// One live instance of a plugin; used by one lane at a time, reused across batches.
pub trait Instance: std::fmt::Debug {
    /// Runs one batch. Yields to other lanes of the shard while the guest computes.
    ///
    /// # Errors
    /// See [`RunFailure`]; after anything but `Fatal` the instance must be dropped.
    fn run<'a>(
        &'a mut self,
        input: GuestBatch<'a>,
    ) -> LocalBoxFuture<'a, Result<Output, RunFailure>>;

    /// Whether the instance has grown past its recycle mark and should be dropped after this batch.
    fn outgrown(&self) -> bool;
}

/// A compiled, checked plugin with its configuration, ready to be instantiated on any shard.
pub trait Plugin: Send + Sync + std::fmt::Debug {
    /// A fresh instance whose `init` has succeeded. `run_time_factor` multiplies the run-time limit
    /// (the lane retries once with a larger one).
    ///
    /// # Errors
    /// [`RunFailure::Fatal`] when `init` refuses; a trap or limit as in [`Instance::run`].
    fn instantiate(
        &self,
        run_time_factor: u32,
    ) -> LocalBoxFuture<'_, Result<Box<dyn Instance>, RunFailure>>;
}
