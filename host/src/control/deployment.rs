//! What a pipeline shall do: releases and deployments. Plain values with their wire form; nothing here acts.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The last millisecond of the year 9999.
const LAST_MS: i64 = 253_402_300_799_999;

/// Names of [`Action`] on the wire.
pub(super) const ACTIONS: [&str; 8] = [
    "deploy", "canary", "promote", "rollback", "pause", "resume", "remove", "shadow",
];

/// A plugin version bound to an overlay: what processes records, and what the anchor's cuts name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// First 16 hex digits of SHA-256 over digest, a zero byte and overlay.
    pub id: String,
    /// `name@version`.
    pub plugin: String,
    /// `sha256:` and 64 hex digits of the component.
    pub digest: String,
    /// TOML of the pipeline's section without `file` and `plugin`, unresolved: secrets stay references.
    pub overlay: String,
}

impl Release {
    /// A release; its id follows from digest and overlay.
    #[must_use]
    pub fn new(
        plugin: impl Into<String>,
        digest: impl Into<String>,
        overlay: impl Into<String>,
    ) -> Self {
        let (plugin, digest, overlay) = (plugin.into(), digest.into(), overlay.into());
        Self {
            id: Self::id_of(&digest, &overlay),
            plugin,
            digest,
            overlay,
        }
    }

    fn id_of(digest: &str, overlay: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(digest.as_bytes());
        hash.update([0]);
        hash.update(overlay.as_bytes());
        let hash = hash.finalize();
        hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Why it cannot be one, if it cannot.
    pub(super) fn fault(&self) -> Option<String> {
        let Some((name, version)) = self.plugin.split_once('@') else {
            return Some(format!("plugin {:?} is not name@version", self.plugin));
        };
        if !super::entry::is_name(name) || semver::Version::parse(version).is_err() {
            return Some(format!("plugin {:?} is not name@version", self.plugin));
        }
        if super::entry::hex_of(&self.digest).is_none() {
            return Some(format!(
                "digest {:?} is not \"sha256:\" and 64 hex digits",
                self.digest
            ));
        }
        (self.id != Self::id_of(&self.digest, &self.overlay)).then(|| {
            format!(
                "release id {:?} is not that of its digest and overlay",
                self.id
            )
        })
    }
}

/// What a pipeline shall do, in full: every change of mind is another deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// What the operator did; the state follows from the other fields alone.
    pub action: Action,
    /// What processes every partition without a canary.
    pub release: Release,
    /// A release on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// A release that runs on live batches without writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Release>,
    /// Nothing is processed; positions are kept.
    #[serde(default)]
    pub paused: bool,
    /// The pipeline does not run any more; positions and history are kept.
    #[serde(default)]
    pub removed: bool,
    /// Where it comes from.
    pub origin: Origin,
    /// Evidence: why a canary was rolled back, what an operator wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<serde_json::Value>,
}

impl Deployment {
    /// A plain deployment of a release.
    #[must_use]
    pub fn of(release: Release, origin: Origin) -> Self {
        Self {
            action: Action::Deploy,
            release,
            canary: None,
            shadow: None,
            paused: false,
            removed: false,
            origin,
            note: None,
        }
    }

    /// Every release it names: the main one, the canary's, the shadow.
    pub fn releases(&self) -> impl Iterator<Item = &Release> {
        let canary = self.canary.iter().map(|canary| &canary.release);
        std::iter::once(&self.release)
            .chain(canary)
            .chain(&self.shadow)
    }

    /// Why it cannot be one, if it cannot.
    pub(super) fn fault(&self) -> Option<String> {
        if let Some(canary) = &self.canary
            && let Some(fault) = canary.fault()
        {
            return Some(fault);
        }
        self.releases().find_map(Release::fault)
    }
}

/// What an operator did to a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Another release everywhere.
    Deploy,
    /// Another release on some partitions.
    Canary,
    /// The canary's release everywhere.
    Promote,
    /// Back to an earlier release.
    Rollback,
    /// Stop processing.
    Pause,
    /// Go on.
    Resume,
    /// Run no more.
    Remove,
    /// A release beside the running one, without writing.
    Shadow,
}

impl Action {
    /// Its name, as on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Canary => "canary",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Remove => "remove",
            Self::Shadow => "shadow",
        }
    }
}

/// Where a deployment comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// The API.
    Upload,
    /// A section of a host's config file.
    Config {
        /// Of what the section says: tells whether the file has changed since.
        hash: String,
    },
}

/// A release on trial on some partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// The release.
    pub release: Release,
    /// The partitions it gets, whole; at least one, none twice.
    pub partitions: Vec<i32>,
    /// Since when, milliseconds since 1970-01-01 UTC by the clock of the host that took it. For people: a canary is
    /// judged by how long it ran where it runs.
    pub since_ms: i64,
    /// When it is good and when it is bad.
    #[serde(default)]
    pub rules: CanaryRules,
}

impl Canary {
    fn fault(&self) -> Option<String> {
        if !(0..=LAST_MS).contains(&self.since_ms) {
            return Some(format!("{} ms is no time a canary began", self.since_ms));
        }
        let mut sorted = self.partitions.clone();
        sorted.sort_unstable();
        let twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
        let negative = sorted.first().is_none_or(|first| *first < 0);
        if twice || negative {
            return Some(format!(
                "{:?} are not a canary's partitions",
                self.partitions
            ));
        }
        // JSON has no word for the others: they would come back as none, or not at all.
        (!self
            .rules
            .numbers()
            .all(|number| number.is_finite() && number >= 0.0))
        .then(|| "a canary's rules are numbers from 0 on".to_owned())
    }
}

/// When a canary is good and when it is bad, against the partitions without it over the same time. Ratios are per
/// record; a limit is *exceeded* when the canary is above the others by more than it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CanaryRules {
    /// How long it has to run before it may be called good, milliseconds (60 s).
    pub for_ms: u64,
    /// Records it has to have processed before it may be called good (1000).
    pub min_records: u64,
    /// Dead letters below which nothing is called bad: a single odd record is no
    /// evidence (5).
    pub min_failures: u64,
    /// Dead letters per record above the others' (0.01: one in a hundred).
    pub max_dead_ratio: f64,
    /// Traps, exceeded limits and other faults of the plugin per record above the others' (0.001).
    pub max_error_ratio: f64,
    /// How far rows per record may be off the others', either way, as a share: 0.5 is half as many, or half again.
    /// `None` (the default): not compared, since a version may filter more on purpose.
    pub max_rows_difference: Option<f64>,
    /// Processor time per record, as a multiple of the others' (3).
    pub max_cpu_factor: f64,
    /// Time from fetch to commit, 99th percentile, as a multiple of the others' (3).
    pub max_latency_factor: f64,
    /// What becomes of a good one.
    pub then: GoodCanary,
}

impl CanaryRules {
    fn numbers(&self) -> impl Iterator<Item = f64> {
        let ratios = [self.max_dead_ratio, self.max_error_ratio];
        let factors = [self.max_cpu_factor, self.max_latency_factor];
        ratios
            .into_iter()
            .chain(factors)
            .chain(self.max_rows_difference)
    }
}

/// What holds where a request says nothing; entries of the control log say everything.
impl Default for CanaryRules {
    fn default() -> Self {
        Self {
            for_ms: 60_000,
            min_records: 1000,
            min_failures: 5,
            max_dead_ratio: 0.01,
            max_error_ratio: 0.001,
            max_rows_difference: None,
            max_cpu_factor: 3.0,
            max_latency_factor: 3.0,
            then: GoodCanary::Promote,
        }
    }
}

/// What becomes of a canary that proved good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoodCanary {
    /// It is promoted.
    Promote,
    /// It stays on its partitions until an operator decides.
    Hold,
}
