//! [`Messages`]: what one route should have sent to a topic: every row a message, at least once, told by the coordinates
//! in its header. Order and content of messages are not compared.

use std::collections::HashMap;

use super::{At, Tally};

/// One message of a route, by where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// The record.
    pub at: At,
    /// Which of the record's rows on this route.
    pub index: u32,
}

/// What is known of the record that a message says it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was derived.
    Known,
    /// It lies at or above the position: its messages may have been sent ahead.
    Ahead,
    /// It is not there, or a dead letter of it that is gone may have been retried.
    Unknown,
}

/// What one route should have sent.
#[derive(Debug)]
pub struct Messages {
    /// The route's name.
    pub route: String,
    /// The topic.
    pub topic: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Whether each was found.
    sent: HashMap<Coordinates, bool>,
    /// So far; repeats count as rows only.
    pub tally: Tally,
    /// The first messages that no record explains.
    pub extra: Vec<Coordinates>,
}

impl Messages {
    /// None, of a route.
    #[must_use]
    pub fn new(route: &str, topic: &str, cluster: &str) -> Self {
        Self {
            route: route.to_owned(),
            topic: topic.to_owned(),
            cluster: cluster.to_owned(),
            sent: HashMap::new(),
            tally: Tally::default(),
            extra: Vec::new(),
        }
    }

    /// Takes a row that a release made of a record.
    pub fn derived(&mut self, coordinates: Coordinates) {
        self.sent.insert(coordinates, false);
    }

    /// Messages that should be there.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Takes a message of the topic; `of` is its record.
    pub fn found(&mut self, coordinates: Coordinates, of: Origin, keep: usize) {
        self.tally.rows += 1;
        match (self.sent.get_mut(&coordinates), of) {
            (Some(found), _) => self.tally.equal += u64::from(!std::mem::replace(found, true)),
            (None, Origin::Ahead) => {}
            (None, Origin::Unknown) => self.tally.past += 1,
            (None, Origin::Known) => {
                self.tally.extra += 1;
                if self.extra.len() < keep {
                    self.extra.push(coordinates);
                }
            }
        }
    }

    /// All messages came: the first of those that are not there. `lossy`: whether the topic drops messages by itself.
    pub fn finish(&mut self, lossy: bool, keep: usize) -> Vec<Coordinates> {
        let missing = self.sent.iter().filter(|(_, found)| !**found);
        let mut missing: Vec<Coordinates> = missing.map(|(coordinates, _)| *coordinates).collect();
        if lossy {
            self.tally.expired = missing.len() as u64;
            return Vec::new();
        }
        self.tally.missing = missing.len() as u64;
        missing.sort_by_key(|one| (one.at, one.index));
        missing.truncate(keep);
        missing
    }
}

impl std::str::FromStr for Coordinates {
    type Err = ();

    /// Reads the end of a coordinates header, `TOPIC/PARTITION/OFFSET/INDEX`; the topic is the caller's to compare.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.rsplitn(4, '/');
        let (index, offset, partition) = (parts.next(), parts.next(), parts.next());
        let read = || {
            Some(Self {
                at: At {
                    partition: partition?.parse().ok()?,
                    offset: offset?.parse().ok()?,
                },
                index: index?.parse().ok()?,
            })
        };
        read().ok_or(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn at(offset: i64) -> At {
        At {
            partition: 2,
            offset,
        }
    }

    fn message(offset: i64, index: u32) -> Coordinates {
        Coordinates {
            at: at(offset),
            index,
        }
    }

    #[test]
    fn repeats_are_fine_and_gaps_and_strangers_are_told() {
        let mut messages = Messages::new("alerts", "t", "main");
        for (offset, index) in [(5, 0), (5, 1), (7, 0), (9, 0)] {
            messages.derived(message(offset, index));
        }
        assert_eq!(messages.expected(), 4);
        for found in [message(5, 0), message(5, 1), message(5, 0), message(9, 0)] {
            messages.found(found, Origin::Known, 10);
        }
        messages.found(message(9, 1), Origin::Known, 10);
        messages.found(message(40, 0), Origin::Ahead, 10);
        messages.found(message(1, 0), Origin::Unknown, 10);
        assert_eq!(messages.finish(false, 10), [message(7, 0)]);
        assert_eq!(messages.extra, [message(9, 1)]);
        let tally = messages.tally;
        assert_eq!(
            (tally.equal, tally.missing, tally.extra, tally.past),
            (3, 1, 1, 1)
        );
    }

    #[test]
    fn coordinates_are_read_from_the_end() {
        assert_eq!("a/b/2/17/3".parse(), Ok(message(17, 3)));
        for wrong in ["", "t/2/17", "t/2/x/0", "t/2/17/-1"] {
            assert_eq!(wrong.parse::<Coordinates>(), Err(()), "{wrong}");
        }
    }
}
