//! [`Compiled`]: a component that was checked and made native, not configured yet.
//!
//! Order of the checks: what the file is, what it imports and exports (`component`), its code (compiled,
//! or from the `cache`), the types of the interface. Nothing of the guest runs here.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use wasmtime::component::Component;

use super::abi::TransformPluginPre;
use super::cache::{Cache, Key};
use super::component::Facts;
use super::engine::Engine;
use super::hostcalls::HostState;
use super::instance::{GuestPlugin, PluginSettings};
use crate::error::{Error, Result};
use crate::manifest::Digest;

/// A checked, compiled component. Cheap to clone.
#[derive(Clone)]
pub struct Compiled {
    pub(super) engine: Engine,
    pub(super) plugin: TransformPluginPre<HostState>,
    facts: Arc<Facts>,
    from_cache: bool,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("digest", &self.facts.digest)
            .field("from_cache", &self.from_cache)
            .finish_non_exhaustive()
    }
}

impl Compiled {
    pub(super) fn load(engine: &Engine, bytes: &[u8], cache: Option<&Path>) -> Result<Self> {
        let facts = Facts::read(bytes)?;
        facts.check()?;
        let (component, from_cache) = native(engine, bytes, facts.digest, cache)?;
        let misfit = |error: wasmtime::Error| {
            Error::plugin(
                "link the plugin",
                format!("its types are not those of the interface: {error:#}"),
            )
            .hint("build it with the SDK that this version of Wasmill brings along")
        };
        let linked = engine
            .linker()
            .instantiate_pre(&component)
            .map_err(misfit)?;
        let plugin = TransformPluginPre::new(linked).map_err(misfit)?;
        Ok(Self {
            engine: engine.clone(),
            plugin,
            facts: Arc::new(facts),
            from_cache,
        })
    }

    /// SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.facts.digest
    }

    /// The component's imports, exports and sections.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether native code came from the cache.
    #[must_use]
    pub fn from_cache(&self) -> bool {
        self.from_cache
    }

    /// Configures the plugin for one pipeline. Nothing runs until an instance is asked for.
    #[must_use]
    pub fn into_plugin(self, settings: PluginSettings) -> Arc<GuestPlugin> {
        Arc::new(GuestPlugin::new(self, settings))
    }
}

/// Native code and whether it came from the cache.
fn native(
    engine: &Engine,
    bytes: &[u8],
    digest: Digest,
    cache: Option<&Path>,
) -> Result<(Component, bool)> {
    let Some(folder) = cache else {
        return Ok((compile(engine, bytes)?, false));
    };
    let cache = Cache::open(folder)?;
    let key = Key::new(digest, engine.wasmtime());
    if let Some(component) = cache.load(engine.wasmtime(), &key) {
        return Ok((component, true));
    }
    let component = compile(engine, bytes)?;
    let code = component
        .serialize()
        .map_err(|error| Error::bug("serialize compiled code", format!("{error:#}")))?;
    // A full disk costs a compilation at the next start, nothing else: not worth stopping for.
    if let Err(error) = cache.store(&key, &code) {
        tracing::warn!(%error, "compiled plugin not cached");
    }
    Ok((component, false))
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component> {
    Component::from_binary(engine.wasmtime(), bytes).map_err(|error| {
        Error::plugin(
            "compile the plugin",
            format!("the component is not valid: {error:#}"),
        )
        .hint("build it again with `wasmill plugin build`; if that fails too, report the file")
    })
}
