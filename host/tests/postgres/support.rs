//! What every test needs: a server, an anchor on it, rows and flights in a line each.

use tokio_postgres::{Client, NoTls};
use wasmill::anchor::{Ahead, Anchor, Claim, CommitError, Flight, HereRows, Stored};
use wasmill::config::{PostgresConnection, Secret};
use wasmill::error::Error;
use wasmill::manifest::{Create, Mode};
use wasmill::postgres::{
    PostgresAnchor, PostgresRoute, Retried, Settings, TableName, TableReport, Tables,
};
use wasmill::record::cells;
use wasmill::record::{Batch, Column, Op, Record, RowBatch};
use wasmill::route::DeadLetter;
use wasmill_local::{LocalServer, Postgres, PostgresOptions};

/// A server and a session beside the anchor's.
pub(crate) struct Place {
    pub(crate) server: Postgres,
    pub(crate) sql: Client,
}

impl Place {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(parameters: &[(&str, &str)]) -> Self {
        let options = PostgresOptions {
            durable: false,
            parameters: parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..PostgresOptions::default()
        };
        let server = Postgres::start(&options).unwrap();
        let sql = connect(&server.socket_url()).await;
        Self { server, sql }
    }

    pub(crate) fn local(&mut self) -> &mut LocalServer {
        &mut self.server
    }

    pub(crate) fn settings(&self, routes: Vec<PostgresRoute>) -> Settings {
        let mut settings = Settings::new(
            Secret::new(self.server.socket_url()),
            "quakes",
            "prod.quakes",
        );
        settings.plugin = "quakes@1.2.0".to_owned();
        settings.digest = "sha256:abc".to_owned();
        settings.routes = routes;
        settings
    }

    /// What a status asks for how many dead letters were retried.
    pub(crate) fn retried(&self) -> Retried {
        Retried::new(&PostgresConnection {
            url: Secret::new(self.server.socket_url()),
        })
    }

    /// An anchor whose tables exist and whose partitions 0 to 7 stand at 100.
    pub(crate) async fn anchor(&self, routes: Vec<PostgresRoute>) -> PostgresAnchor {
        self.anchor_of(self.settings(routes)).await
    }

    pub(crate) async fn anchor_of(&self, settings: Settings) -> PostgresAnchor {
        ensure(&settings).await.unwrap();
        let anchor = PostgresAnchor::new(settings).unwrap();
        let seeds: Vec<Stored> = (0..8)
            .map(|partition| Stored {
                partition,
                next: 100,
                cuts: Vec::new(),
                topic_id: None,
            })
            .collect();
        anchor.seed(&seeds).await.unwrap();
        anchor
    }

    /// Takes away what later versions of the schema added, as if an earlier host had made it.
    pub(crate) async fn as_version_1_left_it(&self) {
        self.sql
            .batch_execute(
                "ALTER TABLE wasmill.position DROP CONSTRAINT position_balances, DROP COLUMN records, \
                 DROP COLUMN emitted, DROP COLUMN filtered, DROP COLUMN dead, DROP COLUMN retried, DROP COLUMN retried_filtered; \
                 ALTER TABLE wasmill.dead_letter DROP COLUMN stamp, DROP COLUMN begun; \
                 DROP FUNCTION wasmill.advance(text, text, text, int4, int8, uuid, int8, int8, int8, int8, text, \
                 int8, int8, int8, int8); \
                 DELETE FROM wasmill.schema_version WHERE version > 1",
            )
            .await
            .unwrap();
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        let rows = self.sql.query(sql, &[]).await.unwrap();
        let cell = |row: &tokio_postgres::Row| {
            row.get::<_, Option<String>>(0)
                .unwrap_or_else(|| "null".to_owned())
        };
        rows.iter().map(cell).collect::<Vec<_>>().join(" ")
    }

    pub(crate) async fn next(&self, partition: i32) -> i64 {
        self.sql
            .query_one(
                "SELECT next FROM wasmill.position WHERE partition = $1",
                &[&partition],
            )
            .await
            .unwrap()
            .get(0)
    }

    /// Ends every session of anchors; how many there were.
    pub(crate) async fn terminate(&self) -> i64 {
        self.sql
            .query_one(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'wasmill/%'",
                &[],
            )
            .await
            .unwrap()
            .get(0)
    }

    /// Waits until a session of an anchor waits for `event` (of `pg_stat_activity.wait_event`).
    pub(crate) async fn waiting(&self, event: &str) {
        for _ in 0..500 {
            let waiting: i64 = self
                .sql
                .query_one(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'wasmill/%' AND wait_event = $1",
                    &[&event],
                )
                .await
                .unwrap()
                .get(0);
            if waiting > 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("no session came to wait for {event}");
    }
}

/// Checks and creates what the routes need.
pub(crate) async fn ensure(settings: &Settings) -> Result<Vec<TableReport>, Error> {
    Tables::default().ensure(settings).await
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) fn columns(columns: &[(&str, &str, bool)]) -> Vec<Column> {
    let column = |(name, ty, nullable): &(&str, &str, bool)| Column {
        name: (*name).to_owned(),
        ty: ty.parse().unwrap(),
        nullable: *nullable,
    };
    columns.iter().map(column).collect()
}

/// A route to `geo.<name>`, created if missing; an upsert when it has a key.
pub(crate) fn route(name: &str, key: &[usize], of: &[(&str, &str, bool)]) -> PostgresRoute {
    PostgresRoute {
        index: 0,
        name: name.to_owned(),
        columns: columns(of),
        table: TableName::parse(&format!("geo.{name}")).unwrap(),
        mode: if key.is_empty() {
            Mode::Append
        } else {
            Mode::Upsert
        },
        key: key.to_vec(),
        guard: None,
        deleted_at: None,
        create: Create::IfMissing,
    }
}

/// `quakes(id int64 key, place text null)`.
pub(crate) fn quakes() -> PostgresRoute {
    route(
        "quakes",
        &[0],
        &[("id", "int64", false), ("place", "text", true)],
    )
}

/// A cell as a test writes it.
pub(crate) enum Is<'a> {
    Int(i64),
    Text(&'a str),
    Bytes(Vec<u8>),
    Null,
    Unset,
}

pub(crate) fn push(rows: &mut RowBatch, source: u32, op: Op, cells: &[Is<'_>]) {
    let out = rows.cells_mut();
    for cell in cells {
        match cell {
            Is::Int(value) => cells::put(out, &value.to_be_bytes()),
            Is::Text(text) => cells::put(out, text.as_bytes()),
            Is::Bytes(bytes) => cells::put(out, bytes),
            Is::Null => cells::put_null(out),
            Is::Unset => cells::put_unset(out),
        }
    }
    rows.finish_row(source, op);
}

/// Rows of `quakes`.
pub(crate) fn quake_rows(rows: &[(i64, &str)]) -> RowBatch {
    let mut batch = RowBatch::default();
    for (source, (id, place)) in (0..).zip(rows) {
        push(
            &mut batch,
            source,
            Op::Write,
            &[Is::Int(*id), Is::Text(place)],
        );
    }
    batch
}

/// Records `[from, to)` of a partition.
pub(crate) fn records(partition: i32, from: i64, to: i64) -> Batch {
    let mut batch = Batch::new(partition, from);
    for offset in from..to {
        batch.push(Record {
            key: Some(format!("key-{offset}").as_bytes()),
            value: Some(format!("value-{offset}").as_bytes()),
            timestamp: 1_700_000_000_000 + offset,
            offset,
            headers: b"",
            marks: 0,
        });
    }
    batch
}

pub(crate) async fn claim(anchor: &PostgresAnchor, partition: i32) -> Claim {
    anchor.claim(&[partition]).await.unwrap().pop().unwrap()
}

/// Commits `[from, to)` with the rows of route 0 and dead letters; nothing is written ahead.
pub(crate) async fn commit(
    anchor: &PostgresAnchor,
    claim: &Claim,
    range: std::ops::Range<i64>,
    rows: &RowBatch,
    dead: &[DeadLetter],
) -> Result<(), CommitError> {
    fly(anchor, claim, range, rows, dead, Ahead::nothing()).await
}

pub(crate) async fn commit_ahead(
    anchor: &PostgresAnchor,
    claim: &Claim,
    range: std::ops::Range<i64>,
    rows: &RowBatch,
    dead: &[DeadLetter],
    ahead: impl Future<Output = Result<(), Error>>,
) -> Result<(), CommitError> {
    fly(anchor, claim, range, rows, dead, Ahead::writes(ahead)).await
}

pub(crate) async fn fly(
    anchor: &PostgresAnchor,
    claim: &Claim,
    range: std::ops::Range<i64>,
    rows: &RowBatch,
    dead: &[DeadLetter],
    ahead: Ahead<'_>,
) -> Result<(), CommitError> {
    let batch = records(claim.partition, range.start, range.end);
    let here = [HereRows { route: 0, rows }];
    // Each record is set aside or emitted; the ledger goes on from the claim's.
    let sources: std::collections::BTreeSet<u32> = dead.iter().map(|dead| dead.source).collect();
    let (all, dead_records) = (batch.len() as u64, sources.len() as u64);
    let settled = claim.ledger.settle(all, all - dead_records, dead_records);
    let flight = Flight {
        claim,
        from: range.start,
        to: range.end,
        reserved: range.end,
        hlc: 7,
        ledger: settled.unwrap(),
        batch: &batch,
        stamps: &[],
        rows: &here,
        dead,
    };
    anchor.commit(flight, ahead).await
}
