//! Dead letters as records of a compacted topic of the host: how a record says one, and [`KafkaLetters`], which finds
//! and removes them. A flight writes them in its own transaction, so that one that can be read is decided.
//!
//! A letter is removed by a record without a value. It cannot be retried yet: rows and removal would have to be a
//! transaction of a lane's producer, under its claim.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message as _, OwnedHeaders};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::anchor::KafkaAnchorSettings;
use super::anchor_topics::AnchorTopics;
use super::client::Outgoing;
use super::flight::Flight as Sent;
use super::logs::Logs;
use super::producer::Producers;
use super::{KafkaSettings, client_error, messages, positions};
use crate::anchor::{
    Ahead, CommitError, Coordinates, DeadLetters, Flight, Letter, LetterFilter, LetterPage,
    LetterRetry, Part,
};
use crate::clock::now_micros;
use crate::error::{Blame, Error, Result};
use crate::route::DeadLetter;
use crate::task;

/// Most bytes of key, value and headers kept together: as text they and the reason fit into one message.
const MAX_KEPT: usize = 640 << 10;
/// Longest reason kept, bytes.
const MAX_REASON: usize = 4096;
/// How long reading may take without a record.
const PATIENCE: Duration = Duration::from_secs(15);
/// Partitions read at a time.
const AT_ONCE: usize = 8;
/// Longest wait for one record.
const POLL: Duration = Duration::from_millis(50);

/// A letter as its record says it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    class: String,
    code: String,
    reason: String,
    plugin: String,
    digest: String,
    /// Microseconds since 1970.
    set_aside: i64,
    stamp: Option<i64>,
    /// Milliseconds, −1 for none.
    timestamp: i64,
    key: Bytes,
    value: Bytes,
    headers: Bytes,
}

/// Bytes in base64.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Bytes {
    Null,
    LeftOut,
    Base64(String),
}

/// A record of a letter.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// The records of a flight's letters; a record set aside more than once gets ascending indices.
pub(super) fn encode(flight: &Flight<'_>, settings: &KafkaAnchorSettings) -> Vec<Encoded> {
    let dead = flight.dead.iter().enumerate();
    let now = if flight.dead.is_empty() {
        0
    } else {
        now_micros()
    };
    dead.map(|(at, letter)| {
        let same = flight.dead[..at]
            .iter()
            .filter(|other| other.source == letter.source);
        let index = i32::try_from(same.count()).unwrap_or(i32::MAX);
        let record = flight.batch.record(letter.source as usize);
        let mut reason = letter.reason.clone();
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        let mut room = MAX_KEPT;
        let mut bytes = |part: Option<&[u8]>| match part {
            None => Bytes::Null,
            Some(part) if part.len() > room => Bytes::LeftOut,
            Some(part) => {
                room -= part.len();
                Bytes::Base64(STANDARD.encode(part))
            }
        };
        let kept = Kept {
            class: letter.class.as_str().to_owned(),
            code: letter.code.clone().into_owned(),
            reason,
            plugin: settings.author.plugin.clone(),
            digest: settings.digest.clone(),
            set_aside: now,
            stamp: flight.stamps.get(letter.source as usize).copied(),
            timestamp: record.timestamp,
            headers: bytes(Some(record.headers).filter(|headers| !headers.is_empty())),
            key: bytes(record.key),
            value: bytes(record.value),
        };
        let at = Coordinates {
            partition: flight.claim.partition,
            offset: record.offset,
            index,
        };
        Encoded {
            key: key(at),
            value: serde_json::to_vec(&kept).expect("numbers and texts are always JSON"),
        }
    })
    .collect()
}

fn key(at: Coordinates) -> Vec<u8> {
    format!("{}/{}/{}", at.partition, at.offset, at.index).into_bytes()
}

fn coordinates(key: &[u8]) -> Option<Coordinates> {
    let mut parts = std::str::from_utf8(key).ok()?.splitn(3, '/');
    Some(Coordinates {
        partition: parts.next()?.parse().ok()?,
        offset: parts.next()?.parse().ok()?,
        index: parts.next()?.parse().ok()?,
    })
}

/// The letter a record says, with `most` bytes of each part at most.
fn decode(at: Coordinates, value: &[u8], most: u32) -> Result<Letter> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let what = || {
        format!(
            "read dead letter {}:{}:{}",
            at.partition, at.offset, at.index
        )
    };
    let kept: Kept = serde_json::from_slice(value).map_err(|error| {
        Error::config(what(), error).hint("somebody else wrote to the topic, or a newer host")
    })?;
    let cut = [&kept.key, &kept.value, &kept.headers].contains(&&Bytes::LeftOut);
    let part = |bytes: Bytes| {
        Ok::<_, Error>(match bytes {
            Bytes::Null => Part::Null,
            Bytes::LeftOut => Part::LeftOut,
            Bytes::Base64(text) => {
                let mut bytes = STANDARD
                    .decode(text)
                    .map_err(|error| Error::config(what(), error))?;
                let size = bytes.len() as u64;
                bytes.truncate(most);
                Part::Bytes { bytes, size }
            }
        })
    };
    let headers = match part(kept.headers)? {
        Part::Bytes { bytes, size } if bytes.len() as u64 == size => Some(bytes),
        _ => None,
    };
    Ok(Letter {
        at,
        class: kept.class,
        code: kept.code,
        reason: kept.reason,
        plugin: kept.plugin,
        digest: Some(kept.digest),
        set_aside: Some(kept.set_aside),
        tried: None,
        stamp: kept.stamp,
        begun: None,
        key: part(kept.key)?,
        value: part(kept.value)?,
        headers,
        cut,
        timestamp: kept.timestamp,
    })
}

/// The dead letters of one pipeline.
#[derive(Debug)]
pub struct KafkaLetters {
    kafka: KafkaSettings,
    /// The cluster's name among the host's.
    cluster: String,
    topic: String,
    producers: Producers,
}

impl KafkaLetters {
    /// Those of a pipeline and the topic it reads, on a cluster of this name.
    #[must_use]
    pub fn new(
        producers: &Producers,
        cluster: &str,
        kafka: KafkaSettings,
        topics: AnchorTopics,
    ) -> Self {
        Self {
            kafka,
            cluster: cluster.to_owned(),
            topic: topics.dead_letters,
            producers: producers.clone(),
        }
    }

    async fn find(&self, filter: &LetterFilter, page: LetterPage) -> Result<Vec<Letter>> {
        let (kafka, topic, filter) = (self.kafka.clone(), self.topic.clone(), filter.clone());
        task::blocking(move || find(&kafka, &topic, &filter, page)).await?
    }

    /// Written outside of a transaction: a letter that can be read is written by nobody any more.
    async fn delete(&self, letters: &[Letter]) -> Result<u64> {
        let what = format!("remove dead letters from topic {:?}", self.topic);
        let producer = self.producers.of(&self.cluster, &self.kafka);
        let client = producer.client()?;
        let flight = Sent::new();
        let sent = async {
            let run = client.to(&flight, &self.topic);
            for letter in letters {
                let key = key(letter.at);
                let outgoing = Outgoing {
                    partition: Some(letter.at.partition),
                    key: Some(&key),
                    value: None,
                    timestamp: None,
                    headers: OwnedHeaders::new(),
                };
                run.send(outgoing)
                    .await
                    .map_err(|error| messages::refused(&what, &flight.topics(), &error, ""))?;
            }
            let landed = flight.landed().await;
            landed.map_err(|(error, at)| messages::refused(&what, &flight.topics(), &error, &at))
        };
        let outcome = match tokio::time::timeout(PATIENCE, sent).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::outside(&what, "not acknowledged in time")),
        };
        if let Err(error) = outcome {
            producer.discard(Arc::clone(&client)).await?;
            return Err(error);
        }
        Ok(letters.len() as u64)
    }
}

/// Reads partitions of the topic from their beginning to their end, until enough is found: letters are few, and
/// compaction leaves one record of each.
fn find(
    settings: &KafkaSettings,
    topic: &str,
    filter: &LetterFilter,
    page: LetterPage,
) -> Result<Vec<Letter>> {
    let what = format!("read dead letters from topic {topic:?}");
    let consumer = positions::committed_reader(settings, &what)?;
    let count = positions::partitions(&consumer, &what, topic)?;
    let first = page.after.map_or(0, |after| after.partition);
    let wanted: Vec<i32> = (first..count)
        .filter(|partition| filter.partition.is_none_or(|wanted| wanted == *partition))
        .collect();
    let most = usize::try_from(page.most.max(1)).unwrap_or(usize::MAX);
    let mut found: BTreeMap<Coordinates, Letter> = BTreeMap::new();
    for some in wanted.chunks(AT_ONCE) {
        read(&consumer, &what, topic, some, |at, value| {
            let letter = match value {
                Some(value) if is_asked(filter, page, at) => Some(decode(at, value, page.bytes)?),
                _ => None,
            };
            match letter.filter(|letter| fits(filter, letter)) {
                Some(letter) => found.insert(at, letter),
                None => found.remove(&at),
            };
            Ok(())
        })?;
        // They come in the order of their partitions.
        if found.len() >= most {
            break;
        }
    }
    Ok(found.into_values().take(most).collect())
}

/// Reads some partitions whole; tells each letter, and `None` where it was removed.
fn read(
    consumer: &BaseConsumer<Logs>,
    what: &str,
    topic: &str,
    partitions: &[i32],
    mut tell: impl FnMut(Coordinates, Option<&[u8]>) -> Result<()>,
) -> Result<()> {
    let failed = |error: KafkaError| client_error(what, &error);
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning)
            .map_err(failed)?;
    }
    consumer.assign(&list).map_err(failed)?;
    let mut open = partitions.to_vec();
    let mut heard = Instant::now();
    while !open.is_empty() {
        if heard.elapsed() > PATIENCE {
            return Err(
                Error::outside(what, "not all of them came in time").hint("are the brokers up?")
            );
        }
        let message = match consumer.poll(POLL) {
            None => continue,
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.retain(|open| *open != partition);
                continue;
            }
            Some(Err(error)) if failed(error.clone()).blame() == Blame::Outside => continue,
            Some(Err(error)) => return Err(failed(error)),
        };
        heard = Instant::now();
        if let Some(at) = message.key().and_then(coordinates) {
            tell(at, message.payload())?;
        }
    }
    Ok(())
}

/// What the coordinates alone tell.
fn is_asked(filter: &LetterFilter, page: LetterPage, at: Coordinates) -> bool {
    page.after.is_none_or(|after| at > after)
        && filter.partition.is_none_or(|wanted| wanted == at.partition)
        && filter.from.is_none_or(|from| at.offset >= from)
        && filter.to.is_none_or(|to| at.offset < to)
        && filter.index.is_none_or(|index| index == at.index)
}

fn fits(filter: &LetterFilter, letter: &Letter) -> bool {
    let is = |wanted: &Option<String>, found: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted == found)
    };
    let timed = |fits: &dyn Fn(i64) -> bool| letter.set_aside.is_some_and(fits);
    is(&filter.class, &letter.class)
        && is(&filter.code, &letter.code)
        && is(&filter.plugin, &letter.plugin)
        && is(&filter.digest, letter.digest.as_deref().unwrap_or_default())
        && filter.since.is_none_or(|since| timed(&|at| at >= since))
        && filter.until.is_none_or(|until| timed(&|at| at < until))
}

fn refused() -> Error {
    Error::config(
        "retry a dead letter",
        "the pipeline keeps its position in Kafka, where rows and removal cannot be one step yet",
    )
    .hint("send the record again to the topic, corrected, then drop the letter")
}

impl DeadLetters for KafkaLetters {
    fn list<'a>(
        &'a self,
        filter: &'a LetterFilter,
        page: LetterPage,
    ) -> LocalBoxFuture<'a, Result<Vec<Letter>, Error>> {
        self.find(filter, page).boxed_local()
    }

    fn remove<'a>(&'a self, letters: &'a [Letter]) -> LocalBoxFuture<'a, Result<u64, Error>> {
        self.delete(letters).boxed_local()
    }

    fn begin<'a>(&'a self, _: &'a Letter, _: &'a str) -> LocalBoxFuture<'a, Result<bool, Error>> {
        std::future::ready(Err(refused())).boxed_local()
    }

    fn retry<'a>(
        &'a self,
        _: LetterRetry<'a>,
        _: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<bool, CommitError>> {
        std::future::ready(Err(CommitError::Stop(refused()))).boxed_local()
    }

    fn keep<'a>(
        &'a self,
        _: &'a Letter,
        _: &'a DeadLetter,
    ) -> LocalBoxFuture<'a, Result<bool, Error>> {
        std::future::ready(Err(refused())).boxed_local()
    }
}
