//! Everything the broker knows, and the rules that touch more than one part of it.
//!
//! Owns the one lock. Never waits while holding it.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::groups::Groups;
use crate::refused::Refused;
use crate::topics::Topics;
use crate::transactions::{Ended, Transactions};

/// The broker's records, groups and producers.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
    /// Whether it says of itself that it is not the coordinator.
    pub(crate) coordinator_moved: bool,
}

impl State {
    /// Deletes a topic, its records and what groups committed for it.
    ///
    /// # Errors
    /// When there is no such topic.
    pub(crate) fn delete_topic(&mut self, name: &str) -> Result<(), Refused> {
        self.topics.delete(name)?;
        self.groups.forget_topic(name);
        Ok(())
    }

    /// Carries out the end of a transaction: markers into the logs, offsets into the groups.
    pub(crate) fn settle(&mut self, ended: Ended) {
        let now_ms = wall_clock_ms();
        for (topic, partition) in &ended.partitions {
            // A partition that was deleted meanwhile needs no marker.
            if let Ok(log) = self.topics.partition_mut(topic, *partition) {
                log.end_transaction(
                    ended.producer.id,
                    ended.producer.epoch,
                    ended.outcome,
                    now_ms,
                );
            }
        }
        if ended.outcome == crate::batch::Outcome::Commit {
            for offset in ended.offsets {
                let offsets = &mut self.groups.entry(&offset.group).offsets;
                offsets.commit(&offset.topic, offset.partition, offset.committed);
            }
        }
    }

    /// Lets time pass. Returns whether readers may find something new.
    fn tick(&mut self, now: Instant) -> bool {
        self.groups.tick(now);
        let ended = self.transactions.tick(now);
        let any = !ended.is_empty();
        for ended in ended {
            self.settle(ended);
        }
        any
    }
}

/// What every connection and the handle share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Taken by connections on the broker's thread and by the handle's helpers on any other, always for a moment:
    /// a plain lock is right, and none is ever held across an await.
    state: Mutex<State>,
    /// Wakes fetches that wait for records.
    grown: Notify,
    /// Wakes the timer, because a deadline may have moved.
    rescheduled: Notify,
    /// Where clients reach us.
    pub(crate) address: SocketAddr,
    /// Where clients are told to connect.
    pub(crate) advertised: SocketAddr,
    /// Partitions of topics created on first use; `None` refuses unknown topics.
    pub(crate) auto_create: Option<i32>,
}

impl Shared {
    pub(crate) fn new(
        address: SocketAddr,
        advertised: SocketAddr,
        auto_create: Option<i32>,
    ) -> Self {
        Self {
            state: Mutex::new(State::default()),
            grown: Notify::new(),
            rescheduled: Notify::new(),
            address,
            advertised,
            auto_create,
        }
    }

    /// The state, locked.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Tells waiting fetches to look again.
    pub(crate) fn wake_readers(&self) {
        self.grown.notify_waiters();
    }

    /// Resolves at the next [`Shared::wake_readers`]; enable it before looking, or a wake-up may be missed.
    pub(crate) fn woken(&self) -> tokio::sync::futures::Notified<'_> {
        self.grown.notified()
    }

    /// Tells the timer that deadlines may have moved.
    pub(crate) fn reschedule(&self) {
        self.rescheduled.notify_one();
    }

    /// Expires sessions, rebalances and transactions when their time comes; never returns.
    pub(crate) async fn keep_time(&self) {
        loop {
            let now = Instant::now();
            let next = {
                let mut state = self.lock();
                if state.tick(now) {
                    self.wake_readers();
                }
                let groups = state.groups.next_deadline(now);
                groups
                    .into_iter()
                    .chain(state.transactions.next_deadline())
                    .min()
            };
            let rescheduled = self.rescheduled.notified();
            match next {
                // elapsed or rescheduled: either way look again
                Some(next) => drop(tokio::time::timeout_at(next.into(), rescheduled).await),
                None => rescheduled.await,
            }
        }
    }
}

/// Milliseconds since 1970; 0 when the clock is before that.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
