//! Flights of a lane: which rows of a processed batch go into one commit, and with which write times.
//!
//! [`FlightBuilder`] cuts a range of records out of a [`Processed`] batch, merges its rows per key and stamps
//! its records. The range is the whole batch unless the database refused something in it.

use std::ops::Range;

use futures_util::TryFutureExt as _;

use super::counters::Totals;
use super::plan::{Binding, Plan};
use super::process::Processed;
use crate::anchor::HereRows;
use crate::clock::now_micros;
use crate::error::Error;
use crate::record::{Batch, RowBatch};
use crate::route::{DeadClass, DeadLetter, code};
use crate::sink::{AheadRows, AheadSink, Merger};

/// Record times past the year 9999 (milliseconds) count as none: microseconds must not overflow.
const LAST_MILLIS: i64 = 253_402_300_799_999;
/// How far ahead of the host's clock a record's time may lie: an hour.
const AHEAD_MILLIS: i64 = 3_600_000;

/// How the rows of one route are prepared.
#[derive(Debug)]
struct RouteShape {
    /// `None`: rows are appended as they are.
    merger: Option<Merger>,
    binding: Binding,
    /// Whose fault it is when a row of it cannot be written ahead.
    server: Option<String>,
}

/// Cuts, merges and stamps.
#[derive(Debug)]
pub(super) struct FlightBuilder {
    shapes: Vec<RouteShape>,
    /// Rows of the current flight by route index.
    pub(super) rows: Vec<RowBatch>,
    /// Dead letters of the current flight.
    pub(super) dead: Vec<DeadLetter>,
    /// Write time of each record of the batch by index.
    pub(super) stamps: Vec<i64>,
}

impl FlightBuilder {
    pub(super) fn new(plan: &Plan) -> Self {
        let shapes: Vec<_> = plan
            .routes
            .iter()
            .map(|route| RouteShape {
                merger: route
                    .merges()
                    .then(|| Merger::new(&route.key(), &route.route.columns, route.guard())),
                binding: route.binding.clone(),
                server: route.server(),
            })
            .collect();
        Self {
            rows: vec![RowBatch::default(); shapes.len()],
            shapes,
            dead: Vec::new(),
            stamps: Vec::new(),
        }
    }

    /// Without routes, for tests.
    #[cfg(test)]
    pub(super) fn empty() -> Self {
        Self {
            shapes: Vec::new(),
            rows: Vec::new(),
            dead: Vec::new(),
            stamps: Vec::new(),
        }
    }

    /// The rows of the flight for the anchor's own database, by route.
    pub(super) fn here(&self) -> Vec<HereRows<'_>> {
        let routes = self.shapes.iter().zip(&self.rows).enumerate();
        routes
            .filter(|(_, (shape, rows))| shape.binding == Binding::Here && !rows.is_empty())
            .map(|(route, (_, rows))| HereRows { route, rows })
            .collect()
    }

    /// Writes the rows of the flight for other databases: to every such sink, concurrently, acknowledged. An error says
    /// which server failed.
    pub(super) async fn send(
        &self,
        sinks: &[Option<Box<dyn AheadSink>>],
        batch: &Batch,
    ) -> Result<(), Error> {
        let now = now_micros();
        let routes = sinks.iter().zip(&self.shapes).zip(&self.rows);
        let writes = routes.filter_map(|((sink, shape), rows)| {
            let sink = sink.as_ref().filter(|_| !rows.is_empty())?;
            let written = sink.write(AheadRows {
                rows,
                batch,
                stamps: &self.stamps,
                now,
            });
            Some(written.map_err(|error| match &shape.server {
                Some(server) => error.on(server),
                None => error,
            }))
        });
        futures_util::future::try_join_all(writes).await.map(drop)
    }

    /// Gives every record of a batch its write time, chained from the last one given.
    ///
    /// `ts(o) = max(ts(o−1) + 2, record time)`: never backwards in a partition, the same at every replay,
    /// close to the record's own time. Always even: sinks add one for a write. A record
    /// set aside for lying ahead of the clock only counts.
    pub(super) fn stamp(&mut self, batch: &Batch, hlc: i64, ahead: impl Fn(usize) -> bool) {
        self.stamps.clear();
        let mut last = hlc & !1;
        for (index, millis) in batch.timestamps().iter().enumerate() {
            let own = if !(0..=LAST_MILLIS).contains(millis) || ahead(index) {
                0
            } else {
                (millis * 1000) & !1
            };
            last = own.max(last + 2);
            self.stamps.push(last);
        }
    }

    /// The last write time given to a record below `end`.
    pub(super) fn hlc(&self, end: usize, before: i64) -> i64 {
        if end == 0 {
            before
        } else {
            self.stamps[end - 1]
        }
    }

    /// Prepares the records `range` of a processed batch; returns what they count for.
    ///
    /// # Errors
    /// `Bug` when a record counts twice: nothing may be committed of it.
    pub(super) fn build(
        &mut self,
        processed: &Processed,
        range: &Range<usize>,
    ) -> Result<Totals, Error> {
        self.dead.clear();
        let in_range = |dead: &&DeadLetter| range.contains(&(dead.source as usize));
        self.dead
            .extend(processed.dead.iter().filter(in_range).cloned());
        let mut totals = Totals {
            received: range.len() as u64,
            dead: self.dead.len() as u64,
            emitted: emitted(&processed.rows, &self.dead, range)?,
            rows: Vec::with_capacity(self.shapes.len()),
            flights: 1,
            ..Totals::default()
        };
        for dead in &self.dead {
            *totals
                .dead_by_code
                .entry(dead.code.to_string())
                .or_default() += 1;
        }
        let settled = totals.dead + totals.emitted;
        totals.filtered = totals.received.saturating_sub(settled);
        for ((shape, rows), into) in self
            .shapes
            .iter_mut()
            .zip(&processed.rows)
            .zip(&mut self.rows)
        {
            into.clear();
            let range = rows.rows_of(range);
            totals.rows.push(range.len() as u64);
            if shape.binding == Binding::Discard {
                continue;
            }
            match &mut shape.merger {
                Some(merger) => merger.merge(rows, range, into),
                None => range.for_each(|row| into.push(rows.row(row))),
            }
        }
        Ok(totals)
    }
}

/// Records of `range` with at least one row on any route: a walk over the ascending sources of all routes.
///
/// # Errors
/// `Bug` when one of them is set aside too, or one is set aside twice.
fn emitted(rows: &[RowBatch], dead: &[DeadLetter], range: &Range<usize>) -> Result<u64, Error> {
    let twice = |source: u32| {
        Err(Error::bug(
            "balance the ledger",
            format!("record {source} of a batch counts twice"),
        ))
    };
    if let Some(pair) = dead
        .windows(2)
        .find(|pair| pair[0].source >= pair[1].source)
    {
        return twice(pair[1].source);
    }
    let mut cursors: Vec<Range<usize>> = rows.iter().map(|rows| rows.rows_of(range)).collect();
    let mut count = 0;
    loop {
        let next = cursors
            .iter()
            .zip(rows)
            .filter(|(cursor, _)| cursor.start < cursor.end)
            .map(|(cursor, rows)| rows.source(cursor.start))
            .min();
        let Some(source) = next else {
            return Ok(count);
        };
        if dead
            .binary_search_by_key(&source, |dead| dead.source)
            .is_ok()
        {
            return twice(source);
        }
        count += 1;
        for (cursor, rows) in cursors.iter_mut().zip(rows) {
            while cursor.start < cursor.end && rows.source(cursor.start) == source {
                cursor.start += 1;
            }
        }
    }
}

/// Takes the rows of one record out of every route; rare, so it rebuilds.
pub(super) fn remove_record(processed: &mut Processed, source: u32) {
    for rows in &mut processed.rows {
        let hit = rows.rows_of(&(source as usize..source as usize + 1));
        if hit.is_empty() {
            continue;
        }
        let mut kept = RowBatch::default();
        for row in rows.iter().filter(|row| row.source != source) {
            kept.push(row);
        }
        *rows = kept;
    }
}

/// Records far ahead of the clock would poison the write times of a sink written ahead: they are set aside.
///
/// Below `reserved`, the reservation found at the claim, the limit doubles, so that a replay on a slower clock
/// accepts what an earlier owner may have written. `now` is in milliseconds.
pub(super) fn set_aside_ahead(processed: &mut Processed, reserved: i64, now: i64) {
    for index in 0..processed.batch.len() {
        let millis = processed.batch.timestamps()[index];
        let offset = processed.batch.offsets()[index];
        let limit = if offset < reserved {
            2 * AHEAD_MILLIS
        } else {
            AHEAD_MILLIS
        };
        if millis <= now + limit {
            continue;
        }
        let source = u32::try_from(index).expect("a batch holds far fewer than 2³² records");
        let at = processed.dead.partition_point(|dead| dead.source < source);
        let dead = processed.dead.get(at);
        if dead.is_some_and(|dead| dead.source == source) {
            continue;
        }
        remove_record(processed, source);
        processed.dead.insert(
            at,
            DeadLetter {
                source,
                class: DeadClass::Data,
                code: code::TIMESTAMP_AHEAD.into(),
                reason: format!("timestamp {millis} ms lies more than an hour ahead of the host"),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::record::{Op, Record, RowRef};

    fn rows(sources: &[u32]) -> RowBatch {
        let mut rows = RowBatch::default();
        for source in sources {
            rows.push(RowRef {
                cells: b"",
                source: *source,
                op: Op::Write,
            });
        }
        rows
    }

    #[test]
    fn a_record_with_rows_on_several_routes_counts_once() {
        let routes = [rows(&[0, 0, 3]), rows(&[0, 2, 3, 9])];
        assert_eq!(emitted(&routes, &[], &(0..10)).unwrap(), 4);
        assert_eq!(emitted(&routes, &[], &(1..3)).unwrap(), 1);
    }

    #[test]
    fn a_record_that_counts_twice_stops_the_lane() {
        let dead = |source| DeadLetter {
            source,
            class: DeadClass::Data,
            code: "c".into(),
            reason: String::new(),
        };
        let routes = [rows(&[0, 3])];
        assert_eq!(emitted(&routes, &[dead(1), dead(2)], &(0..4)).unwrap(), 2);
        assert!(emitted(&routes, &[dead(3)], &(0..4)).is_err());
        assert!(emitted(&routes, &[dead(1), dead(1)], &(0..4)).is_err());
    }

    #[test]
    fn removing_a_record_leaves_the_others_in_order() {
        let mut processed = Processed {
            rows: vec![rows(&[0, 1, 1, 2])],
            ..Processed::default()
        };
        remove_record(&mut processed, 1);
        let left: Vec<u32> = processed.rows[0].iter().map(|row| row.source).collect();
        assert_eq!(left, [0, 2]);
    }

    #[test]
    fn stamps_never_go_back_and_do_not_depend_on_the_split() {
        let times = [5_i64, 1, -1, 9, 9, 2];
        let batch = |range: Range<usize>| {
            let mut batch = Batch::new(0, range.start as i64);
            for index in range {
                batch.push(Record {
                    key: None,
                    value: None,
                    timestamp: times[index],
                    offset: index as i64,
                    headers: b"",
                    marks: 0,
                });
            }
            batch
        };
        let mut builder = FlightBuilder::empty();
        builder.stamp(&batch(0..6), 0, |_| false);
        let whole = builder.stamps.clone();
        assert!(whole.windows(2).all(|pair| pair[1] >= pair[0] + 2));
        assert!(whole.iter().all(|stamp| stamp % 2 == 0));
        for cut in 1..6 {
            builder.stamp(&batch(0..cut), 0, |_| false);
            let mut split = builder.stamps.clone();
            let hlc = builder.hlc(cut, 0);
            builder.stamp(&batch(cut..6), hlc, |_| false);
            split.extend(&builder.stamps);
            assert_eq!(split, whole);
        }
    }
}
