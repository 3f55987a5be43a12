//! Every body of the HTTP API: what a client sends and what a host answers, documented once, for the OpenAPI
//! document and for the command line's client alike. Requests refuse unknown fields; answers may gain some.
//!
//! * this file: plugins, deployments, plans, history, audit; [`status`]: what a host and its pipelines do now;
//!   [`letters`]: dead letters.
//!
//! Times are RFC 3339 in UTC; offsets are Kafka's, ranges half-open; sizes are bytes. It checks nothing.

mod letters;
mod status;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::control::CanaryRules;
use crate::error::{Blame, Error};

pub use letters::{
    DeadHeader, DeadLetter, DeadLetterBundle, DeadLetterPage, DeadLetterQuery, DeadRecord,
    DropRequest, Dropped, RetryOutcome, RetryReport, RetryRequest, RetryResult,
};

pub use status::{
    CanaryEvidence, CanaryStatus, DeadLetterCount, ErrorCount, Evidence, HostPipeline, HostStatus,
    Lag, LastError, Latency, Ledger, PartitionStatus, PipelineState, PipelineStatus, Rates,
    Readiness, RowDifference, ShadowReport, Totals, Waiting, WaitingError,
};

/// An answer of RFC 9457 (`application/problem+json`): every error of the API has this shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI reference that names the kind of problem: `urn:wasmill:problem:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was attempted.
    pub title: String,
    /// The HTTP status again.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What came back.
    pub detail: String,
    /// The path that was asked for.
    pub instance: String,
    /// The kind of problem as one word, stable: `conflict`, `plugin`, `config`, `token-missing`, …
    pub code: String,
    /// What to do, where something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A stored plugin version. It never changes: other bytes need another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionInfo {
    /// `name@version`.
    pub plugin: String,
    /// SHA-256 of the component, `sha256:` and 64 hex digits.
    pub digest: String,
    /// Size of the component, bytes.
    pub size: u64,
    /// The interface track it was built for, e.g. `since-v0.1`.
    pub track: String,
    /// When it was uploaded.
    #[schema(format = DateTime)]
    pub at: String,
    /// Who uploaded it: a token's name, `local`, or `config` for a plugin of a host's config file.
    pub by: String,
    /// Name of the key that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// The author's words about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Pipelines it is deployed in now.
    #[serde(default)]
    pub pipelines: Vec<String>,
}

/// The answer to an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Uploaded {
    /// `name@version`, read from the embedded manifest.
    pub plugin: String,
    /// SHA-256 of the component, `sha256:` and 64 hex digits.
    pub digest: String,
    /// Size of the component, bytes.
    pub size: u64,
    /// Whether this upload brought it; false when the same bytes were there.
    pub created: bool,
    /// What the checks found.
    pub report: UploadReport,
}

/// What the checks of an upload found. An upload that fails one is refused and leaves nothing behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadReport {
    /// The checks that passed, in the order they ran, e.g. `manifest equals describe`.
    pub checks: Vec<String>,
    /// Embedded fixtures that were run, all with the expected rows.
    pub fixtures: u32,
    /// Milliseconds the compiler took; 0 when the code was in the cache.
    pub compile_ms: u64,
    /// Capabilities it asks for; a deployment has to grant them.
    pub asks: Vec<String>,
    /// Name of the key whose signature was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// What is allowed and still worth a look.
    pub warnings: Vec<String>,
}

/// What to deploy in a pipeline; the same body is planned and applied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The uploaded version, `name@version`.
    #[schema(
        example = "quakes@1.2.0",
        pattern = r"^[a-z][a-z0-9-]{0,62}@(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})([+-][0-9A-Za-z.-]+)?$"
    )]
    pub plugin: String,
    /// The pipeline's section of a config file as TOML, without `file` and `plugin`: bindings, grants, limits,
    /// configuration. Secrets stay `{ env = "VARIABLE" }`. Absent: the overlay now deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "grants = [\"headers\"]\n")]
    pub overlay: Option<String>,
    /// First on some partitions, compared with the others.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "object"
    )]
    pub canary: Option<CanaryRequest>,
    /// Run beside the deployed release on live batches with sinks off, and report differing rows.
    #[serde(default)]
    pub shadow: bool,
    /// The hash of the plan that was looked at; a plan that would differ now is refused as a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The revision that was looked at; another one now is a conflict. Absent: whatever is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<u64>,
    /// Kept in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    pub note: Option<String>,
}

/// A canary: the new release on whole partitions, judged against the old one on the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryRequest {
    /// Partitions that run the new release; fewer than the topic has.
    #[schema(minimum = 1)]
    pub partitions: u32,
    /// Seconds it has to hold before it is promoted; 60 by default.
    #[serde(default = "default_canary_seconds")]
    #[schema(minimum = 1, maximum = 604_800)]
    pub for_seconds: u64,
    /// Records it has to process before it is judged good; 1000 by default.
    #[serde(default = "default_canary_records")]
    pub min_records: u64,
    /// What follows when it held.
    #[serde(default)]
    pub then: CanaryEnd,
    /// How much worse than the others it may be.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "object"
    )]
    pub tolerance: Option<Tolerance>,
}

/// What follows a canary that held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CanaryEnd {
    /// Every partition gets the new release.
    #[default]
    Promote,
    /// Nothing, until somebody promotes or rolls back.
    Hold,
}

/// How much worse than the other partitions a canary may be before it is rolled back; absent values have defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Additional share of records that end as dead letters, e.g. 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub dead_share: Option<f64>,
    /// How far rows a record may differ, as a share, e.g. 0.5; absent: not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0)]
    pub rows_share: Option<f64>,
    /// Times the processor time a record, e.g. 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1.0)]
    pub cpu_times: Option<f64>,
    /// Times the flight latency, e.g. 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1.0)]
    pub latency_times: Option<f64>,
}

/// What became of a pipeline's write times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Raised {
    /// Partitions that have a position now.
    pub partitions: u32,
    /// Those of them that had none.
    pub added: u32,
    /// The time after which every partition writes, microseconds since 1970-01-01 UTC.
    pub write_time: i64,
}

/// The body of promote, rollback, pause, resume and remove; it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// The revision that was looked at; another one now is a conflict. Absent: whatever is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<u64>,
    /// Kept in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    pub note: Option<String>,
}

/// What a deployment would change; nothing is changed by planning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The pipeline.
    pub pipeline: String,
    /// The revision the plan starts from; 0 for a pipeline that is not there.
    pub seen: u64,
    /// Names exactly this plan; deploying by it is refused when the plan would be another one.
    pub hash: String,
    /// What would change, in the order a person reads it; empty when nothing would.
    pub changes: Vec<Change>,
    /// What is allowed and still worth a look.
    pub warnings: Vec<String>,
    /// What is promised at each route.
    pub guarantees: Vec<RouteGuarantee>,
    /// Statements that would make the live tables fit.
    pub ddl: Vec<String>,
    /// Why it would be refused; empty when it can be deployed.
    pub problems: Vec<PlanProblem>,
}

/// One change of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// What changes, e.g. `plugin`, `limits.memory`, `bind.route.quakes.table`.
    pub what: String,
    /// Its value now; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its value then; absent when it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What is promised at a route and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteGuarantee {
    /// The route's name.
    pub route: String,
    /// Where its rows go, e.g. `postgres.main geo.quakes`.
    pub sink: String,
    /// `exactly once`, `converges to exactly once` or `discarded`.
    pub guarantee: String,
    /// Why not more, or how.
    pub why: String,
}

/// Why a plan would be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanProblem {
    /// `plugin`, `data`, `config`, `outside` or `bug`. `outside`: nobody could look, and trying again helps.
    pub class: String,
    /// What does not fit, or was looked at.
    pub what: String,
    /// How it does not fit, or what came back.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl PlanProblem {
    /// The one that says how a deployment is refused: the first that a person has to mend, or, where something is only
    /// away, the first of all.
    #[must_use]
    pub fn decisive(problems: &[Self]) -> Option<&Self> {
        let to_mend = |problem: &&Self| problem.class != Blame::Outside.word();
        problems.iter().find(to_mend).or(problems.first())
    }
}

impl From<&Error> for PlanProblem {
    fn from(error: &Error) -> Self {
        Self {
            class: error.blame().word().to_owned(),
            what: error.what().to_owned(),
            detail: error.detail().to_owned(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

impl From<&PlanProblem> for Error {
    fn from(problem: &PlanProblem) -> Self {
        let blame = Blame::of(&problem.class).unwrap_or(Blame::Config);
        let error = Self::new(blame, problem.what.as_str(), &problem.detail);
        match &problem.hint {
            Some(hint) => error.hint(hint.as_str()),
            None => error,
        }
    }
}

/// The answer to everything that changes a deployment: the change is in the control log, hosts follow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployed {
    /// The pipeline.
    pub pipeline: String,
    /// The revision this made, or the standing one when there was nothing to change.
    pub revision: u64,
    /// Whether a new revision was made.
    pub changed: bool,
}

/// What a pipeline's deployment went through, and which release wrote which offsets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The pipeline.
    pub pipeline: String,
    /// Newest first.
    pub revisions: Vec<Revision>,
    /// By partition, then offset. Rows that a bad canary wrote stay until their offsets are processed again.
    pub segments: Vec<Segment>,
}

/// One revision of a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Revision {
    /// 1, 2, …
    pub revision: u64,
    /// When it was made.
    #[schema(format = DateTime)]
    pub at: String,
    /// Who made it: a token's name, `local`, `config` or `canary`.
    pub by: String,
    /// `deploy`, `canary`, `shadow`, `promote`, `rollback`, `pause`, `resume`, `remove`.
    pub action: String,
    /// `name@version` of the release.
    pub plugin: String,
    /// Id of the release: a version with its overlay.
    pub release: String,
    /// What was said about it; for a canary that ended by itself, why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The comparison that ended a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<CanaryEvidence>,
}

/// Offsets `[from, to)` of a partition that one release processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Segment {
    /// The partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// The offset after the last; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<i64>,
    /// Id of the release.
    pub release: String,
    /// `name@version` of the release.
    pub plugin: String,
}

/// One entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// Who: a token's name, `local`, `config`, `canary`, or the address of a caller without a token.
    pub by: String,
    /// The host that took the request.
    pub host: String,
    /// What was asked, e.g. `upload`, `deploy`, `denied`.
    pub action: String,
    /// On what, e.g. `quakes@1.2.0`, a pipeline's name, a path.
    pub subject: String,
    /// How it ended, or why it was denied.
    pub outcome: String,
}

fn default_canary_seconds() -> u64 {
    CanaryRules::default().for_ms / 1000
}

fn default_canary_records() -> u64 {
    CanaryRules::default().min_records
}

/// Reads an object or null: serde reads a struct from an array of its fields, too, and the document does not.
fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(input: D) -> Result<Option<T>, D::Error> {
    let Some(value) = Option::<serde_json::Value>::deserialize(input)? else {
        return Ok(None);
    };
    if !value.is_object() {
        return Err(D::Error::custom("an object is taken here"));
    }
    serde_json::from_value(value)
        .map(Some)
        .map_err(D::Error::custom)
}

/// As [`object`], where null is none.
fn required_object<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    input: D,
) -> Result<T, D::Error> {
    object(input)?.ok_or_else(|| D::Error::custom("an object is taken here"))
}
