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
    code: Code,
}

/// Where native code came from and went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// Read from the cache.
    FromCache,
    /// Compiled, and the cache has it now.
    Cached,
    /// Compiled; there is no cache, or it refused.
    Uncached,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("digest", &self.facts.digest)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl Compiled {
    pub(super) fn load(engine: &Engine, bytes: &[u8], cache: Option<&Path>) -> Result<Self> {
        let facts = Facts::read(bytes)?;
        facts.check()?;
        let (component, code) = native(engine, bytes, facts.digest, cache)?;
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
            code,
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
        self.code == Code::FromCache
    }

    /// Whether the next load finds native code in the cache.
    #[must_use]
    pub fn cached(&self) -> bool {
        self.code != Code::Uncached
    }

    /// Configures the plugin for one pipeline. Nothing runs until an instance is asked for.
    #[must_use]
    pub fn into_plugin(self, settings: PluginSettings) -> Arc<GuestPlugin> {
        Arc::new(GuestPlugin::new(self, settings))
    }
}

/// Native code and where it came from.
fn native(
    engine: &Engine,
    bytes: &[u8],
    digest: Digest,
    cache: Option<&Path>,
) -> Result<(Component, Code)> {
    let cache = match cache {
        Some(folder) => Cache::open(folder)?,
        None => None,
    };
    let Some(cache) = cache else {
        return Ok((compile(engine, bytes)?, Code::Uncached));
    };
    let key = Key::new(digest, engine.wasmtime());
    if let Some(component) = cache.load(engine.wasmtime(), &key) {
        return Ok((component, Code::FromCache));
    }
    let component = compile(engine, bytes)?;
    let code = component
        .serialize()
        .map_err(|error| Error::bug("serialize compiled code", format!("{error:#}")))?;
    // A full disk costs a compilation at the next start, nothing else: not worth stopping for.
    let stored = cache.store(&key, &code);
    if let Err(error) = &stored {
        tracing::warn!(%error, %digest, "compiled plugin not cached: it is compiled again at every start");
    }
    Ok((
        component,
        if stored.is_ok() {
            Code::Cached
        } else {
            Code::Uncached
        },
    ))
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
