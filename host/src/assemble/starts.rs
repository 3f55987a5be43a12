//! [`Starts`]: the order in which pipelines start side by side. All look at what they need (files, tables) before the
//! first connects its source: looks are short and make the host ready, sources are many threads each and would be in
//! their way. It waits for nobody who takes long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How long a source waits at most for the looks of other pipelines: their database may be away.
const PATIENCE: Duration = Duration::from_millis(250);

/// The pipelines of a host that are starting. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Starts {
    /// How many are looking.
    looking: Arc<watch::Sender<usize>>,
}

/// A pipeline looks at what it needs until this is dropped.
#[derive(Debug)]
pub(super) struct Looking(Arc<watch::Sender<usize>>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.send_modify(|looking| *looking -= 1);
    }
}

impl Starts {
    pub(super) fn new() -> Self {
        Self {
            looking: Arc::new(watch::channel(0).0),
        }
    }

    /// A pipeline begins to look at what it needs.
    pub(super) fn look(&self) -> Looking {
        self.looking.send_modify(|looking| *looking += 1);
        Looking(Arc::clone(&self.looking))
    }

    /// Waits until no pipeline looks any more, but not long.
    pub(super) async fn turn(&self) {
        let mut looking = self.looking.subscribe();
        let over = looking.wait_for(|looking| *looking == 0);
        tokio::time::timeout(PATIENCE, over).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_source_waits_for_all_looks_and_for_none_that_takes_long() {
        let starts = Starts::new();
        assert!(starts.turn().now_or_never().is_some(), "nobody looks");
        let (one, other) = (starts.look(), starts.look());
        let mut turn = Box::pin(starts.turn());
        assert!((&mut turn).now_or_never().is_none(), "two look");
        drop(one);
        assert!((&mut turn).now_or_never().is_none(), "one looks");
        drop(other);
        assert!(turn.now_or_never().is_some(), "all have looked");
        let _away = starts.look();
        let begin = tokio::time::Instant::now();
        starts.turn().await;
        assert!(begin.elapsed() >= PATIENCE, "it was waited for");
    }
}
