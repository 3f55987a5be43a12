//! How a record changes the [`State`]: which entries count, which lose, what is dropped with age.
//!
//! The rules, each needed so that every host, whenever it starts, ends with the same state:
//! * Of the records at a revision the first wins; the winner's revision is one above the one before it.
//! * The first deployment seen of a pipeline is taken whatever its revision, and one that lies further ahead is taken
//!   too: the revisions between were removed with age. No writer appends such a record (see `Control::submit`).
//! * What losing and old records said is forgotten at once; their keys are remembered until they are removed from the
//!   log, losers first: a loser that outlived its winner could be taken for one.
//! * An entry of a later format may have won its revision, so nothing at or below it can be judged: the pipeline is
//!   frozen until a deployment at a higher revision comes, which says all there is to say again.

use std::collections::VecDeque;
use std::sync::Arc;

use uuid::Uuid;

use super::entry::{self, BlobHead, Change, Entry, FORMAT, Key, Read};
use super::fault::{check_chunk, fault};
use super::published::{self, Published};
use super::state::{
    Denial, Done, KEPT_DENIALS, KEPT_DONE, KEPT_REVISIONS, KEPT_SEGMENTS, Newer, Pipeline,
    PluginVersion, Revision, Segment, Stat, State, Written,
};
use super::store;

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It counts.
    Accepted,
    /// It counts, and says what the state said already.
    Repeated,
    /// Another came first.
    Rejected {
        /// Which, for people.
        reason: String,
    },
    /// It is nothing of ours.
    Ignored {
        /// What is wrong with it.
        reason: String,
    },
    /// It needs a newer host, or builds on a record that does.
    Newer,
}

/// Takes the oldest out of a list that has become too long.
fn beyond<T>(list: &mut VecDeque<T>, most: usize) -> Option<T> {
    (list.len() > most).then(|| list.pop_front()).flatten()
}

impl State {
    /// Applies the next record of the log.
    pub fn apply(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) -> Applied {
        self.apply_entry(offset, key, value).0
    }

    /// Also tells the id of the entry, for the writer that waits for it.
    pub(super) fn apply_entry(
        &mut self,
        offset: i64,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> (Applied, Option<Uuid>) {
        self.next = offset + 1;
        let (applied, id) = match (Key::parse(key), value) {
            (Some(key), None) => (self.remove(key), None),
            (Some(Key::Chunk { digest, number }), Some(chunk)) => {
                (check_chunk(digest, number, chunk.len()), None)
            }
            (Some(Key::Head { digest }), Some(value)) => (self.blob_head(digest, value), None),
            (_, Some(value)) => self.entry(key, value),
            (None, None) => (
                Applied::Ignored {
                    reason: "removes a key of no meaning".to_owned(),
                },
                None,
            ),
        };
        match &applied {
            Applied::Newer => self.note_newer(offset, key),
            Applied::Ignored { reason } => {
                self.garbage.records += 1;
                self.garbage.last = Some((offset, reason.clone()));
            }
            Applied::Accepted | Applied::Repeated | Applied::Rejected { .. } => {}
        }
        (applied, id)
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> (Applied, Option<Uuid>) {
        let entry = match entry::read(value) {
            Read::Entry(entry) => entry,
            Read::Newer => return (Applied::Newer, None),
            Read::Garbage(reason) => return (Applied::Ignored { reason }, None),
        };
        let own_key = entry.key();
        if own_key.as_bytes() != key {
            let reason = format!(
                "its key is {:?}, not {own_key:?}",
                String::from_utf8_lossy(key)
            );
            return (Applied::Ignored { reason }, None);
        }
        let id = entry.id;
        let applied = self.judge(&entry.change, id);
        match &applied {
            Applied::Accepted => self.take(*entry),
            Applied::Rejected { .. } => {
                Arc::make_mut(&mut self.removable).lost.insert(own_key);
            }
            Applied::Repeated => self.repeated(&entry, own_key),
            Applied::Ignored { .. } | Applied::Newer => {}
        }
        (applied, Some(id))
    }

    /// What would become of a change; changes nothing. `id` is the entry's, where it has one yet.
    pub(super) fn judge(&self, change: &Change, id: Uuid) -> Applied {
        if let Some(reason) = fault(change) {
            return Applied::Ignored { reason };
        }
        match change {
            Change::Version {
                name,
                version,
                digest,
                signature,
                ..
            } => {
                if self.is_frozen(&change.subject(), 0) {
                    return Applied::Newer;
                }
                let Some(known) = self.version(name, version) else {
                    return Applied::Accepted;
                };
                if known.digest != *digest {
                    let reason = format!(
                        "{name}@{version} was uploaded as {} before; this is {digest}, and a version never changes",
                        known.digest
                    );
                    return Applied::Rejected { reason };
                }
                match (&known.signature, signature) {
                    (None, Some(_)) => Applied::Accepted,
                    // One that nobody verified makes room for any other.
                    (Some(kept), Some(new)) if !kept.was_verified() && kept != new => {
                        Applied::Accepted
                    }
                    _ => Applied::Repeated,
                }
            }
            Change::Deploy {
                pipeline, revision, ..
            } => {
                if self.is_frozen(&change.subject(), *revision) {
                    return Applied::Newer;
                }
                match self.pipeline(pipeline) {
                    Some(last) if *revision <= last.revision => self.taken(pipeline, *revision, id),
                    _ => Applied::Accepted,
                }
            }
            Change::Segment {
                pipeline,
                partition,
                at,
                release,
            } => {
                let known = self.pipelines.get(pipeline);
                let known = known.and_then(|known| known.segments.get(partition)?.get(at));
                match known {
                    Some(known) if known.release == *release => Applied::Repeated,
                    _ => Applied::Accepted,
                }
            }
            Change::Stat { .. } => Applied::Accepted,
            Change::Published {
                pipeline,
                host,
                hash,
                revision,
            } => {
                let known = self.pipelines.get(pipeline);
                let notes = known.map(|known| &known.published);
                match notes.and_then(|notes| Some((notes, notes.get(host)?))) {
                    Some((notes, known))
                        if known.hash == *hash
                            && known.revision == *revision
                            && !published::is_ageing(notes, known) =>
                    {
                        Applied::Repeated
                    }
                    _ => Applied::Accepted,
                }
            }
            Change::Named => match self.named {
                None => Applied::Accepted,
                Some(known) if known == id => Applied::Repeated,
                Some(known) => Applied::Rejected {
                    reason: format!("it is {known} already"),
                },
            },
            Change::Done { .. } => once(self.done.iter().any(|done| done.written.id == id)),
            Change::Denied { .. } => {
                once(self.denials.iter().any(|denial| denial.written.id == id))
            }
        }
    }

    /// A deployment at a revision that is in force or past.
    fn taken(&self, pipeline: &str, revision: u64, id: Uuid) -> Applied {
        let history = self.history(pipeline);
        if history.iter().any(|known| known.written.id == id) {
            return Applied::Repeated;
        }
        let last = history.last().map_or(0, |last| last.revision);
        let reason = match history.iter().find(|known| known.revision == revision) {
            Some(winner) => format!(
                "revision {revision} of pipeline {pipeline:?} is {:?} by {}, written first; it is at revision {last} now",
                winner.deployment.action.name(),
                winner.written.by,
            ),
            None => format!("pipeline {pipeline:?} is at revision {last} now, past {revision}"),
        };
        Applied::Rejected { reason }
    }

    /// Takes an accepted entry in.
    fn take(&mut self, entry: Entry) {
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
                Arc::make_mut(&mut self.removable).old.extend(old);
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
                    let old = format!("segment/{pipeline}/{partition}/{old}");
                    Arc::make_mut(&mut self.removable).old.push_back(old);
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
                    let old = format!("published/{pipeline}/{old}");
                    Arc::make_mut(&mut self.removable).old.push_back(old);
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
                self.forget(old.map(|old| format!("done/{}", old.written.id)));
            }
            Change::Denied { by, what, why } => {
                self.denials.push_back(Arc::new(Denial {
                    by,
                    what,
                    why,
                    written,
                }));
                let old = beyond(&mut self.denials, KEPT_DENIALS);
                self.forget(old.map(|old| format!("denied/{}", old.written.id)));
            }
        }
    }

    /// The record under this key, if there is one, may be removed from the log.
    fn forget(&mut self, key: Option<String>) {
        if let Some(key) = key {
            Arc::make_mut(&mut self.removable).old.push_back(key);
        }
    }

    /// A version uploaded again: its record, under a key of its own, adds nothing.
    fn repeated(&mut self, entry: &Entry, key: String) {
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
            Arc::make_mut(&mut self.removable).lost.insert(key);
        }
    }

    fn pipeline_mut(&mut self, name: &str) -> &mut Pipeline {
        Arc::make_mut(self.pipelines.entry(name.to_owned()).or_default())
    }

    /// A key's record is removed: the state is as if it had not been written.
    fn remove(&mut self, key: Key<'_>) -> Applied {
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

    /// A key needs no removal any more.
    fn removed(&mut self, key: &str) {
        if self.removable.lost.contains(key) {
            Arc::make_mut(&mut self.removable).lost.remove(key);
        } else if let Some(at) = self.removable.old.iter().position(|old| old == key) {
            Arc::make_mut(&mut self.removable).old.remove(at);
        }
    }

    fn blob_head(&mut self, digest: &str, value: &[u8]) -> Applied {
        let ignored = |reason: String| Applied::Ignored { reason };
        if value.len() > entry::MAX_ENTRY {
            return ignored(format!("{} bytes", value.len()));
        }
        let head: BlobHead = match serde_json::from_slice(value) {
            Ok(head) => head,
            Err(error) => return ignored(error.to_string()),
        };
        if head.format > FORMAT {
            return Applied::Newer;
        }
        if entry::hex_of(digest).is_none() || store::chunks_of(head.size) != Some(head.chunks) {
            return ignored(format!("no head of a blob: {digest:?}, {head:?}"));
        }
        if self.blobs.get(digest) == Some(&head) {
            return Applied::Repeated;
        }
        Arc::make_mut(&mut self.blobs).insert(digest.to_owned(), head);
        Applied::Accepted
    }

    fn note_newer(&mut self, offset: i64, key: &[u8]) {
        let text = String::from_utf8_lossy(key);
        let parts: Vec<&str> = text.split('/').collect();
        let (subject, frozen, revision) = match *parts.as_slice() {
            ["deploy", pipeline, ref rest @ ..] => {
                let revision = rest.first().and_then(|revision| revision.parse().ok());
                let revision = revision.unwrap_or(u64::MAX);
                // One that comes after the winner of its revision has lost, whatever it says.
                let last = self.pipeline(pipeline).map_or(0, |last| last.revision);
                (entry::subject(pipeline), revision > last, revision)
            }
            ["version", name, version, ..] => {
                let subject = format!("plugin {:?}", format!("{name}@{version}"));
                (subject, true, 0)
            }
            ["segment" | "stat" | "published", pipeline, ..] => {
                (entry::subject(pipeline), false, 0)
            }
            _ => ("other".to_owned(), false, 0),
        };
        let fresh = Newer {
            entries: 0,
            first: offset,
            frozen,
            revision,
        };
        let newer = self.newer.entry(subject).or_insert(fresh);
        newer.entries += 1;
        newer.frozen |= frozen;
        newer.revision = newer.revision.max(revision);
    }
}

/// An entry that counts whenever it was not read before.
fn once(known: bool) -> Applied {
    if known {
        Applied::Repeated
    } else {
        Applied::Accepted
    }
}
