//! What a pipeline waits for outside: which server, since when, what it said last.
//!
//! [`Waits`] belongs to the pipeline, a [`Waiter`] to whatever tries again and again: a lane, a claim, the source, the
//! start of the pipeline. It says when an attempt failed and when it got on; dropped, it waits no more (the lane was
//! given away, the pipeline stopped). Retries nothing itself.
//!
//! A waiter waits for one server at a time, the one that failed it last; how long each has failed it is remembered
//! until it gets on, so that two servers that fail in turns do not hide how long that goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::now_micros;
use crate::error::{Blame, Error};

/// A server that a pipeline waits for, all its partitions together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The server in the words of the config, e.g. `postgres.main`.
    pub server: String,
    /// When it first failed, with nothing that got on since; milliseconds since 1970.
    pub since_millis: i64,
    /// How long ago that is.
    pub lasts: Duration,
    /// Failed attempts since then, of all partitions.
    pub attempts: u64,
    /// The partitions, ascending; empty where the whole pipeline waits.
    pub partitions: Vec<i32>,
    /// The last failure.
    pub error: Error,
}

/// A server that failed a waiter.
#[derive(Debug)]
struct Failing {
    server: String,
    since: Instant,
    since_millis: i64,
    last: Instant,
    attempts: u64,
    error: Error,
}

/// A waiter that waits.
#[derive(Debug)]
struct Entry {
    partitions: Arc<[i32]>,
    /// Never empty; the last is what is waited for now.
    failing: Vec<Failing>,
}

impl Entry {
    fn now(&self) -> Option<&Failing> {
        self.failing.last()
    }
}

/// What somebody should be told.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Nobody waited for the server before.
    Began(String),
    /// Nobody waits for it any more; how long somebody did.
    Ended(String, Duration),
}

/// Who waits, without locks and clocks.
#[derive(Debug, Default)]
struct State {
    /// By the number of the waiter.
    waiting: BTreeMap<u64, Entry>,
    /// Since when anybody waits for a server.
    told: BTreeMap<String, Instant>,
}

impl State {
    fn failed(
        &mut self,
        waiter: u64,
        partitions: &Arc<[i32]>,
        server: &str,
        error: &Error,
        now: Instant,
    ) -> Vec<News> {
        let entry = self.waiting.entry(waiter).or_insert_with(|| Entry {
            partitions: Arc::clone(partitions),
            failing: Vec::new(),
        });
        let known = entry.failing.iter().position(|one| one.server == server);
        let mut failing = match known {
            Some(at) => entry.failing.remove(at),
            None => Failing {
                server: server.to_owned(),
                since: now,
                since_millis: now_micros() / 1000,
                last: now,
                attempts: 0,
                error: error.clone(),
            },
        };
        failing.attempts += 1;
        failing.last = now;
        failing.error = error.clone();
        entry.failing.push(failing);
        self.news(now)
    }

    fn done(&mut self, waiter: u64, now: Instant) -> Vec<News> {
        self.waiting.remove(&waiter);
        self.news(now)
    }

    fn news(&mut self, now: Instant) -> Vec<News> {
        let mut waited: BTreeMap<&str, Instant> = BTreeMap::new();
        for failing in self.waiting.values().filter_map(Entry::now) {
            let since = waited.entry(&failing.server).or_insert(failing.since);
            *since = failing.since.min(*since);
        }
        let mut news = Vec::new();
        self.told.retain(|server, since| {
            let stays = waited.contains_key(server.as_str());
            if !stays {
                let took = now.saturating_duration_since(*since);
                news.push(News::Ended(server.clone(), took));
            }
            stays
        });
        for (server, since) in waited {
            if !self.told.contains_key(server) {
                self.told.insert(server.to_owned(), since);
                news.push(News::Began(server.to_owned()));
            }
        }
        news
    }

    fn seen(&self, now: Instant) -> Vec<Waiting> {
        let mut seen: BTreeMap<&str, (Waiting, Instant)> = BTreeMap::new();
        for entry in self.waiting.values() {
            let Some(failing) = entry.now() else { continue };
            let (one, last) = seen.entry(&failing.server).or_insert_with(|| {
                let one = Waiting {
                    server: failing.server.clone(),
                    since_millis: failing.since_millis,
                    lasts: Duration::ZERO,
                    attempts: 0,
                    partitions: Vec::new(),
                    error: failing.error.clone(),
                };
                (one, failing.last)
            });
            one.since_millis = one.since_millis.min(failing.since_millis);
            let lasts = now.saturating_duration_since(failing.since);
            one.lasts = one.lasts.max(lasts);
            one.attempts += failing.attempts;
            one.partitions.extend(&*entry.partitions);
            if failing.last > *last {
                *last = failing.last;
                one.error = failing.error.clone();
            }
        }
        let mut seen: Vec<Waiting> = seen.into_values().map(|(one, _)| one).collect();
        for one in &mut seen {
            one.partitions.sort_unstable();
            one.partitions.dedup();
        }
        seen
    }
}

/// What a pipeline waits for; see the module.
#[derive(Debug, Default)]
pub(super) struct Waits {
    // Taken when an attempt failed, by the first success after that, and by readers, who copy a few lines under it; never
    // on the way of a record, and no await crosses it.
    state: Mutex<State>,
    waiters: AtomicU64,
}

impl Waits {
    /// What is waited for now, by server.
    pub(super) fn seen(&self) -> Vec<Waiting> {
        self.state.lock().seen(Instant::now())
    }

    pub(super) fn waiter(
        self: &Arc<Self>,
        pipeline: &Arc<str>,
        server: Option<String>,
        partitions: &[i32],
    ) -> Waiter {
        Waiter {
            number: self.waiters.fetch_add(1, Ordering::Relaxed),
            waits: Arc::clone(self),
            pipeline: Arc::clone(pipeline),
            server,
            partitions: partitions.into(),
            waiting: AtomicBool::new(false),
        }
    }
}

/// Something that tries again and again; see the module.
#[derive(Debug)]
pub struct Waiter {
    waits: Arc<Waits>,
    number: u64,
    pipeline: Arc<str>,
    /// Who failed where an error does not say.
    server: Option<String>,
    partitions: Arc<[i32]>,
    /// Only its owner changes it, so that getting on costs a look at it and nothing else.
    waiting: AtomicBool,
}

impl Waiter {
    /// An attempt failed and is going to be repeated; `what` says so in the log. Only the fault of a server is waited
    /// for, and only where it is known whose.
    pub fn failed(&self, error: &Error, what: &str) {
        let server = error.server().or(self.server.as_deref());
        let (pipeline, partitions) = (&*self.pipeline, &*self.partitions);
        let Some(server) = server.filter(|_| error.blame() == Blame::Outside) else {
            tracing::warn!(pipeline, ?partitions, error = %error, "{what}");
            return;
        };
        self.waiting.store(true, Ordering::Relaxed);
        let (number, now) = (self.number, Instant::now());
        let news = {
            let mut state = self.waits.state.lock();
            state.failed(number, &self.partitions, server, error, now)
        };
        let began = |one: &News| matches!(one, News::Began(began) if began == server);
        if news.iter().any(began) {
            tracing::warn!(
                pipeline, server, ?partitions, error = %error, hint = error.hint_text(), "waiting: {what}"
            );
        } else {
            tracing::debug!(pipeline, server, ?partitions, error = %error, "{what}");
        }
        self.tell(news);
    }

    /// It got on.
    pub fn done(&self) {
        if !self.waiting.load(Ordering::Relaxed) {
            return;
        }
        self.waiting.store(false, Ordering::Relaxed);
        let news = self.waits.state.lock().done(self.number, Instant::now());
        self.tell(news);
    }

    /// Whether it waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    fn tell(&self, news: Vec<News>) {
        let pipeline = &*self.pipeline;
        for one in news {
            if let News::Ended(server, took) = one {
                let seconds = took.as_millis() as f64 / 1000.0;
                tracing::info!(pipeline, server, seconds, "no longer waiting");
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.done();
    }
}

#[cfg(test)]
mod tests;
