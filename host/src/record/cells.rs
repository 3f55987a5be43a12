//! The cell codec: a cell is a big-endian s32 length and that many bytes; negative lengths carry meaning.
//! Fields and rows share it. It checks and copies; it converts for no database.
//!
//! Layout of the bytes by type: see [`Type`]; source: `wit/since-v0.1/types.wit`.

use super::Type;

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

/// Checks that `bytes` are a value of `ty`.
///
/// # Errors
/// What stands there and the type it does not fit.
pub fn check(ty: &Type, bytes: &[u8]) -> Result<(), CellError> {
    let unfit = |reason: String| {
        Err(CellError::Unfit {
            ty: ty.to_string(),
            reason,
        })
    };
    if let Some(size) = ty.fixed_size()
        && bytes.len() != size
    {
        return unfit(format!("a value of {} bytes", bytes.len()));
    }
    match ty {
        Type::Boolean if bytes[0] > 1 => unfit(format!("byte {}", bytes[0])),
        Type::Text | Type::Json if std::str::from_utf8(bytes).is_err() => {
            unfit("text that is not UTF-8".to_owned())
        }
        _ => Ok(()),
    }
}
