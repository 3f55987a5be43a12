//! Cassandra: what was acknowledged is there after kills and restarts.

use std::net::TcpStream;

use scylla::client::{session::Session, session_builder::SessionBuilder};
use wasmill_local::{Cassandra, CassandraOptions};

use crate::{here, is_gone, runtime, timed};

async fn session(contact_point: &str) -> Session {
    SessionBuilder::new()
        .known_node(contact_point)
        .build()
        .await
        .unwrap()
}

async fn count(session: &Session) -> i64 {
    let rows = session
        .query_unpaged("select count(*) from k.t", &[])
        .await
        .unwrap();
    rows.into_rows_result()
        .unwrap()
        .single_row::<(i64,)>()
        .unwrap()
        .0
}

#[test]
fn cassandra_survives_kills() {
    if !here(Cassandra::available()) {
        return;
    }
    let options = CassandraOptions {
        heap_mb: 256,
        ..CassandraOptions::default()
    };
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
    timed("cassandra restart after kill", || {
        cassandra.restart().unwrap()
    });
    assert_eq!(cassandra.contact_point(), contact, "the same address");
    assert_eq!(
        runtime().block_on(async { count(&session(&contact).await).await }),
        200
    );

    timed("cassandra halt", || cassandra.halt().unwrap());
    assert!(TcpStream::connect(cassandra.address()).is_err());
    timed("cassandra restart after halt", || {
        cassandra.restart().unwrap()
    });
    assert_eq!(
        runtime().block_on(async { count(&session(&contact).await).await }),
        200
    );

    let last = cassandra.pid().unwrap();
    timed("cassandra stop", || cassandra.stop().unwrap());
    assert!(is_gone(last) && !folder.exists());
}
