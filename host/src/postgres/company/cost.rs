//! What sharing transactions saves: eight lanes of one shard append to one table, once with company and once without, in
//! rounds that take turns.
//! `cargo test --release -p wasmill --lib postgres::company::cost -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "what it measures is read there")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use wasmill_local::{Postgres, PostgresOptions};

use super::super::anchor::PostgresAnchor;
use super::super::settings::{PostgresRoute, Settings};
use super::super::{TableName, Tables};
use crate::anchor::{Ahead, Anchor as _, Claim, Flight, HereRows, Stored};
use crate::config::Secret;
use crate::manifest::{Create, Mode};
use crate::record::{Batch, Column, Op, Record, RowBatch, cells};

const LANES: i32 = 8;
const ROUNDS: usize = 5;

fn column(name: &str, ty: &str) -> Column {
    Column {
        name: name.to_owned(),
        ty: ty.parse().unwrap(),
        nullable: false,
    }
}

async fn anchor(url: &str, name: &str, connections: usize) -> PostgresAnchor {
    let mut settings = Settings::new(Secret::new(url.to_owned()), name, "t");
    settings.connections = connections;
    settings.routes = vec![PostgresRoute {
        index: 0,
        name: name.to_owned(),
        columns: vec![column("id", "int64"), column("place", "text")],
        table: TableName::parse(&format!("cost.{name}")).unwrap(),
        mode: Mode::Append,
        key: Vec::new(),
        guard: None,
        deleted_at: None,
        create: Create::IfMissing,
    }];
    Tables::default().ensure(&settings).await.unwrap();
    let anchor = PostgresAnchor::new(settings).unwrap();
    let seeds = (0..LANES).map(|partition| Stored {
        partition,
        next: 0,
        cuts: Vec::new(),
        topic_id: None,
    });
    anchor.seed(&seeds.collect::<Vec<_>>()).await.unwrap();
    anchor
}

/// Flights of one lane, from where it stands.
async fn lane(anchor: &PostgresAnchor, claim: &mut Claim, flights: i64, size: i64) {
    for _ in 0..flights {
        let (from, to) = (claim.next, claim.next + size);
        let (mut rows, mut batch) = (RowBatch::default(), Batch::new(claim.partition, from));
        for (source, offset) in (0..).zip(from..to) {
            batch.push(Record {
                key: None,
                value: Some(b"value"),
                timestamp: 1_700_000_000_000,
                offset,
                headers: b"",
                marks: 0,
            });
            cells::put(rows.cells_mut(), &offset.to_be_bytes());
            cells::put(rows.cells_mut(), b"20 km north of somewhere");
            rows.finish_row(source, Op::Write);
        }
        let records = u64::try_from(size).unwrap();
        let ledger = claim.ledger.settle(records, records, 0).unwrap();
        let flight = Flight {
            claim,
            from,
            to,
            reserved: to,
            hlc: 0,
            ledger,
            batch: &batch,
            stamps: &[],
            rows: &[HereRows {
                route: 0,
                rows: &rows,
            }],
            dead: &[],
        };
        anchor.commit(flight, Ahead::nothing()).await.unwrap();
        (claim.next, claim.ledger) = (to, ledger);
    }
}

/// Time on a CPU of the server's processes for an anchor.
async fn on_cpu(sql: &tokio_postgres::Client, name: &str) -> Duration {
    let pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'wasmill/' || $1";
    let pids = sql.query(pids, &[&name]).await.unwrap();
    let nanos = pids.iter().map(|row| {
        let path = format!("/proc/{}/schedstat", row.get::<_, i32>(0));
        let text = std::fs::read_to_string(path).unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(nanos.sum())
}

async fn transactions(sql: &tokio_postgres::Client, name: &str) -> i64 {
    let count = format!("SELECT count(DISTINCT xmin::text) FROM cost.{name}");
    sql.query_one(&count, &[]).await.unwrap().get(0)
}

#[tokio::test]
#[ignore = "measures: it needs a quiet machine and --release to mean anything"]
async fn eight_lanes_with_company_and_without() {
    let options = PostgresOptions {
        durable: true,
        ..PostgresOptions::default()
    };
    let server = Postgres::start(&options).unwrap();
    let url = server.socket_url();
    let (sql, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    let _driver = crate::task::drive(async move { connection.await.unwrap_or(()) });
    println!("| rows a flight, connections | way | commits | rows/s | server CPU ns a row |");
    println!("|---|---|---|---|---|");
    for (size, flights) in [(1_i64, 100_i64), (20, 100), (200, 60), (1000, 20)] {
        for connections in [1, 2] {
            let mut least = [Duration::MAX; 2];
            let mut fastest = [Duration::MAX; 2];
            let names = ["alone", "company"].map(|way| format!("{way}_{size}_{connections}"));
            let mut ways = Vec::new();
            for name in &names {
                let anchor = anchor(&url, name, connections).await;
                let claims = anchor.claim(&[0, 1, 2, 3, 4, 5, 6, 7]).await.unwrap();
                ways.push((anchor, claims));
            }
            ways[0].0.shares = false;
            for round in 0..=ROUNDS {
                for (way, (anchor, claims)) in ways.iter_mut().enumerate() {
                    let before = on_cpu(&sql, &names[way]).await;
                    let start = Instant::now();
                    let lanes = claims.iter_mut();
                    join_all(lanes.map(|claim| lane(anchor, claim, flights, size))).await;
                    // The first one opens connections.
                    if round > 0 {
                        fastest[way] = fastest[way].min(start.elapsed());
                        let spent = on_cpu(&sql, &names[way]).await - before;
                        least[way] = least[way].min(spent);
                    }
                }
            }
            let rows = flights * i64::from(LANES) * size;
            let mut commits = [0; 2];
            for (way, name) in names.iter().enumerate() {
                commits[way] = transactions(&sql, name).await;
                println!(
                    "| {size}, {connections} | {name} | {} | {:.0} | {} |",
                    commits[way],
                    rows as f64 / fastest[way].as_secs_f64(),
                    least[way].as_nanos() / rows.unsigned_abs() as u128
                );
                let stored = ways[way].0.stored().await.unwrap();
                let end = flights * size * (ROUNDS as i64 + 1);
                assert!(stored.iter().all(|stored| stored.next == end));
            }
            assert!(commits[1] < commits[0], "{commits:?}");
        }
    }
}
