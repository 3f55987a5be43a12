//! What topics look like: their partitions, watermarks and identity, and what groups have committed. Blocking.
//!
//! [`Catalog`] is shared by everybody of a host who asks one cluster: those who ask for topics at the same time share a
//! client, which costs several threads and connections. It lives as long as somebody asks: nobody has to serve it in
//! between, and what it remembers of a topic is never old. No answer is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::logs::Logs;
use super::native::{self, Describe, Described};
use super::{KafkaSettings, client_error};
use crate::error::Error;
use crate::source::TopicInfo;

/// The client reports its own time-out; this is for the report to arrive.
const SLACK: Duration = Duration::from_secs(1);

/// The topics of one cluster.
#[derive(Debug)]
pub struct Catalog {
    settings: KafkaSettings,
    // Held while a client is made, which connects to nothing yet.
    client: Mutex<Weak<Client>>,
}

struct Client(BaseConsumer<Logs>);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Catalog {
    /// The catalog of a cluster; nothing is connected before somebody asks.
    #[must_use]
    pub fn new(settings: KafkaSettings) -> Self {
        Self {
            settings,
            client: Mutex::default(),
        }
    }

    /// Asks the cluster for a topic, waiting at most `wait` for each answer. Blocks.
    ///
    /// # Errors
    /// `Outside` when no broker answers, `Config` when the topic does not exist or may not be seen.
    pub fn topic(&self, topic: &str, wait: Duration) -> Result<TopicInfo, Error> {
        let what = format!("look up topic {topic:?} at {}", self.settings.brokers);
        let client = self.client().map_err(|error| client_error(&what, &error))?;
        let unreached = |error: KafkaError| {
            let error = client_error(&what, &error);
            match error.hint_text() {
                Some(_) => error,
                None => error.hint("is the broker up, and is its address right?"),
            }
        };
        let described = ask(client.0.client(), topic, wait)
            .ok_or_else(|| Error::config(what.clone(), "a topic's name holds no zero byte"))?
            .map_err(|code| unreached(KafkaError::MetadataFetch(code)))?;
        let mut watermarks = Vec::with_capacity(described.partitions);
        for partition in 0..described.partitions {
            let number = i32::try_from(partition).expect("Kafka counts partitions in i32");
            let asked = client.0.fetch_watermarks(topic, number, wait);
            // Who leads the partition may have changed since somebody else asked; the client has noticed by now.
            let asked = match asked {
                Err(error) if is_moved(&error) => client.0.fetch_watermarks(topic, number, wait),
                asked => asked,
            };
            watermarks.push(asked.map_err(unreached)?);
        }
        Ok(TopicInfo {
            id: described.id,
            watermarks,
        })
    }

    /// What a group has committed in a topic, by partition, as far as it was committed with `mark`; waits at most
    /// `wait` for the answer. Blocks.
    ///
    /// # Errors
    /// `Outside` when the group's coordinator does not answer, `Config` when the group may not be seen.
    pub fn committed(
        &self,
        group: &str,
        topic: &str,
        mark: &str,
        wait: Duration,
    ) -> Result<BTreeMap<i32, i64>, Error> {
        let what = format!(
            "ask what group {group:?} has committed at {}",
            self.settings.brokers
        );
        // Of the group it asks for, which it does not join: librdkafka up to 2.12.1 at least reads through a null
        // pointer where a client of no group is told that the coordinator is another one (librdkafka#5040).
        let client: BaseConsumer<Logs> = self
            .settings
            .client_config()
            .set("group.id", group)
            .create_with_context(Logs)
            .map_err(|error| client_error(&what, &error))?;
        let asked = native::committed(client.client(), (group, topic), (wait, SLACK));
        let committed = asked
            .ok_or_else(|| Error::config(what.clone(), "a group's name holds no zero byte"))?
            .map_err(|code| client_error(&what, &KafkaError::OffsetFetch(code)))?;
        let marked = committed
            .into_iter()
            .filter(|(_, committed)| committed.said == mark.as_bytes());
        Ok(marked
            .map(|(partition, committed)| (partition, committed.offset))
            .collect())
    }

    /// The client of those who ask now, or a new one.
    fn client(&self) -> Result<Arc<Client>, KafkaError> {
        let mut shared = self.client.lock();
        if let Some(client) = shared.upgrade() {
            return Ok(client);
        }
        let client = self.settings.client_config().create_with_context(Logs)?;
        let client = Arc::new(Client(client));
        *shared = Arc::downgrade(&client);
        Ok(client)
    }
}

/// Whether a failure says that a partition is not where it was.
fn is_moved(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

/// What the cluster says of a topic; `None`: the name cannot be asked for.
pub(super) fn ask<C: ClientContext>(
    client: &rdkafka::client::Client<C>,
    topic: &str,
    wait: Duration,
) -> Option<Result<Described, RDKafkaErrorCode>> {
    let asked = Describe::ask(client, topic, wait)?;
    let answer = asked.answer(wait + SLACK);
    Some(answer.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn those_who_ask_at_the_same_time_share_a_client_that_ends_with_the_last() {
        let catalog = Catalog::new(KafkaSettings {
            brokers: "127.0.0.1:1".to_owned(),
            security: std::collections::BTreeMap::new(),
            session_timeout: Duration::from_secs(6),
            client_id: "test".to_owned(),
        });
        let (one, other) = (catalog.client().unwrap(), catalog.client().unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        drop(one);
        assert!(Arc::ptr_eq(&other, &catalog.client().unwrap()));
        drop(other);
        assert!(catalog.client.lock().upgrade().is_none());
    }
}
