//! The `setup` cells a plugin's `init` receives: pipeline name, log level, then its configuration values in
//! `describe` order, so that no guest needs a parser for them.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::manifest::{ConfigItem, Manifest};
use crate::record::{Type, cells};

/// Encodes the setup of a pipeline from the operator's `config = {…}`.
///
/// # Errors
/// A `Config` error for a key the plugin does not have, a value of another type, or a value that is missing.
pub fn encode(
    pipeline: &str,
    level: &str,
    manifest: &Manifest,
    values: &BTreeMap<String, toml::Value>,
) -> Result<Vec<u8>, Error> {
    let fail = |detail: String| Error::config(format!("configure pipeline {pipeline:?}"), detail);
    for name in values.keys() {
        if !manifest.config.iter().any(|item| item.name == *name) {
            let known: Vec<_> = manifest
                .config
                .iter()
                .map(|item| item.name.as_str())
                .collect();
            return Err(fail(format!(
                "config.{name} is no configuration value of plugin {:?}",
                manifest.name
            ))
            .hint(if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has: {}", known.join(", "))
            }));
        }
    }
    let mut setup = Vec::new();
    cells::put(&mut setup, pipeline.as_bytes());
    cells::put(&mut setup, level.as_bytes());
    for item in &manifest.config {
        let value = match (values.get(&item.name), &item.default) {
            (Some(value), _) => serde_json::to_value(value)
                .map_err(|error| fail(format!("config.{}: {error}", item.name)))?,
            (None, Some(default)) => default.clone(),
            (None, None) => {
                return Err(
                    fail(format!("config.{} ({}) is not set", item.name, item.ty))
                        .hint(format!("set config.{} in [pipeline.{pipeline}]", item.name)),
                );
            }
        };
        put_value(&mut setup, item, &value).map_err(|found| {
            fail(format!(
                "config.{} is a {}, found {found}",
                item.name, item.ty
            ))
        })?;
    }
    Ok(setup)
}

/// Appends one value, or returns what kind of value was found instead: the value itself may come from a variable
/// of the host, which whoever deploys need not know.
fn put_value(
    setup: &mut Vec<u8>,
    item: &ConfigItem,
    value: &serde_json::Value,
) -> Result<(), String> {
    let found = || {
        let kind = match value {
            serde_json::Value::Null => "nothing",
            serde_json::Value::Bool(_) => "a boolean",
            serde_json::Value::Number(_) => "a number",
            serde_json::Value::String(_) => "a string",
            serde_json::Value::Array(_) => "an array",
            serde_json::Value::Object(_) => "a table",
        };
        kind.to_owned()
    };
    match item.ty {
        Type::Boolean => cells::put(setup, &[u8::from(value.as_bool().ok_or_else(found)?)]),
        Type::Int64 => cells::put(setup, &value.as_i64().ok_or_else(found)?.to_be_bytes()),
        Type::Float64 => cells::put(setup, &value.as_f64().ok_or_else(found)?.to_be_bytes()),
        Type::Text => cells::put(setup, value.as_str().ok_or_else(found)?.as_bytes()),
        _ => {
            return Err(format!(
                "a type that configuration cannot have ({})",
                item.ty
            ));
        }
    }
    Ok(())
}
