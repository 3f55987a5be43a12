//! What a component says about itself: the JSON of interface `describe`, read strictly and checked alone.
//! It knows nothing of `plugin.toml`; [`super::check`] lays the two side by side.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::types::{ConfigItem, Field, FieldSource, Unit};
use crate::record::{Column, Type};
use crate::toml_check::names::{self, Rule};
use crate::toml_check::{Problem, Report};

/// Most inputs of a plugin; an index is a `u16` in the interface, and nobody reads more topics by one function.
const MAX_INPUTS: usize = 256;
/// Most routes of a plugin: an index is one byte in the interface.
pub(super) const MAX_ROUTES: usize = 256;
/// Most fields of an input or columns of a route; Postgres allows 1600 columns, Cassandra advises far fewer.
const MAX_COLUMNS: usize = 1000;
/// Greatest size of the JSON, bytes.
const MAX_JSON: usize = 1 << 20;

/// The described component; array order is index order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Described {
    pub(super) sdk: String,
    pub(super) inputs: Vec<DescribedInput>,
    pub(super) routes: Vec<DescribedRoute>,
    pub(super) config: Vec<ConfigItem>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct DescribedInput {
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
    pub(super) raw: bool,
    pub(super) headers: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct DescribedRoute {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDescribed {
    sdk: String,
    inputs: Vec<RawInput>,
    routes: Vec<RawRoute>,
    config: Vec<RawConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInput {
    name: String,
    fields: Vec<RawField>,
    raw: bool,
    headers: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    nullable: bool,
    from: String,
    #[serde(default)]
    unit: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    name: String,
    columns: Vec<RawColumn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawColumn {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    nullable: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    #[serde(default)]
    default: Option<Value>,
    #[serde(default)]
    secret: bool,
}

/// Reads the JSON; `None` when it could not be read at all (reported).
pub(super) fn read(json: &str, report: &Report<'_>) -> Option<Described> {
    let said = Said { report };
    if json.len() > MAX_JSON {
        said.wrong(format!("has {} bytes, more than {MAX_JSON}", json.len()));
        return None;
    }
    let raw: RawDescribed = match serde_json::from_str(json) {
        Ok(raw) => raw,
        Err(error) => {
            said.wrong(format!("is not the JSON of interface describe: {error}"));
            return None;
        }
    };
    said.count("inputs", raw.inputs.len(), 1, MAX_INPUTS);
    said.count("routes", raw.routes.len(), 1, MAX_ROUTES);
    said.count("config values", raw.config.len(), 0, MAX_COLUMNS);
    said.names("", names::INPUT, raw.inputs.iter().map(|one| &one.name));
    said.names("", names::ROUTE, raw.routes.iter().map(|one| &one.name));
    said.names("", names::CONFIG, raw.config.iter().map(|one| &one.name));
    Some(Described {
        sdk: raw.sdk,
        inputs: raw.inputs.into_iter().map(|one| said.input(one)).collect(),
        routes: raw.routes.into_iter().map(|one| said.route(one)).collect(),
        config: raw.config.into_iter().map(|one| said.config(one)).collect(),
    })
}

/// Where findings about the description go; bad parts are replaced by harmless ones.
struct Said<'r, 't> {
    report: &'r Report<'t>,
}

impl Said<'_, '_> {
    fn wrong(&self, what: impl std::fmt::Display) {
        self.report.add(
            Problem::anywhere(format!("the component's description {what}"))
                .hint("it is written by the SDK: correct the code and build again"),
        );
    }

    fn count(&self, what: &str, number: usize, least: usize, most: usize) {
        if number < least || number > most {
            self.wrong(format!(
                "has {number} {what}; {least} to {most} are allowed"
            ));
        }
    }

    fn names<'n>(&self, of: &str, rule: Rule, names: impl Iterator<Item = &'n String>) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !rule.fits(name) {
                let (what, words) = (rule.what, rule.words);
                self.wrong(format!(
                    "has {what} {name:?}{of}, which is not allowed ({words})"
                ));
            }
            if !seen.insert(name) {
                self.wrong(format!("has {} {name:?}{of} twice", rule.what));
            }
        }
    }

    fn input(&self, raw: RawInput) -> DescribedInput {
        let of = format!(" of input {:?}", raw.name);
        self.count(&format!("fields{of}"), raw.fields.len(), 0, MAX_COLUMNS);
        self.names(&of, names::FIELD, raw.fields.iter().map(|one| &one.name));
        let fields = raw.fields.into_iter().map(|one| self.field(&of, one));
        DescribedInput {
            fields: fields.collect(),
            name: raw.name,
            raw: raw.raw,
            headers: raw.headers,
        }
    }

    fn field(&self, of: &str, raw: RawField) -> Field {
        let from = raw.from.parse().unwrap_or_else(|hint| {
            self.wrong(format!(
                "has field {:?}{of} from {:?}: {hint}",
                raw.name, raw.from
            ));
            FieldSource::Key
        });
        let unit = raw.unit.and_then(|text| {
            let unit = Unit::from_text(&text);
            if unit.is_none() {
                self.wrong(format!(
                    "has field {:?}{of} in unit {text:?}; one of s, ms, us, ns",
                    raw.name
                ));
            }
            unit
        });
        Field {
            column: Column {
                ty: self.ty(&format!("field {:?}{of}", raw.name), &raw.ty),
                name: raw.name,
                nullable: raw.nullable,
            },
            from,
            unit,
        }
    }

    fn route(&self, raw: RawRoute) -> DescribedRoute {
        let of = format!(" of route {:?}", raw.name);
        self.count(&format!("columns{of}"), raw.columns.len(), 1, MAX_COLUMNS);
        self.names(&of, names::COLUMN, raw.columns.iter().map(|one| &one.name));
        let columns = raw.columns.into_iter().map(|one| Column {
            ty: self.ty(&format!("column {:?}{of}", one.name), &one.ty),
            name: one.name,
            nullable: one.nullable,
        });
        DescribedRoute {
            columns: columns.collect(),
            name: raw.name,
        }
    }

    fn config(&self, raw: RawConfig) -> ConfigItem {
        let what = format!("config value {:?}", raw.name);
        let ty = self.ty(&what, &raw.ty);
        if !matches!(ty, Type::Boolean | Type::Int64 | Type::Float64 | Type::Text) {
            self.wrong(format!(
                "has {what} of type {ty}; one of boolean, int64, float64, text"
            ));
        }
        // JSON null and an absent key both mean that the operator has to set it.
        let default = raw.default.filter(|value| !value.is_null());
        if let Some(value) = &default
            && !has_type(value, &ty)
        {
            self.wrong(format!("has {what} of type {ty} with default {value}"));
        }
        ConfigItem {
            name: raw.name,
            ty,
            default,
            secret: raw.secret,
        }
    }

    fn ty(&self, what: &str, text: &str) -> Type {
        text.parse().unwrap_or_else(|error| {
            self.wrong(format!("has {what}: {error}"));
            Type::Text
        })
    }
}

/// Whether a JSON value is one of a config type; integers are welcome as floats.
pub(super) fn has_type(value: &Value, ty: &Type) -> bool {
    match ty {
        Type::Boolean => value.is_boolean(),
        Type::Int64 => value.is_i64(),
        Type::Float64 => value.is_number(),
        Type::Text => value.is_string(),
        _ => false,
    }
}
