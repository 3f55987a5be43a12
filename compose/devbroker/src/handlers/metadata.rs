//! Metadata and FindCoordinator: where things are. Everything is here.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorResponse, MetadataRequest, MetadataResponse, TopicName,
};

use super::{NODE, text};
use crate::state::{Shared, State};
use crate::topics::Topic;

/// The name of the cluster, the same in every process.
const CLUSTER: &str = "wasmill-devbroker";

/// Topics by name, by id, or all of them.
pub(crate) fn metadata(
    shared: &Shared,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let mut state = shared.lock();
    let auto_create = shared
        .auto_create
        .filter(|_| request.allow_auto_topic_creation);
    let topics = match request.topics {
        Some(wanted) if version > 0 || !wanted.is_empty() => wanted
            .iter()
            .map(|topic| one(&mut state, topic, auto_create))
            .collect(),
        // version 0 asks for all topics with an empty list
        Some(_) | None => state
            .topics
            .iter()
            .map(|(name, topic)| found(name, topic))
            .collect(),
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(NODE)
        .with_host(text(shared.advertised.ip().to_string()))
        .with_port(i32::from(shared.advertised.port()));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(CLUSTER)))
        .with_controller_id(NODE)
        .with_topics(topics)
}

fn one(
    state: &mut State,
    wanted: &MetadataRequestTopic,
    auto_create: Option<i32>,
) -> MetadataResponseTopic {
    let Some(name) = wanted.name.as_ref().map(|name| name.to_string()) else {
        return match state.topics.by_id(wanted.topic_id) {
            Some((name, topic)) => found(name, topic),
            None => MetadataResponseTopic::default()
                .with_topic_id(wanted.topic_id)
                .with_name(None)
                .with_error_code(ResponseError::UnknownTopicId.code()),
        };
    };
    let refused = match (state.topics.get(&name), auto_create) {
        (Some(topic), _) => return found(&name, topic),
        (None, None) => ResponseError::UnknownTopicOrPartition,
        (None, Some(partitions)) => match state.topics.create(&name, partitions) {
            Ok(_) => match state.topics.get(&name) {
                Some(topic) => return found(&name, topic),
                None => ResponseError::UnknownTopicOrPartition,
            },
            Err(refused) => refused.code(),
        },
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(name))))
        .with_error_code(refused.code())
}

fn found(name: &str, topic: &Topic) -> MetadataResponseTopic {
    let partition = |(index, _)| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(NODE)
            .with_leader_epoch(0)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE])
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(name))))
        .with_topic_id(topic.id)
        .with_partitions((0..).zip(&topic.partitions).map(partition).collect())
}

/// The coordinator of every group and transaction.
pub(crate) fn find_coordinator(shared: &Shared) -> FindCoordinatorResponse {
    FindCoordinatorResponse::default()
        .with_node_id(NODE)
        .with_host(text(shared.advertised.ip().to_string()))
        .with_port(i32::from(shared.advertised.port()))
}
