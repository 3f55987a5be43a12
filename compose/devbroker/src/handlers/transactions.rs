//! InitProducerId and the transaction requests: the wire side of [`crate::transactions`].

use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse, ProducerId, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::code_of;
use crate::batch::Outcome;
use crate::group::Caller;
use crate::offsets::Committed;
use crate::state::{Shared, State};
use crate::transactions::{PendingOffset, Producer};

/// An id for a producer, with or without a transactional id.
pub(crate) fn init_producer(
    shared: &Shared,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let mut state = shared.lock();
    let result = match &request.transactional_id {
        None => Ok(state.transactions.new_producer()),
        Some(name) => init_transactional(&mut state, name, &request),
    };
    drop(state);
    shared.wake_readers();
    let response = InitProducerIdResponse::default().with_error_code(code_of(&result));
    match result {
        Ok(producer) => response
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch),
        Err(_) => response
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

fn init_transactional(
    state: &mut State,
    name: &str,
    request: &InitProducerIdRequest,
) -> Result<Producer, ResponseError> {
    let timeout =
        Duration::from_millis(request.transaction_timeout_ms.max(0).unsigned_abs().into());
    let named = Producer {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let expected = (named.id >= 0).then_some(named);
    let (producer, ended) = state.transactions.init(name, timeout, expected)?;
    if let Some(ended) = ended {
        state.settle(ended);
    }
    Ok(producer)
}

/// The producer names the partitions it is about to write to.
pub(crate) fn add_partitions(
    shared: &Shared,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let mut state = shared.lock();
    let name = request.v3_and_below_transactional_id;
    let producer = Producer {
        id: request.v3_and_below_producer_id.0,
        epoch: request.v3_and_below_producer_epoch,
    };
    let now = Instant::now();
    let mut topics = Vec::with_capacity(request.v3_and_below_topics.len());
    for topic in request.v3_and_below_topics {
        let partitions = topic.partitions.iter().map(|&index| {
            let known = state
                .topics
                .partition(&topic.name, index)
                .map(|_| ())
                .map_err(|refused| refused.code());
            let result = known.and_then(|()| {
                state.transactions.add_partition(
                    now,
                    &name,
                    producer,
                    (topic.name.to_string(), index),
                )
            });
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(code_of(&result))
        });
        let partitions = partitions.collect();
        topics.push(
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name)
                .with_results_by_partition(partitions),
        );
    }
    shared.reschedule();
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics)
}

/// The producer names the group whose offsets it is about to commit.
pub(crate) fn add_offsets(
    shared: &Shared,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let producer = Producer {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let name = &request.transactional_id;
    let result =
        shared
            .lock()
            .transactions
            .add_group(Instant::now(), name, producer, &request.group_id);
    shared.reschedule();
    AddOffsetsToTxnResponse::default().with_error_code(code_of(&result))
}

/// Keeps offsets until the transaction ends.
pub(crate) fn commit_offsets(
    shared: &Shared,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let mut state = shared.lock();
    let allowed = may_commit(&mut state, &request);
    let producer = Producer {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for p in topic.partitions {
            let committed = Committed {
                offset: p.committed_offset,
                leader_epoch: p.committed_leader_epoch,
                metadata: p
                    .committed_metadata
                    .map(|m| m.to_string())
                    .unwrap_or_default(),
            };
            let offset = PendingOffset {
                group: request.group_id.to_string(),
                topic: topic.name.to_string(),
                partition: p.partition_index,
                committed,
            };
            let known = state
                .topics
                .partition(&topic.name, p.partition_index)
                .map_err(|refused| refused.code());
            let known = known.map(|_| ());
            let result = allowed.and(known).and_then(|()| {
                state
                    .transactions
                    .add_offset(&request.transactional_id, producer, offset)
            });
            partitions.push(
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(code_of(&result)),
            );
        }
        topics.push(
            TxnOffsetCommitResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    TxnOffsetCommitResponse::default().with_topics(topics)
}

/// A producer that names the consumer it works for is checked against the group (KIP-447).
fn may_commit(state: &mut State, request: &TxnOffsetCommitRequest) -> Result<(), ResponseError> {
    if request.generation_id < 0 && request.member_id.is_empty() {
        return Ok(());
    }
    let caller = Caller {
        member_id: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    state.groups.call(&request.group_id, |group| {
        group.may_commit(Instant::now(), caller)
    })
}

/// Commits or aborts.
pub(crate) fn end(shared: &Shared, request: EndTxnRequest) -> EndTxnResponse {
    let producer = Producer {
        id: request.producer_id.0,
        epoch: request.producer_epoch,
    };
    let outcome = if request.committed {
        Outcome::Commit
    } else {
        Outcome::Abort
    };
    let mut state = shared.lock();
    let result = state
        .transactions
        .end(&request.transactional_id, producer, outcome)
        .map(|ended| {
            if let Some(ended) = ended {
                state.settle(ended);
            }
        });
    drop(state);
    shared.wake_readers();
    EndTxnResponse::default().with_error_code(code_of(&result))
}
