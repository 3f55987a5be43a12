//! What a plugin may use: limits below the ceilings, grants, and what is denied.

use std::time::Duration;

use super::super::world::{append_route, input};
use super::{manifest, pipeline, plan, refused};
use crate::manifest::Limits;

#[test]
fn limits_are_tightened_never_widened_and_stay_below_the_ceilings() {
    let manifest = manifest(vec![append_route()]);
    let mut tight = pipeline(&[("rows", "p1")]);
    tight.memory = Some(16 << 20);
    tight.run_time = Some(Duration::from_millis(100));
    let limits = plan(&tight, &manifest).unwrap().limits;
    assert_eq!((limits.memory, limits.recycle_after), (16 << 20, 16 << 20));
    assert_eq!(limits.run_time, Duration::from_millis(100));
    let mut wide = pipeline(&[("rows", "p1")]);
    wide.memory = Some((64 << 20) + 1);
    assert!(refused(&wide, &manifest).contains("is more than the plugin asks for (67108864)"));
    let mut wide = pipeline(&[("rows", "p1")]);
    wide.run_time = Some(Duration::from_secs(2));
    assert!(refused(&wide, &manifest).contains("limits.run_time = 2s is more"));
    for (change, text) in [
        (
            (|limits| limits.memory = 1 << 40) as fn(&mut Limits),
            "asks for memory",
        ),
        (
            |limits| limits.run_time = Duration::from_secs(11),
            "asks for run_time 11s, the ceiling is 10s",
        ),
        (
            |limits| limits.output_bytes = 1 << 40,
            "asks for output_bytes",
        ),
    ] {
        let mut greedy = manifest.clone();
        change(&mut greedy.limits);
        assert!(
            refused(&pipeline(&[("rows", "p1")]), &greedy).contains(text),
            "{text}"
        );
    }
}

#[test]
fn every_limit_has_a_ceiling_and_the_hint_says_who_can_lower_it() {
    type Change = fn(&mut crate::manifest::Limits);
    let cases: [(&str, Change, &str); 5] = [
        ("memory", |l| l.memory = 1 << 40, "[pipeline."),
        (
            "run_time",
            |l| l.run_time = Duration::from_hours(1),
            "[pipeline.",
        ),
        ("output_bytes", |l| l.output_bytes = 1 << 40, "manifest"),
        (
            "rows_per_record",
            |l| l.rows_per_record = 100_001,
            "manifest",
        ),
        (
            "log_lines_per_second",
            |l| l.log_lines_per_second = 1001,
            "manifest",
        ),
    ];
    for (limit, change, who) in cases {
        let mut greedy = manifest(vec![append_route()]);
        change(&mut greedy.limits);
        let error = plan(&pipeline(&[("rows", "p1")]), &greedy).unwrap_err();
        assert!(error.detail().contains(limit), "{error}");
        let hint = error.hint_text().unwrap();
        assert!(hint.contains(who) && hint.contains("[ceilings]"), "{hint}");
    }
}

#[test]
fn what_is_not_granted_bound_or_supported_is_refused() {
    let mut headers = manifest(vec![append_route()]);
    headers.inputs[0].headers = true;
    let mut bound = pipeline(&[("rows", "p1")]);
    assert!(refused(&bound, &headers).contains("asks for headers"));
    bound.grants = vec!["headers".to_owned()];
    assert!(plan(&bound, &headers).is_ok());
    let one = manifest(vec![append_route()]);
    assert!(refused(&pipeline(&[]), &one).contains("rows"));
    assert!(refused(&pipeline(&[("rows", "p1"), ("rowz", "p1")]), &one).contains("rowz"));
    assert!(refused(&pipeline(&[("rows", "c1")]), &one).contains("no [postgres.c1]"));
    let mut inputs = one.clone();
    inputs.inputs.push(crate::manifest::Input {
        name: "in2".to_owned(),
        ..input()
    });
    assert!(refused(&pipeline(&[("rows", "p1")]), &inputs).contains("has 2 inputs"));
}

/// What was logged meanwhile, one JSON object a line.
fn logged(act: impl FnOnce()) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let writer = file.reopen().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(std::sync::Mutex::new(writer))
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    std::fs::read_to_string(file.path()).unwrap()
}

#[test]
fn a_denied_capability_is_an_event_that_names_the_key() {
    let mut headers = manifest(vec![append_route()]);
    headers.inputs[0].headers = true;
    let mut bound = pipeline(&[("rows", "p1")]);
    let said = logged(|| drop(plan(&bound, &headers).unwrap_err()));
    let event: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(event["target"], crate::telemetry::DENIED);
    assert_eq!(event["level"], "WARN");
    assert_eq!(event["pipeline"], bound.name.as_str());
    assert_eq!(event["capability"], "headers");
    assert_eq!(event["key"], format!("pipeline.{}.grants", bound.name));
    bound.grants = vec!["headers".to_owned()];
    assert_eq!(logged(|| drop(plan(&bound, &headers).unwrap())), "");
}
