//! Pipelines of the config file, as deployments: the same mechanism as an upload.
//!
//! A section is published when it says something else than this host's file did last; until then what was deployed
//! by upload stands. What it would take the place of is looked at as for a deployment by upload. It runs nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::hub::Hub;
use super::operate::{plan, replace, succession};
use super::releases;
use crate::config::{Config, PluginSource};
use crate::control::{Change, Deployment, Origin, Outcome, Release, Section};
use crate::error::{Blame, Error, Result};

/// Who a change of the config file is by, in the history.
const BY: &str = "config";
/// How often a deployment that somebody else got in front of is tried again.
const TRIES: usize = 5;

/// A pipeline of the config file.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) pipeline: String,
    /// `None`: the version named by the section has to be in the control log.
    pub(super) file: Option<(Release, Bytes)>,
    plugin: Option<String>,
    overlay: String,
}

/// Reads what a config declares.
///
/// # Errors
/// A file that cannot be read or is no plugin.
pub(super) fn declared(config: &Config) -> Result<Vec<Declared>> {
    let read = config.pipelines.iter().map(|pipeline| {
        Ok(Declared {
            pipeline: pipeline.name.clone(),
            file: releases::declared(pipeline)?.map(|(release, bytes)| (release, bytes.into())),
            plugin: match &pipeline.plugin {
                PluginSource::File(_) => None,
                PluginSource::Version(plugin) => Some(plugin.clone()),
            },
            overlay: pipeline.overlay.clone(),
        })
    });
    read.collect()
}

impl Declared {
    /// Makes it the deployment in force, where the section is news: unless it was published before or is in force.
    ///
    /// # Errors
    /// `Config` when its version is not there or exists with other bytes, or it cannot take the place of what runs;
    /// `Outside` when the log, or what has to be looked at, is not reached.
    pub(super) async fn publish(&self, hub: &Arc<Hub>) -> Result<()> {
        let Some(release) = self.release(hub).await? else {
            return Ok(());
        };
        if hub.shared_log {
            self.refuse_secrets(hub, &release).await?;
        }
        let host = hub.config.host.id.as_str();
        for _ in 0..TRIES {
            let state = hub.control.state();
            let now = state.pipeline(&self.pipeline);
            let running = now.filter(|now| !now.deployment.removed);
            let said = match (state.section(&self.pipeline, host, &release.id), running) {
                (Section::Said(revision), _) => Some(revision),
                (Section::News, Some(now)) if now.deployment.release.id == release.id => {
                    Some(now.revision)
                }
                (Section::News, _) => None,
            };
            if let Some(revision) = said {
                return self.remember(hub, &release, revision).await;
            }
            self.alone(hub, &release).await?;
            let mut notes = Vec::new();
            if let Some(now) = running {
                self.knows(hub, host, &now.deployment.release).await?;
                replace::check(hub, &self.pipeline, now, &release).await?;
                notes.extend(succession::trial(&now.deployment).map(|trial| {
                    format!(
                        "the config file of host {host} changed: that ended {trial}; rows it wrote stay"
                    )
                }));
            } else if let Some(removed) = now {
                notes = replace::comes_back(hub, &self.pipeline, removed, &release).await;
            }
            let revision = now.map_or(0, |now| now.revision) + 1;
            let change = Change::Deploy {
                pipeline: self.pipeline.clone(),
                revision,
                deployment: self.deployment(now.map(|now| &now.deployment), &release, &notes),
            };
            if let Outcome::Accepted = hub.control.submit(BY, change).await? {
                return self.remember(hub, &release, revision).await;
            }
        }
        Err(Error::outside(
            format!("deploy pipeline {:?} of the config", self.pipeline),
            "others deploy it all the time",
        ))
    }

    /// No other pipeline writes a table that is this one's. One that cannot be loaded writes nothing, and says why when
    /// it is started.
    async fn alone(&self, hub: &Arc<Hub>, release: &Release) -> Result<()> {
        if hub.config.cassandra.is_empty() {
            return Ok(());
        }
        match hub.releases.load(&self.pipeline, release).await {
            Ok(loaded) => replace::alone(hub, &loaded.release.plan).await,
            Err(_) => Ok(()),
        }
    }

    /// The release in force can be loaded here: else nobody knows whether the section would move the position.
    async fn knows(&self, hub: &Hub, host: &str, now: &Release) -> Result<()> {
        // What this host's file said before is as much its own as what it says now.
        if hub.control.state().said(&self.pipeline, host) == Some(&now.id) {
            hub.releases.trust(now);
        }
        match hub.releases.load(&self.pipeline, now).await {
            Ok(_) => Ok(()),
            Err(error) if error.blame() == Blame::Outside => Err(error),
            Err(error) => Err(self
                .refused(format!(
                    "{} is in force and cannot be loaded here, so it is not known whether the position would move: {error}",
                    now.plugin
                ))
                .hint("deploy it with `wasmill deploy`, which plans it and shows what it cannot know")),
        }
    }

    /// The release that the section declares, its version in the control log.
    async fn release(&self, hub: &Hub) -> Result<Option<Release>> {
        if let Some((release, bytes)) = &self.file {
            self.enter(hub, release, bytes).await?;
            return Ok(Some(release.clone()));
        }
        let Some(plugin) = &self.plugin else {
            return Ok(None);
        };
        let (name, version) = plugin.split_once('@').unwrap_or((plugin, ""));
        let state = hub.control.state();
        let known = state.version(name, version).ok_or_else(|| {
            let detail = format!("{plugin} was never uploaded");
            self.refused(detail).hint(format!(
                "`wasmill upload {name}.wasm`, or name one that `wasmill list` shows"
            ))
        })?;
        let (digest, overlay) = (known.digest.as_str(), self.overlay.as_str());
        let release = Release::new(plugin.as_str(), digest, overlay);
        hub.releases.trust(&release);
        Ok(Some(release))
    }

    /// Enters the file's version. In a log of this process alone a version may have been something else before.
    async fn enter(&self, hub: &Hub, release: &Release, bytes: &Bytes) -> Result<()> {
        let refused = |detail: String| {
            Error::config(format!("enter {} of the config", release.plugin), detail)
                .hint("a version never changes: give the plugin another version and build it again")
        };
        let (name, version) = release
            .plugin
            .split_once('@')
            .unwrap_or((&release.plugin, ""));
        let state = hub.control.state();
        let known = state.version(name, version);
        // Before its bytes are written for all: nobody would need them.
        if let Some(known) = known.filter(|known| known.digest != release.digest)
            && hub.shared_log
        {
            let (known, digest) = (&known.digest, &release.digest);
            return Err(refused(format!(
                "it exists as {known}, the file is {digest}"
            )));
        }
        hub.control.put_blob(&release.digest, bytes.clone()).await?;
        let change = Change::Version {
            name: name.to_owned(),
            version: version.to_owned(),
            digest: release.digest.clone(),
            size: bytes.len() as u64,
            signature: None,
            facts: serde_json::Value::Null,
        };
        match hub.control.submit(BY, change).await? {
            Outcome::Rejected(reason) if hub.shared_log => Err(refused(reason)),
            Outcome::Accepted | Outcome::Rejected(_) => Ok(()),
        }
    }

    async fn refuse_secrets(&self, hub: &Hub, release: &Release) -> Result<()> {
        let loaded = hub.releases.load(&self.pipeline, release).await?;
        match plan::inline_secrets(&loaded, release).first() {
            Some(name) => Err(self
                .refused(format!(
                    "config.{name} is a secret and written out, and others read the control log"
                ))
                .hint(format!("write config.{name} = {{ env = \"VARIABLE\" }}"))),
            None => Ok(()),
        }
    }

    /// The deployment that follows `now`: what an operator paused stays so; the history keeps the notes.
    fn deployment(
        &self,
        now: Option<&Deployment>,
        release: &Release,
        notes: &[String],
    ) -> Deployment {
        let origin = Origin::Config {
            hash: release.id.clone(),
        };
        for note in notes {
            tracing::warn!(
                pipeline = self.pipeline,
                note,
                "deployed by the config file"
            );
        }
        Deployment {
            paused: now.is_some_and(|now| now.paused),
            note: (!notes.is_empty()).then(|| notes.join("; ").into()),
            ..Deployment::of(release.clone(), origin)
        }
    }

    /// Notes what this host's file says, so that it is no news the next time.
    async fn remember(&self, hub: &Hub, release: &Release, revision: u64) -> Result<()> {
        let change = Change::Published {
            pipeline: self.pipeline.clone(),
            host: hub.config.host.id.clone(),
            hash: release.id.clone(),
            revision,
        };
        hub.control.submit(BY, change).await.map(drop)
    }

    fn refused(&self, detail: String) -> Error {
        Error::config(
            format!("deploy pipeline {:?} of the config", self.pipeline),
            detail,
        )
    }
}
