//! What the HTTP API asks of a host: the seam that `assemble` implements over the control log and the running
//! pipelines. It owns the trait and the way a request is refused; it knows no log, no sink and no HTTP.

use std::path::PathBuf;

use futures_util::future::BoxFuture;

use super::types::{
    AuditEntry, ChangeRequest, DeadLetter, DeadLetterBundle, DeadLetterPage, DeadLetterQuery,
    DeployRequest, Deployed, DropRequest, Dropped, History, HostStatus, PipelineStatus, Plan,
    Raised, Readiness, RetryReport, RetryRequest, Uploaded, VersionInfo,
};
use crate::error::{Blame, Error};

/// Why a request is not done, as the API tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The plugin, version or pipeline is not there (404).
    NotFound,
    /// Somebody else was first, or a version exists with other bytes (409).
    Conflict,
    /// It was understood and cannot be done: a check failed (422).
    Refused,
    /// More than the host takes (413).
    TooLarge,
    /// Brokers, databases or the host itself are not there now; trying again helps (503).
    Unavailable,
    /// An invariant of ours does not hold (500).
    Bug,
}

/// A request that is not done: which kind, and the three parts a person reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which status it becomes.
    pub kind: Kind,
    /// What, why, and what to do.
    pub error: Error,
}

impl Refusal {
    /// A refusal of a kind.
    #[must_use]
    pub fn new(kind: Kind, error: Error) -> Self {
        Self { kind, error }
    }
}

impl From<Error> for Refusal {
    /// By blame: `Outside` is unavailable, `Bug` is a bug, all others are refused.
    fn from(error: Error) -> Self {
        let kind = match error.blame() {
            Blame::Outside => Kind::Unavailable,
            Blame::Bug => Kind::Bug,
            Blame::Plugin | Blame::Data | Blame::Config => Kind::Refused,
        };
        Self { kind, error }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

/// A component that was received whole; its digest is computed and, where the client sent one, equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUpload {
    /// Where it lies: a temporary file, removed when [`Operator::upload`] has returned. Move or copy it.
    pub file: PathBuf,
    /// SHA-256 of its bytes, `sha256:` and 64 hex digits.
    pub digest: String,
    /// Its size, bytes.
    pub size: u64,
    /// The header `wasmill-signature` as it came: `KEY:BASE64`, not verified.
    pub signature: Option<String>,
    /// Who sent it.
    pub by: String,
}

/// What is done to a deployed pipeline without naming a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// End a canary or shadow by giving every partition the new release.
    Promote,
    /// Go back to the release before, or end a canary or shadow with the old one.
    Rollback,
    /// Stop processing on every host; positions stay.
    Pause,
    /// Go on after a pause or after it was parked.
    Resume,
    /// Take the pipeline off every host; positions and history stay.
    Remove,
}

/// What an attempt to do something came to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Refusal>>;

/// A running host, as the API sees it.
///
/// Calls come from the API's own thread, many at once; a call whose client goes away is dropped at its next
/// await, so what must not be half done is handed over before. `by` is a token's name or `local`. Every change
/// and every denial ends in the audit trail.
pub trait Operator: Send + Sync {
    /// Whether the host does its work, with the reasons when not. Called by probes: fast, from memory.
    fn ready(&self) -> BoxFuture<'_, Readiness>;

    /// The host.
    fn host_status(&self) -> BoxFuture<'_, HostStatus>;

    /// Every stored version, by name and version.
    fn list_versions(&self) -> Answer<'_, Vec<VersionInfo>>;

    /// Checks a component and stores it as an immutable version. Idempotent: the same bytes again are known
    /// (`created = false`); the same version with other bytes is a conflict.
    fn upload(&self, upload: NewUpload) -> Answer<'_, Uploaded>;

    /// What a deployment would change; changes nothing. A pipeline that is not there is planned from nothing.
    fn plan<'a>(&'a self, pipeline: &'a str, request: DeployRequest) -> Answer<'a, Plan>;

    /// Deploys: returns when the change is in the control log.
    fn deploy<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: DeployRequest,
    ) -> Answer<'a, Deployed>;

    /// Does one step to a deployed pipeline: returns when the change is in the control log.
    fn change<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        step: Step,
        request: ChangeRequest,
    ) -> Answer<'a, Deployed>;

    /// One pipeline's status, or all of them in name order. A name that never was is not found.
    fn status<'a>(&'a self, pipeline: Option<&'a str>) -> Answer<'a, Vec<PipelineStatus>>;

    /// A pipeline's history.
    fn history<'a>(&'a self, pipeline: &'a str) -> Answer<'a, History>;

    /// Dead letters of a pipeline that was deployed once, a page of them.
    fn dead_letters<'a>(
        &'a self,
        pipeline: &'a str,
        query: DeadLetterQuery,
    ) -> Answer<'a, DeadLetterPage>;

    /// One dead letter with its record: partition, offset, index.
    fn dead_letter<'a>(&'a self, pipeline: &'a str, at: (i32, i64, i32)) -> Answer<'a, DeadLetter>;

    /// One dead letter with what it takes to run its record elsewhere.
    fn dead_letter_bundle<'a>(
        &'a self,
        pipeline: &'a str,
        at: (i32, i64, i32),
    ) -> Answer<'a, DeadLetterBundle>;

    /// Lifts the write times of a pipeline's partitions to the greatest and stores positions for those its topic
    /// gained: returns when that is stored. May be done again.
    fn raise<'a>(&'a self, by: &'a str, pipeline: &'a str) -> Answer<'a, Raised>;

    /// Removes dead letters, a page of them; what is gone is in the audit trail.
    fn drop_dead_letters<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: DropRequest,
    ) -> Answer<'a, Dropped>;

    /// Runs dead letters once more, a page of them: each becomes its rows in one step with its removal, or stays.
    fn retry_dead_letters<'a>(
        &'a self,
        by: &'a str,
        pipeline: &'a str,
        request: RetryRequest,
    ) -> Answer<'a, RetryReport>;

    /// The newest `most` entries of the audit trail, newest first.
    fn audit(&self, most: usize) -> Answer<'_, Vec<AuditEntry>>;

    /// Puts a denied request into the audit trail: who (a token's name or an address), what was asked
    /// (`PUT /v1/plugins`), why it was denied. Never fails; it is logged where it cannot be kept.
    fn denied<'a>(&'a self, by: &'a str, what: &'a str, why: &'a str) -> BoxFuture<'a, ()>;
}
