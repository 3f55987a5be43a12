//! Asking a component what it reads and writes: one call of `describe` in a store of its own, with tight
//! limits, because nothing is known of the component yet. It reads no manifest and compares nothing.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;

use super::compile::Compiled;
use super::failure::{self, Step};
use super::hostcalls::{HostState, LogLevel, Voice};
use super::limits::{Meter, OnTick};
use crate::error::{Error, Result};

/// Memory `describe` may use, bytes: enough for a guest of any language to start.
const MEMORY: u64 = 64 << 20;
/// Time `describe` may take: it builds one string.
const RUN_TIME: Duration = Duration::from_secs(1);
/// Longest description, bytes: 256 routes of 100 columns fit many times over.
const LONGEST: usize = 4 << 20;
/// Messages `describe` may log in a second; it has nothing to say.
const LINES_PER_SECOND: u32 = 10;

impl Compiled {
    /// Calls the component's `describe`: canonical JSON of its inputs, routes and configuration.
    ///
    /// Blocks for as long as the guest takes, one second at most: not for a shard's thread.
    ///
    /// # Errors
    /// Blames the plugin: it trapped, went past a limit, or returned what is not a JSON object.
    pub fn describe(&self) -> Result<String> {
        let mut said = self.asked(1)?;
        Ok(said.pop().expect("asked once, answered once"))
    }

    /// Refuses a component whose `describe` says something else than `embedded`, the text its manifest was
    /// checked against, or something else when it is asked again.
    ///
    /// Blocks as [`Self::describe`] does.
    ///
    /// # Errors
    /// Blames the plugin, as [`Self::describe`] and for the difference.
    pub fn check_description(&self, embedded: &str) -> Result<()> {
        let what = "compare the plugin with its manifest";
        let said = self.asked(2)?;
        if said[0] != embedded {
            return Err(Error::plugin(
                what,
                "the component describes something else than the manifest embedded in it",
            )
            .hint("build it again with `wasmill plugin build`; do not edit a built component"));
        }
        if said[1] != said[0] {
            return Err(Error::plugin(
                what,
                "the component describes something else when it is asked a second time",
            )
            .hint("`describe` has to return one constant text; the SDK's macros write it"));
        }
        Ok(())
    }

    /// What one instance answers, asked several times.
    fn asked(&self, times: usize) -> Result<Vec<String>> {
        let voice = Arc::new(Voice::new(
            "-",
            &self.digest().to_string(),
            LogLevel::Warn,
            LINES_PER_SECOND,
        ));
        let meter = Meter::new(MEMORY, RUN_TIME, OnTick::Continue);
        let engine = self.engine.wasmtime();
        let mut store = Store::new(engine, HostState::new(meter, voice));
        store.limiter(|state| &mut state.meter);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().meter.tick()));
        store.set_epoch_deadline(1);
        let said = self
            .call_describe(&mut store, times)
            .map_err(|error| failure::classify(Step::Describe, error, store.data()).into_error())?;
        for text in &said {
            match serde_json::from_str(text) {
                Ok(serde_json::Value::Object(_)) => {}
                Ok(_) => return Err(not_json("it is JSON, but not an object")),
                Err(error) => return Err(not_json(&error.to_string())),
            }
        }
        Ok(said)
    }

    fn call_describe(
        &self,
        store: &mut Store<HostState>,
        times: usize,
    ) -> wasmtime::Result<Vec<String>> {
        let plugin = self.plugin.instantiate(&mut *store)?;
        let function = plugin.wasmill_plugin_describe().func_describe();
        (0..times)
            .map(|_| {
                store.set_hostcall_fuel(LONGEST);
                let (text,) = function.call(&mut *store, ())?;
                Ok(text)
            })
            .collect()
    }
}

fn not_json(detail: &str) -> Error {
    Error::plugin("read what the plugin's `describe` returned", detail)
        .hint("`describe` has to return one JSON object; the SDK's macros write it")
}
