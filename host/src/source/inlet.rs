//! The bounded way from a source's thread to a lane: batches in order, bounded in records and bytes.
//!
//! [`Inlet`] is the source's end, [`Outlet`] the lane's. The bound is kept by hysteresis: the source pauses
//! a partition when [`Inlet::is_full`] and resumes it when [`Inlet::has_room`], so that pausing (which
//! throws prefetched records away) is rare. The channel itself is unbounded because its content is bounded
//! by those marks plus what one fetch had already returned; nothing is ever dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::record::Batch;

/// Full at this many records waiting for a lane.
const HIGH_RECORDS: usize = 16_384;
/// Full at this many bytes waiting for a lane.
const HIGH_BYTES: usize = 4 << 20;
/// Room again below this share of the marks.
const LOW_SHARE: usize = 4;

#[derive(Debug, Default)]
struct Level {
    records: AtomicUsize,
    bytes: AtomicUsize,
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
        Outlet { receiver, level },
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
    /// The next batch; `None` when the source has dropped the inlet and everything was read. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Batch> {
        let batch = self.receiver.recv().await?;
        self.take(&batch);
        Some(batch)
    }

    /// The next batch, if one waits.
    pub fn try_recv(&mut self) -> Option<Batch> {
        let batch = self.receiver.try_recv().ok()?;
        self.take(&batch);
        Some(batch)
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
}
