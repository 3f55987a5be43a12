//! Records that leave the log: which may, because they say nothing any more, and what the [`State`] is without one.
//!
//! It owns [`Removable`]. It removes nothing itself: a writer that has the time does, and every host sees the removal as
//! a record of the log.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::apply::Applied;
use super::entry::{self, Key};
use super::state::{Pipeline, State};

/// Keys whose records say nothing any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Removable {
    /// Of records that lost: to be removed before the winner they lost to, or one could be taken for a winner.
    lost: BTreeSet<String>,
    /// Of records past what is kept, oldest first.
    old: VecDeque<String>,
}

impl Removable {
    pub(super) fn len(&self) -> usize {
        self.lost.len() + self.old.len()
    }
}

impl State {
    /// Keys whose records say nothing any more, in the order they have to be removed: losers before winners.
    #[must_use]
    pub fn removable(&self) -> Vec<String> {
        self.removable
            .lost
            .iter()
            .chain(&self.removable.old)
            .cloned()
            .collect()
    }

    /// The record under this key lost.
    pub(super) fn lost(&mut self, key: String) {
        Arc::make_mut(&mut self.removable).lost.insert(key);
    }

    /// The records under these keys, if there are any, are past what is kept.
    pub(super) fn aged(&mut self, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            Arc::make_mut(&mut self.removable).old.push_back(key);
        }
    }

    /// A key needs no removal any more.
    pub(super) fn removed(&mut self, key: &str) {
        if self.removable.lost.contains(key) {
            Arc::make_mut(&mut self.removable).lost.remove(key);
        } else if let Some(at) = self.removable.old.iter().position(|old| old == key) {
            Arc::make_mut(&mut self.removable).old.remove(at);
        }
    }

    /// A key's record is removed: the state is as if it had not been written.
    pub(super) fn remove(&mut self, key: Key<'_>) -> Applied {
        match key {
            Key::Version { name, version, id } => {
                let slot = (name.to_owned(), version.to_owned());
                if self
                    .versions
                    .get(&slot)
                    .is_some_and(|known| known.written.id == id)
                {
                    self.versions.remove(&slot);
                }
                self.removed(&format!("version/{name}/{version}/{id}"));
            }
            Key::Deploy {
                pipeline,
                revision,
                id,
            } => {
                // What a newer host removes with age may be all that an older one knows.
                if self.is_frozen(&entry::subject(pipeline), 0) {
                    return Applied::Newer;
                }
                self.edit(pipeline, |found| {
                    found.revisions.retain(|known| known.written.id != id)
                });
                self.removed(&format!("deploy/{pipeline}/{revision}/{id}"));
            }
            Key::Segment {
                pipeline,
                partition,
                at,
            } => {
                self.edit(pipeline, |found| {
                    if let Some(kept) = found.segments.get_mut(&partition) {
                        kept.remove(&at);
                        if kept.is_empty() {
                            found.segments.remove(&partition);
                        }
                    }
                });
                self.removed(&format!("segment/{pipeline}/{partition}/{at}"));
            }
            Key::Stat { pipeline, host } => self.edit(pipeline, |found| {
                found.stats.remove(host);
            }),
            Key::Published { pipeline, host } => {
                self.edit(pipeline, |found| {
                    found.published.remove(host);
                });
                self.removed(&format!("published/{pipeline}/{host}"));
            }
            Key::Named { id } => {
                self.named = self.named.filter(|named| *named != id);
                self.removed(&format!("named/{id}"));
            }
            Key::Done { id } => {
                self.done.retain(|done| done.written.id != id);
                self.removed(&format!("done/{id}"));
            }
            Key::Denied { id } => {
                self.denials.retain(|denial| denial.written.id != id);
                self.removed(&format!("denied/{id}"));
            }
            Key::Head { digest } => {
                if self.blobs.contains_key(digest) {
                    Arc::make_mut(&mut self.blobs).remove(digest);
                }
            }
            Key::Chunk { .. } => {}
        }
        Applied::Accepted
    }

    fn edit(&mut self, pipeline: &str, change: impl FnOnce(&mut Pipeline)) {
        let Some(found) = self.pipelines.get_mut(pipeline) else {
            return;
        };
        let found = Arc::make_mut(found);
        change(found);
        if *found == Pipeline::default() {
            self.pipelines.remove(pipeline);
        }
    }
}
