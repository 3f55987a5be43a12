//! What another release in the place of the one in force moves, ends or takes away: two deployments and their plans,
//! beside each other. Pure.
//!
//! What moves the position of a pipeline that runs is refused; everything else is told to whoever decides.

use crate::control::Deployment;
use crate::error::Error;
use crate::manifest::{Limits, Start};
use crate::pipeline::{Binding, Plan, RoutePlan, weaker};
use crate::toml_check::units;

/// Why a release may not follow another one: it would move the pipeline's position, which starts anew there.
pub(super) fn moves(before: &Plan, after: &Plan) -> Vec<Error> {
    let refused = |(what, from, to): (&str, String, String)| {
        Error::config(
            format!("deploy pipeline {:?}", after.pipeline),
            format!("its {what} would change from {from} to {to}, where it has no position"),
        )
        .hint("run it as a pipeline of another name, then remove this one")
    };
    moved(before, after).into_iter().map(refused).collect()
}

/// What says where a pipeline's position is, where two releases differ in it: what, before and after.
fn moved(before: &Plan, after: &Plan) -> Vec<(&'static str, String, String)> {
    let topic = |plan: &Plan| plan.input.topic.clone();
    let cluster = |plan: &Plan| plan.input.kafka.clone();
    let anchor = |plan: &Plan| plan.anchor.to_string();
    let mut all = vec![
        ("topic", topic(before), topic(after)),
        ("cluster", cluster(before), cluster(after)),
        ("anchor", anchor(before), anchor(after)),
    ];
    all.retain(|(_, from, to)| from != to);
    all
}

/// The trial that a deployment has under way, for people.
pub(in crate::assemble) fn trial(deployment: &Deployment) -> Option<String> {
    if let Some(canary) = &deployment.canary {
        let (plugin, partitions) = (&canary.release.plugin, &canary.partitions);
        return Some(format!(
            "the canary of {plugin} on partitions {partitions:?}"
        ));
    }
    let shadow = deployment.shadow.as_ref()?;
    Some(format!("the shadow of {}", shadow.plugin))
}

/// What an operator should look at before a deployment follows another one; `asks` is what the plugin's manifest asks
/// for. `before` is `None` where nothing was deployed, or where it cannot be loaded here.
pub(super) fn warnings(
    now: Option<&Deployment>,
    then: &Deployment,
    before: Option<&Plan>,
    after: &Plan,
    asks: &Limits,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(now) = now {
        warnings.extend(over(now, then, before, after));
    }
    if let Some(before) = before {
        let routes = before.routes.iter();
        warnings.extend(routes.filter_map(|route| loses(before, route, after)));
    }
    warnings.extend(tighter(before, after, asks));
    warnings
}

/// What becomes of the deployment in force.
fn over(now: &Deployment, then: &Deployment, before: Option<&Plan>, after: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(trial) = trial(now) {
        warnings.push(format!("it ends {trial}, which nobody has decided yet"));
    }
    if now.paused && !then.paused {
        warnings.push("the pipeline was paused, and this runs it".to_owned());
    }
    match before {
        // Of a pipeline that runs this is refused: see `moves`.
        Some(before) if now.removed => warnings.extend(anew(before, after)),
        Some(_) => {}
        None => warnings.push(format!(
            "{} cannot be loaded here, so it is not known whether the position moves",
            now.release.plugin
        )),
    }
    warnings
}

/// What moves the position of a pipeline that was removed and comes back.
pub(super) fn anew(before: &Plan, after: &Plan) -> Vec<String> {
    let (topic, start) = (&after.input.topic, after.input.input.start);
    let start = match start {
        Start::Earliest => "the beginning",
        Start::Latest => "the end",
    };
    let told = |(what, from, to): (&str, String, String)| {
        format!(
            "its {what} was {from} before it was removed and is {to} now: without a position there it starts anew at \
             {start} of topic {topic}"
        )
    };
    moved(before, after).into_iter().map(told).collect()
}

/// What a route of the release in force loses.
fn loses(before: &Plan, route: &RoutePlan, after: &Plan) -> Option<String> {
    if route.binding == Binding::Discard {
        return None;
    }
    let name = &route.route.name;
    let Some(next) = after.routes.iter().find(|next| next.route.name == *name) else {
        let table = route.table();
        return Some(format!(
            "route {name} goes away: {table} is written no more"
        ));
    };
    if weaker(next.guarantee, route.guarantee) {
        return Some(format!(
            "route {name} is {} now and would be {}",
            route.guarantee, next.guarantee
        ));
    }
    let place = |plan: &Plan, route: &RoutePlan| match &route.binding {
        Binding::Ahead(connection) => format!("{}.{connection} {}", route.kind(), route.table()),
        _ => format!("{} {}", plan.anchor, route.table()),
    };
    let (from, to) = (place(before, route), place(after, next));
    (from != to)
        .then(|| format!("route {name} moves from {from} to {to}; rows written so far stay"))
}

/// Limits below what the plugin asks for, unless they are as low already.
fn tighter(before: Option<&Plan>, after: &Plan, asks: &Limits) -> Vec<String> {
    let mut warnings = Vec::new();
    let (given, was) = (&after.limits, before.map(|before| &before.limits));
    if given.memory < asks.memory && was.is_none_or(|was| was.memory > given.memory) {
        let (given, asked) = (
            units::show_size(given.memory),
            units::show_size(asks.memory),
        );
        warnings.push(format!(
            "limits.memory is {given}, and the plugin asks for {asked}"
        ));
    }
    if given.run_time < asks.run_time && was.is_none_or(|was| was.run_time > given.run_time) {
        let shown = units::show_duration;
        let (given, asked) = (shown(given.run_time), shown(asks.run_time));
        warnings.push(format!(
            "limits.run_time is {given}, and the plugin asks for {asked}"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Canary, CanaryRules, Origin, Release};
    use crate::manifest::{
        Create, Format, Input, KeyFormat, Mode, PostgresTable, Route, Target, Tombstones,
    };
    use crate::pipeline::{AnchorPlan, Guarantee, InputPlan};

    fn plan() -> Plan {
        let input = Input {
            name: "in".to_owned(),
            topic: "t".to_owned(),
            format: Format::Bytes,
            key_format: KeyFormat::Bytes,
            start: Start::Latest,
            tombstones: Tombstones::DeadLetter,
            fields: Vec::new(),
            raw: false,
            headers: false,
        };
        let target = Target::Postgres(PostgresTable {
            table: "rows".to_owned(),
            mode: Mode::Append,
            key: Vec::new(),
            guard: None,
            deleted_at: None,
            create: Create::Never,
        });
        Plan {
            pipeline: "p".to_owned(),
            plugin: "f@1.0.0".to_owned(),
            digest: "d".to_owned(),
            input: InputPlan {
                input,
                kafka: "main".to_owned(),
                topic: "t".to_owned(),
                group: "wasmill.p".to_owned(),
            },
            anchor: AnchorPlan::Postgres("main".to_owned()),
            routes: vec![RoutePlan {
                route: Route {
                    name: "rows".to_owned(),
                    columns: Vec::new(),
                    target,
                },
                binding: Binding::Here,
                guarantee: Guarantee::ExactlyOnce,
                why: "",
            }],
            limits: Limits::default(),
            asks: None,
        }
    }

    fn release(version: &str) -> Release {
        let digest = format!("sha256:{}", "ab".repeat(32));
        Release::new(format!("f@{version}"), digest, "")
    }

    fn deployed() -> Deployment {
        Deployment::of(release("1.0.0"), Origin::Upload)
    }

    /// Warnings of a plan over another one, the deployments plain.
    fn between(before: &Plan, after: &Plan) -> Vec<String> {
        let (now, then) = (deployed(), deployed());
        warnings(Some(&now), &then, Some(before), after, &Limits::default())
    }

    fn one(warnings: Vec<String>) -> String {
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        warnings.into_iter().next().expect("there is one")
    }

    #[test]
    fn a_plain_update_has_nothing_to_look_at() {
        assert!(between(&plan(), &plan()).is_empty());
        let first = warnings(None, &deployed(), None, &plan(), &Limits::default());
        assert!(first.is_empty(), "{first:?}");
    }

    #[test]
    fn a_trial_that_ends_is_named() {
        let mut now = deployed();
        now.canary = Some(Canary {
            release: release("2.0.0"),
            partitions: vec![3],
            since_ms: 0,
            rules: CanaryRules::default(),
        });
        let over = |now: &Deployment| {
            one(warnings(
                Some(now),
                &deployed(),
                Some(&plan()),
                &plan(),
                &Limits::default(),
            ))
        };
        let said = over(&now);
        assert!(
            said.contains("the canary of f@2.0.0 on partitions [3]"),
            "{said}"
        );
        now.canary = None;
        now.shadow = Some(release("3.0.0"));
        assert!(over(&now).contains("the shadow of f@3.0.0"));
    }

    #[test]
    fn a_removed_pipeline_that_comes_back_elsewhere_or_was_paused_is_told() {
        let mut now = deployed();
        (now.removed, now.paused) = (true, true);
        let mut after = plan();
        after.input.topic = "u".to_owned();
        after.anchor = AnchorPlan::Cassandra("c".to_owned());
        after.routes.clear();
        let mut before = plan();
        before.routes.clear();
        let said = warnings(
            Some(&now),
            &deployed(),
            Some(&before),
            &after,
            &Limits::default(),
        );
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("paused"), "{said:?}");
        assert!(
            said[1].contains("topic was t") && said[1].contains("at the end of topic u"),
            "{said:?}"
        );
        assert!(said[2].contains("anchor was postgres.main"), "{said:?}");
        let unknown = warnings(Some(&now), &now, None, &after, &Limits::default());
        assert!(one(unknown).contains("f@1.0.0 cannot be loaded"));
    }

    #[test]
    fn topic_cluster_and_anchor_of_a_running_pipeline_stay() {
        let mut after = plan();
        assert!(moves(&plan(), &after).is_empty());
        after.input.kafka = "other".to_owned();
        let refused = moves(&plan(), &after);
        assert_eq!(refused.len(), 1);
        assert!(
            refused[0]
                .detail()
                .contains("cluster would change from main to other")
        );
        assert!(refused[0].hint_text().is_some());
    }

    #[test]
    fn a_route_that_loses_something_is_told() {
        let mut after = plan();
        after.routes[0].binding = Binding::Discard;
        after.routes[0].guarantee = Guarantee::Nothing;
        let said = one(between(&plan(), &after));
        assert!(
            said.contains("exactly once now and would be discarded"),
            "{said}"
        );
        // The other way it is no loss.
        assert!(between(&after, &plan()).is_empty());
        let mut after = plan();
        after.routes[0].route.name = "other".to_owned();
        assert!(one(between(&plan(), &after)).contains("route rows goes away"));
        let mut after = plan();
        if let Target::Postgres(table) = &mut after.routes[0].route.target {
            table.table = "new".to_owned();
        }
        let said = one(between(&plan(), &after));
        assert!(
            said.contains("from postgres.main rows to postgres.main new"),
            "{said}"
        );
    }

    #[test]
    fn limits_that_get_tighter_than_the_plugin_asks_are_told_once() {
        let mut after = plan();
        after.limits.memory = 16 << 20;
        let said = one(between(&plan(), &after));
        assert_eq!(
            said,
            "limits.memory is 16MiB, and the plugin asks for 64MiB"
        );
        assert!(between(&after, &after).is_empty());
    }
}
