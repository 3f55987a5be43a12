//! [`Rows`]: the rows of a call as they grow, with a mark to go back to; [`Row`] and [`Key`]: what a plugin
//! writes and deletes. Rows of a rejected record leave no trace.

use std::cell::RefCell;
use std::fmt;

use crate::error::Result;
use crate::spec::ColumnSpec;

/// A row of a route: derive it with `#[derive(Row)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which columns it has",
    label = "a route's rows are a struct with #[derive(Row)]",
    note = "write `#[derive(Row)] struct {Self} {{ … }}`"
)]
pub trait Row {
    /// Values of the columns marked `#[row(key)]`.
    type Key;

    /// The columns in declaration order.
    const COLUMNS: &'static [ColumnSpec];

    /// Appends one cell a column.
    fn put(&self, out: &mut Vec<u8>);

    /// Appends one cell a column: the key's, and unset for all others.
    fn put_key(key: &Self::Key, out: &mut Vec<u8>);
}

/// The key of a row to delete, made by `MyRow::key(…)`, which exists for rows with `#[row(key)]` columns.
pub struct Key<R: Row>(R::Key);

/// The key of rows that have none: it has no value.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum NoKey {}

/// A key from its values; called by generated code.
#[doc(hidden)]
#[inline]
pub fn key<R: Row>(key: R::Key) -> Key<R> {
    Key(key)
}

impl<R: Row> fmt::Debug for Key<R>
where
    R::Key: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.0).finish()
    }
}

/// The rows of a call so far, in the layout of the interface.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Rows {
    pub(crate) cells: Vec<u8>,
    pub(crate) ends: Vec<u32>,
    pub(crate) sources: Vec<u32>,
    /// Empty while every row goes to route 0.
    pub(crate) routes: Vec<u8>,
    /// Empty while every row is a write.
    pub(crate) ops: Vec<u8>,
    source: u32,
}

impl Rows {
    /// Room for a batch of `rows` rows and `cells` bytes.
    pub(crate) fn with_capacity(cells: usize, rows: usize) -> Self {
        Self {
            cells: Vec::with_capacity(cells),
            ends: Vec::with_capacity(rows),
            sources: Vec::with_capacity(rows),
            ..Self::default()
        }
    }

    /// Begins the rows of the record `source`; what it returns takes them back.
    #[inline]
    pub(crate) fn begin(&mut self, source: u32) -> usize {
        self.source = source;
        self.ends.len()
    }

    /// Drops every row after the first `rows`.
    #[cold]
    pub(crate) fn roll_back(&mut self, rows: usize) {
        self.ends.truncate(rows);
        self.sources.truncate(rows);
        self.routes.truncate(rows);
        self.ops.truncate(rows);
        self.cells
            .truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    #[inline]
    fn finish(&mut self, route: u8, op: u8) {
        let end = u32::try_from(self.cells.len()).expect("linear memory ends at 4 GiB");
        if route != 0 || !self.routes.is_empty() {
            self.routes.resize(self.ends.len(), 0);
            self.routes.push(route);
        }
        if op != 0 || !self.ops.is_empty() {
            self.ops.resize(self.ends.len(), 0);
            self.ops.push(op);
        }
        self.ends.push(end);
        self.sources.push(self.source);
    }
}

/// Where the rows of one route go; generated code wraps it in a type that knows the route's row.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Route<'w> {
    rows: &'w RefCell<Rows>,
    index: u8,
}

/// The route with an index.
#[doc(hidden)]
#[inline]
pub fn route(rows: &RefCell<Rows>, index: u8) -> Route<'_> {
    Route { rows, index }
}

impl Route<'_> {
    /// Writes a row.
    ///
    /// # Errors
    /// None today; the result is there so that `out.route.write(…)` can be a function's last word.
    #[inline]
    pub fn write<R: Row>(&self, row: &R) -> Result {
        let mut rows = self.rows.borrow_mut();
        row.put(&mut rows.cells);
        rows.finish(self.index, 0);
        Ok(())
    }

    /// Deletes the row with a key.
    ///
    /// # Errors
    /// As [`Route::write`].
    #[inline]
    pub fn delete<R: Row>(&self, key: &Key<R>) -> Result {
        let mut rows = self.rows.borrow_mut();
        R::put_key(&key.0, &mut rows.cells);
        rows.finish(self.index, 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(u8);

    impl Row for One {
        type Key = u8;
        const COLUMNS: &'static [ColumnSpec] = &[];
        fn put(&self, out: &mut Vec<u8>) {
            out.push(self.0);
        }
        fn put_key(key: &u8, out: &mut Vec<u8>) {
            out.push(*key);
        }
    }

    #[test]
    fn routes_and_ops_stay_empty_until_they_say_something() {
        let rows = RefCell::new(Rows::default());
        rows.borrow_mut().begin(4);
        assert_eq!(route(&rows, 0).write(&One(1)), Ok(()));
        assert!(rows.borrow().routes.is_empty() && rows.borrow().ops.is_empty());
        let mark = rows.borrow_mut().begin(5);
        assert_eq!(route(&rows, 2).write(&One(2)), Ok(()));
        assert_eq!(route(&rows, 0).delete(&key::<One>(3)), Ok(()));
        {
            let rows = rows.borrow();
            assert_eq!(
                (&rows.routes[..], &rows.ops[..]),
                (&[0, 2, 0][..], &[0, 0, 1][..])
            );
            assert_eq!(
                (&rows.sources[..], &rows.cells[..]),
                (&[4, 5, 5][..], &[1, 2, 3][..])
            );
        }
        rows.borrow_mut().roll_back(mark);
        let rows = rows.borrow();
        assert_eq!(
            (&rows.ends[..], &rows.cells[..], &rows.ops[..]),
            (&[1][..], &[1][..], &[0][..])
        );
    }
}
