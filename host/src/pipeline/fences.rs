//! Partitions whose lane was fenced: another owner is at work there, or was (rule 6).
//!
//! [`Fences`] is what an assigned partition remembers of it, [`Pause`] the wait before it is claimed again. Neither claims
//! anything: that is the supervisor's.

use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::source::SourceCommand;

/// How often the lane of an assigned partition was fenced.
#[derive(Default)]
pub(super) struct Fences {
    count: u32,
    /// Held while the next claim is waited for: dropped with the partition, it ends the wait.
    _waits: Option<oneshot::Receiver<()>>,
}

/// A session time-out, longer each time.
pub(super) struct Pause {
    lasts: Duration,
    /// Closed when the partition is taken away.
    held: oneshot::Sender<()>,
}

impl Fences {
    /// The lane was fenced after it `ran` for so long.
    pub(super) fn another(&mut self, ran: Duration, session_timeout: Duration) -> Pause {
        let pause = |fenced: u32| session_timeout * (1 << fenced.min(4));
        // One that ran for longer than it had waited was no duel.
        if ran > pause(self.count) {
            self.count = 0;
        }
        let lasts = pause(self.count);
        let (held, waits) = oneshot::channel();
        *self = Self {
            count: self.count + 1,
            _waits: Some(waits),
        };
        Pause { lasts, held }
    }
}

impl Pause {
    /// Waits, and asks for the partition to be claimed again when the broker takes an advisory commit of this member:
    /// then it is still this host's. Ends without a word when the partition is taken away or the pipeline stops.
    pub(super) async fn then_ask(
        mut self,
        partition: i32,
        source: blocking::Sender<SourceCommand>,
        reclaim: mpsc::UnboundedSender<i32>,
    ) {
        loop {
            // Neither a partition that was taken away nor a pipeline that stops waits for this pause.
            tokio::select! {
                biased;
                () = self.held.closed() => return,
                () = reclaim.closed() => return,
                () = tokio::time::sleep(self.lasts) => {}
            }
            let (taken, answer) = oneshot::channel();
            let advise = SourceCommand::Advise {
                partition,
                position: -1,
                taken: Some(taken),
            };
            if source.send(advise).is_err() {
                return;
            }
            if answer.await.unwrap_or(false) {
                reclaim.send(partition).ok();
                return;
            }
        }
    }
}
