//! One call of a plugin: a batch in, rows and rejects out. It owns the order of things: sources ascend, the
//! rows of a rejected record are taken back, a fatal error keeps nothing. It knows no component and no host.

use std::cell::{Cell, RefCell};
use std::ops::Range;

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

thread_local! {
    /// Bytes and rows of the call before: what the next one makes room for, so that nothing grows per record.
    /// One thread runs an instance.
    static ROOM: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Runs a batch; the error is the text of a fatal one.
pub(crate) fn run<P: Plugin>(
    config: &P::Config,
    batch: &BatchView<'_>,
) -> std::result::Result<Ran, String> {
    let (cells, count) = ROOM.get();
    let rows = RefCell::new(Rows::with_capacity(cells, count));
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
    ROOM.set((rows.cells.len(), rows.ends.len()));
    Ok(Ran { rows, rejects })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::alloc::{GlobalAlloc, Layout, System};

    use super::*;
    use crate::prelude::*;
    use crate::types::Column as _;

    thread_local! {
        static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts what the thread asks for.
    struct Counting;

    #[expect(unsafe_code, reason = "the only way to count allocations")]
    // SAFETY: every call goes to the system's allocator unchanged; the counter is a `Cell` without a destructor, so
    // touching it allocates nothing.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
            // SAFETY: the caller's promise is passed on.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(at, layout) }
        }

        unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
            // SAFETY: the caller's promise is passed on.
            unsafe { System.realloc(at, layout, size) }
        }
    }

    #[global_allocator]
    static COUNTING: Counting = Counting;

    #[derive(Fields)]
    struct Order<'a> {
        id: &'a str,
        amount: Option<f64>,
    }

    #[derive(Fields)]
    struct User {
        number: i32,
    }

    #[derive(Row)]
    struct Sum<'a> {
        id: &'a str,
        amount: f64,
    }

    #[derive(Row)]
    struct Known {
        #[row(key)]
        number: i32,
        again: i32,
    }

    #[plugin(inputs(orders: Order, users: User), routes(sums: Sum, known: Known))]
    mod two_inputs {
        use super::*;

        fn orders(_: &Config, rec: Record<Order<'_>>, out: &mut Out) -> Result {
            out.sums.write(&Sum {
                id: rec.id,
                amount: 0.0,
            })?;
            let amount = rec.amount.ok_or_else(|| reject("no-amount", "none"))?;
            out.sums.write(&Sum { id: rec.id, amount })
        }

        fn users(_: &Config, rec: Record<User>, out: &mut Out) -> Result {
            if rec.number < 0 {
                return out.known.delete(Known::key(-rec.number));
            }
            if rec.number == 0 {
                return Err(Error::fatal("no user is 0"));
            }
            out.known.write(&Known {
                number: rec.number,
                again: rec.number,
            })
        }
    }

    #[test]
    fn every_input_has_its_function() {
        let mut harness = Harness::<Plugin>::new();
        let sums = harness
            .record_of("orders")
            .field("id", "a")
            .field("amount", 2)
            .send();
        assert_eq!(sums.written("sums").len(), 2);
        let gone = harness.record_of("users").field("number", -7).send();
        assert_eq!(
            (gone.rows[0].delete, &gone.rows[0].columns["number"]),
            (true, &json!(7))
        );
        let fatal = harness.record_of("users").field("number", 0).send();
        assert_eq!(fatal.fatal.as_deref(), Some("no user is 0"));
        let rejected = harness.record_of("orders").field("id", "b").send();
        assert_eq!(
            (rejected.code(), rejected.rows.len()),
            (Some("no-amount"), 0)
        );
        harness.finish();
    }

    #[test]
    fn nothing_is_allocated_for_a_record_once_warm() {
        let (mut cells, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..1000 {
            "some-id".put(&mut cells);
            Some(2.5).put(&mut cells);
            ends.push(u32::try_from(cells.len()).unwrap());
        }
        let call = |records: usize| {
            let batch = BatchView {
                input: 0,
                partition: 0,
                fields: &cells,
                field_ends: &ends[..records],
                data: &[],
                ends: &[],
                marks: &[],
                timestamps: &[],
                offsets: &[],
                headers: &[],
                header_ends: &[],
            };
            let before = ALLOCATIONS.get();
            let ran = run::<Plugin>(&crate::NoConfig, &batch).unwrap();
            assert_eq!(ran.rows.ends.len(), 2 * records);
            ALLOCATIONS.get() - before
        };
        assert!(call(1000) > 3, "the first call grows its lists");
        // Cells, ends, sources: the three lists that are returned.
        assert_eq!(call(1000), 3);
        assert_eq!(call(10), 3);
    }

    #[test]
    #[should_panic(expected = "came out differently")]
    fn a_plugin_that_remembers_fails_its_test() {
        let mut harness = Harness::<liar::Plugin>::new();
        for _ in 0..10 {
            harness.send(json!({"number": 1}));
        }
        harness.finish();
    }

    mod liar {
        use std::sync::atomic::{AtomicI32, Ordering};

        use super::*;

        static COUNTER: AtomicI32 = AtomicI32::new(0);

        #[plugin(inputs(users: User), routes(known: Known))]
        pub(super) fn remembers(_: &Config, rec: Record<User>, out: &mut Out) -> Result {
            let again = COUNTER.fetch_add(1, Ordering::Relaxed);
            out.known.write(&Known {
                number: rec.number,
                again,
            })
        }
    }
}
