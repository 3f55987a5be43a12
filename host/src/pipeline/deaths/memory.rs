//! What the file of a [`super::Mark`] says, and what a death makes of it. Pure.

use std::ops::Range;
use std::sync::Arc;

/// Deaths in a range from which on it is run record by record.
pub(super) const CAREFUL: u32 = 3;
/// Bytes of a file: every write is a whole one.
const LENGTH: usize = 256;
/// Stands for a release or a topic where there is none.
pub(super) const NONE: &str = "-";

/// A range in which the host died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) from: i64,
    pub(super) to: i64,
    /// Deaths before it was run record by record.
    pub(super) deaths: u32,
    /// Deaths since, at this one record.
    pub(super) alone: u32,
    /// The release that ran it: what the host died of may be its fault, and says nothing of another one.
    pub(super) release: Arc<str>,
}

impl Suspect {
    /// What is suspect after a death of `release` in `range`.
    fn after_death(before: Option<Self>, range: &Range<i64>, release: &str) -> Self {
        let met = before
            .filter(|it| *it.release == *release && it.from < range.end && range.start < it.to);
        let Some(it) = met else {
            return Self {
                from: range.start,
                to: range.end,
                deaths: 1,
                alone: 0,
                release: release.into(),
            };
        };
        if it.deaths < CAREFUL {
            return Self {
                from: it.from.max(range.start),
                to: it.to.min(range.end),
                deaths: it.deaths + 1,
                ..it
            };
        }
        let again = (it.from, it.to) == (range.start, range.end);
        Self {
            from: range.start,
            to: range.end,
            alone: if again { it.alone + 1 } else { 1 },
            ..it
        }
    }
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// What is being worked on, and by which release.
    pub(super) working: Option<(Range<i64>, Arc<str>)>,
    /// What was suspect before.
    pub(super) suspect: Option<Suspect>,
    /// Identity of the topic: offsets of another one say nothing.
    pub(super) topic: String,
}

impl Memory {
    /// Reads a file, if it is one of ours.
    pub(super) fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [
            word,
            start,
            end,
            "by",
            by,
            "died",
            from,
            to,
            deaths,
            alone,
            "by",
            suspected,
            "topic",
            topic,
        ] = words[..]
        else {
            return None;
        };
        let range = start.parse().ok()?..end.parse().ok()?;
        let suspect = Suspect {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
            deaths: deaths.parse().ok()?,
            alone: alone.parse().ok()?,
            release: suspected.into(),
        };
        Some(Self {
            working: (word == "working").then(|| (range, by.into())),
            suspect: Some(suspect).filter(|it| it.deaths > 0),
            topic: topic.to_owned(),
        })
    }

    /// The file, one line.
    pub(super) fn line(&self) -> String {
        let (word, range, by) = match &self.working {
            Some((range, by)) => ("working", range.clone(), &**by),
            None => ("idle", 0..0, NONE),
        };
        let died = match &self.suspect {
            Some(it) => format!(
                "{} {} {} {} by {}",
                it.from, it.to, it.deaths, it.alone, it.release
            ),
            None => format!("0 0 0 0 by {NONE}"),
        };
        let (start, end, topic) = (range.start, range.end, &self.topic);
        let text = format!("{word} {start} {end} by {by} died {died} topic {topic}");
        format!("{text:<width$}\n", width = LENGTH - 1)
    }

    /// Counts the death of a host that was at work; whether there was one.
    pub(super) fn count(&mut self) -> bool {
        let Some((range, by)) = self.working.take() else {
            return false;
        };
        let suspect = Suspect::after_death(self.suspect.take(), &range, &by);
        self.suspect = Some(suspect);
        true
    }

    /// Counts the death of a host in which a shadow was at work for the shadow's release, whatever records it was at;
    /// `before` deaths are known of it elsewhere. Whether there was one.
    pub(super) fn blame(&mut self, before: u32) -> bool {
        let Some((range, release)) = self.working.take() else {
            return false;
        };
        let here = self.suspect.take().filter(|it| it.release == release);
        let deaths = 1 + before.max(here.map_or(0, |it| it.deaths));
        let (from, to) = (range.start, range.end);
        self.suspect = Some(Suspect {
            from,
            to,
            deaths,
            alone: 0,
            release,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn dies(memory: &mut Memory, range: Range<i64>, by: &str) -> Suspect {
        memory.working = Some((range, by.into()));
        *memory = Memory::read(&memory.line()).unwrap();
        assert!(memory.count());
        memory.suspect.clone().unwrap()
    }

    #[test]
    fn deaths_of_one_release_are_never_counted_for_another() {
        let mut memory = Memory::read("idle 0 0 by - died 0 0 0 0 by - topic t").unwrap();
        assert_eq!((memory.suspect.clone(), memory.count()), (None, false));
        for deaths in 1..=3 {
            assert_eq!(dies(&mut memory, 0..10, "new").deaths, deaths);
        }
        assert_eq!(dies(&mut memory, 4..5, "new").alone, 1);
        let other = dies(&mut memory, 4..5, "old");
        assert_eq!((other.deaths, other.alone, &*other.release), (1, 0, "old"));
    }

    #[test]
    fn every_line_is_as_long_as_any_other() {
        let largest = Suspect {
            from: i64::MAX,
            to: i64::MAX,
            deaths: u32::MAX,
            alone: u32::MAX,
            release: "f".repeat(16).into(),
        };
        let memory = Memory {
            working: Some((i64::MAX..i64::MAX, "f".repeat(16).into())),
            suspect: Some(largest),
            topic: "x".repeat(36),
        };
        assert_eq!(memory.line().len(), LENGTH);
        let idle = Memory {
            working: None,
            suspect: None,
            topic: "t".to_owned(),
        };
        assert_eq!(idle.line().len(), LENGTH);
        for memory in [memory, idle] {
            assert_eq!(Memory::read(&memory.line()), Some(memory));
        }
    }
}
