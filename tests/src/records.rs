//! Records for tests: made, produced with acks=all, and known by the offset each got.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};

/// One record to produce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// `None`: chosen from the key.
    pub partition: Option<i32>,
    /// `None`: a null key.
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since 1970; `None`: now.
    pub timestamp: Option<i64>,
    /// A header and its value.
    pub header: Option<(&'static str, &'static str)>,
}

impl Made {
    /// A record with key and value.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// A null value under a key.
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::default()
        }
    }

    /// The same record in a chosen partition.
    #[must_use]
    pub fn on(self, partition: i32) -> Self {
        Self {
            partition: Some(partition),
            ..self
        }
    }
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

#[derive(Debug, Default)]
struct Delivered {
    places: Mutex<Vec<(usize, Place)>>,
    failed: AtomicUsize,
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Self::DeliveryOpaque) {
        match result {
            Ok(message) => {
                let place = Place {
                    partition: message.partition(),
                    offset: message.offset(),
                };
                self.places.lock().unwrap().push((*index, place));
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A producer of one cluster.
pub struct Feed {
    producer: ThreadedProducer<Delivered>,
    config: ClientConfig,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl Feed {
    /// A producer for the cluster at `bootstrap`.
    pub fn new(bootstrap: &str) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("enable.idempotence", "true");
        config
            .set("message.max.bytes", "20000000")
            .set("linger.ms", "5")
            .set("reconnect.backoff.max.ms", "500");
        let producer = config.create_with_context(Delivered::default()).unwrap();
        Self { producer, config }
    }

    /// Creates a topic.
    pub async fn topic(&self, name: &str, partitions: i32) {
        self.topic_of(name, partitions, 1).await;
    }

    /// Creates a topic that is kept by that many brokers.
    pub async fn topic_of(&self, name: &str, partitions: i32, copies: i32) {
        let admin: AdminClient<DefaultClientContext> = self.config.create().unwrap();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(copies))
            .set("max.message.bytes", "20000000");
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(15)));
        let made = admin.create_topics([&topic], &options).await.unwrap();
        for one in made {
            one.unwrap_or_else(|(name, code)| panic!("topic {name}: {code}"));
        }
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config.create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(15)));
        for gone in admin.delete_topics(&[name], &options).await.unwrap() {
            gone.unwrap_or_else(|(name, code)| panic!("topic {name}: {code}"));
        }
    }

    /// The broker that leads a partition now.
    pub fn leader(&self, topic: &str, partition: usize) -> i32 {
        let within = Duration::from_secs(15);
        let metadata = self.producer.client().fetch_metadata(Some(topic), within);
        metadata.unwrap().topics()[0].partitions()[partition].leader()
    }

    /// The offset after the last record of every partition of a topic.
    pub fn ends(&self, topic: &str) -> BTreeMap<i32, i64> {
        let client = self.producer.client();
        let within = Duration::from_secs(15);
        let metadata = client.fetch_metadata(Some(topic), within).unwrap();
        let partitions = metadata.topics()[0].partitions().iter();
        partitions
            .map(|partition| {
                let (_, end) = client
                    .fetch_watermarks(topic, partition.id(), within)
                    .unwrap();
                (partition.id(), end)
            })
            .collect()
    }

    /// Produces all and waits until each is stored; the places are in the order of `records`.
    pub fn send(&self, topic: &str, records: &[Made]) -> Vec<Place> {
        for (index, made) in records.iter().enumerate() {
            self.enqueue(topic, made, index);
        }
        let places = self.places();
        assert_eq!(places.len(), records.len(), "records without an answer");
        places
    }

    /// Waits until all that was enqueued is stored, and says where, in the order of the indexes; each place once.
    pub fn places(&self) -> Vec<Place> {
        self.settle();
        let mut places = std::mem::take(&mut *self.producer.context().places.lock().unwrap());
        places.sort_unstable_by_key(|(index, _)| *index);
        places.into_iter().map(|(_, place)| place).collect()
    }

    /// Hands one record over; waits while the queue is full.
    pub fn enqueue(&self, topic: &str, made: &Made, index: usize) {
        let mut record =
            BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(topic, Box::new(index));
        record.key = made.key.as_deref();
        record.payload = made.value.as_deref();
        record.partition = made.partition;
        record.timestamp = made.timestamp;
        record.headers = made.header.map(|(key, value)| {
            OwnedHeaders::new().insert(Header {
                key,
                value: Some(value),
            })
        });
        loop {
            match self.producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((error, _)) => panic!("produce to {topic}: {error}"),
            }
        }
    }

    /// Waits until all that was enqueued is stored, and says how many were.
    pub fn settle(&self) -> usize {
        self.producer.flush(Duration::from_secs(300)).unwrap();
        let context = self.producer.context();
        assert_eq!(
            context.failed.load(Ordering::Relaxed),
            0,
            "records were not stored"
        );
        context.places.lock().unwrap().len()
    }
}
