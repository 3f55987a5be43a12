//! [`Releases`]: from a deployed release to one that may run: its component out of the store, compiled,
//! described, its manifest checked against what it says of itself, planned against this host's config.
//!
//! It opens no connection. What it loaded stays in memory as long as somebody runs it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::config::{Config, PipelineConfig, PluginSource};
use crate::control::{Control, Release};
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::pipeline::{self, Plan, setup};
use crate::plugin::{Compiled, Engine, GuestPlugin, LogLevel, PluginSettings};
use crate::task;
use crate::upload;

/// A release that could run: nothing was opened but its files.
#[derive(Debug)]
pub(super) struct Loaded {
    /// What lanes need.
    pub(super) release: Arc<pipeline::Release>,
    /// The checked overlay.
    pub(super) pipeline: PipelineConfig,
    /// The checked manifest.
    pub(super) manifest: Arc<Manifest>,
    /// The plugin again, for its numbers.
    pub(super) plugin: Arc<GuestPlugin>,
}

/// Loads releases. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Releases {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    engine: Engine,
    control: Control,
    /// By pipeline and release id: two lanes never compile the same thing twice.
    // Taken for a lookup or an insert, never while loading.
    loaded: Mutex<HashMap<(String, String), Weak<Loaded>>>,
    /// Digests of the config file's components and ids of the releases it declares; written at the start.
    own: Mutex<HashSet<String>>,
}

impl Releases {
    pub(super) fn new(config: Arc<Config>, engine: Engine, control: Control) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                engine,
                control,
                loaded: Mutex::default(),
                own: Mutex::default(),
            }),
        }
    }

    /// Loads a release of a pipeline on a thread that may block.
    ///
    /// # Errors
    /// As [`Releases::load_here`].
    pub(super) async fn load(&self, pipeline: &str, release: &Release) -> Result<Arc<Loaded>> {
        let (this, pipeline, release) = (self.clone(), pipeline.to_owned(), release.clone());
        task::blocking(move || this.load_here(&pipeline, &release)).await?
    }

    /// Loads a release of a pipeline; blocks on files and, where nothing is cached, on the compiler.
    ///
    /// # Errors
    /// `Config` for an overlay that does not fit this host or the plugin; `Plugin` for a component that is none,
    /// has no manifest, or describes something else than its manifest; `Outside` when it is not there yet.
    pub(super) fn load_here(&self, pipeline: &str, release: &Release) -> Result<Arc<Loaded>> {
        let key = (pipeline.to_owned(), release.id.clone());
        if let Some(loaded) = self.inner.loaded.lock().get(&key).and_then(Weak::upgrade) {
            return Ok(loaded);
        }
        let bytes = self.inner.control.blob(&release.digest)?;
        let loaded = Arc::new(self.make(pipeline, release, &bytes)?);
        let mut all = self.inner.loaded.lock();
        all.retain(|_, loaded| loaded.strong_count() > 0);
        all.insert(key, Arc::downgrade(&loaded));
        drop(all);
        self.remember(release);
        Ok(loaded)
    }

    fn make(&self, pipeline: &str, release: &Release, bytes: &[u8]) -> Result<Loaded> {
        let config = &self.inner.config;
        let (plugin, text) = (&release.plugin, &release.overlay);
        let overlay = if self.inner.own.lock().contains(&release.id) {
            config.own_overlay(pipeline, plugin, text)
        } else {
            config.overlay(pipeline, plugin, text)
        };
        let overlay = overlay.map_err(Error::from)?;
        let (manifest, compiled) = checked(&self.inner.engine, config, bytes)
            .map_err(|error| error.about(&release.plugin))?;
        self.verify(release, &manifest.name, bytes)?;
        let plan = Plan::new(&overlay, config, &manifest, release.digest.clone())?;
        let level = LogLevel::default();
        let setup = setup::encode(pipeline, level.as_str(), &manifest, &overlay.config)?;
        let mut settings = PluginSettings::of(&manifest, pipeline, setup);
        settings.limits = plan.limits;
        settings.log_level = level;
        let plugin = compiled.into_plugin(settings);
        let ready = pipeline::Release::new(
            &release.id,
            Arc::new(plan),
            manifest.errors,
            Arc::clone(&plugin) as Arc<dyn crate::plugin::Plugin>,
        )?;
        Ok(Loaded {
            release: Arc::new(ready),
            pipeline: overlay,
            manifest: Arc::new(manifest),
            plugin,
        })
    }

    /// Trusts what this host's own config file declares: the component needs no signature here, and the overlay may
    /// name any variable.
    pub(super) fn trust(&self, release: &Release) {
        let mut own = self.inner.own.lock();
        own.insert(release.digest.clone());
        own.insert(release.id.clone());
    }

    /// Checks the signature again that the upload brought: the log may have been written by other hands.
    fn verify(&self, release: &Release, name: &str, bytes: &[u8]) -> Result<()> {
        let rules = &self.inner.config.signing;
        let state = self.inner.control.state();
        let version = release
            .plugin
            .split_once('@')
            .map_or("", |(_, version)| version);
        if rules.is_empty() || self.inner.own.lock().contains(&release.digest) {
            return Ok(());
        }
        let known = state.version(name, version);
        let signature = known.and_then(|known| known.signature.as_ref());
        let signature = signature.map(|signature| signature.value.as_str());
        upload::verify(name, manifest::digest(bytes), signature, rules).map(drop)
    }

    /// An earlier release of a pipeline by its id, from the control log or from what this host remembers.
    ///
    /// # Errors
    /// `Config` when nobody knows it any more.
    pub(super) async fn earlier(&self, pipeline: &str, id: &str) -> Result<Arc<Loaded>> {
        let known = self.inner.control.state().release(id).cloned();
        let release = known.or_else(|| self.remembered(id)).ok_or_else(|| {
            let what = format!("load release {id} of pipeline {pipeline:?}");
            if self.inner.config.control.is_some() {
                // A host that has not read far enough learns of it soon.
                return Error::outside(what, "the control log does not name it, at least not yet")
                    .hint("look at `wasmill history`: records that it began have to be processed by it");
            }
            Error::config(
                what,
                "records that it wrote ahead have to be processed by it once more, and this host does not know it",
            )
            .hint(
                "start the host that ran it with its cache folder, or restore that folder here; no other version may \
                 process those records",
            )
        })?;
        self.load(pipeline, &release).await
    }

    fn memory_of(&self, id: &str) -> PathBuf {
        let folder = self.inner.config.host.cache.join("releases");
        folder.join(format!("{id}.json"))
    }

    /// Keeps a release for the next start of a host whose control log is in memory.
    fn remember(&self, release: &Release) {
        let path = self.memory_of(&release.id);
        if path.exists() {
            return;
        }
        let written = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(&path);
            std::fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(&mut file, release)?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        if let Err(error) = written() {
            tracing::warn!(release = release.id, %error, "release not kept in the cache folder");
        }
    }

    fn remembered(&self, id: &str) -> Option<Release> {
        let bytes = std::fs::read(self.memory_of(id)).ok()?;
        let release: Release = serde_json::from_slice(&bytes).ok()?;
        let same = Release::new(
            release.plugin.as_str(),
            release.digest.as_str(),
            release.overlay.as_str(),
        );
        (release.id == id && same.id == id).then_some(release)
    }
}

/// Compiles a component (or takes it from the cache) and checks its manifest against what it says of itself.
pub(super) fn checked(
    engine: &Engine,
    config: &Config,
    bytes: &[u8],
) -> Result<(Manifest, Compiled)> {
    let cache = config.host.cache.join("compiled");
    let compiled = engine.load(bytes, Some(&cache))?;
    let embedded = manifest::extract(bytes)?;
    compiled.check_description(&embedded.describe)?;
    Ok((embedded.check().map_err(Error::from)?, compiled))
}

/// A pipeline of the config that names a file: the release it declares, and the component.
///
/// # Errors
/// The file cannot be read, or is no component with a manifest.
pub(super) fn declared(pipeline: &PipelineConfig) -> Result<Option<(Release, Vec<u8>)>> {
    let PluginSource::File(file) = &pipeline.plugin else {
        return Ok(None);
    };
    let bytes = std::fs::read(file).map_err(|error| {
        Error::config(
            format!("read the plugin of pipeline {:?}", pipeline.name),
            format!("{}: {error}", file.display()),
        )
        .hint("build it with `wasmill plugin build`, then name the .wasm in file = \"…\"")
    })?;
    let about = |error: Error| error.about(file.display());
    // Whether it is a component at all is said first, as by every other command.
    crate::plugin::Facts::read(&bytes)
        .and_then(|facts| facts.check())
        .map_err(about)?;
    let manifest = manifest::extract(&bytes)
        .map_err(about)?
        .check()
        .map_err(|problems| about(problems.into()))?;
    let plugin = format!("{}@{}", manifest.name, manifest.version);
    let digest = manifest::digest(&bytes).to_string();
    Ok(Some((
        Release::new(plugin, digest, pipeline.overlay.as_str()),
        bytes,
    )))
}
