//! Which control log a host follows: the topic of its `[control]`, or one in memory that lives as long as it does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Backoff;
use crate::config::Config;
use crate::control::{BlobStore, ControlLog, MemoryLog};
use crate::error::{Blame, Error, Result};
use crate::kafka::{ControlLogSettings, KafkaControlLog, KafkaSettings, Overheard};

/// Longest pause between two attempts.
const PAUSE: Duration = Duration::from_secs(5);
/// How soon the first word is said of a broker that is away.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// The longest silence after it.
const SILENCE: Duration = Duration::from_secs(30);

/// Opens the log; waits for a broker that is away as long as it takes, and tells `not_yet` why.
///
/// # Errors
/// `Config`: the topic is not the one this host knows, or cannot be a control log.
pub(super) async fn open(
    config: &Config,
    store: &BlobStore,
    not_yet: &(dyn Fn(Error) + Sync),
) -> Result<Arc<dyn ControlLog>> {
    let Some(control) = &config.control else {
        return Ok(Arc::new(MemoryLog::default()));
    };
    let cluster = config.kafka.get(&control.kafka).ok_or_else(|| {
        Error::bug(
            "find the control log's cluster",
            "the config names one it lacks",
        )
    })?;
    let client = format!("wasmill/control/{}", config.host.id);
    let settings = ControlLogSettings {
        kafka: KafkaSettings::new(cluster, &client),
        known: store.known_log(&config.host.id, &ControlLogSettings::name(&control.topic))?,
        topic: control.topic.clone(),
        replication: control.replication.map(i32::from),
    };
    let away = Away {
        heard: Overheard::default(),
        last: Mutex::default(),
        not_yet,
    };
    tokio::select! {
        log = away.attempts(&settings) => log,
        never = away.words(&settings) => match never {},
    }
}

/// What is known of a broker that is away.
struct Away<'a> {
    /// In the client's words, of the attempt under way.
    heard: Overheard,
    /// What was told last.
    last: Mutex<Option<Error>>,
    not_yet: &'a (dyn Fn(Error) + Sync),
}

impl Away<'_> {
    /// Tries until it is open or cannot be.
    async fn attempts(&self, settings: &ControlLogSettings) -> Result<Arc<dyn ControlLog>> {
        let mut pauses = Backoff::default();
        loop {
            match KafkaControlLog::open(settings.clone(), self.heard.clone()).await {
                Ok(log) => {
                    if self.last.lock().is_some() {
                        tracing::info!("the control log is there");
                    }
                    return Ok(Arc::new(log));
                }
                Err(error) if error.blame() == Blame::Outside => {
                    self.tell(self.because(error));
                }
                Err(error) => return Err(error),
            }
            self.heard.forget();
            tokio::time::sleep(pauses.pause().min(PAUSE)).await;
        }
    }

    /// Says why it is not open yet, also of an attempt under way: soon at first, then ever more rarely.
    async fn words(&self, settings: &ControlLogSettings) -> Infallible {
        let what = format!(
            "open the control log, topic {:?} at {}",
            settings.topic, settings.kafka.brokers
        );
        let nothing = Error::outside(what, "no answer yet")
            .hint("is the broker up, and is its address right?");
        let mut silences = Backoff::new(FIRST_WORD, SILENCE);
        loop {
            tokio::time::sleep(silences.pause()).await;
            let last = self.last.lock().clone();
            let error = match self.heard.last() {
                Some(_) => self.because(nothing.clone()),
                None => last.unwrap_or_else(|| nothing.clone()),
            };
            tracing::warn!(error = %error, hint = error.hint_text(), "waiting for the control log");
            self.tell(error);
        }
    }

    fn tell(&self, error: Error) {
        *self.last.lock() = Some(error.clone());
        (self.not_yet)(error);
    }

    /// The same failure with the reason that the client gave, where it did: that nobody answered in time is none.
    fn because(&self, error: Error) -> Error {
        let Some(reason) = self.heard.last() else {
            return error;
        };
        let known = Error::outside(error.what(), reason);
        match error.hint_text() {
            Some(hint) => known.hint(hint),
            None => known,
        }
    }
}
