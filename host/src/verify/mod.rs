//! What a pipeline's tables should hold, derived again from its records, against what they hold.
//!
//! ```text
//! positions, cuts, history ──▶ Timeline: which release made which offsets
//! records ──▶ the release, once more ──▶ rows ──▶ Expected: one fold a table ◀── rows of the live table
//!                                                    └─▶ Report: equal, missing, extra, different, not checked
//! ```
//!
//! [`Expected`] is what one table should hold, [`Messages`] what one route should have sent to a topic; [`Timeline`] which release made what; [`Report`] what a person reads. All
//! of it is pure: records, releases and tables are brought by the composition root. It shares no code with what writes
//! the tables: rows are folded here by its own rules, over values ([`crate::record::Plain`]) and not over cells, so a
//! fault of a sink's merge or encoder does not hide here too.
//!
//! Easily confused: a record's *outcome* is what the release makes of it (rows, nothing, a dead letter); a *verdict* is
//! what a row of the table is compared with what it should be.

mod bag;
mod cells;
mod expected;
mod image;
mod report;
mod slot;
mod timeline;
mod topic;

pub use expected::{Derived, Expected, Judging, Mismatch, Tally, Wrong};
pub use image::Clock;
pub use report::{
    ColumnDifference, Difference, DifferenceKind, Partition, Report, TableReport, Unchecked,
};
pub use timeline::{Span, Timeline};
pub use topic::{Coordinates, Messages, Origin};

use std::time::Duration;

use crate::manifest::{Mode, Route, Target};
use crate::record::{Column, Type};

/// Which database a table is in: what it keeps of a value, and how it applies rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Postgres.
    Postgres,
    /// Cassandra.
    Cassandra,
}

impl Kind {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Cassandra => "cassandra",
        }
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct At {
    /// The partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// The column in which a route keeps the time of a delete; `None` where a delete leaves no row.
#[must_use]
pub fn deleted_at(route: &Route) -> Option<&str> {
    match &route.target {
        Target::Postgres(table) => table.deleted_at.as_deref(),
        _ => None,
    }
}

/// A table as the releases that write it declare it.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its database.
    pub kind: Kind,
    /// Name of the connection.
    pub connection: String,
    /// `table`, `schema.table` or `keyspace.table`, as bound.
    pub name: String,
    /// Every column that any of the releases writes.
    pub columns: Vec<Column>,
    /// Key columns (indices), in the table's order; empty where rows are appended.
    pub key: Vec<usize>,
    /// Column (index) whose older value changes nothing.
    pub guard: Option<usize>,
    /// How long a row lives from its write time on, at least; `None`: for ever.
    pub ttl: Option<Duration>,
    /// The same at most: releases may differ.
    pub longest: Option<Duration>,
    /// Whether every row says all columns: then one hash of a row is enough to compare it.
    pub whole: bool,
}

impl Table {
    /// The table of a route; `None` for a route that goes to no table.
    #[must_use]
    pub fn of(route: &Route, connection: &str) -> Option<Self> {
        let (kind, guard, ttl) = match &route.target {
            Target::Postgres(table) => (Kind::Postgres, table.guard, None),
            Target::Cassandra(table) => (Kind::Cassandra, None, table.ttl),
            Target::Kafka(_) => return None,
        };
        let mut columns = route.columns.clone();
        columns.extend(deleted_at(route).map(|name| Column {
            name: name.to_owned(),
            ty: Type::Timestamp,
            nullable: true,
        }));
        let appends =
            matches!(&route.target, Target::Postgres(table) if table.mode == Mode::Append);
        Some(Self {
            kind,
            connection: connection.to_owned(),
            name: route.target.place().to_owned(),
            columns,
            key: if appends {
                Vec::new()
            } else {
                route.target.key()
            },
            guard,
            ttl,
            longest: ttl,
            whole: kind == Kind::Postgres,
        })
    }

    /// Whether rows of the same key are several rows.
    #[must_use]
    pub fn appends(&self) -> bool {
        self.key.is_empty()
    }

    /// Takes over what another route writes to the same table. Where each says columns that the other does not, a row is
    /// no longer known by one hash.
    ///
    /// # Errors
    /// Where the two do not agree on what a row is: they cannot be folded together.
    pub fn unite(&mut self, other: &Self) -> Result<(), String> {
        let key = |table: &Self| -> Vec<String> {
            let names = table.key.iter().map(|at| table.columns[*at].name.clone());
            names.collect()
        };
        let guard = |table: &Self| table.guard.map(|at| table.columns[at].name.clone());
        if key(self) != key(other) || guard(self) != guard(other) {
            return Err(format!(
                "releases do not agree on the key or the guard of {}",
                self.name
            ));
        }
        let known = self.columns.len();
        for column in &other.columns {
            match self.columns.iter().find(|mine| mine.name == column.name) {
                Some(mine) if mine.ty == column.ty => {}
                Some(mine) => {
                    return Err(format!(
                        "releases do not agree on the type of column {:?} of {}: {} and {}",
                        column.name, self.name, mine.ty, column.ty
                    ));
                }
                None => self.columns.push(column.clone()),
            }
        }
        // An appended row has null where it says nothing; a key's row keeps what it had.
        self.whole &= known == other.columns.len() && known == self.columns.len() || self.appends();
        self.ttl = match (self.ttl, other.ttl) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let both = self.longest.zip(other.longest);
        self.longest = both.map(|(one, other)| one.max(other));
        Ok(())
    }
}
