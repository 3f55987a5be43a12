//! Values with their places, as the TOML parser found them. No checks: see [`super::Section`].

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    /// The value.
    pub(crate) value: T,
    /// Byte range in the text.
    pub(crate) span: Range<usize>,
}

impl<T> At<T> {
    /// Keeps the place, changes the value.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At {
            value: change(self.value),
            span: self.span,
        }
    }
}

/// One key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    /// The key.
    pub(crate) key: At<&'a str>,
    /// The value; a table's place is its key, since its body may be anywhere.
    pub(crate) value: At<&'a DeValue<'a>>,
}

/// A key and its value with their places.
pub(super) fn entry<'a>(
    key: &'a Spanned<Cow<'a, str>>,
    value: &'a Spanned<DeValue<'a>>,
) -> Entry<'a> {
    let key = At {
        value: key.get_ref().as_ref(),
        span: key.span(),
    };
    entry_at(&key, value)
}

/// A value under a key that is known already.
pub(super) fn entry_at<'a>(key: &At<&'a str>, value: &'a Spanned<DeValue<'a>>) -> Entry<'a> {
    let span = match value.get_ref() {
        DeValue::Table(_) => key.span.clone(),
        _ => value.span(),
    };
    Entry {
        key: key.clone(),
        value: At {
            value: value.get_ref(),
            span,
        },
    }
}

/// What a value is, in words.
pub(crate) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date-time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
