//! What the control log says, as a value: versions, pipelines with their history, refusals.
//!
//! [`State`] is what readers see; how records change it is in `apply`. It is pure: the same records in the same
//! order give the same state on every host, and a log that compaction has passed over gives the same state as the
//! whole one. Cloning is cheap (everything large is shared), so that every record can publish a new one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::deployment::{Deployment, Release};
use super::entry::{BlobHead, Signature};
use super::published::Published;
use super::removal::Removable;
use super::store::WRITTEN;

/// Revisions kept of a pipeline.
pub const KEPT_REVISIONS: usize = 500;
/// Segments kept of a partition.
pub const KEPT_SEGMENTS: usize = 200;
/// Notes kept a pipeline of what hosts' config files said.
pub const KEPT_NOTES: usize = 200;
/// Refusals kept.
pub const KEPT_DENIALS: usize = 500;
/// Operations kept that are audit only.
pub const KEPT_DONE: usize = 500;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(super) versions: BTreeMap<(String, String), Arc<PluginVersion>>,
    pub(super) pipelines: BTreeMap<String, Arc<Pipeline>>,
    pub(super) named: Option<Uuid>,
    pub(super) done: VecDeque<Arc<Done>>,
    pub(super) denials: VecDeque<Arc<Denial>>,
    pub(super) blobs: Arc<BTreeMap<String, BlobHead>>,
    pub(super) newer: BTreeMap<String, Newer>,
    pub(super) removable: Arc<Removable>,
    pub(super) garbage: Garbage,
    pub(super) next: i64,
}

/// An uploaded version of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginVersion {
    /// Plugin name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Bytes of the component.
    pub size: u64,
    /// Of the digest, where the plugin is signed.
    pub signature: Option<Signature>,
    /// What the upload found out.
    pub facts: serde_json::Value,
    /// The upload.
    pub written: Written,
}

/// Who wrote an entry, when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The entry's id.
    pub id: Uuid,
    /// Milliseconds since 1970-01-01 UTC by the writer's clock.
    pub at: i64,
    /// A token's name, `config`, or `host:ID`.
    pub by: String,
    /// `host.id` of the writer.
    pub host: String,
}

/// One accepted deployment of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Its number, from 1.
    pub revision: u64,
    /// What the pipeline shall do.
    pub deployment: Deployment,
    /// Who decided so.
    pub written: Written,
}

/// A release processes a partition from an offset on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First offset.
    pub at: i64,
    /// Release id.
    pub release: String,
    /// When it was written, milliseconds since 1970-01-01 UTC.
    pub written_ms: i64,
    /// `host.id` of the writer.
    pub host: String,
}

/// Live numbers of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat {
    /// When, milliseconds since 1970-01-01 UTC by the writer's clock.
    pub at: i64,
    /// The numbers.
    pub body: serde_json::Value,
}

/// An operation that the log does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// On which pipeline.
    pub pipeline: String,
    /// What.
    pub action: String,
    /// How it ended.
    pub outcome: String,
    /// The entry that says so, by whoever asked.
    pub written: Written,
}

/// A refused operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Who asked.
    pub by: String,
    /// For what.
    pub what: String,
    /// Why not.
    pub why: String,
    /// The entry that says so.
    pub written: Written,
}

/// Entries of a later format about one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newer {
    /// How many, entries that build on them included.
    pub entries: u64,
    /// Offset of the first.
    pub first: i64,
    /// Whether the subject stays as it was before, here: what may be built on an entry we cannot read cannot be judged.
    pub frozen: bool,
    /// The highest revision they have, for a pipeline: a deployment above it is judged again.
    pub revision: u64,
}

/// Records that are nothing of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// How many.
    pub records: u64,
    /// The last: its offset, and what is wrong with it.
    pub last: Option<(i64, String)>,
}

/// All about one pipeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pipeline {
    /// Accepted ones, oldest first.
    pub(super) revisions: Vec<Arc<Revision>>,
    pub(super) segments: BTreeMap<i32, BTreeMap<i64, Segment>>,
    pub(super) stats: BTreeMap<String, Stat>,
    /// By host.
    pub(super) published: BTreeMap<String, Published>,
}

impl State {
    /// Uploaded versions, by name, then by semantic version.
    #[must_use]
    pub fn versions(&self) -> Vec<&PluginVersion> {
        let mut all: Vec<_> = self.versions.values().map(|version| &**version).collect();
        all.sort_by_cached_key(|found| {
            (
                found.name.clone(),
                semver::Version::parse(&found.version).ok(),
            )
        });
        all
    }

    /// An uploaded version.
    #[must_use]
    pub fn version(&self, name: &str, version: &str) -> Option<&PluginVersion> {
        let key = (name.to_owned(), version.to_owned());
        self.versions.get(&key).map(|found| &**found)
    }

    /// Every pipeline ever deployed with the revision in force, by name; removed ones say so.
    pub fn pipelines(&self) -> impl Iterator<Item = (&str, &Arc<Revision>)> {
        let all = self.pipelines.iter();
        all.filter_map(|(name, pipeline)| Some((name.as_str(), pipeline.revisions.last()?)))
    }

    /// The revision in force of a pipeline.
    #[must_use]
    pub fn pipeline(&self, name: &str) -> Option<&Arc<Revision>> {
        self.history(name).last()
    }

    /// The kept revisions of a pipeline, newest last, at most [`KEPT_REVISIONS`].
    #[must_use]
    pub fn history(&self, pipeline: &str) -> &[Arc<Revision>] {
        self.pipelines
            .get(pipeline)
            .map_or(&[], |found| found.revisions.as_slice())
    }

    /// Which release wrote which offsets of a pipeline: by partition, then by first offset, at most
    /// [`KEPT_SEGMENTS`] a partition. Each holds up to the next one's first offset.
    pub fn segments(&self, pipeline: &str) -> impl Iterator<Item = (i32, &Segment)> {
        let found = self.pipelines.get(pipeline);
        let partitions = found.into_iter().flat_map(|found| &found.segments);
        partitions.flat_map(|(partition, all)| all.values().map(|segment| (*partition, segment)))
    }

    /// Live numbers of a pipeline, by host.
    pub fn stats(&self, pipeline: &str) -> impl Iterator<Item = (&str, &Stat)> {
        let found = self.pipelines.get(pipeline);
        found
            .into_iter()
            .flat_map(|found| &found.stats)
            .map(|(host, stat)| (host.as_str(), stat))
    }

    /// A release that a kept revision of any pipeline names.
    #[must_use]
    pub fn release(&self, id: &str) -> Option<&Release> {
        let revisions = self
            .pipelines
            .values()
            .flat_map(|pipeline| pipeline.revisions.iter().rev());
        revisions
            .flat_map(|revision| revision.deployment.releases())
            .find(|release| release.id == id)
    }

    /// Digests of what the pipelines in force need; removed ones need nothing.
    #[must_use]
    pub fn blobs_needed(&self) -> BTreeSet<&str> {
        let deployments = self.pipelines().map(|(_, revision)| &revision.deployment);
        let running = deployments.filter(|deployment| !deployment.removed);
        running
            .flat_map(Deployment::releases)
            .map(|release| release.digest.as_str())
            .collect()
    }

    /// What the log holds of a blob; `None` when it is not there in full.
    #[must_use]
    pub fn blob(&self, digest: &str) -> Option<BlobHead> {
        self.blobs.get(digest).copied()
    }

    /// The identity that the log was given by a host, where it was.
    #[must_use]
    pub fn identity(&self) -> Option<String> {
        self.named.map(|id| format!("{WRITTEN}{id}"))
    }

    /// Operations that the log does not hold, oldest first.
    pub fn done(&self) -> impl Iterator<Item = &Done> {
        self.done.iter().map(|done| &**done)
    }

    /// Refused operations, newest last, at most [`KEPT_DENIALS`].
    pub fn denied(&self) -> impl Iterator<Item = &Denial> {
        self.denials.iter().map(|denial| &**denial)
    }

    /// Entries that only a newer host understands, by subject (`pipeline "orders"`). Frozen subjects stay as they were,
    /// and this host does not write about them.
    #[must_use]
    pub fn newer(&self) -> &BTreeMap<String, Newer> {
        &self.newer
    }

    /// Records that are nothing of ours.
    #[must_use]
    pub fn garbage(&self) -> &Garbage {
        &self.garbage
    }

    /// The offset after the last record applied.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Whether an entry about a subject cannot be judged; `revision` is a deployment's, 0 for any other entry.
    pub(super) fn is_frozen(&self, subject: &str, revision: u64) -> bool {
        let newer = self.newer.get(subject);
        newer.is_some_and(|newer| newer.frozen && revision <= newer.revision)
    }
}
