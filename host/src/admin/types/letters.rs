//! Dead letters: which are meant, what they say, what was done with them. Bytes are base64 (RFC 4648, section 4). It
//! checks nothing.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which dead letters; what is left out does not matter. They come in the order of partition, offset and index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadLetterQuery {
    /// Of this partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    #[param(minimum = 0, maximum = 2_147_483_647)]
    pub partition: Option<i32>,
    /// At or above this offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    #[param(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub from: Option<i64>,
    /// Below this offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    #[param(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub to: Option<i64>,
    /// Of this index: 0 for all but a record that was set aside more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    #[param(minimum = 0, maximum = 2_147_483_647)]
    pub index: Option<i32>,
    /// `data` (the record's fault) or `plugin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^(data|plugin)$", example = "data")]
    #[param(pattern = "^(data|plugin)$", example = "data")]
    pub class: Option<String>,
    /// The code it was set aside with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z0-9-]{1,32}$", example = "row-refused")]
    #[param(pattern = "^[a-z0-9-]{1,32}$", example = "row-refused")]
    pub code: Option<String>,
    /// Set aside under this version, `name@version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = "^[a-z][a-z0-9-]{0,62}@[0-9A-Za-z.+-]{1,100}$",
        example = "quakes@1.2.0"
    )]
    #[param(
        pattern = "^[a-z][a-z0-9-]{0,62}@[0-9A-Za-z.+-]{1,100}$",
        example = "quakes@1.2.0"
    )]
    pub plugin: Option<String>,
    /// Set aside under this component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    #[param(pattern = "^sha256:[0-9a-f]{64}$")]
    pub digest: Option<String>,
    /// Set aside at or after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    #[param(format = DateTime)]
    pub since: Option<String>,
    /// Set aside before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    #[param(format = DateTime)]
    pub until: Option<String>,
    /// How many at most; 100 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Only what comes after: the `next` of an earlier answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = "^[0-9]{1,10}:[0-9]{1,19}:[0-9]{1,10}$",
        example = "0:1200:0"
    )]
    #[param(
        pattern = "^[0-9]{1,10}:[0-9]{1,19}:[0-9]{1,10}$",
        example = "0:1200:0"
    )]
    pub cursor: Option<String>,
    /// Whether to count what comes after this page, too: `left` in the answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub count: bool,
}

/// Dead letters, a page of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterPage {
    /// By partition, offset and index; without their records.
    pub letters: Vec<DeadLetter>,
    /// The cursor for what comes after; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Letters that come after these; absent unless `count` is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// A record that was set aside, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The record.
    pub offset: i64,
    /// Which of the record's letters, mostly 0.
    pub index: i32,
    /// `data` or `plugin`.
    pub class: String,
    /// Stable, for programs.
    pub code: String,
    /// One sentence for a person.
    pub reason: String,
    /// `name@version` of the plugin that was at work.
    pub plugin: String,
    /// SHA-256 of its component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub at: Option<String>,
    /// When it was last retried, in vain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub tried_at: Option<String>,
    /// The record's timestamp, milliseconds since 1970-01-01 UTC; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<i64>,
    /// The beginning of the record's key as text, whatever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Bytes of the record's value; absent for a tombstone, and where it was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_bytes: Option<u64>,
    /// Whether some of the record was too large to be kept and lies in the topic only.
    pub truncated: bool,
    /// The record itself; only in the answer to a question for one letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<DeadRecord>,
}

/// The bytes of a record that was set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadRecord {
    /// Base64; absent for a null key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Base64; absent for a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// In the record's order; empty too where the plugin does not ask for them.
    pub headers: Vec<DeadHeader>,
    /// `letter`, or `topic` for what was too large for the letter and was read from there just now.
    pub from: String,
    /// Why some of it is missing, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// A header of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadHeader {
    /// Its name.
    pub name: String,
    /// Base64; absent for null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What it takes to run a dead letter's record again elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterBundle {
    /// The letter with its record.
    pub letter: DeadLetter,
    /// Id of the release that set it aside.
    pub release: String,
    /// SHA-256 of its component.
    pub digest: String,
    /// Its manifest, as TOML.
    pub manifest: String,
    /// Names of its routes.
    pub routes: Vec<String>,
    /// The pipeline's section of a config file as TOML, secrets left out.
    pub overlay: String,
    /// Names of the secrets that were left out.
    pub secrets: Vec<String>,
}

/// Which dead letters to drop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DropRequest {
    /// Which.
    #[serde(deserialize_with = "super::required_object")]
    pub letters: DeadLetterQuery,
    /// Only count them.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came of a drop. The records of dropped letters stay counted as dead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dropped {
    /// Letters that are gone now, or would be.
    pub dropped: u64,
    /// The cursor for what comes after; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Letters that come after these; absent unless `count` is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// Which dead letters to run once more, and through what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// Which.
    #[serde(deserialize_with = "super::required_object")]
    pub letters: DeadLetterQuery,
    /// An uploaded version, `name@version`; absent: the release in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        example = "quakes@1.2.1",
        pattern = r"^[a-z][a-z0-9-]{0,62}@(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})([+-][0-9A-Za-z.-]+)?$"
    )]
    pub plugin: Option<String>,
    /// Also where a row may take the place of one that a newer record wrote, or bring back one that it deleted.
    #[serde(default)]
    pub force: bool,
}

/// What came of retries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetryReport {
    /// `name@version` they ran through.
    pub plugin: String,
    /// Id of the release: that version with the overlay in force.
    pub release: String,
    /// Each letter in its order.
    pub results: Vec<RetryResult>,
    /// The cursor for what comes after; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Letters that come after these; absent unless `count` is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
}

/// What came of one retry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetryResult {
    /// The partition.
    pub partition: i32,
    /// The record.
    pub offset: i64,
    /// Which of the record's letters.
    pub index: i32,
    /// What came of it.
    pub outcome: RetryOutcome,
    /// Rows written.
    pub rows: u64,
    /// The code it failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a retry can come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RetryOutcome {
    /// Its rows are written and the letter is gone.
    Emitted,
    /// The plugin makes no row of it, and the letter is gone.
    Filtered,
    /// It fails still; the letter has the new reason.
    Dead,
    /// Somebody else retried or dropped it meanwhile.
    Gone,
    /// It was not tried, or could not be written; nothing was changed.
    Refused,
}
