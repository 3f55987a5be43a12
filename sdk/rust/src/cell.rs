//! The bytes of cells: a big-endian s32 length and that many bytes; negative lengths carry meaning.
//! Reads what the host wrote and appends what it will read; knows no types.
//!
//! Layout: `wit/since-v0.1/types.wit`.

use crate::types::Absent;

/// Length code of null.
pub(crate) const NULL: i32 = -1;
/// Length code of an absent field, or of a column to leave alone.
pub(crate) const UNSET: i32 = -2;
/// Length code in rows: the source record's key.
pub(crate) const SOURCE_KEY: i32 = -3;
/// Length code in rows: the source record's value.
pub(crate) const SOURCE_VALUE: i32 = -4;
/// Length code in rows: the source record's timestamp.
pub(crate) const SOURCE_TIMESTAMP: i32 = -5;

/// Reads cells one after the other; never panics, never allocates.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// One cell of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    /// The bytes of a value.
    Value(&'a [u8]),
    /// No value.
    Absent(Absent),
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next cell; `None` when the bytes are not cells or at their end.
    #[inline]
    pub(crate) fn cell(&mut self) -> Option<Cell<'a>> {
        let length = self.int()?;
        let Ok(length) = usize::try_from(length) else {
            return match length {
                NULL => Some(Cell::Absent(Absent::Null)),
                UNSET => Some(Cell::Absent(Absent::Unset)),
                _ => None,
            };
        };
        let (value, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Cell::Value(value))
    }

    /// The next four bytes as a count or a length.
    #[inline]
    pub(crate) fn int(&mut self) -> Option<i32> {
        let (head, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(i32::from_be_bytes(*head))
    }

    /// Everything that was not read yet.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Appends a length code below zero.
#[inline]
pub(crate) fn put_code(out: &mut Vec<u8>, code: i32) {
    out.extend_from_slice(&code.to_be_bytes());
}

/// Appends an unset cell: the column is left alone.
#[inline]
pub fn put_unset(out: &mut Vec<u8>) {
    put_code(out, UNSET);
}

/// Appends a value cell of any length.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_code(out, length(value.len()));
    out.extend_from_slice(value);
}

/// Appends a value cell whose bytes `fill` appends.
pub(crate) fn put_nested(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    put_code(out, 0);
    fill(out);
    let written = length(out.len() - at - 4);
    out[at..at + 4].copy_from_slice(&written.to_be_bytes());
}

/// A length or count as it stands in a cell.
#[inline]
pub(crate) fn length(length: usize) -> i32 {
    i32::try_from(length).expect("a cell is far below 2 GiB: linear memory is capped below that")
}
