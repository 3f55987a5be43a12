//! What the demo runs on: the development broker or Kafka, Postgres, and Cassandra where it can run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{CassandraConnection, PostgresConnection, Secret};
use crate::error::Error;
use crate::kafka::KafkaSettings;

enum Broker {
    Development(wasmill_devbroker::Broker),
    Kafka(Vec<wasmill_local::Kafka>),
}

/// Servers of the demo; dropping them stops them and removes their data.
pub(in crate::cli) struct Servers {
    broker: Broker,
    postgres: wasmill_local::Postgres,
    /// A ring, or nothing.
    cassandra: Vec<wasmill_local::Cassandra>,
}

fn failed(error: &wasmill_local::StartError) -> Error {
    Error::outside("start a local server", error).hint(error.hint())
}

/// Whether a server is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Wish {
    /// Not at all.
    No,
    /// Where it can run; a line says why not.
    IfPossible,
    /// Or fail.
    Must,
}

/// What to start besides Postgres.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Want {
    /// Brokers of an Apache Kafka; 0: the development broker.
    pub(in crate::cli) brokers: u8,
    /// Cassandra.
    pub(in crate::cli) cassandra: Wish,
    /// Its nodes.
    pub(in crate::cli) nodes: u8,
}

impl Want {
    /// One server of each kind.
    pub(in crate::cli) fn single(kafka: bool, cassandra: Wish) -> Self {
        Self {
            brokers: u8::from(kafka),
            cassandra,
            nodes: 1,
        }
    }
}

/// Starts everything, saying what and how long it took.
pub(in crate::cli) fn start(want: Want, say: &dyn Fn(&str)) -> Result<Servers, Error> {
    let progress = wasmill_local::Progress::new(|line: &str| eprintln!("         {line}"));
    let clock = std::time::Instant::now();
    let mut took = {
        let mut last = clock;
        move || {
            let now = std::time::Instant::now();
            let text = format!("{:.1} s", (now - last).as_secs_f64());
            last = now;
            text
        }
    };
    let postgres = wasmill_local::Postgres::start(&wasmill_local::PostgresOptions {
        progress: progress.clone(),
        ..Default::default()
    })
    .map_err(|error| failed(&error))?;
    say(&format!("postgres  started in {}", took()));
    let broker = if want.brokers > 0 {
        let options = wasmill_local::KafkaOptions {
            progress: progress.clone(),
            ..Default::default()
        };
        let kafka = wasmill_local::Kafka::cluster(&options, usize::from(want.brokers))
            .map_err(|error| failed(&error))?;
        say(&format!(
            "kafka     {}{} started in {}",
            wasmill_local::KAFKA_VERSION,
            several(want.brokers, "brokers"),
            took()
        ));
        Broker::Kafka(kafka)
    } else {
        let broker = wasmill_devbroker::Broker::start(wasmill_devbroker::Options::default())
            .map_err(|error| Error::outside("start the development broker", error))?;
        say("kafka     development broker, in memory (--real: Apache Kafka)");
        Broker::Development(broker)
    };
    let cassandra = match (want.cassandra, wasmill_local::Cassandra::available()) {
        (Wish::No, _) => Vec::new(),
        (Wish::IfPossible, Err(missing)) => {
            say(&format!("cassandra left out: {missing}; {}", missing.hint));
            Vec::new()
        }
        (Wish::Must, Err(missing)) => {
            return Err(Error::config("start Cassandra", &missing).hint(missing.hint.to_string()));
        }
        (_, Ok(())) => {
            let options = wasmill_local::CassandraOptions {
                progress,
                ..Default::default()
            };
            let ring = wasmill_local::Cassandra::ring(&options, want.nodes)
                .map_err(|error| failed(&error))?;
            say(&format!(
                "cassandra {}{} started in {}",
                wasmill_local::CASSANDRA_VERSION,
                several(want.nodes, "nodes"),
                took()
            ));
            ring
        }
    };
    Ok(Servers {
        broker,
        postgres,
        cassandra,
    })
}

/// `, 3 brokers`; nothing for one.
fn several(many: u8, what: &str) -> String {
    match many {
        1 => String::new(),
        many => format!(", {many} {what}"),
    }
}

impl Servers {
    fn bootstrap(&self) -> String {
        match &self.broker {
            Broker::Development(broker) => broker.bootstrap(),
            Broker::Kafka(brokers) => {
                let addresses: Vec<String> = brokers
                    .iter()
                    .map(wasmill_local::Kafka::bootstrap)
                    .collect();
                addresses.join(",")
            }
        }
    }

    fn contact_points(&self) -> Vec<String> {
        self.cassandra
            .iter()
            .map(wasmill_local::Cassandra::contact_point)
            .collect()
    }

    /// Copies of a row: as many as there are nodes, three at most.
    fn replication(&self) -> usize {
        self.cassandra.len().min(3)
    }

    /// How a command itself reaches the broker.
    pub(in crate::cli) fn kafka_settings(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.bootstrap(),
            security: BTreeMap::new(),
            session_timeout: Duration::from_secs(10),
            client_id: "wasmill-demo".to_owned(),
        }
    }

    /// How the demo itself reaches Postgres.
    pub(super) fn postgres(&self) -> PostgresConnection {
        PostgresConnection {
            url: Secret::new(self.postgres.url()),
        }
    }

    /// How the demo itself reaches Cassandra.
    pub(super) fn cassandra(&self) -> Option<CassandraConnection> {
        (!self.cassandra.is_empty()).then(|| CassandraConnection {
            hosts: self.contact_points(),
            keyspace: "demo".to_owned(),
            create_keyspace: u32::try_from(self.replication()).ok(),
            login: None,
        })
    }

    /// How the database is reached, for people.
    pub(in crate::cli) fn postgres_url(&self) -> String {
        self.postgres.url()
    }

    /// The addresses, for programs.
    pub(in crate::cli) fn document(&self) -> serde_json::Value {
        serde_json::json!({
            "kafka": self.bootstrap(),
            "postgres": self.postgres.url(),
            "cassandra": (!self.cassandra.is_empty()).then(|| self.contact_points().join(",")),
        })
    }

    /// The connections, as sections of a host's config.
    pub(in crate::cli) fn connections(&self) -> String {
        let mut text = format!(
            "[kafka.main]\nbrokers = {:?}\n\n[postgres.main]\nurl = {:?}\n",
            self.bootstrap(),
            self.postgres.url()
        );
        if !self.cassandra.is_empty() {
            text.push_str(&format!(
                "\n[cassandra.main]\nhosts = {:?}\nkeyspace = \"demo\"\ncreate_keyspace = {}\n",
                self.contact_points(),
                self.replication()
            ));
        }
        text
    }

    /// The host's config, as an operator would write it.
    pub(super) fn config(&self, components: &[(&str, PathBuf)], cache: &Path) -> String {
        let mut text = format!(
            "[host]\nid = \"demo\"\ncache = {:?}\n\n{}",
            cache.display().to_string(),
            self.connections()
        );
        for (name, file) in components {
            text.push_str(&format!(
                "\n[pipeline.{name}]\nfile = {:?}\n",
                file.display().to_string()
            ));
            if *name == "flights" && self.cassandra.is_empty() {
                text.push_str("bind.route.by_airport = \"discard\"\n");
            }
        }
        text
    }
}
