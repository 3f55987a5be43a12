//! What a broker finds on disk when it starts: a formatted folder with an identity of its own, and its properties.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use super::{KafkaOptions, logging};
use crate::{
    cache::Cache,
    error::StartError,
    java::{Java, class_path},
    run_folder::copy_tree,
    server::{prepare, write},
    user::User,
};

const PROPERTIES: &str = include_str!("../files/kafka.properties");

/// Which broker of its cluster one is.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// From 1 on.
    pub(super) node: usize,
    pub(super) cluster_id: String,
    /// Ports of all controllers, in the order of the nodes.
    pub(super) controllers: Vec<u16>,
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

/// A storage folder as Kafka's own tool formats it, made once a version: a Java start less each time.
pub(super) fn formatted(
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
pub(super) fn identify(template: &Path, data: &Path, member: &Member) -> Result<(), StartError> {
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
pub(super) fn properties(
    data: &Path,
    ports: [u16; 3],
    member: &Member,
    options: &KafkaOptions,
) -> String {
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

/// A Kafka `Uuid`: 16 random bytes in the URL-safe base 64 without padding, 22 characters. Its first
/// character is never `-`, which the storage tool would take for an option.
pub(super) fn random_id() -> Result<String, StartError> {
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
