//! A producer of transactions under one transactional id, and what its failures mean.
//!
//! Taking an id fences whoever had it: the brokers abort the transaction that was left open, or let one that is being
//! committed finish, and refuse the former owner from then on (KIP-98). That, and no consumer group, is what owning a
//! partition rests on. After any failure the client is thrown away, never mended: librdkafka ends transactions with
//! EndTxn of at most version 1, so that a late request of one could end the next (KIP-890), and only a newer epoch
//! keeps it out. It knows no positions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, PurgeConfig};

use super::producer::{Client, Flight, Outgoing, release};
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

/// A producer that has its id. Dropped, it sends nothing more; what is open ends with the next owner, or times out.
pub(super) struct Transactional {
    what: String,
    /// How long a transaction's messages, and then its end, may take.
    patience: Duration,
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
        client
            .producer
            .purge(PurgeConfig::default().queue().inflight());
        // It must not abort what is open: a message that is still under way could follow the mark of that under the same
        // epoch, and readers would wait behind it for ever. A new owner's epoch keeps it out, or that of the time-out.
        task::aside("producer-release", move || release(client));
    }
}

impl Transactional {
    /// Takes an id, for `what`. When it returns, every transaction of former owners is decided, and none of them can
    /// begin another.
    ///
    /// # Errors
    /// `Outside` when the brokers do not answer in time, or somebody took the id at the same moment; `Config` when
    /// they refuse.
    pub(super) async fn take(settings: &KafkaSettings, id: &str, what: String) -> Result<Self> {
        let client = Arc::new(Client::transactional(
            settings,
            id,
            settings.session_timeout,
        )?);
        let taken = Self {
            what,
            patience: (settings.session_timeout / 2).min(LONGEST),
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

    /// Begins a transaction.
    ///
    /// # Errors
    /// See [`Transactional::failed`].
    pub(super) fn begin(&self) -> std::result::Result<(), CommitError> {
        let begun = self.client().producer.begin_transaction();
        begun.map_err(|error| self.failed(&error, ""))
    }

    /// Queues a message of the open transaction.
    ///
    /// # Errors
    /// See [`Transactional::failed`].
    pub(super) async fn send(
        &self,
        flight: &Arc<Flight>,
        message: Outgoing<'_>,
    ) -> std::result::Result<(), CommitError> {
        let sent = self.client().send(flight, message).await;
        sent.map_err(|error| self.failed(&error, ""))
    }

    /// Commits the open transaction once all its messages are acknowledged.
    ///
    /// # Errors
    /// See [`Transactional::failed`].
    pub(super) async fn commit(&self, flight: &Flight) -> std::result::Result<(), CommitError> {
        match tokio::time::timeout(self.patience, flight.landed()).await {
            Ok(Ok(())) => {}
            Ok(Err((error, coordinates))) => return Err(self.failed(&error, &coordinates)),
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
            client.producer.commit_transaction(patience)
        });
        let committed = committed.await.map_err(CommitError::Unknown)?;
        committed.map_err(|error| self.failed(&error, ""))
    }

    /// What a failure since the transaction's begin means: another owner, an operator's matter, or that whether it was
    /// committed is not known. The producer is of no use any more.
    pub(super) fn failed(&self, error: &KafkaError, coordinates: &str) -> CommitError {
        use RDKafkaErrorCode as Code;
        let fatal = self.client().producer.client().fatal_error();
        let code = fatal.as_ref().map(|(code, _)| *code);
        let code = code.or_else(|| error.rdkafka_error_code());
        let outside = |detail: &dyn std::fmt::Display| Error::outside(&self.what, detail);
        if let Some(code @ (Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)) =
            code
        {
            let detail = format!("another owner has its transactional id now ({code})");
            return CommitError::Fenced(outside(&detail));
        }
        if code == Some(Code::TransactionalIdAuthorizationFailed) {
            return CommitError::Stop(denied(&self.what, error));
        }
        let refused = super::messages::refused(&self.what, error, coordinates);
        match refused.blame() {
            Blame::Outside => {
                let detail = fatal.map_or_else(|| error.to_string(), |(_, reason)| reason);
                CommitError::Unknown(outside(&detail))
            }
            _ => CommitError::Stop(refused),
        }
    }

    fn not_taken(&self, error: &KafkaError) -> Error {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::TransactionalIdAuthorizationFailed) => denied(&self.what, error),
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

fn denied(what: &str, error: &KafkaError) -> Error {
    Error::config(what, error).hint(
        "grant Write and Describe on transactional ids that begin with \"wasmill/\" to the host's principal",
    )
}
