//! What an anchor is opened with: [`Settings`] of one pipeline and topic, one [`PostgresRoute`] a route on
//! this database. Plain data; checked when it is compiled to SQL (`plan`).

use std::time::Duration;

use crate::config::Secret;
use crate::manifest::{Create, Mode};
use crate::record::Column;

use super::TableName;

/// What an anchor is opened with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `postgres://…` or key-value connection string. `sslmode=require` is refused: there is no TLS yet.
    pub url: Secret<String>,
    /// Name of the pipeline: its identity in the anchor.
    pub pipeline: String,
    /// The topic whose positions are kept.
    pub topic: String,
    /// The plugin, `name@version`, written beside dead letters.
    pub plugin: String,
    /// Digest of the plugin, written beside positions and dead letters.
    pub digest: String,
    /// Routes on this database.
    pub routes: Vec<PostgresRoute>,
    /// Most connections at once: flights of different lanes beyond it wait for one (2).
    pub connections: usize,
    /// Whether a flight waits for the disk.
    pub durability: Durability,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// A route to a table of this database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresRoute {
    /// Index of the route in the manifest.
    pub index: usize,
    /// Name of the route, for messages.
    pub name: String,
    /// Columns in index order.
    pub columns: Vec<Column>,
    /// The table.
    pub table: TableName,
    /// Append or upsert.
    pub mode: Mode,
    /// Key columns (indices); empty for append.
    pub key: Vec<usize>,
    /// Column (index) whose older value changes nothing. A row is never removed where there is one: that would
    /// let an older row come back.
    pub guard: Option<usize>,
    /// Column of the table in which a delete of a guarded route leaves its time; without it such deletes are refused.
    pub deleted_at: Option<String>,
    /// Whether the table is created when it is missing.
    pub create: Create,
}

/// Whether a flight waits for the disk. Claims, seeds and pins always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// As the server is set up (`synchronous_commit`): a crash of the server may take back rows and position, together.
    #[default]
    Server,
    /// Always: a flight taken back by a crash would leave what was written ahead of it, and lose the grant it carried.
    Disk,
}

/// How long things may take before they count as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect (5 s), unless the url says otherwise.
    pub connect: Duration,
    /// One statement (30 s). A flight that takes longer is rolled back, and halved by its lane.
    pub statement: Duration,
    /// Waiting for a row that another transaction holds (5 s).
    pub lock: Duration,
    /// A transaction that waits for written-ahead sinks (25 s): above their budget, below the group's
    /// session time-out, so that a stopped host lets go of its rows before its successor claims them.
    pub idle_in_transaction: Duration,
    /// A claim, which waits for a transaction that an earlier owner left open (20 s).
    pub claim: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            statement: Duration::from_secs(30),
            lock: Duration::from_secs(5),
            idle_in_transaction: Duration::from_secs(25),
            claim: Duration::from_secs(20),
        }
    }
}

impl Settings {
    /// Settings with the defaults named above.
    #[must_use]
    pub fn new(url: Secret<String>, pipeline: &str, topic: &str) -> Self {
        Self {
            url,
            pipeline: pipeline.to_owned(),
            topic: topic.to_owned(),
            plugin: String::new(),
            digest: String::new(),
            routes: Vec::new(),
            connections: 2,
            durability: Durability::default(),
            timeouts: Timeouts::default(),
        }
    }
}
