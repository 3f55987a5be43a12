//! [`Flight`]: what became of the messages that were sent together, and [`Deliveries`], through which a client tells.
//!
//! It counts messages and keeps the first failure. It knows no rows, and sends nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::Notify;

use super::logs::{global_error, line};

/// Header of each message: `topic/partition/offset/index` of the record and the row it comes from.
pub const COORDINATES: &str = "wasmill-coordinates";

/// What became of the messages of one flight: told by the client's thread, awaited by the lane.
#[derive(Debug)]
pub(super) struct Flight {
    /// Messages without a verdict, and one while the sender still adds some.
    left: AtomicUsize,
    /// The first that failed, and the coordinates of its record.
    // Taken at a failure and at the end.
    failed: Mutex<Option<(KafkaError, String)>>,
    /// Where its messages go: for people.
    // Taken for each run of messages, uncontended.
    topics: Mutex<Vec<String>>,
    /// Whether there is one: looked at for each message.
    has_failed: AtomicBool,
    changed: Notify,
}

impl Flight {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(1),
            failed: Mutex::new(None),
            topics: Mutex::default(),
            has_failed: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// A run of messages for this topic comes next.
    pub(super) fn heads_for(&self, topic: &str) {
        let mut topics = self.topics.lock();
        if !topics.iter().any(|known| known == topic) {
            topics.push(topic.to_owned());
        }
    }

    /// One more message. On every record's way: nothing is locked, nothing is allocated.
    pub(super) fn begin(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Topics that messages were sent to, in their order.
    pub(super) fn topics(&self) -> Vec<String> {
        self.topics.lock().clone()
    }

    /// A message has its verdict, or was never sent.
    pub(super) fn end(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_one();
        }
    }

    fn fail(&self, error: KafkaError, coordinates: String) {
        self.failed.lock().get_or_insert((error, coordinates));
        self.has_failed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Whether some message has failed already.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Waits until every message is acknowledged or one has failed; call it once, after the last message.
    ///
    /// # Errors
    /// The first failure, and whose message it was.
    pub(super) async fn landed(&self) -> std::result::Result<(), (KafkaError, String)> {
        self.end();
        loop {
            if let Some(failed) = self.failed.lock().clone() {
                return Err(failed);
            }
            if self.left.load(Ordering::Acquire) == 0 {
                return Ok(());
            }
            self.changed.notified().await;
        }
    }
}

/// Hands the client's verdicts to their flights, on the client's thread.
pub(super) struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        global_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Arc<Flight>) {
        if let Err((error, message)) = result {
            let header = message
                .headers()
                .and_then(|headers| headers.iter().find(|header| header.key == COORDINATES));
            let coordinates = header.and_then(|header| header.value).unwrap_or_default();
            flight.fail(
                error.clone(),
                String::from_utf8_lossy(coordinates).into_owned(),
            );
        }
        flight.end();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_flight_lands_with_its_last_message_and_fails_with_its_first() {
        let flight = Flight::new();
        flight.begin();
        flight.begin();
        {
            let mut landed = Box::pin(flight.landed());
            assert!(landed.as_mut().now_or_never().is_none());
        }
        let flight = Flight::new();
        flight.begin();
        flight.end();
        assert_eq!(flight.landed().now_or_never(), Some(Ok(())));

        let flight = Flight::new();
        flight.begin();
        flight.begin();
        flight.fail(KafkaError::Canceled, "t/0/7/0".to_owned());
        flight.end();
        flight.fail(KafkaError::Seek("later".to_owned()), "t/0/8/0".to_owned());
        let failed = flight.landed().now_or_never().unwrap();
        assert_eq!(failed, Err((KafkaError::Canceled, "t/0/7/0".to_owned())));
        assert!(flight.has_failed());
    }

    #[test]
    fn a_flight_names_each_topic_once_and_in_the_order_of_its_messages() {
        let flight = Flight::new();
        for topic in ["b", "a", "b"] {
            flight.heads_for(topic);
        }
        assert_eq!(flight.topics(), ["b", "a"]);
    }
}
