//! [`Retries`]: how many dead letters of the pipelines on one database were retried, for whoever asks for a status.
//!
//! One question is under way at a time and answers for all pipelines, so neither their number nor that of those who ask
//! costs the database anything. It goes on when nobody waits for it any more: the next one finds its answer. It never
//! says that nothing was retried where nobody knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::jobs::Jobs;
use crate::anchor::Redriven;
use crate::config::PostgresConnection;
use crate::postgres::{Retried, RetriedCounts};

/// How old an answer may be.
const FRESH: Duration = Duration::from_secs(2);
/// How long a question may be under way.
const PATIENCE: Duration = Duration::from_secs(15);

/// What one database tells.
#[derive(Debug)]
pub(super) struct Retries {
    database: Retried,
    /// Held while a question is under way: who asks meanwhile waits for its answer.
    turn: Arc<tokio::sync::Mutex<()>>,
    // Short: a look or a store; no await crosses it.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the database told, or refused to.
    asked: Option<Instant>,
    /// What it told last; `None`: nothing that holds any more.
    counts: Option<RetriedCounts>,
    /// Times that what was known was forgotten.
    forgotten: u64,
}

impl Retries {
    /// Of a database of the config; nobody asked it yet.
    pub(super) fn new(postgres: &PostgresConnection) -> Self {
        Self {
            database: Retried::new(postgres),
            turn: Arc::default(),
            known: Mutex::default(),
        }
    }

    /// The counts of one pipeline by partition: at most a few seconds old, or as they were known last where the
    /// database does not tell within `wait`; `None` where it never told.
    pub(super) async fn of(
        self: &Arc<Self>,
        jobs: &Jobs,
        wait: Duration,
        (pipeline, topic): (&str, &str),
    ) -> Option<BTreeMap<i32, Redriven>> {
        tokio::time::timeout(wait, self.ask(jobs)).await.ok();
        let known = self.known.lock();
        let of = (pipeline.to_owned(), topic.to_owned());
        let counts = known.counts.as_ref()?.get(&of);
        Some(counts.cloned().unwrap_or_default())
    }

    /// Letters were retried here: they are counted anew for the next who asks.
    pub(super) fn forget(&self) {
        let mut known = self.known.lock();
        known.asked = None;
        known.counts = None;
        known.forgotten += 1;
    }

    async fn ask(self: &Arc<Self>, jobs: &Jobs) {
        if self.is_fresh() {
            return;
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if self.is_fresh() {
            return;
        }
        let asked = Arc::clone(self);
        let work = move || {
            async move {
                let _turn = turn;
                asked.look().await;
                Ok(())
            }
            .boxed_local()
        };
        let done = jobs.at_work("count retried dead letters", PATIENCE, work);
        if let Err(error) = done.await {
            tracing::debug!(%error, "retried dead letters not counted");
        }
    }

    fn is_fresh(&self) -> bool {
        let asked = self.known.lock().asked;
        asked.is_some_and(|asked| asked.elapsed() < FRESH)
    }

    async fn look(&self) {
        let before = self.known.lock().forgotten;
        let told = self.database.counts().await;
        let mut known = self.known.lock();
        // What was retried meanwhile may be missing in it.
        if known.forgotten != before {
            return;
        }
        known.asked = Some(Instant::now());
        match told {
            Ok(counts) => known.counts = counts,
            Err(error) => tracing::debug!(%error, "retried dead letters not counted"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;

    use super::*;
    use crate::assemble::jobs::jobs;
    use crate::config::Secret;
    use crate::task;

    const WAIT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_database_that_takes_connections_and_says_nothing_holds_nobody_up_and_is_not_known() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://u@{}/db", listener.local_addr().unwrap());
        let retries = Arc::new(Retries::new(&PostgresConnection {
            url: Secret::new(url),
        }));
        let (jobs, asked) = jobs();
        let all = async {
            let _thread = task::local(asked.answer());
            let start = Instant::now();
            for _ in 0..2 {
                let status = (0..64).map(|_| retries.of(&jobs, WAIT, ("quakes", "prod.quakes")));
                let known = futures_util::future::join_all(status).await;
                assert_eq!(known, vec![None; 64]);
            }
            let took = start.elapsed();
            assert!(took < WAIT * 2 + Duration::from_secs(1), "{took:?}");
            // One question, on one connection, for all of them.
            let one = listener.accept().await.unwrap();
            let more = tokio::time::timeout(WAIT, listener.accept()).await;
            assert!(more.is_err(), "a second connection");
            drop(one);
        };
        LocalSet::new().run_until(all).await;
    }
}
