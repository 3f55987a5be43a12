//! What the cases share: the server, a runtime as shards have it, and rows.

use std::io::Write as _;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::value::CqlValue;
use wasmill::cassandra::{
    CassandraSession, CassandraSink, Patience, RouteTable, ensure_keyspace, ensure_table,
};
use wasmill::config::CassandraConnection;
use wasmill::error::Error;
use wasmill::manifest::{CassandraTable, Create};
use wasmill::record::{Batch, Column, Op, RowBatch, cells};
use wasmill::sink::{AheadRows, AheadSink};
use wasmill_local::{Cassandra, CassandraOptions};

/// The keyspace of all cases.
pub(crate) const KEYSPACE: &str = "wasmill_test";

/// A running server and a runtime like that of a shard: one thread.
pub(crate) struct World {
    pub(crate) server: Option<Cassandra>,
    pub(crate) address: String,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl World {
    /// Starts the server; `None`, and a word why, where it cannot run; with `CI=true` that is a failure.
    pub(crate) fn start() -> Option<Self> {
        if let Err(missing) = Cassandra::available() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{missing}; {}",
                missing.hint
            );
            // Straight to the terminal: the test runner keeps what `eprintln!` says of a test that passes.
            writeln!(
                std::io::stderr(),
                "SKIPPED Cassandra: {missing}; {}",
                missing.hint
            )
            .ok();
            return None;
        }
        let options = CassandraOptions {
            heap_mb: 384,
            ..CassandraOptions::default()
        };
        let server = Cassandra::start(&options).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let world = Self {
            address: server.contact_point(),
            server: Some(server),
            runtime,
        };
        world.block(async {
            let session = world.session().await;
            ensure_keyspace(&session, Some(1)).await.unwrap();
        });
        Some(world)
    }

    pub(crate) fn block<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(crate) fn connection(&self) -> CassandraConnection {
        CassandraConnection {
            hosts: vec![self.address.clone()],
            keyspace: KEYSPACE.to_owned(),
            create_keyspace: Some(1),
            login: None,
        }
    }

    pub(crate) async fn session(&self) -> CassandraSession {
        self.patient(Duration::from_secs(20)).await
    }

    pub(crate) async fn patient(&self, budget: Duration) -> CassandraSession {
        let patience = Patience {
            request: Duration::from_secs(3),
            budget,
            ..Patience::default()
        };
        CassandraSession::connect(&self.connection(), patience)
            .await
            .unwrap()
    }

    /// A plain session of the driver, to look from outside.
    pub(crate) async fn eye(&self) -> Eye {
        Eye(SessionBuilder::new()
            .known_node(&self.address)
            .build()
            .await
            .unwrap())
    }
}

/// Looks at tables.
pub(crate) struct Eye(Session);

impl Eye {
    pub(crate) async fn run(&self, text: &str) {
        let text = text.replace("KS.", &format!("{KEYSPACE}."));
        self.0.query_unpaged(text, &[]).await.unwrap();
    }

    pub(crate) async fn rows(&self, text: &str) -> Vec<Vec<Option<CqlValue>>> {
        let text = text.replace("KS.", &format!("{KEYSPACE}."));
        let result = self.0.query_unpaged(text, &[]).await.unwrap();
        let rows = result.into_rows_result().unwrap();
        let rows = rows.rows::<scylla::value::Row>().unwrap();
        rows.map(|row| row.unwrap().columns).collect()
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let rows = self.rows(&format!("SELECT count(*) FROM KS.{table}")).await;
        match rows[0][0] {
            Some(CqlValue::BigInt(count)) => count,
            ref other => panic!("{other:?}"),
        }
    }
}

/// Columns from `name type` texts.
pub(crate) fn columns(texts: &[&str]) -> Vec<Column> {
    let column = |text: &&str| {
        let (name, ty) = text.split_once(' ').unwrap();
        Column {
            name: name.to_owned(),
            ty: ty.parse().unwrap(),
            nullable: true,
        }
    };
    texts.iter().map(column).collect()
}

/// A table declaration whose first column is the partition key and whose next ones cluster.
pub(crate) fn declared(table: &str, clustering: usize, ttl: Option<u64>) -> CassandraTable {
    CassandraTable {
        table: table.to_owned(),
        partition_key: vec![0],
        clustering_key: (1..=clustering).collect(),
        ttl: ttl.map(Duration::from_secs),
        consistency: "local-quorum".to_owned(),
        create: Create::IfMissing,
        cross_partition_keys: false,
    }
}

pub(crate) fn route(texts: &[&str], declared: &CassandraTable) -> RouteTable {
    RouteTable::new("out", &columns(texts), declared, None, KEYSPACE).unwrap()
}

/// A sink whose table was created by the catalog.
pub(crate) async fn sink(session: &CassandraSession, table: &RouteTable) -> CassandraSink {
    ensure_table(session, table, Create::IfMissing)
        .await
        .unwrap();
    // what was just created fits
    ensure_table(session, table, Create::Never).await.unwrap();
    CassandraSink::open(session, table).await.unwrap()
}

/// One cell of a row to build.
#[derive(Clone, Copy)]
pub(crate) enum Put<'a> {
    Value(&'a [u8]),
    Null,
    Unset,
}

pub(crate) fn add(batch: &mut RowBatch, source: u32, op: Op, row: &[Put<'_>]) {
    for cell in row {
        match cell {
            Put::Value(value) => cells::put(batch.cells_mut(), value),
            Put::Null => cells::put_null(batch.cells_mut()),
            Put::Unset => cells::put_unset(batch.cells_mut()),
        }
    }
    batch.finish_row(source, op);
}

/// One row of source 0.
pub(crate) fn one(op: Op, row: &[Put<'_>]) -> RowBatch {
    let mut batch = RowBatch::default();
    add(&mut batch, 0, op, row);
    batch
}

pub(crate) async fn write(
    sink: &CassandraSink,
    rows: &RowBatch,
    stamps: &[i64],
    now: i64,
) -> Result<(), Error> {
    let batch = &Batch::default();
    let rows = AheadRows {
        rows,
        batch,
        stamps,
        now,
    };
    sink.write(rows).await
}
