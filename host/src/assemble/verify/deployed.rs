//! [`Deployed`]: what is deployed and what was before, as a host would find it: from the control log, the config file
//! and the cache folder.

use std::sync::Arc;

use super::super::log;
use super::super::releases::{Loaded, Releases, declared};
use super::super::servers::Servers;
use crate::config::{Config, PluginSource};
use crate::control::{BlobStore, Control, Origin, Release};
use crate::error::{Error, Result};
use crate::plugin::{Engine, EngineOptions};
use crate::task;

/// How long the broker may take to tell of the control log's topic.
const LOOK: std::time::Duration = std::time::Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Deployed {
    pub(super) pipeline: String,
    pub(super) servers: Arc<Servers>,
    pub(super) releases: Releases,
    pub(super) control: Control,
    /// The release in force.
    pub(super) release: Release,
    pub(super) loaded: Arc<Loaded>,
}

impl Deployed {
    /// Opens the control log, where the config names one, and loads the release in force.
    ///
    /// # Errors
    /// `Config` where there is no such pipeline or it cannot be loaded here; `Outside` when the log is not reached.
    pub(super) async fn open(config: &Arc<Config>, pipeline: &str) -> Result<Self> {
        let servers = Arc::new(Servers::new(config));
        exists(config, &servers).await?;
        let store = BlobStore::open(config.host.cache.join("plugins"))?;
        let log = log::open(config, &store, &|_| {}).await?;
        let control = Control::open(log, store.clone(), config.host.id.clone())?;
        control.ready().await?;
        let engine = Engine::new(EngineOptions::default())?;
        let releases = Releases::new(Arc::clone(config), engine, control.clone());
        let release = in_force(config, &control, &store, &releases, pipeline)?;
        let loaded = releases.load(pipeline, &release).await?;
        Ok(Self {
            pipeline: pipeline.to_owned(),
            servers,
            releases,
            control,
            release,
            loaded,
        })
    }

    /// A release that ran before; the error says why it cannot run here.
    pub(super) async fn earlier(&self, id: &str) -> Result<Arc<Loaded>> {
        let loaded = if id == self.release.id {
            return Ok(Arc::clone(&self.loaded));
        } else {
            self.releases.earlier(&self.pipeline, id).await?
        };
        let (now, then) = (&self.loaded.release.plan, &loaded.release.plan);
        if now.anchor != then.anchor || now.input.topic != then.input.topic {
            return Err(Error::config(
                format!("derive what release {id} made"),
                format!(
                    "it read {} and kept its position in {}",
                    then.input.topic, then.anchor
                ),
            ));
        }
        Ok(loaded)
    }

    /// What the history says of a partition: first offsets and release ids.
    pub(super) fn began(&self, partition: i32) -> Vec<(i64, String)> {
        let state = self.control.state();
        let all = state.segments(&self.pipeline);
        all.filter(|(of, _)| *of == partition)
            .map(|(_, segment)| (segment.at, segment.release.clone()))
            .collect()
    }

    /// Releases through which a dead letter may have been retried, newest first: every uploaded version of the plugin,
    /// bound as it is now.
    pub(super) fn candidates(&self, most: usize) -> Vec<Release> {
        let (name, _) = self
            .release
            .plugin
            .split_once('@')
            .unwrap_or((&self.release.plugin, ""));
        let state = self.control.state();
        let versions = state.versions();
        let mut all = vec![self.release.clone()];
        let uploaded = versions.iter().rev().filter(|version| version.name == name);
        all.extend(uploaded.map(|version| {
            let plugin = format!("{name}@{}", version.version);
            Release::new(
                plugin,
                version.digest.as_str(),
                self.release.overlay.as_str(),
            )
        }));
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|release| seen.insert(release.id.clone()));
        all.truncate(most);
        all
    }
}

/// A look makes no control log: whoever has none has no host that follows one.
async fn exists(config: &Arc<Config>, servers: &Arc<Servers>) -> Result<()> {
    let Some(control) = config.control.clone() else {
        return Ok(());
    };
    let servers = Arc::clone(servers);
    let asked = task::blocking(move || {
        let catalog = servers.catalog(&control.kafka)?;
        catalog.topic(&control.topic, LOOK)
    });
    asked.await??;
    Ok(())
}

/// The release in force: what the control log says, or, where it is of this process alone, the config file.
fn in_force(
    config: &Config,
    control: &Control,
    store: &BlobStore,
    releases: &Releases,
    pipeline: &str,
) -> Result<Release> {
    let section = config
        .pipelines
        .iter()
        .find(|section| section.name == pipeline);
    let mut file = None;
    if let Some(section) = section
        && matches!(section.plugin, PluginSource::File(_))
        && let Some((release, bytes)) = declared(section)?
    {
        store.put(&release.digest, &bytes)?;
        releases.trust(&release);
        file = Some(release);
    }
    let state = control.state();
    // What this host's own file declared may name any variable, as when the host runs it.
    for revision in state.history(pipeline) {
        let own = revision.written.host == config.host.id;
        if own && matches!(revision.deployment.origin, Origin::Config { .. }) {
            releases.trust(&revision.deployment.release);
        }
    }
    if let Some(revision) = state.pipeline(pipeline) {
        return Ok(revision.deployment.release.clone());
    }
    if config.control.is_none()
        && let Some(release) = file
    {
        return Ok(release);
    }
    let mut known: Vec<&str> = state.pipelines().map(|(name, _)| name).collect();
    if config.control.is_none() {
        known = config
            .pipelines
            .iter()
            .map(|section| section.name.as_str())
            .collect();
    }
    let detail = match (section, known.as_slice()) {
        (Some(_), _) if config.control.is_none() => {
            "its plugin is a version that was uploaded, and the config names no control log to find it in".to_owned()
        }
        (_, []) => "nothing was ever deployed".to_owned(),
        (_, known) => format!("there are: {}", known.join(", ")),
    };
    Err(Error::config(format!("find pipeline {pipeline:?}"), detail)
        .hint("give the config of a host that runs it with -c"))
}
