//! A stage for one test: its own folder, its own Postgres, a broker, and a `wasmill.toml` between them.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio_postgres::{NoTls, Row};
use wasmill_devbroker::{Broker, Options};
use wasmill_local::{Listen, Postgres, PostgresOptions};

use crate::artifact;
use crate::host::Host;
use crate::proxy::{Protocol, Proxy};
use crate::records::Feed;

/// See the module.
#[derive(Debug)]
pub struct Stage {
    /// Its Postgres.
    pub postgres: Postgres,
    /// The embedded broker, unless a real Kafka is used.
    pub broker: Option<Broker>,
    /// The producer.
    pub feed: Feed,
    /// The proxies between the host and its servers, where the stage has them.
    pub links: Option<Links>,
    bootstrap: String,
    folder: TempDir,
}

/// What the host goes through to reach the stage's servers; the stage itself looks past them.
#[derive(Debug)]
pub struct Links {
    /// To Kafka.
    pub kafka: Proxy,
    /// To Postgres.
    pub postgres: Proxy,
}

impl Stage {
    /// With the embedded broker.
    pub fn new() -> Self {
        let broker = Broker::start(Options::default()).unwrap();
        let bootstrap = broker.bootstrap();
        // Commits survive the kills of these tests either way; only a power cut needs the disk.
        Self::with(&bootstrap, Some(broker), false)
    }

    /// With the embedded broker, and a proxy before each server. What the stage produces goes through the broker's
    /// proxy too.
    pub fn linked() -> Self {
        let kafka = Proxy::new(Protocol::Kafka);
        let options = Options {
            advertised: Some(kafka.address()),
            ..Options::default()
        };
        let broker = Broker::start(options).unwrap();
        let bootstrap = broker.bootstrap();
        kafka.point_at(bootstrap.parse().unwrap());
        Self::with(&bootstrap, Some(broker), false).behind(kafka)
    }

    /// The same stage with a proxy before its Postgres, and this one before the host's Kafka.
    #[must_use]
    pub fn behind(mut self, kafka: Proxy) -> Self {
        let postgres = Proxy::to(Protocol::Postgres, self.postgres.tcp_address().unwrap());
        self.links = Some(Links { kafka, postgres });
        self
    }

    /// With a Kafka that runs elsewhere.
    pub fn on(bootstrap: &str) -> Self {
        Self::with(bootstrap, None, false)
    }

    /// The same with a Postgres whose commits wait for the disk.
    pub fn durable_on(bootstrap: &str) -> Self {
        Self::with(bootstrap, None, true)
    }

    fn with(bootstrap: &str, broker: Option<Broker>, durable: bool) -> Self {
        let options = PostgresOptions {
            durable,
            listen: Listen::Loopback,
            ..PostgresOptions::default()
        };
        Self {
            postgres: Postgres::start(&options).unwrap(),
            broker,
            links: None,
            feed: Feed::new(bootstrap),
            bootstrap: bootstrap.to_owned(),
            folder: TempDir::with_prefix("wasmill-test-").unwrap(),
        }
    }

    /// Where its Kafka is.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A file of the stage's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `wasmill.toml`: the host, its connections `main`, and what is given (pipelines).
    pub fn config(&self, pipelines: &str) -> PathBuf {
        let file = self.path("wasmill.toml");
        std::fs::write(&file, format!("{}\n{pipelines}", self.connections())).unwrap();
        file
    }

    /// The part of the config that names the surroundings.
    pub fn connections(&self) -> String {
        let (brokers, postgres) = match &self.links {
            None => (self.bootstrap.clone(), self.postgres.url()),
            Some(links) => {
                let database = links.postgres.address();
                let postgres = format!("postgres://postgres@{database}/postgres");
                (links.kafka.address().to_string(), postgres)
            }
        };
        format!(
            "[host]\nid = \"test-host\"\nshards = 2\ncache = {:?}\n\n\
             [kafka.main]\nbrokers = {:?}\nsession_timeout = \"6s\"\n\n\
             [postgres.main]\nurl = {:?}\n",
            artifact::compiled_cache().display().to_string(),
            brokers,
            postgres,
        )
    }

    /// Writes the config and starts a host on it.
    pub fn host(&self, pipelines: &str) -> Host {
        Host::start(&self.config(pipelines))
    }

    /// Starts a host again on the config that was written last.
    pub fn again(&self) -> Host {
        Host::start(&self.path("wasmill.toml"))
    }

    /// What `wasmill explain` says of the config that was written last.
    pub fn explain(&self) -> String {
        let mut explain = artifact::wasmill();
        let said = artifact::must(
            explain
                .args(["explain", "-c"])
                .arg(self.path("wasmill.toml")),
        );
        String::from_utf8(said.stdout).unwrap()
    }

    /// Rows of a query, or why there are none.
    ///
    /// # Errors
    /// The server is not reached or refuses it.
    pub async fn try_rows(&self, sql: &str) -> Result<Vec<Row>, String> {
        let show = |error: tokio_postgres::Error| match error.as_db_error() {
            Some(refused) => refused.message().to_owned(),
            None => error.to_string(),
        };
        let (client, connection) = tokio_postgres::connect(&self.postgres.url(), NoTls)
            .await
            .map_err(show)?;
        let driver = tokio::spawn(connection);
        let rows = client.query(sql, &[]).await.map_err(show);
        drop(client);
        driver.await.unwrap().ok();
        rows
    }

    /// Rows of a query.
    pub async fn rows(&self, sql: &str) -> Vec<Row> {
        self.try_rows(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The one number a query returns, 0 while the table does not exist.
    pub async fn number(&self, sql: &str) -> i64 {
        match self.try_rows(sql).await {
            Ok(rows) => rows[0].get(0),
            Err(error) if error.contains("does not exist") => 0,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// `Ok` once the query's number is `wanted`.
    ///
    /// # Errors
    /// What it is now.
    pub async fn reaches(&self, sql: &str, wanted: i64) -> Result<(), String> {
        let rows = self.try_rows(sql).await?;
        let seen: i64 = rows[0].get(0);
        if seen == wanted {
            Ok(())
        } else {
            Err(format!("{sql}: {seen} instead of {wanted}"))
        }
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        let (client, connection) = tokio_postgres::connect(&self.postgres.url(), NoTls)
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        drop(client);
        driver.await.unwrap().ok();
    }

    /// Sum over the pipeline's partitions of what is behind its positions.
    pub async fn position(&self, pipeline: &str) -> i64 {
        let sql = format!(
            "SELECT coalesce(sum(next), 0)::int8 FROM wasmill.position WHERE pipeline = '{pipeline}'"
        );
        self.number(&sql).await
    }

    /// `Ok` once the pipeline's positions add up to `wanted`.
    ///
    /// # Errors
    /// What they are now.
    pub async fn positioned(&self, pipeline: &str, wanted: i64) -> Result<(), String> {
        let sql = format!(
            "SELECT coalesce(sum(next), 0)::int8 FROM wasmill.position WHERE pipeline = '{pipeline}'"
        );
        self.reaches(&sql, wanted).await
    }

    /// Code, partition and offset of all dead letters, in order.
    pub async fn dead(&self) -> Vec<(String, i32, i64)> {
        let sql = "SELECT code, partition, \"offset\" FROM wasmill.dead_letter ORDER BY partition, \"offset\"";
        let rows = self.rows(sql).await;
        rows.iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

/// A pipeline's section with everything bound to `main`; `more` holds further keys.
pub fn pipeline(name: &str, file: &Path, more: &str) -> String {
    format!(
        "[pipeline.{name}]\nfile = {:?}\n{more}\n",
        file.display().to_string()
    )
}
