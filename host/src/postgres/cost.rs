//! What the anchor's part of a flight costs: the same rows in the same statements, once with position, ledger and epoch
//! in their transaction, once as a tool does it that delivers at least once. `make delivery-cost` runs it under
//! callgrind, strace and the scheduler's clock; nothing of it is in the program.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "what it measures is read there")]

use std::cell::{Cell, RefCell};

use tokio_postgres::Statement;

use super::anchor::PostgresAnchor;
use super::settings::{PostgresRoute, Settings};
use super::transaction;
use super::{TableName, Tables};
use crate::anchor::{Ahead, Anchor as _, Claim, Flight, HereRows, Ledger, Stored};
use crate::config::Secret;
use crate::manifest::{Create, Mode};
use crate::record::{Batch, Column, Op, Record, RowBatch, cells};

/// Flights that keys repeat after: half of what an upsert writes is there already.
const KEYS_REPEAT: i64 = 2;
/// Rounds of [`rounds`]; each has [`IN_A_ROUND`] flights.
const ROUNDS: usize = 9;
const IN_A_ROUND: i64 = 40;

fn setting(name: &str) -> String {
    std::env::var(format!("WASMILL_COST_{name}"))
        .unwrap_or_else(|_| panic!("WASMILL_COST_{name} is set by `make delivery-cost`"))
}

/// A way to bring rows to the database.
trait Way {
    async fn fly(&self, rows: &RowBatch, batch: &Batch);
}

/// As the host does it.
struct ExactlyOnce {
    anchor: PostgresAnchor,
    claim: Claim,
    next: Cell<i64>,
    ledger: Cell<Ledger>,
}

impl Way for ExactlyOnce {
    async fn fly(&self, rows: &RowBatch, batch: &Batch) {
        let records = batch.len() as u64;
        let emitted = rows.len() as u64;
        let from = self.next.get();
        let to = from + i64::try_from(records).unwrap();
        let ledger = self.ledger.get().settle(records, emitted, 0).unwrap();
        let flight = Flight {
            claim: &self.claim,
            from,
            to,
            reserved: 0,
            hlc: 0,
            ledger,
            batch,
            stamps: &[],
            rows: &[HereRows { route: 0, rows }],
            dead: &[],
        };
        self.anchor.commit(flight, Ahead::nothing()).await.unwrap();
        self.next.set(to);
        self.ledger.set(ledger);
    }
}

/// As other tools do it: the rows in a transaction, the position noted afterwards, to be committed to Kafka.
struct AtLeastOnce {
    anchor: PostgresAnchor,
    /// The anchor's statement without the filter that ties it to a flight.
    plain: RefCell<Option<Statement>>,
    noted: Cell<i64>,
}

impl Way for AtLeastOnce {
    async fn fly(&self, rows: &RowBatch, batch: &Batch) {
        let settings = &self.anchor.settings;
        let mut lease = self.anchor.pool.lease(settings).await.unwrap();
        let here = [HereRows { route: 0, rows }];
        let encoded = self.anchor.encode(&mut lease, &here, batch).await.unwrap();
        if self.plain.borrow().is_none() {
            let statement = lease.client.prepare(&plain(&self.anchor)).await.unwrap();
            self.plain.replace(Some(statement));
        }
        let plain = self.plain.borrow().clone().unwrap();
        let mut requests = Vec::new();
        for rows in &encoded {
            rows.requests(&lease, "", &mut requests);
        }
        for request in &mut requests {
            request.statement = &plain;
            request.params.pop();
        }
        let statement = settings.timeouts.statement;
        let (_, committed) = transaction::commit(&lease.client, "BEGIN", requests, statement).await;
        committed.unwrap();
        for rows in encoded {
            let mut spare = self.anchor.spare.borrow_mut();
            spare.give(rows.params.into_buffers());
        }
        lease.release();
        self.noted
            .set(self.noted.get() + i64::try_from(batch.len()).unwrap());
    }
}

fn plain(anchor: &PostgresAnchor) -> String {
    let write = &anchor.plans[0].write;
    let filter = write.find(" WHERE ").unwrap();
    let after = filter + write[filter..].find("::text").unwrap() + "::text".len();
    format!("{}{}", &write[..filter], &write[after..])
}

fn route(table: &str) -> PostgresRoute {
    let columns = [
        ("id", "text"),
        ("departure", "timestamp"),
        ("origin", "text"),
        ("destination", "text"),
        ("delay", "int32"),
        ("distance", "int32"),
    ];
    let upsert = setting("TABLE") == "upsert";
    PostgresRoute {
        index: 0,
        name: "flights".to_owned(),
        columns: columns
            .iter()
            .map(|(name, ty)| Column {
                name: (*name).to_owned(),
                ty: ty.parse().unwrap(),
                nullable: false,
            })
            .collect(),
        table: TableName::parse(table).unwrap(),
        mode: if upsert { Mode::Upsert } else { Mode::Append },
        key: if upsert { vec![0] } else { Vec::new() },
        guard: None,
        deleted_at: None,
        create: Create::IfMissing,
    }
}

/// An anchor on a table of its own.
async fn anchor(name: &str) -> PostgresAnchor {
    let table = format!("cost_{}_{name}", std::process::id());
    let mut settings = Settings::new(Secret::new(setting("URL")), name, "flights");
    settings.pipeline = table.clone();
    settings.routes = vec![route(&table)];
    settings.connections = 1;
    Tables::default().ensure(&settings).await.unwrap();
    let anchor = PostgresAnchor::new(settings).unwrap();
    // The server is thrown away; its own workers must not be counted.
    let lease = anchor.pool.lease(&anchor.settings).await.unwrap();
    for quiet in [
        "ALTER SYSTEM SET autovacuum = off",
        "SELECT pg_catalog.pg_reload_conf()",
    ] {
        lease.client.batch_execute(quiet).await.unwrap();
    }
    lease.release();
    anchor
}

async fn exactly_once() -> ExactlyOnce {
    let anchor = anchor("anchor").await;
    let start = Stored {
        partition: 0,
        next: 0,
        cuts: Vec::new(),
        topic_id: None,
    };
    anchor.seed(&[start]).await.unwrap();
    ExactlyOnce {
        claim: anchor.claim(&[0]).await.unwrap().remove(0),
        anchor,
        next: Cell::new(0),
        ledger: Cell::default(),
    }
}

async fn at_least_once() -> AtLeastOnce {
    AtLeastOnce {
        anchor: anchor("rows").await,
        plain: RefCell::default(),
        noted: Cell::new(0),
    }
}

/// The records of a flight, and the row of each.
fn made(flight: i64, rows: i64) -> (RowBatch, Batch) {
    let mut made = RowBatch::default();
    let mut batch = Batch::new(0, flight * rows);
    for n in 0..rows {
        let offset = flight * rows + n;
        let id = format!("F{:09}", flight / KEYS_REPEAT * rows + n);
        let value = br#"{"date":"2001/01/01 00:47","delay":66,"distance":1750}"#;
        batch.push(Record {
            key: Some(id.as_bytes()),
            value: Some(value),
            timestamp: 1_700_000_000_000,
            offset,
            headers: b"",
            marks: 0,
        });
        let out = made.cells_mut();
        cells::put(out, id.as_bytes());
        cells::put(out, &(978_307_200_000_000 + offset).to_be_bytes());
        cells::put(out, b"DTW");
        cells::put(out, b"LAS");
        cells::put(out, &66_i32.to_be_bytes());
        cells::put(out, &1750_i32.to_be_bytes());
        made.finish_row(u32::try_from(n).unwrap(), Op::Write);
    }
    (made, batch)
}

async fn fly(way: &impl Way, flights: std::ops::Range<i64>, rows: i64) {
    for flight in flights {
        let (rows, batch) = made(flight, rows);
        way.fly(&rows, &batch).await;
    }
}

/// Nanoseconds that a process was on a CPU.
fn on_cpu(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

async fn backend(anchor: &PostgresAnchor) -> String {
    let lease = anchor.pool.lease(&anchor.settings).await.unwrap();
    let pid: i32 = lease
        .client
        .query_one("SELECT pg_catalog.pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    lease.release();
    pid.to_string()
}

/// CPU of the database's process for each way, interleaved, the least of all rounds, nanoseconds a row.
async fn rounds(rows: i64) {
    let (exact, least) = (exactly_once().await, at_least_once().await);
    let backends = [backend(&exact.anchor).await, backend(&least.anchor).await];
    let mut fewest = [u64::MAX; 2];
    for round in 0..i64::try_from(ROUNDS).unwrap() {
        let flights = round * IN_A_ROUND..(round + 1) * IN_A_ROUND;
        for way in 0..2 {
            let before = on_cpu(&backends[way]);
            match way {
                0 => fly(&exact, flights.clone(), rows).await,
                _ => fly(&least, flights.clone(), rows).await,
            }
            fewest[way] = fewest[way].min(on_cpu(&backends[way]) - before);
        }
    }
    let each = u64::try_from(rows * IN_A_ROUND).unwrap();
    println!("backend-ns {} {}", fewest[0] / each, fewest[1] / each);
}

#[test]
#[ignore = "`make delivery-cost` runs it, with a server"]
fn cost() {
    let rows = setting("ROWS").parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let flights = || 0..setting("FLIGHTS").parse().unwrap();
        match setting("WAY").as_str() {
            "exactly-once" => fly(&exactly_once().await, flights(), rows).await,
            "at-least-once" => fly(&at_least_once().await, flights(), rows).await,
            _ => rounds(rows).await,
        }
    });
}
