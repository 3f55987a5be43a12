//! [`Report`]: what a check found, for people and programs.

use serde::Serialize;

use super::{At, Tally, Wrong};

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The pipeline.
    pub pipeline: String,
    /// Whether everything that was compared is as it should be.
    pub equal: bool,
    /// What was read of the topic.
    pub topic: String,
    /// Partition by partition.
    pub partitions: Vec<Partition>,
    /// Table by table.
    pub tables: Vec<TableReport>,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// What was not checked, and why.
    pub unchecked: Vec<Unchecked>,
    /// What this check never looks at, or was not asked to.
    pub notes: Vec<String>,
}

/// What was derived of a partition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Partition {
    /// The partition.
    pub partition: i32,
    /// First offset derived.
    pub from: i64,
    /// The position it was compared at.
    pub to: i64,
    /// Records derived again.
    pub records: u64,
    /// Those that became rows.
    pub emitted: u64,
    /// Those that became nothing on purpose.
    pub filtered: u64,
    /// Those that are, or were, set aside.
    pub dead: u64,
    /// Releases that made them, by offset: `plugin` of each.
    pub plugins: Vec<String>,
}

/// How a table compares.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// `postgres` or `cassandra`.
    pub kind: &'static str,
    /// Name of the connection.
    pub connection: String,
    /// The table.
    pub table: String,
    /// Rows it should hold.
    pub expected: u64,
    /// Rows by how they compare.
    #[serde(flatten)]
    pub tally: Tally,
}

/// What a difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// A row is not there.
    Missing,
    /// A row should not be there.
    Extra,
    /// A row should hold something else.
    Different,
    /// A record stands as a dead letter, and becomes rows.
    Outcome,
    /// The counts of a partition are not those of its records.
    Ledger,
}

impl From<Wrong> for DifferenceKind {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Missing => Self::Missing,
            Wrong::Extra => Self::Extra,
            Wrong::Different => Self::Different,
        }
    }
}

impl DifferenceKind {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
            Self::Outcome => "outcome",
            Self::Ledger => "ledger",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// About what.
    pub kind: DifferenceKind,
    /// The table; empty where it is about none.
    pub table: String,
    /// The record that should have made the row, or deleted it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
    /// The row's key by column, or the whole row of a table without keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub row: Vec<(String, String)>,
    /// Columns that differ: name, what should stand there, what stands there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnDifference>,
    /// What there is to say about it.
    pub detail: String,
}

/// A column that differs.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnDifference {
    /// Its name.
    pub column: String,
    /// What should stand there; `None` where that cannot be derived from one record.
    pub expected: Option<String>,
    /// What stands there.
    pub found: String,
}

/// Something that was not checked.
#[derive(Clone, Debug, Serialize)]
pub struct Unchecked {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
    /// How many rows or records, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}
