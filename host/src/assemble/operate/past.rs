//! What became of a pipeline and who did what, as the control log tells it, in the words of the API.

use std::collections::BTreeMap;

use super::status::time;
use crate::admin::types::{AuditEntry, History, Segment};
use crate::control::{self, State};

/// A pipeline's history.
pub(super) fn history(state: &State, pipeline: &str) -> History {
    let names: BTreeMap<&str, &str> = state
        .history(pipeline)
        .iter()
        .flat_map(|revision| revision.deployment.releases())
        .map(|release| (release.id.as_str(), release.plugin.as_str()))
        .collect();
    let revisions = state.history(pipeline).iter().rev().map(|revision| {
        let deployment = &revision.deployment;
        let trial = deployment.canary.as_ref().map(|canary| &canary.release);
        let shown = trial
            .or(deployment.shadow.as_ref())
            .unwrap_or(&deployment.release);
        crate::admin::types::Revision {
            revision: revision.revision,
            at: time(revision.written.at),
            by: revision.written.by.clone(),
            action: deployment.action.name().to_owned(),
            plugin: shown.plugin.clone(),
            release: shown.id.clone(),
            note: deployment.note.as_ref().map(said),
            evidence: deployment
                .note
                .as_ref()
                .and_then(|note| serde_json::from_value(note.get("evidence")?.clone()).ok()),
        }
    });
    // A release that another host goes on with is one segment.
    let mut all: Vec<(i32, &control::Segment)> = state.segments(pipeline).collect();
    all.dedup_by(|(partition, segment), (before, earlier)| {
        partition == before && segment.release == earlier.release
    });
    let segments = all.iter().enumerate().map(|(at, (partition, segment))| {
        let next = all.get(at + 1).filter(|(other, _)| other == partition);
        Segment {
            partition: *partition,
            from: segment.at,
            to: next.map(|(_, next)| next.at),
            release: segment.release.clone(),
            plugin: names
                .get(segment.release.as_str())
                .map_or_else(String::new, |name| (*name).to_owned()),
        }
    });
    History {
        pipeline: pipeline.to_owned(),
        revisions: revisions.collect(),
        segments: segments.collect(),
    }
}

/// A note as a person reads it: what somebody wrote, or the sentence a decision was summed up in.
fn said(note: &serde_json::Value) -> String {
    let text = note.as_str().or_else(|| note.get("summary")?.as_str());
    text.map_or_else(|| note.to_string(), str::to_owned)
}

/// The newest entries of the audit trail: uploads, every change of a deployment or of dead letters, denials.
pub(super) fn audit(state: &State, most: usize) -> Vec<AuditEntry> {
    let entry = |written: &control::Written, action: &str, subject: String, outcome: String| {
        let shown = AuditEntry {
            at: time(written.at),
            by: written.by.clone(),
            host: written.host.clone(),
            action: action.to_owned(),
            subject,
            outcome,
        };
        (written.at, shown)
    };
    let mut all = Vec::new();
    for version in state.versions() {
        let subject = format!("{}@{}", version.name, version.version);
        all.push(entry(
            &version.written,
            "upload",
            subject,
            version.digest.clone(),
        ));
    }
    for (name, _) in state.pipelines() {
        for revision in state.history(name) {
            let outcome = format!(
                "revision {}, {}",
                revision.revision, revision.deployment.release.plugin
            );
            let action = revision.deployment.action.name();
            all.push(entry(&revision.written, action, name.to_owned(), outcome));
        }
    }
    for done in state.done() {
        let subject = done.pipeline.clone();
        all.push(entry(
            &done.written,
            &done.action,
            subject,
            done.outcome.clone(),
        ));
    }
    for denial in state.denied() {
        let mut shown = entry(
            &denial.written,
            "denied",
            denial.what.clone(),
            denial.why.clone(),
        );
        shown.1.by.clone_from(&denial.by);
        all.push(shown);
    }
    all.sort_by(|(a, _), (b, _)| b.cmp(a));
    all.into_iter().take(most).map(|(_, entry)| entry).collect()
}
