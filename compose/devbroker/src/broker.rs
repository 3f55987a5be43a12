//! The handle: starts the broker on its own thread, stops it, and lets a test reach in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use crate::refused::Refused;
use crate::server::{self, Gate};
use crate::state::Shared;

/// How to start a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The address to listen on; must be loopback. Default: 127.0.0.1.
    pub address: IpAddr,
    /// The TCP port; 0, the default, takes a free one.
    pub port: u16,
    /// Partitions of a topic created because a producer or a metadata request that allows it names it. `None`, the
    /// default, creates nothing: an unknown topic is an error, as in a production cluster.
    pub auto_create: Option<i32>,
    /// The address clients are told to connect to, when a proxy stands in front of the broker. `None`, the default:
    /// its own.
    pub advertised: Option<SocketAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            auto_create: None,
            advertised: None,
        }
    }
}

/// A running broker. Dropping it stops it; its records are gone then.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    /// A watch, because connections only need the latest word.
    gate: watch::Sender<Gate>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Binds the address and serves it from a thread of its own. When this returns, clients can connect.
    ///
    /// # Errors
    /// `InvalidInput` for an address that is not loopback; else what binding or starting the thread says.
    pub fn start(options: Options) -> io::Result<Self> {
        if !options.address.is_loopback() {
            let text = format!(
                "development broker refuses to listen on {}: it has no authentication and keeps nothing; use 127.0.0.1",
                options.address
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let listener = std::net::TcpListener::bind(SocketAddr::new(options.address, options.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let advertised = options.advertised.unwrap_or(address);
        let shared = Arc::new(Shared::new(address, advertised, options.auto_create));
        let (gate, watched) = watch::channel(Gate {
            open: true,
            drops: 0,
            stopped: false,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let served = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wasmill-devbroker".to_owned())
            .spawn(move || runtime.block_on(server::run(listener, served, watched)))?;
        tracing::debug!(address = %shared.address, "development broker started");
        Ok(Self {
            shared,
            gate,
            thread: Some(thread),
        })
    }

    /// What to give clients as `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.shared.address.to_string()
    }

    /// One line for people that says what this is and is not.
    pub fn notice(&self) -> String {
        format!(
            "development broker on {}: records live in memory and are gone when it stops; loopback only, never for production",
            self.shared.address
        )
    }

    /// Closes all connections and waits until the thread has ended.
    pub fn stop(self) {
        drop(self);
    }

    /// Creates a topic with `partitions` empty partitions and returns its id.
    ///
    /// # Errors
    /// When it exists, or the name or the number is not allowed.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<Uuid, Refused> {
        self.shared.lock().topics.create(name, partitions)
    }

    /// Deletes a topic with its records and the offsets committed for it. Created again it has another id.
    ///
    /// # Errors
    /// When there is no such topic.
    pub fn delete_topic(&self, name: &str) -> Result<(), Refused> {
        self.shared.lock().delete_topic(name)?;
        self.shared.wake_readers();
        Ok(())
    }

    /// The id of a topic, `None` when there is no such topic.
    pub fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.shared.lock().topics.get(name).map(|topic| topic.id)
    }

    /// Moves a partition's first readable offset to `offset`, as retention does. Never moves it back.
    ///
    /// # Errors
    /// When there is no such partition, or the offset is negative or past the end.
    pub fn set_log_start(&self, topic: &str, partition: i32, offset: i64) -> Result<(), Refused> {
        let mut state = self.shared.lock();
        let log = state.topics.partition_mut(topic, partition)?;
        log.trim(offset)
            .map_err(|_| Refused::Offset(topic.to_owned(), partition, offset))?;
        drop(state);
        self.shared.wake_readers();
        Ok(())
    }

    /// A partition's first readable offset, `None` when there is no such partition.
    pub fn log_start(&self, topic: &str, partition: i32) -> Option<i64> {
        self.shared
            .lock()
            .topics
            .partition(topic, partition)
            .ok()
            .map(|log| log.start())
    }

    /// The next offset to be written in a partition, `None` when there is no such partition. Control records of
    /// transactions count.
    pub fn log_end(&self, topic: &str, partition: i32) -> Option<i64> {
        self.shared
            .lock()
            .topics
            .partition(topic, partition)
            .ok()
            .map(|log| log.end())
    }

    /// The offset a group has committed for a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.shared
            .lock()
            .groups
            .get(group)?
            .offsets
            .get(topic, partition)
            .map(|c| c.offset)
    }

    /// Whether the broker answers who asks for a group's offsets that it is not the group's coordinator, as one does
    /// that has just handed groups over or has not loaded them yet.
    pub fn set_coordinator_moved(&self, moved: bool) {
        self.shared.lock().coordinator_moved = moved;
    }

    /// Closes every connection now; clients may connect again at once.
    pub fn drop_connections(&self) {
        self.gate.send_modify(|gate| gate.drops += 1);
    }

    /// A broker that goes away (`false`: connections are closed, new ones too, at once) and returns on the same
    /// port with its records (`true`). A request being served when it goes may or may not have taken effect, as
    /// when a machine dies. The port stays bound, so that no other process takes it meanwhile.
    pub fn set_available(&self, available: bool) {
        self.gate.send_if_modified(|gate| {
            let changed = gate.open != available;
            gate.open = available;
            changed
        });
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.gate.send_modify(|gate| gate.stopped = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the development broker's thread panicked: this is a bug");
        }
    }
}
