//! The stop on too many dead letters: `max_rate = "5% of 1000"`.

use crate::error::Error;

/// Counts dead letters in windows of records.
#[derive(Debug)]
pub(super) struct DeadRate {
    limit: Option<(f64, u32)>,
    records: u64,
    dead: u64,
}

impl DeadRate {
    /// `limit` is (share, window in records).
    pub(super) fn new(limit: Option<(f64, u32)>) -> Self {
        Self {
            limit,
            records: 0,
            dead: 0,
        }
    }

    /// Counts a batch before it is committed.
    ///
    /// # Errors
    /// A `Config` error when the current window holds more dead letters than allowed.
    pub(super) fn count(&mut self, records: usize, dead: usize) -> Result<(), Error> {
        let Some((share, window)) = self.limit else {
            return Ok(());
        };
        if self.records >= u64::from(window) {
            self.records = 0;
            self.dead = 0;
        }
        self.records += records as u64;
        self.dead += dead as u64;
        let window = f64::from(window);
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of one window are far below 2^52"
        )]
        let (seen, dead) = (self.records.max(1) as f64, self.dead as f64);
        if dead <= share * window.max(seen) {
            return Ok(());
        }
        Err(Error::config(
            "keep dead letters below errors.max_rate",
            format!(
                "{} of the last {} records were set aside, {:.1} % of {window} are allowed",
                self.dead,
                self.records,
                share * 100.0
            ),
        )
        .hint(
            "look at the dead letters; mend the producer or the plugin, or raise errors.max_rate",
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn stops_past_the_share_of_a_window_and_forgets_old_windows() {
        let mut rate = DeadRate::new(Some((0.05, 1000)));
        rate.count(500, 50).unwrap();
        assert!(rate.count(100, 1).is_err());
        let mut rate = DeadRate::new(Some((0.05, 1000)));
        for _ in 0..10 {
            rate.count(1000, 50).unwrap();
        }
        assert!(DeadRate::new(None).count(1, 1).is_ok());
    }
}
