//! A few connections, opened when needed and handed out one at a time: [`Pool`], [`Lease`].
//!
//! A connection goes back only by [`Lease::release`], after a transaction that ended cleanly; a lease that is
//! dropped (an error, a cancelled future) closes its connection, so no half-open transaction is ever reused.
//! Shared by the lanes of one shard on one thread: `RefCell`, never borrowed across a suspension. A semaphore
//! bounds the leases and queues those who wait, in order.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::Config;

use crate::error::{Error, Result};
use crate::task;

use super::connection::{Connection, Session};
use super::settings::Settings;

/// Connections of one anchor.
#[derive(Debug)]
pub(super) struct Pool {
    config: Config,
    idle: RefCell<Vec<Connection>>,
    permits: Semaphore,
}

/// A connection for the time of one transaction.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    /// An empty pool of at most `size` connections, at least one.
    pub(super) fn new(config: Config, size: usize) -> Self {
        Self {
            config,
            idle: RefCell::new(Vec::new()),
            permits: Semaphore::new(size.max(1)),
        }
    }

    /// Takes a connection, the one used last first; opens one when none is idle. Waits for its turn.
    ///
    /// # Errors
    /// As [`Session::open`] and [`Session::prepare`].
    pub(super) async fn lease(&self, settings: &Settings) -> Result<Lease<'_>> {
        let permit = task::ticking(self.permits.acquire())
            .await
            .expect("the semaphore is never closed");
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => {
                let opening = async {
                    let session = Session::open(&self.config, settings).await?;
                    session.prepare(settings.routes.len()).await
                };
                in_time(settings, opening).await?
            }
        };
        Ok(Lease {
            pool: self,
            connection: Some(connection),
            _permit: permit,
        })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        // Those the server has closed meanwhile are dropped here.
        idle.retain(|connection| !connection.client.is_closed());
        idle.pop()
    }
}

/// Opens something within the time a connection and a statement may take: a proxy that accepts and then says
/// nothing would hold a lane, and the claim of a partition, for ever.
pub(super) async fn in_time<T>(
    settings: &Settings,
    opening: impl Future<Output = Result<T>>,
) -> Result<T> {
    let limit = settings.timeouts.connect + settings.timeouts.statement;
    tokio::time::timeout(limit, opening)
        .await
        .unwrap_or_else(|_| {
            Err(Error::outside(
                "open a postgres session",
                format!("no answer within {} s", limit.as_secs()),
            )
            .hint("is what listens there a Postgres server, or a proxy without one behind it?"))
        })
}

impl Lease<'_> {
    /// Gives the connection back: its last transaction ended and the server said so.
    pub(super) fn release(mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.idle.borrow_mut().push(connection);
        }
    }
}

impl Deref for Lease<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
            .as_ref()
            .expect("taken only by release, which consumes the lease")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("taken only by release, which consumes the lease")
    }
}
