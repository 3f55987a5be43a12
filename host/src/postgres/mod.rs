//! Postgres: the anchor and its tables, one adapter. Nothing outside this folder names `tokio_postgres`.
//!
//! | file | idea |
//! |---|---|
//! | `settings` | what an anchor is opened with: [`Settings`], [`PostgresRoute`] |
//! | `url` | where a database is, read and never shown |
//! | `names` | identifiers: checked, always quoted |
//! | `connection`, `pool` | a session with its parameters pinned; a few of them, reconnecting |
//! | `transaction` | a transaction that any error poisons |
//! | `failure` | what an error of the driver means for a flight |
//! | `schema` | the host's own tables, versioned |
//! | `tables` | [`Tables`]: looks at both for all pipelines of a host |
//! | `catalog`, `table`, `ddl` | the users' tables: compared, created; as they are; the DDL that repairs them |
//! | `plan` | a route compiled to SQL |
//! | `wire`, `numeric`, `rows`, `letters` | cells, rows and dead letters as binary parameters |
//! | `spare` | buffers used again |
//! | `durability` | what a server keeps when it crashes, for `explain` |
//! | `dead` | dead letters found, removed, retried |
//! | `retried` | [`Retried`]: how many were retried, for a status |
//! | `company`, `cargo` | flights of several lanes in one transaction; a flight as parameters |
//! | `anchor`, `positions`, `raise` | [`PostgresAnchor`]: the flight; claims, seeds, grants; write times lifted |
//! | `snapshot` | positions, dead letters and tables at one instant, for checks |
//!
//! Easily confused: a *flight* is one batch on its way, alone in a transaction or with those of other lanes; a [`Settings`] names one
//! pipeline and one topic; a `RoutePlan` is a route's SQL text, a `RouteStatements` what one connection
//! prepared from it.

mod anchor;
mod cargo;
mod catalog;
mod company;
mod connection;
#[cfg(test)]
mod cost;
mod ddl;
mod dead;
mod durability;
mod failure;
mod letters;
mod look;
mod names;
mod numeric;
mod plan;
mod pool;
mod positions;
mod raise;
mod retried;
mod rows;
mod schema;
mod settings;
mod snapshot;
mod spare;
mod table;
mod tables;
mod transaction;
mod url;
mod wire;

pub use anchor::PostgresAnchor;
pub use catalog::TableReport;
pub use durability::{Keeps, NEEDED, keeps};
pub use look::query_text;
pub use names::TableName;
pub use retried::{Retried, RetriedCounts};
pub use settings::{Durability, PostgresRoute, Settings, Timeouts};
pub use snapshot::Snapshot;
pub use tables::{Tables, look_at_table};
pub use url::check_url;
