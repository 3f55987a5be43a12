//! One table of a TOML file, read strictly. Getters mark the keys they know; [`Section::finish`] reports
//! the rest, so a key that is never read can never be ignored in silence.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::names::{Rule, did_you_mean};
use super::problems::{Problem, Report};
use super::units;

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

/// One table while it is read.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    report: &'a Report<'a>,
    table: &'a DeTable<'a>,
    path: String,
    at: Option<Range<usize>>,
    known: RefCell<BTreeSet<&'static str>>,
    hide_unknown: bool,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(crate) fn root(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            report,
            table,
            path: String::new(),
            at: None,
            known: RefCell::default(),
            hide_unknown: false,
        }
    }

    /// Stars out the values of unknown keys: one of them may be a misspelt `password`.
    pub(crate) fn hiding_unknown(mut self) -> Self {
        self.hide_unknown = true;
        self
    }

    /// The section as a person writes it, e.g. `[input.quakes]`.
    pub(crate) fn shown(&self) -> String {
        if self.path.is_empty() {
            String::from("the top level")
        } else {
            format!("[{}]", self.path)
        }
    }

    /// Where the section's name stands; `None` for the whole file.
    pub(crate) fn place(&self) -> Option<Range<usize>> {
        self.at.clone()
    }

    /// The report, for findings of the caller's own.
    pub(crate) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// A finding about the section as a whole.
    pub(crate) fn problem(&self, message: impl Into<String>) -> Problem {
        match &self.at {
            Some(span) => Problem::at(span.clone(), message).label("in this section"),
            None => Problem::anywhere(message),
        }
    }

    /// Whether a key is written; does not mark it as known.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Any value.
    pub(crate) fn entry(&self, key: &'static str) -> Option<Entry<'a>> {
        self.known.borrow_mut().insert(key);
        let (key, value) = self.table.get_key_value(key)?;
        Some(entry(key, value))
    }

    /// Every entry of a table whose keys are free names.
    pub(crate) fn entries(&self) -> Vec<Entry<'a>> {
        let mut all: Vec<_> = self.table.iter().map(|(k, v)| entry(k, v)).collect();
        all.sort_by_key(|one| one.key.span.start);
        all
    }

    /// A string.
    pub(crate) fn text(&self, key: &'static str) -> Option<At<&'a str>> {
        self.typed(key, "a string", |value| match value {
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        })
    }

    /// A string that has to be there.
    pub(crate) fn need_text(&self, key: &'static str, example: &str) -> Option<At<&'a str>> {
        self.need(key, example);
        self.text(key)
    }

    /// A string that follows a rule.
    pub(crate) fn name(&self, key: &'static str, rule: Rule) -> Option<At<&'a str>> {
        let text = self.text(key)?;
        self.fits(&text, rule).then_some(text)
    }

    /// Reports a key that has to be there and is not.
    pub(crate) fn need(&self, key: &'static str, example: &str) {
        self.known.borrow_mut().insert(key);
        if !self.has(key) {
            let place = self.shown();
            self.report.add(
                self.problem(format!("key \"{key}\" is missing from {place}"))
                    .hint(format!("add {key} = {example}")),
            );
        }
    }

    /// Whether a text follows a rule; reports when not.
    pub(crate) fn fits(&self, text: &At<&str>, rule: Rule) -> bool {
        let fits = rule.fits(text.value);
        if !fits {
            self.report.add(
                Problem::at(
                    text.span.clone(),
                    format!("{} {:?} is not allowed", rule.what, text.value),
                )
                .label("not a name of this kind")
                .hint(rule.words),
            );
        }
        fits
    }

    /// A boolean.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<At<bool>> {
        self.typed(key, "true or false", |value| match value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        })
    }

    /// An integer in a range.
    pub(crate) fn integer(&self, key: &'static str, range: RangeInclusive<i64>) -> Option<At<i64>> {
        let found = self.typed(key, "an integer", |value| match value {
            DeValue::Integer(number) => Some(number),
            _ => None,
        })?;
        let number = i64::from_str_radix(found.value.as_str(), found.value.radix()).ok();
        let Some(value) = number.filter(|number| range.contains(number)) else {
            self.out_of_range(key, &found.span, range.start(), range.end());
            return None;
        };
        Some(found.map(|_| value))
    }

    /// A duration in a range.
    pub(crate) fn duration(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<At<Duration>> {
        let text = self.typed_hint(key, "a duration", "e.g. \"5s\"", |value| match value {
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        })?;
        let value = self.read(&text, "duration", units::duration)?;
        if !range.contains(&value.value) {
            let [low, high] = [range.start(), range.end()].map(|end| units::show_duration(*end));
            self.out_of_range(key, &text.span, low, high);
            return None;
        }
        Some(value)
    }

    /// A size in bytes in a range: text with a unit, or a number of bytes.
    pub(crate) fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<At<u64>> {
        let one = self.entry(key)?;
        let value = match one.value.value {
            DeValue::String(text) => {
                let text = At {
                    value: text.as_ref(),
                    span: one.value.span.clone(),
                };
                self.read(&text, "size", units::size)?.value
            }
            DeValue::Integer(number) => {
                u64::from_str_radix(number.as_str(), number.radix()).unwrap_or(u64::MAX)
            }
            other => {
                self.wrong_type(
                    key,
                    &one.value.span,
                    "a size",
                    other,
                    Some("e.g. \"32MiB\""),
                );
                return None;
            }
        };
        if !range.contains(&value) {
            let [low, high] = [range.start(), range.end()].map(|end| units::show_size(*end));
            self.out_of_range(key, &one.value.span, low, high);
            return None;
        }
        Some(At {
            value,
            span: one.value.span,
        })
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<At<T>> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            self.report.add(
                Problem::at(
                    text.span.clone(),
                    format!("{key} = {:?} is not known", text.value),
                )
                .label("not a value of this key")
                .maybe_hint(did_you_mean(
                    text.value,
                    words.iter().map(|(word, _)| *word),
                )),
            );
        }
        found.map(|(_, value)| text.map(|_| *value))
    }

    /// An array of strings, without repeats; empty when absent.
    pub(crate) fn texts(&self, key: &'static str) -> Vec<At<&'a str>> {
        let Some(one) = self.entry(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = one.value.value else {
            let other = one.value.value;
            self.wrong_type(key, &one.value.span, "an array of strings", other, None);
            return Vec::new();
        };
        let mut texts: Vec<At<&'a str>> = Vec::new();
        let mut seen = BTreeSet::new();
        for item in items.iter() {
            let DeValue::String(text) = item.get_ref() else {
                self.wrong_type(key, &item.span(), "a string", item.get_ref(), None);
                continue;
            };
            if !seen.insert(text.as_ref()) {
                self.report.add(
                    Problem::at(item.span(), format!("{text:?} appears twice in {key}"))
                        .label("a second time")
                        .hint("remove it"),
                );
                continue;
            }
            texts.push(At {
                value: text.as_ref(),
                span: item.span(),
            });
        }
        texts
    }

    /// A sub-table.
    pub(crate) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let one = self.entry(key)?;
        self.open(&one)
    }

    /// Named sub-tables, e.g. all `[route.NAME]`, in the order of the text; names follow the rule.
    pub(crate) fn sections(
        &self,
        key: &'static str,
        rule: Rule,
    ) -> Vec<(At<&'a str>, Section<'a>)> {
        let Some(parent) = self.section(key) else {
            return Vec::new();
        };
        let mut named = Vec::new();
        for one in parent.entries() {
            parent.fits(&one.key, rule);
            if let Some(section) = parent.open(&one) {
                named.push((one.key, section));
            }
        }
        named
    }

    /// An entry as a sub-table; reports when it is none.
    pub(crate) fn open(&self, one: &Entry<'a>) -> Option<Section<'a>> {
        let DeValue::Table(table) = one.value.value else {
            let expected = format!("a section or {{ … }} of {}", one.key.value);
            self.wrong_type(
                one.key.value,
                &one.value.span,
                &expected,
                one.value.value,
                None,
            );
            return None;
        };
        let path = match self.path.as_str() {
            "" => one.key.value.to_owned(),
            path => format!("{path}.{}", one.key.value),
        };
        Some(Section {
            report: self.report,
            table,
            path,
            at: Some(one.key.span.clone()),
            known: RefCell::default(),
            hide_unknown: self.hide_unknown,
        })
    }

    /// Reads a text by a function whose error is the hint.
    pub(crate) fn read<T, E: fmt::Display>(
        &self,
        text: &At<&str>,
        what: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<At<T>> {
        match read(text.value) {
            Ok(value) => Some(At {
                value,
                span: text.span.clone(),
            }),
            Err(hint) => {
                self.report.add(
                    Problem::at(
                        text.span.clone(),
                        format!("{what} {:?} does not read", text.value),
                    )
                    .label(format!("not a {what}"))
                    .hint(hint.to_string()),
                );
                None
            }
        }
    }

    /// Marks keys that other code reads.
    pub(crate) fn knows(&self, keys: &[&'static str]) {
        self.known.borrow_mut().extend(keys);
    }

    /// Reports every key that nobody asked for.
    pub(crate) fn finish(self) {
        let known = self.known.borrow();
        for one in self.entries() {
            if known.contains(one.key.value) {
                continue;
            }
            if self.hide_unknown {
                self.report.hide(one.value.span.clone());
            }
            let place = self.shown();
            self.report.add(
                Problem::at(
                    one.key.span.clone(),
                    format!("key {:?} is not known in {place}", one.key.value),
                )
                .label("not a key of this section")
                .maybe_hint(did_you_mean(one.key.value, known.iter().copied())),
            );
        }
    }

    fn typed<T>(
        &self,
        key: &'static str,
        expected: &str,
        take: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        self.typed_with(key, expected, None, take)
    }

    fn typed_hint<T>(
        &self,
        key: &'static str,
        expected: &str,
        hint: &str,
        take: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        self.typed_with(key, expected, Some(hint), take)
    }

    fn typed_with<T>(
        &self,
        key: &'static str,
        expected: &str,
        hint: Option<&str>,
        take: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        let one = self.entry(key)?;
        let Some(value) = take(one.value.value) else {
            self.wrong_type(key, &one.value.span, expected, one.value.value, hint);
            return None;
        };
        Some(At {
            value,
            span: one.value.span,
        })
    }

    fn wrong_type(
        &self,
        key: &str,
        span: &Range<usize>,
        expected: &str,
        found: &DeValue<'_>,
        hint: Option<&str>,
    ) {
        self.report.add(
            Problem::at(
                span.clone(),
                format!("{key} takes {expected}, not {}", kind_of(found)),
            )
            .label(kind_of(found))
            .maybe_hint(hint.map(str::to_owned)),
        );
    }

    fn out_of_range(
        &self,
        key: &str,
        span: &Range<usize>,
        low: impl fmt::Display,
        high: impl fmt::Display,
    ) {
        self.report.add(
            Problem::at(span.clone(), format!("{key} is out of range"))
                .label("too small or too large")
                .hint(format!("from {low} to {high}")),
        );
    }
}

fn entry<'a>(
    key: &'a toml::Spanned<std::borrow::Cow<'a, str>>,
    value: &'a toml::Spanned<DeValue<'a>>,
) -> Entry<'a> {
    let span = match value.get_ref() {
        DeValue::Table(_) => key.span(),
        _ => value.span(),
    };
    Entry {
        key: At {
            value: key.get_ref().as_ref(),
            span: key.span(),
        },
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
