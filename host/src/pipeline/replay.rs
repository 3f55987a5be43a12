//! [`Replay`]: a release once more over records that were processed already, with its sinks off: for checks.
//!
//! It runs them as a lane does (decode, call, check, bisect) and stops there: nothing is merged, stamped or written. Each
//! batch gets an instance of its own, so that a plugin which remembers what it saw gives itself away.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::conduct::{Conduct, Place};
use super::process::{Processed, Processor};
use super::release::Release;
use crate::error::Error;
use crate::record::{Batch, RowBatch};
use crate::route::DeadLetter;

/// A release that processes records again.
#[derive(Debug)]
pub struct Replay {
    release: Arc<Release>,
    processor: Processor,
    spare: Processed,
}

/// What became of the records of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Replayed<'a> {
    /// The records.
    pub batch: &'a Batch,
    /// Checked rows by route index, in (offset, row) order.
    pub rows: &'a [RowBatch],
    /// Records set aside, ascending.
    pub dead: &'a [DeadLetter],
}

impl Replay {
    /// A replay.
    ///
    /// # Errors
    /// The release's input cannot be decoded.
    pub fn new(release: &Arc<Release>) -> Result<Self, Error> {
        // It runs on no shard: it is a burden to nobody.
        let place = Place::Quarantine {
            calm: Duration::MAX,
        };
        Ok(Self {
            processor: release.processor(Rc::new(Conduct::new(place)))?,
            release: Arc::clone(release),
            spare: Processed::default(),
        })
    }

    /// The release.
    #[must_use]
    pub fn release(&self) -> &Arc<Release> {
        &self.release
    }

    /// Processes a batch.
    ///
    /// # Errors
    /// What would stop the pipeline.
    pub async fn run(&mut self, batch: Batch) -> Result<Replayed<'_>, Error> {
        self.processor.renew();
        let reuse = std::mem::take(&mut self.spare);
        self.spare = self.processor.process(batch, reuse).await?;
        Ok(Replayed {
            batch: &self.spare.batch,
            rows: &self.spare.rows,
            dead: &self.spare.dead,
        })
    }
}
