//! The producers of a host: one a cluster, shared by every route that writes there.
//!
//! [`Producers`] makes them when they are first needed and keeps them; [`Producer`] is one of them. It owns the
//! rule of failure: after any failed flight the client is thrown away with what is queued in it, so that what is in
//! a partition of a topic is always a beginning of what was sent there, and the repeat keeps the order of each key.
//! It knows no rows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use super::KafkaSettings;
use super::client::Client;
use crate::error::Result;
use crate::task;

/// The producers of a host, by cluster. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    // Taken for a lookup or an insert.
    all: Arc<Mutex<BTreeMap<String, Arc<Producer>>>>,
    maker: Maker,
}

/// Makes clients on a thread of its own. A client's threads inherit the priority of the one that makes it, and a lane in
/// quarantine runs on one that gives way to all others, whose lanes send through the same client.
#[derive(Clone, Debug)]
struct Maker {
    // Unbounded in type; whoever asks waits, so it holds one request a cluster.
    asked: mpsc::Sender<(KafkaSettings, mpsc::SyncSender<Result<Client>>)>,
}

impl Default for Maker {
    /// Has to be called on a thread of ordinary priority; the maker ends with the last producer.
    fn default() -> Self {
        let (asked, wanted) = mpsc::channel::<(KafkaSettings, mpsc::SyncSender<_>)>();
        task::aside("producer-maker", move || {
            for (settings, made) in wanted {
                // Whoever asked waits for it.
                made.send(Client::new(&settings)).ok();
            }
        });
        Self { asked }
    }
}

impl Maker {
    fn make(&self, settings: &KafkaSettings) -> Result<Client> {
        let (made, client) = mpsc::sync_channel(1);
        let asked = self.asked.send((settings.clone(), made)).ok();
        // Where no thread was to be had, a client of any priority is better than none.
        asked
            .and_then(|()| client.recv().ok())
            .unwrap_or_else(|| Client::new(settings))
    }
}

impl Producers {
    /// The producer of the cluster of this name; connects at the first flight.
    pub(super) fn of(&self, cluster: &str, settings: &KafkaSettings) -> Arc<Producer> {
        let mut all = self.all.lock();
        let producer = all.entry(cluster.to_owned()).or_insert_with(|| {
            Arc::new(Producer {
                settings: settings.clone(),
                maker: self.maker.clone(),
                client: Mutex::new(None),
            })
        });
        Arc::clone(producer)
    }
}

/// The producer of one cluster.
pub(super) struct Producer {
    settings: KafkaSettings,
    maker: Maker,
    // Taken to clone or replace the handle.
    client: Mutex<Option<Arc<Client>>>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer({})", self.settings.brokers)
    }
}

impl Producer {
    /// The client of now.
    ///
    /// # Errors
    /// `Config` for properties the client refuses.
    pub(super) fn client(&self) -> Result<Arc<Client>> {
        let mut current = self.client.lock();
        if let Some(client) = &*current {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.maker.make(&self.settings)?);
        *current = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Throws a client away, with every message that is not acknowledged: flights of others fail too, and are sent
    /// again through a new one. Nothing of it is sent any more when this returns.
    pub(super) async fn discard(&self, client: Arc<Client>) -> Result<()> {
        if !self.take_out(&client) {
            return Ok(());
        }
        task::blocking(move || client.release()).await
    }

    /// As [`Producer::discard`], for a flight that is dropped: it cannot wait. What others send next, they send through
    /// a new client; what was queued never follows it.
    pub(super) fn abandon(&self, client: Arc<Client>) {
        if self.take_out(&client) {
            task::aside("producer-release", move || client.release());
        }
    }

    /// Takes a client out of use and purges it; whether it was in use.
    fn take_out(&self, client: &Arc<Client>) -> bool {
        {
            let mut current = self.client.lock();
            let is_current = current.as_ref().is_some_and(|now| Arc::ptr_eq(now, client));
            if !is_current {
                return false;
            }
            *current = None;
        }
        tracing::warn!(
            brokers = self.settings.brokers,
            "producer made anew: a message was not acknowledged"
        );
        client.purge();
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::time::{Duration, Instant};

    use futures_util::FutureExt as _;
    use rdkafka::error::RDKafkaErrorCode;
    use rdkafka::message::OwnedHeaders;
    use rdkafka::producer::Producer as _;

    use super::*;
    use crate::kafka::client::{FULL, Outgoing};
    use crate::kafka::flight::Flight;

    fn nobody() -> KafkaSettings {
        KafkaSettings {
            brokers: "127.0.0.1:1".to_owned(),
            security: BTreeMap::new(),
            session_timeout: Duration::from_secs(6),
            client_id: "test".to_owned(),
        }
    }

    /// Messages that the client has and nobody has acknowledged.
    fn in_flight(client: &Client) -> i32 {
        client.producer.in_flight_count()
    }

    fn message() -> Outgoing<'static> {
        Outgoing {
            partition: None,
            key: None,
            value: Some(b"v"),
            timestamp: None,
            headers: OwnedHeaders::new(),
        }
    }

    #[test]
    fn an_abandoned_client_keeps_nothing_queued_and_is_used_no_more() {
        let producer = Producers::default().of("main", &nobody());
        let client = producer.client().unwrap();
        let flight = Flight::new();
        for _ in 0..3 {
            let sent = client.to(&flight, "t").send(message()).now_or_never();
            sent.expect("there is room").unwrap();
        }
        // What librdkafka says of the broker it misses waits in the same queue.
        assert!(in_flight(&client) >= 3, "no broker took them");
        producer.abandon(Arc::clone(&client));
        let deadline = Instant::now() + Duration::from_secs(10);
        while in_flight(&client) > 0 {
            assert!(Instant::now() < deadline, "they are queued still");
            std::thread::sleep(FULL);
        }
        let (error, _) = flight.landed().now_or_never().unwrap().unwrap_err();
        assert_eq!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::PurgeQueue)
        );
        assert!(!Arc::ptr_eq(&client, &producer.client().unwrap()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_client_first_needed_by_a_lane_in_quarantine_gives_way_to_nobody() {
        let own = rustix::process::nice(0).unwrap().to_string();
        let producer = Producers::default().of("main", &nobody());
        let quarantined = task::thread("quarantine", move || {
            rustix::process::nice(10).unwrap();
            producer.client().unwrap()
        });
        let client = quarantined.unwrap().join().unwrap();
        let mut threads = 0;
        for thread in std::fs::read_dir("/proc/self/task").unwrap() {
            let thread = thread.unwrap().path();
            // Threads of other tests may end meanwhile.
            let Ok(stat) = std::fs::read_to_string(thread.join("stat")) else {
                continue;
            };
            let (name, rest) = stat.rsplit_once(')').unwrap();
            if name.contains("(rdk:") {
                threads += 1;
                assert_eq!(rest.split(' ').nth(17), Some(own.as_str()), "{stat}");
            }
        }
        assert!(threads > 0);
        drop(client);
    }
}
