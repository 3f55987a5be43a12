//! [`KafkaSink`]: the rows of one route as messages of a topic, written ahead of the anchor's commit.
//!
//! A repeat of a flight sends the same messages again, with the same headers: readers drop repeats by
//! [`COORDINATES`](super::COORDINATES). The host has checked sizes and keys before, so every refusal by a broker is an
//! operator's matter.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::KafkaSettings;
use super::client::Client;
use super::flight::Flight;
use super::messages::{Author, KafkaRoute, Messages, refused};
use super::producer::{Producer, Producers};
use crate::error::{Error, Result};
use crate::sink::{AheadRows, AheadSink};

/// Which route writes where, and in whose name.
#[derive(Clone, Debug)]
pub struct KafkaSinkSettings {
    /// Name of the cluster among the host's.
    pub cluster: String,
    /// How to reach it.
    pub kafka: KafkaSettings,
    /// The route and its topic.
    pub route: KafkaRoute,
    /// In whose name.
    pub author: Author,
    /// How long a flight may take to be acknowledged.
    pub patience: Duration,
}

/// Writes the rows of one route. One a lane.
#[derive(Debug)]
pub struct KafkaSink {
    producer: Arc<Producer>,
    messages: Messages,
    patience: Duration,
}

/// A flight that was dropped before its end: a successor elsewhere may send the same messages and later ones, and what
/// is queued here must not follow them.
struct Unfinished<'a> {
    producer: &'a Producer,
    client: Option<Arc<Client>>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.producer.abandon(client);
        }
    }
}

impl KafkaSink {
    /// A sink of a route; it connects when there is something to send.
    #[must_use]
    pub fn new(producers: &Producers, settings: &KafkaSinkSettings) -> Self {
        Self {
            producer: producers.of(&settings.cluster, &settings.kafka),
            messages: Messages::new(&settings.route, &settings.author),
            patience: settings.patience,
        }
    }

    async fn write_all(&self, rows: AheadRows<'_>) -> Result<()> {
        let client = self.producer.client()?;
        let mut unfinished = Unfinished {
            producer: &self.producer,
            client: Some(Arc::clone(&client)),
        };
        let flight = Flight::new();
        let sent = async {
            let sent = self.messages.send(&client, &flight, rows.rows, rows.batch);
            let landed = match sent.await {
                Ok(()) => flight.landed().await,
                failed => failed,
            };
            landed.map_err(|(error, coordinates)| {
                let error = client.cause(error);
                refused(&self.messages.what, &flight.topics(), &error, &coordinates)
            })
        };
        let outcome = match tokio::time::timeout(self.patience, sent).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::outside(
                &self.messages.what,
                format!("not acknowledged within {:?}", self.patience),
            )
            .hint("are the brokers up, and enough replicas in sync (min.insync.replicas)?")),
        };
        unfinished.client = None;
        if outcome.is_err() {
            self.producer.discard(client).await?;
        }
        outcome
    }
}

impl AheadSink for KafkaSink {
    fn write<'a>(&'a self, rows: AheadRows<'a>) -> LocalBoxFuture<'a, Result<()>> {
        self.write_all(rows).boxed_local()
    }
}
