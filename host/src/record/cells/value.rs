//! Typed values in and out of cells: the `put_*` half appends a whole cell, the `get_*` half reads the bytes
//! of a value that [`super::check`] has accepted.
//!
//! Nothing here converts between types or knows a database. Nested values are built with [`begin`],
//! [`put_count`], the cells, [`seal`].

use super::{Cell, CellError, Reader, put};
use crate::record::decimal::{from_twos_complement, minimal};

/// Appends a boolean cell.
pub fn put_boolean(out: &mut Vec<u8>, value: bool) {
    put(out, &[u8::from(value)]);
}

/// Appends an int16 cell.
pub fn put_int16(out: &mut Vec<u8>, value: i16) {
    put(out, &value.to_be_bytes());
}

/// Appends an int32 or date cell.
#[inline]
pub fn put_int32(out: &mut Vec<u8>, value: i32) {
    let mut cell = [0, 0, 0, 4, 0, 0, 0, 0];
    cell[4..].copy_from_slice(&value.to_be_bytes());
    out.extend_from_slice(&cell);
}

/// Appends an int64, timestamp or time cell.
#[inline]
pub fn put_int64(out: &mut Vec<u8>, value: i64) {
    let mut cell = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    cell[4..].copy_from_slice(&value.to_be_bytes());
    out.extend_from_slice(&cell);
}

/// Appends a float32 cell.
pub fn put_float32(out: &mut Vec<u8>, value: f32) {
    put(out, &value.to_be_bytes());
}

/// Appends a float64 cell.
#[inline]
pub fn put_float64(out: &mut Vec<u8>, value: f64) {
    let mut cell = [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    cell[4..].copy_from_slice(&value.to_be_bytes());
    out.extend_from_slice(&cell);
}

/// Appends a text or json cell.
pub fn put_text(out: &mut Vec<u8>, value: &str) {
    put(out, value.as_bytes());
}

/// Appends a decimal cell, the digits in their shortest form.
pub fn put_decimal(out: &mut Vec<u8>, unscaled: i128, scale: u8) {
    let (digits, start) = minimal(unscaled);
    let at = begin(out);
    out.extend_from_slice(&i32::from(scale).to_be_bytes());
    out.extend_from_slice(&digits[start..]);
    seal(out, at);
}

/// Starts a cell whose length is not known yet; [`seal`] writes it.
#[must_use]
pub fn begin(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; 4]);
    out.len()
}

/// Ends the cell that [`begin`] started and returned `at` for.
pub fn seal(out: &mut [u8], at: usize) {
    let length = i32::try_from(out.len() - at)
        .expect("a cell is far below 2 GiB: batches and outputs are capped");
    out[at - 4..at].copy_from_slice(&length.to_be_bytes());
}

/// Appends the count a list, set, map or headers value starts with.
pub fn put_count(out: &mut Vec<u8>, count: usize) {
    let count =
        i32::try_from(count).expect("every counted cell takes four bytes of a capped buffer");
    out.extend_from_slice(&count.to_be_bytes());
}

fn fixed<const N: usize>(value: &[u8]) -> [u8; N] {
    value
        .try_into()
        .expect("the value was checked against its type")
}

/// Reads a checked boolean.
#[must_use]
pub fn get_boolean(value: &[u8]) -> bool {
    fixed::<1>(value) != [0]
}

/// Reads a checked int16.
#[must_use]
pub fn get_int16(value: &[u8]) -> i16 {
    i16::from_be_bytes(fixed(value))
}

/// Reads a checked int32 or date.
#[must_use]
pub fn get_int32(value: &[u8]) -> i32 {
    i32::from_be_bytes(fixed(value))
}

/// Reads a checked int64, timestamp or time.
#[must_use]
pub fn get_int64(value: &[u8]) -> i64 {
    i64::from_be_bytes(fixed(value))
}

/// Reads a checked float32.
#[must_use]
pub fn get_float32(value: &[u8]) -> f32 {
    f32::from_be_bytes(fixed(value))
}

/// Reads a checked float64.
#[must_use]
pub fn get_float64(value: &[u8]) -> f64 {
    f64::from_be_bytes(fixed(value))
}

/// Reads a checked text or json.
#[must_use]
pub fn get_text(value: &[u8]) -> &str {
    std::str::from_utf8(value).expect("the value was checked against its type")
}

/// Reads a checked decimal: unscaled value and scale.
#[must_use]
pub fn get_decimal(value: &[u8]) -> (i128, i32) {
    let (scale, digits) = value
        .split_first_chunk::<4>()
        .expect("the value was checked against its type");
    let unscaled = from_twos_complement(digits).expect("the value was checked against its type");
    (unscaled, i32::from_be_bytes(*scale))
}

/// The cells of a checked list, set, map (key, value, key, value …) or headers value, one after the other.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    reader: Reader<'a>,
}

impl<'a> Items<'a> {
    /// Over a checked value.
    #[must_use]
    pub fn new(value: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(value.get(4..).unwrap_or_default()),
        }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        if self.reader.is_empty() {
            return None;
        }
        Some(
            self.reader
                .cell()
                .expect("the value was checked against its type"),
        )
    }
}

/// The headers of a record, from bytes that need not be checked.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    left: u32,
    reader: Reader<'a>,
}

impl<'a> Headers<'a> {
    /// Over a `headers` value; no bytes at all mean no headers.
    ///
    /// # Errors
    /// The bytes are too few for a count, or the count is negative.
    pub fn new(value: &'a [u8]) -> Result<Self, CellError> {
        let Some((count, rest)) = value.split_first_chunk::<4>() else {
            return match value.len() {
                0 => Ok(Self {
                    left: 0,
                    reader: Reader::new(value),
                }),
                some => Err(CellError::Short { missing: 4 - some }),
            };
        };
        let count = i32::from_be_bytes(*count);
        Ok(Self {
            left: u32::try_from(count).map_err(|_| CellError::Reserved(count))?,
            reader: Reader::new(rest),
        })
    }

    fn pair(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), CellError> {
        let name = match self.reader.cell()? {
            Cell::Value(name) => name,
            _ => &[],
        };
        match self.reader.cell()? {
            Cell::Value(value) => Ok((name, Some(value))),
            _ => Ok((name, None)),
        }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<(&'a [u8], Option<&'a [u8]>), CellError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let pair = self.pair();
        if pair.is_err() {
            self.left = 0;
        }
        Some(pair)
    }
}
