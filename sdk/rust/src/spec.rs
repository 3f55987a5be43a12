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
#[derive(Clone, Copy, Debug)]
pub struct ColumnSpec {
    /// Its name in the table.
    pub name: &'static str,
    /// Appends its type, as manifests write it: types nest, so the text is put together when asked for.
    pub ty: fn(&mut String),
    /// Whether null is allowed.
    pub nullable: bool,
}

/// A field of an input.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// Name, type, nullable.
    pub column: ColumnSpec,
    /// Where it comes from: `value:/path`, `key`, `header:NAME`, …
    pub from: &'static str,
    /// `s`, `ms`, `us` or `ns` for epoch numbers.
    pub unit: Option<&'static str>,
}

/// An input.
#[derive(Clone, Copy, Debug)]
pub struct InputSpec {
    /// Its logical name.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [FieldSpec],
    /// Whether key and value bytes are wanted.
    pub raw: bool,
    /// Whether headers are wanted.
    pub headers: bool,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct RouteSpec {
    /// Its logical name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [ColumnSpec],
}

/// A configuration value.
#[derive(Clone, Copy, Debug)]
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
    pub const fn of<T: Typed>(name: &'static str) -> Self {
        Self {
            name,
            ty: T::type_name,
            nullable: T::NULLABLE,
        }
    }

    /// Its type, as manifests write it.
    #[must_use]
    pub fn type_name(&self) -> String {
        let mut out = String::new();
        (self.ty)(&mut out);
        out
    }
}

impl FieldSpec {
    /// A field whose type is `T`.
    #[must_use]
    pub const fn of<T: Typed>(
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
    pub const fn of<'a, F: Fields<'a>>(name: &'static str) -> Self {
        Self {
            name,
            fields: F::FIELDS,
            raw: F::RAW,
            headers: F::HEADERS,
        }
    }
}

impl RouteSpec {
    /// A route whose rows are `R`.
    #[must_use]
    pub const fn of<R: Row>(name: &'static str) -> Self {
        Self {
            name,
            columns: R::COLUMNS,
        }
    }
}

impl ConfigSpec {
    /// A value whose type is `T`.
    #[must_use]
    pub const fn of<T: ConfigValue>(
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
pub fn describe<P: Plugin>() -> String {
    text(P::INPUTS, P::ROUTES, P::Config::ITEMS)
}

fn text(inputs: &[InputSpec], routes: &[RouteSpec], config: &[ConfigSpec]) -> String {
    let mut text = String::new();
    let out = &mut text;
    push(out, "{\"sdk\":");
    string(out, SDK);
    push(out, ",\"inputs\":");
    list(out, inputs, |out, input| {
        named(out, input.name);
        push(out, ",\"fields\":");
        list(out, input.fields, |out, field| {
            column(out, &field.column);
            push(out, ",\"from\":");
            string(out, field.from);
            if let Some(unit) = field.unit {
                push(out, ",\"unit\":");
                string(out, unit);
            }
        });
        flag(out, "raw", input.raw);
        flag(out, "headers", input.headers);
    });
    push(out, ",\"routes\":");
    list(out, routes, |out, route| {
        named(out, route.name);
        push(out, ",\"columns\":");
        list(out, route.columns, column);
    });
    push(out, ",\"config\":");
    list(out, config, |out, item| {
        named(out, item.name);
        push(out, ",\"type\":");
        string(out, item.ty);
        push(out, ",\"default\":");
        push(out, item.default.unwrap_or("null"));
        flag(out, "secret", item.secret);
    });
    push(out, "}");
    text
}

/// An array of objects.
fn list<T>(out: &mut String, items: &[T], members: impl Fn(&mut String, &T)) {
    push(out, "[");
    for (at, item) in items.iter().enumerate() {
        push(out, if at > 0 { ",{" } else { "{" });
        members(out, item);
        push(out, "}");
    }
    push(out, "]");
}

fn named(out: &mut String, name: &str) {
    push(out, "\"name\":");
    string(out, name);
}

fn column(out: &mut String, column: &ColumnSpec) {
    named(out, column.name);
    push(out, ",\"type\":\"");
    // The names of types hold nothing that JSON would have to escape.
    (column.ty)(out);
    push(out, "\"");
    flag(out, "nullable", column.nullable);
}

/// Kept out of line: the text is put together once an instance, the component is loaded everywhere.
#[inline(never)]
fn push(out: &mut String, text: &str) {
    out.push_str(text);
}

fn flag(out: &mut String, name: &str, value: bool) {
    push(out, ",\"");
    push(out, name);
    push(out, if value { "\":true" } else { "\":false" });
}

#[inline(never)]
fn string(out: &mut String, text: &str) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    push(out, "\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\0'..' ' => {
                let code = c as usize;
                push(out, "\\u00");
                out.push(HEX[code >> 4]);
                out.push(HEX[code & 15]);
            }
            c => out.push(c),
        }
    }
    push(out, "\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    /// Never read: only its declaration is under test.
    #[derive(Fields)]
    #[fields(raw, headers)]
    #[allow(dead_code, reason = "only described")]
    struct Everything<'a> {
        #[field(from = "key")]
        id: &'a str,
        plain: bool,
        #[field(path = "/a~1b/0")]
        nested: Option<Vec<i64>>,
        #[field(from = "header:trace-id")]
        trace: Option<&'a [u8]>,
        #[field(from = "timestamp")]
        at: Timestamp,
        #[field(unit = "ms")]
        day: Date,
        #[field(rename = "a/b")]
        slash: Json<'a>,
    }

    #[derive(Row)]
    struct Wide<'a> {
        #[row(key)]
        r#type: &'a str,
        #[row(rename = "Price")]
        price: Decimal<10, 2>,
        copied: SourceValue<String>,
        kept: Update<Option<i16>>,
    }

    #[derive(Config)]
    #[allow(dead_code, reason = "only described")]
    struct Limits {
        #[config(default = "pa\"id")]
        status: String,
        #[config(default = -5)]
        least: f64,
        #[config(secret)]
        token: String,
        #[config(default = true)]
        strict: bool,
    }

    #[plugin(inputs(all: Everything), routes(wide: Wide, again: Wide))]
    fn everything(_: &Limits, rec: Record<Everything<'_>>, out: &mut Out) -> Result {
        let headers = rec.headers().count();
        let bytes =
            rec.key_bytes().map_or(0, <[u8]>::len) + rec.value_bytes().map_or(0, <[u8]>::len);
        let price = Decimal::from_unscaled(i128::try_from(headers * 1000 + bytes)?)
            .ok_or_else(|| Error::data("big"))?;
        out.again.write(&Wide {
            r#type: rec.id,
            price,
            copied: SourceValue::new(),
            kept: Update::Keep,
        })
    }

    #[test]
    fn the_text_is_the_one_of_the_interface() {
        assert_eq!(
            describe::<Plugin>(),
            concat!(
                r#"{"sdk":"rust 0.1.0","inputs":[{"name":"all","fields":["#,
                r#"{"name":"id","type":"text","nullable":false,"from":"key"},"#,
                r#"{"name":"plain","type":"boolean","nullable":false,"from":"value:/plain"},"#,
                r#"{"name":"nested","type":"list<int64>","nullable":true,"from":"value:/a~1b/0"},"#,
                r#"{"name":"trace","type":"bytes","nullable":true,"from":"header:trace-id"},"#,
                r#"{"name":"at","type":"timestamp","nullable":false,"from":"timestamp"},"#,
                r#"{"name":"day","type":"date","nullable":false,"from":"value:/day","unit":"ms"},"#,
                r#"{"name":"a/b","type":"json","nullable":false,"from":"value:/a~1b"}],"#,
                r#""raw":true,"headers":true}],"routes":[{"name":"wide","columns":["#,
                r#"{"name":"type","type":"text","nullable":false},"#,
                r#"{"name":"Price","type":"decimal(10,2)","nullable":false},"#,
                r#"{"name":"copied","type":"text","nullable":true},"#,
                r#"{"name":"kept","type":"int16","nullable":true}]},"#,
                r#"{"name":"again","columns":["#,
                r#"{"name":"type","type":"text","nullable":false},"#,
                r#"{"name":"Price","type":"decimal(10,2)","nullable":false},"#,
                r#"{"name":"copied","type":"text","nullable":true},"#,
                r#"{"name":"kept","type":"int16","nullable":true}]}],"config":["#,
                r#"{"name":"status","type":"text","default":"pa\"id","secret":false},"#,
                r#"{"name":"least","type":"float64","default":-5.0,"secret":false},"#,
                r#"{"name":"token","type":"text","default":null,"secret":true},"#,
                r#"{"name":"strict","type":"boolean","default":true,"secret":false}]}"#,
            )
        );
    }

    #[test]
    fn everything_asked_for_arrives() {
        assert!(Harness::<Plugin>::try_with_config(&json!({})).is_err());
        let mut harness = Harness::<Plugin>::with_config(json!({"token": "t"}));
        let draft = harness
            .record()
            .key("kk")
            .timestamp(1)
            .header("trace-id", "x")
            .header("other", "y");
        let seen = draft
            .value(json!({"plain": true, "day": 86_400_000, "a/b": [[7, 8]]}))
            .send();
        assert_eq!(seen.dead, None);
        let row = &seen.rows[0];
        let value = r#"{"a/b":[[7,8]],"day":86400000,"plain":true}"#;
        assert_eq!(row.route, "again");
        assert_eq!(
            row.columns["Price"],
            json!(format!("20.{}", value.len() + 2))
        );
        assert_eq!(
            (
                row.columns["copied"].as_str(),
                row.columns.contains_key("kept")
            ),
            (Some(value), false)
        );
        harness.finish();
    }
}
