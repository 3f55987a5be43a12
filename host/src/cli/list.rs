//! `wasmill list`: the versions a host keeps and the pipelines they are deployed in.

use super::client::{Client, path};
use super::connection::Connection;
use super::{Failure, Voice, report, show};
use crate::admin::types::VersionInfo;

/// The uploaded versions, and where each is deployed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill list\n  wasmill list quakes\n  wasmill list --json | jq -r '.[].plugin'\n\n`wasmill status` shows what the pipelines do."
)]
pub(super) struct List {
    /// Only versions of this plugin.
    plugin: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl List {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        let answer = client.get(path::PLUGINS, "list the versions")?;
        if voice.json && self.plugin.is_none() {
            report::line(answer.text.trim_end());
            return Ok(());
        }
        if voice.json {
            // Entries as the host sent them, also with members this version does not know.
            let mut all: Vec<serde_json::Value> = answer.read()?;
            all.retain(|version| self.wants(version["plugin"].as_str().unwrap_or_default()));
            report::json(&all.into());
            return Ok(());
        }
        let mut versions: Vec<VersionInfo> = answer.read()?;
        versions.retain(|version| self.wants(&version.plugin));
        report::line(drawn(&versions));
        Ok(())
    }

    fn wants(&self, version: &str) -> bool {
        self.plugin
            .as_deref()
            .is_none_or(|wanted| version.split('@').next() == Some(wanted) || version == wanted)
    }
}

fn drawn(versions: &[VersionInfo]) -> String {
    if versions.is_empty() {
        return "no versions: `wasmill upload FILE` brings one".to_owned();
    }
    show::table(
        [
            "plugin",
            "pipelines",
            "size",
            "digest",
            "uploaded",
            "by",
            "signed by",
            "about",
        ],
        &["size"],
        versions.iter().map(|version| {
            [
                version.plugin.clone(),
                show::list(&version.pipelines),
                show::size(version.size),
                version.digest.chars().take("sha256:".len() + 12).collect(),
                version.at.clone(),
                version.by.clone(),
                show::or_dash(version.signed_by.as_ref()),
                version.description.clone().unwrap_or_default(),
            ]
        }),
    )
}
