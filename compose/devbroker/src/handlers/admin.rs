//! CreateTopics, DeleteTopics, CreatePartitions and DeleteRecords.

use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::text;
use crate::refused::Refused;
use crate::state::{Shared, State};

/// Partitions of a topic that names no number, as Kafka's `num.partitions`.
const DEFAULT_PARTITIONS: i32 = 1;
/// The high watermark, as an offset to delete records up to.
const UP_TO_THE_END: i64 = -1;

/// Creates topics. Their configs are accepted and not acted upon, which is logged.
pub(crate) fn create_topics(shared: &Shared, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut state = shared.lock();
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let outcome = if request.validate_only {
            check_topic(&state, &topic).map(|_| ())
        } else {
            create_topic(&mut state, &topic)
        };
        results.push(
            CreatableTopicResult::default()
                .with_name(topic.name)
                .with_error_code(code(&outcome))
                .with_error_message(outcome.err().map(|refused| text(refused.to_string()))),
        );
    }
    CreateTopicsResponse::default().with_topics(results)
}

fn create_topic(state: &mut State, topic: &CreatableTopic) -> Result<(), Refused> {
    let partitions = check_topic(state, topic)?;
    state.topics.create(&topic.name, partitions)?;
    if !topic.configs.is_empty() {
        let names: Vec<&str> = topic
            .configs
            .iter()
            .map(|config| config.name.as_str())
            .collect();
        tracing::info!(
            topic = topic.name.as_str(),
            ?names,
            "topic configs are accepted and not acted upon"
        );
    }
    Ok(())
}

/// The number of partitions it would get.
fn check_topic(state: &State, topic: &CreatableTopic) -> Result<i32, Refused> {
    let partitions = match i32::try_from(topic.assignments.len()) {
        Ok(0) if topic.num_partitions == -1 => DEFAULT_PARTITIONS,
        Ok(0) => topic.num_partitions,
        Ok(assigned) => assigned,
        Err(_) => i32::MAX,
    };
    if topic.assignments.is_empty() && !matches!(topic.replication_factor, -1 | 1) {
        return Err(Refused::Replicas(
            topic.name.to_string(),
            topic.replication_factor,
        ));
    }
    state.topics.check_new(&topic.name, partitions)?;
    Ok(partitions)
}

/// Deletes topics by name.
pub(crate) fn delete_topics(shared: &Shared, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let mut state = shared.lock();
    let results = request.topic_names.into_iter().map(|name| {
        let outcome = state.delete_topic(&name);
        DeletableTopicResult::default()
            .with_error_code(code(&outcome))
            .with_name(Some(name))
    });
    let results = results.collect();
    drop(state);
    shared.wake_readers();
    DeleteTopicsResponse::default().with_responses(results)
}

/// Grows topics.
pub(crate) fn create_partitions(
    shared: &Shared,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut state = shared.lock();
    let results = request.topics.into_iter().map(|topic| {
        let outcome = if request.validate_only {
            state
                .topics
                .check_growth(&topic.name, topic.count)
                .map(|_| ())
        } else {
            state.topics.grow(&topic.name, topic.count)
        };
        CreatePartitionsTopicResult::default()
            .with_name(topic.name)
            .with_error_code(code(&outcome))
            .with_error_message(outcome.err().map(|refused| text(refused.to_string())))
    });
    let results = results.collect();
    CreatePartitionsResponse::default().with_results(results)
}

/// Moves log starts forward.
pub(crate) fn delete_records(
    shared: &Shared,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut state = shared.lock();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let outcome = trim(
                &mut state,
                (&topic.name, wanted.partition_index),
                wanted.offset,
            );
            partitions.push(
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(code(&outcome))
                    .with_low_watermark(outcome.unwrap_or(-1)),
            );
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    drop(state);
    shared.wake_readers();
    DeleteRecordsResponse::default().with_topics(topics)
}

/// The new log start.
fn trim(state: &mut State, partition: (&str, i32), offset: i64) -> Result<i64, Refused> {
    let (topic, index) = partition;
    let log = state.topics.partition_mut(topic, index)?;
    let offset = if offset == UP_TO_THE_END {
        log.end()
    } else {
        offset
    };
    log.trim(offset)
        .map_err(|_| Refused::Offset(topic.to_owned(), index, offset))?;
    Ok(log.start())
}

fn code<T>(outcome: &Result<T, Refused>) -> i16 {
    outcome
        .as_ref()
        .err()
        .map_or(0, |refused| refused.code().code())
}
