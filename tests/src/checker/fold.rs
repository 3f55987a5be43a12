//! The last row of every key: what an upserted table has to hold, be it written in Postgres or in Cassandra.

use std::collections::BTreeMap;

use super::fault::{Faults, Kind};

/// The last row of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// Number of its record.
    pub seq: i64,
    /// Partition of its record.
    pub partition: i32,
    /// Offset of its record.
    pub offset: i64,
    /// The version that wrote it.
    pub version: String,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold(BTreeMap<String, Last>);

impl Fold {
    /// The next row of a key, or its end.
    pub fn put(&mut self, id: &str, last: Option<Last>) {
        match last {
            Some(last) => self.0.insert(id.to_owned(), last),
            None => self.0.remove(id),
        };
    }

    /// The row of a key.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Last> {
        self.0.get(id)
    }

    /// Adds the keys of another fold, which has none of these.
    pub fn absorb(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no key is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares a whole table with this: no row lacks, none differs, and none is a ghost.
    #[must_use]
    pub fn compare(&self, table: &str, seen: &[(String, Last)]) -> Faults {
        let mut faults = Faults::default();
        let mut left = self.0.clone();
        for (id, last) in seen {
            match left.remove(id) {
                Some(wanted) if wanted == *last => {}
                Some(wanted) => faults.add(
                    Kind::Inconsistent,
                    format!("{table}: key {id} is {last:?}, the fold of the input {wanted:?}"),
                ),
                None if self.0.contains_key(id) => {
                    faults.add(Kind::Doubled, format!("{table}: key {id} is there twice"));
                }
                None => faults.add(
                    Kind::Foreign,
                    format!("{table}: key {id} is a ghost: {last:?}"),
                ),
            }
        }
        for (id, last) in left {
            faults.add(Kind::Lost, format!("{table}: key {id} lacks {last:?}"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(offset: i64) -> Last {
        Last {
            seq: offset,
            partition: 0,
            offset,
            version: "a".to_owned(),
        }
    }

    fn fold() -> Fold {
        let mut fold = Fold::default();
        fold.put("x", Some(last(1)));
        fold.put("y", Some(last(2)));
        fold.put("x", Some(last(3)));
        fold.put("z", Some(last(4)));
        fold.put("z", None);
        fold
    }

    fn counts(seen: &[(&str, i64)]) -> [u64; 4] {
        let seen: Vec<_> = seen
            .iter()
            .map(|(id, offset)| ((*id).to_owned(), last(*offset)))
            .collect();
        let faults = fold().compare("t", &seen);
        [Kind::Lost, Kind::Doubled, Kind::Inconsistent, Kind::Foreign]
            .map(|kind| faults.count(kind))
    }

    #[test]
    fn the_table_of_the_fold_passes() {
        assert_eq!(counts(&[("x", 3), ("y", 2)]), [0, 0, 0, 0]);
    }

    #[test]
    fn lost_stale_doubled_and_ghost_rows_are_seen() {
        assert_eq!(counts(&[("x", 3)]), [1, 0, 0, 0]);
        assert_eq!(counts(&[("x", 1), ("y", 2)]), [0, 0, 1, 0], "a stale row");
        assert_eq!(counts(&[("x", 3), ("y", 2), ("y", 2)]), [0, 1, 0, 0]);
        assert_eq!(counts(&[("x", 3), ("y", 2), ("z", 4)]), [0, 0, 0, 1]);
    }

    #[test]
    fn a_row_of_another_version_differs() {
        let other = Last {
            version: "b".to_owned(),
            ..last(3)
        };
        let seen = [("x".to_owned(), other), ("y".to_owned(), last(2))];
        assert_eq!(fold().compare("t", &seen).count(Kind::Inconsistent), 1);
    }
}
