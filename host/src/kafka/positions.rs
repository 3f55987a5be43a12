//! Positions as records of a compacted topic of the host, one partition for each of the input's: how a record says
//! one, and how the last of them is found.
//!
//! A group's committed offsets would not do: they expire when a pipeline rests, go with a deleted topic as if it had
//! never been read, can be reset by any tool, and hold 4096 bytes of ours at most. A record of our own is written in
//! the same transaction as well, and by fewer requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::identity::is_unknown;
use super::logs::Logs;
use super::{KafkaSettings, client_error};
use crate::anchor::{Claim, Cut, Epoch, Ledger, Stored};
use crate::error::{Blame, Error, Result};

/// Key of a position.
pub(super) const POSITION: &[u8] = b"position";
/// Key of a mark: a record of no meaning but that whoever reads it has read everything before it.
pub(super) const MARK: &[u8] = b"mark";

/// How long reading may take in all.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait for one record.
const POLL: Duration = Duration::from_millis(50);
/// How far back the last position is looked for, each when the one before did not do: a commit takes two offsets, one
/// for the position and one for the transaction's end; what was aborted stands in between.
const BACK: [i64; 3] = [32, 4096, i64::MAX];

/// A position with everything that moves with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    epoch: i64,
    claim: String,
    pub(super) next: i64,
    pub(super) reserved: i64,
    pub(super) hlc: i64,
    /// Records, emitted, filtered, dead.
    pub(super) ledger: [i64; 4],
    #[serde(default)]
    pub(super) cuts: Vec<Cut>,
    #[serde(default)]
    topic_id: Option<String>,
    /// For people.
    plugin: String,
}

impl Position {
    /// The first of a partition.
    pub(super) fn seed(stored: &Stored, plugin: &str) -> Self {
        Self {
            epoch: 0,
            claim: uuid::Uuid::nil().to_string(),
            next: stored.next,
            reserved: stored.next,
            hlc: 0,
            ledger: Ledger::default().counts(),
            cuts: stored.cuts.clone(),
            topic_id: stored.topic_id.clone(),
            plugin: plugin.to_owned(),
        }
    }

    /// As it stands under a new claim.
    pub(super) fn claimed(&self, plugin: &str) -> Self {
        Self {
            epoch: self.epoch + 1,
            claim: uuid::Uuid::new_v4().to_string(),
            plugin: plugin.to_owned(),
            ..self.clone()
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and texts are always JSON")
    }

    fn decode(what: &str, value: &[u8]) -> Result<Self> {
        serde_json::from_slice(value).map_err(|error| {
            Error::config(what, format!("a position does not parse: {error}")).hint(
                "somebody else wrote to the topic, or a newer host: restore it, nothing is processed until it is read",
            )
        })
    }

    /// What an owner knows of it.
    ///
    /// # Errors
    /// `Config` when its ledger does not balance.
    pub(super) fn claim(&self, partition: i32) -> Result<Claim> {
        let what = || format!("claim partition {partition}");
        Ok(Claim {
            partition,
            epoch: Epoch {
                number: self.epoch,
                id: uuid::Uuid::parse_str(&self.claim)
                    .map_err(|error| Error::config(what(), error))?,
            },
            next: self.next,
            reserved: self.reserved,
            hlc: self.hlc,
            ledger: Ledger::stored(partition, self.ledger)?,
            cuts: self.cuts.clone(),
            topic_id: self.topic_id.clone(),
        })
    }

    pub(super) fn stored(&self, partition: i32) -> Stored {
        Stored {
            partition,
            next: self.next,
            cuts: self.cuts.clone(),
            topic_id: self.topic_id.clone(),
        }
    }
}

/// A client that reads what is committed, from where it is told, and says where a partition ends.
pub(super) fn committed_reader(settings: &KafkaSettings, what: &str) -> Result<BaseConsumer<Logs>> {
    settings
        .client_config()
        .set("group.id", "wasmill.anchor")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        // What was compacted away begins later.
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "50")
        .set("check.crcs", "true")
        .create_with_context(Logs)
        .map_err(|error| client_error(what, &error))
}

/// How many partitions a topic has; 0: there is none. Blocks.
pub(super) fn partitions(consumer: &BaseConsumer<Logs>, what: &str, topic: &str) -> Result<i32> {
    let metadata = consumer
        .fetch_metadata(Some(topic), PATIENCE)
        .map_err(|error| client_error(what, &error))?;
    let Some(found) = metadata.topics().first() else {
        return Ok(0);
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {
            Ok(i32::try_from(found.partitions().len()).expect("Kafka counts partitions in i32"))
        }
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(0),
        Some(code) => Err(client_error(what, &KafkaError::MetadataFetch(code))),
    }
}

/// One partition being looked through.
#[derive(Debug, Default)]
struct Look<'a> {
    /// What has to be read before the answer counts; `None`: what is there now is enough.
    mark: Option<&'a str>,
    found: Option<Position>,
    /// Nothing lies before what was read.
    whole: bool,
    done: bool,
}

/// The last committed position of each partition, where there is one. With a mark, everything that was committed
/// before the mark has been seen. Blocks.
///
/// # Errors
/// `Outside` when not all was read in time, `Config` for a record that is no position.
pub(super) fn last(
    settings: &KafkaSettings,
    topic: &str,
    wanted: &[(i32, Option<String>)],
) -> Result<BTreeMap<i32, Option<Position>>> {
    let what = format!("read positions from topic {topic:?}");
    let mut answers = BTreeMap::new();
    let mut open: BTreeMap<i32, Option<&str>> = wanted
        .iter()
        .map(|(partition, mark)| (*partition, mark.as_deref()))
        .collect();
    for back in BACK {
        if open.is_empty() {
            break;
        }
        let looks = look(settings, &what, topic, &open, back)?;
        for (partition, look) in looks {
            if look.found.is_some() || look.whole {
                open.remove(&partition);
                answers.insert(partition, look.found);
            }
        }
    }
    Ok(answers)
}

fn look<'a>(
    settings: &KafkaSettings,
    what: &str,
    topic: &str,
    open: &BTreeMap<i32, Option<&'a str>>,
    back: i64,
) -> Result<BTreeMap<i32, Look<'a>>> {
    let failed = |error: KafkaError| client_error(what, &error);
    let consumer = committed_reader(settings, what)?;
    let mut looks = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for (partition, mark) in open {
        let (low, high) = consumer
            .fetch_watermarks(topic, *partition, PATIENCE)
            .map_err(|error| match error.rdkafka_error_code() {
                // It was made sure of: a broker that has just started does not know it yet.
                Some(code) if is_unknown(code) => Error::outside(what, error),
                _ => failed(error),
            })?;
        let from = high.saturating_sub(back).max(low);
        list.add_partition_offset(topic, *partition, Offset::Offset(from))
            .map_err(failed)?;
        let look = Look {
            mark: *mark,
            whole: from == low,
            ..Look::default()
        };
        looks.insert(*partition, look);
    }
    consumer.assign(&list).map_err(failed)?;
    let begun = Instant::now();
    while looks.values().any(|look| !look.done) {
        if begun.elapsed() > PATIENCE {
            return Err(Error::outside(what, "not all of them came in time")
                .hint("are the brokers up? a transaction that was left open ends within the session time-out"));
        }
        let message = match consumer.poll(POLL) {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                // With a mark, what it says may be said too early: by a broker that has just become the leader.
                if let Some(look) = looks.get_mut(&partition).filter(|look| look.mark.is_none()) {
                    look.done = true;
                }
                continue;
            }
            Some(Err(error)) if client_error(what, &error).blame() == Blame::Outside => {
                tracing::debug!(topic, error = %error, "reading positions");
                continue;
            }
            Some(Err(error)) => return Err(failed(error)),
        };
        let Some(look) = looks
            .get_mut(&message.partition())
            .filter(|look| !look.done)
        else {
            continue;
        };
        let value = message.payload();
        match message.key() {
            // A tombstone takes away what was there, before compaction and after.
            Some(key) if key == POSITION => {
                look.found = value
                    .map(|value| Position::decode(what, value))
                    .transpose()?;
            }
            Some(key) if key == MARK => {
                look.done = look.mark.is_some_and(|mark| Some(mark.as_bytes()) == value);
            }
            _ => {}
        }
    }
    Ok(looks)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::anchor::Order;

    #[test]
    fn a_position_comes_back_as_it_was_and_a_claim_of_it_is_the_next() {
        let order = Order {
            log: "log".to_owned(),
            revision: 7,
        };
        let cut = Cut {
            order,
            ..Cut::new(5, "0123456789abcdef")
        };
        let stored = Stored {
            partition: 3,
            next: 5,
            cuts: vec![cut],
            topic_id: Some("id".to_owned()),
        };
        let seed = Position::seed(&stored, "p@1.0.0");
        let read = Position::decode("read", &seed.encode()).unwrap();
        assert_eq!(read, seed);
        assert_eq!(read.stored(3), stored);
        let (first, second) = (read.claimed("p@1.0.1"), read.claimed("p@1.0.1"));
        assert_eq!(first.claim(3).unwrap().epoch.number, 1);
        assert_ne!(
            first.claim(3).unwrap().epoch,
            second.claim(3).unwrap().epoch
        );
        assert!(Position::decode("read", b"{}").is_err());
    }

    #[test]
    fn a_ledger_that_does_not_balance_is_refused() {
        let stored = Stored {
            partition: 0,
            next: 5,
            cuts: Vec::new(),
            topic_id: None,
        };
        let mut position = Position::seed(&stored, "p@1.0.0");
        position.ledger = [3, 1, 1, 0];
        let error = position.claim(0).unwrap_err();
        assert!(error.detail().contains("does not balance"), "{error}");
    }
}
