//! [`Bag`]: what an append table should hold: rows without a key, each as often as it was written.

use std::collections::HashMap;

use super::At;
use super::image::Hashes;
use super::slot::Sure;
use crate::record::Plain;

/// One row, however often.
#[derive(Clone, Copy, Debug)]
struct Count {
    written: u32,
    /// How often it may have been written on top.
    maybe: u32,
    found: u32,
    /// The last record that wrote it.
    at: At,
}

/// Rows by what they hold, all columns.
#[derive(Debug, Default)]
pub(super) struct Bag {
    rows: HashMap<[u64; 2], Count>,
}

impl Bag {
    pub(super) fn write(&mut self, hashes: &Hashes, row: &[Option<Plain>], at: At, sure: Sure) {
        let row: Vec<&Plain> = row
            .iter()
            .map(|value| value.as_ref().unwrap_or(&Plain::Null))
            .collect();
        let count = self.rows.entry(hashes.wide(&row)).or_insert(Count {
            written: 0,
            maybe: 0,
            found: 0,
            at,
        });
        match sure {
            Sure::Yes => {
                count.written += 1;
                count.at = at;
            }
            Sure::Maybe => count.maybe += 1,
        }
    }

    /// Takes a row of the table; where it is one too many, the record that wrote it as often as it should be.
    pub(super) fn found(&mut self, hashes: &Hashes, row: &[Plain]) -> Result<(), Option<At>> {
        let row: Vec<&Plain> = row.iter().collect();
        let Some(count) = self.rows.get_mut(&hashes.wide(&row)) else {
            return Err(None);
        };
        count.found = count.found.saturating_add(1);
        if count.found > count.written + count.maybe {
            return Err(Some(count.at));
        }
        Ok(())
    }

    /// Rows that the table should hold.
    pub(super) fn expected(&self) -> u64 {
        self.rows
            .values()
            .map(|count| u64::from(count.written))
            .sum()
    }

    /// Rows that it does not hold: who wrote them, how many are missing, and the hash of what they hold.
    pub(super) fn missing(&self) -> impl Iterator<Item = (At, u32, [u64; 2])> {
        self.rows.iter().filter_map(|(hash, count)| {
            let missing = count.written.saturating_sub(count.found);
            (missing > 0).then_some((count.at, missing, *hash))
        })
    }
}
