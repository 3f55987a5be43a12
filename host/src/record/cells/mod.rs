//! The cell codec: a cell is a big-endian s32 length and that many bytes; negative lengths carry meaning.
//! Fields and rows share it. It checks and copies; it converts for no database.
//!
//! Layout of the bytes by type: see [`super::Type`]; source: `wit/since-v0.1/types.wit`. `check` judges the bytes of
//! a value, `value` writes and reads them typed, `json` says them as JSON and text, `show` shortens them for logs.

mod check;
pub mod json;
pub mod show;
mod value;

pub use check::{MAX_DATE, MAX_TIME, MIN_DATE, MIN_TIMESTAMP, check};
pub use value::{
    Headers, Items, begin, get_boolean, get_decimal, get_float32, get_float64, get_int16,
    get_int32, get_int64, get_text, put_boolean, put_count, put_decimal, put_float32, put_float64,
    put_int16, put_int32, put_int64, put_text, seal,
};

/// Length code of null.
pub const NULL: i32 = -1;
/// Length code of an absent field, or of a row's column to leave alone.
pub const UNSET: i32 = -2;
/// Length code in rows: the source record's key.
pub const SOURCE_KEY: i32 = -3;
/// Length code in rows: the source record's value.
pub const SOURCE_VALUE: i32 = -4;
/// Length code in rows: the source record's timestamp.
pub const SOURCE_TIMESTAMP: i32 = -5;
/// Length code in rows: the source record's headers.
pub const SOURCE_HEADERS: i32 = -6;

/// One cell, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// Absent field, or column to leave alone.
    Unset,
    /// The source record's key (rows from a guest only).
    SourceKey,
    /// The source record's value (rows from a guest only).
    SourceValue,
    /// The source record's timestamp (rows from a guest only).
    SourceTimestamp,
    /// The source record's headers (rows from a guest only).
    SourceHeaders,
    /// The bytes of a value.
    Value(&'a [u8]),
}

/// Bytes that are not cells, or a cell that is not of its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    /// Fewer bytes than the length or the type says.
    #[error("cell ends {missing} bytes early")]
    Short {
        /// How many bytes are missing.
        missing: usize,
    },
    /// A reserved length code.
    #[error("length code {0} is reserved")]
    Reserved(i32),
    /// More bytes than the type says.
    #[error("{0} bytes are left over after the last cell")]
    Long(usize),
    /// The bytes do not fit the type.
    #[error("{reason} does not fit type {ty}")]
    Unfit {
        /// The type expected.
        ty: String,
        /// What stands there.
        reason: String,
    },
}

/// Appends a value cell.
pub fn put(out: &mut Vec<u8>, value: &[u8]) {
    let length = i32::try_from(value.len())
        .expect("a cell is far below 2 GiB: batches and outputs are capped");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}

/// Appends a null cell.
pub fn put_null(out: &mut Vec<u8>) {
    out.extend_from_slice(&NULL.to_be_bytes());
}

/// Appends an unset (or absent) cell.
pub fn put_unset(out: &mut Vec<u8>) {
    out.extend_from_slice(&UNSET.to_be_bytes());
}

/// Reads cells one after the other from trusted or untrusted bytes; never panics, never allocates.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next cell.
    ///
    /// # Errors
    /// [`CellError::Short`] at the end of the bytes, [`CellError::Reserved`] for a length below −6.
    pub fn cell(&mut self) -> Result<Cell<'a>, CellError> {
        let Some((head, tail)) = self.rest.split_first_chunk::<4>() else {
            return Err(CellError::Short {
                missing: 4 - self.rest.len(),
            });
        };
        let length = i32::from_be_bytes(*head);
        let cell = match length {
            NULL => Cell::Null,
            UNSET => Cell::Unset,
            SOURCE_KEY => Cell::SourceKey,
            SOURCE_VALUE => Cell::SourceValue,
            SOURCE_TIMESTAMP => Cell::SourceTimestamp,
            SOURCE_HEADERS => Cell::SourceHeaders,
            reserved if reserved < 0 => return Err(CellError::Reserved(reserved)),
            length => {
                let length =
                    usize::try_from(length).expect("not negative: the arms above took those");
                let Some((value, rest)) = tail.split_at_checked(length) else {
                    return Err(CellError::Short {
                        missing: length - tail.len(),
                    });
                };
                self.rest = rest;
                return Ok(Cell::Value(value));
            }
        };
        self.rest = tail;
        Ok(cell)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_length_code_reads_as_its_cell() {
        let mut bytes = Vec::new();
        for code in -6_i32..=-1 {
            bytes.extend_from_slice(&code.to_be_bytes());
        }
        put(&mut bytes, b"ab");
        let mut reader = Reader::new(&bytes);
        for cell in [
            Cell::SourceHeaders,
            Cell::SourceTimestamp,
            Cell::SourceValue,
            Cell::SourceKey,
            Cell::Unset,
            Cell::Null,
            Cell::Value(b"ab"),
        ] {
            assert_eq!(reader.cell().unwrap(), cell);
        }
        assert!(reader.is_empty());
        assert_eq!(reader.cell(), Err(CellError::Short { missing: 4 }));
        let reserved = (-7_i32).to_be_bytes();
        assert_eq!(Reader::new(&reserved).cell(), Err(CellError::Reserved(-7)));
        assert_eq!(
            Reader::new(&[0, 0, 0, 3, 1]).cell(),
            Err(CellError::Short { missing: 2 })
        );
    }

    proptest! {
        #[test]
        fn a_reader_ends_on_any_bytes(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            let mut cells = 0;
            while reader.cell().is_ok() {
                cells += 1;
            }
            prop_assert!(cells * 4 <= bytes.len());
        }
    }
}
