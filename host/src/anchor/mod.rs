//! The anchor: the one place that holds a pipeline's positions and changes them by compare-and-set, in
//! one step with everything that must not be separated from them (delivery rules 1, 2, 4 and 6).
//!
//! [`Claim`] is what owning a partition means; [`Flight`] is one batch on its way; [`Anchor::commit`] is
//! the only way to move a position; [`DeadLetters`] is for what was set aside. Adapters live in `postgres`, `cassandra` and `kafka`; [`MemoryAnchor`] holds nothing past the process.

pub mod cuts;
mod ledger;
mod letters;
mod memory;
#[cfg(test)]
pub(crate) mod model_tests;
mod standing;

pub use ledger::{Ledger, Redriven};
pub use letters::{
    Becomes, Coordinates, DeadLetters, Letter, LetterFilter, LetterPage, Part, Retry as LetterRetry,
};
pub use memory::MemoryAnchor;
pub use standing::{SetAside, Standing};

use std::pin::Pin as Pinned;
use std::task::{Context, Poll};

use futures_util::future::LocalBoxFuture;

use crate::error::Error;
use crate::record::{Batch, RowBatch};
use crate::route::DeadLetter;

/// Identity of one claim: a number that grows with every claim of the partition, and an id unique to this
/// claim, so that a claimer whose reply was lost does not take another's claim for its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Grows by one with every claim.
    pub number: i64,
    /// Unique to this claim.
    pub id: uuid::Uuid,
}

/// From which offset on a release processes a partition (delivery rule 4). In a list of cuts, the last *listed*
/// one at or below an offset decides; see [`cuts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Cut {
    /// First offset of the release.
    pub at: i64,
    /// Identity of the release: a plugin version bound to its overlay.
    pub release: String,
    /// Which deployment asked for it.
    #[serde(default, skip_serializing_if = "Order::is_unknown")]
    pub order: Order,
}

impl Cut {
    /// A cut of no known order.
    pub fn new(at: i64, release: impl Into<String>) -> Self {
        Self {
            at,
            release: release.into(),
            order: Order::default(),
        }
    }
}

/// Which of two deployments came first, where they stand in the same control log: a host that has not read the
/// newest one yet must not bring an older release back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Order {
    /// Identity of the control log; empty for one that nobody else sees.
    pub log: String,
    /// Revision of the pipeline's deployment there.
    pub revision: u64,
}

impl Order {
    /// Whether it can be compared with none.
    fn is_unknown(&self) -> bool {
        self.log.is_empty()
    }

    /// Whether this deployment is known to be older than `other`.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        !self.is_unknown() && self.log == other.log && self.revision < other.revision
    }
}

/// What [`Anchor::pin`] stores beside a position: exactly this, whatever was there.
#[derive(Clone, Copy, Debug)]
pub struct Pin<'a> {
    /// The grant: offsets below it may be sent ahead.
    pub reserved: i64,
    /// Which release processes from where, in listing order.
    pub cuts: &'a [Cut],
}

/// A partition owned under an epoch, as it stood when it was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The partition.
    pub partition: i32,
    /// Under which every later change is made.
    pub epoch: Epoch,
    /// Next offset to read.
    pub next: i64,
    /// Offsets below it may have been sent to written-ahead sinks by an earlier owner.
    pub reserved: i64,
    /// Last write time given to a record below `next`, microseconds; see [`crate::sink::AheadRows::stamps`].
    pub hlc: i64,
    /// What became of every record below `next`.
    pub ledger: Ledger,
    /// Which release processes from where; empty before the first pin.
    pub cuts: Vec<Cut>,
    /// Identity of the topic the position belongs to, where the broker tells one.
    pub topic_id: Option<String>,
}

/// A stored position, read without claiming it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The partition.
    pub partition: i32,
    /// Next offset to read.
    pub next: i64,
    /// Which release processes from where.
    pub cuts: Vec<Cut>,
    /// Identity of the topic the position belongs to.
    pub topic_id: Option<String>,
}

/// Rows of one route on the anchor's own database.
#[derive(Clone, Copy, Debug)]
pub struct HereRows<'a> {
    /// Index of the route in the manifest.
    pub route: usize,
    /// Merged per key unless the route appends.
    pub rows: &'a RowBatch,
}

/// One step of a lane: the records `[from, to)` with everything that became of them.
#[derive(Clone, Copy, Debug)]
pub struct Flight<'a> {
    /// Under which claim.
    pub claim: &'a Claim,
    /// Position before the first record; must be the stored one.
    pub from: i64,
    /// Position after the last record.
    pub to: i64,
    /// Grant after this flight: the lane may send offsets below it ahead. Never lowered here.
    pub reserved: i64,
    /// Last write time given to a record below `to`.
    pub hlc: i64,
    /// What became of every record below `to`.
    pub ledger: Ledger,
    /// Where dead letters find their bytes.
    pub batch: &'a Batch,
    /// Write time of each record of `batch` by its index, as [`crate::sink::AheadRows::stamps`]: the write
    /// time of its dead letter.
    pub stamps: &'a [i64],
    /// Rows of the routes on this database.
    pub rows: &'a [HereRows<'a>],
    /// Records set aside.
    pub dead: &'a [DeadLetter],
}

/// Why a flight did not commit. Unless it says otherwise, nothing of the flight is visible.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Another claim is newer, or the position moved: drop everything, do not claim at once (rule 6).
    #[error("fenced: {0}")]
    Fenced(Error),
    /// The database refused the data of this flight (Postgres 22, 23, 54000): the lane halves the flight
    /// until the record is alone; then rule 2(b) says whether it becomes a dead letter.
    #[error("refused: {0}")]
    Refused(Error),
    /// The flight was rolled back for sure; the same flight may be repeated after a pause. An error with
    /// [`crate::error::Retry::Never`] says that the flight itself may be why: after three in a row the lane
    /// halves it, and stops at a single record unless the blame is `Outside`.
    #[error("rolled back: {0}")]
    RolledBack(Error),
    /// Whether the flight is visible is not known: claim anew before anything is sent (rule 4).
    #[error("outcome unknown: {0}")]
    Unknown(Error),
    /// A written-ahead sink failed; the anchor rolled back. The error's blame decides.
    #[error("written ahead: {0}")]
    Ahead(Error),
    /// An operator has to act; rolled back.
    #[error("stopped: {0}")]
    Stop(Error),
}

impl CommitError {
    /// The error inside: for a claim, a seed and whatever else is done again as a whole when it failed, so that it does
    /// not matter whether it had committed.
    #[must_use]
    pub fn into_error(self) -> Error {
        match self {
            Self::Fenced(error)
            | Self::Refused(error)
            | Self::RolledBack(error)
            | Self::Unknown(error)
            | Self::Ahead(error)
            | Self::Stop(error) => error,
        }
    }
}

/// Writes of the other sinks, run by the anchor between its own writes and its commit. Nothing is written before it is
/// first polled; where there is [nothing](Self::is_nothing) to write, an anchor need not pause before its commit.
pub struct Ahead<'a>(Option<LocalBoxFuture<'a, Result<(), Error>>>);

impl<'a> Ahead<'a> {
    /// No other sink has to be written first.
    #[must_use]
    pub fn nothing() -> Self {
        Self(None)
    }

    /// These writes; they end when all are acknowledged.
    pub fn writes(writes: impl Future<Output = Result<(), Error>> + 'a) -> Self {
        Self(Some(Box::pin(writes)))
    }

    /// Whether no other sink has to be written first.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }
}

impl Future for Ahead<'_> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pinned<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Some(writes) => writes.as_mut().poll(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl std::fmt::Debug for Ahead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead")
            .field("is_nothing", &self.is_nothing())
            .finish_non_exhaustive()
    }
}

/// The place that holds the positions of one pipeline, seen through one connection.
///
/// Opened once a shard (lanes of a pipeline on a shard share it; flights of different partitions may be
/// committed concurrently, those of one partition never are) and once by the supervisor, which uses only
/// [`Anchor::stored`], [`Anchor::seed`] and [`Anchor::claim`]. Reconnects by itself: a call made while the
/// database is away fails with an `Outside` error.
pub trait Anchor: std::fmt::Debug {
    /// The stored positions of the pipeline, ascending by partition; empty before its first deploy.
    fn stored(&self) -> LocalBoxFuture<'_, Result<Vec<Stored>, Error>>;

    /// Stores positions for partitions that have none (rule 7); a partition that has one keeps it.
    /// All or none are stored, durably.
    fn seed<'a>(&'a self, positions: &'a [Stored]) -> LocalBoxFuture<'a, Result<(), Error>>;

    /// Takes partitions with a new epoch and returns them as they stand then, in the order asked. Waits
    /// for a transaction that an earlier owner left open, at most 20 s. Cancel-safe: a claim whose reply
    /// was lost is superseded by the next.
    ///
    /// # Errors
    /// `Config` when a partition has no stored position: that is a data-loss stop, never a first start.
    fn claim<'a>(&'a self, partitions: &'a [i32]) -> LocalBoxFuture<'a, Result<Vec<Claim>, Error>>;

    /// Commits a flight: its own writes, then `ahead`, then the position. When it returns `Ok` all of it is
    /// acknowledged (a lazy anchor may store the position a little later, see [`Anchor::settle`]).
    fn commit<'a>(
        &'a self,
        flight: Flight<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>>;

    /// Stores a grant and a list of cuts without moving the position, checked on epoch and position. It may
    /// raise or lower both: the caller knows what it has sent (delivery rule 4). Durable when it returns `Ok`;
    /// after [`CommitError::Unknown`] the caller claims anew before it sends anything.
    fn pin<'a>(
        &'a self,
        claim: &'a Claim,
        next: i64,
        pin: Pin<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>>;

    /// Stores a position that a lazy anchor still holds back; called when a lane is idle and before it
    /// ends. Nothing to do for an anchor that stores at every commit.
    fn settle<'a>(&'a self, claim: &'a Claim) -> LocalBoxFuture<'a, Result<(), CommitError>>;

    /// These partitions are no longer this host's: lets go of what an anchor holds open for their claims. Does not
    /// wait, and changes nothing that is stored; whoever claims them next, here or elsewhere, does so as ever.
    fn release(&self, _partitions: &[i32]) {}
}
