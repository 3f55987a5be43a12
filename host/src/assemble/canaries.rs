//! Canaries under way: what each host sees of them goes into the control log, and whoever sees enough decides.
//!
//! A decision is a deployment like any other: of several hosts that decide at once the first counts. The rules are
//! the control log's ([`crate::control::judge`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use super::operate::evidence;
use super::running::Pipeline;
use crate::control::{
    Action, Canary, Change, GoodCanary, Numbers, Origin, Revision, State, Verdict, judge,
};
use crate::pipeline::{LaneTotals, Totals};
use crate::route::code;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Who an automatic decision is by, in the history.
const BY: &str = "canary";

/// What one host saw of a canary, as it stands in the control log.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Report {
    /// The revision that began it.
    revision: u64,
    canary: Numbers,
    others: Numbers,
}

/// What a host wrote last of each pipeline, and for which revision: the canary's numbers and the others'.
type Reported = BTreeMap<String, (u64, (Numbers, Numbers))>;

/// Watches the canaries of a host for as long as it is polled.
pub(super) async fn watch(hub: Arc<Hub>) {
    let mut reported = Reported::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let running = hub.pipelines();
        for pipeline in running.values() {
            pipeline.sample();
        }
        let state = hub.control.state();
        for (name, revision) in state.pipelines() {
            let deployment = &revision.deployment;
            let live = !deployment.paused && !deployment.removed;
            let Some(canary) = deployment.canary.as_ref().filter(|_| live) else {
                reported.remove(name);
                continue;
            };
            if let Some(pipeline) = running.get(name) {
                report(&hub, name, pipeline, revision, canary, &mut reported).await;
            }
            decide(&hub, name, revision, canary).await;
        }
    }
}

/// Writes what this host saw since the last time, where that is anything new.
async fn report(
    hub: &Hub,
    name: &str,
    pipeline: &Pipeline,
    revision: &Revision,
    canary: &Canary,
    reported: &mut Reported,
) {
    let seen = pipeline.seen();
    if seen.revision != revision.revision {
        return;
    }
    let lanes = pipeline.counters.lanes();
    let (mine, others) = sides(&lanes, canary);
    let (mine_before, others_before) = sides(&seen.before, canary);
    let mut numbers = (
        numbers(&mine.since(&mine_before)),
        numbers(&others.since(&others_before)),
    );
    let failed = lanes
        .iter()
        .filter(|lane| *lane.release == *canary.release.id)
        .find_map(|lane| lane.failure.as_ref());
    numbers.0.stopped = failed.map(ToString::to_string);
    if reported.get(name) == Some(&(revision.revision, numbers.clone())) {
        return;
    }
    let report = Report {
        revision: revision.revision,
        canary: numbers.0.clone(),
        others: numbers.1.clone(),
    };
    let body = match serde_json::to_value(&report) {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(pipeline = name, %error, "canary numbers have no JSON");
            return;
        }
    };
    let change = Change::Stat {
        pipeline: name.to_owned(),
        host: hub.config.host.id.clone(),
        body,
    };
    match hub.control.submit(&by_host(hub), change).await {
        Ok(_) => {
            reported.insert(name.to_owned(), (revision.revision, numbers));
        }
        Err(error) => tracing::warn!(pipeline = name, error = %error, "canary numbers not written"),
    }
}

/// Promotes or rolls back once the numbers of all hosts say so.
async fn decide(hub: &Hub, name: &str, revision: &Revision, canary: &Canary) {
    let (mine, others) = seen_by_all(&hub.control.state(), name, revision.revision);
    let now = crate::clock::now_micros() / 1000;
    let elapsed = u64::try_from(now.saturating_sub(canary.since_ms)).unwrap_or(0);
    let mut deployment = revision.deployment.clone();
    let summary = evidence(&canary.rules, &mine, &others);
    let said = match judge(&canary.rules, elapsed, &mine, &others) {
        Verdict::Open => return,
        Verdict::Good if canary.rules.then == GoodCanary::Hold => return,
        Verdict::Good => {
            deployment.action = Action::Promote;
            deployment.release = canary.release.clone();
            format!("{} held for {} s", canary.release.plugin, elapsed / 1000)
        }
        Verdict::Bad(reasons) => {
            deployment.action = Action::Rollback;
            format!(
                "{} rolled back: {}; the rows it wrote stay until its offsets are re-driven",
                canary.release.plugin,
                reasons.join("; ")
            )
        }
    };
    tracing::warn!(
        pipeline = name,
        decision = deployment.action.name(),
        said,
        "canary decided"
    );
    deployment.canary = None;
    deployment.origin = Origin::Upload;
    deployment.note = Some(serde_json::json!({
        "summary": said,
        "canary": canary.release.plugin,
        "partitions": canary.partitions,
        "evidence": summary,
    }));
    let change = Change::Deploy {
        pipeline: name.to_owned(),
        revision: revision.revision + 1,
        deployment,
    };
    match hub.control.submit(BY, change).await {
        // Where it was rejected another host, or a person, decided first.
        Ok(_) => {}
        Err(error) => tracing::warn!(pipeline = name, error = %error, "decision not written yet"),
    }
}

fn by_host(hub: &Hub) -> String {
    format!("host:{}", hub.config.host.id)
}

/// The canary and the other partitions, in this host's counters.
fn sides(lanes: &[LaneTotals], canary: &Canary) -> (Totals, Totals) {
    let (mut mine, mut others) = (Totals::default(), Totals::default());
    for lane in lanes {
        if *lane.release == *canary.release.id {
            mine.add(&lane.totals);
        } else if !canary.partitions.contains(&lane.partition) {
            others.add(&lane.totals);
        }
    }
    (mine, others)
}

fn numbers(totals: &Totals) -> Numbers {
    let faults = [code::TRAP, code::LIMIT, code::BAD_OUTPUT];
    let errors = faults
        .iter()
        .filter_map(|code| totals.dead_by_code.get(*code));
    let p99 = totals.latency.quantile(0.99).unwrap_or_default();
    Numbers {
        records: totals.received,
        rows: totals.rows.iter().sum(),
        dead: totals.dead,
        errors: errors.sum(),
        busy_micros: totals.busy_micros,
        p99_micros: u64::try_from(p99.as_micros()).unwrap_or(u64::MAX),
        stopped: None,
    }
}

/// What all hosts that reported saw of the canary that a revision began: its partitions, and the others.
pub(super) fn seen_by_all(state: &State, name: &str, revision: u64) -> (Numbers, Numbers) {
    let (mut mine, mut others) = (Numbers::default(), Numbers::default());
    for (_, stat) in state.stats(name) {
        let report: Result<Report, _> = serde_json::from_value(stat.body.clone());
        if let Ok(report) = report
            && report.revision == revision
        {
            mine.add(&report.canary);
            others.add(&report.others);
        }
    }
    (mine, others)
}
