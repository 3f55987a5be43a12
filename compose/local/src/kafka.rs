//! A real Apache Kafka on this machine: one broker that is its own controller (KRaft), or several such together.
//!
//! Owns its jars, its formatted storage and its properties. The client port is of 127.0.0.1, without
//! a password. Never creates topics by itself: `auto.create.topics.enable` is off.

use std::{
    fs::{self, File},
    io::{self, Read},
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    thread,
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
    run_folder::{Folder, RunFolder, copy_tree},
    server::{Habits, LocalServer, Plan, prepare, write},
    user::User,
};

const POM: &str = include_str!("files/kafka-pom.xml");
const PROPERTIES: &str = include_str!("files/kafka.properties");

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

/// Which broker of its cluster one is.
#[derive(Debug, Clone)]
struct Member {
    /// From 1 on.
    node: usize,
    cluster_id: String,
    /// Ports of all controllers, in the order of the nodes.
    controllers: Vec<u16>,
}

impl Member {
    /// A topic's copies unless it says otherwise, and how many of them a write waits for.
    fn replicas(&self) -> (usize, usize) {
        let replicas = self.controllers.len().min(3);
        (replicas, replicas.div_ceil(2))
    }

    fn voters(&self) -> String {
        let voters = self.controllers.iter().enumerate();
        let voters = voters.map(|(index, port)| format!("{}@127.0.0.1:{port}", index + 1));
        voters.collect::<Vec<_>>().join(",")
    }
}

impl Kafka {
    /// Whether a Kafka of the usual version can be started here, short of a failing download.
    ///
    /// # Errors
    /// What to install.
    pub fn available() -> Result<(), Missing> {
        let cached = Cache::open().is_ok_and(|cache| cache.found(&entry(KAFKA_VERSION)).is_some());
        java(KAFKA_VERSION)?;
        if cached || maven::found() {
            Ok(())
        } else {
            Err(no_maven(KAFKA_VERSION))
        }
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
        let jars = jars(&cache, version, &options.progress)?;
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
        let jars = jars(&cache, version, &options.progress)?;
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

fn entry(version: &str) -> String {
    format!("kafka-{version}")
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

fn no_maven(version: &str) -> Missing {
    Missing {
        server: name(version),
        what: "its jars are not in the cache and there is no `mvn` to fetch them with".into(),
        hint: "install Maven (Debian: `apt-get install maven`; macOS: `brew install maven`)".into(),
    }
}

pub(crate) fn jars(
    cache: &Cache,
    version: &str,
    progress: &Progress,
) -> Result<PathBuf, StartError> {
    if let Some(jars) = cache.found(&entry(version)) {
        return Ok(jars);
    }
    if !maven::found() {
        return Err(no_maven(version).into());
    }
    cache.entry(&entry(version), |part| {
        progress.say(&format!("fetching {} (43 MB)…", name(version)));
        maven::fetch(
            &name(version),
            &POM.replace("@VERSION@", version),
            part,
            Unpack::No,
        )
    })
}

/// A storage folder as Kafka's own tool formats it, made once a version: a Java start less each time.
fn formatted(
    cache: &Cache,
    version: &str,
    java: &Java,
    jars: &Path,
) -> Result<PathBuf, StartError> {
    let entry = cache.entry(&format!("kafka-{version}-formatted"), |part| {
        let file = part.join("server.properties");
        let (options, ports) = (KafkaOptions::default(), [1, 2, 3]);
        let member = Member {
            node: 1,
            cluster_id: random_id()?,
            controllers: vec![ports[2]],
        };
        write(
            &file,
            &properties(&part.join("data"), ports, &member, &options),
        )?;
        let mut tool = java.command(64, 128);
        tool.args(logging("error"));
        tool.arg("-cp")
            .arg(class_path(jars)?)
            .arg("kafka.tools.StorageTool");
        tool.args(["format", "--cluster-id", &member.cluster_id, "--config"])
            .arg(&file);
        prepare("Kafka's storage tool", tool).map(drop)
    })?;
    Ok(entry.join("data"))
}

/// Copies the formatted folder and gives the copy its own identity.
fn identify(template: &Path, data: &Path, member: &Member) -> Result<(), StartError> {
    copy_tree(template, data, User::Same)?;
    let file = data.join("meta.properties");
    let text = fs::read_to_string(&file).map_err(StartError::io("reading", &file))?;
    let mut renamed = String::new();
    for line in text.lines() {
        match line.split_once('=') {
            Some((key @ "cluster.id", _)) => {
                renamed.push_str(&format!("{key}={}\n", member.cluster_id));
            }
            Some((key @ "directory.id", _)) => {
                renamed.push_str(&format!("{key}={}\n", random_id()?));
            }
            Some((key @ "node.id", _)) => {
                renamed.push_str(&format!("{key}={}\n", member.node));
            }
            _ => renamed.push_str(&format!("{line}\n")),
        }
    }
    write(&file, &renamed)
}

/// The properties; the ports are those for clients, for clients behind a proxy, and of the controller.
fn properties(data: &Path, ports: [u16; 3], member: &Member, options: &KafkaOptions) -> String {
    let [port, proxied, controller] = ports.map(|port| port.to_string());
    let proxy = match options.proxy {
        Some(proxy) => proxy.to_string(),
        None => format!("127.0.0.1:{proxied}"),
    };
    let (replicas, in_sync) = member.replicas();
    let mut text = PROPERTIES
        .replace("@NODE@", &member.node.to_string())
        .replace("@VOTERS@", &member.voters())
        .replace("@REPLICAS@", &replicas.to_string())
        .replace("@IN_SYNC@", &in_sync.to_string())
        .replace("@PROXY@", &proxy)
        .replace("@PROXIED_PORT@", &proxied)
        .replace("@CONTROLLER_PORT@", &controller)
        .replace("@PORT@", &port)
        .replace("@DATA@", &data.display().to_string().replace('\\', "\\\\"));
    // of a key that is set twice, the last wins
    for (key, value) in &options.properties {
        text.push_str(&format!("{key}={value}\n"));
    }
    text
}

pub(crate) fn logging(level: &str) -> [String; 3] {
    [
        format!("-Dorg.slf4j.simpleLogger.defaultLogLevel={level}"),
        "-Dorg.slf4j.simpleLogger.showDateTime=true".into(),
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".into(),
    ]
}

/// A Kafka `Uuid`: 16 random bytes in the URL-safe base 64 without padding, 22 characters. Its first
/// character is never `-`, which the storage tool would take for an option.
fn random_id() -> Result<String, StartError> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let source = Path::new("/dev/urandom");
    let mut bytes = [0_u8; 16];
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(StartError::io("reading", source))?;
    bytes[0] &= 0x7f;
    let bits = u128::from_be_bytes(bytes);
    let digit = |n: u32| {
        let index = if n == 21 {
            bits << 4
        } else {
            bits >> (122 - 6 * n)
        } & 63;
        char::from(DIGITS[usize::try_from(index).expect("six bits")])
    };
    Ok((0..22).map(digit).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn ids_are_22_characters_and_differ() {
        let ids: Vec<String> = (0..200).map(|_| random_id().unwrap()).collect();
        assert!(ids.iter().all(|id| id.len() == 22 && !id.starts_with('-')));
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
        // the last digit carries two bits, so the four low ones are zero
        assert!(
            ids.iter()
                .all(|id| "AQgw".contains(id.chars().last().unwrap()))
        );
    }

    fn member(controllers: &[u16]) -> Member {
        Member {
            node: controllers.len(),
            cluster_id: "id".to_owned(),
            controllers: controllers.to_vec(),
        }
    }

    #[test]
    fn three_brokers_keep_three_copies_and_one_keeps_one() {
        let options = KafkaOptions::default();
        let three = properties(Path::new("/d"), [5, 7, 6], &member(&[1, 2, 6]), &options);
        assert!(three.contains("node.id=3\n"));
        assert!(three.contains("=1@127.0.0.1:1,2@127.0.0.1:2,3@127.0.0.1:6\n"));
        assert!(three.contains("\ndefault.replication.factor=3\nmin.insync.replicas=2\n"));
        let one = properties(Path::new("/d"), [5, 7, 6], &member(&[6]), &options);
        assert!(one.contains("\ndefault.replication.factor=1\nmin.insync.replicas=1\n"));
    }

    #[test]
    fn properties_are_filled_in_and_can_be_overruled() {
        let options = KafkaOptions {
            proxy: Some(([127, 0, 0, 1], 9).into()),
            properties: vec![("num.partitions".into(), "7".into())],
            ..KafkaOptions::default()
        };
        let text = properties(Path::new("/d"), [5, 7, 6], &member(&[6]), &options);
        assert!(!text.lines().any(|line| !line.starts_with('#')
            && line.contains('@')
            && !line.contains("=1@127.0.0.1:6")));
        assert!(
            text.contains("advertised.listeners=PLAINTEXT://127.0.0.1:5,PROXIED://127.0.0.1:9\n")
        );
        assert!(text.contains(
            "\nlisteners=PLAINTEXT://127.0.0.1:5,PROXIED://127.0.0.1:7,CONTROLLER://127.0.0.1:6\n"
        ));
        assert!(text.ends_with("num.partitions=7\n"));
    }
}
