//! What a topic looks like: its partitions, watermarks and identity. Blocking; asked at start only.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::{KafkaSettings, client_error, native};
use crate::error::Error;
use crate::source::TopicInfo;

/// Asks the cluster for a topic, waiting at most `wait` for each answer.
///
/// # Errors
/// `Outside` when no broker answers, `Config` when the topic does not exist or may not be seen.
pub fn topic_info(settings: &KafkaSettings, topic: &str, wait: Duration) -> Result<TopicInfo, Error> {
    let what = format!("look up topic {topic:?} at {}", settings.brokers);
    let consumer: BaseConsumer =
        settings.client_config().create().map_err(|error| client_error(&what, &error))?;
    let metadata = consumer
        .fetch_metadata(Some(topic), wait)
        .map_err(|error| client_error(&what, &error).hint("is the broker up, and is its address right?"))?;
    let described = metadata
        .topics()
        .iter()
        .find(|found| found.name() == topic)
        .ok_or_else(|| Error::config(what.clone(), "the broker does not mention it"))?;
    if let Some(error) = described.error() {
        let code = rdkafka::error::RDKafkaErrorCode::from(error);
        return Err(client_error(&what, &rdkafka::error::KafkaError::MetadataFetch(code)));
    }
    if described.partitions().is_empty() {
        return Err(Error::config(what, "there is no such topic")
            .hint("create the topic first, or bind the input to the right one"));
    }
    let mut watermarks = Vec::with_capacity(described.partitions().len());
    for partition in 0..described.partitions().len() {
        let number = i32::try_from(partition).expect("Kafka counts partitions in i32");
        watermarks.push(
            consumer
                .fetch_watermarks(topic, number, wait)
                .map_err(|error| client_error(&what, &error))?,
        );
    }
    let id = native::topic_id(consumer.client(), topic, wait);
    Ok(TopicInfo { id, watermarks })
}
