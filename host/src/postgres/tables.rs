//! [`Tables`]: the schema `wasmill` and the users' tables of one database, looked at for all pipelines of a host.
//!
//! Those who look at the same time take turns at a few sessions: opening one costs the server a process that has to
//! read its catalog anew, many times what a look costs. When nobody waits any more the sessions are closed. What is
//! compared with what is in `catalog`; no row is read or written here.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tokio_postgres::Config;

use crate::config::PostgresConnection;
use crate::error::{Error, Result};

use super::catalog::{self, Missing, TableReport};
use super::connection::{self, Session};
use super::failure;
use super::plan::RoutePlan;
use super::pool::in_time;
use super::schema;
use super::settings::{PostgresRoute, Settings};

/// Looks at once: some may wait for a lock, and should not hold up all.
const SESSIONS: usize = 4;

/// Compares one route with its table, in a session of its own; changes nothing at all, and one that would be created is
/// fine.
///
/// # Errors
/// As [`Tables::look`], but for the schema.
pub async fn look_at_table(postgres: &PostgresConnection, route: &PostgresRoute) -> Result<()> {
    let plans = RoutePlan::all(std::slice::from_ref(route))?;
    let settings = Settings::new(postgres.url.clone(), "look", "look");
    let config = connection::configure(&settings)?;
    let session = in_time(&settings, Session::open(&config, &settings)).await?;
    let looked = catalog::ensure(&session.client, &plans, Missing::PassOver).await;
    looked.map(drop)
}

/// The tables of one database. Connects when asked; every call may be dropped at any point.
#[derive(Debug)]
pub struct Tables {
    // For a push or a pop. Sessions that have found the schema in place.
    idle: Mutex<Vec<Session>>,
    turns: Semaphore,
    /// Looks under way and waiting.
    looks: AtomicUsize,
    /// Set when two sessions were seen to be two of the server's.
    direct: OnceCell<()>,
}

/// One look; the last one closes the sessions.
struct Look<'a>(&'a Tables);

impl<'a> Look<'a> {
    fn begin(tables: &'a Tables) -> Self {
        tables.looks.fetch_add(1, Ordering::Relaxed);
        Self(tables)
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let mut idle = self.0.idle.lock();
        if self.0.looks.fetch_sub(1, Ordering::Relaxed) == 1 {
            idle.clear();
        }
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            idle: Mutex::default(),
            turns: Semaphore::new(SESSIONS),
            looks: AtomicUsize::new(0),
            direct: OnceCell::new(),
        }
    }
}

impl Tables {
    /// Makes sure of the schema, compares every route of `settings` with its table, and creates missing tables where
    /// the route says so. Run before the first flight; idempotent, also between hosts. All calls name the same
    /// database and user.
    ///
    /// # Errors
    /// `Config` with every problem of every table at once and, as the hint, the DDL that repairs them; for a url, a
    /// login or a privilege somebody has to correct. `Outside` when the server cannot be reached.
    pub async fn ensure(&self, settings: &Settings) -> Result<Vec<TableReport>> {
        self.compare(settings, Missing::Create).await
    }

    /// As [`Tables::ensure`], but creates no table: one that would be created is fine.
    ///
    /// # Errors
    /// As [`Tables::ensure`].
    pub async fn look(&self, settings: &Settings) -> Result<Vec<TableReport>> {
        self.compare(settings, Missing::PassOver).await
    }

    /// Makes sure of the schema alone: nobody else may have asked for it, where every pipeline is paused.
    ///
    /// # Errors
    /// As [`Tables::ensure`], but for tables.
    pub async fn ensure_schema(&self, settings: &Settings) -> Result<()> {
        let bare = Settings {
            routes: Vec::new(),
            ..settings.clone()
        };
        self.compare(&bare, Missing::PassOver).await.map(drop)
    }

    async fn compare(&self, settings: &Settings, missing: Missing) -> Result<Vec<TableReport>> {
        let plans = RoutePlan::all(&settings.routes)?;
        let _look = Look::begin(self);
        let _turn = self
            .turns
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let session = match self.take_idle() {
            Some(session) => session,
            None => {
                let config = connection::configure(settings)?;
                let session = in_time(settings, Session::open(&config, settings)).await?;
                self.refuse_pool(&config, settings, &session).await?;
                schema::ensure(&session.client).await?;
                session
            }
        };
        let reports = catalog::ensure(&session.client, &plans, missing).await?;
        self.idle.lock().push(session);
        Ok(reports)
    }

    /// Refuses a pool in transaction mode, where what a session is pinned to is another session's a moment later: two
    /// clients that are connected at once then are one process of the server. Asked once.
    async fn refuse_pool(
        &self,
        config: &Config,
        settings: &Settings,
        session: &Session,
    ) -> Result<()> {
        let look = async || {
            let other = in_time(settings, Session::open(config, settings)).await?;
            let (one, two) = (session.backend().await?, other.backend().await?);
            if one != two {
                return Ok(());
            }
            let detail = format!("two connections are one session of the server, process {one}");
            Err(Error::config("connect to postgres", detail).hint(failure::POOLED))
        };
        self.direct.get_or_try_init(look).await.map(drop)
    }

    fn take_idle(&self) -> Option<Session> {
        let mut idle = self.idle.lock();
        // Those the server has closed meanwhile are dropped here.
        idle.retain(|session| !session.client.is_closed());
        idle.pop()
    }
}
