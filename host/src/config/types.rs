//! The checked config.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::control::ControlConfig;
use super::http::HttpConfig;

/// A value that is never printed: `Debug` shows that it is there, nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Uncovers it, at the one place that hands it to a driver.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A host's checked config.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The host itself.
    pub host: HostConfig,
    /// Kafka clusters by name.
    pub kafka: BTreeMap<String, KafkaCluster>,
    /// Postgres databases by name.
    pub postgres: BTreeMap<String, PostgresConnection>,
    /// Cassandra clusters by name.
    pub cassandra: BTreeMap<String, CassandraConnection>,
    /// Pipelines by name, in name order.
    pub pipelines: Vec<PipelineConfig>,
    /// What no plugin may exceed.
    pub ceilings: Ceilings,
    /// Which plugins have to be signed, and by whom, in the order of the file.
    pub signing: Vec<SigningRule>,
    /// The HTTP API; none when absent.
    pub http: Option<HttpConfig>,
    /// Where the control log is kept; in memory when absent.
    pub control: Option<ControlConfig>,
}

/// Plugins whose name fits must be signed by a key of one of the rules they fit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SigningRule {
    /// A plugin's name, where `*` stands for any characters.
    pub plugins: String,
    /// What the key is called in messages and in the history.
    pub name: String,
    /// The ed25519 public key (RFC 8032), known to be a point of the curve.
    pub key: [u8; 32],
}

impl SigningRule {
    /// Whether the rule speaks of a plugin of this name.
    #[must_use]
    pub fn covers(&self, plugin: &str) -> bool {
        let mut parts = self.plugins.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = plugin.strip_prefix(first) else {
            return false;
        };
        let parts: Vec<&str> = parts.collect();
        let Some((last, middle)) = parts.split_last() else {
            return rest.is_empty();
        };
        for part in middle {
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

/// The host itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Unique among hosts of the same groups; the host name by default.
    pub id: String,
    /// Compute threads; one a core by default.
    pub shards: usize,
    /// Where caches live.
    pub cache: PathBuf,
}

/// A Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaCluster {
    /// `host:port,…`.
    pub brokers: String,
    /// librdkafka properties for TLS and SASL (`security.protocol`, `sasl.*`, `ssl.*`), already resolved
    /// from the environment where the config says so.
    pub security: BTreeMap<String, Secret<String>>,
    /// Group session time-out (45 s by default; 6 s to 30 min).
    pub session_timeout: Duration,
}

/// A Postgres database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConnection {
    /// `postgres://…` or key-value connection string.
    pub url: Secret<String>,
}

/// A Cassandra cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CassandraConnection {
    /// Contact points, `host:port`.
    pub hosts: Vec<String>,
    /// Keyspace of unqualified tables and of the host's own.
    pub keyspace: String,
    /// Replication factor used only when the host creates the keyspace (`create_keyspace = N`).
    pub create_keyspace: Option<u32>,
    /// User and password.
    pub login: Option<(String, Secret<String>)>,
}

/// Where a pipeline's component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginSource {
    /// A file beside the config.
    File(PathBuf),
    /// A version that was uploaded, `name@version`.
    Version(String),
}

/// One pipeline. `Debug` shows the names of its configuration values only: any of them may be secret.
#[derive(Clone, PartialEq)]
pub struct PipelineConfig {
    /// Its identity in every anchor and group; never derived.
    pub name: String,
    /// Where the component comes from.
    pub plugin: PluginSource,
    /// The section as TOML without `file` and `plugin`, in a canonical order: what it binds, grants and sets.
    /// Values from the environment are still references.
    pub overlay: String,
    /// Inputs by logical name.
    pub inputs: BTreeMap<String, InputBinding>,
    /// Routes by logical name.
    pub routes: BTreeMap<String, RouteBinding>,
    /// Capabilities granted, e.g. `headers`.
    pub grants: Vec<String>,
    /// Tightened memory limit, bytes.
    pub memory: Option<u64>,
    /// Tightened run-time limit.
    pub run_time: Option<Duration>,
    /// Values of the plugin's configuration by name.
    pub config: BTreeMap<String, toml::Value>,
    /// Static (default) or dynamic group membership.
    pub membership: Membership,
}

impl fmt::Debug for PipelineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineConfig")
            .field("name", &self.name)
            .field("plugin", &self.plugin)
            .field("inputs", &self.inputs)
            .field("routes", &self.routes)
            .field("grants", &self.grants)
            .field("memory", &self.memory)
            .field("run_time", &self.run_time)
            .field("config", &self.config.keys())
            .field("membership", &self.membership)
            .finish()
    }
}

/// What an input is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputBinding {
    /// Cluster name.
    pub kafka: String,
    /// Topic; the manifest's by default.
    pub topic: Option<String>,
}

/// What a route is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteBinding {
    /// A named connection of the route's kind, and optionally another table.
    Connection {
        /// Connection name.
        connection: String,
        /// Table; the manifest's by default.
        table: Option<String>,
    },
    /// A cluster, and optionally another topic.
    Topic {
        /// Cluster name.
        kafka: String,
        /// Topic; the manifest's by default.
        topic: Option<String>,
    },
    /// Counted, shown, not written.
    Discard,
}

/// How a host joins its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Membership {
    /// `pipeline/host.id`: a restart moves nothing.
    Static,
    /// A new member each time: partitions are handed over at once.
    Dynamic,
}

/// What no plugin may exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Linear memory of an instance, bytes (256 MiB).
    pub memory: u64,
    /// Time in the guest a call (10 s).
    pub run_time: Duration,
    /// Bytes a call returns (64 MiB).
    pub output_bytes: u64,
    /// Rows of one record (100,000).
    pub rows_per_record: u32,
    /// Messages a plugin logs in one second in one pipeline on this host (1,000).
    pub log_lines_per_second: u32,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            run_time: Duration::from_secs(10),
            output_bytes: 64 << 20,
            rows_per_record: 100_000,
            log_lines_per_second: 1000,
        }
    }
}
