//! Fetch: batches out of the logs, waiting for them if the client is willing to.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId};
use tokio::time::Instant;

use crate::log::{Budget, Isolation};
use crate::state::{Shared, State};

/// What a fetch has gathered so far.
#[derive(Default)]
struct Gathered {
    bytes: usize,
    failed: bool,
}

/// Answers once `min_bytes` are there, an error is to be told, or `max_wait_ms` have passed.
pub(crate) async fn fetch(shared: &Shared, request: FetchRequest) -> FetchResponse {
    let deadline =
        Instant::now() + Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
    let enough = usize::try_from(request.min_bytes).unwrap_or(0);
    loop {
        let woken = shared.woken();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let (response, gathered) = gather(&shared.lock(), &request);
        if gathered.failed || gathered.bytes >= enough || Instant::now() >= deadline {
            return response;
        }
        // elapsed or woken: either way look again
        drop(tokio::time::timeout_at(deadline, woken).await);
    }
}

fn gather(state: &State, request: &FetchRequest) -> (FetchResponse, Gathered) {
    let mut gathered = Gathered::default();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let data = one(state, request, &topic.topic, wanted, &mut gathered);
            partitions.push(data.unwrap_or_else(|refused| {
                gathered.failed = true;
                blank(wanted.partition).with_error_code(refused.code())
            }));
        }
        topics.push(
            FetchableTopicResponse::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions),
        );
    }
    (FetchResponse::default().with_responses(topics), gathered)
}

fn one(
    state: &State,
    request: &FetchRequest,
    topic: &str,
    wanted: &FetchPartition,
    gathered: &mut Gathered,
) -> Result<PartitionData, ResponseError> {
    let log = state
        .topics
        .partition(topic, wanted.partition)
        .map_err(|refused| refused.code())?;
    let left = length(request.max_bytes).saturating_sub(gathered.bytes);
    let budget = Budget {
        bytes: left.min(length(wanted.partition_max_bytes)),
        first_always: gathered.bytes == 0,
    };
    let isolation = isolation(request.isolation_level);
    let slice = log.read(wanted.fetch_offset, isolation, budget)?;
    gathered.bytes += slice.records.len();
    let aborted = slice.aborted.iter().map(|aborted| {
        AbortedTransaction::default()
            .with_producer_id(ProducerId(aborted.producer_id))
            .with_first_offset(aborted.first)
    });
    Ok(blank(wanted.partition)
        .with_high_watermark(log.end())
        .with_last_stable_offset(log.last_stable())
        .with_log_start_offset(log.start())
        .with_aborted_transactions((isolation == Isolation::Committed).then(|| aborted.collect()))
        .with_records(Some(slice.records)))
}

fn blank(partition: i32) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_high_watermark(-1)
        .with_preferred_read_replica(BrokerId(-1))
}

/// The protocol's number for it: 0 is uncommitted.
pub(super) fn isolation(level: i8) -> Isolation {
    if level == 0 {
        Isolation::Uncommitted
    } else {
        Isolation::Committed
    }
}

fn length(bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}
