//! Pipelines of the config file, as deployments: the same mechanism as an upload.
//!
//! A section is published when it says something else than the one published last; until then what was deployed
//! by upload stands. It runs nothing.

use bytes::Bytes;

use super::hub::Hub;
use super::operate::plan;
use super::releases;
use crate::config::{Config, PluginSource};
use crate::control::{Change, Control, Deployment, Origin, Outcome, Release};
use crate::error::{Error, Result};

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
    /// Makes it the deployment in force, unless the same section was published before.
    ///
    /// # Errors
    /// `Config` when its version is not there or exists with other bytes; `Outside` when the log is not reached.
    pub(super) async fn publish(&self, hub: &Hub) -> Result<()> {
        let (control, shared_log) = (&hub.control, hub.shared_log);
        let release = match (&self.file, &self.plugin) {
            (Some((release, bytes)), _) => {
                control.put_blob(&release.digest, bytes.clone()).await?;
                self.register(control, release, bytes.len(), shared_log)
                    .await?;
                release.clone()
            }
            (None, Some(plugin)) => {
                let (name, version) = plugin.split_once('@').unwrap_or((plugin, ""));
                let state = control.state();
                let known = state.version(name, version).ok_or_else(|| {
                    Error::config(
                        format!("deploy pipeline {:?} of the config", self.pipeline),
                        format!("{plugin} was never uploaded"),
                    )
                    .hint(format!(
                        "`wasmill upload {name}.wasm`, or name one that `wasmill list` shows"
                    ))
                })?;
                Release::new(
                    plugin.as_str(),
                    known.digest.as_str(),
                    self.overlay.as_str(),
                )
            }
            (None, None) => return Ok(()),
        };
        if self.file.is_none() {
            hub.releases.trust(&release);
        }
        if shared_log {
            let loaded = hub.releases.load(&self.pipeline, &release).await?;
            if let Some(name) = plan::inline_secrets(&loaded, &release).first() {
                return Err(Error::config(
                    format!("deploy pipeline {:?} of the config", self.pipeline),
                    format!(
                        "config.{name} is a secret and written out, and others read the control log"
                    ),
                )
                .hint(format!("write config.{name} = {{ env = \"VARIABLE\" }}")));
            }
        }
        for _ in 0..TRIES {
            let state = control.state();
            let last = state.history(&self.pipeline).iter().rev();
            let published = last
                .filter_map(|revision| match &revision.deployment.origin {
                    Origin::Config { hash } => Some(hash.as_str()),
                    Origin::Upload => None,
                })
                .next();
            if published == Some(&release.id) {
                return Ok(());
            }
            let now = state.pipeline(&self.pipeline);
            let seen = now.map_or(0, |now| now.revision);
            let origin = Origin::Config {
                hash: release.id.clone(),
            };
            let change = Change::Deploy {
                pipeline: self.pipeline.clone(),
                revision: seen + 1,
                deployment: Deployment {
                    // What an operator paused stays so.
                    paused: now.is_some_and(|now| now.deployment.paused),
                    ..Deployment::of(release.clone(), origin)
                },
            };
            if let Outcome::Accepted = control.submit(BY, change).await? {
                return Ok(());
            }
        }
        Err(Error::outside(
            format!("deploy pipeline {:?} of the config", self.pipeline),
            "others deploy it all the time",
        ))
    }

    /// Enters the file's version. In a log of this process alone a version may have been something else before.
    async fn register(
        &self,
        control: &Control,
        release: &Release,
        size: usize,
        shared_log: bool,
    ) -> Result<()> {
        let (name, version) = release
            .plugin
            .split_once('@')
            .unwrap_or((&release.plugin, ""));
        let change = Change::Version {
            name: name.to_owned(),
            version: version.to_owned(),
            digest: release.digest.clone(),
            size: size as u64,
            signature: None,
            facts: serde_json::Value::Null,
        };
        match control.submit(BY, change).await? {
            Outcome::Rejected(reason) if shared_log => Err(Error::config(
                format!("enter {} of the config", release.plugin),
                reason,
            )
            .hint("a version never changes: give the plugin another version and build it again")),
            Outcome::Accepted | Outcome::Rejected(_) => Ok(()),
        }
    }
}
