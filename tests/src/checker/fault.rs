//! What does not hold: counted by kind, the first few of each kind in words.

use std::collections::BTreeMap;

/// Faults of a kind that are kept in words.
const TOLD: usize = 8;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What the input calls for is not there.
    Lost,
    /// It is there more than once.
    Doubled,
    /// It came in another order.
    Disorder,
    /// A snapshot, or two sinks, disagree.
    Inconsistent,
    /// It is there and nothing of the input calls for it.
    Foreign,
    /// Nothing went on though everything was well.
    Stalled,
    /// A host ended by itself, panicked, or used too much.
    Host,
}

impl Kind {
    /// In reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Disorder => "order breaks",
            Self::Inconsistent => "inconsistent",
            Self::Foreign => "foreign",
            Self::Stalled => "stalled",
            Self::Host => "host",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which promise.
    pub kind: Kind,
    /// Where, and how.
    pub text: String,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    counts: BTreeMap<Kind, u64>,
    told: Vec<Fault>,
}

impl Faults {
    /// Adds one.
    pub fn add(&mut self, kind: Kind, text: impl Into<String>) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD as u64 {
            let text = text.into();
            self.told.push(Fault { kind, text });
        }
    }

    /// Adds all of another list.
    pub fn extend(&mut self, other: Self) {
        for fault in other.told {
            if self.count(fault.kind) < TOLD as u64 {
                self.told.push(fault);
            }
        }
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
    }

    /// How many of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// How many.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The first of each kind.
    #[must_use]
    pub fn told(&self) -> &[Fault] {
        &self.told
    }
}
