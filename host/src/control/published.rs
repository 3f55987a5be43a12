//! Whether what a host's config file says of a pipeline is news: pure.
//!
//! Every host remembers in the log what its file said last, so that an unchanged file never overrules what was
//! deployed since, however long ago that was, and two hosts whose files differ do not take turns. Hosts come and go under
//! names of their own, so only the newest notes are kept; a host that starts writes its note again before it goes.

use std::collections::BTreeMap;

use super::deployment::Origin;
use super::state::{KEPT_NOTES, State};

/// What a host's config file said of a pipeline when it was looked at last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Id of the release that the section declared.
    pub hash: String,
    /// The revision that said so.
    pub revision: u64,
    /// Where the log goes on after the note: the order in which hosts noted something last.
    pub noted: i64,
}

/// What a section of a host's config file is to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// It says what the log does not know of it yet: it has to be published.
    News,
    /// It was published at this revision, by this host or by another one since.
    Said(u64),
}

/// Takes the note out that was written longest ago, where there are more than are kept; whose it was.
pub(super) fn beyond(notes: &mut BTreeMap<String, Published>) -> Option<String> {
    if notes.len() <= KEPT_NOTES {
        return None;
    }
    let oldest = notes.iter().min_by_key(|(_, note)| note.noted);
    let host = oldest.map(|(host, _)| host.clone())?;
    notes.remove(&host);
    Some(host)
}

/// Whether a host that says the same again has to note it again, lest it is forgotten: half of the notes kept are newer.
pub(super) fn is_ageing(notes: &BTreeMap<String, Published>, note: &Published) -> bool {
    let newer = notes.values().filter(|other| other.noted > note.noted);
    newer.count() >= KEPT_NOTES / 2
}

impl State {
    /// What the section of a pipeline in the config file of a host is; `hash` is the id of the release it declares.
    ///
    /// A file is news when it says something else than this host's file did last and no other host's file has said
    /// the same since: of a fleet that gets a new file the first host publishes it, and the last one to restart does
    /// not overrule what was deployed meanwhile.
    #[must_use]
    pub fn section(&self, pipeline: &str, host: &str, hash: &str) -> Section {
        if self.pipeline(pipeline).is_none() {
            return Section::News;
        }
        let all = self.published(pipeline);
        let since = match all.get(host) {
            Some((said, revision)) if *said == hash => return Section::Said(*revision),
            Some((_, revision)) => *revision,
            None => 0,
        };
        let others = all
            .values()
            .filter(|(said, at)| *said == hash && *at > since);
        let latest = others.map(|(_, at)| *at).max();
        latest.map_or(Section::News, Section::Said)
    }

    /// Id of the release that a host's file declared last, where it is known.
    #[must_use]
    pub fn said(&self, pipeline: &str, host: &str) -> Option<&str> {
        self.published(pipeline).get(host).map(|(said, _)| *said)
    }

    /// What hosts' files said last and at which revision, by host: as they noted it, or, where a note is missing, as
    /// the kept revisions tell.
    fn published(&self, pipeline: &str) -> BTreeMap<&str, (&str, u64)> {
        let mut all = BTreeMap::new();
        for revision in self.history(pipeline) {
            if let Origin::Config { hash } = &revision.deployment.origin {
                let host = revision.written.host.as_str();
                all.insert(host, (hash.as_str(), revision.revision));
            }
        }
        let noted = self.pipelines.get(pipeline).into_iter();
        for (host, note) in noted.flat_map(|found| &found.published) {
            let said = all.get(host.as_str());
            if said.is_none_or(|(_, revision)| *revision <= note.revision) {
                all.insert(host, (&note.hash, note.revision));
            }
        }
        all
    }
}
