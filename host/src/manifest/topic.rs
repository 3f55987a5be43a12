//! `[route.NAME]` of a route to Kafka: which topic, and how a row becomes a message.

use toml::de::DeValue;

use super::route::{Resolve, create};
use super::types::{Create, KafkaTopic, KeyFormat, ValueFormat};
use crate::record::Type;
use crate::toml_check::names::{self, did_you_mean};
use crate::toml_check::{At, Problem, Section};

/// Most partitions of a topic that the host creates; more are somebody's slip.
const MAX_PARTITIONS: u16 = 10_000;
/// Most replicas of a topic that the host creates.
const MAX_REPLICAS: u16 = 32;

/// The section as the file alone says it.
#[derive(Debug)]
pub(super) struct Kafka<'a> {
    topic: String,
    key: Vec<At<&'a str>>,
    key_format: Option<At<KeyFormat>>,
    value: Option<Value<'a>>,
    headers: Vec<(String, At<&'a str>)>,
    create: Create,
    partitions: Option<u16>,
    replication: Option<u16>,
}

#[derive(Debug)]
enum Value<'a> {
    Json,
    Csv,
    Bytes(At<&'a str>),
}

/// Reads the keys of a route whose sink is Kafka; findings are reported here.
pub(super) fn read<'a>(section: &Section<'a>) -> Kafka<'a> {
    section.need("topic", "\"TOPIC\"");
    section.need("value", "\"json\"");
    let topic = section.name("topic", names::TOPIC);
    let create = create(section);
    let partitions = number(section, "partitions", MAX_PARTITIONS);
    let replication = number(section, "replication", MAX_REPLICAS);
    if create == Create::IfMissing && !section.has("partitions") {
        section.report().add(
            section
                .problem("create = \"if-missing\" without a number of partitions")
                .hint("add partitions = 6, or whatever the readers of the topic need"),
        );
    }
    if let Some(entry) = section.entry("replication")
        && create == Create::Never
    {
        section.report().add(
            Problem::at(
                entry.key.span,
                "replication is for a topic that the host creates",
            )
            .label("means nothing here")
            .hint("add create = \"if-missing\", or remove replication"),
        );
    }
    Kafka {
        topic: topic.map_or_else(String::new, |found| found.value.to_owned()),
        key: section.texts("key"),
        key_format: section.choice(
            "key_format",
            &[
                ("text", KeyFormat::Text),
                ("bytes", KeyFormat::Bytes),
                ("json", KeyFormat::Json),
            ],
        ),
        value: value(section),
        headers: headers(section),
        create,
        partitions,
        replication,
    }
}

fn number(section: &Section<'_>, key: &'static str, most: u16) -> Option<u16> {
    let found = section.integer(key, 1..=i64::from(most))?;
    u16::try_from(found.value).ok()
}

fn value<'a>(section: &Section<'a>) -> Option<Value<'a>> {
    let text = section.text("value")?;
    match text.value {
        "json" => Some(Value::Json),
        "csv" => Some(Value::Csv),
        other => match other.strip_prefix("bytes:") {
            Some(column) if !column.is_empty() => Some(Value::Bytes(text.map(|_| column))),
            _ => {
                let hint = did_you_mean(other, ["json", "csv"]);
                section.report().add(
                    Problem::at(text.span.clone(), format!("value {other:?} is not known"))
                        .label("not a format")
                        .hint(hint.unwrap_or_else(|| {
                            String::from("one of \"json\", \"csv\", \"bytes:COLUMN\"")
                        })),
                );
                None
            }
        },
    }
}

fn headers<'a>(section: &Section<'a>) -> Vec<(String, At<&'a str>)> {
    let Some(headers) = section.section("headers") else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for entry in headers.entries() {
        headers.fits(&entry.key, names::HEADER);
        let DeValue::String(column) = entry.value.value else {
            headers.report().add(
                Problem::at(
                    entry.value.span.clone(),
                    format!("header {:?} is not a column", entry.key.value),
                )
                .label("not a string")
                .hint("write headers = { NAME = \"COLUMN\" }"),
            );
            continue;
        };
        let column = At {
            value: column.as_ref(),
            span: entry.value.span.clone(),
        };
        all.push((entry.key.value.to_owned(), column));
    }
    // TOML tables have no order: nothing may depend on theirs.
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

impl Kafka<'_> {
    /// Joins the file with the columns of the component.
    pub(super) fn resolve(&self, resolve: &Resolve<'_, '_>) -> KafkaTopic {
        let key = resolve.keys(&self.key);
        let several = self.key.len() > 1;
        let key_format = self.key_format.as_ref().map(|found| found.value);
        let key_format = key_format.unwrap_or(if several {
            KeyFormat::Json
        } else {
            KeyFormat::Text
        });
        self.key_fits(key_format, &key, resolve);
        let headers = self.headers.iter();
        let headers = headers.filter_map(|(name, column)| {
            let index = resolve.column(column)?;
            if resolve.columns[index].ty == Type::Headers {
                resolve.add(
                    column,
                    format!("column {:?} has type headers", column.value),
                    "is sent as headers anyway",
                    Some(format!("remove {name} from headers")),
                );
            }
            Some((name.clone(), index))
        });
        KafkaTopic {
            topic: self.topic.clone(),
            key,
            key_format,
            headers: headers.collect(),
            value: match &self.value {
                Some(Value::Csv) => ValueFormat::Csv,
                Some(Value::Bytes(column)) => payload(column, resolve),
                Some(Value::Json) | None => ValueFormat::Json,
            },
            create: self.create,
            partitions: self.partitions,
            replication: self.replication,
        }
    }

    /// Reports a key that its format cannot hold.
    fn key_fits(&self, format: KeyFormat, key: &[usize], resolve: &Resolve<'_, '_>) {
        let Some(first) = self.key.first() else {
            if let Some(format) = &self.key_format {
                let place = format.clone().map(|_| "");
                resolve.add(
                    &place,
                    "key_format without a key".to_owned(),
                    "messages have no key",
                    Some("add key = [\"COLUMN\"], or remove key_format".to_owned()),
                );
            }
            return;
        };
        let word = match format {
            KeyFormat::Json => return,
            KeyFormat::Text => "text",
            KeyFormat::Bytes => "bytes",
        };
        if let Some(second) = self.key.get(1) {
            resolve.add(
                second,
                format!("key_format {word:?} takes one column"),
                "a second one",
                Some("write key_format = \"json\", or name one column".to_owned()),
            );
            return;
        }
        let Some(column) = key.first().map(|index| &resolve.columns[*index]) else {
            return;
        };
        let fits = match format {
            KeyFormat::Bytes => matches!(column.ty, Type::Bytes | Type::Text),
            KeyFormat::Text | KeyFormat::Json => column.ty != Type::Bytes,
        };
        if !fits {
            let other = if format == KeyFormat::Text {
                "write key_format = \"bytes\""
            } else {
                "key_format = \"bytes\" takes a column of type bytes or text"
            };
            resolve.add(
                first,
                format!(
                    "key column {:?} has type {}, and key_format is {word:?}",
                    first.value, column.ty
                ),
                "not written in this format",
                Some(other.to_owned()),
            );
        }
    }
}

/// The column that is the whole value.
fn payload(name: &At<&str>, resolve: &Resolve<'_, '_>) -> ValueFormat {
    let Some(index) = resolve.column(name) else {
        return ValueFormat::Json;
    };
    let column = &resolve.columns[index];
    if !matches!(column.ty, Type::Bytes | Type::Text | Type::Json) {
        resolve.add(
            name,
            format!("value column {:?} has type {}", name.value, column.ty),
            "has no bytes of its own",
            Some("use a column of type bytes, text or json, or value = \"json\"".to_owned()),
        );
    }
    if column.nullable {
        resolve.add(
            name,
            format!("value column {:?} is nullable", name.value),
            "a null value would delete",
            Some(
                "make it not nullable in the row type of the code; a delete row is a tombstone"
                    .to_owned(),
            ),
        );
    }
    ValueFormat::Bytes(index)
}
