//! Why a record does not decode, kept small until it has to be told; [`Fail::dead_letter`] words it.

use std::borrow::Cow;

use super::Field;
use super::scalar::Unfit;
use crate::record::json::Malformed;
use crate::route::{DeadClass, DeadLetter, code};

/// Which bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Key,
    Value,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
        }
    }
}

/// Why a record does not decode.
#[derive(Debug)]
pub(super) enum Fail {
    /// A null value where tombstones do not pass.
    Tombstone,
    /// The bytes are not of their format.
    Malformed { part: Part, what: String },
    /// A field that is not nullable has no value.
    Missing { field: usize, what: &'static str },
    /// A field's value is of another type.
    Unfit { field: usize, found: String },
}

impl Fail {
    pub(super) fn malformed(part: Part, what: impl Into<String>) -> Self {
        Self::Malformed {
            part,
            what: what.into(),
        }
    }

    pub(super) fn json(part: Part, malformed: Malformed) -> Self {
        Self::malformed(part, format!("not JSON: {malformed}"))
    }

    pub(super) fn unfit(field: usize, Unfit(found): Unfit) -> Self {
        Self::Unfit { field, found }
    }

    #[cold]
    pub(super) fn dead_letter(self, source: u32, fields: &[Field]) -> DeadLetter {
        let (code, reason) = match self {
            Self::Tombstone => (
                code::TOMBSTONE,
                "the value is null and the input does not let tombstones pass".to_owned(),
            ),
            Self::Malformed { part, what } => {
                (code::MALFORMED, format!("the {} is {what}", part.name()))
            }
            Self::Missing { field, what } => {
                let Field { name, from, .. } = &fields[field];
                (
                    code::FIELD_MISSING,
                    format!("field {name:?} ({from}) is {what} and not nullable"),
                )
            }
            Self::Unfit { field, found } => {
                let Field { name, from, ty, .. } = &fields[field];
                (
                    code::FIELD_TYPE,
                    format!("field {name:?} ({from}) wants {ty} and found {found}"),
                )
            }
        };
        DeadLetter {
            source,
            class: DeadClass::Data,
            code: Cow::Borrowed(code),
            reason,
        }
    }
}
