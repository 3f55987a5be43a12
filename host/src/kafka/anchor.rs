//! [`KafkaAnchor`]: the positions of a pipeline that writes to topics of one cluster only, the one it reads.
//!
//! One transaction a flight holds the messages of all routes, the dead letters and the position, a record of a topic
//! of the host. There is one transactional id for each pipeline and partition, so that claiming a partition is taking
//! its id: the brokers themselves fence the former owner, whatever its group says, a transaction never holds more than
//! one lane, and nothing has to be joined or rewound when a partition moves. It costs a client for each partition.
//!
//! A claim is four steps: take the id (every transaction of former owners is decided then), commit a mark to the
//! partition of the position, read up to that mark, commit the position under the new epoch. The mark makes the read
//! complete: brokers may say too early that a partition ends.
//!
//! After any failure past a transaction's begin the client is thrown away. Whether it committed is told by a new claim.
//! All of it is explored in `anchor::model_tests::owned`.

use std::collections::BTreeMap;

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use rdkafka::message::OwnedHeaders;

use super::KafkaSettings;
use super::anchor_topics::AnchorTopics;
use super::client::Outgoing;
use super::flight::Flight as Sent;
use super::lanes::{Boarded, Transactions};
use super::letters;
use super::messages::{Author, KafkaRoute, Messages};
use super::positions::{self, MARK, POSITION, Position};
use super::transaction::Transactional;
use crate::anchor::{Ahead, Anchor, Claim, CommitError, Flight, Pin, Stored};
use crate::error::{Error, Result};
use crate::task;

/// Partitions claimed at once.
const AT_ONCE: usize = 16;

/// Whose positions.
#[derive(Clone, Debug)]
pub struct KafkaAnchorSettings {
    /// The cluster of input and routes.
    pub kafka: KafkaSettings,
    /// In whose name: the pipeline is the anchor's identity for ever, with the input topic.
    pub author: Author,
    /// Digest of the plugin, kept beside dead letters.
    pub digest: String,
    /// The routes by their index in the manifest.
    pub routes: Vec<(usize, KafkaRoute)>,
}

/// See the module.
#[derive(Debug)]
pub struct KafkaAnchor {
    settings: KafkaAnchorSettings,
    topics: AnchorTopics,
    routes: BTreeMap<usize, Messages>,
    transactions: Transactions,
}

impl KafkaAnchor {
    /// An anchor; connects when it is used. Its topics are there, see [`AnchorTopics::ensure`].
    #[must_use]
    pub fn new(settings: KafkaAnchorSettings, transactions: &Transactions) -> Self {
        let author = &settings.author;
        let routes = settings.routes.iter();
        Self {
            topics: AnchorTopics::of(&author.pipeline, &author.input),
            routes: routes
                .map(|(index, route)| (*index, Messages::new(route, author)))
                .collect(),
            transactions: transactions.clone(),
            settings,
        }
    }

    fn what(&self, act: &str) -> String {
        let Author {
            pipeline, input, ..
        } = &self.settings.author;
        format!("{act} pipeline {pipeline:?}, topic {input:?}, in kafka")
    }

    /// The id that owns a partition.
    fn id(&self, part: &dyn std::fmt::Display) -> String {
        let Author {
            pipeline, input, ..
        } = &self.settings.author;
        format!("wasmill/{pipeline}/{input}/{part}")
    }

    async fn producer(&self, part: &dyn std::fmt::Display, what: String) -> Result<Transactional> {
        let id = self.id(part);
        let pause = self.transactions.pause(&id);
        Transactional::take(&self.settings.kafka, &id, what, pause).await
    }

    async fn last(
        &self,
        wanted: Vec<(i32, Option<String>)>,
    ) -> Result<BTreeMap<i32, Option<Position>>> {
        let (kafka, topic) = (self.settings.kafka.clone(), self.topics.positions.clone());
        task::blocking(move || positions::last(&kafka, &topic, &wanted)).await?
    }

    async fn read_all(&self) -> Result<Vec<Stored>> {
        let (kafka, topic) = (self.settings.kafka.clone(), self.topics.positions.clone());
        let what = self.what("read the positions of");
        let counted = task::blocking(move || {
            let consumer = positions::committed_reader(&kafka, &what)?;
            positions::partitions(&consumer, &what, &topic)
        });
        let wanted = (0..counted.await??).map(|partition| (partition, None));
        let found = self.last(wanted.collect()).await?;
        let found = found.into_iter();
        Ok(found
            .filter_map(|(partition, position)| Some(position?.stored(partition)))
            .collect())
    }

    /// All or none, and none that another host stored first: whoever seeds owns an id of its own, and lanes write
    /// nothing where nothing was seeded.
    async fn seed_all(&self, seeds: &[Stored]) -> Result<()> {
        if seeds.is_empty() {
            return Ok(());
        }
        let partitions: Vec<i32> = seeds.iter().map(|seed| seed.partition).collect();
        // An end that took long leaves a producer that begins nothing more; the next one gives it more time.
        let (producer, mark) = loop {
            let what = self.what("store the first positions of");
            let producer = self.producer(&"seed", what).await?;
            let mark = self.mark(&producer, &partitions).await;
            let mark = mark.map_err(CommitError::into_error)?;
            if !producer.is_done() {
                break (producer, mark);
            }
        };
        let marked = partitions
            .iter()
            .map(|partition| (*partition, Some(mark.clone())));
        let known = self.last(marked.collect()).await?;
        let missing = seeds
            .iter()
            .filter(|seed| !matches!(known.get(&seed.partition), Some(Some(_))));
        let records = missing.map(|seed| {
            let position = Position::seed(seed, &self.settings.author.plugin);
            (seed.partition, POSITION, position.encode())
        });
        let records: Vec<_> = records.collect();
        if records.is_empty() {
            return Ok(());
        }
        self.record(&producer, &records)
            .await
            .map_err(CommitError::into_error)
    }

    /// Commits a mark to partitions of the positions; what it says.
    async fn mark(
        &self,
        producer: &Transactional,
        partitions: &[i32],
    ) -> Result<String, CommitError> {
        let mark = uuid::Uuid::new_v4().to_string();
        let value = mark.as_bytes();
        let records = partitions.iter();
        let records = records.map(|partition| (*partition, MARK, value.to_vec()));
        self.record(producer, &records.collect::<Vec<_>>()).await?;
        Ok(mark)
    }

    /// Commits records of positions alone.
    async fn record(
        &self,
        producer: &Transactional,
        records: &[(i32, &[u8], Vec<u8>)],
    ) -> Result<(), CommitError> {
        producer.begin()?;
        let sent = Sent::new();
        let messages = records.iter();
        let messages = messages.map(|(partition, key, value)| outgoing(*partition, key, value));
        let topic = &self.topics.positions;
        producer.send(&sent, topic, messages).await?;
        producer.commit(&sent).await
    }

    async fn claim_all(&self, partitions: &[i32]) -> Result<Vec<Claim>> {
        let taken = stream::iter(partitions).map(|partition| self.take(*partition));
        let taken: Vec<(i32, Transactional, String)> =
            taken.buffered(AT_ONCE).try_collect().await?;
        let marked = taken
            .iter()
            .map(|(partition, _, mark)| (*partition, Some(mark.clone())));
        let mut known = self.last(marked.collect()).await?;
        let claims = taken.into_iter().map(|(partition, producer, _)| {
            let position = known.remove(&partition).flatten();
            self.own(partition, producer, position)
        });
        let claims: Vec<_> = claims.collect();
        stream::iter(claims).buffered(AT_ONCE).try_collect().await
    }

    /// Takes the id of a partition and marks where reading has to end.
    async fn take(&self, partition: i32) -> Result<(i32, Transactional, String)> {
        // A claim of this host before goes first: what it was at is over either way.
        self.transactions.leave(&[partition]);
        let what = self.what(&format!("own partition {partition} of"));
        let producer = self.producer(&partition, what).await?;
        let mark = self
            .mark(&producer, &[partition])
            .await
            .map_err(CommitError::into_error)?;
        Ok((partition, producer, mark))
    }

    /// Stores the position under a new epoch.
    async fn own(
        &self,
        partition: i32,
        producer: Transactional,
        position: Option<Position>,
    ) -> Result<Claim> {
        let Some(position) = position else {
            let what = self.what(&format!("claim partition {partition} of"));
            let detail = "DATA LOSS: it has no position, although the pipeline was deployed";
            return Err(Error::config(what, detail).hint(format!(
                "restore topic {:?}, or give the pipeline a new name: nothing was skipped",
                self.topics.positions
            )));
        };
        let position = position.claimed(&self.settings.author.plugin);
        let claim = position.claim(partition)?;
        let record = (partition, POSITION, position.encode());
        self.record(&producer, &[record])
            .await
            .map_err(CommitError::into_error)?;
        self.transactions.own(&claim, producer, position);
        Ok(claim)
    }

    fn board(
        &self,
        claim: &Claim,
        next: i64,
        change: impl FnOnce(&mut Position),
    ) -> Result<Boarded, CommitError> {
        let what = || self.what(&format!("advance partition {} of", claim.partition));
        self.transactions.board(what, claim, next, change)
    }

    async fn fly(&self, flight: Flight<'_>, ahead: Ahead<'_>) -> Result<(), CommitError> {
        let boarded = self.board(flight.claim, flight.from, |position| {
            position.next = flight.to;
            position.reserved = position.reserved.max(flight.reserved);
            position.hlc = flight.hlc;
            position.ledger = flight.ledger.counts();
        })?;
        let committed = self.transact(&boarded, &flight, ahead).await;
        boarded.land(committed)
    }

    async fn transact(
        &self,
        Boarded {
            producer, position, ..
        }: &Boarded,
        flight: &Flight<'_>,
        ahead: Ahead<'_>,
    ) -> Result<(), CommitError> {
        producer.begin()?;
        let sent = Sent::new();
        for here in flight.rows {
            let Some(messages) = self.routes.get(&here.route) else {
                let detail = format!("rows of route {}, which it does not know", here.route);
                return Err(CommitError::Stop(Error::bug(self.what("write"), detail)));
            };
            let queued = messages.send(producer.client(), &sent, here.rows, flight.batch);
            queued.await.map_err(|(error, coordinates)| {
                producer.failed(&sent.topics(), error, &coordinates)
            })?;
        }
        let partition = flight.claim.partition;
        let letters = letters::encode(flight, &self.settings);
        let letters = letters.iter();
        let letters = letters.map(|letter| outgoing(partition, &letter.key, &letter.value));
        let topic = &self.topics.dead_letters;
        producer.send(&sent, topic, letters).await?;
        ahead.await.map_err(CommitError::Ahead)?;
        let value = position.encode();
        let position = [outgoing(partition, POSITION, &value)];
        let topic = &self.topics.positions;
        producer.send(&sent, topic, position).await?;
        producer.commit(&sent).await
    }

    async fn pin_lane(&self, claim: &Claim, next: i64, pin: Pin<'_>) -> Result<(), CommitError> {
        let boarded = self.board(claim, next, |position| {
            position.reserved = pin.reserved;
            position.cuts = pin.cuts.to_vec();
        })?;
        let record = (claim.partition, POSITION, boarded.position.encode());
        let committed = self.record(&boarded.producer, &[record]).await;
        boarded.land(committed)
    }
}

/// A record of a topic of the host.
fn outgoing<'a>(partition: i32, key: &'a [u8], value: &'a [u8]) -> Outgoing<'a> {
    Outgoing {
        partition: Some(partition),
        key: Some(key),
        value: Some(value),
        timestamp: None,
        headers: OwnedHeaders::new(),
    }
}

impl Anchor for KafkaAnchor {
    fn stored(&self) -> LocalBoxFuture<'_, Result<Vec<Stored>, Error>> {
        self.read_all().boxed_local()
    }

    fn seed<'a>(&'a self, positions: &'a [Stored]) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.seed_all(positions).boxed_local()
    }

    fn claim<'a>(&'a self, partitions: &'a [i32]) -> LocalBoxFuture<'a, Result<Vec<Claim>, Error>> {
        self.claim_all(partitions).boxed_local()
    }

    fn commit<'a>(
        &'a self,
        flight: Flight<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        self.fly(flight, ahead).boxed_local()
    }

    fn pin<'a>(
        &'a self,
        claim: &'a Claim,
        next: i64,
        pin: Pin<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        self.pin_lane(claim, next, pin).boxed_local()
    }

    fn settle<'a>(&'a self, _claim: &'a Claim) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        // Every commit stores it.
        std::future::ready(Ok(())).boxed_local()
    }

    fn release(&self, partitions: &[i32]) {
        self.transactions.leave(partitions);
    }
}
