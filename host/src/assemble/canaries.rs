//! Canaries under way: what each host sees of them goes into the control log, and whoever sees enough decides.
//!
//! A decision is a deployment like any other: of several hosts that decide at once the first counts. The rules are
//! the control log's ([`crate::control::judge`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use super::operate::evidence;
use super::seen::{Pipeline, Seen};
use crate::control::{
    Action, Canary, Change, GoodCanary, Numbers, Origin, Revision, State, Verdict, judge,
};
use crate::error::Blame;
use crate::pipeline::{LaneTotals, Totals};
use crate::route::code;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Who an automatic decision is by, in the history.
const BY: &str = "canary";

/// What one host saw of a canary, as it stands in the control log.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Report {
    /// The revision that began it, which a pause and its end are not.
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
                report(&hub, name, pipeline, canary, &mut reported).await;
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
    canary: &Canary,
    reported: &mut Reported,
) {
    let seen = pipeline.seen();
    let begun = began(&hub.control.state(), name);
    // What it counted belongs to another canary until it follows this one.
    let Some(revision) = begun.filter(|_| seen.canary.as_ref() == Some(canary)) else {
        return;
    };
    let lanes = pipeline.counters.lanes();
    let (mine, others) = sides(&lanes, canary);
    let (mine_before, others_before) = sides(&seen.before, canary);
    let mut numbers = (
        numbers(&mine.since(&mine_before)),
        numbers(&others.since(&others_before)),
    );
    // Past what it has to run nothing depends on it, and nothing need be written.
    numbers.0.ran_ms = ran(&lanes, &seen.before, canary).min(canary.rules.for_ms);
    numbers.0.stopped = stopped(&lanes, &seen, canary);
    if reported.get(name) == Some(&(revision, numbers.clone())) {
        return;
    }
    let report = Report {
        revision,
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
            reported.insert(name.to_owned(), (revision, numbers));
        }
        Err(error) => tracing::warn!(pipeline = name, error = %error, "canary numbers not written"),
    }
}

/// Promotes or rolls back once the numbers of all hosts say so.
async fn decide(hub: &Hub, name: &str, revision: &Revision, canary: &Canary) {
    let (mine, others) = seen_by_all(&hub.control.state(), name);
    let mut deployment = revision.deployment.clone();
    let summary = evidence(&canary.rules, &mine, &others);
    let said = match judge(&canary.rules, &mine, &others) {
        Verdict::Open => return,
        Verdict::Good if canary.rules.then == GoodCanary::Hold => return,
        Verdict::Good => {
            deployment.action = Action::Promote;
            deployment.release = canary.release.clone();
            let seconds = mine.ran_ms / 1000;
            format!("{} held for {seconds} s", canary.release.plugin)
        }
        Verdict::Bad(reasons) => {
            deployment.action = Action::Rollback;
            format!(
                "{} rolled back: {}; the rows it wrote stay until its offsets are processed again",
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
        ran_ms: 0,
        records: totals.received,
        rows: totals.rows.iter().sum(),
        dead: totals.dead,
        errors: errors.sum(),
        busy_micros: totals.busy_micros,
        p99_micros: u64::try_from(p99.as_micros()).unwrap_or(u64::MAX),
        stopped: None,
    }
}

/// How long it has run here since it began, milliseconds; where it ran longest of its partitions.
fn ran(lanes: &[LaneTotals], before: &[LaneTotals], canary: &Canary) -> u64 {
    let its = |lane: &&LaneTotals| *lane.release == *canary.release.id;
    let ran = lanes.iter().filter(its).map(|lane| {
        let mut earlier = before.iter().filter(its);
        let earlier = earlier.find(|earlier| earlier.partition == lane.partition);
        lane.ran
            .saturating_sub(earlier.map_or(Duration::ZERO, |earlier| earlier.ran))
    });
    let longest = ran.max().unwrap_or_default();
    u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)
}

/// Why it stopped or cannot run here, unless the outside is to blame: that is waited for.
fn stopped(lanes: &[LaneTotals], seen: &Seen, canary: &Canary) -> Option<String> {
    let its = lanes
        .iter()
        .filter(|lane| *lane.release == *canary.release.id);
    its.filter_map(|lane| lane.failure.as_ref())
        .chain(&seen.canary_fault)
        .find(|error| error.blame() != Blame::Outside)
        .map(ToString::to_string)
}

/// The revision that began the canary under way: those since are about the same one, such as a pause and its end.
fn began(state: &State, name: &str) -> Option<u64> {
    let history = state.history(name);
    let canary = history.last()?.deployment.canary.as_ref()?;
    let same = |revision: &&Arc<Revision>| revision.deployment.canary.as_ref() == Some(canary);
    let first = history.iter().rev().take_while(same).last()?;
    Some(first.revision)
}

/// What all hosts that reported saw of the canary under way: its partitions, and the others.
pub(super) fn seen_by_all(state: &State, name: &str) -> (Numbers, Numbers) {
    let (mut mine, mut others) = (Numbers::default(), Numbers::default());
    let begun = began(state, name);
    for (_, stat) in state.stats(name) {
        let report: Result<Report, _> = serde_json::from_value(stat.body.clone());
        if let Ok(report) = report
            && Some(report.revision) == begun
        {
            mine.add(&report.canary);
            others.add(&report.others);
        }
    }
    (mine, others)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::json;

    use super::*;
    use crate::control::{CanaryRules, Deployment, Entry, FORMAT, Release};
    use crate::error::Error;

    fn release(number: u8) -> Release {
        let digest = format!("sha256:{}", format!("{number:02x}").repeat(32));
        Release::new(format!("p@{number}.0.0"), digest, "")
    }

    fn trial(since_ms: i64) -> Canary {
        Canary {
            release: release(2),
            partitions: vec![2, 3],
            since_ms,
            rules: CanaryRules::default(),
        }
    }

    /// A control log of its own, as one host writes it.
    #[derive(Default)]
    struct Log(State);

    impl Log {
        fn write(&mut self, change: Change) {
            let entry = Entry {
                format: FORMAT,
                id: uuid::Uuid::new_v4(),
                at: 0,
                by: "ann".to_owned(),
                host: "h".to_owned(),
                change,
            };
            let (key, value) = (entry.key(), serde_json::to_vec(&entry).unwrap());
            let applied = self.0.apply(self.0.next(), key.as_bytes(), Some(&value));
            assert_eq!(applied, crate::control::Applied::Accepted);
        }

        fn deploy(&mut self, canary: Option<Canary>, paused: bool) {
            let revision = self.0.pipeline("p").map_or(1, |last| last.revision + 1);
            let deployment = Deployment {
                canary,
                paused,
                ..Deployment::of(release(1), Origin::Upload)
            };
            self.write(Change::Deploy {
                pipeline: "p".to_owned(),
                revision,
                deployment,
            });
        }

        fn report(&mut self, host: &str, revision: u64, canary: serde_json::Value) {
            let nothing = json!({"records": 0, "rows": 0, "dead": 0, "errors": 0, "busy_micros": 0, "p99_micros": 0});
            let mut mine = nothing.clone();
            mine.as_object_mut()
                .unwrap()
                .extend(canary.as_object().unwrap().clone());
            self.write(Change::Stat {
                pipeline: "p".to_owned(),
                host: host.to_owned(),
                body: json!({"revision": revision, "canary": mine, "others": nothing}),
            });
        }
    }

    #[test]
    fn a_pause_and_its_end_are_about_the_same_canary_and_another_one_is_not() {
        let mut log = Log::default();
        log.deploy(None, false);
        assert_eq!(began(&log.0, "p"), None);
        log.deploy(Some(trial(7)), false);
        log.report("h1", 2, json!({"records": 10, "ran_ms": 5000}));
        // By a version that did not know how long it ran.
        log.report("h2", 2, json!({"records": 20}));
        log.deploy(Some(trial(7)), true);
        log.deploy(Some(trial(7)), false);
        assert_eq!(began(&log.0, "p"), Some(2));
        let (mine, _) = seen_by_all(&log.0, "p");
        assert_eq!((mine.records, mine.ran_ms), (30, 5000));
        log.deploy(Some(trial(8)), false);
        assert_eq!(began(&log.0, "p"), Some(5));
        assert_eq!(seen_by_all(&log.0, "p").0, Numbers::default());
    }

    fn lane(partition: i32, release: &Release, seconds: u64) -> LaneTotals {
        LaneTotals {
            partition,
            release: release.id.as_str().into(),
            running: true,
            ran: Duration::from_secs(seconds),
            position: None,
            ledger: crate::anchor::Ledger::default(),
            quarantined: false,
            stalled: false,
            totals: Totals::default(),
            failure: None,
            shadow: None,
        }
    }

    #[test]
    fn it_ran_as_long_as_its_longest_lane_since_it_began() {
        let (old, new) = (release(1), release(2));
        let before = [lane(0, &old, 900), lane(2, &new, 100)];
        let lanes = [
            lane(0, &old, 990),
            lane(2, &new, 130),
            lane(2, &old, 500),
            lane(3, &new, 20),
        ];
        assert_eq!(ran(&lanes, &before, &trial(0)), 30_000);
        assert_eq!(ran(&lanes[..1], &before, &trial(0)), 0);
    }

    #[test]
    fn what_keeps_it_from_running_counts_unless_the_outside_is_to_blame() {
        let mut seen = Seen::new();
        let mut lanes = [lane(0, &release(1), 9), lane(2, &release(2), 9)];
        let why = |lanes: &[LaneTotals], seen: &Seen| stopped(lanes, seen, &trial(0));
        lanes[0].failure = Some(Error::config("open", "the others' table is gone"));
        assert_eq!(why(&lanes, &seen), None);
        lanes[1].failure = Some(Error::outside("connect", "no route to host"));
        seen.canary_fault = Some(Error::outside("load", "not there yet"));
        assert_eq!(why(&lanes, &seen), None);
        seen.canary_fault = Some(Error::config("load", "no such variable"));
        assert!(why(&lanes, &seen).unwrap().contains("no such variable"));
        seen.canary_fault = None;
        lanes[1].failure = Some(Error::config("open", "no such table"));
        assert!(why(&lanes, &seen).unwrap().contains("no such table"));
    }
}
