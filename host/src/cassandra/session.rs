//! [`CassandraSession`]: one set of connections, with our own time-outs and consistency.
//!
//! It owns the driver's session and prepares statements. It never retries by the driver's policy (see
//! [`super::retry`]) and never uses a keyspace implicitly: every statement names its own.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::PrepareError;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};

use super::failure;
use super::retry::{self, Presence};
use crate::config::CassandraConnection;
use crate::error::{Error, Result};

/// How long a node may not know a table that stands in its catalog: another host is making it.
const MAKING: Duration = Duration::from_secs(5);

/// How long to wait for Cassandra.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For one reply; longer than the servers' own time-outs (2 s for a write), so that they speak first.
    pub request: Duration,
    /// For a call with all its repetitions; it fails as `Outside` afterwards. Longer than 10 s, the longest
    /// pause of the driver before it connects again to a node that was down; below the group's session
    /// time-out, so that a lane notices that it was fenced.
    pub budget: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(5),
            budget: Duration::from_secs(20),
        }
    }
}

/// Connections to one cluster. Cloning shares them; dropping the last closes them.
#[derive(Clone)]
pub struct CassandraSession {
    driver: Arc<Session>,
    keyspace: String,
    patience: Patience,
    presence: Arc<Presence>,
}

impl std::fmt::Debug for CassandraSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CassandraSession")
            .field("keyspace", &self.keyspace)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl CassandraSession {
    /// Connects, on the current tokio runtime (of either kind), which has to stay alive: the driver keeps its
    /// connections there.
    ///
    /// # Errors
    /// `Outside` when no host answers, `Config` for a refused login or hosts that are none.
    pub async fn connect(connection: &CassandraConnection, patience: Patience) -> Result<Self> {
        super::identifier::keyspace(&connection.keyspace)?;
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::Serial))
            .request_timeout(Some(patience.request))
            .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(&connection.hosts)
            .default_execution_profile_handle(profile.into_handle())
            // a shard has its own session, so one connection a node is one a core
            .pool_size(PoolSize::PerHost(NonZeroUsize::MIN))
            .connection_timeout(patience.connect)
            .tcp_nodelay(true);
        if let Some((user, password)) = &connection.login {
            builder = builder.user(user, password.expose());
        }
        let connected = Box::pin(builder.build()).await;
        let driver = connected
            .map_err(|error| failure::explain_connect(&connection.hosts.join(", "), &error))?;
        Ok(Self {
            driver: Arc::new(driver),
            keyspace: connection.keyspace.clone(),
            patience,
            presence: Arc::default(),
        })
    }

    /// The keyspace of unqualified tables and of the host's own.
    #[must_use]
    pub fn keyspace(&self) -> &str {
        &self.keyspace
    }

    pub(super) fn driver(&self) -> &Session {
        &self.driver
    }

    pub(super) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// When a call that begins now gives up.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.patience.budget
    }

    /// Prepares an idempotent statement at a consistency, with patience.
    pub(super) async fn prepare(
        &self,
        text: &str,
        consistency: Consistency,
    ) -> Result<PreparedStatement> {
        let what = format!("prepare {text}");
        let made = Instant::now() + MAKING;
        let judge = |error: PrepareError| match failure::is_unknown(&error) {
            true if Instant::now() < made => Error::outside(&what, error),
            _ => failure::explain_prepare(&what, &error),
        };
        let mut prepared = retry::until(&self.presence, self.deadline(), async || {
            let prepared = Box::pin(self.driver.prepare(text)).await;
            prepared.map_err(judge)
        })
        .await?;
        prepared.set_is_idempotent(true);
        prepared.set_consistency(consistency);
        Ok(prepared)
    }

    /// Runs an idempotent prepared statement until it is answered, refused or out of time.
    pub(super) async fn execute(
        &self,
        what: &str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<Option<QueryRowsResult>> {
        retry::until(&self.presence, self.deadline(), async || {
            self.once(what, statement, &values).await
        })
        .await
    }

    /// Runs a prepared statement once: an `Outside` error says that its outcome is not known.
    pub(super) async fn once(
        &self,
        what: &str,
        statement: &PreparedStatement,
        values: &impl SerializeRow,
    ) -> Result<Option<QueryRowsResult>> {
        let result = Box::pin(self.driver.execute_unpaged(statement, values)).await;
        let result = result.map_err(|error| failure::explain(what, &error))?;
        if !result.is_rows() {
            return Ok(None);
        }
        let rows = result.into_rows_result();
        rows.map(Some).map_err(|error| Error::bug(what, error))
    }

    /// Runs DDL, or a read of the system tables, until it is answered; the driver waits until all nodes
    /// agree on the schema.
    pub(super) async fn query(&self, what: &str, text: &str) -> Result<Option<QueryRowsResult>> {
        retry::until(&self.presence, self.deadline(), async || {
            let result = Box::pin(self.driver.query_unpaged(text, &[])).await;
            let result = result.map_err(|error| failure::explain(what, &error))?;
            if !result.is_rows() {
                return Ok(None);
            }
            let rows = result.into_rows_result();
            rows.map(Some).map_err(|error| Error::bug(what, error))
        })
        .await
    }
}

/// The consistency a manifest names.
///
/// # Errors
/// `Config` for a name that is none.
pub(super) fn consistency(name: &str) -> Result<Consistency> {
    Ok(match name {
        "one" => Consistency::One,
        "quorum" => Consistency::Quorum,
        "local-quorum" => Consistency::LocalQuorum,
        "all" => Consistency::All,
        other => {
            return Err(
                Error::config(format!("consistency {other:?}"), "is not known")
                    .hint("use one, quorum, local-quorum or all"),
            );
        }
    })
}
