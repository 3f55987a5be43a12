//! `[input.NAME]` of `plugin.toml`, and its union with what the component describes.

use regex::RegexBuilder;

use super::describe::DescribedInput;
use super::hand::{self, ByHand};
use super::source::misfit;
use super::types::{Format, Input, KeyFormat, Start, TextFormat, Tombstones};
use crate::toml_check::{At, Problem, Section, names};

/// Greatest compiled size of a `pattern`, bytes: a pattern past it costs more memory than a plugin.
pub const PATTERN_SIZE_LIMIT: usize = 1 << 20;

/// An input as the file alone says it.
#[derive(Debug)]
pub(super) struct DraftInput<'a> {
    pub(super) name: At<&'a str>,
    section: Section<'a>,
    topic: String,
    format: Option<Format>,
    captures: Vec<String>,
    key_format: KeyFormat,
    start: Start,
    tombstones: Tombstones,
    fields: Option<ByHand<'a>>,
    raw: Option<At<bool>>,
    headers: Option<At<bool>>,
}

/// Reads one section; findings about its keys are reported here.
pub(super) fn read<'a>(name: At<&'a str>, section: Section<'a>) -> DraftInput<'a> {
    section.need("topic", "\"TOPIC\"");
    section.need("format", "\"json\"");
    let topic = section.name("topic", names::TOPIC);
    let key_format = section.choice(
        "key_format",
        &[
            ("text", KeyFormat::Text),
            ("bytes", KeyFormat::Bytes),
            ("json", KeyFormat::Json),
        ],
    );
    let start = section.choice(
        "start",
        &[("earliest", Start::Earliest), ("latest", Start::Latest)],
    );
    let tombstones = section.choice(
        "tombstones",
        &[
            ("dead-letter", Tombstones::DeadLetter),
            ("pass", Tombstones::Pass),
        ],
    );
    let (format, captures) = format(&section);
    DraftInput {
        name,
        topic: topic.map_or_else(String::new, |found| found.value.to_owned()),
        format,
        captures,
        key_format: key_format.map_or(KeyFormat::Text, |found| found.value),
        start: start.map_or(Start::Earliest, |found| found.value),
        tombstones: tombstones.map_or(Tombstones::DeadLetter, |found| found.value),
        fields: hand::fields(&section),
        raw: section.boolean("raw"),
        headers: section.boolean("headers"),
        section,
    }
}

/// The format with the names of its captures.
fn format(section: &Section<'_>) -> (Option<Format>, Vec<String>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        Json,
        Text,
        Bytes,
    }
    let words = [
        ("json", Word::Json),
        ("text", Word::Text),
        ("bytes", Word::Bytes),
    ];
    let Some(word) = section.choice("format", &words) else {
        section.knows(&["pattern", "encoding"]);
        return (None, Vec::new());
    };
    if word.value == Word::Text {
        return text_format(section);
    }
    for key in ["pattern", "encoding"] {
        if let Some(entry) = section.entry(key) {
            section.report().add(
                Problem::at(
                    entry.key.span,
                    format!("{key} is for format = \"text\" only"),
                )
                .label("means nothing here")
                .hint(format!("remove {key}, or write format = \"text\"")),
            );
        }
    }
    let format = match word.value {
        Word::Bytes => Format::Bytes,
        Word::Json | Word::Text => Format::Json,
    };
    (Some(format), Vec::new())
}

/// A pattern that does not read gives no format: nothing could be said about the fields.
fn text_format(section: &Section<'_>) -> (Option<Format>, Vec<String>) {
    let pattern = section.text("pattern");
    let built = pattern.as_ref().map(|text| {
        section.read(text, "pattern", |text| {
            let built = RegexBuilder::new(text)
                .size_limit(PATTERN_SIZE_LIMIT)
                .build();
            built.map_err(|error| last_line(&error.to_string()))
        })
    });
    let encoding = section.text("encoding").and_then(|text| {
        section.read(&text, "encoding", |label| {
            encoding_rs::Encoding::for_label(label.as_bytes())
                .map(|_| label.to_owned())
                .ok_or("a label of the WHATWG Encoding Standard, e.g. \"utf-8\", \"windows-1252\", \"shift_jis\"")
        })
    });
    let text = Format::Text(TextFormat {
        pattern: pattern.map(|found| found.value.to_owned()),
        encoding: encoding.map_or_else(|| String::from("utf-8"), |found| found.value),
    });
    match built {
        None => (Some(text), Vec::new()),
        Some(None) => (None, Vec::new()),
        Some(Some(regex)) => {
            let names = regex.value.capture_names().flatten();
            (Some(text), names.map(str::to_owned).collect())
        }
    }
}

/// The line of a regex error that names the cause; the others repeat the pattern.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or(text);
    line.trim_start_matches("error: ").to_owned()
}

impl DraftInput<'_> {
    /// Reports unknown keys; call it once, when no description is there to go on with.
    pub(super) fn finish(self) {
        self.section.finish();
    }

    /// Joins the file with the description of the same name; every disagreement is reported.
    pub(super) fn complete(self, described: DescribedInput) -> Input {
        if let Some(fields) = &self.fields {
            fields.agree_with_fields(&described.fields);
        }
        self.flag_agrees("raw", self.raw.as_ref(), described.raw);
        self.flag_agrees("headers", self.headers.as_ref(), described.headers);
        // A format that did not read would make every field of it look wrong.
        let format = self.format.clone().unwrap_or(Format::Json);
        for field in described.fields.iter().filter(|_| self.format.is_some()) {
            if let Some(why) = misfit(field, &format, self.key_format, &self.captures) {
                let name = &field.column.name;
                self.section.report().add(
                    self.section
                        .problem(format!(
                            "field {name:?} of the component does not fit this input: {why}"
                        ))
                        .hint("correct the field in the code, or the formats here"),
                );
            }
        }
        let input = Input {
            name: described.name,
            topic: self.topic,
            format,
            key_format: self.key_format,
            start: self.start,
            tombstones: self.tombstones,
            fields: described.fields,
            raw: described.raw,
            headers: described.headers,
        };
        self.section.finish();
        input
    }

    fn flag_agrees(&self, key: &str, here: Option<&At<bool>>, there: bool) {
        if let Some(here) = here
            && here.value != there
        {
            self.section.report().add(
                Problem::at(
                    here.span.clone(),
                    format!("{key} is {} here and {there} in the component", here.value),
                )
                .label("does not agree")
                .hint(format!("ask for {key} in the code, or remove {key} here")),
            );
        }
    }
}
