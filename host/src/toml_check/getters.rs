//! Typed getters of a [`Section`]: each reads one key, reports what is wrong with its value and then
//! returns `None`.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::DeValue;

use super::names::{Rule, did_you_mean};
use super::problems::Problem;
use super::section::Section;
use super::units;
use super::value::{At, kind_of};

impl<'a> Section<'a> {
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
            self.unknown_word(key, &text, words);
        }
        found.map(|(_, value)| text.map(|_| *value))
    }

    /// Several of a few words, without repeats; empty when absent.
    pub(crate) fn choices<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Vec<At<T>> {
        let mut found = Vec::new();
        for text in self.texts(key) {
            match words.iter().find(|(word, _)| *word == text.value) {
                Some((_, value)) => found.push(text.map(|_| *value)),
                None => self.unknown_word(key, &text, words),
            }
        }
        found
    }

    /// An array of strings, without repeats; empty when absent.
    pub(crate) fn texts(&self, key: &'static str) -> Vec<At<&'a str>> {
        let Some(one) = self.entry(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = one.value.value else {
            let other = one.value.value;
            let hint = match other {
                DeValue::String(text) => Some(as_list(key, text)),
                _ => None,
            };
            self.wrong_type(
                key,
                &one.value.span,
                "an array of strings",
                other,
                hint.as_deref(),
            );
            return Vec::new();
        };
        let mut texts: Vec<At<&'a str>> = Vec::new();
        let mut seen = BTreeSet::new();
        for item in items.iter() {
            let DeValue::String(text) = item.get_ref() else {
                let kind = kind_of(item.get_ref());
                self.report().add(
                    Problem::at(item.span(), format!("{key} holds strings, not {kind}"))
                        .label(kind),
                );
                continue;
            };
            if !seen.insert(text.as_ref()) {
                self.report().add(
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
                self.report().add(
                    Problem::at(
                        text.span.clone(),
                        format!("{what} {:?} does not read", text.value),
                    )
                    .label("not understood")
                    .hint(hint.to_string()),
                );
                None
            }
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
        self.report().add(
            Problem::at(
                span.clone(),
                format!("{key} takes {expected}, not {}", kind_of(found)),
            )
            .label(kind_of(found))
            .maybe_hint(hint.map(str::to_owned)),
        );
    }

    fn unknown_word<T>(&self, key: &str, text: &At<&str>, words: &[(&'static str, T)]) {
        let known = words.iter().map(|(word, _)| *word);
        self.report().add(
            Problem::at(
                text.span.clone(),
                format!("{key} = {:?} is not known", text.value),
            )
            .label("not a value of this key")
            .maybe_hint(did_you_mean(text.value, known)),
        );
    }

    fn out_of_range(
        &self,
        key: &str,
        span: &Range<usize>,
        low: impl fmt::Display,
        high: impl fmt::Display,
    ) {
        self.report().add(
            Problem::at(span.clone(), format!("{key} is out of range"))
                .label("too small or too large")
                .hint(format!("from {low} to {high}")),
        );
    }
}

/// The line that says what a string where a list belongs most likely means: its words are the items.
fn as_list(key: &str, text: &str) -> String {
    let items = text.split(',').map(str::trim);
    let items: Vec<_> = items
        .filter(|item| !item.is_empty())
        .map(|item| format!("{item:?}"))
        .collect();
    format!("{key} = [{}]", items.join(", "))
}
