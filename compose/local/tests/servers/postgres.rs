//! Postgres: data through kills, both ways to connect, freezing, kept folders, the download.

use std::{process::Command, time::Duration};

use wasmill_local::{Folder, Listen, Missing, Postgres, PostgresOptions, PostgresSource};

use crate::{here, is_gone, runtime, timed};

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap();
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
    let (url, first, folder) = (
        postgres.url(),
        postgres.pid().unwrap(),
        postgres.folder().to_owned(),
    );
    statement(
        &url,
        "create table t (n bigint); insert into t select generate_series(1, 1000)",
    );

    timed("postgres kill", || postgres.kill().unwrap());
    assert!(is_gone(first) && postgres.pid().is_none());
    timed("postgres restart after kill", || {
        postgres.restart().unwrap()
    });
    assert_eq!(postgres.url(), url, "the same address");
    assert_ne!(postgres.pid(), Some(first));
    assert_eq!(number(&url, "select count(*) from t"), 1000);

    timed("postgres restart", || postgres.restart().unwrap());
    assert_eq!(
        number(&postgres.socket_url(), "select count(*) from t"),
        1000
    );

    let last = postgres.pid().unwrap();
    timed("postgres stop", || postgres.stop().unwrap());
    assert!(is_gone(last) && !folder.exists());
}

#[test]
fn postgres_over_tcp_survives_kills() {
    if !here(Postgres::available()) {
        return;
    }
    postgres_keeps_its_data(&PostgresOptions {
        listen: Listen::Loopback,
        ..PostgresOptions::default()
    });
}

#[test]
fn postgres_over_a_socket_survives_kills() {
    if !here(Postgres::available()) {
        return;
    }
    postgres_keeps_its_data(&PostgresOptions {
        durable: false,
        ..PostgresOptions::default()
    });
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
        runtime
            .block_on(client.batch_execute("insert into t values (1)"))
            .unwrap();
        // a transaction that is open when the server dies is undone
        runtime
            .block_on(client.batch_execute("begin; insert into t values (2)"))
            .unwrap();
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
        assert!(
            tokio::time::timeout(Duration::from_millis(300), &mut answer)
                .await
                .is_err()
        );
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
    let options = PostgresOptions {
        folder: Folder::Kept(root.path().join("db")),
        ..PostgresOptions::default()
    };
    let first = Postgres::start(&options).unwrap();
    statement(
        &first.url(),
        "create table t (n bigint); insert into t values (7)",
    );
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
    let postgres = timed("fetched postgres start", || {
        Postgres::start(&options).unwrap()
    });
    assert!(postgres.name().contains("18.4"), "{}", postgres.name());
    assert_eq!(
        number(
            &postgres.url(),
            "select current_setting('server_version_num')::bigint"
        ),
        180_004
    );
    postgres.stop().unwrap();
}

#[test]
fn a_wrong_parameter_is_postgres_own_error() {
    if !here(Postgres::available()) {
        return;
    }
    let options = PostgresOptions {
        parameters: vec![("no_such".into(), "1".into())],
        ..PostgresOptions::default()
    };
    let error = Postgres::start(&options).unwrap_err();
    assert!(error.to_string().contains("no_such"), "{error}");
    let nowhere = PostgresSource::Bin("/nonexistent".into());
    let error = Postgres::start(&PostgresOptions {
        source: nowhere,
        ..PostgresOptions::default()
    })
    .unwrap_err();
    assert!(error.hint().contains("install Postgres"), "{error}");
}
