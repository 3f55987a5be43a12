//! What a host and its pipelines do now, in the words of the API. It counts nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::behind;
use crate::admin::types::{
    CanaryEvidence, CanaryStatus, DeadLetterCount, ErrorCount, Evidence, HostPipeline, HostStatus,
    Lag, LastError, Latency, Ledger, PartitionStatus, PipelineState, PipelineStatus, Rates,
    RowDifference, ShadowReport, Totals, Waiting, WaitingError,
};
use crate::anchor::{self, Redriven};
use crate::assemble::canaries;
use crate::assemble::hub::{Hub, Known};
use crate::assemble::seen::{self, Pipeline, Seen};
use crate::config::Config;
use crate::control::{self, Deployment, Numbers, Origin, State};
use crate::pipeline::{self, LaneTotals};

/// A time as the API shows it.
pub(in crate::assemble) fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |at| at.to_string())
}

/// A host of which nothing is known but that it was started then, and why it does not do its work.
pub(in crate::assemble) fn starting(
    config: &Config,
    started: Instant,
    reasons: Vec<String>,
) -> HostStatus {
    HostStatus {
        id: config.host.id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: started.elapsed().as_secs(),
        ready: reasons.is_empty(),
        reasons,
        shards: u32::try_from(config.host.shards).unwrap_or(u32::MAX),
        memory_bytes: memory(),
        control_offset: 0,
        pipelines: Vec::new(),
    }
}

/// The host.
pub(in crate::assemble) fn host(hub: &Hub) -> HostStatus {
    let running = hub.pipelines();
    HostStatus {
        control_offset: hub.control.state().next(),
        pipelines: running
            .values()
            .map(|pipeline| HostPipeline {
                name: pipeline.name.to_string(),
                state: pipeline.seen().state,
                partitions: u32::try_from(
                    pipeline
                        .counters
                        .lanes()
                        .iter()
                        .filter(|lane| lane.running)
                        .count(),
                )
                .unwrap_or(u32::MAX),
            })
            .collect(),
        ..starting(&hub.config, hub.started, hub.reasons())
    }
}

/// Resident memory of the process, bytes; 0 where the system does not tell.
fn memory() -> u64 {
    const PAGE: u64 = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE
}

/// Pipelines by name, or one of them.
pub(super) async fn pipelines(hub: &Arc<Hub>, only: Option<&str>) -> Vec<PipelineStatus> {
    let state = hub.control.state();
    let running = hub.pipelines();
    let mut shown = Vec::new();
    for (name, revision) in state.pipelines() {
        if only.map_or(revision.deployment.removed, |only| only != name) {
            continue;
        }
        let (state, here) = (&*state, running.get(name));
        let one = async move {
            let known = match here {
                Some(pipeline) if pipeline.seen().state == PipelineState::Running => {
                    hub.known(pipeline).await
                }
                _ => Known::default(),
            };
            pipeline(hub, state, name, here, &known)
        };
        shown.push(one);
    }
    futures_util::future::join_all(shown).await
}

fn pipeline(
    hub: &Hub,
    state: &State,
    name: &str,
    here: Option<&Arc<Pipeline>>,
    known: &Known,
) -> PipelineStatus {
    let revision = state
        .pipeline(name)
        .expect("the caller found it in this state");
    let deployment = &revision.deployment;
    let seen = here.map(|pipeline| pipeline.seen());
    let lanes = here
        .map(|pipeline| pipeline.counters.lanes())
        .unwrap_or_default();
    let totals = here
        .map(|pipeline| pipeline.counters.totals())
        .unwrap_or_default();
    let (window, lately) = here.map(|pipeline| pipeline.lately()).unwrap_or_default();
    let partitions = partitions(state, name, &hub.config.host.id, &lanes, known);
    PipelineStatus {
        name: name.to_owned(),
        state: shown_state(deployment, seen.as_ref()),
        revision: revision.revision,
        behind: behind::reason(
            revision.revision,
            state.newer().get(&control::subject(name)),
            seen.as_ref(),
        ),
        origin: match deployment.origin {
            Origin::Upload => "upload".to_owned(),
            Origin::Config { .. } => "config".to_owned(),
        },
        plugin: deployment.release.plugin.clone(),
        release: deployment.release.id.clone(),
        canary: canary(state, name, deployment),
        shadow: shadow(deployment, &lanes),
        waiting: here.map(|here| waiting(here)).unwrap_or_default(),
        servers: servers(seen.as_ref()),
        lag: Lag {
            records: lag(&partitions),
        },
        rates: rates(window, &lately),
        totals: shown_totals(&totals),
        latency: latency(&lately.latency),
        errors: seen.as_ref().map(errors).unwrap_or_default(),
        dead_letters: totals
            .dead_by_code
            .iter()
            .map(|(code, count)| DeadLetterCount {
                code: code.clone(),
                count: *count,
            })
            .collect(),
        memory_bytes: seen
            .as_ref()
            .and_then(|seen| seen.loaded.as_ref())
            .map_or(0, |loaded| loaded.plugin.memory()),
        last_error: seen
            .and_then(|seen| seen.failure)
            .map(|(at, error)| LastError {
                at: time(at),
                class: seen::class(error.blame()).to_owned(),
                what: error.what().to_owned(),
                detail: error.detail().to_owned(),
                hint: error.hint_text().map(str::to_owned),
            }),
        partitions,
    }
}

/// What a pipeline waits for here.
fn waiting(here: &Pipeline) -> Vec<Waiting> {
    let waits = here.counters.waiting().into_iter();
    waits
        .map(|one| Waiting {
            on: one.server,
            since: time(one.since_millis),
            seconds: one.lasts.as_millis() as f64 / 1000.0,
            attempts: one.attempts,
            partitions: one.partitions,
            error: WaitingError {
                class: seen::class(one.error.blame()).to_owned(),
                what: one.error.what().to_owned(),
                detail: one.error.detail().to_owned(),
                hint: one.error.hint_text().map(str::to_owned),
            },
        })
        .collect()
}

fn servers(seen: Option<&Seen>) -> Vec<String> {
    let loaded = seen.and_then(|seen| seen.loaded.as_ref());
    loaded.map_or_else(Vec::new, |loaded| {
        loaded.release.plan.servers().into_iter().collect()
    })
}

/// What runs here, or, where nothing does yet, what is deployed.
fn shown_state(deployment: &Deployment, seen: Option<&Seen>) -> PipelineState {
    match seen {
        _ if deployment.removed => PipelineState::Removed,
        _ if deployment.paused => PipelineState::Paused,
        Some(seen) => seen.state,
        None => PipelineState::Starting,
    }
}

/// The partitions of this host as they are, those of others as the history tells.
fn partitions(
    state: &State,
    pipeline: &str,
    host: &str,
    lanes: &[LaneTotals],
    known: &Known,
) -> Vec<PartitionStatus> {
    let mut all: BTreeMap<i32, PartitionStatus> = BTreeMap::new();
    for (partition, segment) in state.segments(pipeline) {
        let elsewhere = PartitionStatus {
            partition,
            host: Some(segment.host.clone()).filter(|owner| owner != host),
            position: None,
            lag: None,
            ledger: None,
            release: Some(segment.release.clone()),
            quarantined: false,
            stalled: false,
        };
        all.insert(partition, elsewhere);
    }
    for lane in lanes.iter().filter(|lane| lane.running) {
        let end = usize::try_from(lane.partition)
            .ok()
            .and_then(|partition| known.ends.as_ref()?.get(partition))
            .map(|(_, end)| *end);
        let lag = end
            .zip(lane.position)
            .map(|(end, position)| u64::try_from(end - position).unwrap_or(0));
        all.insert(
            lane.partition,
            PartitionStatus {
                partition: lane.partition,
                host: Some(host.to_owned()),
                position: lane.position,
                lag,
                ledger: lane.position.zip(known.redriven.as_ref()).map(|(_, all)| {
                    let redriven = all.get(&lane.partition).copied();
                    ledger(lane.ledger, redriven.unwrap_or_default())
                }),
                release: Some(lane.release.to_string()),
                quarantined: lane.quarantined,
                stalled: lane.stalled,
            },
        );
    }
    all.into_values().collect()
}

/// Of the partitions that stand somewhere here, together; `None` where the end of one is not known.
fn lag(partitions: &[PartitionStatus]) -> Option<u64> {
    let here = partitions.iter().filter(|one| one.position.is_some());
    here.map(|one| one.lag).sum()
}

fn ledger(stored: anchor::Ledger, redriven: Redriven) -> Ledger {
    let shown = stored.with(redriven);
    Ledger {
        records: shown.records,
        emitted: shown.emitted,
        filtered: shown.filtered,
        dead: shown.dead,
        retried: stored.dead - shown.dead,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a few seconds are far below 2^52"
)]
fn rates(window: Duration, lately: &pipeline::Totals) -> Rates {
    let seconds = window.as_secs_f64();
    if seconds <= 0.0 {
        return Rates::default();
    }
    Rates {
        records_per_second: lately.received as f64 / seconds,
        rows_per_second: lately.rows.iter().sum::<u64>() as f64 / seconds,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a process's life are far below 2^52"
)]
fn shown_totals(totals: &pipeline::Totals) -> Totals {
    Totals {
        received: totals.received,
        emitted: totals.emitted,
        filtered: totals.filtered,
        dead: totals.dead,
        rows: totals.rows.iter().sum(),
        flights: totals.flights,
        retries: totals.retries,
        guest_seconds: totals.busy_micros as f64 / 1e6,
    }
}

fn latency(latency: &pipeline::Latency) -> Option<Latency> {
    let ms = |share| Some(latency.quantile(share)?.as_secs_f64() * 1000.0);
    Some(Latency {
        p50_ms: ms(0.5)?,
        p99_ms: ms(0.99)?,
    })
}

fn errors(seen: &Seen) -> Vec<ErrorCount> {
    seen.failures
        .iter()
        .map(|(class, count)| ErrorCount {
            class: (*class).to_owned(),
            count: *count,
        })
        .collect()
}

fn canary(state: &State, name: &str, deployment: &Deployment) -> Option<CanaryStatus> {
    let canary = deployment.canary.as_ref()?;
    let (mine, others) = canaries::seen_by_all(state, name);
    Some(CanaryStatus {
        plugin: canary.release.plugin.clone(),
        release: canary.release.id.clone(),
        partitions: canary.partitions.clone(),
        since: time(canary.since_ms),
        for_seconds: canary.rules.for_ms / 1000,
        evidence: evidence(&canary.rules, &mine, &others),
    })
}

/// The comparison, in the words of the API; also what a history entry keeps.
pub(in crate::assemble) fn evidence(
    rules: &control::CanaryRules,
    canary: &Numbers,
    others: &Numbers,
) -> CanaryEvidence {
    CanaryEvidence {
        against: control::against(rules, canary, others),
        canary: side(canary),
        others: side(others),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers since a canary began are far below 2^52"
)]
fn side(numbers: &Numbers) -> Evidence {
    Evidence {
        records: numbers.records,
        rows: numbers.rows,
        dead: numbers.dead,
        plugin_errors: numbers.errors,
        guest_us_per_record: numbers.busy_micros as f64 / numbers.records.max(1) as f64,
        p99_ms: numbers.p99_micros as f64 / 1000.0,
    }
}

fn shadow(deployment: &Deployment, lanes: &[LaneTotals]) -> Option<ShadowReport> {
    const SHOWN: usize = 20;
    let release = deployment.shadow.as_ref()?;
    let mut report = ShadowReport {
        plugin: release.plugin.clone(),
        release: release.id.clone(),
        ..ShadowReport::default()
    };
    let found = lanes.iter().filter_map(|lane| lane.shadow.as_ref());
    for differences in found.filter(|found| found.release == release.id) {
        report.records += differences.compared;
        report.differing += differences.differing;
        report.failures += u64::from(differences.stopped.is_some());
        let room = SHOWN - report.examples.len();
        let examples = differences
            .first
            .iter()
            .take(room)
            .map(|one| RowDifference {
                partition: one.partition,
                offset: one.offset,
                deployed: one.now.clone(),
                shadow: one.shadow.clone(),
            });
        report.examples.extend(examples);
    }
    Some(report)
}
