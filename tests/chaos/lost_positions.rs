//! Positions that are gone or went back where Cassandra is written: the pipeline stops, writes none anew, and goes on
//! once an operator did what the message says, with Kafka's own tool. Needs Java.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::Session;
use serde_json::json;
use wasmill_local::kafka_consumer_groups;
use wasmill_tests::artifact::{plugin, wasmill};
use wasmill_tests::expected::{flights, shipped_flight};
use wasmill_tests::flow::{Flow, Pace};
use wasmill_tests::hash::TableHash;
use wasmill_tests::host::Host;
use wasmill_tests::records::Made;
use wasmill_tests::ring::{RealServers, by_airport};
use wasmill_tests::site::Plot;
use wasmill_tests::stage::pipeline;
use wasmill_tests::wait::{eventually, same};
use wasmill_tests::{Site, Stage};

use super::flights::{LONG, TOPIC, all_exact, more, passes};

const STOP: Duration = Duration::from_secs(25);

/// What `data loss` tells an operator to do: the tool refuses until the sessions of the group have ended.
pub(super) async fn forget(bootstrap: &str, group: &str) {
    let what = format!("group {group} is deleted");
    eventually(LONG, &what, async || {
        let mut tool = kafka_consumer_groups().unwrap();
        tool.args(["--bootstrap-server", bootstrap]);
        tool.args(["--delete", "--group", group]);
        let output = tool.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match said.contains("was successful") {
            true => Ok(()),
            false => Err(said + &String::from_utf8_lossy(&output.stderr)),
        }
    })
    .await;
}

/// A host that has to stop by itself, and say `words`.
pub(super) fn stops(host: Host, words: &[&str]) {
    host.wait(LONG).refused(words);
}

/// A pipeline from its own topic to its own keyspace, and nothing else.
struct Alone {
    servers: Arc<RealServers>,
    session: Session,
    stage: Stage,
    /// Its name, and that of its topic.
    name: &'static str,
    keyspace: String,
}

impl Alone {
    async fn new(name: &'static str) -> Option<Self> {
        let servers = RealServers::get()?;
        let stage = Stage::on(&servers.kafka.bootstrap());
        stage.feed.topic(name, 2).await;
        Some(Self {
            session: servers.session().await,
            servers,
            stage,
            name,
            keyspace: name.replace('-', "_"),
        })
    }

    fn start(&self) -> Host {
        let bind = format!(
            "bind.input.flights = {{ kafka = \"main\", topic = \"{}\" }}\n\
             bind.route.flights = \"discard\"\nbind.route.flight_log = \"discard\"",
            self.name
        );
        let alone = pipeline(self.name, &plugin("plugins/flights"), &bind);
        let connection = self.servers.connection(&self.keyspace);
        self.stage.host(&format!("{connection}\n{alone}"))
    }

    fn send(&self, flights: std::ops::Range<usize>) {
        let made = flights.map(shipped_flight);
        let made = made.map(|(id, text)| Made::new(id, text));
        let made: Vec<Made> = made.collect();
        self.stage.feed.send(self.name, &made);
    }

    /// Waits until the first so many flights, and no others, are in the table.
    async fn holds(&self, host: &mut Host, count: usize) {
        let wanted = TableHash::of(flights(count).map(|flight| flight.airport_line()));
        eventually(LONG, "Cassandra holds every flight", async || {
            host.alive()?;
            same(&self.rows().await?, &wanted)
        })
        .await;
    }

    async fn rows(&self) -> Result<TableHash, String> {
        by_airport(&self.session, &self.keyspace).await
    }

    async fn run(&self, cql: &str) {
        self.session.query_unpaged(cql, ()).await.unwrap();
    }

    /// The rows of a table of the anchor.
    async fn all(&self, table: &str) -> Vec<String> {
        let query = format!("SELECT JSON * FROM {}.{table}", self.keyspace);
        let rows = self.session.query_unpaged(query, ()).await.unwrap();
        let rows = rows.into_rows_result().unwrap();
        let rows = rows.rows::<(String,)>().unwrap();
        rows.map(|row| row.unwrap().0).collect()
    }

    async fn truncate(&self) {
        for table in ["wasmill_position", "wasmill_partition"] {
            self.run(&format!("TRUNCATE {}.{table}", self.keyspace))
                .await;
        }
    }

    /// Its positions in turn with what a host changes about them; a TRUNCATE takes no turn, and leaves what an LWT writes
    /// at that moment.
    async fn delete(&self) {
        let name = self.name;
        for partition in 0..2 {
            self.run(&format!(
                "DELETE FROM {}.wasmill_position WHERE pipeline = '{name}' AND topic = '{name}' AND \
                 \"partition\" = {partition} IF EXISTS",
                self.keyspace
            ))
            .await;
        }
        self.run(&format!("TRUNCATE {}.wasmill_partition", self.keyspace))
            .await;
    }

    async fn has_no_position(&self) {
        for table in ["wasmill_position", "wasmill_partition"] {
            assert_eq!(self.all(table).await, Vec::<String>::new(), "{table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_gone_from_cassandra_are_a_data_loss_until_the_group_forgets() {
    let name = "gone-from-cassandra";
    let Some(alone) = Alone::new(name).await else {
        return;
    };
    let keyspace = &alone.keyspace;
    alone.send(0..2_000);
    let mut host = alone.start();
    alone.holds(&mut host, 2_000).await;
    assert_eq!(host.stop(STOP).code, Some(0));
    let rows = alone.rows().await.unwrap();
    let positions = alone.all("wasmill_position").await;
    assert_eq!(positions.len(), 2);

    // One row alone: its partition is listed still.
    alone.send(2_000..2_500);
    let row = format!("pipeline = '{name}' AND topic = '{name}' AND \"partition\" = 0");
    alone
        .run(&format!(
            "DELETE FROM {keyspace}.wasmill_position WHERE {row}"
        ))
        .await;
    let zero = format!("{name}/0");
    let words = ["DATA LOSS", &zero, "restore its row"];
    stops(alone.stage.again(), &words);
    assert_eq!(alone.all("wasmill_position").await.len(), 1);
    assert_eq!(alone.rows().await.unwrap(), rows, "rows were written");
    // Its row is restored, as it says.
    for position in &positions {
        let insert = format!("INSERT INTO {keyspace}.wasmill_position JSON '{position}'");
        alone.run(&insert).await;
    }
    let mut host = alone.stage.again();
    alone.holds(&mut host, 2_500).await;
    assert_eq!(host.stop(STOP).code, Some(0));
    let rows = alone.rows().await.unwrap();

    // All of them look like a first start.
    alone.truncate().await;
    alone.send(2_500..3_000);
    let delete = format!("kafka-consumer-groups --delete --group wasmill.{name}");
    let words = ["data loss", "had one of at least", &delete];
    for _ in 0..2 {
        stops(alone.stage.again(), &words);
        alone.has_no_position().await;
        assert_eq!(alone.rows().await.unwrap(), rows, "rows were written");
    }
    forget(alone.stage.bootstrap(), &format!("wasmill.{name}")).await;
    let mut host = alone.stage.again();
    alone.holds(&mut host, 3_000).await;
    assert_eq!(host.stop(STOP).code, Some(0));
    assert_eq!(alone.all("wasmill_position").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_that_go_from_cassandra_while_a_host_runs_stop_it() {
    let Some(alone) = Alone::new("go-from-cassandra").await else {
        return;
    };
    let flow = Flow::flights(alone.stage.bootstrap(), alone.name, Pace::GENTLE);
    let mut host = alone.start();
    eventually(LONG, "rows arrive", async || {
        host.alive()?;
        match alone.rows().await?.rows {
            0..1_000 => Err("too few yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    alone.delete().await;
    stops(host, &["fenced", "DATA LOSS", "there is none"]);
    alone.has_no_position().await;
    stops(alone.stage.again(), &["data loss", "had one of at least"]);
    alone.has_no_position().await;
    flow.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_postgres_beside_cassandra_stops_until_the_group_forgets() {
    const KEYSPACE: &str = "restored";
    let Some(servers) = RealServers::get() else {
        return;
    };
    let stage = Stage::on(&servers.kafka.bootstrap());
    stage.feed.topic(TOPIC, 1).await;
    let flights = pipeline("flights", &plugin("plugins/flights"), "");
    let plot = Plot {
        control: "restored-control".to_owned(),
        more: format!("{}\n{flights}", servers.connection(KEYSPACE)),
        ..Plot::new("restored")
    };
    let site = Site::new(&stage, &plot);
    let mut places = Vec::new();
    more(&stage, 2_000, &mut places);
    let (host, _) = site.up();
    passes(&stage, 2_000).await;
    assert_eq!(host.stop(STOP).code, Some(0));
    // A backup, and what was done after it.
    let tables = ["wasmill.position", "flight_log", "flights"];
    stage.execute("CREATE SCHEMA backup").await;
    for (n, table) in tables.iter().enumerate() {
        let save = format!("CREATE TABLE backup.t{n} AS TABLE {table}");
        stage.execute(&save).await;
    }
    more(&stage, 2_000, &mut places);
    let (host, _) = site.up();
    passes(&stage, 4_000).await;
    assert_eq!(host.stop(STOP).code, Some(0));
    for (n, table) in tables.iter().enumerate() {
        let restore = format!("TRUNCATE {table}; INSERT INTO {table} SELECT * FROM backup.t{n}");
        stage.execute(&restore).await;
    }
    more(&stage, 1_000, &mut places);

    let (mut host, _) = site.up();
    let status = eventually(LONG, "the pipeline is stopped", async || {
        host.alive()?;
        let status = site.api.status("flights")?;
        match status["state"] == json!("stopped") {
            true => Ok(status),
            false => Err(format!("{status:#}")),
        }
    })
    .await;
    let said = status["last_error"].to_string();
    for word in [
        "stands at 2000 and stood at 4000",
        "--delete --group wasmill.flights",
    ] {
        assert!(said.contains(word), "{word}: {status:#}");
    }
    assert_eq!(stage.position("flights").await, 2_000);
    let rows = "SELECT count(*) FROM flight_log";
    assert_eq!(stage.number(rows).await, 2_000, "rows were written");

    let operate = |act: &str| {
        let mut command = wasmill();
        command.args([act, "flights"]);
        command.env("WASMILL_HOST", site.api.base());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{act}: {output:?}");
    };
    operate("pause");
    forget(stage.bootstrap(), "wasmill.flights").await;
    operate("resume");
    let contact = [servers.cassandra.contact_point()];
    all_exact(&stage, &contact, KEYSPACE, &places).await;
    host.alive().unwrap();
    assert_eq!(host.stop(STOP).code, Some(0));
}
