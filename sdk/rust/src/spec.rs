//! What a plugin declares: inputs, routes, configuration; and the text that `describe` answers with.
//! The order of every list is the index order of the interface.

use crate::config::{ConfigValue, Configuration};
use crate::plugin::Plugin;
use crate::record::Fields;
use crate::rows::Row;
use crate::types::Typed;

/// The SDK's name and version in `describe`.
const SDK: &str = concat!("rust ", env!("CARGO_PKG_VERSION"));

/// A column of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Its name in the table.
    pub name: &'static str,
    /// Its type, as manifests write it.
    pub ty: String,
    /// Whether null is allowed.
    pub nullable: bool,
}

/// A field of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSpec {
    /// Name, type, nullable.
    pub column: ColumnSpec,
    /// Where it comes from: `value:/path`, `key`, `header:NAME`, …
    pub from: &'static str,
    /// `s`, `ms`, `us` or `ns` for epoch numbers.
    pub unit: Option<&'static str>,
}

/// An input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// Its logical name.
    pub name: &'static str,
    /// Its fields.
    pub fields: Vec<FieldSpec>,
    /// Whether key and value bytes are wanted.
    pub raw: bool,
    /// Whether headers are wanted.
    pub headers: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Its logical name.
    pub name: &'static str,
    /// Its columns.
    pub columns: Vec<ColumnSpec>,
}

/// A configuration value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSpec {
    /// Its name.
    pub name: &'static str,
    /// Its type, as manifests write it.
    pub ty: &'static str,
    /// The default as JSON text; `None`: the operator has to set it.
    pub default: Option<&'static str>,
    /// Never printed.
    pub secret: bool,
}

impl ColumnSpec {
    /// A column whose type is `T`.
    #[must_use]
    pub fn of<T: Typed>(name: &'static str) -> Self {
        let mut ty = String::new();
        T::type_name(&mut ty);
        Self {
            name,
            ty,
            nullable: T::NULLABLE,
        }
    }
}

impl FieldSpec {
    /// A field whose type is `T`.
    #[must_use]
    pub fn of<T: Typed>(
        name: &'static str,
        from: &'static str,
        unit: Option<&'static str>,
    ) -> Self {
        Self {
            column: ColumnSpec::of::<T>(name),
            from,
            unit,
        }
    }
}

impl InputSpec {
    /// An input whose records are read as `F`.
    #[must_use]
    pub fn of<'a, F: Fields<'a>>(name: &'static str) -> Self {
        Self {
            name,
            fields: F::fields(),
            raw: F::RAW,
            headers: F::HEADERS,
        }
    }
}

impl RouteSpec {
    /// A route whose rows are `R`.
    #[must_use]
    pub fn of<R: Row>(name: &'static str) -> Self {
        Self {
            name,
            columns: R::columns(),
        }
    }
}

impl ConfigSpec {
    /// A value whose type is `T`.
    #[must_use]
    pub fn of<T: ConfigValue>(
        name: &'static str,
        default: Option<&'static str>,
        secret: bool,
    ) -> Self {
        Self {
            name,
            ty: T::TYPE,
            default,
            secret,
        }
    }
}

/// The canonical JSON of `describe` (`wit/since-v0.1/describe.wit`): keys in the order shown there, no spaces.
#[must_use]
pub(crate) fn describe<P: Plugin>() -> String {
    let mut out = String::from("{\"sdk\":");
    string(&mut out, SDK);
    out.push_str(",\"inputs\":");
    list(&mut out, &P::inputs(), |out, input| {
        out.push_str("{\"name\":");
        string(out, input.name);
        out.push_str(",\"fields\":");
        list(out, &input.fields, |out, field| {
            column(out, &field.column);
            out.push_str(",\"from\":");
            string(out, field.from);
            if let Some(unit) = field.unit {
                out.push_str(",\"unit\":");
                string(out, unit);
            }
            out.push('}');
        });
        flag(out, "raw", input.raw);
        flag(out, "headers", input.headers);
        out.push('}');
    });
    out.push_str(",\"routes\":");
    list(&mut out, &P::routes(), |out, route| {
        out.push_str("{\"name\":");
        string(out, route.name);
        out.push_str(",\"columns\":");
        list(out, &route.columns, |out, spec| {
            column(out, spec);
            out.push('}');
        });
        out.push('}');
    });
    out.push_str(",\"config\":");
    list(&mut out, &P::Config::items(), |out, item| {
        out.push_str("{\"name\":");
        string(out, item.name);
        out.push_str(",\"type\":");
        string(out, item.ty);
        out.push_str(",\"default\":");
        out.push_str(item.default.unwrap_or("null"));
        flag(out, "secret", item.secret);
        out.push('}');
    });
    out.push('}');
    out
}

fn list<T>(out: &mut String, items: &[T], one: impl Fn(&mut String, &T)) {
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        one(out, item);
    }
    out.push(']');
}

/// A column without its closing brace.
fn column(out: &mut String, column: &ColumnSpec) {
    out.push_str("{\"name\":");
    string(out, column.name);
    out.push_str(",\"type\":");
    string(out, &column.ty);
    flag(out, "nullable", column.nullable);
}

fn flag(out: &mut String, name: &str, value: bool) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str(if value { "\":true" } else { "\":false" });
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let digit = |value: u32| char::from_digit(value, 16).unwrap_or('0');
                out.push_str("\\u00");
                out.push(digit(u32::from(c) >> 4));
                out.push(digit(u32::from(c) & 15));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
