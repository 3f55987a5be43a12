//! `plugin.toml` and `describe`, side by side: the only way to a [`Manifest`]. Pure: text in, checked value
//! or every problem out.
//!
//! The file says where records come from and rows go, the component what they look like. Both name the
//! inputs and routes; a name that only one of them has is an error.

use serde_json::Value;
use toml::de::DeValue;

use super::describe::{self, Described, MAX_ROUTES};
use super::hand::read_type;
use super::input::{self, DraftInput};
use super::policy;
use super::route::{self, DraftRoute};
use super::types::{ConfigItem, Delivery, ErrorPolicy, Limits, Manifest};
use crate::toml_check::names::{self, did_you_mean};
use crate::toml_check::{At, Entry, Problem, Problems, Report, Section};

/// The manifest's file name, as shown in findings.
const FILE: &str = "plugin.toml";

/// What `plugin.toml` says without the component: enough to build it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Plugin name.
    pub name: String,
    /// Plugin version.
    pub version: semver::Version,
    /// One line for people.
    pub description: Option<String>,
    /// SPDX expression.
    pub license: Option<String>,
    /// Names.
    pub authors: Vec<String>,
    /// Names of inputs, in the order of the text.
    pub inputs: Vec<String>,
    /// Names of routes, in the order of the text.
    pub routes: Vec<String>,
}

impl Manifest {
    /// Checks a `plugin.toml` together with what its component describes.
    ///
    /// # Errors
    /// Everything that is wrong with either, or between them.
    pub fn check(toml_text: &str, describe_json: &str) -> Result<Self, Problems> {
        let report = Report::new(FILE, toml_text);
        let manifest = checked(&report, describe_json);
        settle(report, manifest)
    }

    /// Checks a `plugin.toml` as far as that goes before there is a component: syntax, keys, names, values.
    ///
    /// # Errors
    /// Everything that is wrong with the file alone.
    pub fn check_without_describe(toml_text: &str) -> Result<Outline, Problems> {
        let report = Report::new(FILE, toml_text);
        let outline = outlined(&report);
        settle(report, outline)
    }
}

/// A check that yields nothing has reported why.
fn settle<T>(report: Report<'_>, value: Option<T>) -> Result<T, Problems> {
    if value.is_none() {
        // Kept as a finding of its own so that no path can end without a value and without a reason.
        report.add_if_clean("the file could not be checked");
    }
    let value = report.finish(value)?;
    Ok(value.expect("a missing value was reported, so finish returned an error"))
}

/// The file as it reads on its own.
struct Draft<'a> {
    outline: Outline,
    inputs: Vec<DraftInput<'a>>,
    routes: Vec<DraftRoute<'a>>,
    config: Option<Section<'a>>,
    root: Section<'a>,
    limits: Limits,
    errors: ErrorPolicy,
    delivery: Option<Delivery>,
}

fn outlined(report: &Report<'_>) -> Option<Outline> {
    let table = report.parse()?;
    let draft = read(Section::root(report, table.get_ref()));
    Some(finish_alone(draft))
}

fn checked(report: &Report<'_>, describe_json: &str) -> Option<Manifest> {
    let described = describe::read(describe_json, report);
    let table = report.parse()?;
    let draft = read(Section::root(report, table.get_ref()));
    if let Some(described) = described {
        return Some(join(draft, described));
    }
    finish_alone(draft);
    None
}

fn finish_alone(draft: Draft<'_>) -> Outline {
    if let Some(section) = &draft.config {
        for entry in section.entries() {
            config_item(section, &entry, None);
        }
    }
    draft.inputs.into_iter().for_each(DraftInput::finish);
    draft.routes.into_iter().for_each(DraftRoute::finish);
    draft.root.finish();
    draft.outline
}

fn read(root: Section<'_>) -> Draft<'_> {
    version_of_format(&root);
    let mut outline = plugin(&root);
    let inputs: Vec<_> = root.sections("input", names::INPUT);
    let routes: Vec<_> = root.sections("route", names::ROUTE);
    for (what, none) in [("input", inputs.is_empty()), ("route", routes.is_empty())] {
        if none && !root.has(what) {
            root.report().add(
                Problem::anywhere(format!("there is no {what}"))
                    .hint(format!("add a section [{what}.NAME]")),
            );
        }
    }
    if routes.len() > MAX_ROUTES {
        root.report().add(
            Problem::anywhere(format!(
                "there are {} routes; at most {MAX_ROUTES} are allowed",
                routes.len()
            ))
            .hint("split the plugin"),
        );
    }
    let inputs: Vec<_> = inputs
        .into_iter()
        .map(|(name, section)| input::read(name, section))
        .collect();
    let routes: Vec<_> = routes
        .into_iter()
        .map(|(name, section)| route::read(name, section))
        .collect();
    outline.inputs = inputs.iter().map(|one| one.name.value.to_owned()).collect();
    outline.routes = routes.iter().map(|one| one.name.value.to_owned()).collect();
    Draft {
        outline,
        inputs,
        routes,
        config: root.section("config"),
        limits: policy::limits(&root),
        errors: policy::errors(&root),
        delivery: policy::delivery(&root),
        root,
    }
}

fn version_of_format(root: &Section<'_>) {
    root.need("manifest", "1 as the first line");
    if let Some(version) = root.integer("manifest", 0..=i64::MAX)
        && version.value != 1
    {
        root.report().add(
            Problem::at(
                version.span,
                format!("manifest version {} is not known", version.value),
            )
            .label("this host reads version 1")
            .hint("write manifest = 1, or use a host that knows this version"),
        );
    }
}

fn plugin(root: &Section<'_>) -> Outline {
    let mut outline = Outline {
        name: String::new(),
        version: semver::Version::new(0, 0, 0),
        description: None,
        license: None,
        authors: Vec::new(),
        inputs: Vec::new(),
        routes: Vec::new(),
    };
    root.need("plugin", "{ name = \"NAME\", version = \"0.1.0\" }");
    let Some(section) = root.section("plugin") else {
        return outline;
    };
    section.need("name", "\"NAME\"");
    if let Some(name) = section.name("name", names::PLUGIN) {
        name.value.clone_into(&mut outline.name);
    }
    if let Some(text) = section.need_text("version", "\"0.1.0\"")
        && let Some(version) = section.read(&text, "version", |text| {
            semver::Version::parse(text)
                .map_err(|error| format!("{error}; three numbers, e.g. \"1.2.0\" (semver.org)"))
        })
    {
        outline.version = version.value;
    }
    let owned = |found: At<&str>| found.value.to_owned();
    outline.description = section.text("description").map(owned);
    outline.license = section.text("license").map(owned);
    outline.authors = section.texts("authors").into_iter().map(owned).collect();
    section.finish();
    outline
}

fn join(draft: Draft<'_>, described: Described) -> Manifest {
    let Draft { outline, root, .. } = draft;
    let inputs = pair(
        &root,
        "input",
        draft
            .inputs
            .into_iter()
            .map(|one| (one.name.clone(), one))
            .collect(),
        described
            .inputs
            .into_iter()
            .map(|one| (one.name.clone(), one))
            .collect(),
    );
    let routes = pair(
        &root,
        "route",
        draft
            .routes
            .into_iter()
            .map(|one| (one.name.clone(), one))
            .collect(),
        described
            .routes
            .into_iter()
            .map(|one| (one.name.clone(), one))
            .collect(),
    );
    let config = config(draft.config.as_ref(), described.config);
    let manifest = Manifest {
        name: outline.name,
        version: outline.version,
        description: outline.description,
        license: outline.license,
        authors: outline.authors,
        sdk: described.sdk,
        inputs: inputs
            .into_iter()
            .map(|(here, there)| here.complete(there))
            .collect(),
        routes: routes
            .into_iter()
            .filter_map(|(here, there)| here.complete(there))
            .collect(),
        config,
        limits: draft.limits,
        errors: draft.errors,
        delivery: draft.delivery,
    };
    root.finish();
    manifest
}

/// Pairs what the file and the component call by the same name, in the component's order.
fn pair<H, T>(
    root: &Section<'_>,
    what: &str,
    mut here: Vec<(At<&str>, H)>,
    there: Vec<(String, T)>,
) -> Vec<(H, T)> {
    for (name, _) in &here {
        if !there.iter().any(|(other, _)| other == name.value) {
            root.report().add(
                Problem::at(
                    name.span.clone(),
                    format!("{what} {:?} is not in the component", name.value),
                )
                .label("only here")
                .maybe_hint(did_you_mean(
                    name.value,
                    there.iter().map(|(other, _)| other.as_str()),
                )),
            );
        }
    }
    let mut pairs = Vec::new();
    for (name, described) in there {
        match here.iter().position(|(other, _)| other.value == name) {
            Some(at) => pairs.push((here.swap_remove(at).1, described)),
            None => root.report().add(
                Problem::anywhere(format!("{what} {name:?} of the component has no section"))
                    .hint(format!("add [{what}.{name}]")),
            ),
        }
    }
    pairs
}

fn config(here: Option<&Section<'_>>, mut there: Vec<ConfigItem>) -> Vec<ConfigItem> {
    let Some(section) = here else {
        return there;
    };
    for entry in section.entries() {
        let found = there.iter_mut().find(|item| item.name == entry.key.value);
        if found.is_some() {
            config_item(section, &entry, found);
            continue;
        }
        let names = there.iter().map(|item| item.name.as_str());
        let name = entry.key.value;
        section.report().add(
            Problem::at(
                entry.key.span,
                format!("config value {name:?} is not in the component"),
            )
            .label("only here")
            .maybe_hint(did_you_mean(name, names)),
        );
    }
    there
}

/// Checks one `[config.NAME]`, against the described one where there is one. The file may make a value
/// secret; everything else has to agree.
fn config_item(parent: &Section<'_>, entry: &Entry<'_>, described: Option<&mut ConfigItem>) {
    parent.fits(&entry.key, names::CONFIG);
    let Some(section) = parent.open(entry) else {
        return;
    };
    let ty = section.text("type");
    let ty = ty.and_then(|text| section.read(&text, "type", read_type));
    let default = section.entry("default");
    let secret = section.boolean("secret");
    section.finish();
    let Some(item) = described else {
        return;
    };
    let differs = |key: &str, span, here: &dyn std::fmt::Display, there: &dyn std::fmt::Display| {
        parent.report().add(
            Problem::at(
                span,
                format!(
                    "{key} of config value {:?} is {here} here and {there} in the component",
                    item.name
                ),
            )
            .label("does not agree")
            .hint("correct the one that is wrong"),
        );
    };
    if let Some(ty) = &ty
        && ty.value != item.ty
    {
        differs("type", ty.span.clone(), &ty.value, &item.ty);
    }
    if let Some(default) = &default {
        let here = json(default.value.value);
        let same = match (here.as_f64(), item.default.as_ref().and_then(Value::as_f64)) {
            (Some(here), Some(there)) => here.total_cmp(&there).is_eq(),
            _ => Some(&here) == item.default.as_ref(),
        };
        if !same {
            let none = Value::from("no default");
            let there = item.default.as_ref().unwrap_or(&none);
            differs("default", default.value.span.clone(), &here, there);
        }
    }
    if let Some(secret) = &secret {
        if item.secret && !secret.value {
            differs("secret", secret.span.clone(), &false, &true);
        }
        item.secret |= secret.value;
    }
}

/// A TOML scalar as JSON; anything else becomes null, which equals no default.
fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => number
            .as_str()
            .parse::<f64>()
            .map_or(Value::Null, Value::from),
        DeValue::Boolean(flag) => Value::from(*flag),
        _ => Value::Null,
    }
}
