//! What the tests stand on: the real binary, real plugins, real or embedded servers, records, and ways to look.
//!
//! ```text
//! Stage = a folder + a Kafka (embedded broker, or the real one) + a Postgres of its own
//!   │ records::Feed          produces records and knows which offset each got
//!   │ Stage::config          writes wasmill.toml
//!   │ host::Host             `wasmill run` as a process: killed, stopped, waited for
//!   └ Stage::number, rows    looks into Postgres; `ring` into Cassandra
//! ```
//!
//! Tests see the program as its users do: files in, tables and exit codes out. Nothing here links the host's
//! library, and what a test expects is computed by [`expected`] from the input, never by the program's own code.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a test crate: a panic is how a test fails, and it says where"
)]

pub mod artifact;
pub mod expected;
pub mod hash;
pub mod host;
pub mod records;
pub mod ring;
pub mod stage;
pub mod wait;

pub use stage::Stage;
