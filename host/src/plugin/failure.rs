//! What a failed guest call means: trap, limit, run time or fatal, with a text that lets the author see why.
//!
//! It reads the store's [`HostState`] because a guest hides refusals behind traps of its own: memory it
//! was refused becomes an abort, a panic becomes `unreachable`. It never decides what happens next.

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use super::RunFailure;
use super::hostcalls::HostState;
use crate::error::Error;

/// Functions of the guest named in a trap's text, innermost first.
const FRAMES: usize = 4;
/// How wasmtime says that a guest returned more than the hostcall fuel lets through; the error has no
/// public type (wasmtime 48, `component/func/options.rs`). A test returns a gigabyte to pin it.
const FUEL_TEXT: &str = "fuel allocated for hostcalls has been exhausted";

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Describe,
    Instantiate,
    Init,
    Run,
}

impl Step {
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Describe => "call the plugin's `describe`",
            Self::Instantiate => "start the plugin",
            Self::Init => "call the plugin's `init`",
            Self::Run => "run the plugin",
        }
    }
}

impl RunFailure {
    /// The error inside, whatever the class.
    #[must_use]
    pub fn into_error(self) -> Error {
        match self {
            Self::Trap(error) | Self::Limit(error) | Self::RunTime(error) | Self::Fatal(error) => {
                error
            }
        }
    }
}

/// Classifies what a call into the guest returned, with what its store remembers.
pub(super) fn classify(step: Step, error: wasmtime::Error, state: &HostState) -> RunFailure {
    if state.meter.out_of_time() {
        return RunFailure::RunTime(out_of_time(step));
    }
    if let Some(asked) = state.meter.refused_memory() {
        return RunFailure::Limit(out_of_memory(step, asked));
    }
    let text = error.root_cause().to_string();
    if text.contains(FUEL_TEXT) {
        return RunFailure::Limit(too_much(step));
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return RunFailure::Fatal(
            Error::config(step.what(), format!("no slot is free: {text}")).hint(
                "run fewer pipelines on this host, or spread their partitions over more hosts",
            ),
        );
    }
    let mut detail = text;
    if error.downcast_ref::<Trap>().is_some() {
        detail.push_str(&place(&error));
    } else {
        // Not a fault inside the guest's code: what it returned points outside its memory, is no UTF-8 …
        detail = format!("what it returned cannot be read: {detail}");
    }
    if let Some(message) = &state.last_message {
        detail = format!("{detail}; its last message: {message}");
    }
    RunFailure::Trap(Error::plugin(step.what(), detail))
}

/// The guest functions that were running, where the component kept its names.
fn place(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else {
        return String::new();
    };
    let names: Vec<&str> = trace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .take(FRAMES)
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" in {}", names.join(" < "))
    }
}

fn out_of_time(step: Step) -> Error {
    Error::plugin(step.what(), "it ran longer than its run time allows").hint(
        "raise `limits.run_time` in the manifest, or make the plugin's loop shorter; the operator may \
         have set a lower ceiling",
    )
}

fn out_of_memory(step: Step, asked: usize) -> Error {
    Error::plugin(
        step.what(),
        format!(
            "it asked for memory past its limit ({} MiB in all)",
            asked.div_ceil(1 << 20)
        ),
    )
    .hint("raise `limits.memory` in the manifest; the operator may have set a lower ceiling")
}

/// The guest returned more than it may.
pub(super) fn too_much(step: Step) -> Error {
    Error::plugin(step.what(), "it returned more bytes than its limit")
        .hint("raise `limits.output_bytes` in the manifest, or emit fewer or smaller rows")
}
