//! What an anchor holds of a pipeline, read without claiming anything: for checks. Easily confused: [`super::Stored`] is
//! what a host needs to begin, a [`Standing`] is all of it.

use super::{Cut, Ledger};

/// A stored position with what moves with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The partition.
    pub partition: i32,
    /// Next offset to read.
    pub next: i64,
    /// Offsets below it may have been sent to written-ahead sinks.
    pub reserved: i64,
    /// Which release processes from where.
    pub cuts: Vec<Cut>,
    /// Identity of the topic the position belongs to.
    pub topic_id: Option<String>,
    /// What became of every record below `next`.
    pub ledger: Ledger,
    /// Of its dead ones, those whose letters were retried since.
    pub retried: u64,
}

/// A record that stands as a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The partition.
    pub partition: i32,
    /// The record.
    pub offset: i64,
    /// Why, see [`crate::route::code`].
    pub code: String,
    /// Whether a retry failed since: then the reason is of another release, perhaps.
    pub tried: bool,
    /// Whether a retry was begun and did not end: some of its rows may be in sinks that are written ahead.
    pub begun: bool,
}
