//! The two topics of a pipeline whose anchor is Kafka: their names, and that they are there, compacted and as wide as
//! the input. It reads and writes none of their records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::catalog::ask;
use super::feed::create_topic;
use super::identity::is_unknown;
use super::logs::Logs;
use super::{KafkaSettings, client_error};
use crate::error::{Error, Result};
use crate::task;

/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Kafka's own default, whatever the brokers' is: a dead letter holds up to so much.
const LARGEST: &str = "1048588";
/// How long a topic that was just made may be unknown.
const DOUBT: Duration = Duration::from_secs(5);
/// Between two questions while in doubt.
const AGAIN: Duration = Duration::from_millis(100);
/// Replicas where the cluster has that many brokers.
const REPLICAS: usize = 3;
/// `segment.bytes`: what was overwritten goes when its segment is full, and positions are overwritten all the time.
const SEGMENT: &str = "16777216";

/// Where the anchor of a pipeline keeps what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorTopics {
    /// Positions.
    pub positions: String,
    /// Dead letters.
    pub dead_letters: String,
}

impl AnchorTopics {
    /// Those of a pipeline and the topic it reads. A pipeline's name has no dot, so no two of them share one.
    #[must_use]
    pub fn of(pipeline: &str, input: &str) -> Self {
        Self {
            positions: format!("wasmill.position.{pipeline}.{input}"),
            dead_letters: format!("wasmill.dead-letter.{pipeline}.{input}"),
        }
    }

    /// Makes both where they are missing, gives them `partitions`, and refuses what would forget positions.
    ///
    /// # Errors
    /// `Config` for a topic that may not be used or made, or is not only compacted; `Outside` when no broker answers.
    pub async fn ensure(&self, settings: &KafkaSettings, partitions: usize) -> Result<()> {
        let admin: AdminClient<Logs> = settings
            .client_config()
            .create_with_context(Logs)
            .map_err(|error| client_error("make an admin client", &error))?;
        let admin = Arc::new(admin);
        let mut ensured = self.lost(&admin).await;
        for topic in [&self.positions, &self.dead_letters] {
            if ensured.is_ok() {
                ensured = ensure(&admin, settings, topic, partitions).await;
            }
        }
        // Its threads take a while to end.
        task::blocking(move || drop(admin)).await?;
        ensured
    }

    /// Refuses to begin anew where the positions are gone: the dead letters' topic is made after theirs.
    async fn lost(&self, admin: &Arc<AdminClient<Logs>>) -> Result<()> {
        let what = format!("find the positions in topic {:?}", self.positions);
        let positions = described(&what, admin, &self.positions).await?;
        if positions.is_some() || described(&what, admin, &self.dead_letters).await?.is_none() {
            return Ok(());
        }
        let detail = "DATA LOSS: the topic is gone, and the pipeline has run before: its dead letters are there";
        Err(Error::config(what, detail).hint(format!(
            "restore it, or give the pipeline a new name: nothing was skipped; to begin at its start again on purpose, \
             delete topic {:?} too, start it, and do what is said then of its group",
            self.dead_letters
        )))
    }
}

async fn ensure(
    admin: &Arc<AdminClient<Logs>>,
    settings: &KafkaSettings,
    topic: &str,
    partitions: usize,
) -> Result<()> {
    let what = format!("topic {topic:?} of the anchor at {}", settings.brokers);
    let begun = Instant::now();
    let mut made = false;
    loop {
        let found = described(&what, admin, topic).await?;
        match found {
            Some(found) if found >= partitions => break,
            _ if made && begun.elapsed() > DOUBT => {
                return Err(Error::outside(what, "made, and still unknown"));
            }
            _ if made => tokio::time::sleep(AGAIN).await,
            Some(_) => {
                widen(&what, admin, topic, partitions).await?;
                made = true;
            }
            None => {
                create(&what, admin, settings, topic, partitions).await?;
                made = true;
            }
        }
    }
    check_policy(&what, admin, topic).await
}

/// How many partitions a topic has; `None`: there is none.
async fn described(
    what: &str,
    admin: &Arc<AdminClient<Logs>>,
    topic: &str,
) -> Result<Option<usize>> {
    let (client, name) = (Arc::clone(admin), topic.to_owned());
    match task::blocking(move || ask(client.inner(), &name, ANSWER)).await? {
        Some(Ok(found)) => Ok(Some(found.partitions)),
        Some(Err(code)) if is_unknown(code) => Ok(None),
        Some(Err(RDKafkaErrorCode::TopicAuthorizationFailed)) => Err(
            Error::config(what, "it may not be seen").hint(
                "grant Create, Read, Write, Alter and Describe on topics that begin with \"wasmill.\" to the host's \
                 principal",
            ),
        ),
        Some(Err(code)) => Err(client_error(what, &KafkaError::MetadataFetch(code))),
        None => Err(Error::config(what, "a topic's name holds no zero byte")),
    }
}

async fn create(
    what: &str,
    admin: &Arc<AdminClient<Logs>>,
    settings: &KafkaSettings,
    topic: &str,
    partitions: usize,
) -> Result<()> {
    let client = Arc::clone(admin);
    let brokers = task::blocking(move || {
        let metadata = client.inner().fetch_metadata(None, ANSWER)?;
        Ok(metadata.brokers().len())
    });
    let brokers = brokers
        .await?
        .map_err(|error: KafkaError| client_error(what, &error))?;
    let replicas = i32::try_from(brokers.clamp(1, REPLICAS)).expect("at most 3");
    // One replica may be away without stopping writes; with one or two replicas that leaves one.
    let in_sync = (replicas - 1).max(1).to_string();
    let new = NewTopic::new(
        topic,
        counted(partitions),
        TopicReplication::Fixed(replicas),
    )
    .set("cleanup.policy", "compact")
    .set("min.insync.replicas", &in_sync)
    .set("max.message.bytes", LARGEST)
    .set("segment.bytes", SEGMENT);
    create_topic(settings, &new, true)
        .await
        .map_err(|error| match error.hint_text() {
            Some(_) => error,
            None => error.hint(format!(
                "create it by hand: {partitions} partitions, cleanup.policy=compact"
            )),
        })?;
    tracing::info!(topic, partitions, replicas, "topic of the anchor created");
    Ok(())
}

async fn widen(
    what: &str,
    admin: &Arc<AdminClient<Logs>>,
    topic: &str,
    partitions: usize,
) -> Result<()> {
    let failed = |error: KafkaError| {
        client_error(what, &error).hint(format!(
            "give it as many partitions as the input has: kafka-topics.sh --alter --topic {topic} --partitions \
             {partitions}"
        ))
    };
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER))
        .operation_timeout(Some(ANSWER));
    let wider = NewPartitions::new(topic, partitions);
    let outcome = admin
        .create_partitions([&wider], &options)
        .await
        .map_err(failed)?;
    match outcome.into_iter().next() {
        // Another host may have done it just now: whoever asks again sees that.
        Some(Err((_, RDKafkaErrorCode::InvalidPartitions))) | Some(Ok(_)) | None => Ok(()),
        Some(Err((_, code))) => Err(failed(KafkaError::AdminOp(code))),
    }
}

/// Refuses a topic whose records go with age. A broker that does not tell is believed.
async fn check_policy(what: &str, admin: &AdminClient<Logs>, topic: &str) -> Result<()> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let answer = admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options)
        .await;
    let Ok(Some(Ok(config))) = answer.map(|all| all.into_iter().next()) else {
        return Ok(());
    };
    let policy = config
        .get("cleanup.policy")
        .and_then(|entry| entry.value.clone());
    match policy {
        Some(policy) if policy != "compact" => Err(Error::config(
            what,
            format!("its cleanup.policy is {policy:?}: what it keeps would be deleted with age"),
        )
        .hint(format!("set cleanup.policy=compact on topic {topic:?}"))),
        _ => Ok(()),
    }
}

fn counted(partitions: usize) -> i32 {
    i32::try_from(partitions).expect("Kafka counts partitions in i32")
}
