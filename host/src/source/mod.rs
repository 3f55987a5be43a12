//! Where records come from: the contract between a source's thread, the supervisor and the lanes.
//!
//! A source owns one thread and never stops polling. It tells the supervisor which partitions it was
//! given ([`SourceEvent`]), is told where to start each ([`SourceCommand`]), and puts batches into the
//! lane's [`Inlet`], pausing a partition whose inlet is full. It never decides a position by itself.

mod inlet;

pub use inlet::{Inlet, Outlet, Waiting, channel};

use std::sync::mpsc as blocking;

use crate::error::Error;

/// What a source tells its supervisor.
#[derive(Debug)]
pub enum SourceEvent {
    /// Partitions were assigned; nothing is fetched until each is started.
    Assigned(Vec<i32>),
    /// Partitions are being taken away in order: finish and settle their lanes, then send on `done`. The
    /// source waits at most its revoke budget (10 s), then goes on.
    Revoked {
        /// Which.
        partitions: Vec<i32>,
        /// To be answered when their lanes are gone.
        done: blocking::SyncSender<()>,
    },
    /// Partitions are gone already: drop their lanes, commit nothing.
    Lost(Vec<i32>),
    /// The source cannot go on: blame says whether the pipeline waits or stops. For a single partition
    /// (below log start, past the end, recreated topic) `partition` names it.
    Failed {
        /// The partition concerned, `None` for the whole source.
        partition: Option<i32>,
        /// What happened. An `Outside` error is reported for telemetry only: the source keeps trying.
        error: Error,
    },
    /// Whether the brokers answer at all: told each time they were asked and did not, and once when they do again.
    Brokers(Result<(), Error>),
}

/// What a supervisor asks of its source.
#[derive(Debug)]
pub enum SourceCommand {
    /// Fetch a partition from a position into an inlet.
    Start {
        /// The partition.
        partition: i32,
        /// Next offset to read.
        position: i64,
        /// Where batches go.
        inlet: Inlet,
    },
    /// Stop fetching a partition and drop its inlet.
    Stop {
        /// The partition.
        partition: i32,
    },
    /// Commit an offset to the broker: advice for lag tools, and evidence that the anchor held it. Where a partition
    /// starts is committed without being told.
    Advise {
        /// The partition.
        partition: i32,
        /// Next offset to read.
        position: i64,
        /// Answered with whether the broker took it, which shows that this member still owns the partition.
        taken: Option<tokio::sync::oneshot::Sender<bool>>,
    },
    /// Leave the group and end the thread. Partitions still held are reported as `Revoked` first.
    Shutdown,
}

/// A source, run to its end on a thread of its own.
pub trait Source: Send {
    /// Runs until [`SourceCommand::Shutdown`] or a failure that cannot be retried.
    ///
    /// # Errors
    /// A `Config` failure that ends the source (topic absent, not authorised).
    fn run(
        self: Box<Self>,
        events: tokio::sync::mpsc::UnboundedSender<SourceEvent>,
        commands: blocking::Receiver<SourceCommand>,
    ) -> Result<(), Error>;
}

/// What a topic looks like, asked once at start and when a partition's position is in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Identity that changes when the topic is recreated; `None` where the broker tells none.
    pub id: Option<String>,
    /// Per partition, ascending from 0: (log start, log end).
    pub watermarks: Vec<(i64, i64)>,
}
