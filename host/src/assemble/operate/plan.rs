//! What a deployment would change, whether it can be done, and the deployment itself.
//!
//! [`target`] looks at the live tables and topics and changes nothing. The plan's hash covers everything that decides
//! the outcome, so that applying by it does what was looked at, or nothing.

use std::sync::Arc;
use std::time::Duration;

use super::difference::{changes, hash};
use super::{replace, succession};
use crate::admin::types::{
    CanaryEnd, CanaryRequest, DeployRequest, Plan, PlanProblem, RouteGuarantee,
};
use crate::admin::{Kind, Refusal};
use crate::assemble::hub::Hub;
use crate::assemble::releases::Loaded;
use crate::control::{
    Action, Canary, CanaryRules, Deployment, GoodCanary, Origin, Release, Revision,
};
use crate::error::Error;
use crate::pipeline::{Binding, Plan as RunPlan};

/// How long a version that another host has taken may be on its way here: the log is some milliseconds behind.
const ARRIVAL: Duration = Duration::from_secs(1);

/// A plan and the deployment it would make.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) plan: Plan,
    pub(super) deployment: Deployment,
}

/// Plans a deployment.
pub(super) async fn target(
    hub: &Arc<Hub>,
    pipeline: &str,
    request: &DeployRequest,
) -> Result<Target, Refusal> {
    let what = || format!("deploy pipeline {pipeline:?}");
    if !crate::toml_check::is_pipeline_name(pipeline) {
        let error = Error::config(what(), "that is no name of a pipeline");
        return Err(Refusal::new(
            Kind::Refused,
            error.hint("lower-case letters, digits and -, starting with a letter"),
        ));
    }
    arrival(hub, &request.plugin).await;
    let state = hub.control.state();
    let now = state.pipeline(pipeline).cloned();
    let running = now.as_ref().filter(|now| !now.deployment.removed);
    let release = release(hub, pipeline, request, now.as_deref())?;
    let mut plan = Plan {
        pipeline: pipeline.to_owned(),
        seen: now.as_ref().map_or(0, |now| now.revision),
        hash: String::new(),
        changes: Vec::new(),
        warnings: Vec::new(),
        guarantees: Vec::new(),
        ddl: Vec::new(),
        problems: Vec::new(),
    };
    let mut deployment = deployment(running.map(|now| &now.deployment), release.clone(), request);
    match hub.releases.load(pipeline, &release).await {
        Err(error) => plan.problems.push(PlanProblem::from(&error)),
        Ok(loaded) => {
            plan.guarantees = guarantees(&loaded.release.plan);
            if hub.shared_log {
                secrets(&loaded, &release, &mut plan);
            }
            let before = match &now {
                Some(now) => hub
                    .releases
                    .load(pipeline, &now.deployment.release)
                    .await
                    .ok(),
                None => None,
            };
            let before = before.as_ref().map(|before| &*before.release.plan);
            let after = &loaded.release.plan;
            if let (Some(before), Some(_)) = (before, running) {
                let moves = succession::moves(before, after);
                plan.problems.extend(moves.iter().map(PlanProblem::from));
            }
            plan.warnings = succession::warnings(
                now.as_ref().map(|now| &now.deployment),
                &deployment,
                before,
                after,
                &loaded.manifest.limits,
            );
            plan.problems.extend(
                replace::alone(hub, after)
                    .await
                    .err()
                    .iter()
                    .map(PlanProblem::from),
            );
            live(hub, &loaded, request, &mut deployment, &mut plan).await;
        }
    }
    plan.changes = changes(running.map(|now| &now.deployment), &deployment);
    plan.hash = hash(&plan, &deployment);
    Ok(Target { plan, deployment })
}

/// Waits a moment for a version that is not known here: it may have been uploaded through another host just now.
async fn arrival(hub: &Hub, plugin: &str) {
    let Some((name, version)) = plugin.split_once('@') else {
        return;
    };
    let mut changed = hub.control.changed();
    let known = async {
        while hub.control.state().version(name, version).is_none() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    // Whether it came is seen by whoever needs it.
    tokio::time::timeout(ARRIVAL, known).await.ok();
}

/// The release that is asked for.
fn release(
    hub: &Hub,
    pipeline: &str,
    request: &DeployRequest,
    now: Option<&Revision>,
) -> Result<Release, Refusal> {
    let what = format!("deploy {} in pipeline {pipeline:?}", request.plugin);
    let Some((name, version)) = request.plugin.split_once('@') else {
        let error = Error::config(what, "that is no plugin version");
        return Err(Refusal::new(
            Kind::Refused,
            error.hint("write NAME@VERSION, as `wasmill list` shows it"),
        ));
    };
    let state = hub.control.state();
    let Some(known) = state.version(name, version) else {
        let same: Vec<String> = state
            .versions()
            .iter()
            .filter(|known| known.name == name)
            .map(|known| format!("{name}@{}", known.version))
            .collect();
        let hint = if same.is_empty() {
            format!("upload it first: `wasmill upload {name}.wasm`")
        } else {
            format!("uploaded are: {}", same.join(", "))
        };
        let error = Error::config(what, "that version was never uploaded").hint(hint);
        return Err(Refusal::new(Kind::NotFound, error));
    };
    let overlay = match (&request.overlay, now) {
        (Some(overlay), _) => overlay.as_str(),
        (None, Some(now)) => now.deployment.release.overlay.as_str(),
        (None, None) => "",
    };
    let checked = hub
        .config
        .overlay(pipeline, &request.plugin, overlay)
        .map_err(|problems| Refusal::new(Kind::Refused, problems.into()))?;
    Ok(Release::new(
        request.plugin.as_str(),
        known.digest.as_str(),
        checked.overlay,
    ))
}

/// The deployment asked for, from the one in force.
fn deployment(now: Option<&Deployment>, release: Release, request: &DeployRequest) -> Deployment {
    let mut deployment = match now {
        // On trial: what runs goes on running.
        Some(now) if request.canary.is_some() || request.shadow => Deployment {
            canary: None,
            shadow: None,
            ..now.clone()
        },
        _ => Deployment::of(release.clone(), Origin::Upload),
    };
    deployment.paused = now.is_some_and(|now| now.paused);
    deployment.origin = Origin::Upload;
    deployment.note = request.note.clone().map(serde_json::Value::String);
    deployment.action = match (&request.canary, request.shadow, now) {
        (Some(canary), _, Some(_)) => {
            deployment.canary = Some(Canary {
                release,
                partitions: Vec::new(),
                since_ms: crate::clock::now_micros() / 1000,
                rules: rules(canary),
            });
            Action::Canary
        }
        (None, true, Some(_)) => {
            deployment.shadow = Some(release);
            Action::Shadow
        }
        _ => Action::Deploy,
    };
    deployment
}

fn rules(request: &CanaryRequest) -> CanaryRules {
    let mut rules = CanaryRules {
        for_ms: request.for_seconds.saturating_mul(1000),
        min_records: request.min_records,
        then: match request.then {
            CanaryEnd::Promote => GoodCanary::Promote,
            CanaryEnd::Hold => GoodCanary::Hold,
        },
        ..CanaryRules::default()
    };
    if let Some(tolerance) = &request.tolerance {
        if let Some(share) = tolerance.dead_share {
            rules.max_dead_ratio = share;
            rules.max_error_ratio = share;
        }
        rules.max_rows_difference = tolerance.rows_share;
        if let Some(times) = tolerance.cpu_times {
            rules.max_cpu_factor = times;
        }
        if let Some(times) = tolerance.latency_times {
            rules.max_latency_factor = times;
        }
    }
    rules
}

/// What the surroundings say: partitions for a canary, tables, columns, keys.
async fn live(
    hub: &Arc<Hub>,
    loaded: &Arc<Loaded>,
    request: &DeployRequest,
    deployment: &mut Deployment,
    plan: &mut Plan,
) {
    let trial = request.canary.is_some() || request.shadow;
    if trial && deployment.action == Action::Deploy {
        let what = format!("try {} in pipeline {:?}", request.plugin, plan.pipeline);
        let detail = "nothing is deployed there that it could be compared with";
        let error = Error::config(what, detail).hint("deploy it without --canary and --shadow");
        plan.problems.push(PlanProblem::from(&error));
    }
    let look = hub.look(Arc::clone(loaded)).await;
    match look.partitions {
        Ok(partitions) => {
            if let (Some(wanted), Some(canary)) = (&request.canary, &mut deployment.canary) {
                choose(wanted, partitions, canary, plan);
            }
        }
        Err(error) => plan.problems.push(PlanProblem::from(&error)),
    }
    plan.warnings.extend(look.notes);
    for error in look.problems {
        plan.ddl
            .extend(error.hint_text().map(statements).unwrap_or_default());
        plan.problems.push(PlanProblem::from(&error));
    }
}

/// The DDL in a hint: from each line that begins a statement to the one that ends it.
fn statements(hint: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for line in hint.lines() {
        let begins = ["CREATE ", "ALTER "]
            .iter()
            .find_map(|verb| line.find(verb));
        match (open, begins) {
            (true, _) => {
                let last = found.last_mut().expect("a statement was begun");
                last.push('\n');
                last.push_str(line);
            }
            (false, Some(at)) => found.push(line[at..].to_owned()),
            (false, None) => continue,
        }
        open = !line.trim_end().ends_with(';');
    }
    found
}

/// Whole partitions for a canary, the last ones: at least one, and one must be left to compare with.
fn choose(request: &CanaryRequest, partitions: i32, canary: &mut Canary, plan: &mut Plan) {
    let what = format!("try a canary in pipeline {:?}", plan.pipeline);
    let wanted = i32::try_from(request.partitions).unwrap_or(i32::MAX);
    let error = if partitions < 2 {
        let detail = format!(
            "the topic has {partitions} partition, and a canary needs one to be compared with"
        );
        Error::config(what, detail)
            .hint("run it beside the old version with --shadow: on live batches, its sinks off")
    } else if wanted < 1 || wanted >= partitions {
        let detail = format!(
            "{} partitions were asked for, the topic has {partitions}",
            request.partitions
        );
        Error::config(what, detail).hint(format!("1 to {}", partitions - 1))
    } else {
        canary.partitions = (partitions - wanted..partitions).collect();
        return;
    };
    plan.problems.push(PlanProblem::from(&error));
}

/// Configuration that is secret and written out in an overlay: secrets do not go into a log that others read, only
/// where to find them.
pub(in crate::assemble) fn inline_secrets(loaded: &Loaded, release: &Release) -> Vec<String> {
    let written: toml::Table = release.overlay.parse().unwrap_or_default();
    let values = written.get("config").and_then(toml::Value::as_table);
    let inline = loaded.manifest.config.iter().filter(|item| {
        let value = values.and_then(|values| values.get(&item.name));
        item.secret && value.is_some_and(|value| !value.is_table())
    });
    inline.map(|item| item.name.clone()).collect()
}

fn secrets(loaded: &Loaded, release: &Release, plan: &mut Plan) {
    for name in inline_secrets(loaded, release) {
        let what = format!("deploy pipeline {:?}", plan.pipeline);
        let detail = format!("config.{name} is a secret and written out");
        let error = Error::config(what, detail).hint(format!(
            "write config.{name} = {{ env = \"WASMILL_PLUGIN_…\" }} and set the variable on every host"
        ));
        plan.problems.push(PlanProblem::from(&error));
    }
}

fn guarantees(plan: &RunPlan) -> Vec<RouteGuarantee> {
    plan.routes
        .iter()
        .map(|route| RouteGuarantee {
            route: route.route.name.clone(),
            sink: match &route.binding {
                Binding::Discard => "discard".to_owned(),
                Binding::Here => format!("{} {}", plan.anchor, route.table()),
                Binding::Ahead(name) => format!("{}.{name} {}", route.kind(), route.table()),
            },
            guarantee: route.guarantee.to_string(),
            why: route.why.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_canary_that_is_asked_for_without_more_words_has_the_default_rules() {
        let rules_of = |request: &str| rules(&serde_json::from_str(request).unwrap());
        assert_eq!(rules_of(r#"{"partitions": 1}"#), CanaryRules::default());
        // What is not named keeps its default.
        let tolerant = r#"{"partitions": 1, "tolerance": {"rows_share": 0.2}}"#;
        let wanted = CanaryRules {
            max_rows_difference: Some(0.2),
            ..CanaryRules::default()
        };
        assert_eq!(rules_of(tolerant), wanted);
    }

    #[test]
    fn ddl_is_found_whole_in_a_hint() {
        let hint = "run, or change the routes:\nCREATE TABLE \"a\" (\n  \"id\" int8\n);\nALTER TABLE b ADD c int4;\nor bind it elsewhere";
        assert_eq!(
            statements(hint),
            [
                "CREATE TABLE \"a\" (\n  \"id\" int8\n);",
                "ALTER TABLE b ADD c int4;"
            ]
        );
        assert_eq!(
            statements("create it: CREATE TABLE k.t (id text PRIMARY KEY);"),
            ["CREATE TABLE k.t (id text PRIMARY KEY);"]
        );
        assert!(statements("start the database").is_empty());
    }
}
