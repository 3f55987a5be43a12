//! Each server for real: started, used, killed, restarted on its data, stopped without a trace.
//!
//! Where a server cannot be had (no Java, no Maven) its test says SKIPPED and passes on a person's
//! machine; with CI=true it fails.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests; the skip must be seen"
)]

use std::{
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use scylla::client::{session::Session, session_builder::SessionBuilder};
use wasmill_local::{
    Cassandra, CassandraOptions, Folder, Kafka, KafkaOptions, Listen, Missing, Postgres, PostgresOptions,
    PostgresSource,
};

/// Whether the server can be had; loud when not.
fn here(available: Result<(), Missing>) -> bool {
    let Err(missing) = available else { return true };
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{missing} ({})",
        missing.hint
    );
    eprintln!("SKIPPED: {missing} ({})", missing.hint);
    false
}

fn timed<T>(what: &str, action: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = action();
    eprintln!("{what}: {} ms", started.elapsed().as_millis());
    result
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

// ---- Postgres

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn statement(url: &str, sql: &str) {
    runtime().block_on(async { connect(url).await.batch_execute(sql).await.unwrap() });
}

fn number(url: &str, sql: &str) -> i64 {
    runtime().block_on(async { connect(url).await.query_one(sql, &[]).await.unwrap().get(0) })
}

fn postgres_keeps_its_data(options: &PostgresOptions) {
    let mut postgres = timed("postgres start", || Postgres::start(options).unwrap());
    let (url, first, folder) = (postgres.url(), postgres.pid().unwrap(), postgres.folder().to_owned());
    statement(&url, "create table t (n bigint); insert into t select generate_series(1, 1000)");

    timed("postgres kill", || postgres.kill().unwrap());
    assert!(is_gone(first) && postgres.pid().is_none());
    timed("postgres restart after kill", || postgres.restart().unwrap());
    assert_eq!(postgres.url(), url, "the same address");
    assert_ne!(postgres.pid(), Some(first));
    assert_eq!(number(&url, "select count(*) from t"), 1000);

    timed("postgres restart", || postgres.restart().unwrap());
    assert_eq!(number(&postgres.socket_url(), "select count(*) from t"), 1000);

    let last = postgres.pid().unwrap();
    timed("postgres stop", || postgres.stop().unwrap());
    assert!(is_gone(last) && !folder.exists());
}

#[test]
fn postgres_over_tcp_survives_kills() {
    if !here(Postgres::available()) {
        return;
    }
    postgres_keeps_its_data(&PostgresOptions { listen: Listen::Loopback, ..PostgresOptions::default() });
}

#[test]
fn postgres_over_a_socket_survives_kills() {
    if !here(Postgres::available()) {
        return;
    }
    postgres_keeps_its_data(&PostgresOptions { durable: false, ..PostgresOptions::default() });
}

#[test]
fn postgres_can_be_killed_with_connections_at_work() {
    if !here(Postgres::available()) {
        return;
    }
    let mut postgres = Postgres::start(&PostgresOptions::default()).unwrap();
    let url = postgres.url();
    statement(&url, "create table t (n bigint)");
    let runtime = runtime();
    for round in 1..=5 {
        let client = runtime.block_on(connect(&url));
        runtime.block_on(client.batch_execute("insert into t values (1)")).unwrap();
        // a transaction that is open when the server dies is undone
        runtime.block_on(client.batch_execute("begin; insert into t values (2)")).unwrap();
        postgres.kill().unwrap();
        assert!(runtime.block_on(client.batch_execute("commit")).is_err());
        postgres.restart().unwrap();
        assert_eq!(number(&url, "select count(*) from t"), round);
    }
}

#[test]
fn postgres_freezes_and_thaws() {
    if !here(Postgres::available()) {
        return;
    }
    let mut postgres = Postgres::start(&PostgresOptions::default()).unwrap();
    runtime().block_on(async {
        let client = connect(&postgres.url()).await;
        postgres.pause().unwrap();
        let mut answer = Box::pin(client.query_one("select 1::bigint", &[]));
        assert!(tokio::time::timeout(Duration::from_millis(300), &mut answer).await.is_err());
        postgres.resume().unwrap();
        assert_eq!(answer.await.unwrap().get::<_, i64>(0), 1);
    });
}

#[test]
fn postgres_keeps_a_named_folder() {
    if !here(Postgres::available()) {
        return;
    }
    // readable by the user Postgres runs as, should this be root
    let root = tempfile::tempdir_in("/tmp").unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(root.path(), readable).unwrap();
    let options =
        PostgresOptions { folder: Folder::Kept(root.path().join("db")), ..PostgresOptions::default() };
    let first = Postgres::start(&options).unwrap();
    statement(&first.url(), "create table t (n bigint); insert into t values (7)");
    let second = Postgres::start(&options).unwrap_err();
    assert!(second.to_string().contains("another process"), "{second}");
    first.stop().unwrap();
    let again = Postgres::start(&options).unwrap();
    assert_eq!(number(&again.url(), "select n from t"), 7);
}

#[test]
fn postgres_can_be_fetched() {
    // the one test of the download: an installed Postgres does not help
    let maven = Command::new("mvn").arg("-version").output();
    let missing = Missing {
        server: "fetched Postgres".into(),
        what: "no `mvn`".into(),
        hint: "install Maven".into(),
    };
    if !here(maven.map(drop).map_err(|_absent| missing)) {
        return;
    }
    let options = PostgresOptions {
        source: PostgresSource::Fetched,
        listen: Listen::Loopback,
        ..PostgresOptions::default()
    };
    let postgres = timed("fetched postgres start", || Postgres::start(&options).unwrap());
    assert!(postgres.version().contains("18.4"), "{}", postgres.version());
    assert_eq!(number(&postgres.url(), "select current_setting('server_version_num')::bigint"), 180_004);
    postgres.stop().unwrap();
}

#[test]
fn a_wrong_parameter_is_postgres_own_error() {
    if !here(Postgres::available()) {
        return;
    }
    let options =
        PostgresOptions { parameters: vec![("no_such".into(), "1".into())], ..PostgresOptions::default() };
    let error = Postgres::start(&options).unwrap_err();
    assert!(error.to_string().contains("no_such"), "{error}");
    let nowhere = PostgresSource::Bin("/nonexistent".into());
    let error = Postgres::start(&PostgresOptions { source: nowhere, ..PostgresOptions::default() }).unwrap_err();
    assert!(error.hint().contains("install Postgres"), "{error}");
}

// ---- Kafka

/// Broker-down lines are what these tests are about; keep them out of the output.
struct Quiet;
impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}
impl rdkafka::consumer::ConsumerContext for Quiet {}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "500");
    config
}

fn produce(bootstrap: &str, values: std::ops::Range<u32>) {
    let producer: FutureProducer<Quiet> = client(bootstrap)
        .set("acks", "all")
        .set("message.timeout.ms", "30000")
        .create_with_context(Quiet)
        .unwrap();
    runtime().block_on(async {
        for value in values {
            let value = value.to_string();
            let record = FutureRecord::<(), _>::to("t").partition(0).payload(&value);
            producer.send(record, Duration::from_secs(30)).await.unwrap();
        }
    });
}

fn consume(bootstrap: &str, count: usize) -> Vec<u32> {
    let consumer: BaseConsumer<Quiet> =
        client(bootstrap).set("group.id", "g").create_with_context(Quiet).unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset("t", 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let started = Instant::now();
    let mut values = Vec::new();
    while values.len() < count && started.elapsed() < Duration::from_secs(30) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            values.push(std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap());
        }
    }
    values
}

#[test]
fn kafka_survives_kills() {
    if !here(Kafka::available()) {
        return;
    }
    let options = KafkaOptions { heap_mb: 96, ..KafkaOptions::default() };
    let mut kafka = timed("kafka start", || Kafka::start(&options).unwrap());
    let (bootstrap, first, folder) = (kafka.bootstrap(), kafka.pid().unwrap(), kafka.folder().to_owned());

    let admin: AdminClient<Quiet> = client(&bootstrap).create_with_context(Quiet).unwrap();
    let topic = NewTopic::new("t", 1, TopicReplication::Fixed(1));
    let made = runtime().block_on(admin.create_topics(&[topic], &AdminOptions::new())).unwrap();
    assert_eq!(made, [Ok("t".to_owned())]);
    let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(10)).unwrap();
    assert_eq!(metadata.brokers().len(), 1);
    assert!(metadata.topics().iter().any(|topic| topic.name() == "t"));
    produce(&bootstrap, 0..100);

    timed("kafka kill", || kafka.kill().unwrap());
    assert!(is_gone(first) && kafka.pid().is_none());
    timed("kafka restart after kill", || kafka.restart().unwrap());
    assert_eq!(kafka.bootstrap(), bootstrap, "the same address");
    produce(&bootstrap, 100..120);
    assert_eq!(consume(&bootstrap, 120), (0..120).collect::<Vec<_>>());

    timed("kafka halt", || kafka.halt().unwrap());
    timed("kafka restart after halt", || kafka.restart().unwrap());
    assert_eq!(consume(&bootstrap, 120).len(), 120);

    let last = kafka.pid().unwrap();
    timed("kafka stop", || kafka.stop().unwrap());
    assert!(is_gone(last) && !folder.exists());
}

// ---- Cassandra

async fn session(contact_point: &str) -> Session {
    SessionBuilder::new().known_node(contact_point).build().await.unwrap()
}

async fn count(session: &Session) -> i64 {
    let rows = session.query_unpaged("select count(*) from k.t", &[]).await.unwrap();
    rows.into_rows_result().unwrap().single_row::<(i64,)>().unwrap().0
}

#[test]
fn cassandra_survives_kills() {
    if !here(Cassandra::available()) {
        return;
    }
    let options = CassandraOptions { heap_mb: 256, ..CassandraOptions::default() };
    let mut cassandra = timed("cassandra start", || Cassandra::start(&options).unwrap());
    let (contact, first) = (cassandra.contact_point(), cassandra.pid().unwrap());
    let folder = cassandra.folder().to_owned();
    runtime().block_on(async {
        let session = session(&contact).await;
        let rows = session.query_unpaged("select release_version from system.local", &[]).await.unwrap();
        let version = rows.into_rows_result().unwrap().single_row::<(String,)>().unwrap().0;
        assert_eq!(version, wasmill_local::CASSANDRA_VERSION);
        let keyspace = "create keyspace k with replication = {'class': 'SimpleStrategy', 'replication_factor': 1}";
        session.query_unpaged(keyspace, &[]).await.unwrap();
        session.query_unpaged("create table k.t (n int primary key)", &[]).await.unwrap();
        for n in 0..200_i32 {
            session.query_unpaged("insert into k.t (n) values (?)", (n,)).await.unwrap();
        }
    });

    timed("cassandra kill", || cassandra.kill().unwrap());
    assert!(is_gone(first) && cassandra.pid().is_none());
    timed("cassandra restart after kill", || cassandra.restart().unwrap());
    assert_eq!(cassandra.contact_point(), contact, "the same address");
    assert_eq!(runtime().block_on(async { count(&session(&contact).await).await }), 200);

    timed("cassandra halt", || cassandra.halt().unwrap());
    assert!(TcpStream::connect(cassandra.address()).is_err());
    timed("cassandra restart after halt", || cassandra.restart().unwrap());
    assert_eq!(runtime().block_on(async { count(&session(&contact).await).await }), 200);

    let last = cassandra.pid().unwrap();
    timed("cassandra stop", || cassandra.stop().unwrap());
    assert!(is_gone(last) && !folder.exists());
}
