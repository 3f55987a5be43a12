//! What the tests stand on: the real binary, real plugins, real or embedded servers, records, and ways to look.
//!
//! ```text
//! Stage = a folder + a Kafka (embedded broker, or the real one) + a Postgres of its own
//!   │ records::Feed          produces records and knows which offset each got
//!   │ flow::Flow             records until the test says stop, so that no fault comes after the end
//!   │ Stage::config          writes wasmill.toml
//!   │ host::Host             `wasmill run` as a process: killed, stopped, waited for
//!   │ Site                   a host that can be talked to: its config, its port, `api::Api`, run after run
//!   │ checker                what every sink has to hold, from the input alone; snapshot after snapshot
//!   │ versions, versioned    a hundred versions of one plugin; what their rows have to be
//!   │ swaps                  versions replaced while records flow and hosts die; what has to hold afterwards
//!   └ Stage::number, rows    looks into Postgres; `ring` into Cassandra, `reader` into topics
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

pub mod api;
pub mod artifact;
pub mod checker;
pub mod dice;
pub mod expected;
pub mod flow;
pub mod hash;
pub mod host;
pub mod latency;
pub mod proxy;
pub mod reader;
pub mod records;
pub mod ring;
pub mod site;
pub mod skip;
pub mod stage;
pub mod steady;
pub mod swaps;
pub mod versioned;
pub mod versions;
pub mod wait;

pub use site::Site;
pub use stage::Stage;
