//! What a topic looks like: its partitions, watermarks and identity. Blocking; asked at start only.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::logs::Logs;
use super::native::{Describe, Described};
use super::{KafkaSettings, client_error};
use crate::error::Error;
use crate::source::TopicInfo;

/// The client reports its own time-out; this is for the report to arrive.
const SLACK: Duration = Duration::from_secs(1);

/// Asks the cluster for a topic, waiting at most `wait` for each answer.
///
/// # Errors
/// `Outside` when no broker answers, `Config` when the topic does not exist or may not be seen.
pub fn topic_info(
    settings: &KafkaSettings,
    topic: &str,
    wait: Duration,
) -> Result<TopicInfo, Error> {
    let what = format!("look up topic {topic:?} at {}", settings.brokers);
    let consumer: BaseConsumer<Logs> = settings
        .client_config()
        .create_with_context(Logs)
        .map_err(|error| client_error(&what, &error))?;
    let unreached = |error: KafkaError| {
        let error = client_error(&what, &error);
        match error.hint_text() {
            Some(_) => error,
            None => error.hint("is the broker up, and is its address right?"),
        }
    };
    let described = ask(consumer.client(), topic, wait)
        .ok_or_else(|| Error::config(what.clone(), "a topic's name holds no zero byte"))?
        .map_err(|code| unreached(KafkaError::MetadataFetch(code)))?;
    let mut watermarks = Vec::with_capacity(described.partitions);
    for partition in 0..described.partitions {
        let number = i32::try_from(partition).expect("Kafka counts partitions in i32");
        watermarks.push(
            consumer
                .fetch_watermarks(topic, number, wait)
                .map_err(unreached)?,
        );
    }
    Ok(TopicInfo {
        id: described.id,
        watermarks,
    })
}

/// What the cluster says of a topic; `None`: the name cannot be asked for.
pub(super) fn ask<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    wait: Duration,
) -> Option<Result<Described, RDKafkaErrorCode>> {
    let asked = Describe::ask(client, topic, wait)?;
    let answer = asked.answer(wait + SLACK);
    Some(answer.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut)))
}
