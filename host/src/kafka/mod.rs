//! The Kafka adapter: membership, fetch, the producers of routes, the transaction anchor and the topic catalog. `rdkafka` appears nowhere else.

mod advice;
mod anchor;
mod anchor_topics;
mod catalog;
mod client;
mod control_log;
mod control_reader;
mod durability;
mod feed;
mod fetching;
mod flight;
mod identity;
mod lanes;
mod letters;
mod logs;
mod membership;
mod messages;
mod native;
mod output;
mod ownerless;
mod positions;
mod producer;
mod range;
mod sink;
mod source;
mod tail;
mod transaction;

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub use anchor::{KafkaAnchor, KafkaAnchorSettings};
pub use anchor_topics::AnchorTopics;
pub use catalog::Catalog;
pub use control_log::{ControlLogSettings, KafkaControlLog};
pub use durability::{Content, NEEDED, TopicAsked, TopicKeeps, keeps};
pub use feed::Feed;
pub use flight::COORDINATES;
pub use lanes::Transactions;
pub use letters::KafkaLetters;
pub use logs::Overheard;
pub use messages::{Author, KafkaRoute, WRITER};
pub use output::{Make, ensure_topic};
pub use producer::Producers;
pub use range::Ranges;
pub use sink::{KafkaSink, KafkaSinkSettings};
pub use source::{KafkaSource, KafkaSourceSettings};
pub use tail::{record, tail};

use crate::config::{KafkaCluster, Secret};
use crate::error::Error;

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `host:port,…`.
    pub brokers: String,
    /// TLS and SASL properties of librdkafka.
    pub security: BTreeMap<String, Secret<String>>,
    /// Group session time-out.
    pub session_timeout: Duration,
    /// `client.id`.
    pub client_id: String,
}

/// Pause before a broker is connected to again, milliseconds. While none answers it is what limits a client: whatever
/// waits for a broker asks for a connection to any, at most twice in this time, and such a demand skips the pause that
/// grows (`rd_kafka_connect_any` and `RD_KAFKA_OP_CONNECT` in librdkafka 2.12). At 50 a client made 40 connections a
/// second, and the clients of a host took a good part of a core.
const RECONNECT_MS: &str = "250";

impl KafkaSettings {
    /// From the config of a cluster.
    #[must_use]
    pub fn new(cluster: &KafkaCluster, client_id: &str) -> Self {
        Self {
            brokers: cluster.brokers.clone(),
            security: cluster.security.clone(),
            session_timeout: cluster.session_timeout,
            client_id: client_id.to_owned(),
        }
    }

    fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("reconnect.backoff.ms", RECONNECT_MS)
            .set("reconnect.backoff.max.ms", "500")
            .set("socket.keepalive.enable", "true")
            // Histograms for the brokers' own collection of client metrics (KIP-714): 110 kB for each broker of each
            // client, whether the broker asks or not. The host has metrics of its own.
            .set("enable.metrics.push", "false")
            .set_log_level(RDKafkaLogLevel::Error);
        for (key, value) in &self.security {
            config.set(key, value.expose());
        }
        config
    }
}

/// What an error of the client means: authorisation and configuration stop, everything else is waited for.
fn client_error(what: &str, error: &KafkaError) -> Error {
    let code = match error {
        // The client library does not look into it.
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    };
    match code {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Error::config(what, error)
                .hint("create the topic first, or bind the input to the right one")
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Error::config(what, error)
            .hint("grant Read and Describe on the topic to the host's principal"),
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
            Error::config(what, error).hint("grant Read on the group to the host's principal")
        }
        Some(RDKafkaErrorCode::ClusterAuthorizationFailed) => Error::config(what, error).hint(
            "grant Describe on the cluster, and Create to make topics, to the host's principal",
        ),
        Some(RDKafkaErrorCode::FencedInstanceId) => Error::config(what, error)
            .hint("another host joined under the same host.id: give each host its own"),
        Some(
            RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::UnsupportedSASLMechanism,
        ) => Error::config(what, error)
            .hint("see the security properties in the [kafka] section of the config"),
        _ if matches!(
            error,
            KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)
        ) =>
        {
            Error::config(what, error).hint("see the [kafka] section of the config")
        }
        _ => Error::outside(what, error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::collections::BTreeMap;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use rdkafka::consumer::{BaseConsumer, Consumer as _};

    use super::KafkaSettings;

    #[test]
    fn a_client_without_brokers_connects_a_few_times_a_second() {
        const TIME: Duration = Duration::from_secs(4);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connected = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connected);
        // Whoever connects is turned away.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                drop(stream);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let settings = KafkaSettings {
            brokers: address.to_string(),
            security: BTreeMap::new(),
            session_timeout: Duration::from_secs(6),
            client_id: "test".to_owned(),
        };
        let mut config = settings.client_config();
        let consumer: BaseConsumer = config.set("group.id", "test").create().unwrap();
        consumer.subscribe(&["records"]).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < TIME {
            drop(consumer.poll(Duration::from_millis(10)));
        }
        let connected = connected.load(Ordering::Relaxed);
        assert!(
            (2..=60).contains(&connected),
            "{connected} connections in {TIME:?}"
        );
    }
}
