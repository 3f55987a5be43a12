//! What a guest returned, judged: [`RouteTable::check`] turns an [`Output`] into checked rows and dead letters.
//!
//! Owns the verdict on every row before anything is sent anywhere. Output that is malformed as a whole is
//! the plugin's fault and nothing of it is kept; a row that does not fit its route dead-letters its record,
//! and every row of that record leaves **all** routes. The good path allocates nothing and copies a row once.
//!
//! | easily confused | |
//! |---|---|
//! | index in the call | what guests speak of: 0 is the first record of the call |
//! | kept index | index into [`crate::record::Fields::kept`]: the call's range is one of these |
//! | batch index | what rows and dead letters carry |

use std::borrow::Cow;

use super::fit::{RowFault, fit};
use super::rules::Rules;
use super::{DeadClass, DeadLetter, code};
use crate::error::{Error, Result};
use crate::manifest;
use crate::plugin::{GuestBatch, Output, Reject};
use crate::record::{Op, RowBatch};

/// Longest reason of a reject that is kept, in bytes.
const MAX_REASON: usize = 1000;

/// The routes of a plugin as its output is judged. Shared by all lanes; holds no buffers.
#[derive(Clone, Debug)]
pub struct RouteTable {
    routes: Vec<(String, Rules)>,
    rows_per_record: u32,
}

/// How the records of one call ended. The three add up to the records of the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records with at least one row.
    pub emitted: u32,
    /// Records without a row, by intention.
    pub filtered: u32,
    /// Records set aside.
    pub dead: u32,
}

impl RouteTable {
    /// Compiles the routes of a manifest.
    ///
    /// # Errors
    /// [`crate::error::Blame::Config`] for a key, guard or column type its store cannot hold (see [`Rules`]).
    pub fn new(routes: &[manifest::Route], rows_per_record: u32) -> Result<Self> {
        let routes = routes
            .iter()
            .map(|route| Ok((route.name.clone(), Rules::of(route)?)))
            .collect::<Result<_>>()?;
        Ok(Self {
            routes,
            rows_per_record,
        })
    }

    /// Number of routes: how many [`RowBatch`]es [`RouteTable::check`] wants.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The rules of a route; panics past the end like a slice.
    #[must_use]
    pub fn rules(&self, route: usize) -> &Rules {
        &self.routes[route].1
    }

    /// Judges the output of one call: appends rows to `rows` (one batch a route) and dead letters to `dead`.
    ///
    /// Calls on one batch come with ascending ranges, so that sources ascend in every route.
    ///
    /// # Errors
    /// [`crate::error::Blame::Plugin`] for malformed output; nothing was appended then.
    pub fn check(
        &self,
        output: &Output,
        input: &GuestBatch<'_>,
        rows: &mut [RowBatch],
        dead: &mut Vec<DeadLetter>,
    ) -> Result<Tally> {
        assert_eq!(rows.len(), self.routes.len(), "one row batch a route");
        let records = input.range.len();
        self.structure(output, records)?;
        let mut tally = Tally::default();
        let mut rejects = output.rejects.iter().peekable();
        let mut row = 0;
        while row < output.ends.len() || rejects.peek().is_some() {
            let rejected = rejects.peek().map_or(u32::MAX, |reject| reject.source);
            let emitted = output.sources.get(row).copied().unwrap_or(u32::MAX);
            let at = rejected.min(emitted);
            let end = row
                + output.sources[row..]
                    .iter()
                    .take_while(|source| **source == at)
                    .count();
            let source = input.fields.kept[input.range.start + at as usize];
            let letter = match rejects.next_if(|reject| reject.source == at) {
                Some(reject) => Some(refused(reject, source)),
                None => self.record(output, (row..end, source), input, rows).err(),
            };
            row = end;
            match letter {
                None => tally.emitted += 1,
                Some(letter) => {
                    tally.dead += 1;
                    dead.push(letter);
                }
            }
        }
        let records = u32::try_from(records).expect("a batch is far below 2^32 records");
        tally.filtered = records - tally.emitted - tally.dead;
        Ok(tally)
    }

    /// Judges the rows of one record, all or none.
    fn record(
        &self,
        output: &Output,
        (range, source): (std::ops::Range<usize>, u32),
        input: &GuestBatch<'_>,
        rows: &mut [RowBatch],
    ) -> Result<(), DeadLetter> {
        let allowed = self.rows_per_record as usize;
        if range.len() > allowed {
            let reason = format!("{} rows of one record, the limit is {allowed}", range.len());
            return Err(letter(source, DeadClass::Plugin, code::LIMIT, reason));
        }
        let first = range.start;
        let record = input.batch.record(source as usize);
        for row in range {
            let start = if row == 0 { 0 } else { output.ends[row - 1] };
            let cells = &output.cells[start as usize..output.ends[row] as usize];
            let route = usize::from(output.routes.get(row).copied().unwrap_or(0));
            let op = match output.ops.get(row) {
                Some(1) => Op::Delete,
                _ => Op::Write,
            };
            let (name, rules) = &self.routes[route];
            let batch = &mut rows[route];
            if let Err(fault) = fit(rules, op, cells, &record, batch.cells_mut()) {
                for batch in rows.iter_mut() {
                    let before = batch.rows_of(&(0..source as usize)).end;
                    batch.truncate(before);
                }
                let reason = told(name, rules, row - first, &fault);
                return Err(letter(source, DeadClass::Data, code::ROW_REFUSED, reason));
            }
            batch.finish_row(source, op);
        }
        Ok(())
    }

    /// Refuses output that contradicts itself; afterwards every index in it is good.
    fn structure(&self, output: &Output, records: usize) -> Result<()> {
        let rows = output.ends.len();
        let fault = |detail: String| {
            Err(Error::plugin("check the plugin's output", detail)
                .hint("report it to the plugin's author: its SDK never writes this"))
        };
        let optional = |name, length: usize| {
            if length != 0 && length != rows {
                return fault(format!("{length} {name} for {rows} rows"));
            }
            Ok(())
        };
        if output.sources.len() != rows {
            return fault(format!("{} sources for {rows} rows", output.sources.len()));
        }
        optional("routes", output.routes.len())?;
        optional("ops", output.ops.len())?;
        optional("times", output.times.len())?;
        if !output.ends.is_sorted() {
            return fault("ends of rows do not ascend".to_owned());
        }
        let end = output.ends.last().copied().unwrap_or(0) as usize;
        if end != output.cells.len() {
            return fault(format!("rows end at byte {end} of {}", output.cells.len()));
        }
        if !output.sources.is_sorted() {
            return fault("sources of rows do not ascend".to_owned());
        }
        if let Some(source) = output
            .sources
            .last()
            .filter(|source| **source as usize >= records)
        {
            return fault(format!("source {source} in a batch of {records} records"));
        }
        if let Some(route) = output
            .routes
            .iter()
            .find(|route| usize::from(**route) >= self.routes.len())
        {
            return fault(format!("route {route} of {}", self.routes.len()));
        }
        if output.routes.is_empty() && rows > 0 && self.routes.is_empty() {
            return fault("rows without a route".to_owned());
        }
        if let Some(op) = output.ops.iter().find(|op| **op > 1) {
            return fault(format!("op {op} (0 is write, 1 is delete)"));
        }
        let ascending = |pair: &[Reject]| pair[0].source < pair[1].source;
        if !output.rejects.windows(2).all(ascending) {
            return fault("sources of rejects do not ascend".to_owned());
        }
        if let Some(reject) = output
            .rejects
            .last()
            .filter(|reject| reject.source as usize >= records)
        {
            return fault(format!(
                "rejected source {} in a batch of {records} records",
                reject.source
            ));
        }
        if let Some(reject) = output.rejects.iter().find(|reject| !is_code(&reject.code)) {
            return fault(format!(
                "code {:?} of a reject (1 to 32 of a-z, 0-9, -)",
                reject.code
            ));
        }
        Ok(())
    }
}

fn is_code(code: &str) -> bool {
    let letter = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=32).contains(&code.len()) && code.bytes().all(letter)
}

#[cold]
fn letter(source: u32, class: DeadClass, code: &'static str, reason: String) -> DeadLetter {
    DeadLetter {
        source,
        class,
        code: Cow::Borrowed(code),
        reason,
    }
}

/// A reject as a dead letter: the reason cut, and without NUL, which Postgres would refuse to store.
fn refused(reject: &Reject, source: u32) -> DeadLetter {
    let cut = reject.reason.floor_char_boundary(MAX_REASON);
    DeadLetter {
        source,
        class: DeadClass::Data,
        code: Cow::Owned(reject.code.clone()),
        reason: reject.reason[..cut].replace('\0', "\u{fffd}"),
    }
}

#[cold]
fn told(route: &str, rules: &Rules, row: usize, fault: &RowFault) -> String {
    match fault.column {
        Some(column) => {
            let column = &rules.columns[column];
            format!(
                "row {row} of the record, route {route:?}, column {:?} ({}): {}",
                column.name, column.ty, fault.what
            )
        }
        None => format!("row {row} of the record, route {route:?}: {}", fault.what),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
