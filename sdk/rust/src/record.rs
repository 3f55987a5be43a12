//! [`Record`]: one record as a plugin's function sees it: its declared fields, and where it came from.
//! It borrows from the batch; nothing is looked at before it is asked for.

use std::fmt;
use std::ops::Deref;

use crate::cell::{Cell, Reader};
use crate::error::{Error, Result};
use crate::plugin::RawRecord;
use crate::spec::FieldSpec;
use crate::types::{read, text};
use crate::values::Timestamp;

/// The declared fields of an input: derive it with `#[derive(Fields)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which fields it has",
    label = "an input's fields are a struct with #[derive(Fields)]",
    note = "write `#[derive(Fields)] struct {Self} {{ … }}`"
)]
pub trait Fields<'a>: Sized {
    /// Whether the key and value bytes are wanted: `#[fields(raw)]`.
    const RAW: bool = false;
    /// Whether the headers are wanted: `#[fields(headers)]`.
    const HEADERS: bool = false;

    /// The fields in declaration order.
    const FIELDS: &'static [FieldSpec];

    /// Reads a record's cells, one a field, in declaration order.
    ///
    /// # Errors
    /// A rejection when a cell does not fit its field (see [`crate::Field`]).
    fn read(reader: &mut Reader<'a>) -> Result<Self>;
}

/// Fields of an input that also wants bytes: add `#[fields(raw)]` to the struct.
#[diagnostic::on_unimplemented(
    message = "the key and value bytes of `{Self}` were not asked for",
    note = "add #[fields(raw)] below #[derive(Fields)]"
)]
pub trait RawFields {}

/// Fields of an input that also wants headers: add `#[fields(headers)]` to the struct.
#[diagnostic::on_unimplemented(
    message = "the headers of `{Self}` were not asked for",
    note = "add #[fields(headers)] below #[derive(Fields)]"
)]
pub trait HeaderFields {}

/// One record of a topic: its fields by name (`rec.id`) and what is known about it.
pub struct Record<'a, F> {
    fields: F,
    raw: RawRecord<'a>,
}

/// A record from its parts; called by generated code.
#[doc(hidden)]
#[inline]
pub fn record<'a, F>(fields: F, raw: RawRecord<'a>) -> Record<'a, F> {
    Record { fields, raw }
}

impl<'a, F> Record<'a, F> {
    /// Whether the value is null: on a compacted topic, "delete this key". Only seen by plugins whose manifest
    /// says `tombstones = "pass"`; every field that comes from the value is then null.
    #[inline]
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.raw.marks() & 2 != 0
    }

    /// When the record was made, or appended to the log; `None` where it carries no time.
    #[inline]
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        let millis = self.raw.timestamp();
        (millis >= 0).then(|| Timestamp::from_millis(millis))
    }

    /// Whether [`Record::timestamp`] was set by the broker (log-append time) rather than the producer.
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.raw.marks() & 4 != 0
    }

    /// Its offset in the partition.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.raw.offset()
    }

    /// The partition it came from.
    #[inline]
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.raw.partition()
    }

    /// The fields themselves, to take owned values out of.
    #[inline]
    #[must_use]
    pub fn into_fields(self) -> F {
        self.fields
    }
}

// The bounds stand on the methods, not on the block: only then does the compiler say what the traits say.
impl<'a, F> Record<'a, F> {
    /// The bytes of the key; `None` for a null key.
    #[inline]
    #[must_use]
    pub fn key_bytes(&self) -> Option<&'a [u8]>
    where
        F: RawFields,
    {
        self.raw.key()
    }

    /// The bytes of the value; `None` for a tombstone.
    #[inline]
    #[must_use]
    pub fn value_bytes(&self) -> Option<&'a [u8]>
    where
        F: RawFields,
    {
        self.raw.value()
    }

    /// The headers in their order, repeats included.
    #[must_use]
    pub fn headers(&self) -> Headers<'a>
    where
        F: HeaderFields,
    {
        let mut reader = Reader::new(self.raw.headers());
        let count = reader.int().and_then(|count| usize::try_from(count).ok());
        Headers {
            reader,
            left: count.unwrap_or(0),
        }
    }
}

impl<F> Deref for Record<'_, F> {
    type Target = F;

    #[inline]
    fn deref(&self) -> &F {
        &self.fields
    }
}

impl<F: fmt::Debug> fmt::Debug for Record<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("fields", &self.fields)
            .field("partition", &self.partition())
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

/// Headers of one record: name and value; the value is `None` where the header has none.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let Some(Cell::Value(name)) = self.reader.cell() else {
            return None;
        };
        let value = match self.reader.cell()? {
            Cell::Value(value) => Some(value),
            Cell::Absent(_) => None,
        };
        Some((text(name)?, value))
    }
}

/// An input without fields: the plugin only looks at bytes, headers or coordinates.
impl<'a> Fields<'a> for () {
    const FIELDS: &'static [FieldSpec] = &[];

    #[inline]
    fn read(_reader: &mut Reader<'a>) -> Result<Self> {
        Ok(())
    }
}

/// A single field under the name `value`, whole.
impl<'a> Fields<'a> for &'a str {
    const FIELDS: &'static [FieldSpec] = &[FieldSpec::of::<&str>("value", "value", None)];

    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        read(reader, "value")
    }
}
