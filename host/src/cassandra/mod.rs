//! Cassandra: the one adapter, and the only module that names the `scylla` driver.
//!
//! ```text
//! CassandraSession ── one connection set a shard, own retries (`retry`), errors judged (`failure`)
//!   ├─ catalog        tables of routes and of the host: checked against the live schema or created
//!   ├─ CassandraSink  rows of one route, stamped, grouped by partition key, written ahead
//!   ├─ scan           a table read row by row, for checks
//!   └─ CassandraAnchor positions under LWT, and dead letters (`dead` writes them, `letters` finds them again), for
//!                      pipelines that write to Cassandra only
//! ```
//!
//! Easily confused: a *stamp* is the write time of a record (delivery rule 3: a function of the record; even,
//! deletes use it, writes use it + 1); the *claim's epoch* orders owners of a partition and is never a write
//! time. LWT is used for positions and nothing else, so no row ever mixes the two kinds of timestamp.
//!
//! Everything runs on the runtime it was opened in; the driver keeps its connections alive with tasks there.
//! Facts about the protocol: the CQL binary protocol v4 specification, section 6 (data types).

mod anchor;
mod catalog;
mod dead;
mod durability;
mod failure;
mod group;
mod identifier;
mod lane;
mod letters;
mod look;
mod position;
mod raise;
mod retry;
mod scan;
mod schema;
mod session;
mod sink;
mod statement;
mod wire;

pub use anchor::{AnchorSettings, CassandraAnchor};
pub use catalog::{Facts, ensure_keyspace, ensure_table, facts, look_at_table};
pub use dead::DEAD_LETTER_TABLE;
pub use durability::{NEEDED, keeps};
pub use identifier::TableName;
pub use look::query_text;
pub use position::{PARTITION_TABLE, POSITION_TABLE};
pub use scan::scan;
pub use schema::RouteTable;
pub use session::{CassandraSession, Patience};
pub use sink::CassandraSink;
