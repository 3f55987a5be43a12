//! Where librdkafka's own words go: `tracing`, target `librdkafka`, never standard error. [`Overheard`] keeps the last
//! one besides.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The context of every handle that needs no callback but logging.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logs;

impl ClientContext for Logs {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        global_error(&error, reason);
    }
}

impl ConsumerContext for Logs {}

/// As [`Logs`], for a client whose events are polled; keeps why it last reached no broker, which answers that did not
/// come do not say. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Overheard {
    // Taken for a copy.
    last: Arc<Mutex<Option<String>>>,
}

impl Overheard {
    /// The last failure, in librdkafka's words.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }

    /// What was before does not count any more.
    pub fn forget(&self) {
        *self.last.lock() = None;
    }
}

impl ClientContext for Overheard {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Comes after those that say why.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            // Without how long a connection was in which state, and how often the same was not said.
            let (why, _) = reason.split_once(" (after ").unwrap_or((reason, ""));
            *self.last.lock() = Some(why.to_owned());
        }
        global_error(&error, reason);
    }
}

/// One line of librdkafka's log. It calls a refused connection an error; here that is for those who look:
/// what matters comes as an event too.
pub(super) fn line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
    }
}

/// An error of the whole client; returned from a poll as well where it matters.
pub(super) fn global_error(error: &KafkaError, reason: &str) {
    tracing::debug!(target: "librdkafka", error = %error, "{reason}");
}
