//! The bounded way from a source's thread to a lane: batches in order, bounded in records and bytes.
//!
//! [`Inlet`] is the source's end, [`Outlet`] the lane's. The bound is kept by hysteresis: the source pauses
//! a partition when [`Inlet::is_full`] and resumes it when [`Inlet::has_room`], so that pausing (which
//! throws prefetched records away) is rare. The channel itself is unbounded because its content is bounded
//! by those marks plus what one fetch had already returned; nothing is ever dropped.
//!
//! Batches a lane has finished with go back the same way ([`Outlet::recycle`], [`Inlet::spare`]), so that a
//! busy lane allocates nothing: fresh memory costs more than the copy into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::record::Batch;

/// Full at this many records waiting for a lane.
const HIGH_RECORDS: usize = 16_384;
/// Full at this many bytes waiting for a lane.
const HIGH_BYTES: usize = 4 << 20;
/// Room again below this share of the marks.
const LOW_SHARE: usize = 4;
/// Batches are joined up to this many records …
const JOIN_RECORDS: usize = 1024;
/// … and this many bytes (the copy is paid only by batches that were small to begin with).
const JOIN_BYTES: usize = 1 << 20;
/// Batches kept for reuse: one being filled, one being read.
const SPARE: usize = 2;

#[derive(Debug, Default)]
struct Level {
    records: AtomicUsize,
    bytes: AtomicUsize,
    // A lock, taken once a batch by two threads for a push or a pop.
    spare: Mutex<Vec<Batch>>,
}

impl Level {
    fn recycle(&self, batch: Batch) {
        let mut spare = self.spare.lock();
        if spare.len() < SPARE {
            spare.push(batch);
        }
    }
}

/// The source's end.
#[derive(Clone, Debug)]
pub struct Inlet {
    sender: mpsc::UnboundedSender<Batch>,
    level: Arc<Level>,
}

/// The lane's end.
#[derive(Debug)]
pub struct Outlet {
    receiver: mpsc::UnboundedReceiver<Batch>,
    level: Arc<Level>,
    /// Taken from the channel, too large to join the batch before it.
    held: Option<Batch>,
}

/// How much waits for a lane, for whoever is neither of the two ends.
#[derive(Clone, Debug)]
pub struct Waiting(Arc<Level>);

impl Waiting {
    /// Records handed over and not taken yet.
    #[must_use]
    pub fn records(&self) -> usize {
        self.0.records.load(Ordering::Relaxed)
    }
}

/// A new, empty way from a source to a lane.
#[must_use]
pub fn channel() -> (Inlet, Outlet) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let level = Arc::new(Level::default());
    (
        Inlet {
            sender,
            level: Arc::clone(&level),
        },
        Outlet {
            receiver,
            level,
            held: None,
        },
    )
}

impl Inlet {
    /// Hands a batch over; `Err` gives it back when the lane has ended.
    ///
    /// # Errors
    /// The batch, when nobody will read it.
    pub fn send(&self, batch: Batch) -> Result<(), Box<Batch>> {
        self.level.records.fetch_add(batch.len(), Ordering::Relaxed);
        self.level.bytes.fetch_add(batch.bytes(), Ordering::Relaxed);
        self.sender
            .send(batch)
            .map_err(|refused| Box::new(refused.0))
    }

    /// An empty batch that starts at `from`, made of one the lane has finished with where there is one.
    #[must_use]
    pub fn spare(&self, partition: i32, from: i64) -> Batch {
        match self.level.spare.lock().pop() {
            Some(mut batch) => {
                batch.clear(partition, from);
                batch
            }
            None => Batch::new(partition, from),
        }
    }

    /// A look at what waits; it keeps neither end open.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        Waiting(Arc::clone(&self.level))
    }

    /// Whether the partition should be paused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.level.records.load(Ordering::Relaxed) >= HIGH_RECORDS
            || self.level.bytes.load(Ordering::Relaxed) >= HIGH_BYTES
    }

    /// Whether a paused partition may be resumed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.level.records.load(Ordering::Relaxed) < HIGH_RECORDS / LOW_SHARE
            && self.level.bytes.load(Ordering::Relaxed) < HIGH_BYTES / LOW_SHARE
    }
}

impl Outlet {
    /// The next batch, joined with those that wait behind it as long as it stays small: a lane that commits
    /// slowly then commits more at once. `None` when the source has dropped the inlet and everything was
    /// read. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Batch> {
        let batch = match self.held.take() {
            Some(batch) => batch,
            None => self.receiver.recv().await?,
        };
        Some(self.joined(batch))
    }

    /// The next batch, if one waits; joined like [`Outlet::recv`].
    pub fn try_recv(&mut self) -> Option<Batch> {
        let batch = match self.held.take() {
            Some(batch) => batch,
            None => self.receiver.try_recv().ok()?,
        };
        Some(self.joined(batch))
    }

    /// Gives a batch back whose records are done with, for its memory.
    pub fn recycle(&self, batch: Batch) {
        self.level.recycle(batch);
    }

    fn joined(&mut self, mut batch: Batch) -> Batch {
        while batch.len() < JOIN_RECORDS {
            let Ok(next) = self.receiver.try_recv() else {
                break;
            };
            // A batch that does not follow is never joined: the lane has to see that it does not.
            let fits = batch.to() == next.from()
                && batch.len() + next.len() <= JOIN_RECORDS
                && batch.bytes() + next.bytes() <= JOIN_BYTES;
            if !fits {
                self.held = Some(next);
                break;
            }
            batch.append(&next);
            self.level.recycle(next);
        }
        self.take(&batch);
        batch
    }

    fn take(&self, batch: &Batch) {
        self.level.records.fetch_sub(batch.len(), Ordering::Relaxed);
        self.level.bytes.fetch_sub(batch.bytes(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::record::Record;

    #[test]
    fn fills_by_bytes_and_has_room_again_when_read() {
        let (inlet, mut outlet) = channel();
        let value = vec![0; HIGH_BYTES];
        let mut batch = Batch::new(0, 0);
        batch.push(Record {
            key: None,
            value: Some(&value),
            timestamp: 0,
            offset: 0,
            headers: b"",
            marks: 0,
        });
        assert!(inlet.has_room() && !inlet.is_full());
        inlet.send(batch).unwrap();
        assert!(inlet.is_full() && !inlet.has_room());
        assert_eq!(outlet.try_recv().unwrap().len(), 1);
        assert!(inlet.has_room() && !inlet.is_full());
        drop(outlet);
        assert!(inlet.send(Batch::new(0, 1)).is_err());
    }

    #[test]
    fn small_batches_are_joined_and_large_ones_are_not() {
        let (inlet, mut outlet) = channel();
        let send = |range: std::ops::Range<i64>| {
            let mut batch = Batch::new(0, range.start);
            for offset in range {
                batch.push(Record {
                    key: None,
                    value: Some(b"v"),
                    timestamp: 0,
                    offset,
                    headers: b"",
                    marks: 0,
                });
            }
            inlet.send(batch).unwrap();
        };
        send(0..10);
        send(10..30);
        send(30..1040);
        send(1040..1041);
        let first = outlet.try_recv().unwrap();
        assert_eq!((first.from(), first.to(), first.len()), (0, 30, 30));
        assert_eq!(first.record(29).offset, 29);
        let second = outlet.try_recv().unwrap();
        assert_eq!((second.from(), second.to()), (30, 1041));
        outlet.recycle(second);
        let spare = inlet.spare(7, 1041);
        assert_eq!((spare.partition(), spare.from(), spare.len()), (7, 1041, 0));
        assert!(outlet.try_recv().is_none());
        assert!(inlet.has_room());
    }
}
