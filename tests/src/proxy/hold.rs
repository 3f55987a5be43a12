//! A request caught on its way: who waits for whom.
//!
//! It owns what handle and connection tell each other. The bytes stay with the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::Request;

type Wanted = dyn Fn(&Request<'_>) -> bool + Send + Sync;

/// What became of a request that was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was handed to the server, whose connection was open.
    Delivered,
    /// The server had closed the connection before: it never arrived.
    ServerGone,
    /// The link swallowed it: it never arrived.
    Swallowed,
    /// The proxy closed the connection while it was held: it never arrived.
    Closed,
}

/// How far a hold has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) caught: bool,
    pub(super) sender_gone: bool,
    pub(super) answered: bool,
    pub(super) outcome: Option<Outcome>,
}

/// The connection's side of a [`Hold`].
pub(super) struct Caught {
    wanted: Box<Wanted>,
    taken: AtomicBool,
    /// Watches, because both sides only wait for the latest word of the other.
    go: watch::Sender<bool>,
    cut_off: watch::Sender<bool>,
    progress: watch::Sender<Progress>,
}

impl std::fmt::Debug for Caught {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caught")
            .field("go", &*self.go.borrow())
            .field("progress", &*self.progress.borrow())
            .finish_non_exhaustive()
    }
}

impl Caught {
    pub(super) fn new(wanted: impl Fn(&Request<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self {
            wanted: Box::new(wanted),
            taken: AtomicBool::new(false),
            go: watch::Sender::new(false),
            cut_off: watch::Sender::new(false),
            progress: watch::Sender::default(),
        }
    }

    /// Whether this request is the one; true once.
    pub(super) fn takes(&self, request: &Request<'_>) -> bool {
        let free = !self.taken.load(Ordering::SeqCst) && !self.is_going();
        let takes = free && (self.wanted)(request) && !self.taken.swap(true, Ordering::SeqCst);
        if takes {
            self.progress.send_modify(|now| now.caught = true);
        }
        takes
    }

    pub(super) fn let_go(&self) {
        self.go.send_replace(true);
    }

    pub(super) fn is_going(&self) -> bool {
        *self.go.borrow()
    }

    pub(super) fn is_orphaned(&self) -> bool {
        self.progress.borrow().sender_gone
    }

    /// Ends when it is let go.
    pub(super) async fn wait(&self) {
        let mut go = self.go.subscribe();
        // the sender is `self`: it lives
        go.wait_for(|go| *go).await.unwrap();
    }

    /// Ends when its sender is to be cut off.
    pub(super) async fn is_cut_off(&self) {
        let mut cut_off = self.cut_off.subscribe();
        // the sender is `self`: it lives
        cut_off.wait_for(|cut_off| *cut_off).await.unwrap();
    }

    pub(super) fn sender_gone(&self) {
        self.progress.send_modify(|now| now.sender_gone = true);
    }

    pub(super) fn answered(&self) {
        self.progress.send_modify(|now| now.answered = true);
    }

    pub(super) async fn is_answered(&self) {
        let mut progress = self.progress.subscribe();
        // the sender is `self`: it lives
        progress.wait_for(|now| now.answered).await.unwrap();
    }

    /// Tells what became of it, once.
    pub(super) fn ends(&self, outcome: Outcome) {
        self.progress.send_modify(|now| {
            now.outcome.get_or_insert(outcome);
        });
    }
}

/// The handle of a request that is to be caught. Dropping it lets the request go.
#[derive(Debug)]
pub struct Hold {
    caught: Arc<Caught>,
}

impl Hold {
    pub(super) fn new(caught: Arc<Caught>) -> Self {
        Self { caught }
    }

    /// Whether the request has come and is or was held.
    pub fn is_caught(&self) -> bool {
        self.caught.progress.borrow().caught
    }

    /// Waits until a request is caught.
    ///
    /// # Panics
    /// None came within that time.
    pub async fn caught(&self, within: Duration) {
        self.until(within, "a request is caught", |now| now.caught)
            .await;
    }

    /// Waits until the client of the caught request has closed its connection or died.
    ///
    /// # Panics
    /// It did not within that time.
    pub async fn orphaned(&self, within: Duration) {
        self.until(within, "the sender is gone", |now| now.sender_gone)
            .await;
    }

    /// Closes the connection to the sender of the caught request, which may connect again; the request stays caught.
    pub fn cut_off(&self) {
        self.caught.cut_off.send_replace(true);
    }

    /// Lets the request go on to the server, or gives up waiting for one.
    pub fn let_go(&self) {
        self.caught.let_go();
    }

    /// What became of the request after [`Self::let_go`].
    ///
    /// # Panics
    /// It is not decided within that time.
    pub async fn outcome(&self, within: Duration) -> Outcome {
        let ended = self.until(within, "the caught request has an outcome", |now| {
            now.outcome.is_some()
        });
        ended.await.outcome.unwrap()
    }

    /// Waits until the server has sent something after the caught request reached it: until it has acted.
    ///
    /// # Panics
    /// It did not within that time.
    pub async fn answered(&self, within: Duration) {
        self.until(within, "the server answers", |now| now.answered)
            .await;
    }

    async fn until(
        &self,
        within: Duration,
        what: &str,
        done: impl FnMut(&Progress) -> bool,
    ) -> Progress {
        let mut progress = self.caught.progress.subscribe();
        match tokio::time::timeout(within, progress.wait_for(done)).await {
            Ok(now) => *now.unwrap(),
            Err(_) => panic!("{what}: not within {within:?}"),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.caught.let_go();
    }
}
