//! What an entry that counts adds to the [`State`], and what it pushes out: of everything only so much is kept.
//!
//! It never asks whether the entry counts: that is judged before, in `winner`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::{Change, Entry};
use super::published::{self, Published};
use super::state::{
    Denial, Done, KEPT_DENIALS, KEPT_DONE, KEPT_REVISIONS, KEPT_SEGMENTS, Pipeline, PluginVersion,
    Revision, Segment, Stat, State, Written,
};

impl State {
    /// Takes an accepted entry in.
    pub(super) fn take(&mut self, entry: Entry) {
        let Entry {
            id,
            at,
            by,
            host,
            change,
            ..
        } = entry;
        let written = Written { id, at, by, host };
        match change {
            Change::Version {
                name,
                version,
                digest,
                size,
                signature,
                facts,
            } => {
                let slot = self.versions.entry((name.clone(), version.clone()));
                let fresh = || {
                    Arc::new(PluginVersion {
                        name,
                        version,
                        digest,
                        size,
                        signature: None,
                        facts,
                        written,
                    })
                };
                let known = slot.or_insert_with(fresh);
                if signature.is_some() {
                    Arc::make_mut(known).signature = signature;
                }
            }
            Change::Deploy {
                pipeline,
                revision,
                deployment,
            } => {
                let revision = Arc::new(Revision {
                    revision,
                    deployment,
                    written,
                });
                if let Some(newer) = self.newer.get_mut(&format!("pipeline {pipeline:?}")) {
                    newer.frozen = false;
                }
                let kept = &mut self.pipeline_mut(&pipeline).revisions;
                kept.push(revision);
                let old: Vec<_> = kept
                    .drain(..kept.len().saturating_sub(KEPT_REVISIONS))
                    .collect();
                let old = old
                    .iter()
                    .map(|old| format!("deploy/{pipeline}/{}/{}", old.revision, old.written.id));
                self.aged(old);
            }
            Change::Segment {
                pipeline,
                partition,
                at: first,
                release,
            } => {
                // A key that was dropped with age and is written again says something again.
                self.removed(&format!("segment/{pipeline}/{partition}/{first}"));
                let segment = Segment {
                    at: first,
                    release,
                    written_ms: at,
                    host: written.host,
                };
                let kept = self
                    .pipeline_mut(&pipeline)
                    .segments
                    .entry(partition)
                    .or_default();
                kept.insert(first, segment);
                if kept.len() > KEPT_SEGMENTS
                    && let Some((old, _)) = kept.pop_first()
                {
                    self.aged([format!("segment/{pipeline}/{partition}/{old}")]);
                }
            }
            Change::Stat {
                pipeline,
                host,
                body,
            } => {
                self.pipeline_mut(&pipeline)
                    .stats
                    .insert(host, Stat { at, body });
            }
            Change::Published {
                pipeline,
                host,
                hash,
                revision,
            } => {
                // A key that was dropped with age and is written again says something again.
                self.removed(&format!("published/{pipeline}/{host}"));
                let note = Published {
                    hash,
                    revision,
                    noted: self.next,
                };
                let notes = &mut self.pipeline_mut(&pipeline).published;
                notes.insert(host, note);
                if let Some(old) = published::beyond(notes) {
                    self.aged([format!("published/{pipeline}/{old}")]);
                }
            }
            Change::Named => self.named = Some(id),
            Change::Done {
                pipeline,
                action,
                outcome,
            } => {
                self.done.push_back(Arc::new(Done {
                    pipeline,
                    action,
                    outcome,
                    written,
                }));
                let old = beyond(&mut self.done, KEPT_DONE);
                self.aged(old.map(|old| format!("done/{}", old.written.id)));
            }
            Change::Denied { by, what, why } => {
                self.denials.push_back(Arc::new(Denial {
                    by,
                    what,
                    why,
                    written,
                }));
                let old = beyond(&mut self.denials, KEPT_DENIALS);
                self.aged(old.map(|old| format!("denied/{}", old.written.id)));
            }
        }
    }

    /// Takes note of an entry that says what the state said already. The record of a version uploaded again, under a key
    /// of its own, adds nothing.
    pub(super) fn repeated(&mut self, entry: &Entry, key: String) {
        if let Change::Published { pipeline, host, .. } = &entry.change {
            // Where compaction has passed, this is the record that is left.
            let noted = self.next;
            let notes = &mut self.pipeline_mut(pipeline).published;
            if let Some(note) = notes.get_mut(host) {
                note.noted = noted;
            }
            return;
        }
        if let Change::Version { name, version, .. } = &entry.change
            && self
                .version(name, version)
                .is_some_and(|known| known.written.id != entry.id)
        {
            self.lost(key);
        }
    }

    fn pipeline_mut(&mut self, name: &str) -> &mut Pipeline {
        Arc::make_mut(self.pipelines.entry(name.to_owned()).or_default())
    }
}

/// Takes the oldest out of a list that has become too long.
fn beyond<T>(list: &mut VecDeque<T>, most: usize) -> Option<T> {
    (list.len() > most).then(|| list.pop_front()).flatten()
}
