//! A topic that is written at least once: every message is there, repeats say the same under the same coordinates, and
//! the first ones of a key stand in its order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fault::{Faults, Kind};
use super::input::{Fate, Input};
use crate::versioned::Run;

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its key.
    pub id: String,
    /// Its value; `None`: a tombstone.
    pub value: Option<Value>,
}

/// What a message's value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Number of its record.
    pub seq: i64,
    /// Which of the record's messages.
    pub index: i32,
    /// The version that wrote it.
    pub version: String,
}

impl Said {
    /// A message as it stands in the topic; `None` where it is nothing that the guest writes.
    #[must_use]
    pub fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Self> {
        let id = String::from_utf8(key?.to_vec()).ok()?;
        let Some(value) = value else {
            return Some(Self { id, value: None });
        };
        let json: serde_json::Value = serde_json::from_slice(value).ok()?;
        let value = Value {
            seq: json["seq"].as_i64()?,
            index: i32::try_from(json["index"].as_i64()?).ok()?,
            version: json["version"].as_str()?.to_owned(),
        };
        let same = json["id"].as_str() == Some(&id) && json["note"].is_null();
        same.then_some(Self {
            id,
            value: Some(value),
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Messages<'r> {
    input: Input,
    topic: &'r str,
    records: &'r BTreeMap<i32, i64>,
    runs: &'r BTreeMap<i32, Vec<Run>>,
    seen: BTreeSet<(i32, i64, i32)>,
    /// Place of the last first message of each key.
    last: HashMap<String, (i64, i32)>,
    repeats: u64,
    faults: Faults,
}

impl<'r> Messages<'r> {
    /// Of an input topic that holds so many records a partition, written by these versions.
    #[must_use]
    pub fn new(
        input: Input,
        topic: &'r str,
        records: &'r BTreeMap<i32, i64>,
        runs: &'r BTreeMap<i32, Vec<Run>>,
    ) -> Self {
        Self {
            input,
            topic,
            records,
            runs,
            seen: BTreeSet::new(),
            last: HashMap::new(),
            repeats: 0,
            faults: Faults::default(),
        }
    }

    /// The next message of a partition of the topic.
    pub fn add(&mut self, coordinates: &str, said: Option<Said>) {
        let Some(place) = self.place(coordinates) else {
            let text = format!("a message from {coordinates:?}: {said:?}");
            return self.faults.add(Kind::Foreign, text);
        };
        let Some(said) = said else {
            let text = format!("the message of {coordinates} cannot be read");
            return self.faults.add(Kind::Inconsistent, text);
        };
        let wanted = self.wanted(place);
        if wanted.as_ref() != Some(&said) {
            let text = format!("the message of {coordinates} is {said:?} instead of {wanted:?}");
            let kind = if wanted.is_none() {
                Kind::Foreign
            } else {
                Kind::Inconsistent
            };
            return self.faults.add(kind, text);
        }
        if !self.seen.insert(place) {
            self.repeats += 1;
            return;
        }
        let now = (place.1, place.2);
        if let Some(before) = self.last.insert(said.id, now)
            && before > now
        {
            let text = format!("the message of {coordinates} stands behind that of {before:?}");
            self.faults.add(Kind::Disorder, text);
        }
    }

    /// Different messages, and how many of them were repeated; with what does not hold.
    #[must_use]
    pub fn finish(mut self) -> (u64, u64, Faults) {
        for (partition, count) in self.records {
            for offset in 0..*count {
                let Fate::Emitted(emitted) = self.input.fate(*partition, offset) else {
                    continue;
                };
                for index in 0..emitted.rows {
                    if !self.seen.contains(&(*partition, offset, index)) {
                        let text = format!("no message of {partition}/{offset}/{index}");
                        self.faults.add(Kind::Lost, text);
                    }
                }
            }
        }
        (self.seen.len() as u64, self.repeats, self.faults)
    }

    /// `topic/partition/offset/index`.
    fn place(&self, coordinates: &str) -> Option<(i32, i64, i32)> {
        let mut parts = coordinates.strip_prefix(self.topic)?.split('/').skip(1);
        let place = (
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        );
        let known = self.records.get(&place.0).is_some_and(|end| place.1 < *end);
        (known && parts.next().is_none()).then_some(place)
    }

    /// The message of a place, by the version that wrote the row of the same record.
    fn wanted(&self, (partition, offset, index): (i32, i64, i32)) -> Option<Said> {
        let Fate::Emitted(emitted) = self.input.fate(partition, offset) else {
            return None;
        };
        if index >= emitted.rows {
            return None;
        }
        let runs = self.runs.get(&partition)?;
        let run = &runs[..runs.partition_point(|run| run.first <= offset)];
        let version = &run.last().filter(|run| offset <= run.last)?.version;
        let value = emitted.seq.map(|seq| Value {
            seq,
            index,
            version: version.clone(),
        });
        Some(Said {
            id: emitted.id,
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: Input = Input { run: 3 };
    const END: i64 = 400;

    fn run(version: &str, first: i64, last: i64) -> Run {
        Run {
            version: version.to_owned(),
            first,
            last,
        }
    }

    /// What has to be in the topic, with `change` done to it; the kinds of faults, messages and repeats.
    fn check(change: impl FnOnce(&mut Vec<(String, Said)>)) -> (BTreeSet<Kind>, u64, u64) {
        let records = BTreeMap::from([(0, END)]);
        let runs = BTreeMap::from([(0, vec![run("a", 0, 199), run("b", 200, END)])]);
        let mut messages = Messages::new(INPUT, "t", &records, &runs);
        let mut all = Vec::new();
        for offset in 0..END {
            for index in 0..2 {
                if let Some(said) = messages.wanted((0, offset, index)) {
                    all.push((format!("t/0/{offset}/{index}"), said));
                }
            }
        }
        change(&mut all);
        for (coordinates, said) in all {
            messages.add(&coordinates, Some(said));
        }
        let (seen, repeats, faults) = messages.finish();
        let kinds = faults.told().iter().map(|fault| fault.kind).collect();
        (kinds, seen, repeats)
    }

    /// Two messages of one key, as indices.
    fn of_one_key(all: &[(String, Said)]) -> (usize, usize) {
        let first = |at: usize| all.iter().position(|other| other.1.id == all[at].1.id);
        let pairs = (0..all.len()).filter_map(|at| Some((first(at)?, at)));
        pairs.into_iter().find(|(one, other)| one < other).unwrap()
    }

    #[test]
    fn a_topic_with_repeats_in_order_passes() {
        let (kinds, seen, repeats) = check(|_| {});
        assert!(kinds.is_empty() && seen > 300 && repeats == 0, "{kinds:?}");
        let (kinds, again, repeats) = check(|all| {
            let tail: Vec<_> = all[50..80].to_vec();
            all.splice(80..80, tail);
        });
        assert_eq!((kinds.len(), again, repeats), (0, seen, 30));
    }

    #[test]
    fn a_lost_message_is_seen() {
        assert_eq!(check(|all| drop(all.remove(9))).0, [Kind::Lost].into());
    }

    #[test]
    fn first_messages_of_a_key_in_another_order_are_seen() {
        let swapped = |all: &mut Vec<(String, Said)>| {
            let (one, other) = of_one_key(all);
            all.swap(one, other);
        };
        assert_eq!(check(swapped).0, [Kind::Disorder].into());
    }

    #[test]
    fn a_repeat_that_says_something_else_is_seen() {
        let other = |all: &mut Vec<(String, Said)>| {
            let valued = all.iter().position(|(_, said)| said.value.is_some());
            let at = valued.unwrap();
            let mut again = all[at].clone();
            again.1.value.as_mut().unwrap().version = "b".to_owned();
            all.insert(at + 1, again);
        };
        assert_eq!(check(other).0, [Kind::Inconsistent].into());
    }

    #[test]
    fn a_message_of_no_record_is_foreign() {
        let foreign = |all: &mut Vec<(String, Said)>| {
            let said = all[0].1.clone();
            all.push((format!("t/0/{END}/0"), said.clone()));
            all.push(("other/0/1/0".to_owned(), said));
        };
        assert_eq!(check(foreign).0, [Kind::Foreign].into());
    }

    #[test]
    fn messages_are_read_as_they_stand() {
        let value = br#"{"id":"k","seq":4,"index":1,"version":"a","note":null}"#;
        let said = Said::read(Some(b"k"), Some(value)).unwrap();
        assert_eq!(said.value.unwrap().index, 1);
        assert_eq!(Said::read(Some(b"other"), Some(value)), None);
        assert_eq!(Said::read(Some(b"k"), None).unwrap().value, None);
        assert_eq!(Said::read(Some(b"k"), Some(b"{}")), None);
    }
}
