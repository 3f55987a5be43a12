//! Tables and keyspaces as they are.

use std::time::Duration;

use wasmill::cassandra::{
    CassandraSession, CassandraSink, Patience, ensure_keyspace, ensure_table, facts,
};
use wasmill::config::CassandraConnection;
use wasmill::error::Blame;
use wasmill::manifest::Create;

use super::support::{KEYSPACE, World, declared, route};

pub(crate) fn keyspaces(world: &World) {
    world.block(async {
        let connection = CassandraConnection {
            keyspace: "absent_one".to_owned(),
            ..world.connection()
        };
        let session = CassandraSession::connect(&connection, Patience::default())
            .await
            .unwrap();
        let error = ensure_keyspace(&session, None).await.unwrap_err();
        assert_eq!(error.blame(), Blame::Config);
        assert_eq!(
            error.to_string(),
            "cassandra keyspace \"absent_one\": does not exist"
        );
        assert!(
            error
                .hint_text()
                .unwrap()
                .contains("CREATE KEYSPACE IF NOT EXISTS \"absent_one\"")
        );
        ensure_keyspace(&session, Some(1)).await.unwrap();
        ensure_keyspace(&session, None).await.unwrap();
    });
}

/// Another host is making it: it stands in the catalog before the node takes statements for it.
pub(crate) fn a_table_that_comes_a_moment_later(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let table = route(&["id text", "v int64"], &declared("later", 0, None));
        let made = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            eye.run("CREATE TABLE KS.later (id text PRIMARY KEY, v bigint)")
                .await;
        };
        let (opened, ()) = tokio::join!(CassandraSink::open(&session, &table), made);
        opened.unwrap();
    });
}

pub(crate) fn tables_that_differ(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let wanted = ["id text", "at timestamp", "v float64", "tags list<text>", "w int64"];
        let table = route(&wanted, &declared("live", 1, None));
        let error = ensure_table(&session, &table, Create::Never).await.unwrap_err();
        assert_eq!(error.blame(), Blame::Config);
        assert!(error.hint_text().unwrap().contains(
            "CREATE TABLE IF NOT EXISTS \"wasmill_test\".\"live\" (\"id\" text, \"at\" timestamp, \
             \"v\" double, \"tags\" frozen<list<text>>, \"w\" bigint, PRIMARY KEY ((\"id\"), \"at\"))"
        ));
        eye.run(
            "CREATE TABLE KS.live (id text, day date, at timestamp, v float, tags list<text>, \
             PRIMARY KEY ((id, day), at)) WITH default_time_to_live = 60",
        )
        .await;
        let error = ensure_table(&session, &table, Create::IfMissing).await.unwrap_err();
        assert_eq!(
            error.detail(),
            "column \"v\" is of type float, float64 needs double; \
             column \"tags\" is of type list<text>, list<text> needs frozen<list<text>>; \
             column \"w\" is missing; ALTER TABLE \"wasmill_test\".\"live\" ADD \"w\" bigint;; \
             key column \"day\" of the table is not a column of the route; \
             its rows expire 60 s after they arrive; ALTER TABLE \"wasmill_test\".\"live\" WITH \
             default_time_to_live = 0; and set ttl in the route, which counts from the record's own time"
        );
        // the statement it prints repairs what it says
        eye.run("CREATE TABLE KS.thin (id text PRIMARY KEY)").await;
        let thin = route(&["id text", "w map<text,list<int64>>"], &declared("thin", 0, None));
        let error = ensure_table(&session, &thin, Create::IfMissing).await.unwrap_err();
        let statement = error.detail().split_once("; ").unwrap().1;
        eye.run(statement.trim_end_matches(';')).await;
        ensure_table(&session, &thin, Create::Never).await.unwrap();
        eye.run("CREATE TABLE KS.counted (id text PRIMARY KEY, n counter)").await;
        let counted = route(&["id text", "n int64"], &declared("counted", 0, None));
        let error = ensure_table(&session, &counted, Create::IfMissing).await.unwrap_err();
        assert!(error.detail().contains("it is a counter table"), "{error}");
        let elsewhere = route(&["id text"], &declared("nowhere.t", 0, None));
        let error = ensure_table(&session, &elsewhere, Create::IfMissing).await.unwrap_err();
        assert!(error.to_string().ends_with("keyspace \"nowhere\" does not exist"), "{error}");
    });
}

pub(crate) fn what_the_cluster_says(world: &World) {
    world.block(async {
        let (session, eye) = (world.session().await, world.eye().await);
        let before = facts(&session).await.unwrap();
        assert!(before.durable_writes);
        assert_eq!(before.replication_factor, Some(1));
        assert_eq!(before.commit_log.as_deref(), Some("batch"));
        assert!(before.release.unwrap().starts_with("5.0"));
        assert!(
            before.replication.contains("NetworkTopologyStrategy"),
            "{}",
            before.replication
        );
        eye.run(&format!(
            "ALTER KEYSPACE {KEYSPACE} WITH durable_writes = false"
        ))
        .await;
        assert!(!facts(&session).await.unwrap().durable_writes);
        eye.run(&format!(
            "ALTER KEYSPACE {KEYSPACE} WITH durable_writes = true"
        ))
        .await;
    });
}
