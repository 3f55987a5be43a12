//! What is deployed: a log that every host follows, and the state it adds up to.
//!
//! ```text
//! submit ──append──▶ ControlLog (one partition, compacted) ──follow──▶ State (pure, the same on every host)
//! put_blob ─chunks─▶                                       └─chunks──▶ BlobStore (files by digest)
//! ```
//!
//! The first record at a revision wins, on every host alike: a writer appends, then waits for its own record to come
//! back, and learns from the state whether it won. Nothing else coordinates hosts. Knows no Kafka: see [`ControlLog`].

mod apply;
mod deployment;
mod entry;
mod fault;
mod handle;
mod intake;
mod judge;
mod log;
mod published;
mod reader;
mod removal;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod winner;

pub use apply::Applied;
pub use deployment::{Action, Canary, CanaryRules, Deployment, GoodCanary, Origin, Release};
pub use entry::{BlobHead, Change, Entry, FORMAT, MAX_ENTRY, Signature, subject};
pub use handle::{Control, Outcome};
pub use judge::{Numbers, Verdict, against, judge};
pub use log::{ControlLog, Event, Follower, MemoryLog, Sink, Tombstones, Write};
pub use published::{Published, Section};
pub use state::{
    Denial, Done, Garbage, KEPT_DENIALS, KEPT_DONE, KEPT_NOTES, KEPT_REVISIONS, KEPT_SEGMENTS,
    Newer, PluginVersion, Revision, Segment, Stat, State, Written,
};
pub use store::{BlobStore, CHUNK, KnownLog, MAX_BLOB};
