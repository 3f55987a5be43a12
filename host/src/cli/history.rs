//! `wasmill history`: what a pipeline's deployment went through, and which release wrote which offsets.

use super::client::{Client, path};
use super::connection::Connection;
use super::{Failure, Voice, report, show};
use crate::admin::types::History as Told;

/// What a pipeline went through, and which version wrote which offsets.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill history quakes\n  wasmill history quakes --json | jq '.segments[] | select(.partition == 0)'\n\nOffset ranges are half-open. Rows that a bad canary wrote stay until their offsets are processed again."
)]
pub(super) struct History {
    /// The pipeline.
    pipeline: String,
    #[command(flatten)]
    connection: Connection,
}

impl History {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        let what = format!("read the history of pipeline {:?}", self.pipeline);
        let answer = client.get(&path::of_pipeline(&self.pipeline, "history"), &what)?;
        if voice.json {
            report::line(answer.text.trim_end());
            return Ok(());
        }
        for line in lines(&answer.read()?) {
            report::line(line);
        }
        Ok(())
    }
}

fn lines(history: &Told) -> Vec<String> {
    let mut lines = vec![show::table(
        ["revision", "at", "by", "action", "plugin", "release"],
        &["revision"],
        history.revisions.iter().map(|revision| {
            [
                revision.revision.to_string(),
                revision.at.clone(),
                revision.by.clone(),
                revision.action.clone(),
                revision.plugin.clone(),
                revision.release.clone(),
            ]
        }),
    )];
    // Sentences: as a column they would make every line as long as the longest of them.
    lines.extend(history.revisions.iter().filter_map(|revision| {
        let note = revision.note.as_deref()?;
        Some(format!("  revision {}: {note}", revision.revision))
    }));
    if !history.segments.is_empty() {
        lines.push(String::new());
        lines.push(show::table(
            ["partition", "from", "to", "plugin", "release"],
            &["partition", "from", "to"],
            history.segments.iter().map(|segment| {
                [
                    segment.partition.to_string(),
                    segment.from.to_string(),
                    segment
                        .to
                        .map_or_else(|| "…".to_owned(), |to| to.to_string()),
                    segment.plugin.clone(),
                    segment.release.clone(),
                ]
            }),
        ));
    }
    lines
}
