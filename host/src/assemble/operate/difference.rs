//! What a deployment changes, as names and values a person compares, and the hash that names a plan. Pure.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::admin::types::{Change, Plan};
use crate::control::{Deployment, Release};

/// What differs between the deployment in force and the one asked for.
pub(super) fn changes(now: Option<&Deployment>, then: &Deployment) -> Vec<Change> {
    let (before, after) = (now.map(facts).unwrap_or_default(), facts(then));
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| Change {
            what: name.clone(),
            from: before.get(name).cloned(),
            to: after.get(name).cloned(),
        })
        .collect()
}

/// A deployment as names and values that a person can compare.
fn facts(deployment: &Deployment) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let release = |facts: &mut BTreeMap<String, String>, prefix: &str, release: &Release| {
        facts.insert(format!("{prefix}plugin"), release.plugin.clone());
        facts.insert(format!("{prefix}digest"), release.digest.clone());
        let overlay: toml::Table = release.overlay.parse().unwrap_or_default();
        flatten(prefix, &toml::Value::Table(overlay), facts);
    };
    release(&mut facts, "", &deployment.release);
    if let Some(canary) = &deployment.canary {
        release(&mut facts, "canary.", &canary.release);
        facts.insert(
            "canary.partitions".to_owned(),
            format!("{:?}", canary.partitions),
        );
    }
    if let Some(shadow) = &deployment.shadow {
        release(&mut facts, "shadow.", shadow);
    }
    facts
}

/// `bind.route.x.table = "…"` for every leaf. Values of `config` may be secret, so they are shown as changed only.
fn flatten(path: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() || path.ends_with('.') {
                    format!("{path}{key}")
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, value, into);
            }
        }
        value if path.starts_with("config.") || path.contains(".config.") => {
            let mark = hex(&Sha256::digest(value.to_string().as_bytes())[..3]);
            into.insert(path.to_owned(), format!("(value {mark})"));
        }
        value => {
            into.insert(path.to_owned(), value.to_string());
        }
    }
}

/// Names a plan: what it starts from and what it would make, but for the moment it was made.
pub(super) fn hash(plan: &Plan, deployment: &Deployment) -> String {
    let mut hash = Sha256::new();
    hash.update(plan.pipeline.as_bytes());
    hash.update(plan.seen.to_be_bytes());
    let mut deployment = deployment.clone();
    if let Some(canary) = &mut deployment.canary {
        canary.since_ms = 0;
    }
    hash.update(serde_json::to_vec(&deployment).unwrap_or_default());
    for problem in &plan.problems {
        hash.update(problem.detail.as_bytes());
    }
    for warning in &plan.warnings {
        hash.update(warning.as_bytes());
    }
    hex(&hash.finalize()[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
