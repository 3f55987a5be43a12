//! One table of a TOML file, read strictly. Getters (`getters.rs`) mark the keys they know; [`Section::finish`] reports
//! the rest, so a key that is never read can never be ignored in silence.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::names::{Rule, did_you_mean};
use super::problems::{Problem, Report};
use super::value::{At, Entry, entry, entry_at, kind_of};

/// One table while it is read.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    report: &'a Report<'a>,
    table: &'a DeTable<'a>,
    path: String,
    at: Option<Range<usize>>,
    known: RefCell<BTreeSet<&'static str>>,
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
        }
    }

    /// The section as a person writes it, e.g. `[input.quakes]`.
    pub(crate) fn shown(&self) -> String {
        if self.path.is_empty() {
            String::from("the top level")
        } else {
            format!("[{}]", self.path)
        }
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
            if !matches!(one.value.value, DeValue::Table(_)) {
                parent.unnamed(&one, rule);
                continue;
            }
            parent.fits(&one.key, rule);
            if let Some(section) = parent.open(&one) {
                named.push((one.key, section));
            }
        }
        named
    }

    /// An array of tables, inline or as `[[key]]`, in order; reports what is none. Empty when absent.
    pub(crate) fn tables(&self, key: &'static str, example: &str) -> Vec<Section<'a>> {
        let Some(one) = self.entry(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = one.value.value else {
            if self.report.holds_secrets() {
                self.hide(&one);
            }
            let kind = kind_of(one.value.value);
            self.report.add(
                Problem::at(
                    one.value.span.clone(),
                    format!("{key} takes an array of tables, not {kind}"),
                )
                .label(kind)
                .hint(format!("{key} = [{example}]")),
            );
            return Vec::new();
        };
        let mut all = Vec::new();
        for item in items.iter() {
            let mut element = entry_at(&one.key, item);
            element.value.span = item.span();
            if let Some(mut section) = self.open(&element) {
                section.at = Some(item.span());
                all.push(section);
            }
        }
        all
    }

    /// Reports a plain key where only named sections belong: most likely the name was forgotten.
    fn unnamed(&self, one: &Entry<'a>, rule: Rule) {
        if self.report.holds_secrets() {
            self.hide(one);
        }
        let path = &self.path;
        self.report.add(
            Problem::at(
                one.key.span.clone(),
                format!(
                    "[{path}] holds named sections, and {:?} is none",
                    one.key.value
                ),
            )
            .label(kind_of(one.value.value))
            .hint(format!(
                "write [{path}.NAME] above it, with the {}",
                rule.what
            )),
        );
    }

    /// An entry as a sub-table; reports when it is none.
    pub(crate) fn open(&self, one: &Entry<'a>) -> Option<Section<'a>> {
        let DeValue::Table(table) = one.value.value else {
            if self.report.holds_secrets() {
                self.hide(one);
            }
            let path = self.path_of(one.key.value);
            let kind = kind_of(one.value.value);
            self.report.add(
                Problem::at(
                    one.value.span.clone(),
                    format!("[{path}] is a section, not {kind}"),
                )
                .label(kind)
                .hint(format!("write [{path}], or {} = {{ … }}", one.key.value)),
            );
            return None;
        };
        Some(Section {
            report: self.report,
            table,
            path: self.path_of(one.key.value),
            at: Some(one.key.span.clone()),
            known: RefCell::default(),
        })
    }

    /// Stars out a value, however deep, whenever the text is shown.
    pub(crate) fn hide(&self, one: &Entry<'_>) {
        match one.value.value {
            DeValue::Table(table) => {
                for (key, value) in table.iter() {
                    self.hide(&entry(key, value));
                }
            }
            DeValue::Array(items) => {
                self.report.hide(one.value.span.clone());
                // Items of `[[…]]` lie outside the array's own place.
                for item in items.iter() {
                    self.hide(&entry_at(&one.key, item));
                }
            }
            _ => self.report.hide(one.value.span.clone()),
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
            if self.report.holds_secrets() {
                self.hide(&one);
            }
            let place = match self.at {
                Some(_) => format!("in {}", self.shown()),
                None => format!("at {}", self.shown()),
            };
            self.report.add(
                Problem::at(
                    one.key.span.clone(),
                    format!("key {:?} is not known {place}", one.key.value),
                )
                .label("not a key of this section")
                .maybe_hint(did_you_mean(one.key.value, known.iter().copied())),
            );
        }
    }

    fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}
