//! `[route.NAME]` of `plugin.toml`, and its union with the columns the component describes.

use std::time::Duration;

use toml::de::DeValue;

use super::describe::DescribedRoute;
use super::hand::{self, ByHand};
use super::topic::{self, Kafka};
use super::types::{CassandraTable, Create, Mode, PostgresTable, Route, Target};
use crate::record::{Column, Type};
use crate::toml_check::names::{self, did_you_mean};
use crate::toml_check::{At, Problem, Section};

/// Longest time to live: Cassandra's own limit of 20 years
/// (<https://cassandra.apache.org/doc/latest/cassandra/developing/cql/dml.html>).
const MAX_TTL: Duration = Duration::from_secs(630_720_000);

/// A route as the file alone says it.
#[derive(Debug)]
pub(super) struct DraftRoute<'a> {
    pub(super) name: At<&'a str>,
    section: Section<'a>,
    sink: Option<Sink<'a>>,
    columns: Option<ByHand<'a>>,
}

#[derive(Debug)]
enum Sink<'a> {
    Postgres(Postgres<'a>),
    Cassandra(Cassandra<'a>),
    Kafka(Kafka<'a>),
}

#[derive(Debug)]
struct Postgres<'a> {
    table: String,
    mode: Mode,
    key: Vec<At<&'a str>>,
    guard: Option<At<&'a str>>,
    deleted_at: Option<At<&'a str>>,
    create: Create,
}

#[derive(Debug)]
struct Cassandra<'a> {
    table: String,
    partition_key: Vec<At<&'a str>>,
    clustering_key: Vec<At<&'a str>>,
    ttl: Option<Duration>,
    consistency: String,
    create: Create,
    cross_partition_keys: bool,
}

/// Reads one section; findings about its keys are reported here.
pub(super) fn read<'a>(name: At<&'a str>, section: Section<'a>) -> DraftRoute<'a> {
    section.need("sink", "\"postgres\"");
    let columns = hand::columns(&section);
    let sink = section.text("sink").and_then(|sink| match sink.value {
        "postgres" => Some(Sink::Postgres(postgres(&section))),
        "cassandra" => Some(Sink::Cassandra(cassandra(&section))),
        "kafka" => Some(Sink::Kafka(topic::read(&section))),
        other => {
            section.report().add(unknown_sink(other, sink.span));
            None
        }
    });
    DraftRoute {
        name,
        section,
        sink,
        columns,
    }
}

fn unknown_sink(written: &str, span: std::ops::Range<usize>) -> Problem {
    Problem::at(span, format!("sink {written:?} is not known"))
        .label("not a sink")
        .maybe_hint(did_you_mean(written, ["postgres", "cassandra", "kafka"]))
}

/// A missing table or topic is never created unless the author asks for it: a misspelt name would create one.
pub(super) fn create(section: &Section<'_>) -> Create {
    let words = [("never", Create::Never), ("if-missing", Create::IfMissing)];
    let found = section.choice("create", &words);
    found.map_or(Create::Never, |found| found.value)
}

fn table(section: &Section<'_>, rule: names::Rule) -> String {
    section.need("table", "\"TABLE\"");
    let found = section.name("table", rule);
    found.map_or_else(String::new, |found| found.value.to_owned())
}

fn postgres<'a>(section: &Section<'a>) -> Postgres<'a> {
    section.need("mode", "\"upsert\" or \"append\"");
    let table = table(section, names::POSTGRES_TABLE);
    let mode = section.choice(
        "mode",
        &[("upsert", Mode::Upsert), ("append", Mode::Append)],
    );
    let key_entry = section.entry("key");
    // A key of the wrong type is reported as such, and is not "no key" as well.
    let no_key = key_entry
        .as_ref()
        .is_none_or(|entry| matches!(entry.value.value, DeValue::Array(items) if items.is_empty()));
    let key_place = key_entry.map(|entry| entry.key.span);
    let key = section.texts("key");
    let guard = section.text("guard");
    let deleted_at = section.name("deleted_at", names::COLUMN);
    let add = |problem| section.report().add(problem);
    match mode.as_ref().map(|mode| mode.value) {
        Some(Mode::Upsert) if no_key => {
            let place = key_place.or(mode.as_ref().map(|mode| mode.span.clone()));
            add(
                Problem::at(place.unwrap_or_default(), "mode \"upsert\" without a key")
                    .label("which row is updated?")
                    .hint("add key = [\"COLUMN\"], or write mode = \"append\""),
            );
        }
        Some(Mode::Append) => {
            if let Some(place) = key_place {
                add(Problem::at(place, "mode \"append\" has no key")
                    .label("every row is inserted")
                    .hint("remove key, or write mode = \"upsert\""));
            }
            if let Some(guard) = &guard {
                add(
                    Problem::at(guard.span.clone(), "mode \"append\" has no guard")
                        .label("nothing is overwritten")
                        .hint("remove guard, or write mode = \"upsert\""),
                );
            }
        }
        _ => {}
    }
    if let (Some(column), None) = (&deleted_at, &guard) {
        add(Problem::at(column.span.clone(), "deleted_at without a guard")
            .label("nothing to keep")
            .hint("remove it: without a guard a delete removes the row; or add guard = \"COLUMN\""));
    }
    Postgres {
        table,
        mode: mode.map_or(Mode::Append, |mode| mode.value),
        key,
        guard,
        deleted_at,
        create: create(section),
    }
}

fn cassandra<'a>(section: &Section<'a>) -> Cassandra<'a> {
    section.need("partition_key", "[\"COLUMN\"]");
    let table = table(section, names::CASSANDRA_TABLE);
    let partition_key = section.texts("partition_key");
    if let Some(entry) = section.entry("partition_key")
        && matches!(entry.value.value, DeValue::Array(items) if items.is_empty())
    {
        section.report().add(
            Problem::at(entry.value.span, "partition_key is empty")
                .label("at least one column")
                .hint("name the columns whose rows live together"),
        );
    }
    let clustering_key = section.texts("clustering_key");
    for twice in clustering_key
        .iter()
        .filter(|one| partition_key.iter().any(|p| p.value == one.value))
    {
        section.report().add(
            Problem::at(
                twice.span.clone(),
                format!(
                    "column {:?} is in both partition_key and clustering_key",
                    twice.value
                ),
            )
            .label("a second time")
            .hint("remove it from one of the two"),
        );
    }
    let ttl = section.duration("ttl", Duration::from_secs(1)..=MAX_TTL);
    if let Some(ttl) = &ttl
        && ttl.value.subsec_nanos() != 0
    {
        section.report().add(
            Problem::at(ttl.span.clone(), "ttl is not a whole number of seconds")
                .label("Cassandra counts seconds")
                .hint("write it in s, m, h or d"),
        );
    }
    let levels = ["local-quorum", "quorum", "one", "all"].map(|level| (level, level));
    let consistency = section.choice("consistency", &levels);
    let cross = section.boolean("cross_partition_keys");
    Cassandra {
        table,
        partition_key,
        clustering_key,
        ttl: ttl.map(|ttl| ttl.value),
        consistency: consistency
            .map_or("local-quorum", |found| found.value)
            .to_owned(),
        create: create(section),
        cross_partition_keys: cross.is_some_and(|found| found.value),
    }
}

impl DraftRoute<'_> {
    /// Reports unknown keys, unless the sink is not known and with it which keys there are.
    pub(super) fn finish(self) {
        if self.sink.is_some() {
            self.section.finish();
        }
    }

    /// Joins the file with the description of the same name; `None` when the sink is not known (reported).
    pub(super) fn complete(self, described: DescribedRoute) -> Option<Route> {
        if let Some(columns) = &self.columns {
            columns.agree_with_columns(&described.columns);
        }
        let table = !matches!(self.sink, Some(Sink::Kafka(_)));
        for column in &described.columns {
            if column.ty == Type::Headers && table {
                let name = &column.name;
                self.section.report().add(
                    self.section
                        .problem(format!("column {name:?} of the component has type headers, which no table takes"))
                        .hint("write the headers you need as text or bytes columns"),
                );
            }
        }
        let resolve = Resolve {
            section: &self.section,
            columns: &described.columns,
        };
        let target = match self.sink.as_ref()? {
            Sink::Postgres(sink) => Target::Postgres(resolve.postgres(sink)),
            Sink::Cassandra(sink) => Target::Cassandra(resolve.cassandra(sink)),
            Sink::Kafka(sink) => Target::Kafka(sink.resolve(&resolve)),
        };
        self.finish();
        Some(Route {
            name: described.name,
            columns: described.columns,
            target,
        })
    }
}

/// Column names to indices, with the rules for keys and guards.
pub(super) struct Resolve<'r, 'a> {
    section: &'r Section<'a>,
    pub(super) columns: &'r [Column],
}

impl Resolve<'_, '_> {
    fn postgres(&self, sink: &Postgres<'_>) -> PostgresTable {
        let key = self.keys(&sink.key);
        let guard = sink
            .guard
            .as_ref()
            .and_then(|guard| self.guard(guard, &key));
        if let Some(name) = &sink.deleted_at
            && self.columns.iter().any(|column| column.name == name.value)
        {
            self.add(
                name,
                format!("deleted_at {:?} is a column of the component", name.value),
                "the host writes it",
                Some(String::from(
                    "name a column that the row type of the code does not have",
                )),
            );
        }
        PostgresTable {
            table: sink.table.clone(),
            mode: sink.mode,
            key,
            guard,
            deleted_at: sink.deleted_at.as_ref().map(|name| name.value.to_owned()),
            create: sink.create,
        }
    }

    fn cassandra(&self, sink: &Cassandra<'_>) -> CassandraTable {
        CassandraTable {
            table: sink.table.clone(),
            partition_key: self.keys(&sink.partition_key),
            clustering_key: self.keys(&sink.clustering_key),
            ttl: sink.ttl,
            consistency: sink.consistency.clone(),
            create: sink.create,
            cross_partition_keys: sink.cross_partition_keys,
        }
    }

    pub(super) fn column(&self, name: &At<&str>) -> Option<usize> {
        let found = self
            .columns
            .iter()
            .position(|column| column.name == name.value);
        if found.is_none() {
            let names = self.columns.iter().map(|column| column.name.as_str());
            self.add(
                name,
                format!("column {:?} is not in the component", name.value),
                "not a column of this route",
                did_you_mean(name.value, names),
            );
        }
        found
    }

    pub(super) fn keys(&self, names: &[At<&str>]) -> Vec<usize> {
        names.iter().filter_map(|name| self.key(name)).collect()
    }

    fn key(&self, name: &At<&str>) -> Option<usize> {
        let index = self.column(name)?;
        let column = &self.columns[index];
        if column.nullable {
            self.add(
                name,
                format!("key column {:?} is nullable", name.value),
                "null is no key",
                Some(String::from(
                    "make it not nullable in the row type of the code",
                )),
            );
        }
        use Type::{Headers, Json, List, Map, Set};
        if matches!(column.ty, Json | Headers | List(_) | Set(_) | Map(..)) {
            self.add(
                name,
                format!("key column {:?} has type {}", name.value, column.ty),
                "has no equality to find a row by",
                Some(String::from("use a column of a plain type as key")),
            );
        }
        Some(index)
    }

    fn guard(&self, name: &At<&str>, key: &[usize]) -> Option<usize> {
        let index = self.column(name)?;
        let column = &self.columns[index];
        if column.nullable {
            self.add(
                name,
                format!("guard {:?} is nullable", name.value),
                "null is neither older nor newer",
                Some(String::from(
                    "make it not nullable in the row type of the code",
                )),
            );
        }
        if key.contains(&index) {
            self.add(
                name,
                format!("guard {:?} is a key column", name.value),
                "the same in every row of a key",
                Some(String::from(
                    "name the column that grows with each change, e.g. its time",
                )),
            );
        }
        use Type::{Date, Decimal, Int16, Int32, Int64, Time, Timestamp};
        if !matches!(
            column.ty,
            Int16 | Int32 | Int64 | Decimal { .. } | Timestamp | Date | Time
        ) {
            self.add(
                name,
                format!("guard {:?} has type {}", name.value, column.ty),
                "has no order that everybody shares",
                Some(String::from(
                    "a guard is an integer, a decimal, a timestamp, a date or a time",
                )),
            );
        }
        Some(index)
    }

    pub(super) fn add(&self, name: &At<&str>, message: String, label: &str, hint: Option<String>) {
        let problem = Problem::at(name.span.clone(), message)
            .label(label)
            .maybe_hint(hint);
        self.section.report().add(problem);
    }
}
