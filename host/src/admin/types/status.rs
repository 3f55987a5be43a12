//! What a host and its pipelines do now. Numbers of a pipeline are those of the host that answers, but for what
//! says "all hosts". It counts nothing itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostStatus {
    /// The host's id.
    pub id: String,
    /// Version of Wasmill.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether it does its work.
    pub ready: bool,
    /// Why not, one reason an entry; empty when ready.
    pub reasons: Vec<String>,
    /// Compute threads.
    pub shards: u32,
    /// Memory of the process, bytes.
    pub memory_bytes: u64,
    /// Offset in the control log up to which it follows.
    pub control_offset: i64,
    /// Pipelines it knows.
    pub pipelines: Vec<HostPipeline>,
}

/// A pipeline as a host lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostPipeline {
    /// Its name.
    pub name: String,
    /// What it does here.
    pub state: PipelineState,
    /// Partitions this host owns.
    pub partitions: u32,
}

/// Whether a host does its work, as `/ready` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether it does.
    pub ready: bool,
    /// Why not, one reason an entry.
    pub reasons: Vec<String>,
    /// What its pipelines wait for outside, one server an entry. The host is ready all the same: it goes on by itself
    /// when the server is back, and until then it has to be reached to say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a pipeline does on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PipelineState {
    /// It processes, or waits for records, or for a server (see `waiting`).
    Running,
    /// It loads, compiles or opens connections.
    Starting,
    /// An operator paused it.
    Paused,
    /// It failed too often and waits for an operator.
    Parked,
    /// It stopped on an error that an operator has to mend.
    Stopped,
    /// It is no longer deployed; its history stays.
    Removed,
}

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PipelineStatus {
    /// Its name.
    pub name: String,
    /// What it does on this host.
    pub state: PipelineState,
    /// Revision of its deployment.
    pub revision: u64,
    /// Why this host does not run that revision; absent where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
    /// Where the deployment comes from: `config` or `upload`.
    pub origin: String,
    /// `name@version` that is deployed.
    pub plugin: String,
    /// Id of the release that is deployed.
    pub release: String,
    /// The canary under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStatus>,
    /// The shadow under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowReport>,
    /// The servers it waits for on this host; absent when it gets on. It goes on by itself when they are back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// The servers it depends on, in the words of the config, e.g. `postgres.main`; empty before it is loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Records that wait.
    pub lag: Lag,
    /// Over the last 10 s.
    pub rates: Rates,
    /// Since the host started it.
    pub totals: Totals,
    /// Flight latency over the last 10 s; absent when nothing was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Failures of the pipeline by class, since the host started it: each ended it, kept it from starting or kept a
    /// deployment from being followed. An attempt at a server that a running pipeline repeats is none: those are told by
    /// `waiting` while they fail, and by `totals.retries`.
    pub errors: Vec<ErrorCount>,
    /// Dead letters by code, since the host started it.
    pub dead_letters: Vec<DeadLetterCount>,
    /// Linear memory of its instances, bytes.
    pub memory_bytes: u64,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Partitions, in order, as far as this host knows them.
    pub partitions: Vec<PartitionStatus>,
}

/// A server that a pipeline waits for, all partitions of this host together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// The server in the words of the config, e.g. `postgres.main`.
    pub on: String,
    /// When it first failed, with nothing that got on since.
    #[schema(format = DateTime)]
    pub since: String,
    /// How long ago that is, by the host's clock.
    pub seconds: f64,
    /// Failed attempts since then, of all partitions.
    pub attempts: u64,
    /// Partitions that wait; empty where the whole pipeline does.
    pub partitions: Vec<i32>,
    /// The last failure.
    pub error: WaitingError,
}

/// What came back from a server that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingError {
    /// `outside`.
    pub class: String,
    /// What was attempted.
    pub what: String,
    /// What came back.
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Records between positions and the ends of the partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lag {
    /// Of the partitions this host owns; `null` while the end of one is not known.
    pub records: Option<u64>,
}

/// Work a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    /// Records settled.
    pub records_per_second: f64,
    /// Rows written.
    pub rows_per_second: f64,
}

/// Settled records; `received = emitted + filtered + dead` at every instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Records read and settled.
    pub received: u64,
    /// Records that became rows.
    pub emitted: u64,
    /// Records the plugin dropped on purpose.
    pub filtered: u64,
    /// Records set aside as dead letters.
    pub dead: u64,
    /// Rows.
    pub rows: u64,
    /// Flights committed.
    pub flights: u64,
    /// Flights that had to be sent again, since the database or a sink did not take them.
    pub retries: u64,
    /// Processor seconds spent decoding, in the guest and checking.
    pub guest_seconds: f64,
}

/// Milliseconds from the start of a flight to its commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// Half are faster.
    pub p50_ms: f64,
    /// 99 in 100 are faster.
    pub p99_ms: f64,
}

/// Failures of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorCount {
    /// `plugin`, `data`, `config`, `outside` or `bug`.
    pub class: String,
    /// How many.
    pub count: u64,
}

/// Dead letters of a code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterCount {
    /// Why they were set aside, e.g. `row-refused`.
    pub code: String,
    /// How many.
    pub count: u64,
}

/// A failure as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastError {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// `plugin`, `data`, `config`, `outside` or `bug`.
    pub class: String,
    /// What was attempted.
    pub what: String,
    /// What came back.
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A partition of a pipeline's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// The host that owns it, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The next offset to read; absent before the first claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<i64>,
    /// Records between the position and the end; absent while the end is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// What became of every record below the position; absent before the first claim, and while the anchor never told
    /// which dead letters were retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// Id of the release at the position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Whether its records are processed on the thread of those whose plugin went past a limit or kept others waiting;
    /// it comes back after a minute without that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
    /// Whether its lane took no turn for a minute although records waited, and has committed nothing since; it was
    /// restarted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
}

/// What became of the records of a partition since its first, stored with the position:
/// `records = emitted + filtered + dead`. A dead letter that was retried counts as what it became.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ledger {
    /// Records read.
    pub records: u64,
    /// Those that became at least one row.
    pub emitted: u64,
    /// Those the plugin dropped on purpose.
    pub filtered: u64,
    /// Those set aside, and not retried since: they have a dead letter, or it was dropped.
    pub dead: u64,
    /// Of the emitted and the filtered, those that were dead letters before.
    #[serde(default)]
    pub retried: u64,
}

/// A canary under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CanaryStatus {
    /// `name@version` of the new release.
    pub plugin: String,
    /// Id of the new release.
    pub release: String,
    /// Partitions that run it.
    pub partitions: Vec<i32>,
    /// When it began.
    #[schema(format = DateTime)]
    pub since: String,
    /// Seconds it has to hold.
    pub for_seconds: u64,
    /// The comparison so far, all hosts that reported.
    pub evidence: CanaryEvidence,
}

/// The new release beside the old one, over the same time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CanaryEvidence {
    /// The canary's partitions.
    pub canary: Evidence,
    /// The other partitions.
    pub others: Evidence,
    /// What speaks against it so far; empty when nothing does.
    pub against: Vec<String>,
}

/// What a release did since a canary began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// Records settled.
    pub records: u64,
    /// Rows made of them.
    pub rows: u64,
    /// Records that ended as dead letters.
    pub dead: u64,
    /// Failures of the plugin: traps, limits, malformed output.
    pub plugin_errors: u64,
    /// Processor microseconds a record, to decode, run and check it.
    pub guest_us_per_record: f64,
    /// Milliseconds from the start of a flight to its commit, 99 in 100.
    pub p99_ms: f64,
}

/// What a shadow found: the new release on live batches, its rows compared and thrown away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowReport {
    /// `name@version` of the shadow.
    pub plugin: String,
    /// Id of its release.
    pub release: String,
    /// Records both ran.
    pub records: u64,
    /// Records whose outcome differs.
    pub differing: u64,
    /// Partitions on which the shadow had to stop; a record it traps on is a difference.
    pub failures: u64,
    /// The first differences, at most 20.
    pub examples: Vec<RowDifference>,
}

/// A record that a shadow treats otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RowDifference {
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// What the deployed release made of it.
    pub deployed: String,
    /// What the shadow made of it.
    pub shadow: String,
}
