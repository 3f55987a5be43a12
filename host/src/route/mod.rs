//! Routes: where rows go, and what becomes of records that do not get there.
//!
//! [`DeadLetter`] names a record set aside; its bytes stay in the batch until the anchor writes them.
//! [`RouteTable`] judges what a guest returned.

mod check;
mod fit;
mod rules;

pub use check::{RouteTable, Tally};
pub use rules::{CASSANDRA_MAX_KEY, CASSANDRA_MAX_ROW, POSTGRES_MAX_ROW, Rules, Store};

use std::borrow::Cow;

/// Whose fault a dead letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadClass {
    /// The record: it does not decode, was rejected, or its rows do not fit.
    Data,
    /// The plugin: it trapped or went past a limit on exactly this record.
    Plugin,
}

impl DeadClass {
    /// The name in tables, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Plugin => "plugin",
        }
    }
}

/// A record of a batch that is set aside, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Index of the record in its batch.
    pub source: u32,
    /// Whose fault.
    pub class: DeadClass,
    /// `[a-z0-9-]{1,32}`, stable; the host's own are the constants of [`code`].
    pub code: Cow<'static, str>,
    /// One sentence for a person.
    pub reason: String,
}

/// The host's own dead-letter codes: one published list.
pub mod code {
    /// The record's bytes are not of the input's format (malformed JSON, no match, bad encoding).
    pub const MALFORMED: &str = "malformed";
    /// A field that is not nullable is absent or null.
    pub const FIELD_MISSING: &str = "field-missing";
    /// A field's value is of another type or out of its range.
    pub const FIELD_TYPE: &str = "field-type";
    /// A null value where the input does not let tombstones pass.
    pub const TOMBSTONE: &str = "tombstone";
    /// A row's cells do not fit the columns of its route.
    pub const ROW_REFUSED: &str = "row-refused";
    /// The record's timestamp lies more than an hour ahead of the host.
    pub const TIMESTAMP_AHEAD: &str = "timestamp-ahead";
    /// The plugin trapped on this record.
    pub const TRAP: &str = "trap";
    /// The plugin went past its memory or output limit on this record.
    pub const LIMIT: &str = "limit";
    /// The plugin returned malformed rows for this record.
    pub const BAD_OUTPUT: &str = "bad-output";
    /// Postgres refused the row (class 22, 23 or 54000).
    pub const POSTGRES_REFUSED: &str = "postgres-refused";
    /// The host died of this record, again and again.
    pub const KILLS_HOST: &str = "kills-host";

    /// All of them.
    pub const OWN: [&str; 11] = [
        MALFORMED,
        FIELD_MISSING,
        FIELD_TYPE,
        TOMBSTONE,
        ROW_REFUSED,
        TIMESTAMP_AHEAD,
        TRAP,
        LIMIT,
        BAD_OUTPUT,
        POSTGRES_REFUSED,
        KILLS_HOST,
    ];
}
