//! Looks at Postgres ten times a second, each time in one transaction that sees one state, and has the checker compare
//! it. It outlives the server's restarts; it writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Config, NoTls, Statement};
use wasmill_tests::checker::{Kind, Last, Letter, Live, Position, Row, Snapshot};

use super::view::Shared;
use super::{LATEST, LOG, PIPELINE};

/// How often a snapshot is taken.
const BEAT: Duration = Duration::from_millis(100);
/// How often the whole table is counted.
const COUNT: Duration = Duration::from_secs(10);
/// How long a query may take while the server is frozen before the connection is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Faults after which no more are told at once.
const TOLD: u64 = 20;

type Failed = tokio_postgres::Error;

/// A connection with what it has prepared.
pub(crate) struct Eye {
    client: Client,
    positions: Statement,
    rows: Statement,
    letters: Statement,
    latest: Statement,
}

/// Which rows of the log: all from an offset of each partition on, up to another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Span {
    partitions: Vec<i32>,
    from: Vec<i64>,
    to: Vec<i64>,
}

impl Span {
    /// From these offsets on, without end.
    pub(crate) fn from(checked: &BTreeMap<i32, i64>) -> Self {
        Self {
            partitions: checked.keys().copied().collect(),
            from: checked.values().copied().collect(),
            to: vec![i64::MAX; checked.len()],
        }
    }

    /// A piece of each partition.
    pub(crate) fn between(from: &BTreeMap<i32, i64>, to: &BTreeMap<i32, i64>) -> Self {
        Self {
            to: to.values().copied().collect(),
            ..Self::from(from)
        }
    }
}

impl Eye {
    pub(crate) async fn open(url: &str) -> Result<Self, Failed> {
        let mut config: Config = url.parse()?;
        config.application_name("chaos-eye");
        config.connect_timeout(Duration::from_secs(2));
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            connection.await.ok();
        });
        let span = "FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS s (part, low, high) CROSS JOIN LATERAL";
        let rows = format!(
            "SELECT l.number, l.partition, l.\"offset\", l.index, l.version, l.id, l.seq {span} \
             (SELECT * FROM {LOG} AS l WHERE l.partition = s.part AND l.\"offset\" >= s.low AND l.\"offset\" < s.high \
              ORDER BY l.\"offset\") AS l"
        );
        let letters = format!(
            "SELECT l.partition, l.\"offset\", l.code {span} \
             (SELECT * FROM wasmill.dead_letter AS l WHERE l.pipeline = '{PIPELINE}' AND l.partition = s.part \
              AND l.\"offset\" >= s.low AND l.\"offset\" < s.high ORDER BY l.\"offset\") AS l"
        );
        let positions = format!(
            "SELECT partition, next, records, emitted, filtered, dead FROM wasmill.position \
             WHERE pipeline = '{PIPELINE}'"
        );
        let latest = format!(
            "SELECT id, seq, partition, \"offset\", version FROM {LATEST} WHERE id = ANY($1::text[])"
        );
        Ok(Self {
            positions: client.prepare(&positions).await?,
            rows: client.prepare(&rows).await?,
            letters: client.prepare(&letters).await?,
            latest: client.prepare(&latest).await?,
            client,
        })
    }

    /// One consistent look, from what `live` has checked on. `ledgers` of positions are part of it.
    async fn look(&self, live: &Live) -> Result<Snapshot, Failed> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.client.batch_execute(begin).await?;
        let positions = self.positions().await?;
        let (rows, letters) = self.span(&Span::from(&live.checked())).await?;
        let touched: Vec<String> = live.touched(&positions).into_iter().collect();
        let latest = self.client.query(&self.latest, &[&touched]).await?;
        self.client.batch_execute("COMMIT").await?;
        let latest = latest.iter().map(last).collect();
        Ok(Snapshot {
            positions,
            rows,
            letters,
            latest: Some(latest),
        })
    }

    /// Stored positions.
    pub(crate) async fn positions(&self) -> Result<Vec<Position>, Failed> {
        let rows = self.client.query(&self.positions, &[]).await?;
        let position = |row: &tokio_postgres::Row| Position {
            partition: row.get(0),
            next: row.get(1),
            ledger: Some([row.get(2), row.get(3), row.get(4), row.get(5)]),
        };
        Ok(rows.iter().map(position).collect())
    }

    /// Rows and dead letters of a span.
    pub(crate) async fn span(&self, span: &Span) -> Result<(Vec<Row>, Vec<Letter>), Failed> {
        let Span {
            partitions,
            from,
            to,
        } = span;
        let rows = self
            .client
            .query(&self.rows, &[partitions, from, to])
            .await?;
        let rows = rows.iter().map(|row| Row {
            number: row.get(0),
            partition: row.get(1),
            offset: row.get(2),
            index: row.get(3),
            version: row.get(4),
            id: row.get(5),
            seq: row.get(6),
        });
        let letters = self
            .client
            .query(&self.letters, &[partitions, from, to])
            .await?;
        let letters = letters.iter().map(|row| Letter {
            partition: row.get(0),
            offset: row.get(1),
            code: row.get(2),
        });
        Ok((rows.collect(), letters.collect()))
    }

    /// All rows of the upserted table.
    pub(crate) async fn latest(&self) -> Result<Vec<(String, Last)>, Failed> {
        let sql = format!("SELECT id, seq, partition, \"offset\", version FROM {LATEST}");
        Ok(self
            .client
            .query(&sql, &[])
            .await?
            .iter()
            .map(last)
            .collect())
    }

    /// A number that a query returns.
    pub(crate) async fn number(&self, sql: &str) -> Result<i64, Failed> {
        Ok(self.client.query_one(sql, &[]).await?.get(0))
    }
}

fn last(row: &tokio_postgres::Row) -> (String, Last) {
    let last = Last {
        seq: row.get(1),
        partition: row.get(2),
        offset: row.get(3),
        version: row.get(4),
    };
    (row.get(0), last)
}

/// Looks until told to stop; what it found is in the view, what it knows is returned.
pub(crate) async fn watch(
    url: String,
    mut live: Live,
    view: Shared,
    stop: Arc<AtomicBool>,
) -> Live {
    let mut eye: Option<Eye> = None;
    let mut counted = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let looked = tokio::time::timeout(PATIENCE, async {
            let open = match eye.take() {
                Some(open) => open,
                None => Eye::open(&url).await?,
            };
            let snapshot = open.look(&live).await?;
            let sql =
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'wasmill%'";
            let sessions = open.number(sql).await?;
            Ok::<_, Failed>((open, snapshot, sessions))
        });
        match looked.await {
            Ok(Ok((open, snapshot, sessions))) => {
                compare(&mut live, &snapshot, sessions, &view);
                view.lock().taken = Some(begun);
                if counted.elapsed() > COUNT {
                    counted = Instant::now();
                    count(&open, &live, &view).await.ok();
                }
                eye = Some(open);
            }
            Ok(Err(_)) | Err(_) => view.lock().missed += 1,
        }
        tokio::time::sleep(BEAT.saturating_sub(begun.elapsed())).await;
    }
    live
}

fn compare(live: &mut Live, snapshot: &Snapshot, sessions: i64, view: &Shared) {
    let before = live.checked();
    let faults = live.check(snapshot);
    let now = live.checked();
    let mut seen = view.lock();
    seen.snapshots += 1;
    seen.inconsistent += u64::from(faults.total() > 0);
    if seen.faults.total() < TOLD {
        for fault in faults.told() {
            eprintln!("chaos run: BROKEN {}: {}", fault.kind.word(), fault.text);
        }
    }
    seen.faults.extend(faults);
    if now != before {
        seen.moved = Some(Instant::now());
    }
    let version = |partition: &i32| Some((*partition, live.version(*partition)?.to_owned()));
    seen.versions = now.keys().filter_map(version).collect();
    seen.next = now;
    seen.dead = live.dead().clone();
    seen.sessions = seen.sessions.max(sessions);
}

/// The whole table below the checked offsets: a row that came late into a checked part makes one too many.
async fn count(eye: &Eye, live: &Live, view: &Shared) -> Result<(), Failed> {
    let below: Vec<String> = live
        .checked()
        .iter()
        .map(|(partition, next)| format!("(partition = {partition} AND \"offset\" < {next})"))
        .collect();
    let sql = format!("SELECT count(*) FROM {LOG} WHERE {}", below.join(" OR "));
    let (seen, wanted) = (eye.number(&sql).await?, live.rows());
    let mut view = view.lock();
    view.counts += 1;
    if seen > wanted {
        let text = format!("{seen} rows below the checked offsets instead of {wanted}");
        view.faults.add(Kind::Doubled, text);
    } else if seen < wanted {
        let text = format!("{seen} rows below the checked offsets instead of {wanted}");
        view.faults.add(Kind::Lost, text);
    }
    Ok(())
}
