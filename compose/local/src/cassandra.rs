//! A real Apache Cassandra on this machine: a ring of one node, or of several.
//!
//! Owns its jars, its configuration and its command line. The CQL port is of 127.0.0.1 (127.0.0.2 and
//! so on for further nodes: Linux answers there, macOS only after `ifconfig lo0 alias`), without a password unless there are roles; JMX is off. Never creates keyspaces.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cache::Cache,
    error::{Missing, StartError},
    jars::Jars,
    java::{Java, class_path},
    port::Port,
    process::Signal,
    progress::Progress,
    run_folder::{Folder, RunFolder},
    server::{Habits, LocalServer, Plan, tail, write},
    user::User,
};

const POM: &str = include_str!("files/cassandra-pom.xml");
const YAML: &str = include_str!("files/cassandra.yaml");
const LOGBACK: &str = include_str!("files/cassandra-logback.xml");

/// What Cassandra opens of the Java platform, from its own conf/jvm11-server.options and jvm17-server.options.
const FLAGS: &str = include_str!("files/cassandra.flags");

/// The version that is used unless another is asked for.
pub const CASSANDRA_VERSION: &str = "5.0.9";

const HABITS: Habits = Habits {
    ready_within: Duration::from_secs(240),
    polite: &[(Signal::Terminate, Duration::from_secs(30))],
    death: Signal::Kill,
    too_early: None,
};

/// When Cassandra acknowledges a write (`commitlog_sync`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CommitLogSync {
    /// After it is on disk (6 000 writes a second, measured): nothing acknowledged is lost by a kill.
    #[default]
    Batch,
    /// After it is on disk, written together with those of the next 10 ms.
    Group,
    /// At once; the log is written each time the period ends, and a kill loses what came since
    /// (22 000 writes a second, measured).
    Periodic(Duration),
}

/// Who may do what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Anybody anything, without a login.
    #[default]
    Open,
    /// Roles with passwords, and what they were granted; a change counts at once. At first there is only the superuser
    /// `cassandra` with the password `cassandra`, some moments after the start.
    Roles,
}

/// What a Cassandra should be like.
#[derive(Debug, Clone)]
pub struct CassandraOptions {
    /// The version, of the 5.0 line.
    pub version: String,
    /// Greatest heap in MiB; 256 is enough for small tests.
    pub heap_mb: u32,
    /// When writes are acknowledged.
    pub commit_log: CommitLogSync,
    /// Whether there are roles.
    pub access: Access,
    /// Where its data are.
    pub folder: Folder,
    /// Told what takes long.
    pub progress: Progress,
}

impl Default for CassandraOptions {
    fn default() -> CassandraOptions {
        CassandraOptions {
            version: CASSANDRA_VERSION.to_owned(),
            heap_mb: 512,
            commit_log: CommitLogSync::default(),
            access: Access::default(),
            folder: Folder::default(),
            progress: Progress::default(),
        }
    }
}

/// A Cassandra node; a [`LocalServer`].
#[derive(Debug)]
pub struct Cassandra {
    // fields drop in this order: the process goes before its ports
    server: LocalServer,
    place: Place,
}

/// How long the nodes of a ring may take to see each other.
const RING: Duration = Duration::from_secs(60);

/// Which node of its ring one is. All use the same two ports, each on its own loopback address: drivers take a
/// peer's port for that of the node they know.
#[derive(Debug, Clone)]
struct Place {
    /// From 0 on.
    index: u8,
    nodes: u8,
    port: Arc<Port>,
    storage: Arc<Port>,
}

impl Place {
    fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, self.index + 1)
    }

    fn address(&self) -> SocketAddr {
        (self.ip(), self.port.number()).into()
    }

    /// Where the node's share of the ring begins (Murmur3Partitioner: −2⁶³ to 2⁶³ − 1).
    fn token(&self) -> i64 {
        let share = (1_i128 << 64) / i128::from(self.nodes);
        i64::try_from(share * i128::from(self.index) - (share * i128::from(self.nodes - 1)) / 2)
            .expect("shares of the ring lie in it")
    }
}

impl Cassandra {
    /// Whether a Cassandra of the usual version can be started here, short of a failing download.
    ///
    /// # Errors
    /// What to install.
    pub fn available() -> Result<(), Missing> {
        java(CASSANDRA_VERSION)?;
        jars(CASSANDRA_VERSION).available()
    }

    /// Starts one and waits until it answers: some 7 seconds, the very first time as long as a
    /// download of 67 MB takes.
    ///
    /// # Errors
    /// No fitting Java or no Maven, a failing download, a folder in use, or the server's own error.
    pub fn start(options: &CassandraOptions) -> Result<Cassandra, StartError> {
        let cache = Cache::open()?;
        let alone = Place {
            index: 0,
            nodes: 1,
            port: Arc::new(Port::free(&cache)?),
            storage: Arc::new(Port::free(&cache)?),
        };
        Cassandra::join(options, alone)
    }

    /// Starts a ring of that many nodes, one after the other, and waits until they see each other: some 10 seconds a
    /// node. Drivers need to know one of them only. A kept folder gets a folder for each node.
    ///
    /// # Errors
    /// As for [`Cassandra::start`]; nodes that do not find each other.
    pub fn ring(options: &CassandraOptions, nodes: u8) -> Result<Vec<Cassandra>, StartError> {
        let cache = Cache::open()?;
        let port = Arc::new(Port::free_for(&cache, nodes)?);
        let storage = Arc::new(Port::free_for(&cache, nodes)?);
        let mut ring = Vec::new();
        for index in 0..nodes {
            let options = CassandraOptions {
                folder: options.folder.of(usize::from(index)),
                ..options.clone()
            };
            let place = Place {
                index,
                nodes,
                port: Arc::clone(&port),
                storage: Arc::clone(&storage),
            };
            ring.push(Cassandra::join(&options, place)?);
        }
        for node in &ring {
            node.sees(usize::from(nodes) - 1)?;
        }
        Ok(ring)
    }

    /// Waits until the node has seen that many others.
    fn sees(&self, others: usize) -> Result<(), StartError> {
        let started = Instant::now();
        loop {
            let log = fs::read_to_string(self.server.log())
                .map_err(StartError::io("reading", self.server.log()))?;
            if log.matches(" is now UP").count() >= others {
                return Ok(());
            }
            if started.elapsed() > RING {
                return Err(StartError::NotReady {
                    what: self.server.name().to_owned(),
                    after: RING,
                    log: tail(&log),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn join(options: &CassandraOptions, place: Place) -> Result<Cassandra, StartError> {
        let version = &options.version;
        let java = java(version)?;
        let cache = Cache::open()?;
        let jars = jars(version).open(&cache, &options.progress)?;
        let folder = RunFolder::open(&options.folder, &cache, User::Same)?;
        write(&folder.path().join("logback.xml"), LOGBACK)?;
        write(
            &folder.path().join("cassandra.yaml"),
            &yaml(&place, options.commit_log, options.access),
        )?;
        let scratch = folder.path().join("tmp");
        fs::create_dir_all(&scratch).map_err(StartError::io("creating", &scratch))?;
        let class_path = class_path(&jars)?;
        let (address, token) = (place.address(), place.token());
        let (heap_mb, home) = (options.heap_mb, folder.path().to_owned());
        let plan = Plan {
            name: name(version),
            habits: &HABITS,
            command: Box::new(move || command(&java, heap_mb, &class_path, &home, token)),
            // the line is logged just before the port is bound
            ready: Box::new(move |_pid, log| {
                log.contains("Starting listening for CQL clients")
                    && TcpStream::connect(address).is_ok()
            }),
        };
        Ok(Cassandra {
            server: LocalServer::start(plan, folder)?,
            place,
        })
    }

    /// `address:port`, for a driver's known nodes. The same after a restart.
    #[must_use]
    pub fn contact_point(&self) -> String {
        self.place.address().to_string()
    }

    /// Where it listens for CQL.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.place.address()
    }

    /// Stops it in good order; a temporary folder goes, a kept one stays.
    ///
    /// # Errors
    /// A process that cannot be ended.
    pub fn stop(mut self) -> io::Result<()> {
        self.server.halt()
    }
}

impl Deref for Cassandra {
    type Target = LocalServer;

    fn deref(&self) -> &LocalServer {
        &self.server
    }
}

impl DerefMut for Cassandra {
    fn deref_mut(&mut self) -> &mut LocalServer {
        &mut self.server
    }
}

fn name(version: &str) -> String {
    format!("Apache Cassandra {version}")
}

fn jars(version: &str) -> Jars {
    Jars {
        server: name(version),
        entry: format!("cassandra-{version}"),
        pom: POM.replace("@VERSION@", version),
        megabytes: 67,
    }
}

/// Cassandra 5.0 runs on Java 11 and 17 only (its NEWS.txt); later ones lack the security manager it needs.
fn java(version: &str) -> Result<Java, Missing> {
    Java::find(|major| matches!(major, 11 | 17)).ok_or_else(|| Missing {
        server: name(version),
        what: "no Java 11 or 17 was found in JAVA_HOME, PATH or the usual folders (later ones do not do)".into(),
        hint: "install Java 17 and Maven (Debian: `apt-get install openjdk-17-jdk-headless maven`; \
               macOS: `brew install openjdk@17 maven`)"
            .into(),
    })
}

fn command(java: &Java, heap_mb: u32, class_path: &str, home: &Path, token: i64) -> Command {
    // measures objects; Cassandra does not run without it
    let agent = class_path
        .split(':')
        .find(|jar| jar.contains("/jamm-"))
        .unwrap_or_default();
    let mut command = java.command(64, heap_mb);
    command.args([
        "-Xss384k",
        "-XX:MaxDirectMemorySize=256m",
        "-Djdk.attach.allowAttachSelf=true",
    ]);
    command.arg(format!("-javaagent:{agent}"));
    command.args(FLAGS.lines());
    command.arg("-Dio.netty.tryReflectionSetAccessible=true");
    command.arg(format!("-Djava.io.tmpdir={}", home.join("tmp").display()));
    command.arg(format!(
        "-Dlogback.configurationFile={}",
        home.join("logback.xml").display()
    ));
    command.arg(format!(
        "-Dcassandra.config=file://{}",
        home.join("cassandra.yaml").display()
    ));
    command.arg(format!(
        "-Dcassandra.storagedir={}",
        home.join("data").display()
    ));
    command.arg("-Dcassandra-foreground=yes");
    command.arg(format!("-Dcassandra.initial_token={token}"));
    // a new ring has no data to wait for
    command.args([
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        "-Dcassandra.ring_delay_ms=0",
    ]);
    command.args([
        "-Dcassandra.superuser_setup_delay_ms=0",
        "-Dcassandra.shutdown_announce_in_ms=0",
    ]);
    command
        .arg("-cp")
        .arg(class_path)
        .arg("org.apache.cassandra.service.CassandraDaemon");
    command
}

fn yaml(place: &Place, sync: CommitLogSync, access: Access) -> String {
    let sync = match sync {
        CommitLogSync::Batch => "commitlog_sync: batch".to_owned(),
        CommitLogSync::Group => {
            "commitlog_sync: group\ncommitlog_sync_group_window: 10ms".to_owned()
        }
        CommitLogSync::Periodic(period) => {
            let ms = period.as_millis().max(1);
            format!("commitlog_sync: periodic\ncommitlog_sync_period: {ms}ms")
        }
    };
    let access = match access {
        Access::Open => "authenticator: AllowAllAuthenticator\nauthorizer: AllowAllAuthorizer",
        Access::Roles => {
            "authenticator: PasswordAuthenticator\nauthorizer: CassandraAuthorizer\n\
             permissions_validity: 0ms\nroles_validity: 0ms\ncredentials_validity: 0ms"
        }
    };
    YAML.replace("@STORAGE_PORT@", &place.storage.number().to_string())
        .replace("@PORT@", &place.port.number().to_string())
        .replace("@ADDRESS@", &place.ip().to_string())
        .replace("@SYNC@", &sync)
        .replace("@ACCESS@", access)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn place(index: u8, nodes: u8) -> (tempfile::TempDir, Place) {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().to_owned()).unwrap();
        let free = || Arc::new(Port::free_for(&cache, nodes).unwrap());
        let (port, storage) = (free(), free());
        let place = Place {
            index,
            nodes,
            port,
            storage,
        };
        (root, place)
    }

    #[test]
    fn nodes_share_the_ring_evenly() {
        let tokens = |nodes| {
            let tokens = (0..nodes).map(|index| place(index, nodes).1.token());
            tokens.collect::<Vec<_>>()
        };
        assert_eq!(tokens(1), [0]);
        let share = 6_148_914_691_236_517_205;
        assert_eq!(tokens(3), [-share, 0, share]);
    }

    #[test]
    fn the_configuration_is_filled_in() {
        let (_root, place) = place(1, 3);
        let periodic = CommitLogSync::Periodic(Duration::from_secs(1));
        let text = yaml(&place, periodic, Access::Roles);
        assert!(
            !text
                .lines()
                .any(|line| !line.starts_with('#') && line.contains('@'))
        );
        assert!(
            text.contains(&format!("native_transport_port: {}\n", place.port.number()))
                && text.contains(&format!("\nstorage_port: {}\n", place.storage.number()))
        );
        assert!(text.contains("rpc_address: 127.0.0.2\n"));
        assert!(text.contains("commitlog_sync_period: 1000ms\n"));
        assert!(text.contains("\nauthenticator: PasswordAuthenticator\n"));
        let usual = yaml(&place, CommitLogSync::Batch, Access::Open);
        assert!(usual.contains("\ncommitlog_sync: batch\n"));
        assert!(usual.contains("\nauthorizer: AllowAllAuthorizer\n"));
    }
}
