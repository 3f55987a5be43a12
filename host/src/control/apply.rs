//! How a record of the log changes the [`State`]: the way in, and the rules.
//!
//! Which entries count is judged in `winner`, what one that counts adds is in `intake`, what the removal of a record
//! takes away in `removal`. Here a record is told by its key, and what cannot be judged is noted: entries of a later
//! format, and records that are nothing of ours.
//!
//! The rules, each needed so that every host, whenever it starts, ends with the same state:
//! * Of the records at a revision the first wins; the winner's revision is one above the one before it.
//! * The first deployment seen of a pipeline is taken whatever its revision, and one that lies further ahead is taken
//!   too: the revisions between were removed with age. No writer appends such a record (see `Control::submit`).
//! * What losing and old records said is forgotten at once; their keys are remembered until they are removed from the
//!   log, losers first: a loser that outlived its winner could be taken for one.
//! * An entry of a later format may have won its revision, so nothing at or below it can be judged: the pipeline is
//!   frozen until a deployment at a higher revision comes, which says all there is to say again.

use std::sync::Arc;

use uuid::Uuid;

use super::entry::{self, BlobHead, FORMAT, Key, Read};
use super::fault::check_chunk;
use super::state::{Newer, State};
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
                self.lost(own_key);
            }
            Applied::Repeated => self.repeated(&entry, own_key),
            Applied::Ignored { .. } | Applied::Newer => {}
        }
        (applied, Some(id))
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
