//! What the demo runs on: the development broker or Kafka, Postgres, and Cassandra where it can run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{CassandraConnection, PostgresConnection, Secret};
use crate::error::Error;
use crate::kafka::KafkaSettings;

enum Broker {
    Development(wasmill_devbroker::Broker),
    Kafka(wasmill_local::Kafka),
}

/// Servers of the demo; dropping them stops them and removes their data.
pub(in crate::cli) struct Servers {
    broker: Broker,
    postgres: wasmill_local::Postgres,
    cassandra: Option<wasmill_local::Cassandra>,
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
    /// Apache Kafka instead of the development broker.
    pub(in crate::cli) kafka: bool,
    /// Cassandra.
    pub(in crate::cli) cassandra: Wish,
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
    let broker = if want.kafka {
        let kafka = wasmill_local::Kafka::start(&wasmill_local::KafkaOptions {
            progress: progress.clone(),
            ..Default::default()
        })
        .map_err(|error| failed(&error))?;
        say(&format!(
            "kafka     {} started in {}",
            wasmill_local::KAFKA_VERSION,
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
        (Wish::No, _) => None,
        (Wish::IfPossible, Err(missing)) => {
            say(&format!("cassandra left out: {missing}; {}", missing.hint));
            None
        }
        (Wish::Must, Err(missing)) => {
            return Err(Error::config("start Cassandra", &missing).hint(missing.hint.to_string()));
        }
        (_, Ok(())) => {
            let cassandra = wasmill_local::Cassandra::start(&wasmill_local::CassandraOptions {
                progress,
                ..Default::default()
            })
            .map_err(|error| failed(&error))?;
            say(&format!(
                "cassandra {} started in {}",
                wasmill_local::CASSANDRA_VERSION,
                took()
            ));
            Some(cassandra)
        }
    };
    Ok(Servers {
        broker,
        postgres,
        cassandra,
    })
}

impl Servers {
    fn bootstrap(&self) -> String {
        match &self.broker {
            Broker::Development(broker) => broker.bootstrap(),
            Broker::Kafka(kafka) => kafka.bootstrap(),
        }
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
        self.cassandra
            .as_ref()
            .map(|cassandra| CassandraConnection {
                hosts: vec![cassandra.contact_point()],
                keyspace: "demo".to_owned(),
                create_keyspace: Some(1),
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
            "cassandra": self.cassandra.as_ref().map(|cassandra| cassandra.contact_point()),
        })
    }

    /// The connections, as sections of a host's config.
    pub(in crate::cli) fn connections(&self) -> String {
        let mut text = format!(
            "[kafka.main]\nbrokers = {:?}\n\n[postgres.main]\nurl = {:?}\n",
            self.bootstrap(),
            self.postgres.url()
        );
        if let Some(cassandra) = &self.cassandra {
            text.push_str(&format!(
                "\n[cassandra.main]\nhosts = [{:?}]\nkeyspace = \"demo\"\ncreate_keyspace = 1\n",
                cassandra.contact_point()
            ));
        }
        text
    }

    /// Connections and pipelines, as an operator would write them.
    pub(super) fn sections(&self, components: &[(&str, PathBuf)]) -> String {
        let mut text = self.connections();
        for (name, file) in components {
            text.push_str(&format!(
                "\n[pipeline.{name}]\nfile = {:?}\n",
                file.display().to_string()
            ));
            if *name == "flights" && self.cassandra.is_none() {
                text.push_str("bind.route.by_airport = \"discard\"\n");
            }
        }
        text
    }
}
