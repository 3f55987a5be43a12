//! What the demo runs on: the development broker or Kafka, Postgres, and Cassandra where it can run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{CassandraConnection, PostgresConnection, Secret};
use crate::error::Error;
use crate::kafka::KafkaSettings;

enum Broker {
    Development(wasmill_devbroker::Broker),
    Kafka(wasmill_local::Kafka),
}

/// Servers of the demo; dropping them stops them and removes their data.
pub(super) struct Servers {
    broker: Broker,
    postgres: wasmill_local::Postgres,
    cassandra: Option<wasmill_local::Cassandra>,
}

fn failed(error: &wasmill_local::StartError) -> Error {
    Error::outside("start a local server", error).hint(error.hint())
}

/// Starts everything, saying what and how long it took.
pub(super) fn start(real: bool, no_cassandra: bool, say: &dyn Fn(&str)) -> Result<Servers, Error> {
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
    let broker = if real {
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
    let cassandra = match (real, wasmill_local::Cassandra::available()) {
        _ if no_cassandra => None,
        (false, Err(missing)) => {
            say(&format!("cassandra left out: {missing}"));
            None
        }
        (true, Err(missing)) => {
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

    /// How the demo itself reaches the broker.
    pub(super) fn kafka_settings(&self) -> KafkaSettings {
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

    /// The host's config, as an operator would write it.
    pub(super) fn config(&self, components: &[(&str, PathBuf)], cache: &Path) -> String {
        let mut text = String::new();
        let mut write = |line: std::fmt::Arguments<'_>| {
            text.write_fmt(line)
                .expect("writing to a String does not fail");
            text.push('\n');
        };
        write(format_args!(
            "[host]\nid = \"demo\"\ncache = {:?}",
            cache.display().to_string()
        ));
        write(format_args!(
            "[kafka.main]\nbrokers = {:?}",
            self.bootstrap()
        ));
        write(format_args!(
            "[postgres.main]\nurl = {:?}",
            self.postgres.url()
        ));
        if let Some(cassandra) = &self.cassandra {
            write(format_args!(
                "[cassandra.main]\nhosts = [{:?}]\nkeyspace = \"demo\"\ncreate_keyspace = 1",
                cassandra.contact_point()
            ));
        }
        for (name, file) in components {
            write(format_args!(
                "[pipeline.{name}]\nfile = {:?}",
                file.display().to_string()
            ));
            if *name == "flights" && self.cassandra.is_none() {
                write(format_args!("bind.route.by_airport = \"discard\""));
            }
        }
        text
    }
}
