//! Topics that routes write: compared with what a route needs, or created. Asked at a deployment, never on a
//! record's way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::catalog::ask;
use super::feed::create_topic;
use super::identity::is_unknown;
use super::logs::Logs;
use super::native::Described;
use super::{KafkaSettings, client_error};
use crate::error::{Error, Result};
use crate::manifest::{Create, KafkaTopic};
use crate::sink::MAX_MESSAGE;
use crate::task;

/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a topic may be unknown before that is believed: a broker that has just started may not know it yet.
const DOUBT: Duration = Duration::from_secs(3);
/// Between two questions while in doubt.
const AGAIN: Duration = Duration::from_millis(100);
/// Replicas of a new topic where the manifest names no number and the cluster has that many brokers.
const REPLICAS: usize = 3;
/// Bytes a record batch adds to one message at most: its own 61, lengths, and what each header takes.
const BATCH: usize = 4096;

/// Whether a missing topic may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Where the manifest says so.
    Allowed,
    /// No; one that would be made is fine.
    Later,
}

/// Checks the topic of a route against the live one, or creates it where the manifest allows.
///
/// # Errors
/// `Config` when it is missing, has too few partitions or properties that refuse what the route sends, with the
/// command that mends it; `Outside` when no broker answers.
pub async fn ensure_topic(
    settings: &KafkaSettings,
    route: &str,
    topic: &KafkaTopic,
    make: Make,
) -> Result<()> {
    let what = format!(
        "topic {:?} of route {route:?} at {}",
        topic.topic, settings.brokers
    );
    let admin: AdminClient<Logs> = settings
        .client_config()
        .create_with_context(Logs)
        .map_err(|error| client_error(&what, &error))?;
    let admin = Arc::new(admin);
    let checked = check(&what, &admin, settings, topic, make).await;
    // Its threads take a while to end.
    task::blocking(move || drop(admin)).await?;
    checked
}

async fn check(
    what: &str,
    admin: &Arc<AdminClient<Logs>>,
    settings: &KafkaSettings,
    topic: &KafkaTopic,
    make: Make,
) -> Result<()> {
    let found = match describe(what, admin, &topic.topic, topic.create).await? {
        Some(found) => found,
        None if topic.create == Create::Never => {
            let create = command(settings, topic);
            let hint =
                format!("create it, or write create = \"if-missing\" in the manifest: {create}");
            return Err(Error::config(what, "does not exist").hint(hint));
        }
        None if make == Make::Later => return Ok(()),
        None => return create(what, admin, settings, topic).await,
    };
    let needed = usize::from(topic.partitions.unwrap_or(1));
    if found.partitions < needed {
        let detail = format!(
            "it has {} partitions, the route needs {needed}",
            found.partitions
        );
        return Err(Error::config(what, detail).hint(format!(
            "kafka-topics.sh --bootstrap-server {} --alter --topic {} --partitions {needed} (keys move to other \
             partitions), or lower partitions in the manifest",
            settings.brokers, topic.topic
        )));
    }
    properties(what, admin, settings, topic).await
}

/// What the cluster says of the topic; `None`: it knows none. Where one has to be there it asks for a while.
async fn describe(
    what: &str,
    admin: &Arc<AdminClient<Logs>>,
    topic: &str,
    create: Create,
) -> Result<Option<Described>> {
    let begin = Instant::now();
    loop {
        let (client, name) = (Arc::clone(admin), topic.to_owned());
        match task::blocking(move || ask(client.inner(), &name, ANSWER)).await? {
            Some(Ok(described)) => return Ok(Some(described)),
            Some(Err(code)) if is_unknown(code) => {
                if create == Create::IfMissing || begin.elapsed() > DOUBT {
                    return Ok(None);
                }
                tokio::time::sleep(AGAIN).await;
            }
            Some(Err(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
                return Err(Error::config(what, "it may not be seen")
                    .hint("grant Write and Describe on the topic to the host's principal"));
            }
            Some(Err(code)) => {
                let error = client_error(what, &KafkaError::MetadataFetch(code));
                return Err(match error.hint_text() {
                    Some(_) => error,
                    None => error.hint("is the broker up, and is its address right?"),
                });
            }
            None => return Err(Error::config(what, "a topic's name holds no zero byte")),
        }
    }
}

async fn create(
    what: &str,
    admin: &Arc<AdminClient<Logs>>,
    settings: &KafkaSettings,
    topic: &KafkaTopic,
) -> Result<()> {
    let replicas = match topic.replication {
        Some(replicas) => usize::from(replicas),
        None => {
            let client = Arc::clone(admin);
            let brokers = task::blocking(move || {
                let metadata = client.inner().fetch_metadata(None, ANSWER)?;
                Ok(metadata.brokers().len())
            });
            let brokers = brokers.await?;
            brokers
                .map_err(|error: KafkaError| client_error(what, &error))?
                .clamp(1, REPLICAS)
        }
    };
    let replicas = i32::try_from(replicas).expect("a u16, or at most 3");
    let partitions = i32::from(topic.partitions.unwrap_or(1));
    let new = NewTopic::new(&topic.topic, partitions, TopicReplication::Fixed(replicas));
    create_topic(settings, &new, true)
        .await
        .map_err(|error| match error.hint_text() {
            Some(_) => error,
            None => error.hint(format!("create it by hand: {}", command(settings, topic))),
        })?;
    tracing::info!(topic = topic.topic, partitions, replicas, "topic created");
    Ok(())
}

/// The command that makes the topic.
fn command(settings: &KafkaSettings, topic: &KafkaTopic) -> String {
    let replicas = topic.replication.map_or_else(String::new, |replicas| {
        format!(" --replication-factor {replicas}")
    });
    format!(
        "kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {}{replicas}",
        settings.brokers,
        topic.topic,
        topic.partitions.unwrap_or(1),
    )
}

/// Refuses a topic that would refuse messages. A broker that does not tell is believed.
async fn properties(
    what: &str,
    admin: &AdminClient<Logs>,
    settings: &KafkaSettings,
    topic: &KafkaTopic,
) -> Result<()> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let answer = admin
        .describe_configs([&ResourceSpecifier::Topic(&topic.topic)], &options)
        .await;
    let config = match answer.map(|all| all.into_iter().next()) {
        Ok(Some(Ok(config))) => config,
        other => {
            tracing::debug!(topic = topic.topic, ?other, "properties not told");
            return Ok(());
        }
    };
    let property = |name: &str| config.get(name).and_then(|entry| entry.value.clone());
    let most = property("max.message.bytes").and_then(|most| most.parse::<usize>().ok());
    let needed = MAX_MESSAGE + BATCH;
    if let Some(most) = most.filter(|most| *most < needed) {
        let detail = format!(
            "its max.message.bytes is {most}: a message of the host may have {MAX_MESSAGE} bytes, and would stop the \
             pipeline"
        );
        return Err(Error::config(what, detail).hint(format!(
            "kafka-configs.sh --bootstrap-server {} --alter --topic {} --add-config max.message.bytes=1048588",
            settings.brokers, topic.topic
        )));
    }
    let compacted = property("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
    if compacted && topic.key.is_empty() {
        return Err(Error::config(
            what,
            "it is compacted, and messages of the route have no key",
        )
        .hint("add key = [\"COLUMN\"] to the route, or bind it to a topic that is not compacted"));
    }
    Ok(())
}
