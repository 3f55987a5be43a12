//! [`Retried`]: how many dead letters of each partition were retried, for all pipelines of one database.
//!
//! A status asks for it again and again, so it costs one session, kept in between, and one question whatever the number
//! of pipelines. It only reads: it makes no schema, and what is not there, or may not be read, is not known.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::anchor::Redriven;
use crate::config::PostgresConnection;
use crate::error::Result;

use super::connection::{self, Session};
use super::failure;
use super::pool::in_time;
use super::positions::within;
use super::settings::Settings;

/// Makes sure of what the module promises, whatever is asked by mistake.
const READ_ONLY: &str = "SET default_transaction_read_only = on";

/// Time the server may take: nobody waits longer for a status.
const STATEMENT: Duration = Duration::from_secs(5);

const COUNTS: &str = "SELECT pipeline, topic, partition, retried - retried_filtered, retried_filtered \
     FROM wasmill.position WHERE retried > 0";

/// No such schema, table or column, or no right to read it: Postgres manual, appendix A.
const NOT_THERE: [&str; 4] = ["3F000", "42P01", "42703", "42501"];

/// Retried dead letters by pipeline and topic, then by partition; a partition without any is left out.
pub type RetriedCounts = BTreeMap<(String, String), BTreeMap<i32, Redriven>>;

/// The counts of one database. Connects when asked; every call may be dropped at any point.
#[derive(Debug)]
pub struct Retried {
    settings: Settings,
    // For a take or a put: a session is away from here while it answers, and one that did not is closed.
    idle: Mutex<Option<Session>>,
}

impl Retried {
    /// Of a database of the config; nothing is connected yet.
    #[must_use]
    pub fn new(postgres: &PostgresConnection) -> Self {
        let mut settings = Settings::new(postgres.url.clone(), "status", "");
        settings.timeouts.statement = STATEMENT;
        Self {
            settings,
            idle: Mutex::default(),
        }
    }

    /// The counts as they are stored now; `None` where there are none to read.
    ///
    /// # Errors
    /// `Config` for a url or a login that is refused, `Outside` when Postgres does not answer.
    pub async fn counts(&self) -> Result<Option<RetriedCounts>> {
        // One that the server has closed meanwhile is dropped here.
        let idle = self.idle.lock().take();
        let session = match idle.filter(|session| !session.client.is_closed()) {
            Some(session) => session,
            None => in_time(&self.settings, self.open()).await?,
        };
        let asked = async {
            match session.client.query(COUNTS, &[]).await {
                Err(error) if is_not_there(&error) => Ok(None),
                answer => answer.map(Some),
            }
        };
        let limit = self.settings.timeouts.statement;
        let rows = within("count retried dead letters in postgres", limit, asked).await?;
        *self.idle.lock() = Some(session);
        let Some(rows) = rows else { return Ok(None) };
        let mut counts = RetriedCounts::new();
        for row in rows {
            let count = |column: usize| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
            let redriven = Redriven {
                emitted: count(3),
                filtered: count(4),
            };
            let of = counts.entry((row.get(0), row.get(1))).or_default();
            of.insert(row.get(2), redriven);
        }
        Ok(Some(counts))
    }

    async fn open(&self) -> Result<Session> {
        let config = connection::configure(&self.settings)?;
        let session = Session::open(&config, &self.settings).await?;
        let pinned = session.client.batch_execute(READ_ONLY).await;
        pinned.map_err(|error| failure::error("set up a postgres session", &error))?;
        Ok(session)
    }
}

fn is_not_there(error: &tokio_postgres::Error) -> bool {
    failure::sqlstate(error).is_some_and(|sqlstate| NOT_THERE.contains(&sqlstate))
}
