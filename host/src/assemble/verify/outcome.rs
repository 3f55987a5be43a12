//! What records became against what the anchor keeps of them: the counts of the ledger, the reasons of dead letters.

use super::derive::Deriver;
use crate::anchor::{Ledger, SetAside, Standing};
use crate::route::code;
use crate::verify::{At, Difference, DifferenceKind, Partition, Unchecked};

impl Deriver<'_> {
    /// Whether there are records that are not known: then a row that none of the known ones explains may be theirs.
    pub(super) fn past(&mut self, standings: &[Standing], some: bool) -> bool {
        for standing in standings {
            let Some(lane) = self.lanes.get(&standing.partition) else {
                continue;
            };
            let gone = standing.ledger.records.saturating_sub(lane.report.records);
            if gone == 0 {
                continue;
            }
            self.lost = true;
            self.unchecked.push(Unchecked {
                what: format!("records of partition {} before {}", standing.partition, lane.report.from),
                why: "the ledger counts them, and they were not derived: retention or compaction removed them, or \
                      their release is not known"
                    .to_owned(),
                count: Some(gone),
            });
        }
        if some {
            let note = "only some partitions were asked for: a row that none of them explains is taken for another's";
            self.notes.push(note.to_owned());
        }
        self.lost || some
    }

    /// Compares counts, where every record that was counted was derived.
    pub(super) fn ledgers(&mut self, standings: &[Standing]) {
        for standing in standings {
            let Some(lane) = self.lanes.get(&standing.partition) else {
                continue;
            };
            let letters = self.letters.keys();
            let letters = letters
                .filter(|at| at.partition == standing.partition)
                .count() as u64;
            if standing.retried > 0 {
                self.notes.push(format!(
                    "{} dead letters of partition {} were retried: they count here as what they first became, as dead",
                    standing.retried, standing.partition
                ));
            }
            let unlettered = lane.unlettered.len() as u64;
            match ledger(&lane.report, letters + unlettered + lane.skipped, standing.ledger) {
                Balance::Equal => {}
                Balance::Uncounted(count) => self.unchecked.push(Unchecked {
                    what: format!("counts of partition {}", standing.partition),
                    why: "the ledger does not count so many of its records: it began later, or the position was set"
                        .to_owned(),
                    count: Some(count),
                }),
                Balance::Refused(count) => self.unchecked.push(Unchecked {
                    what: format!("records of partition {}", standing.partition),
                    why: "their rows were refused when they were written, and their letters were retried or dropped \
                          since: differences may be theirs"
                        .to_owned(),
                    count: Some(count),
                }),
                Balance::Differs(detail) => self.differences.push(Difference {
                    kind: DifferenceKind::Ledger,
                    table: String::new(),
                    at: None,
                    row: Vec::new(),
                    columns: Vec::new(),
                    detail: format!("partition {}: {detail}", standing.partition),
                }),
            }
        }
    }
}

/// How the counts of a partition compare.
#[derive(Debug, PartialEq, Eq)]
enum Balance {
    Equal,
    /// So many records are not counted.
    Uncounted(u64),
    /// So many more were set aside than fail.
    Refused(u64),
    Differs(String),
}

/// `dead`: records known to be set aside: with a letter, or failing without one.
fn ledger(derived: &Partition, dead: u64, stored: Ledger) -> Balance {
    // It goes back before the records.
    if derived.records < stored.records {
        return Balance::Equal;
    }
    if let Some(more) = derived.records.checked_sub(stored.records)
        && more > 0
    {
        return Balance::Uncounted(more);
    }
    if let Some(refused) = stored.dead.checked_sub(dead)
        && refused > 0
    {
        return Balance::Refused(refused);
    }
    if (derived.emitted, derived.filtered, derived.dead)
        == (stored.emitted, stored.filtered, stored.dead)
    {
        return Balance::Equal;
    }
    Balance::Differs(format!(
        "the ledger says {} emitted, {} filtered, {} dead when they were first processed; its {} records become {} emitted, {} filtered, {} dead",
        stored.emitted,
        stored.filtered,
        stored.dead,
        stored.records,
        derived.emitted,
        derived.filtered,
        derived.dead
    ))
}

/// Whether a letter's reason follows from its record and its release alone.
pub(super) fn is_told_by_the_record(letter: &SetAside) -> bool {
    let by_others = [code::POSTGRES_REFUSED, code::TIMESTAMP_AHEAD];
    !letter.tried && !by_others.contains(&letter.code.as_str())
}

/// A record that stands as a dead letter and becomes something else.
pub(super) fn differs(at: At, letter: &SetAside, rows: u32) -> Difference {
    let becomes = match rows {
        0 => "filtered".to_owned(),
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    };
    Difference {
        kind: DifferenceKind::Outcome,
        table: String::new(),
        at: Some(at),
        row: Vec::new(),
        columns: Vec::new(),
        detail: format!(
            "it stands as a dead letter ({}), and the same release makes {becomes} of it now: the plugin is not \
             deterministic, or was changed under its version",
            letter.code
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn partition(emitted: u64, filtered: u64, dead: u64) -> Partition {
        Partition {
            records: emitted + filtered + dead,
            emitted,
            filtered,
            dead,
            ..Partition::default()
        }
    }

    #[test]
    fn counts_that_cannot_come_of_the_records_are_told() {
        let stored = Ledger::stored(0, [10, 6, 3, 1]).unwrap();
        assert_eq!(ledger(&partition(6, 3, 1), 1, stored), Balance::Equal);
        assert!(matches!(
            ledger(&partition(7, 2, 1), 1, stored),
            Balance::Differs(_)
        ));
        assert!(matches!(
            ledger(&partition(6, 2, 2), 2, stored),
            Balance::Differs(_)
        ));
        // Refused by the database, then retried or dropped: nobody knows which record it was.
        assert_eq!(ledger(&partition(7, 3, 0), 0, stored), Balance::Refused(1));
        // Not the same records.
        assert_eq!(ledger(&partition(6, 2, 1), 1, stored), Balance::Equal);
        assert_eq!(
            ledger(&partition(9, 3, 1), 1, stored),
            Balance::Uncounted(3)
        );
    }

    #[test]
    fn letters_of_databases_and_clocks_say_nothing_of_the_plugin() {
        let letter = |code: &str, tried| SetAside {
            partition: 0,
            offset: 1,
            code: code.to_owned(),
            tried,
            begun: false,
        };
        assert!(is_told_by_the_record(&letter("trap", false)));
        assert!(!is_told_by_the_record(&letter("trap", true)));
        assert!(!is_told_by_the_record(&letter("postgres-refused", false)));
        assert!(!is_told_by_the_record(&letter("timestamp-ahead", false)));
    }
}
