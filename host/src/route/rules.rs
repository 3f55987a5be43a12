//! [`Rules`]: what one route's store demands of a row, as far as the host can judge it before sending.
//!
//! Fixed with the plugin's version: the same row gets the same verdict at every replay.

use crate::error::{Error, Result};
use crate::manifest::{Route, Target};
use crate::record::{Column, Type};
use crate::sink::MessageFormat;

/// Most bytes of a Cassandra partition key, and of one clustering value: their lengths are unsigned shorts.
pub const CASSANDRA_MAX_KEY: usize = 65_535;
/// Most bytes of one row to Cassandra: far below the mutation a default commit log segment (32 MiB) takes (16 MiB),
/// past which the server closes the connection instead of answering. The sink holds to the same number.
pub const CASSANDRA_MAX_ROW: usize = 4 << 20;
/// Most bytes of one row to Postgres: a field holds less than 1 GiB; the output cap is far below.
pub const POSTGRES_MAX_ROW: usize = 1 << 29;

/// What one route's store demands of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Columns in index order.
    pub columns: Vec<Column>,
    /// Whether each column is part of the primary key; such a cell is never null, unset or empty.
    pub in_key: Vec<bool>,
    /// Key columns (indices) in the order of the table; empty for an append route, which takes no deletes.
    pub key: Vec<usize>,
    /// How many of `key` are the partition key (0 where there is no such thing).
    pub partition: usize,
    /// The guard column: never null, and present in deletes.
    pub guard: Option<usize>,
    /// Whether the route takes deletes: it has a key to delete by, and where it has a guard the table keeps what was
    /// deleted, so that an older row cannot come back.
    pub deletes: bool,
    /// How rows become messages, where the store is a topic.
    pub message: Option<MessageFormat>,
    /// What the store refuses on top.
    pub store: Store,
    /// Most bytes of one row's cells.
    pub max_row: usize,
}

/// Stores that refuse different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// Refuses unset cells, NUL in text, and in json `\u0000` and half surrogate pairs (also inside lists and maps).
    Postgres,
    /// Refuses null inside lists, sets and maps, and long keys; keeps timestamps in milliseconds, so those
    /// of key columns are rounded down before rows are merged by key.
    Cassandra,
    /// Refuses rows that do not fit into one message.
    Kafka,
}

impl Rules {
    /// The rules of a route.
    ///
    /// # Errors
    /// [`crate::error::Blame::Config`]: a headers column, a key of type json, list, set or map, a guard
    /// that has no order (text, bytes, json, uuid, boolean, nested), or an index that names no column.
    pub fn of(route: &Route) -> Result<Self> {
        let (key, partition, guard, store, max_row) = match &route.target {
            Target::Postgres(table) => (
                table.key.clone(),
                0,
                table.guard,
                Store::Postgres,
                POSTGRES_MAX_ROW,
            ),
            Target::Cassandra(table) => (
                [&table.partition_key[..], &table.clustering_key[..]].concat(),
                table.partition_key.len(),
                None,
                Store::Cassandra,
                CASSANDRA_MAX_ROW,
            ),
            Target::Kafka(topic) => (topic.key.clone(), 0, None, Store::Kafka, usize::MAX),
        };
        let keeps = matches!(&route.target, Target::Postgres(table) if table.deleted_at.is_some());
        let message = match &route.target {
            Target::Kafka(topic) => Some(MessageFormat::of(&route.columns, topic)),
            Target::Postgres(_) | Target::Cassandra(_) => None,
        };
        let refuse = |detail: String| Err(Error::config(format!("route {:?}", route.name), detail));
        let mut in_key = vec![false; route.columns.len()];
        for index in &key {
            let Some(column) = route.columns.get(*index) else {
                return refuse(format!("key column {index} of {}", route.columns.len()));
            };
            if matches!(
                column.ty,
                Type::Json | Type::Headers | Type::List(_) | Type::Set(_) | Type::Map(..)
            ) {
                return refuse(format!(
                    "key column {:?} of type {}",
                    column.name, column.ty
                ));
            }
            in_key[*index] = true;
        }
        if let Some(column) = route
            .columns
            .iter()
            .find(|column| column.ty == Type::Headers && store != Store::Kafka)
        {
            return refuse(format!(
                "column {:?} of type headers in a table",
                column.name
            ));
        }
        if let Some(index) = guard {
            match route.columns.get(index) {
                None => return refuse(format!("guard column {index} of {}", route.columns.len())),
                Some(column) if !ordered(&column.ty) => {
                    return refuse(format!(
                        "guard column {:?} of type {}",
                        column.name, column.ty
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(Self {
            columns: route.columns.clone(),
            in_key,
            deletes: !key.is_empty() && (guard.is_none() || keeps),
            key,
            partition,
            guard,
            message,
            store,
            max_row,
        })
    }
}

/// Whether host and Postgres agree on the order of the type's values.
fn ordered(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Int16
            | Type::Int32
            | Type::Int64
            | Type::Float32
            | Type::Float64
            | Type::Timestamp
            | Type::Date
            | Type::Time
            | Type::Decimal { .. }
    )
}
