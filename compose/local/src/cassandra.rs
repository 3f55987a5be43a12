//! A real Apache Cassandra on this machine: a ring of one node.
//!
//! Owns its jars, its configuration and its command line. The CQL port is of 127.0.0.1, without a
//! password; JMX is off. Never creates keyspaces.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    cache::Cache,
    error::{Missing, StartError},
    java::{Java, class_path},
    maven::{self, Unpack},
    port::Port,
    process::Signal,
    progress::Progress,
    run_folder::{Folder, RunFolder},
    server::{Habits, LocalServer, Plan, write},
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

/// What a Cassandra should be like.
#[derive(Debug, Clone)]
pub struct CassandraOptions {
    /// The version, of the 5.0 line.
    pub version: String,
    /// Greatest heap in MiB; 256 is enough for small tests.
    pub heap_mb: u32,
    /// When writes are acknowledged.
    pub commit_log: CommitLogSync,
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
            folder: Folder::default(),
            progress: Progress::default(),
        }
    }
}

/// A Cassandra of one node; a [`LocalServer`].
#[derive(Debug)]
pub struct Cassandra {
    // fields drop in this order: the process goes before its ports
    server: LocalServer,
    port: Port,
    _storage: Port,
}

impl Cassandra {
    /// Whether a Cassandra of the usual version can be started here, short of a failing download.
    ///
    /// # Errors
    /// What to install.
    pub fn available() -> Result<(), Missing> {
        let cached =
            Cache::open().is_ok_and(|cache| cache.found(&entry(CASSANDRA_VERSION)).is_some());
        java(CASSANDRA_VERSION)?;
        if cached || maven::found() {
            Ok(())
        } else {
            Err(no_maven(CASSANDRA_VERSION))
        }
    }

    /// Starts one and waits until it answers: some 7 seconds, the very first time as long as a
    /// download of 67 MB takes.
    ///
    /// # Errors
    /// No fitting Java or no Maven, a failing download, a folder in use, or the server's own error.
    pub fn start(options: &CassandraOptions) -> Result<Cassandra, StartError> {
        let version = &options.version;
        let java = java(version)?;
        let cache = Cache::open()?;
        let jars = jars(&cache, version, &options.progress)?;
        let folder = RunFolder::open(&options.folder, &cache, User::Same)?;
        let (port, storage) = (Port::free(&cache)?, Port::free(&cache)?);
        write(&folder.path().join("logback.xml"), LOGBACK)?;
        write(
            &folder.path().join("cassandra.yaml"),
            &yaml(port.number(), storage.number(), options.commit_log),
        )?;
        let scratch = folder.path().join("tmp");
        fs::create_dir_all(&scratch).map_err(StartError::io("creating", &scratch))?;
        let class_path = class_path(&jars)?;
        let (address, heap_mb, home) = (port.address(), options.heap_mb, folder.path().to_owned());
        let plan = Plan {
            name: name(version),
            habits: &HABITS,
            command: Box::new(move || command(&java, heap_mb, &class_path, &home)),
            // the line is logged just before the port is bound
            ready: Box::new(move |_pid, log| {
                log.contains("Starting listening for CQL clients")
                    && TcpStream::connect(address).is_ok()
            }),
        };
        Ok(Cassandra {
            server: LocalServer::start(plan, folder)?,
            port,
            _storage: storage,
        })
    }

    /// `127.0.0.1:port`, for a driver's known nodes. The same after a restart.
    #[must_use]
    pub fn contact_point(&self) -> String {
        self.port.address().to_string()
    }

    /// Where it listens for CQL.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
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

fn entry(version: &str) -> String {
    format!("cassandra-{version}")
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

fn no_maven(version: &str) -> Missing {
    Missing {
        server: name(version),
        what: "its jars are not in the cache and there is no `mvn` to fetch them with".into(),
        hint: "install Maven (Debian: `apt-get install maven`; macOS: `brew install maven`)".into(),
    }
}

fn jars(cache: &Cache, version: &str, progress: &Progress) -> Result<PathBuf, StartError> {
    if let Some(jars) = cache.found(&entry(version)) {
        return Ok(jars);
    }
    if !maven::found() {
        return Err(no_maven(version).into());
    }
    cache.entry(&entry(version), |part| {
        progress.say(&format!("fetching {} (67 MB)…", name(version)));
        maven::fetch(
            &name(version),
            &POM.replace("@VERSION@", version),
            part,
            Unpack::No,
        )
    })
}

fn command(java: &Java, heap_mb: u32, class_path: &str, home: &Path) -> Command {
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
    command.args(["-Dcassandra-foreground=yes", "-Dcassandra.initial_token=0"]);
    // a ring of one has nobody to wait for
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

fn yaml(port: u16, storage: u16, sync: CommitLogSync) -> String {
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
    YAML.replace("@STORAGE_PORT@", &storage.to_string())
        .replace("@PORT@", &port.to_string())
        .replace("@SYNC@", &sync)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_filled_in() {
        let text = yaml(5, 6, CommitLogSync::Periodic(Duration::from_secs(1)));
        assert!(
            !text
                .lines()
                .any(|line| !line.starts_with('#') && line.contains('@'))
        );
        assert!(
            text.contains("native_transport_port: 5\n") && text.contains("\nstorage_port: 6\n")
        );
        assert!(text.contains("commitlog_sync_period: 1000ms\n"));
        assert!(yaml(5, 6, CommitLogSync::Batch).contains("\ncommitlog_sync: batch\n"));
    }
}
