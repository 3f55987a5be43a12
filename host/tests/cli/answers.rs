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

pub(crate) fn raised() -> Value {
    json!({"partitions": 5, "added": 1, "write_time": 1_700_000_000_123_456_i64})
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

/// A pipeline that waits for two servers.
pub(crate) fn waiting() -> Value {
    let mut status = status();
    status["servers"] = json!(["cassandra.main", "kafka.main", "postgres.main"]);
    status["waiting"] = json!([
        {"on": "kafka.main", "since": AT, "seconds": 3.25, "attempts": 1, "partitions": [],
         "error": {"class": "outside", "what": "consume topic \"quakes\"", "detail": "timed out"}},
        {"on": "postgres.main", "since": AT, "seconds": 12.9, "attempts": 1234, "partitions": [0, 1],
         "error": {"class": "outside", "what": "connect to postgres", "detail": "refused", "hint": "start it"}},
    ]);
    status
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
            {"partition": 0, "host": "a", "position": 42, "lag": 7, "release": "0000000000000004",
             "ledger": {"records": 42, "emitted": 30, "filtered": 8, "dead": 4, "retried": 6}},
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

pub(crate) fn letter() -> Value {
    json!({
        "topic": "prod.quakes", "partition": 0, "offset": 1200, "index": 0, "class": "data", "code": "malformed",
        "reason": "the value is no JSON: \u{1b}[2Junexpected end", "plugin": "quakes@1.2.0", "digest": DIGEST, "at": AT,
        "timestamp_ms": 1_767_323_045_006_i64, "key": "us7000", "value_bytes": 9, "truncated": false,
    })
}

pub(crate) fn letters(next: Option<&str>) -> Value {
    let mut second = letter();
    second["offset"] = 1201.into();
    second["index"] = 1.into();
    second["truncated"] = true.into();
    for gone in ["at", "key", "value_bytes", "timestamp_ms"] {
        second.as_object_mut().unwrap().remove(gone);
    }
    json!({"letters": [letter(), second], "next": next})
}

pub(crate) fn whole() -> Value {
    let mut letter = letter();
    letter["tried_at"] = AT.into();
    // {"mag":1, / de ad be ef
    letter["record"] = json!({
        "key": "dXM3MDAw", "value": "eyJtYWciOjEs", "from": "letter",
        "headers": [{"name": "trace", "value": "3q2+7w=="}, {"name": "none"}],
    });
    letter
}

pub(crate) fn missing() -> Value {
    let mut letter = letter();
    letter["truncated"] = true.into();
    letter["record"] = json!({
        "key": "dXM3MDAw", "headers": [], "from": "letter",
        "missing": "it was too large to be kept whole, and the topic does not hold it any more",
    });
    letter
}

pub(crate) fn retried(next: Option<&str>) -> Value {
    let one = |offset: i64, outcome: &str, rows: u64| json!({"partition": 0, "offset": offset, "index": 0, "outcome": outcome, "rows": rows});
    let mut dead = one(1202, "dead", 0);
    dead["code"] = "row-refused".into();
    dead["reason"] = "column \"mag\" is null and not nullable".into();
    let mut refused = one(1203, "refused", 0);
    refused["reason"] = "route \"quakes\" is an upsert without a guard".into();
    let results = if next.is_some() {
        json!([one(1200, "emitted", 2), one(1201, "filtered", 0)])
    } else {
        json!([dead, refused, one(1204, "gone", 0)])
    };
    json!({"plugin": "quakes@1.2.1", "release": "0000000000000005", "results": results, "next": next})
}
