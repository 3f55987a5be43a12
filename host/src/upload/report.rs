//! [`UploadReport`]: what the checks found out about a component, for people, programs and the control log.
//! It holds words and numbers only, so that it can be kept and sent as JSON.

use serde::{Deserialize, Serialize};

use crate::manifest::{ConfigItem, Input, Limits, Manifest, Route};
use crate::plugin::Facts;
use crate::record::Column;

/// A component that may be deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadReport {
    /// The plugin's name.
    pub name: String,
    /// Its version (semver).
    pub version: String,
    /// `sha256:` and 64 hex digits, over the whole file.
    pub digest: String,
    /// Bytes of the file.
    pub size: u64,
    /// One line for people.
    pub description: Option<String>,
    /// The SDK it was built with.
    pub sdk: String,
    /// What it imports.
    pub imports: Vec<String>,
    /// Its inputs in index order.
    pub inputs: Vec<InputReport>,
    /// Its routes in index order.
    pub routes: Vec<RouteReport>,
    /// Configuration it takes.
    pub config: Vec<ConfigReport>,
    /// What one instance asks for.
    pub limits: LimitsReport,
    /// Capabilities an operator has to grant.
    pub capabilities: Vec<String>,
    /// `exactly-once` or `at-least-once`, where the manifest asks for either.
    pub delivery: Option<String>,
    /// Embedded fixtures that were replayed and passed.
    pub fixtures: Vec<FixtureRun>,
    /// What an operator should know: a delivery that asks too much of a route, fixtures that could not run.
    pub warnings: Vec<String>,
    /// Milliseconds it took to get native code, compiled or from the cache.
    pub compile_ms: u64,
    /// Whether native code lay in the cache already.
    pub from_cache: bool,
    /// Whether the next load finds native code in the cache.
    pub cached: bool,
    /// Most memory the checking process held, bytes; `None` where it was no process of its own.
    pub peak_memory: Option<u64>,
    /// Name of the key that signed it, where a rule asks for one.
    pub signed_by: Option<String>,
}

/// A field or a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnReport {
    /// Name.
    pub name: String,
    /// Type in the words of the manifest, e.g. `decimal(10,2)`.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether it may be null.
    pub nullable: bool,
}

/// An input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputReport {
    /// Logical name.
    pub name: String,
    /// Topic unless bound to another.
    pub topic: String,
    /// Fields in index order.
    pub fields: Vec<ColumnReport>,
    /// Whether it reads key and value bytes.
    pub raw: bool,
    /// Whether it reads all headers.
    pub headers: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteReport {
    /// Logical name.
    pub name: String,
    /// `postgres`, `cassandra` or `kafka`.
    pub sink: String,
    /// Table unless bound to another.
    pub table: String,
    /// Columns in index order.
    pub columns: Vec<ColumnReport>,
    /// Names of the key columns, partition key first; empty where rows are appended.
    pub key: Vec<String>,
}

/// A configuration value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// Name.
    pub name: String,
    /// Type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether a deployment has to set it.
    pub required: bool,
    /// Whether its value is never shown.
    pub secret: bool,
}

/// Limits of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsReport {
    /// Linear memory, bytes.
    pub memory: u64,
    /// Time in the guest a call, milliseconds.
    pub run_time_ms: u64,
    /// Rows of one record.
    pub rows_per_record: u32,
    /// Bytes a call returns.
    pub output_bytes: u64,
    /// Memory past which an instance is not reused, bytes.
    pub recycle_after: u64,
    /// Messages in one second.
    pub log_lines_per_second: u32,
}

/// A fixture that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixtureRun {
    /// Its name.
    pub name: String,
    /// Records replayed.
    pub records: u64,
}

impl UploadReport {
    /// What a checked manifest says; nothing has run yet.
    pub(super) fn of(manifest: &Manifest, facts: &Facts, size: u64) -> Self {
        let headers = manifest.inputs.iter().any(|input| input.headers);
        Self {
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            digest: facts.digest.to_string(),
            size,
            description: manifest.description.clone(),
            sdk: manifest.sdk.clone(),
            imports: facts.imports.clone(),
            inputs: manifest.inputs.iter().map(input).collect(),
            routes: manifest.routes.iter().map(route).collect(),
            config: manifest.config.iter().map(config).collect(),
            limits: limits(&manifest.limits),
            capabilities: headers.then(|| "headers".to_owned()).into_iter().collect(),
            delivery: manifest.delivery.map(|delivery| delivery.word().to_owned()),
            fixtures: Vec::new(),
            warnings: Vec::new(),
            compile_ms: 0,
            from_cache: false,
            cached: false,
            peak_memory: None,
            signed_by: None,
        }
    }

    /// `name@version`.
    #[must_use]
    pub fn plugin(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

fn column(column: &Column) -> ColumnReport {
    ColumnReport {
        name: column.name.clone(),
        ty: column.ty.to_string(),
        nullable: column.nullable,
    }
}

fn input(input: &Input) -> InputReport {
    InputReport {
        name: input.name.clone(),
        topic: input.topic.clone(),
        fields: input
            .fields
            .iter()
            .map(|field| column(&field.column))
            .collect(),
        raw: input.raw,
        headers: input.headers,
    }
}

fn route(route: &Route) -> RouteReport {
    RouteReport {
        name: route.name.clone(),
        sink: route.target.kind().to_owned(),
        table: route.target.place().to_owned(),
        columns: route.columns.iter().map(column).collect(),
        key: route
            .target
            .key()
            .into_iter()
            .map(|index| route.columns[index].name.clone())
            .collect(),
    }
}

fn config(item: &ConfigItem) -> ConfigReport {
    ConfigReport {
        name: item.name.clone(),
        ty: item.ty.to_string(),
        required: item.default.is_none(),
        secret: item.secret,
    }
}

fn limits(limits: &Limits) -> LimitsReport {
    LimitsReport {
        memory: limits.memory,
        run_time_ms: u64::try_from(limits.run_time.as_millis()).unwrap_or(u64::MAX),
        rows_per_record: limits.rows_per_record,
        output_bytes: limits.output_bytes,
        recycle_after: limits.recycle_after,
        log_lines_per_second: limits.log_lines_per_second,
    }
}
