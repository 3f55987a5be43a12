//! Produce: batches into the logs.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use crate::batch::Header;
use crate::state::{Shared, State};
use crate::transactions::Producer;

/// Appends each partition's batch; `None` when the client wants no answer (`acks=0`).
pub(crate) fn produce(shared: &Shared, request: ProduceRequest) -> Option<ProduceResponse> {
    let transaction = request.transactional_id.as_ref().map(|id| id.as_str());
    let mut state = shared.lock();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let partition = (topic.name.to_string(), data.index);
            let batch = data.records.unwrap_or_default();
            let appended = if (-1..=1).contains(&request.acks) {
                append(&mut state, partition, &batch, transaction)
            } else {
                Err(ResponseError::InvalidRequiredAcks)
            };
            let response = PartitionProduceResponse::default()
                .with_index(data.index)
                .with_log_append_time_ms(-1);
            partitions.push(match appended {
                Ok((base, start)) => response.with_base_offset(base).with_log_start_offset(start),
                Err(refused) => {
                    tracing::debug!(topic = topic.name.as_str(), partition = data.index, %refused, "batch refused");
                    response.with_error_code(refused.code()).with_base_offset(-1).with_log_start_offset(-1)
                }
            });
        }
        topics.push(
            TopicProduceResponse::default()
                .with_name(topic.name)
                .with_partition_responses(partitions),
        );
    }
    drop(state);
    shared.wake_readers();
    (request.acks != 0).then(|| ProduceResponse::default().with_responses(topics))
}

/// Base offset and log start.
fn append(
    state: &mut State,
    partition: (String, i32),
    batch: &Bytes,
    transaction: Option<&str>,
) -> Result<(i64, i64), ResponseError> {
    let log = state
        .topics
        .partition_mut(&partition.0, partition.1)
        .map_err(|refused| refused.code())?;
    let header = Header::check(batch)?;
    if header.is_transactional() {
        let name = transaction.ok_or(ResponseError::InvalidTxnState)?;
        let producer = Producer {
            id: header.producer_id,
            epoch: header.producer_epoch,
        };
        state.transactions.check_write(name, producer, &partition)?;
    }
    let base = log.append(batch)?;
    Ok((base, log.start()))
}
