//! A real Apache Kafka on this machine: one broker that is its own controller (KRaft), or several such together.
//!
//! Owns its jars, its ports and its command line; what it finds on disk is `storage`'s. The client port is of
//! 127.0.0.1, without a password. Never creates topics by itself: `auto.create.topics.enable` is off.

mod storage;

use std::{
    io,
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    thread,
    time::Duration,
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
    server::{Habits, LocalServer, Plan, write},
    user::User,
};

use self::storage::{Member, formatted, identify, properties, random_id};

const POM: &str = include_str!("files/kafka-pom.xml");

/// The version that is used unless another is asked for.
pub const KAFKA_VERSION: &str = "4.1.2";

const HABITS: Habits = Habits {
    ready_within: Duration::from_secs(120),
    // of several, the last waits for a quorum that is gone: its data are as good after SIGKILL
    polite: &[(Signal::Terminate, Duration::from_secs(10))],
    death: Signal::Kill,
    too_early: None,
};

/// What a Kafka should be like.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// The version, 4.0 or later.
    pub version: String,
    /// Greatest heap in MiB; 64 is enough for small tests.
    pub heap_mb: u32,
    /// Where its data are.
    pub folder: Folder,
    /// A proxy in front of the broker: it gets a second listener, [`Kafka::proxied`], and tells those who come through
    /// that one to come back to this address. The others stay on the direct one.
    pub proxy: Option<SocketAddr>,
    /// Further broker properties, such as `("message.max.bytes", "1000")`; they win over ours.
    pub properties: Vec<(String, String)>,
    /// Told what takes long.
    pub progress: Progress,
}

impl Default for KafkaOptions {
    fn default() -> KafkaOptions {
        KafkaOptions {
            version: KAFKA_VERSION.to_owned(),
            heap_mb: 256,
            folder: Folder::default(),
            proxy: None,
            properties: Vec::new(),
            progress: Progress::default(),
        }
    }
}

/// A Kafka broker; a [`LocalServer`].
#[derive(Debug)]
pub struct Kafka {
    // fields drop in this order: the process goes before its ports
    server: LocalServer,
    ports: Ports,
}

/// What a broker listens on.
#[derive(Debug)]
struct Ports {
    clients: Port,
    proxied: Port,
    controller: Port,
}

impl Ports {
    fn free(cache: &Cache) -> Result<Ports, StartError> {
        Ok(Ports {
            clients: Port::free(cache)?,
            proxied: Port::free(cache)?,
            controller: Port::free(cache)?,
        })
    }

    fn numbers(&self) -> [u16; 3] {
        [&self.clients, &self.proxied, &self.controller].map(Port::number)
    }
}

impl Kafka {
    /// Whether a Kafka of the usual version can be started here, short of a failing download.
    ///
    /// # Errors
    /// What to install.
    pub fn available() -> Result<(), Missing> {
        java(KAFKA_VERSION)?;
        jars(KAFKA_VERSION).available()
    }

    /// Starts one and waits until it answers: some 3 seconds, the very first time as long as a
    /// download of 43 MB takes.
    ///
    /// # Errors
    /// No Java or Maven, a failing download, a folder in use, or the server's own error.
    pub fn start(options: &KafkaOptions) -> Result<Kafka, StartError> {
        let ports = Ports::free(&Cache::open()?)?;
        let alone = Member {
            node: 1,
            cluster_id: random_id()?,
            controllers: vec![ports.controller.number()],
        };
        Kafka::join(options, ports, &alone)
    }

    /// Starts a cluster of that many brokers, each its own controller, and waits until all answer: some 6 seconds for
    /// three. Topics have three copies, of which two have to be written. Clients need to know one of them only. A
    /// kept folder gets a folder for each broker; there is one proxy at most, so none here.
    ///
    /// # Errors
    /// As for [`Kafka::start`].
    pub fn cluster(options: &KafkaOptions, brokers: usize) -> Result<Vec<Kafka>, StartError> {
        let cache = Cache::open()?;
        // what is made once is made before several ask for it
        let (version, java) = (&options.version, java(&options.version)?);
        let jars = jars(version).open(&cache, &options.progress)?;
        formatted(&cache, version, &java, &jars)?;
        let ports = (0..brokers).map(|_| Ports::free(&cache));
        let ports = ports.collect::<Result<Vec<Ports>, _>>()?;
        let controllers: Vec<u16> = ports.iter().map(|p| p.controller.number()).collect();
        let cluster_id = random_id()?;
        // none is ready before the others are there to elect a controller
        let starts = |(index, ports)| {
            let member = Member {
                node: index + 1,
                cluster_id: cluster_id.clone(),
                controllers: controllers.clone(),
            };
            let options = KafkaOptions {
                folder: options.folder.of(index),
                ..options.clone()
            };
            move || Kafka::join(&options, ports, &member)
        };
        thread::scope(|scope| {
            let starts = ports.into_iter().enumerate().map(starts);
            let started: Vec<_> = starts.map(|start| scope.spawn(start)).collect();
            let joined = started.into_iter().map(thread::ScopedJoinHandle::join);
            joined
                .map(|broker| broker.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    }

    fn join(options: &KafkaOptions, ports: Ports, member: &Member) -> Result<Kafka, StartError> {
        let version = &options.version;
        let java = java(version)?;
        let cache = Cache::open()?;
        let jars = jars(version).open(&cache, &options.progress)?;
        let folder = RunFolder::open(&options.folder, &cache, User::Same)?;
        let data = folder
            .data(|data| identify(&formatted(&cache, version, &java, &jars)?, data, member))?;
        let file = folder.path().join("server.properties");
        write(&file, &properties(&data, ports.numbers(), member, options))?;
        let class_path = class_path(&jars)?;
        let address = ports.clients.address();
        let (heap_mb, logs) = (options.heap_mb, folder.path().to_owned());
        let plan = Plan {
            name: name(version),
            habits: &HABITS,
            command: Box::new(move || {
                let mut command = java.command(64, heap_mb);
                command.args(logging("warn"));
                // says when the broker takes requests
                command.arg("-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info");
                command.arg(format!("-Dkafka.logs.dir={}", logs.display()));
                command
                    .arg("-cp")
                    .arg(&class_path)
                    .arg("kafka.Kafka")
                    .arg(&file);
                command
            }),
            ready: Box::new(move |_pid, log| {
                log.contains("Kafka Server started") && TcpStream::connect(address).is_ok()
            }),
        };
        Ok(Kafka {
            server: LocalServer::start(plan, folder)?,
            ports,
        })
    }

    /// `127.0.0.1:port`, for `bootstrap.servers`. The same after a restart.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.ports.clients.address().to_string()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.ports.clients.address()
    }

    /// Where it listens for those who come through [`KafkaOptions::proxy`]: the address that proxy leads to.
    #[must_use]
    pub fn proxied(&self) -> SocketAddr {
        self.ports.proxied.address()
    }

    /// Stops it in good order; a temporary folder goes, a kept one stays.
    ///
    /// # Errors
    /// A process that cannot be ended.
    pub fn stop(mut self) -> io::Result<()> {
        self.server.halt()
    }
}

impl Deref for Kafka {
    type Target = LocalServer;

    fn deref(&self) -> &LocalServer {
        &self.server
    }
}

impl DerefMut for Kafka {
    fn deref_mut(&mut self) -> &mut LocalServer {
        &mut self.server
    }
}

fn name(version: &str) -> String {
    format!("Apache Kafka {version}")
}

pub(crate) fn jars(version: &str) -> Jars {
    Jars {
        server: name(version),
        entry: format!("kafka-{version}"),
        pom: POM.replace("@VERSION@", version),
        megabytes: 43,
    }
}

/// Brokers of version 4 need Java 17 (kafka.apache.org/41/documentation, "Java Version").
pub(crate) fn java(version: &str) -> Result<Java, Missing> {
    Java::find(|major| major >= 17).ok_or_else(|| Missing {
        server: name(version),
        what: "no Java 17 or later was found in JAVA_HOME, PATH or the usual folders".into(),
        hint: "install Java and Maven (Debian: `apt-get install default-jdk-headless maven`; \
               macOS: `brew install openjdk@17 maven`)"
            .into(),
    })
}

pub(crate) fn logging(level: &str) -> [String; 3] {
    [
        format!("-Dorg.slf4j.simpleLogger.defaultLogLevel={level}"),
        "-Dorg.slf4j.simpleLogger.showDateTime=true".into(),
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".into(),
    ]
}
