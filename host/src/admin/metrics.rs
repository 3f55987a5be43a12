//! `/metrics`: what a host knows of itself as OpenMetrics text. Made anew for each scrape from what the operator
//! says, so no number is kept twice; only requests are counted here. Labels are bounded: pipelines, partitions,
//! codes and routes, never offsets, keys or error texts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use axum::extract::MatchedPath;
use http::{Method, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::types::{HostStatus, PipelineState, PipelineStatus};
use crate::route::code;
use crate::telemetry::metric;

/// The format's media type (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;
type Sums = Family<Labels, Counter<f64, AtomicU64>>;
type Levels = Family<Labels, Gauge<f64, AtomicU64>>;

/// A number of a pipeline.
type Of<T> = fn(&PipelineStatus) -> T;

/// Requests by route, method and status.
#[derive(Debug, Default)]
pub(super) struct Requests(Counts);

impl Requests {
    /// Counts an answer. A request that met no route counts as `other`.
    pub(super) fn count(&self, method: &Method, route: Option<&MatchedPath>, status: StatusCode) {
        let method = match *method {
            Method::GET | Method::PUT | Method::POST | Method::DELETE | Method::HEAD => {
                method.as_str()
            }
            _ => "other",
        };
        let labels = vec![
            (
                "route",
                route.map_or("other", MatchedPath::as_str).to_owned(),
            ),
            ("method", method.to_owned()),
            ("status", status.as_u16().to_string()),
        ];
        self.0.get_or_create(&labels).inc();
    }
}

/// The text of a scrape.
pub(super) fn text(host: &HostStatus, pipelines: &[PipelineStatus], requests: &Requests) -> String {
    let mut registry = Registry::default();
    let (name, help) = metric::HTTP_REQUESTS;
    registry.register(name, help, requests.0.clone());
    of_host(&mut registry, host);
    of_pipelines(&mut registry, pipelines);
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        // Writing to a string does not fail; if it did, half a document must not pass for a whole one.
        text.clear();
        write!(text, "# the metrics could not be written: {error}\n# EOF\n").ok();
    }
    text
}

fn of_host(registry: &mut Registry, host: &HostStatus) {
    let id = vec![("id", host.id.clone()), ("version", host.version.clone())];
    level(registry, metric::HOST_INFO, &[(id, 1.0)]);
    let none = Labels::new;
    level(
        registry,
        metric::HOST_READY,
        &[(none(), f64::from(u8::from(host.ready)))],
    );
    level(
        registry,
        metric::HOST_UPTIME,
        &[(none(), float(host.uptime_seconds))],
    );
    level(
        registry,
        metric::HOST_MEMORY,
        &[(none(), float(host.memory_bytes))],
    );
}

fn of_pipelines(registry: &mut Registry, pipelines: &[PipelineStatus]) {
    let label = |status: &PipelineStatus| vec![("pipeline", status.name.clone())];
    let with = |status: &PipelineStatus, name: &'static str, value: &str| {
        vec![("pipeline", status.name.clone()), (name, value.to_owned())]
    };
    let counts: [(metric::Name, Of<u64>); 7] = [
        (metric::RECORDS_RECEIVED, |status| status.totals.received),
        (metric::RECORDS_EMITTED, |status| status.totals.emitted),
        (metric::RECORDS_FILTERED, |status| status.totals.filtered),
        (metric::RECORDS_DEAD, |status| status.totals.dead),
        (metric::ROWS, |status| status.totals.rows),
        (metric::FLIGHTS, |status| status.totals.flights),
        (metric::RETRIES, |status| status.totals.retries),
    ];
    for (name, of) in counts {
        let all: Vec<_> = pipelines
            .iter()
            .map(|status| (label(status), of(status)))
            .collect();
        count(registry, name, &all);
    }
    let levels: [(metric::Name, Of<Option<f64>>); 3] = [
        (metric::LAG, |status| status.lag.records.map(float)),
        (metric::MEMORY, |status| Some(float(status.memory_bytes))),
        (metric::REVISION, |status| Some(float(status.revision))),
    ];
    for (name, of) in levels {
        let all: Vec<_> = pipelines
            .iter()
            .filter_map(|status| Some((label(status), of(status)?)))
            .collect();
        level(registry, name, &all);
    }
    let guest = Sums::default();
    for status in pipelines {
        guest
            .get_or_create(&label(status))
            .inc_by(status.totals.guest_seconds.max(0.0));
    }
    registry.register(metric::GUEST_SECONDS.0, metric::GUEST_SECONDS.1, guest);
    let mut errors = Vec::new();
    let mut letters = Vec::new();
    let mut states = Vec::new();
    let mut lags = Vec::new();
    let mut ledgers = Vec::new();
    let mut retried = Vec::new();
    let mut stalled = Vec::new();
    let mut latencies = Vec::new();
    let mut waiting = Vec::new();
    for status in pipelines {
        // From the start, so that `increase()` sees the first one.
        errors.extend(CLASSES.map(|class| (with(status, "class", class), 0)));
        letters.extend(code::OWN.map(|code| (with(status, "code", code), 0)));
        errors.extend(
            status
                .errors
                .iter()
                .map(|one| (with(status, "class", &one.class), one.count)),
        );
        letters.extend(
            status
                .dead_letters
                .iter()
                .map(|one| (with(status, "code", &one.code), one.count)),
        );
        states.extend(STATES.map(|(word, state)| {
            (
                with(status, "state", word),
                f64::from(u8::from(status.state == state)),
            )
        }));
        lags.extend(status.partitions.iter().filter_map(|one| {
            let labels = with(status, "partition", &one.partition.to_string());
            Some((labels, float(one.lag?)))
        }));
        stalled.extend(status.partitions.iter().filter_map(|one| {
            one.position?;
            let labels = with(status, "partition", &one.partition.to_string());
            Some((labels, f64::from(u8::from(one.stalled))))
        }));
        for one in &status.partitions {
            let Some(ledger) = one.ledger else { continue };
            let outcomes = [
                ("emitted", ledger.emitted),
                ("filtered", ledger.filtered),
                ("dead", ledger.dead),
            ];
            let of = with(status, "partition", &one.partition.to_string());
            retried.push((of.clone(), float(ledger.retried)));
            for (outcome, records) in outcomes {
                let mut labels = of.clone();
                labels.push(("outcome", outcome.to_owned()));
                ledgers.push((labels, float(records)));
            }
        }
        let mut waits: BTreeMap<&str, f64> = BTreeMap::new();
        waits.extend(status.servers.iter().map(|server| (server.as_str(), 0.0)));
        waits.extend(status.waiting.iter().map(|one| (&*one.on, one.seconds)));
        let waits = waits.into_iter();
        waiting.extend(waits.map(|(server, seconds)| (with(status, "server", server), seconds)));
        if let Some(latency) = &status.latency {
            latencies.push((with(status, "quantile", "0.5"), latency.p50_ms / 1000.0));
            latencies.push((with(status, "quantile", "0.99"), latency.p99_ms / 1000.0));
        }
    }
    count(registry, metric::ERRORS, &errors);
    count(registry, metric::DEAD_LETTERS, &letters);
    level(registry, metric::STATE, &states);
    level(registry, metric::PARTITION_LAG, &lags);
    level(registry, metric::LEDGER, &ledgers);
    level(registry, metric::LEDGER_RETRIED, &retried);
    level(registry, metric::LANE_STALLED, &stalled);
    level(registry, metric::LATENCY, &latencies);
    level(registry, metric::WAITING, &waiting);
}

/// Every class of failure, as `ErrorCount` has them.
const CLASSES: [&str; 5] = ["plugin", "data", "config", "outside", "bug"];

/// Every state with its word: a pipeline has 1 in one of them and 0 in the others.
const STATES: [(&str, PipelineState); 6] = [
    ("running", PipelineState::Running),
    ("starting", PipelineState::Starting),
    ("paused", PipelineState::Paused),
    ("parked", PipelineState::Parked),
    ("stopped", PipelineState::Stopped),
    ("removed", PipelineState::Removed),
];

fn count(registry: &mut Registry, (name, help): metric::Name, values: &[(Labels, u64)]) {
    let family = Counts::default();
    for (labels, value) in values {
        family.get_or_create(labels).inc_by(*value);
    }
    registry.register(name, help, family);
}

fn level(registry: &mut Registry, (name, help): metric::Name, values: &[(Labels, f64)]) {
    let family = Levels::default();
    for (labels, value) in values {
        family.get_or_create(labels).set(*value);
    }
    registry.register(name, help, family);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "OpenMetrics has floats; a count past 2^53 loses its last digits"
)]
fn float(value: u64) -> f64 {
    value as f64
}
