//! A dead letter with the release that set it aside: its manifest and its overlay, secrets left out. It reads the
//! control log and the store; the letter itself is `letters`' business.

use std::sync::Arc;

use super::Desk;
use crate::admin::types::DeadLetterBundle;
use crate::admin::{Kind, Refusal};
use crate::control::Release;
use crate::error::Error;
use crate::manifest::{self, Manifest};
use crate::task;

impl Desk {
    pub(super) async fn bundle(
        &self,
        pipeline: &str,
        at: (i32, i64, i32),
    ) -> Result<DeadLetterBundle, Refusal> {
        let letter = self.letter(pipeline, at).await?;
        let release = self.set_aside_by(pipeline, &letter.plugin, letter.digest.as_deref())?;
        let (hub, digest) = (Arc::clone(&self.hub), release.digest.clone());
        let bytes = task::blocking(move || hub.control.blob(&digest)).await??;
        let embedded = manifest::extract(&bytes)?;
        let checked = embedded.check().map_err(Error::from)?;
        let (overlay, secrets) = without_secrets(&release.overlay, &checked)?;
        Ok(DeadLetterBundle {
            letter,
            release: release.id,
            digest: release.digest,
            manifest: embedded.manifest,
            routes: checked
                .routes
                .iter()
                .map(|route| route.name.clone())
                .collect(),
            overlay,
            secrets,
        })
    }

    /// The release under which a letter was written: the newest one of its component in the pipeline's history.
    fn set_aside_by(
        &self,
        pipeline: &str,
        plugin: &str,
        digest: Option<&str>,
    ) -> Result<Release, Refusal> {
        let state = self.hub.control.state();
        let history = state.history(pipeline).iter().rev();
        let mut releases = history.flat_map(|revision| revision.deployment.releases());
        let found = releases.find(|release| match digest {
            Some(digest) => release.digest == digest,
            None => release.plugin == plugin,
        });
        found.cloned().ok_or_else(|| {
            let error = Error::config(
                format!("bundle a dead letter of pipeline {pipeline:?}"),
                format!("its history does not name {plugin} with that component any more"),
            );
            let hint = "look at the letter without --bundle, and at its component by its digest";
            Refusal::new(Kind::NotFound, error.hint(hint))
        })
    }
}

/// An overlay without the values of secret configuration, and their names.
fn without_secrets(overlay: &str, manifest: &Manifest) -> Result<(String, Vec<String>), Error> {
    let mut table: toml::Table = overlay
        .parse()
        .map_err(|error: toml::de::Error| Error::bug("read a deployed overlay", error.message()))?;
    let mut secrets = Vec::new();
    if let Some(values) = table.get_mut("config").and_then(toml::Value::as_table_mut) {
        for item in manifest.config.iter().filter(|item| item.secret) {
            if values.remove(&item.name).is_some() {
                secrets.push(item.name.clone());
            }
        }
    }
    let text = toml::to_string(&table).map_err(|error| Error::bug("write an overlay", error))?;
    Ok((text, secrets))
}
