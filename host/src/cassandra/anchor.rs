//! [`CassandraAnchor`]: the positions of a pipeline that writes to Cassandra only.
//!
//! The protocol is explored exhaustively in the project's models (Cassandra anchor: claim by a read, an LWT on
//! the epoch and a second read; advance by an LWT on epoch and position, lazily, over acknowledged data):
//!
//! * nothing is sent ahead above a grant that is not stored yet;
//! * an LWT whose reply is lost is read back with SERIAL; an advance is repeated as it was (`next` lets only
//!   one copy through), a bare grant or a pin is not;
//! * a pin that changes nothing is not sent, only its epoch checked: when its reply is lost, a row that shows
//!   it could not be told from one that it has yet to reach;
//! * a lane that is fenced, or does not know, drops what it held back and must claim anew.
//!
//! Rows of routes never travel in its flights: every table of such a pipeline is written by a
//! [`super::CassandraSink`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::dead::{self, DeadLetters};
use super::lane::{Lane, Mark, State};
use super::position::{self, Position, Positions};
use super::retry;
use super::session::CassandraSession;
use crate::anchor::{Ahead, Anchor, Claim, CommitError, Epoch, Flight, Pin, Stored};
use crate::error::{Blame, Error, Result};

/// Partitions claimed, seeded or read at once.
const AT_ONCE: usize = 16;
/// Pause before an LWT without an answer is sent again.
const AGAIN: Duration = Duration::from_millis(100);

/// Whose positions.
#[derive(Clone, Debug)]
pub struct AnchorSettings {
    /// The pipeline, its identity for ever.
    pub pipeline: String,
    /// The input topic.
    pub topic: String,
    /// `name@version` or digest of the plugin, kept beside position and dead letters for people.
    pub plugin: String,
    /// Digest of the plugin, kept beside dead letters.
    pub digest: String,
    /// How many positions the host stores at once: shared by the anchors of all shards (16 is plenty for a
    /// cluster of any size: each is answered in milliseconds).
    pub advances: Arc<Semaphore>,
}

/// The positions of one pipeline and topic, seen through one session.
#[derive(Debug)]
pub struct CassandraAnchor {
    pub(super) session: CassandraSession,
    pub(super) settings: AnchorSettings,
    pub(super) positions: Positions,
    pub(super) dead: DeadLetters,
    // borrowed only between suspensions: one thread owns the anchor
    lanes: RefCell<HashMap<i32, Lane>>,
}

impl CassandraAnchor {
    /// Creates the anchor's tables in the session's keyspace where they are missing. Called once a
    /// deployment, before the first [`CassandraAnchor::open`].
    ///
    /// # Errors
    /// `Config` when they may not be created, `Outside` when Cassandra does not answer.
    pub async fn create_tables(session: &CassandraSession) -> Result<()> {
        position::create_tables(session).await?;
        dead::create_table(session).await
    }

    /// Prepares its statements.
    ///
    /// # Errors
    /// `Config` when the tables are missing or may not be used, `Outside` when Cassandra does not answer.
    pub async fn open(session: &CassandraSession, settings: AnchorSettings) -> Result<Self> {
        let AnchorSettings {
            pipeline,
            topic,
            plugin,
            digest,
            ..
        } = &settings;
        Ok(Self {
            session: session.clone(),
            positions: Positions::open(session, pipeline, topic).await?,
            dead: DeadLetters::open(session, pipeline, topic, [plugin, digest]).await?,
            settings,
            lanes: RefCell::default(),
        })
    }

    async fn read_all(&self) -> Result<Vec<Stored>> {
        let listed = self.positions.listed().await?;
        let read = async |partition: i32| {
            let position = self.existing(partition).await?;
            Ok(Stored {
                partition,
                next: position.mark.next,
                cuts: position.cuts,
                topic_id: position.topic_id,
            })
        };
        stream::iter(listed)
            .map(read)
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Stores first positions, whose records are written after `hlc`.
    pub(super) async fn seed_at(&self, positions: &[Stored], hlc: i64) -> Result<()> {
        if positions.is_empty() {
            return Ok(());
        }
        let seeded = stream::iter(positions).map(|stored| self.positions.seed(stored, hlc));
        seeded.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let partitions = positions.iter().map(|stored| stored.partition);
        self.positions.enlist(&partitions.collect::<Vec<_>>()).await
    }

    async fn claim_all(&self, partitions: &[i32]) -> Result<Vec<Claim>> {
        let claims = stream::iter(partitions).map(|partition| self.claim_one(*partition));
        let claims: Vec<Claim> = claims.buffered(AT_ONCE).try_collect().await?;
        let mut lanes = self.lanes.borrow_mut();
        for claim in &claims {
            lanes.insert(claim.partition, Lane::new(claim));
        }
        Ok(claims)
    }

    async fn claim_one(&self, partition: i32) -> Result<Claim> {
        retry::until(
            self.session.presence(),
            self.session.deadline(),
            async || {
                let old = self.existing(partition).await?.epoch;
                // an id of its own, so that nobody takes another's claim for theirs after a lost reply
                let epoch = Epoch {
                    number: old.number + 1,
                    id: uuid::Uuid::new_v4(),
                };
                self.positions
                    .claim(partition, &old, &epoch, &self.settings.plugin)
                    .await?;
                // never act on a row read before the claim: its owner may have moved it since
                let position = self.existing(partition).await?;
                if position.epoch != epoch {
                    return Err(Error::outside(
                        self.positions.what("claim", partition),
                        "another host claimed it at the same moment, or no answer came",
                    ));
                }
                Ok(Claim {
                    partition,
                    epoch,
                    next: position.mark.next,
                    reserved: position.mark.reserved,
                    hlc: position.mark.hlc,
                    ledger: position.mark.ledger,
                    cuts: position.cuts,
                    topic_id: position.topic_id,
                })
            },
        )
        .await
    }

    async fn existing(&self, partition: i32) -> Result<Position> {
        self.positions.read(partition).await?.ok_or_else(|| {
            Error::config(
                self.positions.what("read", partition),
                "DATA LOSS: there is none, although the pipeline was deployed",
            )
            .hint(position::RESTORE)
        })
    }

    async fn fly(&self, flight: Flight<'_>, ahead: Ahead<'_>) -> Result<(), CommitError> {
        let what = || self.positions.what("advance", flight.claim.partition);
        if !flight.rows.is_empty() {
            let detail = "rows inside a flight of the Cassandra anchor";
            return Err(CommitError::Stop(Error::bug(what(), detail)));
        }
        let (stored, head) = self.board(flight.claim)?;
        if head.next != flight.from || flight.to < flight.from {
            let detail = format!(
                "it stands at {}, the flight is {}..{}",
                head.next, flight.from, flight.to
            );
            return Err(CommitError::Stop(Error::bug(what(), detail)));
        }
        if flight.to > stored.reserved {
            // the grant for this flight may still be held back, and must be stored before it is used
            let reserved = head.reserved.max(flight.reserved).max(flight.to);
            self.store(flight.claim, Mark { reserved, ..head }).await?;
        }
        self.dead
            .write(&flight)
            .await
            .map_err(|error| match error.blame() {
                Blame::Outside => CommitError::RolledBack(error),
                _ => CommitError::Stop(error),
            })?;
        ahead.await.map_err(CommitError::Ahead)?;
        let due = self.with_lane(flight.claim, |lane| {
            lane.advance(Mark {
                next: flight.to,
                reserved: flight.reserved,
                hlc: flight.hlc,
                ledger: flight.ledger,
            });
            lane.due(Instant::now()).then(|| lane.head())
        })?;
        match due {
            Some(head) => self.store(flight.claim, head).await,
            None => Ok(()),
        }
    }

    async fn pin_lane(&self, claim: &Claim, next: i64, pin: Pin<'_>) -> Result<(), CommitError> {
        let (holds, head) = self.with_lane(claim, |lane| (lane.holds(), lane.head()))?;
        if head.next != next {
            let detail = format!("it stands at {}, not at {next}", head.next);
            return Err(CommitError::Fenced(self.fenced(claim, &detail)));
        }
        if holds {
            self.store(claim, head).await?;
        }
        let unchanged = self.with_lane(claim, |lane| {
            let unchanged = lane.has(pin);
            if !unchanged {
                // if this future is dropped from here on, the outcome is not known
                lane.state = State::Flying;
            }
            unchanged
        })?;
        let outcome = if unchanged {
            self.read_back(claim).await.map(drop)
        } else {
            self.send_pin(claim, next, pin).await
        };
        self.landed(claim, &outcome, |lane| lane.pinned(pin));
        outcome
    }

    /// Sends a pin once. A lost reply is read back: what the lane knew to be stored was something else, so a
    /// row that shows the pin says that it was applied, and that no copy of it is left on the wire.
    async fn send_pin(&self, claim: &Claim, next: i64, pin: Pin<'_>) -> Result<(), CommitError> {
        let _permit = self.permit(claim).await?;
        let sent = self
            .positions
            .pin(claim.partition, &claim.epoch, next, pin)
            .await;
        let lost = match sent {
            Ok(true) => return Ok(()),
            Ok(false) => self.unknown(claim, "it did not take a pin that nobody stands against"),
            Err(error) if error.blame() == Blame::Outside => error,
            Err(error) => return Err(CommitError::Stop(error)),
        };
        let position = self.read_back(claim).await?;
        if position.mark.next != next {
            let detail = format!("the position moved to {}", position.mark.next);
            return Err(CommitError::Fenced(self.fenced(claim, &detail)));
        }
        if position.mark.reserved == pin.reserved && position.cuts == pin.cuts {
            return Ok(());
        }
        Err(CommitError::Unknown(lost))
    }

    /// The position as it is now, when the outcome of a change is in doubt; `Fenced` when it is another's.
    async fn read_back(&self, claim: &Claim) -> Result<Position, CommitError> {
        let position = match self.positions.read(claim.partition).await {
            Ok(position) => position,
            Err(error) if error.blame() == Blame::Outside => {
                return Err(CommitError::Unknown(error));
            }
            Err(error) => return Err(CommitError::Stop(error)),
        };
        position
            .filter(|position| position.epoch == claim.epoch)
            .ok_or_else(|| CommitError::Fenced(self.fenced(claim, "another claim is newer")))
    }

    /// One of the changes that the host makes at once.
    async fn permit(&self, claim: &Claim) -> Result<SemaphorePermit<'_>, CommitError> {
        let permit = self.settings.advances.acquire().await;
        permit.map_err(|error| {
            let what = self.positions.what("change", claim.partition);
            CommitError::Stop(Error::bug(what, error))
        })
    }

    /// Takes the outcome of a change into the lane that sent it, if it still is there.
    fn landed(
        &self,
        claim: &Claim,
        outcome: &Result<(), CommitError>,
        done: impl FnOnce(&mut Lane),
    ) {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes
            .get_mut(&claim.partition)
            .filter(|lane| lane.epoch == claim.epoch);
        if let Some(lane) = lane {
            match outcome {
                Ok(()) => done(lane),
                Err(CommitError::Fenced(_)) => lane.end(State::Fenced),
                Err(_) => lane.end(State::Unknown),
            }
        }
    }

    async fn flush(&self, claim: &Claim) -> Result<(), CommitError> {
        let held = {
            let lanes = self.lanes.borrow();
            lanes.get(&claim.partition).is_some_and(|lane| {
                lane.epoch == claim.epoch && (lane.holds() || lane.state != State::Live)
            })
        };
        if !held {
            return Ok(());
        }
        let (_, head) = self.board(claim)?;
        self.store(claim, head).await
    }

    /// What is stored and where the lane of a claim stands; refuses a lane that ended.
    fn board(&self, claim: &Claim) -> Result<(Mark, Mark), CommitError> {
        self.with_lane(claim, |lane| (lane.stored(), lane.head()))
    }

    fn with_lane<T>(
        &self,
        claim: &Claim,
        act: impl FnOnce(&mut Lane) -> T,
    ) -> Result<T, CommitError> {
        let mut lanes = self.lanes.borrow_mut();
        let lane = lanes
            .entry(claim.partition)
            .or_insert_with(|| Lane::new(claim));
        if lane.epoch.number < claim.epoch.number {
            *lane = Lane::new(claim);
        }
        if lane.epoch != claim.epoch {
            return Err(CommitError::Fenced(
                self.fenced(claim, "this host claimed it again"),
            ));
        }
        match lane.state {
            State::Live => Ok(act(lane)),
            State::Fenced => Err(CommitError::Fenced(
                self.fenced(claim, "it was fenced before"),
            )),
            State::Flying | State::Unknown => {
                lane.end(State::Unknown);
                Err(CommitError::Unknown(
                    self.unknown(claim, "a change before it has no answer"),
                ))
            }
        }
    }

    /// Stores `to`, and with it all that is held back.
    pub(super) async fn store(&self, claim: &Claim, to: Mark) -> Result<(), CommitError> {
        let stored = self.with_lane(claim, |lane| {
            let stored = lane.stored();
            // if this future is dropped from here on, the outcome is not known
            lane.state = State::Flying;
            stored
        })?;
        let outcome = self.change(claim, stored, to).await;
        self.landed(claim, &outcome, |lane| lane.landed(to, Instant::now()));
        outcome
    }

    async fn change(&self, claim: &Claim, from: Mark, to: Mark) -> Result<(), CommitError> {
        if from == to {
            return Ok(());
        }
        let _permit = self.permit(claim).await?;
        let deadline = self.session.deadline();
        loop {
            let sent = self
                .positions
                .advance(claim.partition, &claim.epoch, from, to)
                .await;
            let lost = match sent {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                Err(error) if error.blame() == Blame::Outside => Some(error),
                Err(error) => return Err(CommitError::Stop(error)),
            };
            let position = self.read_back(claim).await?;
            if position.mark == to {
                return Ok(());
            }
            match lost {
                None => {
                    let detail = format!("the position moved to {}", position.mark.next);
                    return Err(CommitError::Fenced(self.fenced(claim, &detail)));
                }
                // a second copy of an advance cannot be applied after the first; one of a grant can
                Some(_) if to.next > from.next && Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                }
                Some(error) => return Err(CommitError::Unknown(error)),
            }
        }
    }

    fn fenced(&self, claim: &Claim, detail: &str) -> Error {
        Error::outside(self.positions.what("advance", claim.partition), detail)
    }

    fn unknown(&self, claim: &Claim, detail: &str) -> Error {
        Error::outside(self.positions.what("advance", claim.partition), detail)
    }
}

impl Anchor for CassandraAnchor {
    fn stored(&self) -> LocalBoxFuture<'_, Result<Vec<Stored>>> {
        self.read_all().boxed_local()
    }

    fn seed<'a>(&'a self, positions: &'a [Stored]) -> LocalBoxFuture<'a, Result<()>> {
        self.seed_at(positions, 0).boxed_local()
    }

    fn claim<'a>(&'a self, partitions: &'a [i32]) -> LocalBoxFuture<'a, Result<Vec<Claim>>> {
        self.claim_all(partitions).boxed_local()
    }

    fn commit<'a>(
        &'a self,
        flight: Flight<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        self.fly(flight, ahead).boxed_local()
    }

    fn pin<'a>(
        &'a self,
        claim: &'a Claim,
        next: i64,
        pin: Pin<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        self.pin_lane(claim, next, pin).boxed_local()
    }

    fn settle<'a>(&'a self, claim: &'a Claim) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        self.flush(claim).boxed_local()
    }
}
