//! [`Ledger`]: what became of every record of a partition since its first. It moves with the position, in the same
//! step, so that it is as exact as the position is; a ledger that does not balance stops the lane. Pure.
//!
//! What is stored says what flights made of the records, and only flights write it. A dead letter that a retry took
//! away is counted beside it, as [`Redriven`]; [`Ledger::with`] is the one rule by which people are shown both.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Records below a position by what became of them: `records = emitted + filtered + dead`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ledger {
    /// Records read.
    pub records: u64,
    /// Those that became at least one row.
    pub emitted: u64,
    /// Those the plugin dropped on purpose.
    pub filtered: u64,
    /// Those set aside.
    pub dead: u64,
}

/// Records of a partition that were set aside and have been processed again since, by what they became: counted in
/// one step with the removal of their letters. A letter that was dropped is not among them: its record stays dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Those that became rows.
    pub emitted: u64,
    /// Those of which the plugin made none.
    pub filtered: u64,
}

impl Ledger {
    /// The ledger as people read it: a dead letter that was processed again counts as what it became, and no longer
    /// as dead. It balances as the stored one does.
    #[must_use]
    pub fn with(self, redriven: Redriven) -> Self {
        // The counts may be read a moment after the ledger: no more were dead than it says.
        let emitted = redriven.emitted.min(self.dead);
        let filtered = redriven.filtered.min(self.dead - emitted);
        Self {
            records: self.records,
            emitted: self.emitted + emitted,
            filtered: self.filtered + filtered,
            dead: self.dead - emitted - filtered,
        }
    }

    /// The ledger after records that became this.
    ///
    /// # Errors
    /// `Bug` when more was made of the records than there were.
    pub fn settle(self, records: u64, emitted: u64, dead: u64) -> Result<Self, Error> {
        let settled = emitted.checked_add(dead);
        let filtered = settled.and_then(|settled| records.checked_sub(settled));
        let Some(filtered) = filtered else {
            return Err(Error::bug(
                "balance the ledger",
                format!("{emitted} emitted and {dead} dead of {records} records"),
            ));
        };
        Ok(Self {
            records: self.records + records,
            emitted: self.emitted + emitted,
            filtered: self.filtered + filtered,
            dead: self.dead + dead,
        })
    }

    /// A ledger as it was stored.
    ///
    /// # Errors
    /// `Config` when somebody stored what does not balance.
    pub fn stored(
        partition: i32,
        [records, emitted, filtered, dead]: [i64; 4],
    ) -> Result<Self, Error> {
        let counts = [records, emitted, filtered, dead].map(u64::try_from);
        let [Ok(records), Ok(emitted), Ok(filtered), Ok(dead)] = counts else {
            return Err(unbalanced(partition, [records, emitted, filtered, dead]));
        };
        let sum = emitted
            .checked_add(filtered)
            .and_then(|sum| sum.checked_add(dead));
        if sum != Some(records) {
            return Err(unbalanced(
                partition,
                [records, emitted, filtered, dead].map(u64::cast_signed),
            ));
        }
        Ok(Self {
            records,
            emitted,
            filtered,
            dead,
        })
    }

    /// Its counts as databases store them: records, emitted, filtered, dead.
    #[must_use]
    pub fn counts(self) -> [i64; 4] {
        [self.records, self.emitted, self.filtered, self.dead]
            .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
    }
}

fn unbalanced(partition: i32, [records, emitted, filtered, dead]: [i64; 4]) -> Error {
    Error::config(
        format!("claim partition {partition}"),
        format!(
            "its ledger does not balance: {records} records, {emitted} emitted + {filtered} filtered + {dead} dead"
        ),
    )
    .hint("somebody changed the stored position by hand: restore its row, nothing is processed until it balances")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn it_grows_by_what_became_of_the_records_and_by_nothing_else() {
        let ledger = Ledger::default().settle(10, 6, 1).unwrap();
        let ledger = ledger.settle(5, 0, 5).unwrap();
        assert_eq!(ledger.counts(), [15, 6, 3, 6]);
        assert_eq!(Ledger::stored(0, ledger.counts()).unwrap(), ledger);
        assert!(ledger.settle(3, 2, 2).is_err());
        assert!(ledger.settle(3, u64::MAX, 1).is_err());
    }

    #[test]
    fn a_letter_that_was_processed_again_counts_as_what_it_became() {
        let stored = Ledger::stored(0, [15, 6, 3, 6]).unwrap();
        let again = |emitted, filtered| stored.with(Redriven { emitted, filtered }).counts();
        assert_eq!(again(0, 0), [15, 6, 3, 6]);
        assert_eq!(again(3, 0), [15, 9, 3, 3]);
        assert_eq!(again(3, 1), [15, 9, 4, 2]);
        // Letters counted after the ledger was read.
        assert_eq!(again(7, 2), [15, 12, 3, 0]);
        for redriven in [(0, 9), (5, 5), (u64::MAX, u64::MAX)] {
            let shown = again(redriven.0, redriven.1);
            assert!(Ledger::stored(0, shown).is_ok(), "{shown:?}");
        }
    }

    #[test]
    fn a_stored_one_that_does_not_balance_is_refused() {
        for counts in [
            [1, 0, 0, 0],
            [-1, 0, 0, -1],
            [0, 1, -1, 0],
            [i64::MAX, i64::MAX, i64::MAX, 3],
        ] {
            let error = Ledger::stored(7, counts).unwrap_err();
            assert!(error.detail().contains("does not balance"), "{error}");
        }
    }
}
