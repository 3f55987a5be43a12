//! Fields and columns that an author wrote into `plugin.toml` as well. They add nothing: `describe` says
//! what there is, and whatever is written by hand has to agree with it, name by name (TOML tables have no
//! order).

use std::fmt::Display;

use super::types::{Field, FieldSource, Unit};
use crate::record::{Column, ParseTypeError, Type};
use crate::toml_check::names::{self, did_you_mean};
use crate::toml_check::{At, Problem, Section};

/// Everything written by hand in one `fields` or `columns` table.
#[derive(Debug)]
pub(super) struct ByHand<'a> {
    table: Section<'a>,
    items: Vec<Item<'a>>,
    what: &'static str,
}

#[derive(Debug)]
struct Item<'a> {
    name: At<&'a str>,
    ty: Option<At<Type>>,
    nullable: Option<At<bool>>,
    from: Option<At<FieldSource>>,
    unit: Option<At<Unit>>,
}

/// Reads `fields.NAME = { type, nullable, from, unit }`.
pub(super) fn fields<'a>(input: &Section<'a>) -> Option<ByHand<'a>> {
    let table = input.section("fields")?;
    let items = named(&table, names::FIELD, |section| {
        let from = section.text("from");
        let units = ["s", "ms", "us", "ns"].map(|text| (text, Unit::from_text(text)));
        let unit = section.choice("unit", &units);
        Extra {
            from: from.and_then(|text| section.read(&text, "field source", str::parse)),
            unit: unit.and_then(|found| {
                Some(At {
                    value: found.value?,
                    span: found.span,
                })
            }),
        }
    });
    Some(ByHand {
        table,
        items,
        what: "field",
    })
}

/// Reads `columns.NAME = { type, nullable }`.
pub(super) fn columns<'a>(route: &Section<'a>) -> Option<ByHand<'a>> {
    let table = route.section("columns")?;
    let items = named(&table, names::COLUMN, |_| Extra {
        from: None,
        unit: None,
    });
    Some(ByHand {
        table,
        items,
        what: "column",
    })
}

/// Types without parameters, for "did you mean".
const PLAIN_TYPES: [&str; 13] = [
    "boolean",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
    "text",
    "json",
    "bytes",
    "uuid",
    "timestamp",
    "date",
    "time",
];

/// Reads a type; the error is the hint.
pub(super) fn read_type(text: &str) -> Result<Type, String> {
    text.parse().map_err(|error: ParseTypeError| {
        let close = names::closest(text, PLAIN_TYPES);
        close.map_or_else(
            || error.to_string(),
            |close| format!("did you mean \"{close}\"?"),
        )
    })
}

struct Extra {
    from: Option<At<FieldSource>>,
    unit: Option<At<Unit>>,
}

fn named<'a>(
    table: &Section<'a>,
    rule: names::Rule,
    extra: impl Fn(&Section<'a>) -> Extra,
) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    for entry in table.entries() {
        table.fits(&entry.key, rule);
        let Some(section) = table.open(&entry) else {
            continue;
        };
        let ty = section.text("type");
        let ty = ty.and_then(|text| section.read(&text, "type", read_type));
        let nullable = section.boolean("nullable");
        let Extra { from, unit } = extra(&section);
        section.finish();
        items.push(Item {
            name: entry.key,
            ty,
            nullable,
            from,
            unit,
        });
    }
    items
}

impl ByHand<'_> {
    /// Reports every difference from the described fields.
    pub(super) fn agree_with_fields(&self, described: &[Field]) {
        self.same_names(described.iter().map(|field| field.column.name.as_str()));
        for item in &self.items {
            let Some(field) = described
                .iter()
                .find(|one| one.column.name == item.name.value)
            else {
                continue;
            };
            self.column_agrees(item, &field.column);
            self.same(item, "from", item.from.as_ref(), &field.from);
            if let Some(unit) = &item.unit
                && field.unit != Some(unit.value)
            {
                let there = field.unit.map_or("no unit", Unit::as_text);
                self.differs(item, "unit", unit.span.clone(), unit.value.as_text(), there);
            }
        }
    }

    /// Reports every difference from the described columns.
    pub(super) fn agree_with_columns(&self, described: &[Column]) {
        self.same_names(described.iter().map(|column| column.name.as_str()));
        for item in &self.items {
            if let Some(column) = described.iter().find(|one| one.name == item.name.value) {
                self.column_agrees(item, column);
            }
        }
    }

    fn column_agrees(&self, item: &Item<'_>, column: &Column) {
        self.same(item, "type", item.ty.as_ref(), &column.ty);
        self.same(item, "nullable", item.nullable.as_ref(), &column.nullable);
    }

    fn same_names<'d>(&self, described: impl Iterator<Item = &'d str> + Clone) {
        let what = self.what;
        for item in &self.items {
            let name = item.name.value;
            if !described.clone().any(|there| there == name) {
                self.table.report().add(
                    Problem::at(
                        item.name.span.clone(),
                        format!("{what} {name:?} is not in the component"),
                    )
                    .label("only here")
                    .maybe_hint(did_you_mean(name, described.clone())),
                );
            }
        }
        for name in described {
            if !self.items.iter().any(|item| item.name.value == name) {
                let shown = self.table.shown();
                self.table.report().add(
                    self.table
                        .problem(format!(
                            "{what} {name:?} of the component is missing from {shown}"
                        ))
                        .hint(format!(
                            "add it, or remove {shown}: the component says it anyway"
                        )),
                );
            }
        }
    }

    fn same<T: PartialEq + Display>(
        &self,
        item: &Item<'_>,
        key: &str,
        here: Option<&At<T>>,
        there: &T,
    ) {
        if let Some(here) = here
            && here.value != *there
        {
            self.differs(item, key, here.span.clone(), &here.value, there);
        }
    }

    fn differs(
        &self,
        item: &Item<'_>,
        key: &str,
        span: std::ops::Range<usize>,
        here: impl Display,
        there: impl Display,
    ) {
        let (what, name) = (self.what, item.name.value);
        self.table.report().add(
            Problem::at(
                span,
                format!("{key} of {what} {name:?} is {here} here and {there} in the component"),
            )
            .label("does not agree")
            .hint("correct the one that is wrong; what is written by hand may as well be removed"),
        );
    }
}
