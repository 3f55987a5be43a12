//! The checked manifest. Every index points into the array order of `describe`.

use std::time::Duration;

use crate::record::{Column, Type};

/// A checked manifest together with what the component describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Plugin name, `[a-z][a-z0-9-]{0,62}`.
    pub name: String,
    /// Plugin version.
    pub version: semver::Version,
    /// One line for people.
    pub description: Option<String>,
    /// SPDX expression.
    pub license: Option<String>,
    /// Names.
    pub authors: Vec<String>,
    /// SDK name and version as described.
    pub sdk: String,
    /// Inputs in index order, at least one.
    pub inputs: Vec<Input>,
    /// Routes in index order, at least one, at most 256.
    pub routes: Vec<Route>,
    /// Configuration values in index order.
    pub config: Vec<ConfigItem>,
    /// What one instance may use.
    pub limits: Limits,
    /// What becomes of records that fail.
    pub errors: ErrorPolicy,
    /// What the author asks the pipeline to guarantee; without it each route gives what its sink can.
    pub delivery: Option<Delivery>,
}

/// One input: a topic and how its records decode.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Logical name, bound by the operator.
    pub name: String,
    /// Default topic.
    pub topic: String,
    /// Format of values.
    pub format: Format,
    /// Format of keys.
    pub key_format: KeyFormat,
    /// Where a new pipeline starts.
    pub start: Start,
    /// What a null value means.
    pub tombstones: Tombstones,
    /// Declared fields in index order.
    pub fields: Vec<Field>,
    /// Whether the guest gets key and value bytes.
    pub raw: bool,
    /// Whether the guest gets headers.
    pub headers: bool,
}

impl Input {
    /// Whether records have to be fetched with their headers (250 ns each).
    #[must_use]
    pub fn needs_headers(&self) -> bool {
        self.headers
            || self
                .fields
                .iter()
                .any(|field| matches!(field.from, FieldSource::Header(_)))
    }
}

/// A typed value decoded from each record.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name, type, nullable.
    pub column: Column,
    /// Where it comes from.
    pub from: FieldSource,
    /// Unit of a number that becomes a timestamp, date or time.
    pub unit: Option<Unit>,
}

/// Where a field comes from; text form in parentheses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldSource {
    /// A JSON pointer into the value, or `/NAME` of a capture for `text` (`value:/path`); the whole value
    /// for an empty path (`value`).
    Value(String),
    /// The whole key (`key`).
    Key,
    /// A JSON pointer into a JSON key (`key:/path`).
    KeyPath(String),
    /// The last header of that name (`header:NAME`).
    Header(String),
    /// Topic name (`topic`), a text field.
    Topic,
    /// Partition (`partition`), an int32 field.
    Partition,
    /// Offset (`offset`), an int64 field.
    Offset,
    /// Record timestamp (`timestamp`), a timestamp field.
    Timestamp,
}

/// Unit of an epoch number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Seconds (`s`).
    Seconds,
    /// Milliseconds (`ms`).
    Millis,
    /// Microseconds (`us`).
    Micros,
    /// Nanoseconds (`ns`); rounded down to microseconds.
    Nanos,
}

/// Format of values.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// One JSON value a record.
    Json,
    /// One line of text a record.
    Text(TextFormat),
    /// Not decoded: the whole value as it is (`value`), no paths.
    Bytes,
}

/// How a line of text decodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFormat {
    /// Regular expression with named captures; `None`: only the whole line is offered. Known to compile.
    pub pattern: Option<String>,
    /// Encoding label of the WHATWG standard; `utf-8` by default. Known to exist.
    pub encoding: String,
}

/// Format of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyFormat {
    /// UTF-8.
    Text,
    /// Raw bytes.
    Bytes,
    /// One JSON value.
    Json,
}

/// Where a new pipeline starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// At the log start of each partition.
    Earliest,
    /// At the log end, as it is when the pipeline is first deployed.
    Latest,
}

/// What a null value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tombstones {
    /// A dead letter.
    DeadLetter,
    /// Handed to the plugin: value fields null, marks bit 1.
    Pass,
}

/// A named output.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Name, bound by the operator.
    pub name: String,
    /// Columns in index order, at least one.
    pub columns: Vec<Column>,
    /// Where rows go by default.
    pub target: Target,
}

/// What kind of place a route's rows go to.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A Postgres table.
    Postgres(PostgresTable),
    /// A Cassandra table.
    Cassandra(CassandraTable),
    /// A Kafka topic.
    Kafka(KafkaTopic),
}

impl Target {
    /// `postgres`, `cassandra` or `kafka`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Cassandra(_) => "cassandra",
            Self::Kafka(_) => "kafka",
        }
    }

    /// The table or topic.
    #[must_use]
    pub fn place(&self) -> &str {
        match self {
            Self::Postgres(table) => &table.table,
            Self::Cassandra(table) => &table.table,
            Self::Kafka(topic) => &topic.topic,
        }
    }

    /// Key columns (indices); empty where there is no key.
    #[must_use]
    pub fn key(&self) -> Vec<usize> {
        match self {
            Self::Postgres(table) => table.key.clone(),
            Self::Cassandra(table) => {
                [table.partition_key.clone(), table.clustering_key.clone()].concat()
            }
            Self::Kafka(topic) => topic.key.clone(),
        }
    }
}

/// A Postgres table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTable {
    /// `table` or `schema.table`; identifiers checked, never interpolated unquoted.
    pub table: String,
    /// Append or upsert.
    pub mode: Mode,
    /// Key columns (indices); empty for append.
    pub key: Vec<usize>,
    /// Column (index) whose older value changes nothing.
    pub guard: Option<usize>,
    /// Column of the table, not of the route, in which a delete of a guarded route leaves its time: the row stays,
    /// with its key and guard, so that an older one cannot come back.
    pub deleted_at: Option<String>,
    /// Whether the host creates it.
    pub create: Create,
}

/// A Cassandra table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CassandraTable {
    /// `table` or `keyspace.table`.
    pub table: String,
    /// Partition key columns (indices), at least one.
    pub partition_key: Vec<usize>,
    /// Clustering key columns (indices).
    pub clustering_key: Vec<usize>,
    /// Time to live from the record's write time.
    pub ttl: Option<Duration>,
    /// `one`, `quorum`, `local-quorum` (default), `all`.
    pub consistency: String,
    /// Whether the host creates it.
    pub create: Create,
    /// The author accepts that one key may come from several partitions (order between them is by
    /// timestamp only).
    pub cross_partition_keys: bool,
}

/// A Kafka topic: a row is a message, a delete is a tombstone (a null value).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaTopic {
    /// Name.
    pub topic: String,
    /// Columns (indices) of the message key; empty: messages have none, and nothing can be deleted.
    pub key: Vec<usize>,
    /// How the key is written: `text` and `bytes` are one column, `json` an object by column.
    pub key_format: KeyFormat,
    /// How the value is written.
    pub value: ValueFormat,
    /// Headers of each message, by name, and the column (index) whose text or bytes they carry.
    pub headers: Vec<(String, usize)>,
    /// Whether the host creates it.
    pub create: Create,
    /// Partitions of a new topic, and how many an old one has at least.
    pub partitions: Option<u16>,
    /// Replicas of a new topic; as many as there are brokers, at most 3, by default.
    pub replication: Option<u16>,
}

/// How the columns of a row become the value of a message. Columns of type headers are headers, never in the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueFormat {
    /// An object by column; unset columns are left out (`json`).
    Json,
    /// One row of RFC 4180 without a line end; null and unset are empty, an empty text is `""` (`csv`).
    Csv,
    /// The bytes of one column (index) as they are (`bytes:COLUMN`).
    Bytes(usize),
}

/// How rows change a Postgres table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Insert every row.
    Append,
    /// Insert or update by key.
    Upsert,
}

/// Whether the host creates a missing table or topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Create {
    /// Yes.
    IfMissing,
    /// No: what is missing stops the pipeline, with the statement or command that creates it.
    Never,
}

/// A value the operator may set.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigItem {
    /// Name.
    pub name: String,
    /// Type: boolean, int64, float64 or text.
    pub ty: Type,
    /// Default as described, `None`: the operator has to set it.
    pub default: Option<serde_json::Value>,
    /// Never printed.
    pub secret: bool,
}

/// What one instance may use. Defaults in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, bytes (64 MiB).
    pub memory: u64,
    /// Time in the guest a call (1 s), in ticks of 10 ms.
    pub run_time: Duration,
    /// Rows of one record (10,000).
    pub rows_per_record: u32,
    /// Bytes a call returns (16 MiB).
    pub output_bytes: u64,
    /// Memory past which an instance is not reused (half of `memory`).
    pub recycle_after: u64,
    /// Messages it may log in one second, over all its instances of a host (100); the rest is counted.
    pub log_lines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            run_time: Duration::from_secs(1),
            rows_per_record: 10_000,
            output_bytes: 16 << 20,
            recycle_after: 32 << 20,
            log_lines_per_second: 100,
        }
    }
}

/// What becomes of records that fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorPolicy {
    /// For records at fault.
    pub data: DataPolicy,
    /// Stop when more than `rate.0` of the last `rate.1` records became dead letters.
    pub max_rate: Option<(f64, u32)>,
}

/// What becomes of a record at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataPolicy {
    /// Set aside with its bytes and reason.
    DeadLetter,
    /// Counted as dead and dropped.
    Skip,
    /// The pipeline stops before it.
    Stop,
}

/// What the author asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// Refuse to run with less, at any instant.
    ExactlyOnce,
    /// Repeats are fine. Only a topic gives so little, and it does so unasked: this changes nothing.
    AtLeastOnce,
}

impl Delivery {
    /// Its word in a manifest.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }
}
