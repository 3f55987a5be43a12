//! One call of a plugin: a batch in, rows and rejects out. It owns the order of things: sources ascend, the
//! rows of a rejected record are taken back, a fatal error keeps nothing. It knows no component and no host.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Configuration;
use crate::error::{Error, Result};
use crate::rows::Rows;
use crate::spec::{InputSpec, RouteSpec};

/// A plugin as `#[plugin]` generates it; nobody writes one by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a plugin",
    note = "put #[plugin(inputs(…), routes(…))] on a function; it generates a type named `Plugin` beside it"
)]
pub trait Plugin: 'static {
    /// What the operator sets.
    type Config: Configuration;

    /// The inputs in declaration order.
    const INPUTS: &'static [InputSpec];

    /// The routes in declaration order.
    const ROUTES: &'static [RouteSpec];

    /// Runs one record of an input and leaves its rows in `rows`.
    ///
    /// # Errors
    /// What the plugin's function answers.
    fn record(
        config: &Self::Config,
        input: u16,
        raw: RawRecord<'_>,
        rows: &RefCell<Rows>,
    ) -> Result;
}

/// A batch as it came over the interface, borrowed.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    /// Index of the input.
    pub input: u16,
    /// The records' partition.
    pub partition: u32,
    /// Cells of all records.
    pub fields: &'a [u8],
    /// One end a record.
    pub field_ends: &'a [u32],
    /// Key and value bytes; empty unless raw.
    pub data: &'a [u8],
    /// Two ends a record when raw.
    pub ends: &'a [u32],
    /// Marks of each record.
    pub marks: &'a [u8],
    /// Milliseconds, −1 for none.
    pub timestamps: &'a [i64],
    /// Offsets.
    pub offsets: &'a [i64],
    /// Header cell values; empty unless asked for.
    pub headers: &'a [u8],
    /// One end a record when headers were asked for.
    pub header_ends: &'a [u32],
}

/// One record of a batch.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    batch: &'a BatchView<'a>,
    index: usize,
}

impl<'a> RawRecord<'a> {
    /// The cells of its fields.
    #[inline]
    #[must_use]
    pub fn cells(&self) -> &'a [u8] {
        slice(self.batch.fields, span(self.batch.field_ends, self.index))
    }

    #[inline]
    pub(crate) fn marks(&self) -> u8 {
        self.batch.marks.get(self.index).copied().unwrap_or(0)
    }

    #[inline]
    pub(crate) fn timestamp(&self) -> i64 {
        self.batch.timestamps.get(self.index).copied().unwrap_or(-1)
    }

    #[inline]
    pub(crate) fn offset(&self) -> i64 {
        self.batch.offsets.get(self.index).copied().unwrap_or(-1)
    }

    #[inline]
    pub(crate) fn partition(&self) -> u32 {
        self.batch.partition
    }

    #[inline]
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        (self.marks() & 1 == 0)
            .then(|| slice(self.batch.data, span(self.batch.ends, 2 * self.index)))
    }

    #[inline]
    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        (self.marks() & 2 == 0)
            .then(|| slice(self.batch.data, span(self.batch.ends, 2 * self.index + 1)))
    }

    pub(crate) fn headers(&self) -> &'a [u8] {
        slice(self.batch.headers, span(self.batch.header_ends, self.index))
    }
}

/// Where item `index` lies: from the end before it to its own.
#[inline]
fn span(ends: &[u32], index: usize) -> Range<usize> {
    let end = ends.get(index).map_or(0, |end| *end as usize);
    let start = index.checked_sub(1).and_then(|before| ends.get(before));
    start.map_or(0, |start| *start as usize)..end
}

/// A range of bytes; nothing where the host's ends make no sense (reading a field from it then rejects).
#[inline]
fn slice(data: &[u8], range: Range<usize>) -> &[u8] {
    data.get(range).unwrap_or_default()
}

/// A refused record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// Index in the batch.
    pub(crate) source: u32,
    /// `[a-z0-9-]{1,32}`.
    pub(crate) code: String,
    /// One sentence.
    pub(crate) reason: String,
}

/// What a call leaves behind.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Rows of the records that were not refused.
    pub(crate) rows: Rows,
    /// Refused records, ascending.
    pub(crate) rejects: Vec<Rejected>,
}

/// Bytes and rows of the call before: what the next one makes room for, so that nothing grows per record.
static CELLS: AtomicUsize = AtomicUsize::new(0);
static ROWS: AtomicUsize = AtomicUsize::new(0);

/// Runs a batch; the error is the text of a fatal one.
pub(crate) fn run<P: Plugin>(
    config: &P::Config,
    batch: &BatchView<'_>,
) -> std::result::Result<Ran, String> {
    let room = (CELLS.load(Ordering::Relaxed), ROWS.load(Ordering::Relaxed));
    let rows = RefCell::new(Rows::with_capacity(room.0, room.1));
    let mut rejects = Vec::new();
    for index in 0..batch.field_ends.len() {
        let source = u32::try_from(index).map_err(|_| "a batch of more than 2^32 records")?;
        let mark = rows.borrow_mut().begin(source);
        match P::record(config, batch.input, RawRecord { batch, index }, &rows) {
            Ok(()) => {}
            Err(Error::Data { code, reason }) => {
                rows.borrow_mut().roll_back(mark);
                rejects.push(Rejected {
                    source,
                    code: code.into_owned(),
                    reason,
                });
            }
            Err(Error::Fatal(reason)) => return Err(reason),
        }
    }
    let rows = rows.into_inner();
    CELLS.store(rows.cells.len(), Ordering::Relaxed);
    ROWS.store(rows.ends.len(), Ordering::Relaxed);
    Ok(Ran { rows, rejects })
}
