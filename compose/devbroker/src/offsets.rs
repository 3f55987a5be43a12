//! The offsets a group has committed. Never checks who commits: [`crate::group::Group::may_commit`] does.

use std::collections::BTreeMap;

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next offset to be read.
    pub(crate) offset: i64,
    /// The leader epoch the client named, -1 for none.
    pub(crate) leader_epoch: i32,
    /// Free text of the client.
    pub(crate) metadata: String,
}

/// The committed offsets of one group.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    by_partition: BTreeMap<(String, i32), Committed>,
}

impl Offsets {
    /// Replaces what was committed for a partition.
    pub(crate) fn commit(&mut self, topic: &str, partition: i32, committed: Committed) {
        self.by_partition
            .insert((topic.to_owned(), partition), committed);
    }

    /// What was committed for a partition.
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.by_partition.get(&(topic.to_owned(), partition))
    }

    /// The partitions with a committed offset, by topic.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (&str, i32)> {
        self.by_partition
            .keys()
            .map(|(topic, partition)| (topic.as_str(), *partition))
    }

    /// Forgets a topic, because it was deleted.
    pub(crate) fn forget(&mut self, topic: &str) {
        self.by_partition.retain(|(name, _), _| name != topic);
    }
}
