//! What the table of the swapped pipeline shows, and waiting for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, Statement};

use super::{PARTITIONS, PIPELINE};
use crate::host::Host;
use crate::stage::Stage;
use crate::versioned;

/// How long nothing may move before a run is given up.
const STALL: Duration = Duration::from_secs(120);

/// How often the table is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Looks at the table through one connection.
pub(super) struct Eye {
    client: Client,
    seen: Statement,
    position: Statement,
    behind: Arc<AtomicI64>,
}

impl Eye {
    pub(super) async fn open(stage: &Stage, behind: Arc<AtomicI64>) -> Self {
        let (client, connection) = tokio_postgres::connect(&stage.postgres.url(), NoTls)
            .await
            .unwrap();
        tokio::spawn(async move {
            connection.await.ok();
        });
        let seen = format!(
            "SELECT count(*) FROM generate_series(0, {}) AS p WHERE EXISTS \
             (SELECT 1 FROM {} AS t WHERE t.version = $1 AND t.partition = p)",
            PARTITIONS - 1,
            versioned::TABLE
        );
        let seen = client.prepare(&seen).await.unwrap();
        let position = format!(
            "SELECT coalesce(sum(next), 0)::int8 FROM wasmill.position WHERE pipeline = '{PIPELINE}'"
        );
        // The table is the host's: it may come later.
        let start = Instant::now();
        let position = loop {
            match client.prepare(&position).await {
                Ok(statement) => break statement,
                Err(error) => assert!(start.elapsed() < STALL, "{error}"),
            }
            tokio::time::sleep(LOOK).await;
        };
        Self {
            client,
            seen,
            position,
            behind,
        }
    }

    /// Records behind the positions.
    pub(super) async fn position(&self) -> i64 {
        let at: i64 = self
            .client
            .query_one(&self.position, &[])
            .await
            .unwrap()
            .get(0);
        self.behind.store(at, Ordering::Relaxed);
        at
    }

    /// Partitions that show a row of the version.
    async fn partitions_of(&self, version: &str) -> i64 {
        self.client
            .query_one(&self.seen, &[&version])
            .await
            .unwrap()
            .get(0)
    }

    /// Highest offset of a version, by partition; −1 where it has none.
    pub(super) async fn reached(&self, version: &str) -> BTreeMap<i32, i64> {
        let sql = format!(
            "SELECT p, (SELECT coalesce(max(\"offset\"), -1) FROM {} AS t WHERE t.version = $1 AND t.partition = p) \
             FROM generate_series(0, {}) AS p",
            versioned::TABLE,
            PARTITIONS - 1
        );
        let rows = self.client.query(&sql, &[&version]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Waits until every partition shows a row of the version beyond `after`.
    pub(super) async fn effective(
        &self,
        host: &mut Host,
        version: &str,
        after: &BTreeMap<i32, i64>,
    ) {
        let start = Instant::now();
        let fresh = after.values().all(|offset| *offset < 0);
        loop {
            let all = if fresh {
                self.partitions_of(version).await == i64::from(PARTITIONS)
            } else {
                let now = self.reached(version).await;
                now.iter()
                    .all(|(partition, offset)| *offset > after[partition])
            };
            if all {
                return;
            }
            let at = self.position().await;
            host.alive().unwrap_or_else(|ended| panic!("{ended}"));
            assert!(
                start.elapsed() < STALL,
                "{version} is not seen in every partition; positions add up to {at}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the positions add up to `wanted`.
    pub(super) async fn passes(&self, host: &mut Host, wanted: i64) {
        let (mut last, mut moved) = (-1, Instant::now());
        loop {
            let at = self.position().await;
            if at >= wanted {
                return;
            }
            host.alive().unwrap_or_else(|ended| panic!("{ended}"));
            if at != last {
                (last, moved) = (at, Instant::now());
            }
            assert!(
                moved.elapsed() < STALL,
                "nothing moved for {STALL:?} at {at}, {wanted} wanted"
            );
            tokio::time::sleep(LOOK).await;
        }
    }
}
