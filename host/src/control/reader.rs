//! The follower's side of a host's hold on the log: applies what comes, publishes states, wakes writers.
//!
//! It owns the state that grows. It runs on the follower's thread and never waits, but for the disk.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::apply::Applied;
use super::entry::Key;
use super::log::Event;
use super::state::State;
use super::store::BlobStore;
use crate::error::{Error, Result};

/// What the follower's thread and everybody else share.
#[derive(Debug)]
pub(super) struct Shared {
    /// A lock for the moment of cloning or swapping the pointer.
    pub(super) state: RwLock<Arc<State>>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) caught_up: watch::Sender<bool>,
    pub(super) lost: Mutex<Option<Error>>,
    /// Writers by entry id: each is told what became of its entry.
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<Applied>>>,
    pub(super) store: BlobStore,
}

impl Shared {
    pub(super) fn new(store: BlobStore) -> Arc<Self> {
        Arc::new(Self {
            state: RwLock::default(),
            changed: watch::Sender::new(0),
            caught_up: watch::Sender::new(false),
            lost: Mutex::default(),
            waiting: Mutex::default(),
            store,
        })
    }
}

/// A writer that waits for its entry.
pub(super) struct Waiter<'a> {
    shared: &'a Shared,
    id: Uuid,
    told: oneshot::Receiver<Applied>,
}

impl<'a> Waiter<'a> {
    pub(super) fn new(shared: &'a Shared, id: Uuid) -> Self {
        let (sender, told) = oneshot::channel();
        shared.waiting.lock().insert(id, sender);
        Self { shared, id, told }
    }

    pub(super) async fn wait(mut self, what: &str, deadline: Instant) -> Result<Applied> {
        match timeout_at(deadline, &mut self.told).await {
            Ok(Ok(applied)) => Ok(applied),
            Ok(Err(_)) => Err(self
                .shared
                .lost
                .lock()
                .clone()
                .unwrap_or_else(|| unknown(what))),
            Err(_) => Err(unknown(what)),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.id);
    }
}

/// The follower's side: owns the state that grows.
pub(super) struct Reader {
    shared: Arc<Shared>,
    /// Under which host and name the log is remembered.
    host: String,
    log: String,
    state: State,
    caught_up: bool,
}

impl Reader {
    pub(super) fn new(shared: &Arc<Shared>, host: &str, log: String) -> Self {
        Self {
            shared: Arc::clone(shared),
            host: host.to_owned(),
            log,
            state: State::default(),
            caught_up: false,
        }
    }

    pub(super) fn event(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Record { offset, key, value } => self.record(offset, key, value),
            Event::CaughtUp => {
                if let Err(error) = self.recognize() {
                    return self.lost(error);
                }
                self.caught_up = true;
                self.publish();
                self.shared.caught_up.send_replace(true);
            }
            Event::Lost(error) => return self.lost(error),
        }
        ControlFlow::Continue(())
    }

    fn lost(&self, error: Error) -> ControlFlow<()> {
        tracing::error!(%error, hint = error.hint_text(), "control log lost; what is deployed stays as it is");
        *self.shared.lost.lock() = Some(error);
        // What was not read to its end, or is another log's, is nobody's state.
        if self.caught_up {
            self.publish();
        } else {
            self.shared.changed.send_modify(|count| *count += 1);
        }
        // Wakes who waits for either.
        self.shared.caught_up.send_modify(|_| {});
        self.shared.waiting.lock().clear();
        ControlFlow::Break(())
    }

    /// Compares the identity that a host wrote into the log with what this host has seen there; remembers it.
    fn recognize(&self) -> Result<()> {
        let store = &self.shared.store;
        let found = self.state.identity();
        let known = store.known_log(&self.host, &self.log)?;
        match (known, found) {
            (Some(known), found) if known.is_written() && found != Some(known.identity.clone()) => {
                Err(known.another(&self.log, found.as_deref()))
            }
            (None, Some(found)) => store.remember_log(&self.host, &self.log, &found),
            _ => Ok(()),
        }
    }

    fn record(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) {
        let (applied, id) = self.state.apply_entry(offset, key, value);
        match &applied {
            Applied::Ignored { reason } => {
                tracing::warn!(offset, reason, "record of the control log ignored")
            }
            Applied::Newer => {
                tracing::warn!(offset, "record of the control log needs a newer host")
            }
            Applied::Rejected { reason } => {
                tracing::info!(offset, reason, "entry of the control log lost")
            }
            Applied::Accepted | Applied::Repeated => self.blob(key, value),
        }
        if self.caught_up {
            if matches!(Key::parse(key), Some(Key::Named { .. }))
                && let Err(error) = self.recognize()
            {
                tracing::warn!(%error, "the control log's identity is not kept on this host");
            }
            self.publish();
        }
        let waiter = id.and_then(|id| self.shared.waiting.lock().remove(&id));
        if let Some(waiter) = waiter {
            // A writer that has given up is not there any more.
            waiter.send(applied).ok();
        }
    }

    /// Takes a blob's record to the store.
    fn blob(&self, key: &[u8], value: Option<&[u8]>) {
        let (Some(key), Some(value)) = (Key::parse(key), value) else {
            return;
        };
        let finished = match key {
            Key::Chunk { digest, number } => {
                self.shared.store.chunk(digest, number, value);
                return;
            }
            Key::Head { digest } => self
                .state
                .blob(digest)
                .map(|head| self.shared.store.finish(digest, head)),
            _ => return,
        };
        if let Some(Err(error)) = finished {
            tracing::warn!(%error, "uploaded plugin not kept on this host; it is read again when it is needed");
        }
    }

    fn publish(&self) {
        *self.shared.state.write() = Arc::new(self.state.clone());
        self.shared.changed.send_modify(|count| *count += 1);
    }
}

pub(super) fn unknown(what: &str) -> Error {
    Error::outside(
        what,
        "not known whether it was stored: it did not come back in time",
    )
    .hint("look at `wasmill history` before trying again")
}
