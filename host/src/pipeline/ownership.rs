//! Owning one partition: the claim and everything that moves with the position.
//!
//! [`Ownership`] outlives the release that processes the partition: at a cut it moves on to the connections of
//! the next one. It never guesses: after an unknown outcome it claims anew, and a claim
//! that somebody else superseded is the end (rule 6). It knows nothing of records.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::lane::{Connections, LaneEnd, Mode};
use super::release::Desired;
use super::waits::Waiter;
use crate::anchor::cuts::{self, Asks};
use crate::anchor::{Claim, CommitError, Cut, Ledger, Pin};
use crate::clock::Backoff;
use crate::error::{Blame, Error};

/// Offsets granted past a flight, about four batches: below them an earlier version may have been sent ahead.
pub(super) const GRANT: i64 = 4096;

/// How long whoever stops may take to give its grant back.
const LEAVE: Duration = Duration::from_secs(3);

/// A claimed partition.
pub(super) struct Ownership {
    pub(super) connections: Rc<Connections>,
    mode: watch::Receiver<Mode>,
    /// Told of every attempt at the anchor that failed, and of what got on.
    pub(super) waiter: Arc<Waiter>,
    /// The newest claim; `claim.cuts` is what is stored now.
    pub(super) claim: Claim,
    /// The reservation found at this owner's first claim: offsets below it may have been sent ahead by an earlier
    /// owner. Later claims of the same owner, with nobody's in between, find nothing it does not know of.
    pub(super) found: i64,
    /// Next offset to commit.
    pub(super) next: i64,
    /// Write time of the last committed record.
    pub(super) hlc: i64,
    /// What became of every record below `next`.
    pub(super) ledger: Ledger,
    /// Offsets below it may be sent ahead.
    pub(super) granted: i64,
    /// Offsets below it may have been sent ahead by this owner.
    pub(super) sent: Cell<i64>,
    /// Offsets below it were in a flight of this owner: an anchor may write their dead letters ahead by itself, before
    /// any row is sent.
    pub(super) flown: i64,
}

impl Ownership {
    pub(super) fn new(
        connections: Rc<Connections>,
        claim: Claim,
        mode: watch::Receiver<Mode>,
        waiter: Arc<Waiter>,
    ) -> Self {
        Self {
            connections,
            mode,
            waiter,
            next: claim.next,
            hlc: claim.hlc,
            ledger: claim.ledger,
            granted: claim.reserved,
            found: claim.reserved,
            sent: Cell::new(claim.next),
            flown: claim.next,
            claim,
        }
    }

    /// Goes on over other connections, under a claim of their own: an anchor that stores lazily keeps no state
    /// of a lane it no longer sees.
    pub(super) async fn move_to(&mut self, connections: Rc<Connections>) -> Result<(), LaneEnd> {
        let next = self.next;
        self.connections = connections;
        self.claim_anew().await?;
        if self.next == next {
            return Ok(());
        }
        Err(self.moved("hand over", next))
    }

    /// Asks for what is wanted from the first offset on that nothing else can have been sent ahead with; nothing is
    /// in flight. Does nothing when it was asked for last, or when a later deployment has asked already: then this
    /// host has not read its control log far enough. A position that was never pinned is pinned where it stands:
    /// whoever starts it has to finish what may have been sent.
    pub(super) async fn upgrade(&mut self, desired: &Desired) -> Result<(), LaneEnd> {
        loop {
            let granted = self.granted.max(self.next);
            let (reserved, list) = match desired.asks(self.claim.partition, &self.claim.cuts) {
                Asks::Nothing => return Ok(()),
                Asks::Noted(list) => (granted, list),
                Asks::Cut if self.is_clean() => {
                    let waiting = cuts::lower(&self.claim.cuts, self.next);
                    let cut = desired.cut(self.claim.partition, self.next);
                    (self.next, cuts::add(&waiting, self.next, cut))
                }
                Asks::Cut => {
                    let is_pinned = cuts::release_at(&self.claim.cuts, self.next).is_some();
                    let at = if is_pinned { granted } else { self.next };
                    let cut = desired.cut(self.claim.partition, at);
                    (granted, cuts::add(&self.claim.cuts, self.next, cut))
                }
            };
            self.pin("upgrade", reserved, list).await?;
        }
    }

    /// Gives up a grant nothing was sent under, so that the cuts that wait above it take effect now.
    pub(super) async fn lower(&mut self) -> Result<(), LaneEnd> {
        if self.granted > self.next && self.is_clean() {
            let list = cuts::lower(&self.claim.cuts, self.next);
            self.pin("lower the grant", self.next, list).await?;
        }
        Ok(())
    }

    /// Gives back what was granted and never sent, as far as that can be done by now: whoever mends a stop may do so
    /// with another release, which must not wait for this one.
    pub(super) async fn leave(&mut self) {
        let given_back = async {
            self.settle().await?;
            self.lower().await
        };
        tokio::time::timeout(LEAVE, given_back).await.ok();
    }

    /// Whether nothing at or above the position was ever sent ahead, by this owner or an earlier one.
    fn is_clean(&self) -> bool {
        self.sent.get().max(self.flown) <= self.next && self.next >= self.found
    }

    /// Makes sure every record below `to` may be sent ahead.
    pub(super) async fn grant(&mut self, to: i64) -> Result<(), LaneEnd> {
        while to > self.granted {
            let list = self.claim.cuts.clone();
            self.pin("raise the grant", self.credit(to), list).await?;
        }
        Ok(())
    }

    /// How far whoever may send below `to` reserves ahead: not past the cut at which another release takes over, since
    /// nothing is sent there by this one. If this owner died, the next would take those offsets for sent: it could set
    /// no refused record of them aside, and hold up the release after that one.
    pub(super) fn credit(&self, to: i64) -> i64 {
        let cut = cuts::next_change(&self.claim.cuts, self.next);
        cut.map_or(to + GRANT, |cut| cut.clamp(to, to + GRANT))
    }

    /// One pin, or a new claim where its outcome is not known: the caller looks again.
    async fn pin(&mut self, what: &str, reserved: i64, list: Vec<Cut>) -> Result<(), LaneEnd> {
        let mut backoff = Backoff::default();
        let partition = self.claim.partition;
        loop {
            let pin = Pin {
                reserved,
                cuts: &list,
            };
            match self
                .connections
                .anchor
                .pin(&self.claim, self.next, pin)
                .await
            {
                Ok(()) => {
                    self.granted = reserved;
                    self.claim.cuts = list;
                    self.waiter.done();
                    return Ok(());
                }
                Err(CommitError::Fenced(error)) => return Err(LaneEnd::Fenced(error)),
                Err(CommitError::Stop(error)) => return Err(LaneEnd::Stopped(error)),
                Err(CommitError::Unknown(error)) => {
                    tracing::warn!(partition, error = %error, what, "outcome unknown, claiming anew");
                    self.waiter.failed(&error, "grant not answered");
                    let next = self.next;
                    self.claim_anew().await?;
                    if self.next == next {
                        self.waiter.done();
                        return Ok(());
                    }
                    return Err(self.moved("resolve an unknown grant", next));
                }
                Err(error) => {
                    let error = error.into_error();
                    self.waiter.failed(&error, "grant not stored, trying again");
                    self.pause(&mut backoff).await?;
                }
            }
        }
    }

    /// Stores what a lazy anchor holds back.
    pub(super) async fn settle(&mut self) -> Result<(), LaneEnd> {
        let mut backoff = Backoff::default();
        loop {
            let settled = self.connections.anchor.settle(&self.claim).await;
            let error = match settled {
                Ok(()) => {
                    self.waiter.done();
                    return Ok(());
                }
                Err(CommitError::Fenced(error)) => return Err(LaneEnd::Fenced(error)),
                Err(CommitError::Stop(error)) => return Err(LaneEnd::Stopped(error)),
                Err(error) => error,
            };
            let is_unknown = matches!(error, CommitError::Unknown(_));
            // A lane that ends without it is safe: acknowledged rows are written once more, as they are.
            let waiter = &self.waiter;
            waiter.failed(&error.into_error(), "position not stored yet");
            if *self.mode.borrow() == Mode::Drain {
                return Ok(());
            }
            if is_unknown {
                let next = self.next;
                self.claim_anew().await?;
                if self.next == next {
                    self.waiter.done();
                    return Ok(());
                }
                return Err(self.moved("resolve an unknown position", next));
            }
            self.pause(&mut backoff).await?;
        }
    }

    /// A new claim of the same partition: the only way to learn what an unknown change did.
    pub(super) async fn claim_anew(&mut self) -> Result<(), LaneEnd> {
        let mut backoff = Backoff::default();
        loop {
            let claimed = self.connections.anchor.claim(&[self.claim.partition]).await;
            match claimed {
                Ok(claims) => {
                    let claim = claims.into_iter().next().ok_or_else(|| {
                        LaneEnd::Stopped(Error::bug(
                            "claim a partition",
                            "no claim for the partition asked for",
                        ))
                    })?;
                    // Somebody else claimed in between (or a claim of ours was applied without an answer): what
                    // is stored now may be theirs, so nothing of this lane counts (rule 6).
                    if claim.epoch.number > self.claim.epoch.number + 1 {
                        return Err(LaneEnd::Fenced(Error::outside(
                            format!("claim partition {} anew", claim.partition),
                            format!(
                                "epoch {} where {} was expected",
                                claim.epoch.number,
                                self.claim.epoch.number + 1
                            ),
                        )));
                    }
                    self.next = claim.next;
                    self.hlc = claim.hlc;
                    self.ledger = claim.ledger;
                    self.granted = claim.reserved;
                    self.claim = claim;
                    return Ok(());
                }
                Err(error) if error.blame() == Blame::Outside => {
                    self.waiter.failed(&error, "cannot claim anew yet");
                    self.pause(&mut backoff).await?;
                }
                Err(error) => return Err(LaneEnd::Stopped(error)),
            }
        }
    }

    /// Waits before another attempt; a draining lane gives up instead (nothing is lost: it is read again).
    pub(super) async fn pause(&mut self, backoff: &mut Backoff) -> Result<(), LaneEnd> {
        tokio::select! {
            biased;
            _ = self.mode.wait_for(|mode| *mode == Mode::Drain) => Err(LaneEnd::Done),
            () = tokio::time::sleep(backoff.pause()) => Ok(()),
        }
    }

    /// The end of a lane that claimed anew and found the position elsewhere than at `expected`.
    ///
    /// Before it, it is read again from there: a lazy anchor held something back. But what was sent ahead was sent under
    /// a stored grant; where that is gone too, the database lost what it had confirmed, and an operator has to look.
    pub(super) fn moved(&self, what: &str, expected: i64) -> LaneEnd {
        let sent = self.sent.get();
        let ahead = self.connections.ahead.iter().any(Option::is_some);
        if ahead && self.next < expected && self.claim.reserved < sent {
            let detail = format!(
                "the database is back at {}, with offsets below {} reserved; it had confirmed {expected}, and rows of \
                 offsets below {sent} are in the sinks written ahead",
                self.next, self.claim.reserved
            );
            let what = format!("{what} of partition {}", self.claim.partition);
            return LaneEnd::Stopped(Error::config(what, detail).hint(
                "it failed over to a replica that lagged behind, or was restored: bring the confirmed state back; or, if \
                 the same versions read those offsets again, resume the pipeline: its rows converge (should it stop for a \
                 data loss then, that says how to go on)",
            ));
        }
        let error = Error::outside(
            format!("{what} of partition {}", self.claim.partition),
            format!("position is {}, expected {expected}", self.next),
        );
        if self.next < expected {
            LaneEnd::Behind(error)
        } else {
            LaneEnd::Fenced(error)
        }
    }
}
