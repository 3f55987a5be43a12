//! Which control log a host follows: the topic of its `[control]`, or one in memory that lives as long as it does.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Backoff;
use crate::config::Config;
use crate::control::{BlobStore, ControlLog, MemoryLog};
use crate::error::{Blame, Error, Result};
use crate::kafka::{ControlLogSettings, KafkaControlLog, KafkaSettings};
use crate::task;

/// Between two words about a broker that is away.
const QUIET: Duration = Duration::from_secs(5);

/// Opens the log; waits for a broker that is away as long as it takes.
///
/// # Errors
/// `Config`: the topic is not the one this host knows, or cannot be a control log.
pub(super) fn open(config: &Config, store: &BlobStore) -> Result<Arc<dyn ControlLog>> {
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
    task::block_on(async {
        let mut backoff = Backoff::default();
        loop {
            match KafkaControlLog::open(settings.clone()).await {
                Ok(log) => return Ok(Arc::new(log) as Arc<dyn ControlLog>),
                Err(error) if error.blame() == Blame::Outside => {
                    tracing::warn!(error = %error, hint = error.hint_text(), "waiting for the control log");
                    tokio::time::sleep(backoff.pause().min(QUIET)).await;
                }
                Err(error) => return Err(error),
            }
        }
    })
}
