//! A host's hold on the control log: the state as it is now, and writing to it.
//!
//! It owns the follower's thread; what happens there is in `reader.rs`. It never decides what counts: that is the
//! [`State`]'s. It never acts on what is deployed: whoever watches [`Control::changed`] does.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::apply::Applied;
use super::entry::{BlobHead, Change, Entry, FORMAT, Key, MAX_ENTRY};
use super::log::{ControlLog, Event, Follower, Write};
use super::reader::{Reader, Shared, Waiter, unknown};
use super::state::State;
use super::store::{self, BlobStore, CHUNK};
use crate::error::{Error, Result};
use crate::{clock, task};

/// How long a write may take to come back.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long reading a blob from the log again may take.
const RESTORE: Duration = Duration::from_secs(30);
/// Chunks written at once, 4 MiB.
const BURST: usize = 8;
/// Keys that say nothing any more are removed when there are as many: a write each would double the log's traffic.
const TIDY: usize = 64;

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It counts; the state has it.
    Accepted,
    /// Another came first; why, for people.
    Rejected(String),
}

/// See the module. Clones share one follower, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Arc<dyn ControlLog>,
    host: String,
    /// How long a write may take to come back.
    patience: Duration,
    shared: Arc<Shared>,
    /// One at a time reads the log again for a blob.
    restoring: Mutex<()>,
    // Joins the thread; nothing on the thread holds this struct.
    _follower: Follower,
}

impl Control {
    /// Follows a log from its start. Returns at once: see [`Control::caught_up`].
    ///
    /// # Errors
    /// `Config`: this host has seen another log under that name. `Outside`: no thread, or the disk refuses.
    pub fn open(log: Arc<dyn ControlLog>, store: BlobStore, host_id: String) -> Result<Self> {
        Self::open_with(log, store, host_id, PATIENCE)
    }

    pub(super) fn open_with(
        log: Arc<dyn ControlLog>,
        store: BlobStore,
        host_id: String,
        patience: Duration,
    ) -> Result<Self> {
        if let Some(identity) = log.identity() {
            let name = log.name();
            match store.known_log(&host_id, &name)? {
                Some(known) if known.differs(&identity) => {
                    return Err(known.another(&name, Some(&identity)));
                }
                Some(_) => {}
                None => store.remember_log(&host_id, &name, &identity)?,
            }
        }
        let shared = Shared::new(store);
        let mut reader = Reader::new(&shared, &host_id, log.name());
        let follower = log.follow(Box::new(move |event| reader.event(event)))?;
        let inner = Inner {
            log,
            host: host_id,
            patience,
            shared,
            restoring: Mutex::default(),
            _follower: follower,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The state as of now: a snapshot. Empty until the log was read to its end once.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.inner.shared.state.read())
    }

    /// Counts the states published: a new one with every record, after the log was read to its end once.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.shared.changed.subscribe()
    }

    /// Whether the log was read to the end it had at the start.
    #[must_use]
    pub fn caught_up(&self) -> watch::Receiver<bool> {
        self.inner.shared.caught_up.subscribe()
    }

    /// Waits until the log was read to the end it had at the start, for as long as it takes.
    ///
    /// # Errors
    /// `Config`: the log is gone.
    pub async fn ready(&self) -> Result<()> {
        let shared = &self.inner.shared;
        let mut caught_up = shared.caught_up.subscribe();
        let ready = caught_up
            .wait_for(|up| *up || shared.lost.lock().is_some())
            .await
            .map(drop);
        ready.map_err(|error| Error::bug("wait for the control log", error))?;
        shared.lost.lock().clone().map_or(Ok(()), Err)
    }

    /// Why the log is gone, when it is: the state stays as it was, and nothing can be written.
    #[must_use]
    pub fn lost(&self) -> Option<Error> {
        self.inner.shared.lost.lock().clone()
    }

    /// Waits until the log is gone, for ever where it never is.
    pub async fn gone(&self) {
        let shared = &self.inner.shared;
        let mut told = shared.caught_up.subscribe();
        if told
            .wait_for(|_| shared.lost.lock().is_some())
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    /// What tells this log from another one of the same name: what the broker says, or, where it says nothing, what
    /// the first host that asked has written into it.
    ///
    /// # Errors
    /// As [`Control::submit`], where it has to be written first.
    pub async fn identity(&self) -> Result<String> {
        if let Some(known) = self
            .state()
            .identity()
            .or_else(|| self.inner.log.identity())
        {
            return Ok(known);
        }
        // Whoever is first, this host has read it then.
        self.submit(&format!("host:{}", self.host()), Change::Named)
            .await?;
        let written = self.state().identity();
        written.ok_or_else(|| Error::bug("name the control log", "written, and not there"))
    }

    /// This host's id.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    /// Where blobs are kept on this host.
    #[must_use]
    pub fn store(&self) -> &BlobStore {
        &self.inner.shared.store
    }

    /// Writes a change and waits until this host has read it back, so that [`Control::state`] shows what became of
    /// it. A change that the state refuses, or holds already, is not written at all.
    ///
    /// Dropping the future leaves open whether the change was written.
    ///
    /// # Errors
    /// `Config`: the change is malformed or too large, is about something only a newer host understands, or the log
    /// is gone. `Outside`: not known within 10 s whether it was written.
    pub async fn submit(&self, by: &str, change: Change) -> Result<Outcome> {
        let what = format!("write about {} to the control log", change.subject());
        let deadline = Instant::now() + self.inner.patience;
        timeout_at(deadline, self.ready()).await.map_err(|_| {
            Error::outside(
                what.clone(),
                "it was not read to its end yet, so what it says is not known",
            )
            .hint("is the broker up? try again when the host is ready")
        })??;
        let id = Uuid::new_v4();
        if let Some(outcome) = self.foregone(&what, &change, id)? {
            return Ok(outcome);
        }
        let at = clock::now_micros() / 1000;
        let (by, host) = (by.to_owned(), self.inner.host.clone());
        let entry = Entry {
            format: FORMAT,
            id,
            at,
            by,
            host,
            change,
        };
        let key = entry.key();
        let value = serde_json::to_vec(&entry).map_err(|error| Error::bug(what.clone(), error))?;
        if value.len() > MAX_ENTRY {
            let detail = format!(
                "the entry has {} bytes; at most {MAX_ENTRY} fit",
                value.len()
            );
            return Err(Error::config(what, detail).hint("shorten the overlay"));
        }
        let waiter = Waiter::new(&self.inner.shared, id);
        self.inner
            .log
            .append(vec![(key.clone().into_bytes(), Some(value))])
            .await?;
        let applied = waiter.wait(&what, deadline).await?;
        self.tidy(&applied, key).await;
        outcome(&what, applied)?.ok_or_else(|| Error::bug(what, "its own entry was not understood"))
    }

    /// What is known without writing: a change the state would refuse, or that says what it says already.
    fn foregone(&self, what: &str, change: &Change, id: Uuid) -> Result<Option<Outcome>> {
        let state = self.state();
        if let Change::Deploy {
            pipeline, revision, ..
        } = change
        {
            let last = state.pipeline(pipeline).map_or(0, |last| last.revision);
            if *revision > last + 1 {
                let reason = format!(
                    "revision {revision} of pipeline {pipeline:?} cannot follow: it is at revision {last} now"
                );
                return Ok(Some(Outcome::Rejected(reason)));
            }
        }
        match state.judge(change, id) {
            Applied::Accepted => Ok(None),
            Applied::Ignored { reason } => {
                Err(Error::config(what, reason).hint("correct it and try again"))
            }
            applied => outcome(what, applied),
        }
    }

    /// Removes this host's own record that lost, and now and then what says nothing any more. It only saves room:
    /// a failure is nobody's.
    async fn tidy(&self, applied: &Applied, key: String) {
        let mut keys = match applied {
            Applied::Rejected { .. } => vec![key],
            _ => Vec::new(),
        };
        if self.state().removable.len() >= TIDY {
            keys = self.state().removable();
        }
        if keys.is_empty() {
            return;
        }
        let removals: Vec<Write> = keys
            .into_iter()
            .map(|key| (key.into_bytes(), None))
            .collect();
        let count = removals.len();
        match self.inner.log.append(removals).await {
            Ok(()) => tracing::debug!(records = count, "control log tidied"),
            Err(error) => tracing::info!(records = count, %error, "control log not tidied"),
        }
    }

    /// Keeps a blob here and in the log. What the log has already is not written again.
    ///
    /// # Errors
    /// `Data`: the bytes have another digest, or are too many. `Config`: the log refuses or is gone. `Outside`: the
    /// disk refuses, or not known within 10 s whether the log has it.
    pub async fn put_blob(&self, digest: &str, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes: Bytes = bytes.into();
        let (store, copy, name) = (self.store().clone(), bytes.clone(), digest.to_owned());
        task::blocking(move || {
            if store.have(&name) {
                Ok(())
            } else {
                store.put(&name, &copy)
            }
        })
        .await??;
        let what = format!("write plugin {digest} to the control log");
        self.ready().await?;
        if self.state().blob(digest).is_some() {
            return Ok(());
        }
        let size = bytes.len() as u64;
        let chunks = store::chunks_of(size)
            .ok_or_else(|| Error::bug(what.clone(), "kept, but too large"))?;
        let numbered: Vec<(u32, &[u8])> = (0..chunks).zip(bytes.chunks(CHUNK)).collect();
        for burst in numbered.chunks(BURST) {
            let records = burst.iter().map(|(number, chunk)| {
                (
                    format!("blob/{digest}/{number}").into_bytes(),
                    Some(chunk.to_vec()),
                )
            });
            self.inner.log.append(records.collect()).await?;
        }
        let head = BlobHead {
            format: FORMAT,
            size,
            chunks,
        };
        let value = serde_json::to_vec(&head).map_err(|error| Error::bug(what.clone(), error))?;
        let mut changed = self.changed();
        self.inner
            .log
            .append(vec![(
                format!("blob/{digest}/head").into_bytes(),
                Some(value),
            )])
            .await?;
        let deadline = Instant::now() + self.inner.patience;
        let seen =
            changed.wait_for(|_| self.state().blob(digest).is_some() || self.lost().is_some());
        match timeout_at(deadline, seen).await {
            Err(_) => Err(unknown(&what)),
            Ok(Err(error)) => Err(Error::bug(what, error)),
            Ok(Ok(_)) => self.lost().map_or(Ok(()), Err),
        }
    }

    /// A blob, its digest checked: from this host's disk, or, where it is missing or damaged there, from the log
    /// again. Blocks: off any runtime's threads.
    ///
    /// # Errors
    /// `Config`: the log does not hold it. `Outside`: the disk refuses, or the log cannot be read now.
    pub fn blob(&self, digest: &str) -> Result<Vec<u8>> {
        if let Some(bytes) = self.store().read(digest)? {
            return Ok(bytes);
        }
        let what = format!("load plugin {digest}");
        if self.state().blob(digest).is_none() {
            return Err(Error::config(what, "the control log does not hold it")
                .hint("upload the plugin again"));
        }
        let _one = self.inner.restoring.lock();
        self.restore(digest)?;
        self.store().read(digest)?.ok_or_else(|| {
            Error::outside(
                what,
                "it was read from the control log, and is damaged on disk again",
            )
            .hint("check the disk of the host's cache folder")
        })
    }

    /// Reads the log again for one blob.
    fn restore(&self, digest: &str) -> Result<()> {
        let what = format!("read plugin {digest} from the control log again");
        let (sender, done) = blocking::channel();
        let (store, wanted) = (self.store().clone(), digest.to_owned());
        let follower = self.inner.log.follow(Box::new(move |event| match event {
            Event::Record {
                key,
                value: Some(value),
                ..
            } => {
                match Key::parse(key) {
                    Some(Key::Chunk { digest, number }) if digest == wanted => {
                        take_chunk(&store, digest, number, value)
                    }
                    Some(Key::Head { digest }) if digest == wanted => {
                        let finished = serde_json::from_slice(value)
                            .ok()
                            .map(|head| store.finish(digest, head));
                        if let Some(finished) = finished {
                            sender.send(finished).ok();
                            return ControlFlow::Break(());
                        }
                    }
                    _ => {}
                }
                ControlFlow::Continue(())
            }
            Event::Record { value: None, .. } => ControlFlow::Continue(()),
            Event::CaughtUp => {
                let missing = Error::config(
                    "find a plugin in the control log",
                    "it is not there any more",
                );
                sender
                    .send(Err(missing.hint("upload the plugin again")))
                    .ok();
                ControlFlow::Break(())
            }
            Event::Lost(error) => {
                sender.send(Err(error)).ok();
                ControlFlow::Break(())
            }
        }))?;
        let outcome = done.recv_timeout(RESTORE);
        drop(follower);
        outcome.map_err(|error| Error::outside(what, error).hint("is the broker up?"))?
    }
}

/// What an applied change means to its writer; `None` for one that was not understood.
fn outcome(what: &str, applied: Applied) -> Result<Option<Outcome>> {
    match applied {
        Applied::Accepted | Applied::Repeated => Ok(Some(Outcome::Accepted)),
        Applied::Rejected { reason } => Ok(Some(Outcome::Rejected(reason))),
        Applied::Newer => Err(Error::config(
            what,
            "a newer host has written about it what this one does not understand; what runs here stays as it is",
        )
        .hint("upgrade this host, or send this to an upgraded one")),
        Applied::Ignored { .. } => Ok(None),
    }
}

/// A chunk that is none is let pass.
fn take_chunk(store: &BlobStore, digest: &str, number: u32, chunk: &[u8]) {
    if number < store::MAX_CHUNKS && chunk.len() <= CHUNK {
        store.chunk(digest, number, chunk);
    }
}
