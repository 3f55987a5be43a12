//! [`RouteTable`]: the table a route needs, as CQL, and how it differs from a live one. Pure.
//!
//! It owns no connection: [`super::catalog`] reads the live columns and acts on the verdict.

use std::time::Duration;

use scylla::statement::Consistency;

use super::identifier::{self, TableName};
use super::{session, wire};
use crate::error::{Error, Result};
use crate::manifest::CassandraTable;
use crate::record::Column;

/// Longest time to live that Cassandra takes: 20 years (`Attributes.MAX_TTL`).
const MAX_TTL: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);

/// A table as one route needs it: checked names, keys and types.
#[derive(Clone, Debug)]
pub struct RouteTable {
    pub(super) route: String,
    pub(super) name: TableName,
    pub(super) columns: Vec<Column>,
    pub(super) partition_key: Vec<usize>,
    pub(super) clustering_key: Vec<usize>,
    pub(super) ttl: Option<Duration>,
    pub(super) consistency: Consistency,
}

/// A column of a live table, as `system_schema.columns` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LiveColumn {
    pub(super) name: String,
    /// `partition_key`, `clustering`, `regular` or `static`.
    pub(super) kind: String,
    /// Place in its key; −1 outside of keys.
    pub(super) position: i32,
    pub(super) ty: String,
}

impl RouteTable {
    /// The table of route `route` with these columns; `table` overrides the manifest's table, and names
    /// without a keyspace are of `keyspace`.
    ///
    /// # Errors
    /// `Config` for names, key indices, types, a time to live or a consistency that Cassandra does not have.
    pub fn new(
        route: &str,
        columns: &[Column],
        declared: &CassandraTable,
        table: Option<&str>,
        keyspace: &str,
    ) -> Result<Self> {
        let what = || format!("route {route:?} into cassandra");
        let name = TableName::parse(table.unwrap_or(&declared.table), keyspace)?;
        for column in columns {
            identifier::column(&column.name)?;
            if wire::cql(&column.ty).is_none() {
                return Err(Error::config(
                    what(),
                    format!(
                        "column {:?} of type {} has no CQL type",
                        column.name, column.ty
                    ),
                )
                .hint("headers go to Kafka topics only; choose fields of them"));
            }
        }
        let keys = || {
            declared
                .partition_key
                .iter()
                .chain(&declared.clustering_key)
        };
        let mut seen = vec![false; columns.len()];
        for key in keys() {
            let known = seen
                .get_mut(*key)
                .is_some_and(|seen| !std::mem::replace(seen, true));
            if !known {
                return Err(Error::config(
                    what(),
                    "its key names a column twice or none",
                ));
            }
        }
        if declared.partition_key.is_empty() {
            return Err(Error::config(what(), "its partition key is empty")
                .hint("name at least one column in partition_key"));
        }
        let ttl = declared.ttl;
        if ttl.is_some_and(|ttl| ttl > MAX_TTL || ttl.as_secs() == 0) {
            return Err(Error::config(
                what(),
                "ttl is not between 1 second and 20 years",
            ));
        }
        Ok(Self {
            route: route.to_owned(),
            name,
            columns: columns.to_vec(),
            partition_key: declared.partition_key.clone(),
            clustering_key: declared.clustering_key.clone(),
            ttl,
            consistency: session::consistency(&declared.consistency)?,
        })
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// The statement that creates the table.
    #[must_use]
    pub fn ddl(&self) -> String {
        let columns = self.columns.iter().map(definition).collect::<Vec<_>>();
        let names = |keys: &[usize]| {
            let names = keys.iter().map(|key| quoted(&self.columns[*key]));
            names.collect::<Vec<_>>().join(", ")
        };
        let clustering = if self.clustering_key.is_empty() {
            String::new()
        } else {
            format!(", {}", names(&self.clustering_key))
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY (({}){clustering}))",
            self.name,
            columns.join(", "),
            names(&self.partition_key),
        )
    }

    /// Everything in which a live table differs from what the route needs, each with what repairs it.
    pub(super) fn differences(&self, live: &[LiveColumn]) -> Vec<String> {
        let mut problems = Vec::new();
        for (index, column) in self.columns.iter().enumerate() {
            let (kind, position) = self.place(index);
            let Some(found) = live.iter().find(|live| live.name == column.name) else {
                problems.push(if kind == "regular" {
                    format!(
                        "column {:?} is missing; ALTER TABLE {} ADD {};",
                        column.name,
                        self.name,
                        definition(column)
                    )
                } else {
                    format!("key column {:?} is missing", column.name)
                });
                continue;
            };
            if found.kind != kind || (position >= 0 && found.position != position) {
                problems.push(format!(
                    "column {:?} is {}, the route needs {}",
                    column.name,
                    place_text(&found.kind, found.position),
                    place_text(kind, position)
                ));
            }
            if !wire::accepts(&column.ty, &found.ty) {
                problems.push(format!(
                    "column {:?} is of type {}, {} needs {}",
                    column.name,
                    found.ty,
                    column.ty,
                    wire::cql(&column.ty).unwrap_or_default()
                ));
            }
        }
        for extra in live.iter().filter(|live| live.position >= 0) {
            if !self.columns.iter().any(|column| column.name == extra.name) {
                problems.push(format!(
                    "key column {:?} of the table is not a column of the route",
                    extra.name
                ));
            }
        }
        problems
    }

    fn place(&self, index: usize) -> (&'static str, i32) {
        let place = |keys: &[usize]| {
            let place = keys.iter().position(|key| *key == index)?;
            i32::try_from(place).ok()
        };
        if let Some(place) = place(&self.partition_key) {
            ("partition_key", place)
        } else if let Some(place) = place(&self.clustering_key) {
            ("clustering", place)
        } else {
            ("regular", -1)
        }
    }
}

/// A checked column's name, quoted.
pub(super) fn quoted(column: &Column) -> String {
    format!("\"{}\"", column.name)
}

fn definition(column: &Column) -> String {
    format!(
        "{} {}",
        quoted(column),
        wire::cql(&column.ty).unwrap_or_default()
    )
}

fn place_text(kind: &str, position: i32) -> String {
    match kind {
        "partition_key" => format!("column {} of the partition key", position + 1),
        "clustering" => format!("column {} of the clustering key", position + 1),
        kind => format!("a {kind} column"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::manifest::Create;

    fn table() -> RouteTable {
        let column = |name: &str, ty: &str| Column {
            name: name.to_owned(),
            ty: ty.parse().unwrap(),
            nullable: false,
        };
        let columns = [
            column("id", "text"),
            column("day", "date"),
            column("mag", "float64"),
        ];
        RouteTable::new("quakes", &columns, &declared(), None, "geo").unwrap()
    }

    fn declared() -> CassandraTable {
        CassandraTable {
            table: "quakes".to_owned(),
            partition_key: vec![0],
            clustering_key: vec![1],
            ttl: None,
            consistency: "local-quorum".to_owned(),
            create: Create::IfMissing,
            cross_partition_keys: false,
        }
    }

    fn live(name: &str, kind: &str, position: i32, ty: &str) -> LiveColumn {
        LiveColumn {
            name: name.to_owned(),
            kind: kind.to_owned(),
            position,
            ty: ty.to_owned(),
        }
    }

    #[test]
    fn the_ddl_is_complete() {
        assert_eq!(
            table().ddl(),
            "CREATE TABLE IF NOT EXISTS \"geo\".\"quakes\" (\"id\" text, \"day\" date, \"mag\" double, \
             PRIMARY KEY ((\"id\"), \"day\"))"
        );
    }

    #[test]
    fn a_fitting_table_has_no_difference_and_may_have_more_columns() {
        let live = [
            live("id", "partition_key", 0, "text"),
            live("day", "clustering", 0, "date"),
            live("mag", "regular", -1, "double"),
            live("note", "regular", -1, "text"),
        ];
        assert_eq!(table().differences(&live), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_named_at_once() {
        let live = [
            live("id", "partition_key", 0, "int"),
            live("day", "regular", -1, "date"),
            live("hour", "clustering", 0, "int"),
        ];
        let text = table().differences(&live).join("\n");
        assert_eq!(
            text,
            "column \"id\" is of type int, text needs text\n\
             column \"day\" is a regular column, the route needs column 1 of the clustering key\n\
             column \"mag\" is missing; ALTER TABLE \"geo\".\"quakes\" ADD \"mag\" double;\n\
             key column \"hour\" of the table is not a column of the route"
        );
    }

    #[test]
    fn what_cassandra_lacks_is_refused() {
        let columns = table().columns;
        let new = |change: &dyn Fn(&mut CassandraTable)| {
            let mut declared = declared();
            change(&mut declared);
            RouteTable::new("quakes", &columns, &declared, None, "geo")
        };
        assert!(new(&|table| table.partition_key = vec![]).is_err());
        assert!(new(&|table| table.partition_key = vec![7]).is_err());
        assert!(new(&|table| table.clustering_key = vec![0]).is_err());
        assert!(new(&|table| table.consistency = "most".to_owned()).is_err());
        assert!(new(&|table| table.ttl = Some(Duration::from_secs(700_000_000))).is_err());
        assert!(new(&|table| table.ttl = Some(Duration::from_secs(1))).is_ok());
        let headers = [Column {
            name: "id".to_owned(),
            ty: crate::record::Type::Headers,
            nullable: false,
        }];
        assert!(RouteTable::new("quakes", &headers, &declared(), None, "geo").is_err());
    }
}
