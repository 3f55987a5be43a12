//! Which denials are told to the audit trail: so many a second of each caller, and so many of all strangers and of
//! all token holders together. Strangers have no part in the holders' share, so that no flood of theirs hides what a
//! holder tried. Time is given, never read.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use super::rate::{Client, Rates};

/// Denials a second of one caller.
const CALLER: f64 = 1.0;
/// Denials a second of all strangers, from however many addresses: they must not be able to fill the trail.
const STRANGERS: f64 = 2.0;
/// Denials a second of all token holders; a config names them, so this is for tokens that leaked.
const HOLDERS: f64 = 10.0;

/// Who was denied something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The holder of a token, by its name.
    Token(String),
    /// Somebody without a token that is known, at an address.
    Stranger(IpAddr),
}

impl fmt::Display for By {
    /// As the audit trail names them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(name) => f.write_str(name),
            Self::Stranger(address) => address.fmt(f),
        }
    }
}

/// The buckets.
#[derive(Debug)]
pub(super) struct Denials {
    callers: Rates,
    strangers: Rates,
    holders: Rates,
}

impl Default for Denials {
    fn default() -> Self {
        Self {
            callers: Rates::new(CALLER),
            strangers: Rates::new(STRANGERS),
            holders: Rates::new(HOLDERS),
        }
    }
}

impl Denials {
    /// Whether this denial is told.
    pub(super) fn take(&mut self, by: By, now: Instant) -> bool {
        // One bucket for all of a kind.
        let all = Client::Token(String::new());
        let (client, total) = match by {
            By::Token(name) => (Client::Token(name), &mut self.holders),
            By::Stranger(address) => (Client::at(address), &mut self.strangers),
        };
        self.callers.take(client, now).is_ok() && total.take(all, now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn holder(name: &str) -> By {
        By::Token(name.to_owned())
    }

    fn stranger(n: u32) -> By {
        By::Stranger(IpAddr::V4(n.into()))
    }

    #[test]
    fn a_flood_of_strangers_is_capped_and_hides_no_holder() {
        let (start, mut denials) = (Instant::now(), Denials::default());
        // More addresses than are remembered at once, each often.
        let told = (0..60_000)
            .filter(|n| denials.take(stranger(n / 4), start))
            .count();
        assert_eq!(told, 4, "two seconds' worth");
        assert!(denials.take(holder("ci"), start));
        assert!(denials.take(holder("eyes"), start));
        let later = start + Duration::from_secs(1);
        let told = (0..1000)
            .filter(|n| denials.take(stranger(*n), later))
            .count();
        assert_eq!(told, 2, "one second's worth");
        assert!(denials.take(holder("ci"), later));
    }

    #[test]
    fn one_caller_is_capped_and_hides_no_other() {
        let (start, mut denials) = (Instant::now(), Denials::default());
        for by in [stranger(1), holder("ci")] {
            let told = (0..1000)
                .filter(|_| denials.take(by.clone(), start))
                .count();
            assert_eq!(told, 2, "{by}");
        }
        assert!(denials.take(stranger(2), start));
        assert!(denials.take(holder("eyes"), start));
        // A token may be called like an address, and is another caller.
        assert!(denials.take(holder("0.0.0.1"), start));
    }

    #[test]
    fn holders_together_are_capped() {
        let (start, mut denials) = (Instant::now(), Denials::default());
        let told = (0..1000)
            .filter(|n| denials.take(holder(&n.to_string()), start))
            .count();
        assert_eq!(told, 20, "two seconds' worth");
    }
}
