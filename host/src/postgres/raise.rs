//! Write times lifted to the greatest of all partitions, for a topic that gained some: [`PostgresAnchor::raise`].

use uuid::Uuid;

use crate::anchor::Stored;
use crate::error::Result;

use super::anchor::PostgresAnchor;
use super::positions::{DURABLE, within};

const LOCK: &str = "SELECT partition FROM wasmill.position WHERE pipeline = $1::text AND topic = $2::text \
     ORDER BY partition FOR UPDATE";

/// Under a new claim that nobody goes on with: a lane that runs holds a lower time, and has to claim anew.
const LIFT: &str = "UPDATE wasmill.position AS held SET hlc = greatest_of.hlc, epoch = held.epoch + 1, \
     claim_id = $3::uuid, updated_at = pg_catalog.now() \
     FROM (SELECT max(hlc) AS hlc FROM wasmill.position WHERE pipeline = $1::text AND topic = $2::text) AS greatest_of \
     WHERE held.pipeline = $1::text AND held.topic = $2::text RETURNING held.hlc";

impl PostgresAnchor {
    /// Stores positions of partitions that have none and lifts the last write time of every partition to the greatest,
    /// in one step. Whoever runs the pipeline meanwhile is fenced, and goes on after its next claim. Returns that time,
    /// microseconds.
    ///
    /// # Errors
    /// `Outside` when the server is away or a position is held for longer than a claim waits; nothing changed then.
    pub async fn raise(&self, added: &[Stored]) -> Result<i64> {
        const WHAT: &str = "raise write times in postgres";
        let limit = self.settings.timeouts.claim;
        let millis = limit.as_millis();
        let lease = self.pool.lease(&self.settings).await?;
        let client = &lease.client;
        let begin = format!("BEGIN; SET LOCAL lock_timeout = {millis}; {DURABLE}");
        within(WHAT, limit, client.batch_execute(&begin)).await?;
        let (pipeline, topic) = (&self.settings.pipeline, &self.settings.topic);
        within(WHAT, limit, client.execute(LOCK, &[pipeline, topic])).await?;
        self.seed_rows(client, added).await?;
        let claim = Uuid::new_v4();
        let lifted = within(WHAT, limit, client.query(LIFT, &[pipeline, topic, &claim])).await?;
        within(WHAT, limit, client.batch_execute("COMMIT")).await?;
        lease.release();
        Ok(lifted.first().map_or(0, |row| row.get(0)))
    }
}
