//! Real Kafka and Cassandra, started once for all tests that run at the same time, and a way to look into Cassandra.
//!
//! Without Java or Maven they cannot run: tests that need them then say so loudly and pass, except where `CI=true`.

use std::sync::{Arc, Mutex, Weak};

use futures_util::TryStreamExt as _;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::{CqlDate, CqlTimestamp};
use wasmill_local::{Cassandra, CassandraOptions, Kafka, KafkaOptions};

use crate::hash::TableHash;
use crate::skip::skip;

/// Days of CQL dates before 1970 (native protocol v4, section 6).
const DATE_ZERO: i64 = 1 << 31;

/// The real servers.
#[derive(Debug)]
pub struct RealServers {
    /// Apache Kafka.
    pub kafka: Kafka,
    /// Apache Cassandra.
    pub cassandra: Cassandra,
}

impl RealServers {
    /// The servers of this process, started by the first test that asks and stopped with the last one.
    /// `None` where they cannot run.
    ///
    /// # Panics
    /// They cannot run and `CI=true`.
    pub fn get() -> Option<Arc<Self>> {
        static RUNNING: Mutex<Weak<RealServers>> = Mutex::new(Weak::new());
        let missing = Kafka::available()
            .and_then(|()| Cassandra::available())
            .err();
        if let Some(missing) = missing {
            skip(format_args!("{missing}; {}", missing.hint));
            return None;
        }
        let mut running = RUNNING.lock().unwrap();
        if let Some(servers) = running.upgrade() {
            return Some(servers);
        }
        let servers = Arc::new(Self::start());
        *running = Arc::downgrade(&servers);
        Some(servers)
    }

    fn start() -> Self {
        let kafka = std::thread::spawn(|| Kafka::start(&KafkaOptions::default()).unwrap());
        let cassandra = Cassandra::start(&CassandraOptions::default()).unwrap();
        Self {
            kafka: kafka.join().unwrap(),
            cassandra,
        }
    }

    /// A session with Cassandra.
    pub async fn session(&self) -> Session {
        session(&[self.cassandra.contact_point()]).await
    }

    /// The config's `[cassandra.main]` with a keyspace that the host creates.
    pub fn connection(&self, keyspace: &str) -> String {
        connection(&[self.cassandra.contact_point()], keyspace, 1)
    }
}

/// A session with the Cassandra that has these nodes.
pub async fn session(hosts: &[String]) -> Session {
    let builder = SessionBuilder::new().known_nodes(hosts);
    builder.build().await.unwrap()
}

/// The config's `[cassandra.main]` with a keyspace that the host creates, of that replication factor. The driver goes to
/// a node's own address and the port it was told here: with a proxy's port, to the proxy.
pub fn connection(hosts: &[String], keyspace: &str, replication: u8) -> String {
    format!(
        "[cassandra.main]\nhosts = {hosts:?}\nkeyspace = {keyspace:?}\ncreate_keyspace = {replication}\n"
    )
}

/// Count and hash of all rows of `flights_by_airport`.
pub async fn by_airport(session: &Session, keyspace: &str) -> Result<TableHash, String> {
    type Columns = (String, CqlDate, CqlTimestamp, String, String, i32, i32);
    let query = format!(
        "SELECT origin, day, departure, id, destination, delay, distance FROM {keyspace}.flights_by_airport"
    );
    let pager = session
        .query_iter(query, ())
        .await
        .map_err(|error| error.to_string())?;
    let mut rows = pager
        .rows_stream::<Columns>()
        .map_err(|error| error.to_string())?;
    let mut hash = TableHash::default();
    while let Some(row) = rows.try_next().await.map_err(|error| error.to_string())? {
        let (origin, day, departure, id, destination, delay, distance) = row;
        let (day, departure) = (i64::from(day.0) - DATE_ZERO, departure.0 * 1000);
        hash.add(&format!(
            "{origin}|{day}|{departure}|{id}|{destination}|{delay}|{distance}"
        ));
    }
    Ok(hash)
}
