//! What a test has go wrong: faults of single calls, and rules that are taken away.

/// What happens to one call of the anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fault {
    None,
    /// Another owner claims first.
    Stolen,
    RolledBack,
    /// Rolled back after the sinks were written.
    RolledBackLate,
    /// Committed, the reply is lost.
    UnknownDone,
    /// Not committed, the reply is lost.
    UnknownNot,
    /// The reply is lost; the request arrives with the next commit.
    UnknownLate,
    AheadOutside,
    AheadConfig,
    Stop,
    /// No reply, and no end of waiting for it.
    Hang,
}

/// A rule taken away, to see the checks go red.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Broken {
    #[default]
    Nothing,
    /// The position moves without compare-and-set.
    CompareAndSet,
    /// A rolled-back commit is reported as done.
    SwallowedRollback,
    /// The sinks are never written.
    AheadForgotten,
    /// The sinks are written after the commit.
    Order,
    /// The last write to arrive wins, whatever its stamp.
    Stamps,
    /// The stamp of a write is when it was sent, not a function of its record.
    ArrivalTime,
    /// A cut that waits takes effect at the position.
    Pin,
    /// What moves with the position (ledger, last write time) is stored after it, and a host dies in between.
    StateAfter,
    /// The same, before it.
    StateBefore,
    /// An older claim is as good as the newest.
    Epoch,
    /// A claim grants more than it stored.
    Grant,
    /// A claim does not tell the reservation it found: cuts at the position, and lowering, although an earlier owner
    /// may have sent what lies above.
    Found,
    /// What the group says is compared with the position of a lazy anchor, not with its reservation.
    Reservation,
    /// After an unknown pin the position is read again, not claimed.
    ReadNotClaim,
    /// Lowering leaves the cuts that wait.
    CutsStay,
    /// Nothing keeps which release began to retry a letter.
    Mark,
    /// Connections of another release go on under the claim of the one before.
    NoClaimAtHandOver,
}
