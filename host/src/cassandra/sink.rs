//! [`CassandraSink`]: the rows of one route, written ahead of the anchor's commit.
//!
//! It owns the route's prepared statements and the number of requests in flight. It never decides what a
//! refusal means for a record: every refusal is an operator's matter (delivery rule 2). Repeating a write is
//! harmless: its time is a function of the record, so the newest row wins whatever arrives when.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use scylla::frame::response::result::{ColumnType, NativeType};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::group::group;
use super::schema::RouteTable;
use super::session::CassandraSession;
use super::statement::{Bound, Plan};
use super::{failure, retry};
use crate::error::{Blame, Error, Result};
use crate::record::{Op, Type};
use crate::sink::{AheadRows, AheadSink};

/// Requests in flight a sink: below 64 the connection idles, at 1024 it is slower than at 128 (measured).
const IN_FLIGHT: usize = 128;

/// Writes the rows of one route. Opened once a shard, on the shard's runtime.
pub struct CassandraSink {
    session: CassandraSession,
    what: String,
    plan: Plan,
    insert: PreparedStatement,
    delete: PreparedStatement,
    /// Unlogged batches of that many writes, made once: cloning a statement for each row of each batch would
    /// cost more than writing its cells.
    batches: RefCell<HashMap<usize, Rc<Batch>>>,
}

impl fmt::Debug for CassandraSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CassandraSink")
            .field("what", &self.what)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl CassandraSink {
    /// Prepares the route's statements; the table has been made or checked before
    /// ([`super::ensure_table`]).
    ///
    /// # Errors
    /// `Config` when the server refuses the statements (no such table, no permission), `Outside` when it does
    /// not answer within the session's budget.
    pub async fn open(session: &CassandraSession, table: &RouteTable) -> Result<Self> {
        let insert = session
            .prepare(&Plan::insert(table), table.consistency)
            .await?;
        let delete = session
            .prepare(&Plan::delete(table), table.consistency)
            .await?;
        let mut plan = Plan::new(table);
        for (index, (column, live)) in table
            .columns
            .iter()
            .zip(insert.get_variable_col_specs().iter())
            .enumerate()
        {
            let timeuuid = matches!(live.typ(), ColumnType::Native(NativeType::Timeuuid));
            if timeuuid && column.ty == Type::Uuid {
                plan.is_timeuuid(index);
            }
        }
        Ok(Self {
            session: session.clone(),
            what: format!(
                "write route {:?} to cassandra table {}",
                table.route, table.name
            ),
            plan,
            insert,
            delete,
            batches: RefCell::default(),
        })
    }

    async fn write_all(&self, rows: AheadRows<'_>) -> Result<()> {
        let mut keys = Vec::new();
        let mut bound = Vec::with_capacity(rows.rows.len());
        for row in rows.rows.iter() {
            let stamp = rows.stamps.get(row.source as usize).ok_or_else(|| {
                Error::bug(
                    &self.what,
                    format!("record {} of the batch has no stamp", row.source),
                )
            })?;
            let start = keys.len();
            let row = self
                .plan
                .bind(row, *stamp, rows.now, &mut keys)
                .map_err(|error| {
                    Error::config(
                        &self.what,
                        format!("record {} of the batch: {error}", row.source),
                    )
                    .hint("the host's own check should have set this record aside: report this")
                })?;
            bound.push((start..keys.len(), row));
        }
        let items = bound.into_iter();
        let groups = group(items.map(|(key, row)| (&keys[key], row.bytes(), row)));
        let deadline = self.session.deadline();
        // the first refusal ends the stream; what is on the wire then is stamped and harmless
        stream::iter(groups)
            .map(|group| self.send(group, deadline))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await
    }

    async fn send(&self, rows: Vec<Bound<'_>>, deadline: Instant) -> Result<()> {
        let sent = match rows.as_slice() {
            [row] => self.send_one(row, deadline).await,
            rows => self.send_batch(rows, deadline).await,
        };
        match sent {
            Err(error) if error.blame() != Blame::Outside && rows.len() > 1 => {
                // one row at a time names the one that is refused
                for row in &rows {
                    self.send_one(row, deadline).await?;
                }
                Err(named(
                    &error,
                    &format!("{} records from {}", rows.len(), rows[0].source),
                ))
            }
            sent => sent,
        }
    }

    async fn send_one(&self, row: &Bound<'_>, deadline: Instant) -> Result<()> {
        let statement = self.statement(row.op);
        retry::until(self.session.presence(), deadline, async || {
            let sent = self.session.driver().execute_unpaged(statement, row).await;
            sent.map(drop).map_err(|error| {
                let error = failure::explain(&self.what, &error);
                named(&error, &format!("record {}", row.source))
            })
        })
        .await
    }

    async fn send_batch(&self, rows: &[Bound<'_>], deadline: Instant) -> Result<()> {
        let batch = self.batch(rows);
        retry::until(self.session.presence(), deadline, async || {
            let sent = self.session.driver().batch(&batch, rows).await;
            sent.map(drop)
                .map_err(|error| failure::explain(&self.what, &error))
        })
        .await
    }

    fn statement(&self, op: Op) -> &PreparedStatement {
        match op {
            Op::Write => &self.insert,
            Op::Delete => &self.delete,
        }
    }

    /// The statements for these rows, in their order.
    fn batch(&self, rows: &[Bound<'_>]) -> Rc<Batch> {
        let make = || {
            let mut batch = Batch::new(BatchType::Unlogged);
            for row in rows {
                batch.append_statement(self.statement(row.op).clone());
            }
            batch.set_is_idempotent(true);
            if let Some(consistency) = self.insert.get_consistency() {
                batch.set_consistency(consistency);
            }
            Rc::new(batch)
        };
        if rows.iter().any(|row| row.op == Op::Delete) {
            return make();
        }
        let mut batches = self.batches.borrow_mut();
        Rc::clone(batches.entry(rows.len()).or_insert_with(make))
    }
}

impl AheadSink for CassandraSink {
    fn write<'a>(&'a self, rows: AheadRows<'a>) -> LocalBoxFuture<'a, Result<()>> {
        self.write_all(rows).boxed_local()
    }
}

/// The error with the records it is about.
fn named(error: &Error, records: &str) -> Error {
    let detail = format!("{records} of the batch: {}", error.detail());
    let named = Error::new(error.blame(), error.what(), detail).with_retry(error.retry());
    match error.hint_text() {
        Some(hint) => named.hint(hint),
        None => named,
    }
}
