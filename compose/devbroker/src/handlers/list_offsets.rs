//! ListOffsets: earliest, latest, and by timestamp.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::fetch::isolation;
use crate::log::Isolation;
use crate::state::{Shared, State};

/// Asks for the end of the log.
const LATEST: i64 = -1;
/// Asks for its start.
const EARLIEST: i64 = -2;

/// One answer a partition.
pub(crate) fn list_offsets(shared: &Shared, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let state = shared.lock();
    let isolation = isolation(request.isolation_level);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|wanted| {
            let response = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index);
            match find(
                &state,
                (&topic.name, wanted.partition_index),
                wanted.timestamp,
                isolation,
            ) {
                Ok((offset, timestamp)) => response
                    .with_offset(offset)
                    .with_timestamp(timestamp)
                    .with_leader_epoch(0),
                Err(refused) => response
                    .with_error_code(refused.code())
                    .with_offset(-1)
                    .with_timestamp(-1),
            }
        });
        let partitions = partitions.collect();
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Offset and timestamp, -1 for none.
fn find(
    state: &State,
    partition: (&str, i32),
    timestamp: i64,
    isolation: Isolation,
) -> Result<(i64, i64), ResponseError> {
    let log = state
        .topics
        .partition(partition.0, partition.1)
        .map_err(|refused| refused.code())?;
    match timestamp {
        LATEST => Ok((log.visible_end(isolation), -1)),
        EARLIEST => Ok((log.start(), -1)),
        0.. => Ok(log.at_timestamp(timestamp).unwrap_or((-1, -1))),
        _ => Err(ResponseError::UnsupportedForMessageFormat),
    }
}
