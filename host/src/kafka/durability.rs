//! What a cluster's topics keep when a broker dies, and what that takes away from the promise: [`TopicKeeps`] judged.
//! Asked by `explain`; it changes and makes nothing.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::identity::is_unknown;
use super::logs::Logs;
use super::{KafkaSettings, client_error, positions};
use crate::error::Result;
use crate::task;

/// What has to hold on a cluster nobody could ask.
pub const NEEDED: &str = "topics with replication factor 3, min.insync.replicas = 2 and unclean.leader.election.enable = \
                          false, and fewer than two of a partition's brokers lost at once";

/// Copies from which the loss of one broker takes nothing and stops nothing.
const ENOUGH: usize = 3;
/// Longest wait for an answer: a person is waiting.
const WAIT: Duration = Duration::from_secs(5);

/// What stands in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// Messages of a route.
    Messages,
    /// Positions of a pipeline.
    Positions,
    /// Its dead letters.
    DeadLetters,
}

/// A topic to ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicAsked {
    /// Its name.
    pub topic: String,
    /// What stands in it.
    pub content: Content,
    /// Copies that it is made with, where a manifest says so.
    pub replication: Option<u16>,
}

/// What decides what of a topic is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicKeeps {
    /// Which.
    pub asked: TopicAsked,
    /// Whether it is there; otherwise `copies` is what it would be made with.
    pub exists: bool,
    /// Copies of the partition that has the fewest.
    pub copies: usize,
    /// `min.insync.replicas`, where the broker tells.
    pub in_sync: Option<usize>,
    /// `unclean.leader.election.enable`.
    pub unclean: bool,
}

/// Asks a cluster for topics, in their order.
///
/// # Errors
/// `Outside` when no broker answers, `Config` when it refuses us.
pub async fn keeps(settings: &KafkaSettings, topics: &[TopicAsked]) -> Result<Vec<TopicKeeps>> {
    let what = format!("ask kafka at {} what its topics keep", settings.brokers);
    let failed = |error: KafkaError| client_error(&what, &error);
    let (kafka, asked, why) = (settings.clone(), topics.to_vec(), what.clone());
    let mut found = task::blocking(move || copies(&kafka, &why, asked)).await??;
    let admin: AdminClient<Logs> = settings
        .client_config()
        .create_with_context(Logs)
        .map_err(failed)?;
    let mut there: Vec<_> = found.iter_mut().filter(|one| one.exists).collect();
    let asked = configured(&admin, &mut there).await;
    // Its threads take a while to end.
    task::blocking(move || drop(admin)).await?;
    asked.map_err(failed)?;
    Ok(found)
}

/// Looks up the properties of topics that are there.
async fn configured(
    admin: &AdminClient<Logs>,
    topics: &mut [&mut TopicKeeps],
) -> Result<(), KafkaError> {
    if topics.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = topics.iter().map(|one| one.asked.topic.clone()).collect();
    let resources: Vec<_> = names
        .iter()
        .map(|name| ResourceSpecifier::Topic(name))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(WAIT));
    // A broker that does not tell is taken by its copies alone.
    let answers = match admin.describe_configs(&resources, &options).await {
        Err(KafkaError::AdminOp(RDKafkaErrorCode::UnsupportedFeature)) => return Ok(()),
        answers => answers?,
    };
    for (one, answer) in topics.iter_mut().zip(answers) {
        if let Ok(config) = answer {
            one.configured(&config);
        }
    }
    Ok(())
}

/// Looks for the copies of topics. Blocks.
fn copies(settings: &KafkaSettings, what: &str, asked: Vec<TopicAsked>) -> Result<Vec<TopicKeeps>> {
    // A consumer's question makes no topic.
    let consumer: BaseConsumer<Logs> = positions::committed_reader(settings, what)?;
    let look = |asked: TopicAsked| {
        let metadata = consumer
            .fetch_metadata(Some(&asked.topic), WAIT)
            .map_err(|error| client_error(what, &error))?;
        let topic = metadata.topics().first();
        let refused = topic
            .and_then(|topic| topic.error())
            .map(RDKafkaErrorCode::from);
        if let Some(code) = refused.filter(|code| !is_unknown(*code)) {
            return Err(client_error(what, &KafkaError::MetadataFetch(code)));
        }
        let partitions = topic
            .filter(|_| refused.is_none())
            .map(|topic| topic.partitions());
        let fewest = partitions.and_then(|all| all.iter().map(|one| one.replicas().len()).min());
        let made = asked.replication.map_or_else(
            || metadata.brokers().len().clamp(1, ENOUGH),
            |copies| usize::from(copies).max(1),
        );
        Ok(TopicKeeps {
            asked,
            exists: fewest.is_some(),
            copies: fewest.unwrap_or(made),
            in_sync: None,
            unclean: false,
        })
    };
    asked.into_iter().map(look).collect()
}

impl TopicKeeps {
    fn configured(&mut self, config: &ConfigResource) {
        let property = |name: &str| config.get(name).and_then(|entry| entry.value.as_deref());
        self.in_sync = property("min.insync.replicas").and_then(|count| count.parse().ok());
        self.unclean = property("unclean.leader.election.enable") == Some("true");
    }

    /// Name and value of each setting.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let made = if self.exists { "" } else { " once it is made" };
        let mut settings = vec![("replication factor", format!("{}{made}", self.copies))];
        if let Some(in_sync) = self.in_sync {
            settings.push(("min.insync.replicas", in_sync.to_string()));
        }
        if self.unclean {
            settings.push(("unclean.leader.election.enable", "true".to_owned()));
        }
        settings
    }

    /// What the settings take away from the promise, each with what to do; nothing where it holds as it is.
    #[must_use]
    pub fn takes_away(&self) -> Vec<String> {
        let what = match self.asked.content {
            Content::Messages => "messages it acknowledged, which nobody sends again",
            Content::Positions => {
                "positions it acknowledged: the pipeline begins further back and doubles messages, or stops without one"
            }
            Content::DeadLetters => "dead letters it acknowledged, which nobody sets aside again",
        };
        let copies = self.copies;
        let mut taken = Vec::new();
        if copies < 2 {
            taken.push(format!(
                "replication factor {copies}: a broker that loses its disk or its power takes along {what}; use \
                 replication factor {ENOUGH} with min.insync.replicas = 2"
            ));
        } else if self.in_sync == Some(1) {
            taken.push(format!(
                "min.insync.replicas = 1 with replication factor {copies}: while the other replicas are behind, one \
                 broker alone takes writes, and when it dies takes along {what}; set min.insync.replicas = 2"
            ));
        }
        if self.unclean {
            taken.push(format!(
                "unclean.leader.election.enable = true: a replica that is behind may become the leader and drop {what}; \
                 set it to false"
            ));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(content: Content, copies: usize, in_sync: Option<usize>) -> TopicKeeps {
        TopicKeeps {
            asked: TopicAsked {
                topic: "alerts".to_owned(),
                content,
                replication: None,
            },
            exists: true,
            copies,
            in_sync,
            unclean: false,
        }
    }

    #[test]
    fn two_copies_in_sync_keep_a_topic_and_nothing_else_does() {
        let taken = |copies, in_sync| topic(Content::Messages, copies, in_sync).takes_away();
        assert_eq!(taken(3, Some(2)), Vec::<String>::new());
        assert_eq!(taken(2, Some(2)), Vec::<String>::new());
        let one = taken(1, Some(1));
        assert_eq!(one.len(), 1, "{one:?}");
        assert!(
            one[0].starts_with("replication factor 1: a broker"),
            "{one:?}"
        );
        let alone = taken(3, Some(1));
        assert!(
            alone[0].contains("set min.insync.replicas = 2"),
            "{alone:?}"
        );
        let mut unclean = topic(Content::DeadLetters, 3, Some(2));
        unclean.unclean = true;
        let said = unclean.takes_away();
        assert!(
            said[0].contains("drop dead letters it acknowledged"),
            "{said:?}"
        );
        let positions = topic(Content::Positions, 1, None).takes_away();
        assert!(positions[0].contains("doubles messages"), "{positions:?}");
    }

    #[test]
    fn a_topic_that_is_not_there_is_told_by_what_it_will_be_made_with() {
        let mut missing = topic(Content::Messages, 1, None);
        missing.exists = false;
        let wanted = ("replication factor", "1 once it is made".to_owned());
        assert_eq!(missing.settings(), [wanted]);
        assert_eq!(missing.takes_away().len(), 1);
    }
}
