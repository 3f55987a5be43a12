//! Sinks written ahead of the anchor's commit, and what they are given.
//!
//! An [`AheadSink`] is idempotent: the lane may send the same rows again after any failure, and the sink
//! ends as if they had been sent once; a topic keeps the repeats, each with the coordinates to drop it by. Routes on the anchor's own database do not come here: they travel
//! inside the flight (see [`crate::anchor`]).

mod merge;
mod message;

pub use merge::Merger;
pub use message::{HOST_HEADERS, MAX_MESSAGE, Message, MessageFormat};

use futures_util::future::LocalBoxFuture;

use crate::error::Error;
use crate::record::{Batch, RowBatch};

/// Rows of one route on their way to a sink that is written ahead.
#[derive(Clone, Copy, Debug)]
pub struct AheadRows<'a> {
    /// The rows: merged per primary key for a table, every one of them for a topic.
    pub rows: &'a RowBatch,
    /// The records they came from.
    pub batch: &'a Batch,
    /// Write time of each record of the batch by its index, microseconds since 1970-01-01 UTC: a function of
    /// the record and its predecessors, never of the clock. Even; a sink adds 1 for a write and 0 for a
    /// delete, so that in one record a write outlives a delete.
    pub stamps: &'a [i64],
    /// Time of the host when the flight was built, microseconds since 1970-01-01 UTC; only to turn an
    /// expiry into a remaining time to live.
    pub now: i64,
}

/// A sink that takes rows before the anchor commits.
///
/// Called by one lane at a time with each flight, on the shard's thread; dropping the future may leave
/// requests on the wire, which is safe because they are idempotent and stamped.
pub trait AheadSink: std::fmt::Debug {
    /// Writes all rows and returns when every one is acknowledged.
    ///
    /// # Errors
    /// [`crate::error::Blame::Outside`] when nothing is known (the lane repeats the whole flight),
    /// [`crate::error::Blame::Config`] for any refusal by the server: it may contradict a write already
    /// applied, so it never makes a dead letter; the detail names the row's offset.
    fn write<'a>(&'a self, rows: AheadRows<'a>) -> LocalBoxFuture<'a, Result<(), Error>>;
}
