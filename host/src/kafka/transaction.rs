//! A producer of transactions under one transactional id, and what its failures mean.
//!
//! Taking an id fences whoever had it: the brokers abort the transaction that was left open, or let one that is being
//! committed finish, and refuse the former owner from then on (KIP-98). That, and no consumer group, is what owning a
//! partition rests on. After any failure the client is thrown away, never mended: librdkafka ends transactions with
//! EndTxn of at most version 1, so that a late request of one could end the next (KIP-890), and only a newer epoch
//! keeps it out. It knows no positions.
//!
//! The client has failures of its own that it tells nobody: when a connection breaks under an EndTxn, it sends another.
//! The first may still arrive. It pauses before that ([`Pause`]), so that an end with a sooner answer was sent once; a
//! client that had to wait longer begins no other transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;

use super::client::{Client, Outgoing};
use super::flight::Flight;
use super::{KafkaSettings, client_error};
use crate::anchor::CommitError;
use crate::error::{Blame, Error, Result};
use crate::task;

/// How long taking an id may take: the brokers first end the transaction its former owner left.
const INIT: Duration = Duration::from_secs(20);
/// The longest that one step of a commit may take: a lane that waits takes no turn meanwhile.
const LONGEST: Duration = Duration::from_secs(20);
/// Between two looks at whether the client has told of every message.
const TOLD: Duration = Duration::from_millis(1);

/// First [`Pause`]: far above what an end takes, and below what anyone notices while a partition changes its leader.
const FIRST: Duration = Duration::from_secs(1);

/// How long the clients of one transactional id pause before they send a request again. Where its broker takes longer
/// than that to answer it grows, so that some end is soon enough; where that is quick again, so is the pause of the next
/// client. Cheap to clone: clones share it.
#[derive(Clone, Debug)]
pub(super) struct Pause(Arc<AtomicU64>);

impl Default for Pause {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(millis(FIRST))))
    }
}

impl Pause {
    pub(super) fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Whether a request that was answered after `took` may have been sent twice, by a client of this pause: the real
    /// one is a fifth longer or shorter (`RD_KAFKA_RETRY_JITTER_PERCENT` of librdkafka).
    fn is_over(pause: Duration, took: Duration) -> bool {
        took >= pause * 4 / 5
    }

    /// A client of this `pause` had an answer after `took`: it was too short, or the first would do again. Nobody waits
    /// for an answer longer than `patience`.
    pub(super) fn learn(&self, pause: Duration, took: Duration, patience: Duration) {
        if Self::is_over(pause, took) {
            let enough = patience * 5 / 4 + FIRST;
            let next = (pause * 2).min(enough);
            self.0.fetch_max(millis(next), Ordering::Relaxed);
        } else if !Self::is_over(FIRST, took) {
            self.0.store(millis(FIRST), Ordering::Relaxed);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A producer that has its id. Dropped, it sends nothing more; what is open ends with the next owner, or times out.
pub(super) struct Transactional {
    what: String,
    id: String,
    /// How long a transaction's messages, and then its end, may take.
    patience: Duration,
    /// Shared with the producers of this id that come after it.
    pause: Pause,
    /// That of its client.
    pauses: Duration,
    /// The end of its last transaction may have been sent twice.
    ended_twice: AtomicBool,
    /// `None` only while it is dropped.
    client: Option<Arc<Client>>,
}

impl std::fmt::Debug for Transactional {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transactional({})", self.what)
    }
}

impl Drop for Transactional {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        // It must not abort what is open: a message that is still under way could follow the mark of that under the same
        // epoch, and readers would wait behind it for ever. A new owner's epoch keeps it out, or that of the time-out.
        task::aside("producer-release", move || {
            // It waits for the client's threads.
            client.purge();
            client.release();
        });
    }
}

impl Transactional {
    /// Takes an id, for `what`. When it returns, every transaction of former owners is decided, and none of them can
    /// begin another.
    ///
    /// # Errors
    /// `Outside` when the brokers do not answer in time, or somebody took the id at the same moment; `Config` when
    /// they refuse.
    pub(super) async fn take(
        settings: &KafkaSettings,
        id: &str,
        what: String,
        pause: Pause,
    ) -> Result<Self> {
        let pauses = pause.now();
        let client = Client::transactional(settings, id, settings.session_timeout, pauses)?;
        let client = Arc::new(client);
        let taken = Self {
            what,
            id: id.to_owned(),
            patience: (settings.session_timeout / 2).min(LONGEST),
            pause,
            pauses,
            ended_twice: AtomicBool::new(false),
            client: Some(Arc::clone(&client)),
        };
        let outcome = task::blocking(move || client.producer.init_transactions(INIT)).await?;
        outcome.map_err(|error| taken.not_taken(&error))?;
        Ok(taken)
    }

    /// Its client, to send messages of an open transaction through.
    pub(super) fn client(&self) -> &Arc<Client> {
        self.client
            .as_ref()
            .expect("it is there until it is dropped")
    }

    /// Whether it begins nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.ended_twice.load(Ordering::Relaxed)
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// See [`Transactional::failed`]; `Unknown` too when what ended the last one could still end this one.
    pub(super) fn begin(&self) -> std::result::Result<(), CommitError> {
        if self.is_done() {
            let detail = "brokers took long to end the transaction before: it may have been asked for twice, and the \
                          second could end the next one";
            return Err(CommitError::Unknown(Error::outside(&self.what, detail)));
        }
        let begun = self.client().producer.begin_transaction();
        begun.map_err(|error| self.failed(&[], error, ""))
    }

    /// Queues messages of the open transaction, all for one topic.
    ///
    /// # Errors
    /// See [`Transactional::failed`].
    pub(super) async fn send(
        &self,
        flight: &Arc<Flight>,
        topic: &str,
        messages: impl IntoIterator<Item = Outgoing<'_>>,
    ) -> std::result::Result<(), CommitError> {
        let mut messages = messages.into_iter().peekable();
        if messages.peek().is_none() {
            return Ok(());
        }
        let run = self.client().to(flight, topic);
        for message in messages {
            let sent = run.send(message).await;
            sent.map_err(|error| self.failed(&flight.topics(), error, ""))?;
        }
        Ok(())
    }

    /// Commits the open transaction once all its messages are acknowledged.
    ///
    /// # Errors
    /// See [`Transactional::failed`].
    pub(super) async fn commit(&self, flight: &Flight) -> std::result::Result<(), CommitError> {
        match tokio::time::timeout(self.patience, flight.landed()).await {
            Ok(Ok(())) => {}
            Ok(Err((error, coordinates))) => {
                return Err(self.failed(&flight.topics(), error, &coordinates));
            }
            Err(_) => {
                return Err(CommitError::Unknown(
                    Error::outside(
                        &self.what,
                        format!("messages not acknowledged within {:?}", self.patience),
                    )
                    .hint("are the brokers up, and enough replicas in sync (min.insync.replicas)?"),
                ));
            }
        }
        let (client, patience) = (Arc::clone(self.client()), self.patience);
        let committed = task::blocking(move || {
            // The last of them is being told of: the wrapper would wait for it in steps of 100 ms.
            let begun = Instant::now();
            while client.producer.in_flight_count() > 0 && begun.elapsed() < patience {
                std::thread::sleep(TOLD);
            }
            let begun = Instant::now();
            let committed = client.producer.commit_transaction(patience);
            (committed, begun.elapsed())
        });
        let (committed, took) = committed.await.map_err(CommitError::Unknown)?;
        committed.map_err(|error| self.failed(&flight.topics(), error, ""))?;
        self.pause.learn(self.pauses, took, self.patience);
        let twice = Pause::is_over(self.pauses, took);
        self.ended_twice.fetch_or(twice, Ordering::Relaxed);
        Ok(())
    }

    /// What a failure since the transaction's begin means: another owner, an operator's matter, or that whether it was
    /// committed is not known. `topics`: where its messages go. The producer is of no use any more.
    pub(super) fn failed(
        &self,
        topics: &[String],
        error: KafkaError,
        coordinates: &str,
    ) -> CommitError {
        use RDKafkaErrorCode as Code;
        let error = self.client().cause(error);
        match error.rdkafka_error_code() {
            Some(code @ (Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)) => {
                let detail = format!("another owner has its transactional id now ({code})");
                CommitError::Fenced(Error::outside(&self.what, detail))
            }
            Some(Code::TransactionalIdAuthorizationFailed) => {
                CommitError::Stop(self.denied(&error))
            }
            _ => {
                let refused = super::messages::refused(&self.what, topics, &error, coordinates);
                match refused.blame() {
                    Blame::Outside => CommitError::Unknown(refused),
                    _ => CommitError::Stop(refused),
                }
            }
        }
    }

    fn denied(&self, error: &KafkaError) -> Error {
        Error::config(&self.what, error).hint(format!(
            "grant Write and Describe on transactional id {:?}, or on all that begin with \"wasmill/\", to the host's \
             principal",
            self.id
        ))
    }

    fn not_taken(&self, error: &KafkaError) -> Error {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::TransactionalIdAuthorizationFailed) => self.denied(error),
            Some(Code::UnsupportedFeature | Code::UnsupportedVersion) => {
                Error::config(&self.what, error).hint(
                    "its brokers know no transactions: write a table of Postgres or Cassandra too, then the position \
                     is kept there",
                )
            }
            Some(Code::InvalidTransactionTimeout) => Error::config(&self.what, error).hint(
                "raise transaction.max.timeout.ms of the brokers to session_timeout of the cluster, or lower that",
            ),
            _ => client_error(&self.what, error).hint(
                "are the brokers up, and as many as transaction.state.log.replication.factor asks for?",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_until_no_end_that_is_waited_for_is_sent_twice() {
        let patience = Duration::from_secs(20);
        let pause = Pause::default();
        assert!(!Pause::is_over(FIRST, Duration::from_millis(799)));
        assert!(Pause::is_over(FIRST, Duration::from_millis(800)));
        let mut times = 0;
        while Pause::is_over(pause.now(), patience) {
            pause.learn(pause.now(), patience, patience);
            times += 1;
        }
        assert_eq!(times, 5);
        // A client that was made with a shorter one does not shorten it.
        let grown = pause.now();
        pause.learn(FIRST, FIRST, patience);
        assert_eq!(pause.now(), grown);
        pause.learn(grown, patience, patience);
        assert_eq!(pause.now(), Duration::from_secs(26));
    }

    #[test]
    fn a_pause_that_grew_is_the_first_again_after_an_end_that_needed_no_longer_one() {
        let patience = Duration::from_secs(20);
        let pause = Pause::default();
        pause.learn(FIRST, Duration::from_millis(800), patience);
        let grown = pause.now();
        assert_eq!(grown, FIRST * 2);
        // The first would have been too short for this one.
        pause.learn(grown, Duration::from_millis(800), patience);
        assert_eq!(pause.now(), grown);
        pause.learn(grown, Duration::from_millis(799), patience);
        assert_eq!(pause.now(), FIRST);
    }
}
