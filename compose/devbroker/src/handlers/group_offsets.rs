//! OffsetCommit and OffsetFetch: what groups have read.

use std::collections::BTreeMap;
use std::time::Instant;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponsePartition, OffsetFetchResponseTopic,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};

use super::{code_of, text};
use crate::group::Caller;
use crate::offsets::Committed;
use crate::state::{Shared, State};

/// Commits what the member may commit.
pub(crate) fn commit(shared: &Shared, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut state = shared.lock();
    let allowed = may_commit(&mut state, &request);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for p in topic.partitions {
            let known = state
                .topics
                .partition(&topic.name, p.partition_index)
                .map_err(|refused| refused.code());
            let result = allowed.and(known.map(|_| ()));
            if result.is_ok() {
                let committed = Committed {
                    offset: p.committed_offset,
                    leader_epoch: p.committed_leader_epoch,
                    metadata: p
                        .committed_metadata
                        .map(|m| m.to_string())
                        .unwrap_or_default(),
                };
                state.groups.entry(&request.group_id).offsets.commit(
                    &topic.name,
                    p.partition_index,
                    committed,
                );
            }
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(code_of(&result)),
            );
        }
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    OffsetCommitResponse::default().with_topics(topics)
}

fn may_commit(state: &mut State, request: &OffsetCommitRequest) -> Result<(), ResponseError> {
    let caller = Caller {
        member_id: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    if request.group_id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    if state.groups.get(&request.group_id).is_none() && caller.generation >= 0 {
        return Err(ResponseError::IllegalGeneration);
    }
    state
        .groups
        .entry(&request.group_id)
        .group
        .may_commit(Instant::now(), caller)
}

/// The committed offsets of the named partitions, or of all.
pub(crate) fn fetch(shared: &Shared, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let state = shared.lock();
    if state.coordinator_moved {
        let code = ResponseError::NotCoordinator.code();
        return OffsetFetchResponse::default().with_error_code(code);
    }
    let wanted = request
        .topics
        .unwrap_or_else(|| all_committed(&state, &request.group_id));
    let topics = wanted.into_iter().map(|topic| {
        let partition = |&index| {
            one(
                &state,
                &request.group_id,
                (&topic.name, index),
                request.require_stable,
            )
        };
        let partitions = topic.partition_indexes.iter().map(partition).collect();
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

fn one(
    state: &State,
    group: &str,
    partition: (&str, i32),
    stable: bool,
) -> OffsetFetchResponsePartition {
    let (topic, index) = partition;
    let none = OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_committed_offset(-1)
        .with_committed_leader_epoch(-1)
        .with_metadata(Some(text("")));
    if stable && state.transactions.holds_offset(group, topic, index) {
        return none.with_error_code(ResponseError::UnstableOffsetCommit.code());
    }
    match state
        .groups
        .get(group)
        .and_then(|entry| entry.offsets.get(topic, index))
    {
        None => none,
        Some(committed) => none
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(text(committed.metadata.as_str()))),
    }
}

fn all_committed(state: &State, group: &str) -> Vec<OffsetFetchRequestTopic> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    if let Some(entry) = state.groups.get(group) {
        for (topic, partition) in entry.offsets.partitions() {
            by_topic.entry(topic).or_default().push(partition);
        }
    }
    let topic = |(name, partitions): (&str, _)| {
        OffsetFetchRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partition_indexes(partitions)
    };
    by_topic.into_iter().map(topic).collect()
}
