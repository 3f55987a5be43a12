//! The topics by name, each with its id and its partitions.
//!
//! Owns the logs. A topic created again under an old name gets a new id: that is how clients can tell.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::log::PartitionLog;
use crate::refused::Refused;

/// Partitions a topic may have: a bound on what one small request can make us allocate.
const MAX_PARTITIONS: i32 = 10_000;
/// The longest topic name Kafka allows.
const MAX_NAME: usize = 249;

/// One topic.
#[derive(Debug)]
pub(crate) struct Topic {
    /// Differs for every creation.
    pub(crate) id: Uuid,
    /// Partition 0 first.
    pub(crate) partitions: Vec<PartitionLog>,
}

/// All topics.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_name: BTreeMap<String, Topic>,
}

impl Topics {
    /// Creates a topic with `partitions` empty partitions, and returns its id.
    ///
    /// # Errors
    /// When the topic exists, or [`Topics::check_new`] refuses it.
    pub(crate) fn create(&mut self, name: &str, partitions: i32) -> Result<Uuid, Refused> {
        let count = self.check_new(name, partitions)?;
        let id = Uuid::new_v4();
        let partitions = std::iter::repeat_with(PartitionLog::default)
            .take(count)
            .collect();
        self.by_name
            .insert(name.to_owned(), Topic { id, partitions });
        Ok(id)
    }

    /// Whether a topic could be created; the answer is the number of partitions.
    ///
    /// # Errors
    /// When the topic exists, or its name or its number of partitions is not allowed.
    pub(crate) fn check_new(&self, name: &str, partitions: i32) -> Result<usize, Refused> {
        if !is_legal(name) {
            return Err(Refused::Name(name.to_owned()));
        }
        if self.by_name.contains_key(name) {
            return Err(Refused::TopicExists(name.to_owned()));
        }
        checked_count(name, partitions)
    }

    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// When there is no such topic.
    pub(crate) fn delete(&mut self, name: &str) -> Result<(), Refused> {
        match self.by_name.remove(name) {
            Some(_) => Ok(()),
            None => Err(Refused::UnknownTopic(name.to_owned())),
        }
    }

    /// Whether a topic could grow to `partitions`; the answer is the number as a length.
    ///
    /// # Errors
    /// When there is no such topic or `partitions` is not more than it has.
    pub(crate) fn check_growth(&self, name: &str, partitions: i32) -> Result<usize, Refused> {
        let topic = self
            .get(name)
            .ok_or_else(|| Refused::UnknownTopic(name.to_owned()))?;
        let count = checked_count(name, partitions)?;
        if count <= topic.partitions.len() {
            return Err(Refused::Partitions(name.to_owned(), partitions));
        }
        Ok(count)
    }

    /// Grows a topic to `partitions` partitions.
    ///
    /// # Errors
    /// Those of [`Topics::check_growth`].
    pub(crate) fn grow(&mut self, name: &str, partitions: i32) -> Result<(), Refused> {
        let count = self.check_growth(name, partitions)?;
        if let Some(topic) = self.by_name.get_mut(name) {
            topic.partitions.resize_with(count, PartitionLog::default);
        }
        Ok(())
    }

    /// The topic of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    /// The name and the topic with that id.
    pub(crate) fn by_id(&self, id: Uuid) -> Option<(&str, &Topic)> {
        self.iter().find(|(_, topic)| topic.id == id)
    }

    /// All topics, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.by_name
            .iter()
            .map(|(name, topic)| (name.as_str(), topic))
    }

    /// One partition's log.
    ///
    /// # Errors
    /// When there is no such topic or partition.
    pub(crate) fn partition(&self, name: &str, index: i32) -> Result<&PartitionLog, Refused> {
        let topic = self
            .get(name)
            .ok_or_else(|| Refused::UnknownTopic(name.to_owned()))?;
        let position = usize::try_from(index).ok();
        let found = position.and_then(|i| topic.partitions.get(i));
        found.ok_or_else(|| Refused::UnknownPartition(name.to_owned(), index))
    }

    /// One partition's log, to be changed.
    ///
    /// # Errors
    /// When there is no such topic or partition.
    pub(crate) fn partition_mut(
        &mut self,
        name: &str,
        index: i32,
    ) -> Result<&mut PartitionLog, Refused> {
        let topic = self
            .by_name
            .get_mut(name)
            .ok_or_else(|| Refused::UnknownTopic(name.to_owned()))?;
        let position = usize::try_from(index).ok();
        let found = position.and_then(|i| topic.partitions.get_mut(i));
        found.ok_or_else(|| Refused::UnknownPartition(name.to_owned(), index))
    }
}

fn is_legal(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != "."
        && name != ".."
        && name.chars().all(allowed)
}

fn checked_count(name: &str, partitions: i32) -> Result<usize, Refused> {
    let refused = || Refused::Partitions(name.to_owned(), partitions);
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(refused());
    }
    usize::try_from(partitions).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn created_again_is_another_topic() {
        let mut topics = Topics::default();
        let first = topics.create("t", 2).unwrap();
        assert_eq!(topics.create("t", 2), Err(Refused::TopicExists("t".into())));
        topics.delete("t").unwrap();
        assert_eq!(topics.delete("t"), Err(Refused::UnknownTopic("t".into())));
        assert_ne!(topics.create("t", 2).unwrap(), first);
    }

    #[test]
    fn names_and_counts_are_checked() {
        let mut topics = Topics::default();
        for name in ["", ".", "..", "a b", "a/b", "ü", &"x".repeat(250)] {
            assert_eq!(topics.create(name, 1), Err(Refused::Name(name.into())));
        }
        for count in [i32::MIN, -1, 0, MAX_PARTITIONS + 1, i32::MAX] {
            assert_eq!(
                topics.create("t", count),
                Err(Refused::Partitions("t".into(), count))
            );
        }
        assert!(topics.create("a.b_c-9", MAX_PARTITIONS).is_ok());
    }

    #[test]
    fn topics_only_grow() {
        let mut topics = Topics::default();
        topics.create("t", 2).unwrap();
        assert_eq!(topics.grow("t", 2), Err(Refused::Partitions("t".into(), 2)));
        topics.grow("t", 3).unwrap();
        assert!(topics.partition("t", 2).is_ok());
        assert_eq!(
            topics.partition("t", 3).unwrap_err(),
            Refused::UnknownPartition("t".into(), 3)
        );
        assert_eq!(
            topics.partition("t", -1).unwrap_err(),
            Refused::UnknownPartition("t".into(), -1)
        );
        assert_eq!(topics.grow("u", 3), Err(Refused::UnknownTopic("u".into())));
    }
}
