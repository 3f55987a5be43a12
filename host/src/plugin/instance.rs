//! [`GuestPlugin`] and its instances: the adapter from a compiled component to the contracts
//! [`Plugin`] and [`Instance`].
//!
//! One instance is one store. It is used by one lane at a time, reused across batches, and refuses to be
//! used again after a failure: what a trap leaves behind in a guest's memory is nobody's to read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use wasmtime::Store;

use super::abi::TransformPlugin;
use super::abi::wasmill::plugin::types;
use super::arguments::Arguments;
use super::compile::Compiled;
use super::failure::{self, Step};
use super::hostcalls::{Counters, HostState, LogLevel, Voice};
use super::limits::{Meter, OnTick};
use super::{GuestBatch, Instance, Output, Plugin, Reject, RunFailure};
use crate::error::Error;
use crate::manifest::{Limits, Manifest};

/// Hostcall fuel beyond twice the output limit, bytes: messages and counters.
const FUEL_BESIDE: u64 = 1 << 20;

/// What a guest gets of the records of one input, besides fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputSettings {
    /// Key and value bytes.
    pub raw: bool,
    /// Headers: declared by the plugin and granted by the operator.
    pub headers: bool,
}

/// A plugin's configuration in one pipeline.
#[derive(Clone, Debug)]
pub struct PluginSettings {
    /// The pipeline's name, told to the guest and written with its messages.
    pub pipeline: String,
    /// `name@version`, written with the guest's messages.
    pub plugin: String,
    /// Which messages are written; told to the guest, which then does not send others.
    pub log_level: LogLevel,
    /// The cells `init` is called with: pipeline, log level, then one for each configuration value in
    /// `describe` order; secrets included.
    pub setup: Vec<u8>,
    /// The manifest's limits, already tightened by the operator's ceilings.
    pub limits: Limits,
    /// One per input, in `describe` order.
    pub inputs: Vec<InputSettings>,
}

impl PluginSettings {
    /// Settings of a manifest: its own limits and everything it declares, level `info`.
    #[must_use]
    pub fn of(manifest: &Manifest, pipeline: &str, setup: Vec<u8>) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            plugin: format!("{}@{}", manifest.name, manifest.version),
            log_level: LogLevel::default(),
            setup,
            limits: manifest.limits,
            inputs: manifest
                .inputs
                .iter()
                .map(|input| InputSettings {
                    raw: input.raw,
                    headers: input.headers,
                })
                .collect(),
        }
    }
}

/// A compiled plugin with its configuration in one pipeline.
pub struct GuestPlugin {
    compiled: Compiled,
    settings: Arc<PluginSettings>,
    voice: Arc<Voice>,
}

impl fmt::Debug for GuestPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the settings: their cells hold secrets.
        f.debug_struct("GuestPlugin")
            .field("plugin", &self.settings.plugin)
            .field("pipeline", &self.settings.pipeline)
            .field("digest", &self.compiled.digest())
            .finish_non_exhaustive()
    }
}

impl GuestPlugin {
    pub(super) fn new(compiled: Compiled, settings: PluginSettings) -> Self {
        Self {
            compiled,
            voice: Arc::new(Voice::new(
                &settings.pipeline,
                &settings.plugin,
                settings.log_level,
                settings.limits.log_lines_per_second,
            )),
            settings: Arc::new(settings),
        }
    }

    /// The counters all instances add to.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.voice.counters)
    }

    /// Linear memory of all its live instances, bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.voice.memory.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn start(&self, run_time_factor: u32) -> Result<GuestInstance, RunFailure> {
        let limits = &self.settings.limits;
        let run_time = limits.run_time.saturating_mul(run_time_factor.max(1));
        let mut store = self.store(run_time);
        store.set_epoch_deadline(1);
        let exports = match self.compiled.plugin.instantiate_async(&mut store).await {
            Ok(exports) => exports,
            Err(error) => {
                return Err(failure::classify(Step::Instantiate, error, store.data()));
            }
        };
        store.data_mut().begin();
        store.set_epoch_deadline(1);
        let transform = exports.wasmill_plugin_transform();
        match transform.call_init(&mut store, &self.settings.setup).await {
            Ok(Ok(())) => Ok(GuestInstance {
                store,
                exports,
                settings: Arc::clone(&self.settings),
                arguments: Arguments::default(),
                usable: true,
            }),
            Ok(Err(refusal)) => Err(RunFailure::Fatal(
                Error::plugin("call the plugin's `init`", refusal)
                    .hint("check the values under `config` of the pipeline"),
            )),
            Err(error) => Err(failure::classify(Step::Init, error, store.data())),
        }
    }

    fn store(&self, run_time: Duration) -> Store<HostState> {
        let limits = &self.settings.limits;
        let meter =
            Meter::new(limits.memory, run_time, OnTick::Yield).counted_in(&self.voice.memory);
        let state = HostState::new(meter, Arc::clone(&self.voice));
        let mut store = Store::new(self.compiled.engine.wasmtime(), state);
        store.limiter(|state| &mut state.meter);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().meter.tick()));
        let fuel = limits
            .output_bytes
            .saturating_mul(2)
            .saturating_add(FUEL_BESIDE);
        store.set_hostcall_fuel(usize::try_from(fuel).unwrap_or(usize::MAX));
        store
    }
}

impl Plugin for GuestPlugin {
    fn instantiate(
        &self,
        run_time_factor: u32,
    ) -> LocalBoxFuture<'_, Result<Box<dyn Instance>, RunFailure>> {
        Box::pin(async move {
            let instance = self.start(run_time_factor).await?;
            Ok(Box::new(instance) as Box<dyn Instance>)
        })
    }
}

/// One live store of a plugin.
struct GuestInstance {
    store: Store<HostState>,
    exports: TransformPlugin,
    settings: Arc<PluginSettings>,
    arguments: Arguments,
    /// False while a call runs and after one failed or was given up: the guest's memory is then in any state.
    usable: bool,
}

impl fmt::Debug for GuestInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestInstance")
            .field("plugin", &self.settings.plugin)
            .field("memory", &self.store.data().meter.memory())
            .field("usable", &self.usable)
            .finish_non_exhaustive()
    }
}

impl GuestInstance {
    async fn call(&mut self, input: GuestBatch<'_>) -> Result<Output, RunFailure> {
        if input.range.is_empty() {
            return Ok(Output::default());
        }
        let bug = |detail: String| RunFailure::Fatal(Error::bug(Step::Run.what(), detail));
        if !std::mem::replace(&mut self.usable, false) {
            return Err(bug(
                "the instance failed before and was used again".to_owned()
            ));
        }
        let Some(settings) = self.settings.inputs.get(usize::from(input.input)) else {
            return Err(bug(format!("there is no input {}", input.input)));
        };
        self.store.data_mut().begin();
        self.store.set_epoch_deadline(1);
        let lists = self.arguments.lower(&input, *settings);
        let transform = self.exports.wasmill_plugin_transform();
        let output = match transform.call_run(&mut self.store, lists).await {
            Ok(Ok(output)) => self.take(output)?,
            Ok(Err(refusal)) => {
                self.usable = true;
                return Err(RunFailure::Fatal(refused(refusal)));
            }
            Err(error) => {
                return Err(failure::classify(Step::Run, error, self.store.data()));
            }
        };
        self.usable = true;
        Ok(output)
    }

    /// Checks the size and gives the lists their host names; nothing is copied.
    fn take(&self, output: types::Output) -> Result<Output, RunFailure> {
        if bytes(&output) > self.settings.limits.output_bytes {
            return Err(RunFailure::Limit(failure::too_much(Step::Run)));
        }
        let types::Output { rows, rejects } = output;
        Ok(Output {
            cells: rows.cells,
            ends: rows.ends,
            sources: rows.sources,
            routes: rows.routes,
            ops: rows.ops,
            times: rows.times,
            rejects: rejects
                .into_iter()
                .map(|reject| Reject {
                    source: reject.source,
                    code: reject.code,
                    reason: reject.reason,
                })
                .collect(),
        })
    }
}

impl Instance for GuestInstance {
    fn run<'a>(
        &'a mut self,
        input: GuestBatch<'a>,
    ) -> LocalBoxFuture<'a, Result<Output, RunFailure>> {
        Box::pin(self.call(input))
    }

    fn outgrown(&self) -> bool {
        self.store.data().meter.memory() as u64 > self.settings.limits.recycle_after
    }
}

/// Bytes of everything a call returned.
fn bytes(output: &types::Output) -> u64 {
    let rows = &output.rows;
    let lists = rows.cells.len()
        + 4 * (rows.ends.len() + rows.sources.len())
        + rows.routes.len()
        + rows.ops.len()
        + 8 * rows.times.len();
    let rejects: usize = output
        .rejects
        .iter()
        .map(|reject| 4 + reject.code.len() + reject.reason.len())
        .sum();
    (lists + rejects) as u64
}

/// What the guest's own refusal of a whole batch means.
fn refused(failure: types::Failure) -> Error {
    match failure {
        types::Failure::Fatal(reason) => Error::plugin(Step::Run.what(), reason)
            .hint("the plugin says that no record can be processed; nothing was skipped"),
        types::Failure::Retry(reason) => Error::plugin(
            Step::Run.what(),
            format!(
                "it asked for a retry, which only a plugin with a granted lookup may: {reason}"
            ),
        )
        .hint("return `fatal`, or reject the records that cannot be processed"),
    }
}
