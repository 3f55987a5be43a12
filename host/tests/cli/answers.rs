//! Bodies as hosts send them, full enough to show everything the command line draws.

use serde_json::{Value, json};

pub(crate) const AT: &str = "2026-01-02T03:04:05Z";
const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

pub(crate) fn problem(status: u16, code: &str, detail: &str) -> Value {
    json!({
        "type": format!("urn:wasmill:problem:{code}"), "title": "change the deployment", "status": status,
        "detail": detail, "instance": "/v1/pipelines/quakes", "code": code, "hint": "do what the hint says",
    })
}

pub(crate) fn plan() -> Value {
    json!({
        "pipeline": "quakes", "seen": 3, "hash": "plan-1",
        "changes": [
            {"what": "plugin", "from": "quakes@1.1.0", "to": "quakes@1.2.0"},
            {"what": "limits.memory", "from": "64MiB"},
            {"what": "grants", "to": "headers"},
        ],
        "warnings": [], "ddl": [], "problems": [],
        "guarantees": [{"route": "quakes", "sink": "postgres.main geo.quakes", "guarantee": "exactly once",
                        "why": "rows and position commit together"}],
    })
}

pub(crate) fn deployed(changed: bool) -> Value {
    json!({"pipeline": "quakes", "revision": 4, "changed": changed})
}

pub(crate) fn history() -> Value {
    let revision = |revision: u64, by: &str, action: &str, plugin: &str, note: Option<&str>| {
        json!({"revision": revision, "at": AT, "by": by, "action": action, "plugin": plugin,
               "release": format!("{revision:016x}"), "note": note})
    };
    json!({
        "pipeline": "quakes",
        "revisions": [
            revision(4, "canary", "rollback", "quakes@1.1.0", Some("dead letters 5.1% against 0.0%")),
            revision(3, "ci", "deploy", "quakes@1.2.0", None),
        ],
        "segments": [
            {"partition": 0, "from": 0, "to": 1200, "release": "0000000000000003", "plugin": "quakes@1.1.0"},
            {"partition": 0, "from": 1200, "release": "0000000000000004", "plugin": "quakes@1.2.0"},
        ],
    })
}

pub(crate) fn status() -> Value {
    json!({
        "name": "quakes", "state": "running", "revision": 4, "origin": "upload", "plugin": "quakes@1.2.0",
        "release": "0000000000000004", "lag": {"records": 1_234_567}, "memory_bytes": 3_500_000,
        "rates": {"records_per_second": 12345.6, "rows_per_second": 99.94},
        "totals": {"received": 10_000, "emitted": 6_000, "filtered": 3_990, "dead": 10, "rows": 6_001,
                   "flights": 20, "retries": 1, "guest_seconds": 0.125},
        "latency": {"p50_ms": 2.0, "p99_ms": 8.25},
        "errors": [{"class": "plugin", "count": 7}, {"class": "outside", "count": 1}],
        "dead_letters": [{"code": "row-refused", "count": 10}],
        "last_error": {"at": AT, "class": "outside", "what": "connect to postgres", "detail": "refused",
                       "hint": "start it"},
        "partitions": [
            {"partition": 0, "host": "a", "position": 42, "lag": 7, "release": "0000000000000004"},
            {"partition": 1},
        ],
    })
}

/// All partitions run the release, or only the first.
pub(crate) fn swapping(done: bool) -> Value {
    let mut status = status();
    status["partitions"][1]["release"] = if done {
        json!("0000000000000004")
    } else {
        json!("0000000000000003")
    };
    status
}

pub(crate) fn canary() -> Value {
    let mut status = status();
    let side = |records: u64, dead: u64, errors: u64| {
        json!({"records": records, "rows": records / 2, "dead": dead, "plugin_errors": errors,
               "guest_us_per_record": 1.5, "p99_ms": 8.0})
    };
    status["canary"] = json!({
        "plugin": "quakes@1.3.0", "release": "0000000000000005", "partitions": [1], "since": AT, "for_seconds": 60,
        "evidence": {"canary": side(1000, 50, 50), "others": side(3000, 0, 0),
                     "against": ["dead letters 5.0% against 0.0%"]},
    });
    status["partitions"][1]["release"] = json!("0000000000000005");
    status
}

pub(crate) fn shadow() -> Value {
    let mut status = status();
    status["shadow"] = json!({
        "plugin": "quakes@1.3.0", "release": "0000000000000005", "records": 500, "differing": 1, "failures": 0,
        "examples": [{"partition": 0, "offset": 17, "deployed": "{\"mag\":1.0}", "shadow": "{\"mag\":1.1}"}],
    });
    status
}

pub(crate) fn host() -> Value {
    json!({"id": "a", "version": "0.1.0", "uptime_seconds": 3600, "ready": true, "reasons": [], "shards": 2,
           "memory_bytes": 50_000_000, "control_offset": 12, "pipelines": []})
}

pub(crate) fn versions() -> Value {
    let version = |plugin: &str, pipelines: &[&str]| {
        json!({"plugin": plugin, "digest": DIGEST, "size": 123_456, "track": "since-v0.1", "at": AT, "by": "ci",
               "pipelines": pipelines, "a member of tomorrow": 1})
    };
    json!([
        version("quakes@1.1.0", &["quakes"]),
        version("quakes@1.2.0", &[]),
        version("other@0.1.0", &[])
    ])
}

pub(crate) fn uploaded(created: bool) -> Value {
    json!({"plugin": "quakes@1.2.0", "digest": DIGEST, "size": 123_456, "created": created, "report": {
        "checks": ["valid component", "manifest equals describe"], "fixtures": 2, "compile_ms": 12,
        "asks": ["headers"], "signed_by": "ops", "warnings": ["column \"depth\" is never set"]}})
}

pub(crate) fn audit() -> Value {
    json!([{"at": AT, "by": "ci", "host": "a", "action": "denied", "subject": "/v1/plugins", "outcome": "role read"}])
}
