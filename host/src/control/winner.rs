//! Which entry counts and which loses: judged against the [`State`], which it never changes.
//!
//! A writer asks before it appends, and every host asks again when the record comes back: in between another may have
//! been first.

use uuid::Uuid;

use super::apply::Applied;
use super::entry::Change;
use super::fault::fault;
use super::published;
use super::state::State;

impl State {
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
}

/// An entry that counts whenever it was not read before.
fn once(known: bool) -> Applied {
    if known {
        Applied::Repeated
    } else {
        Applied::Accepted
    }
}
