//! [`Jobs`]: what other threads have the control thread do, whose runtime goes on when they do not wait any more:
//! it drives the connections that a look at the servers opens.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};

/// A future of the control thread.
type Job = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// Where jobs are handed in.
#[derive(Clone, Debug)]
pub(super) struct Jobs(mpsc::UnboundedSender<Job>);

/// Jobs that were handed in; the control thread [does](Asked::answer) them.
pub(super) struct Asked(mpsc::UnboundedReceiver<Job>);

/// Where jobs are handed in and where they come out.
pub(super) fn jobs() -> (Jobs, Asked) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Jobs(sender), Asked(receiver))
}

impl Jobs {
    /// Does something on the control thread, whose runtime drives the connections it opens. It goes on there when
    /// nobody waits for it any more.
    ///
    /// # Errors
    /// Its own; `Outside` when it takes longer than `patience`, or the host is stopping.
    pub(super) async fn at_work<T: Send + 'static>(
        &self,
        what: &'static str,
        patience: Duration,
        work: impl FnOnce() -> LocalBoxFuture<'static, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            async move {
                let late = || Error::outside(what, format!("no answer within {patience:?}"));
                let done = tokio::time::timeout(patience, work()).await;
                tell.send(done.unwrap_or_else(|_| Err(late()))).ok();
            }
            .boxed_local()
        });
        let ended = || Error::outside(what, "the host is stopping");
        self.0.send(job).map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }
}

impl Asked {
    /// Does what other threads ask for, several things at once, for ever.
    pub(super) async fn answer(mut self) {
        let mut running = futures_util::stream::FuturesUnordered::new();
        loop {
            tokio::select! {
                job = self.0.recv() => match job {
                    Some(job) => running.push(job()),
                    None => return std::future::pending().await,
                },
                Some(()) = running.next(), if !running.is_empty() => {}
            }
        }
    }
}
