//! What stands in a topic, to a reader of committed messages.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Shows every message of a topic to `see`, each partition in its order, until no more come. A topic that is not there
/// has none.
///
/// # Errors
/// The broker is not reached or refuses it, or the end was not seen `within` that time.
pub fn committed(
    bootstrap: &str,
    topic: &str,
    within: Duration,
    mut see: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), String> {
    let show = |error: KafkaError| format!("{topic}: {error}");
    let begun = Instant::now();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .create()
        .map_err(show)?;
    let metadata = consumer.fetch_metadata(Some(topic), within).map_err(show)?;
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        all.add_partition_offset(topic, partition.id(), Offset::Beginning)
            .map_err(show)?;
    }
    consumer.assign(&all).map_err(show)?;
    // A partition whose fetch begins anew may end twice.
    let mut ended = BTreeSet::new();
    while ended.len() < all.count() {
        match consumer.poll(Duration::from_millis(100)) {
            _ if begun.elapsed() > within => return Err(format!("{topic}: no end")),
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(message) => see(&message.map_err(show)?),
        }
    }
    Ok(())
}
