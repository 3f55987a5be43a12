//! What is written to the control log: entries as JSON, and the keys they are written under.
//!
//! It owns the wire form. It never decides whether an entry counts: [`super::State`] does. An entry of a later
//! format, or of a kind unknown here, reads as [`Read::Newer`]: an older host must neither guess at it nor fall over it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::deployment::Deployment;

/// The format written and understood here. Raised only when an older host would misread an entry.
pub const FORMAT: u32 = 1;

/// Longest value of an entry, bytes: a record has to fit `max.message.bytes` of any broker, 1 MiB by default.
pub const MAX_ENTRY: usize = 768 << 10;

/// One line of the control log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// [`FORMAT`] of the host that wrote it.
    pub format: u32,
    /// Unique to the write.
    #[serde(with = "as_text")]
    pub id: Uuid,
    /// When, milliseconds since 1970-01-01 UTC by the writer's clock; shown, never compared.
    pub at: i64,
    /// Who: a token's name, `config`, or `host:ID`.
    pub by: String,
    /// `host.id` of the host that wrote it.
    pub host: String,
    /// What.
    pub change: Change,
}

/// What an entry changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(
    clippy::large_enum_variant,
    reason = "one lives at a time, on its way to or from JSON"
)]
pub enum Change {
    /// A plugin version was uploaded. It is immutable: the first counts; the same digest again is the same version,
    /// another one is refused.
    Version {
        /// Plugin name.
        name: String,
        /// Semantic version.
        version: String,
        /// `sha256:` and 64 hex digits of the component.
        digest: String,
        /// Bytes of the component.
        size: u64,
        /// Of the digest, where the plugin is signed. Added later by uploading the same bytes again, signed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<Signature>,
        /// What the upload found out; for people and clients, never read here.
        #[serde(default)]
        facts: serde_json::Value,
    },
    /// What a pipeline shall do from now on. Counts when `revision` is one above the revision in force.
    Deploy {
        /// Pipeline name.
        pipeline: String,
        /// The revision the writer saw, plus one. The first is 1.
        revision: u64,
        /// The whole of it, never a difference.
        deployment: Deployment,
    },
    /// A release processes a partition from an offset on: history, for people. The same again changes nothing.
    Segment {
        /// Pipeline name.
        pipeline: String,
        /// Partition.
        partition: i32,
        /// First offset.
        at: i64,
        /// Release id.
        release: String,
    },
    /// Live numbers of a host, exchanged during a canary; the latest a pipeline and host counts.
    Stat {
        /// Pipeline name.
        pipeline: String,
        /// `host.id` the numbers are of.
        host: String,
        /// The numbers; never read here.
        body: serde_json::Value,
    },
    /// What the config file of a host says of a pipeline has been taken notice of. The latest a pipeline and host
    /// counts.
    Published {
        /// Pipeline name.
        pipeline: String,
        /// `host.id` of the host whose file it is.
        host: String,
        /// Id of the release that the section declares.
        hash: String,
        /// The revision that says so.
        revision: u64,
    },
    /// Gives the log an identity where no broker does; the id of the entry is it. The first counts.
    Named,
    /// Something was done to a pipeline that this log does not hold, its dead letters for one: audit.
    Done {
        /// Pipeline name.
        pipeline: String,
        /// What.
        action: String,
        /// How it ended: how many, through what.
        outcome: String,
    },
    /// An operation was refused: audit.
    Denied {
        /// Who asked.
        by: String,
        /// For what.
        what: String,
        /// Why not.
        why: String,
    },
}

/// A signature of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Name of the key in the config of the host that verified it; empty where the host that took it asks for none.
    pub key: String,
    /// Base64 of the 64 bytes (ed25519).
    pub value: String,
}

impl Signature {
    /// Whether a host has verified it.
    #[must_use]
    pub fn was_verified(&self) -> bool {
        !self.key.is_empty()
    }
}

/// Says that all chunks of a blob are in the log; written after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobHead {
    /// [`FORMAT`] of the host that wrote it.
    pub format: u32,
    /// Bytes.
    pub size: u64,
    /// Chunks, numbered from 0.
    pub chunks: u32,
}

/// An id as its usual text.
mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Uuid, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// What a record's value is.
#[derive(Debug)]
pub(super) enum Read {
    Entry(Box<Entry>),
    /// A later format or an unknown kind.
    Newer,
    /// Not an entry at all; why.
    Garbage(String),
}

/// Reads a value, telling *newer than this host* from *garbage*.
pub(super) fn read(value: &[u8]) -> Read {
    if value.len() > MAX_ENTRY {
        return Read::Garbage(format!("{} bytes, more than {MAX_ENTRY}", value.len()));
    }
    let error = match serde_json::from_slice::<Entry>(value) {
        Ok(entry) if entry.format > FORMAT => return Read::Newer,
        Ok(entry) => return Read::Entry(Box::new(entry)),
        Err(error) => error,
    };
    match serde_json::from_slice::<serde_json::Value>(value) {
        Ok(json) if is_newer(&json) => Read::Newer,
        Ok(_) | Err(_) => Read::Garbage(error.to_string()),
    }
}

/// Whether JSON that is no entry here could be one elsewhere: a later format, or a name unknown here where this
/// format has a choice of names.
fn is_newer(json: &serde_json::Value) -> bool {
    let Some(format) = json.get("format").and_then(serde_json::Value::as_u64) else {
        return false;
    };
    if format > u64::from(FORMAT) {
        return true;
    }
    let unknown = |path: &str, known: &[&str]| {
        let name = json.pointer(path).and_then(serde_json::Value::as_str);
        name.is_some_and(|name| !known.contains(&name))
    };
    unknown(
        "/change/kind",
        &[
            "version",
            "deploy",
            "segment",
            "stat",
            "published",
            "named",
            "done",
            "denied",
        ],
    ) || unknown("/change/deployment/action", &super::deployment::ACTIONS)
        || unknown("/change/deployment/origin/kind", &["upload", "config"])
        || unknown("/change/deployment/canary/rules/then", &["promote", "hold"])
}

/// What everything about a pipeline is about, for messages and for what only a newer host understands.
#[must_use]
pub fn subject(pipeline: &str) -> String {
    format!("pipeline {pipeline:?}")
}

impl Change {
    /// What the change is about, for messages: `pipeline "orders"`.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Version { name, version, .. } => {
                format!("plugin {:?}", format!("{name}@{version}"))
            }
            Self::Deploy { pipeline, .. }
            | Self::Segment { pipeline, .. }
            | Self::Done { pipeline, .. }
            | Self::Stat { pipeline, .. }
            | Self::Published { pipeline, .. } => subject(pipeline),
            Self::Named => "its name".to_owned(),
            Self::Denied { .. } => "audit".to_owned(),
        }
    }
}

impl Entry {
    /// The key it is written under. Deployments, versions and refusals have one of their own, so that compaction
    /// never lets a loser overwrite a winner; of the others the latest counts anyway.
    #[must_use]
    pub fn key(&self) -> String {
        let id = self.id;
        match &self.change {
            Change::Version { name, version, .. } => format!("version/{name}/{version}/{id}"),
            Change::Deploy {
                pipeline, revision, ..
            } => format!("deploy/{pipeline}/{revision}/{id}"),
            Change::Segment {
                pipeline,
                partition,
                at,
                ..
            } => {
                format!("segment/{pipeline}/{partition}/{at}")
            }
            Change::Stat { pipeline, host, .. } => format!("stat/{pipeline}/{host}"),
            Change::Published { pipeline, host, .. } => format!("published/{pipeline}/{host}"),
            Change::Named => format!("named/{id}"),
            Change::Done { .. } => format!("done/{id}"),
            Change::Denied { .. } => format!("denied/{id}"),
        }
    }
}

/// A record's key, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Version {
        name: &'a str,
        version: &'a str,
        id: Uuid,
    },
    Deploy {
        pipeline: &'a str,
        revision: u64,
        id: Uuid,
    },
    Segment {
        pipeline: &'a str,
        partition: i32,
        at: i64,
    },
    Stat {
        pipeline: &'a str,
        host: &'a str,
    },
    Published {
        pipeline: &'a str,
        host: &'a str,
    },
    Named {
        id: Uuid,
    },
    Done {
        id: Uuid,
    },
    Denied {
        id: Uuid,
    },
    Chunk {
        digest: &'a str,
        number: u32,
    },
    Head {
        digest: &'a str,
    },
}

impl<'a> Key<'a> {
    /// `None`: not a key of this format.
    pub(super) fn parse(key: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let parts: Vec<&str> = text.split('/').collect();
        let parsed = match *parts.as_slice() {
            ["version", name, version, id] => Self::Version {
                name,
                version,
                id: id.parse().ok()?,
            },
            ["deploy", pipeline, revision, id] => Self::Deploy {
                pipeline,
                revision: revision.parse().ok()?,
                id: id.parse().ok()?,
            },
            ["segment", pipeline, partition, at] => Self::Segment {
                pipeline,
                partition: partition.parse().ok()?,
                at: at.parse().ok()?,
            },
            ["stat", pipeline, host] => Self::Stat { pipeline, host },
            ["published", pipeline, host] => Self::Published { pipeline, host },
            ["named", id] => Self::Named {
                id: id.parse().ok()?,
            },
            ["done", id] => Self::Done {
                id: id.parse().ok()?,
            },
            ["denied", id] => Self::Denied {
                id: id.parse().ok()?,
            },
            ["blob", digest, "head"] => Self::Head { digest },
            ["blob", digest, number] => Self::Chunk {
                digest,
                number: number.parse().ok()?,
            },
            _ => return None,
        };
        Some(parsed)
    }
}

/// Whether a text names a pipeline or a plugin: `[a-z0-9][a-z0-9_-]*`, at most 63.
pub(super) fn is_name(text: &str) -> bool {
    let rest = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    text.len() <= 63
        && text.bytes().all(rest)
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
}

/// Whether a text is a host's id: letters, digits, `.`, `_` and `-`, at most 63.
pub(super) fn is_host(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && text.len() <= 63 && text.bytes().all(fits)
}

/// The hex digits of `sha256:…`, lower case.
pub(super) fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let fits = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    fits.then_some(hex)
}
