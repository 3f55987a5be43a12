//! `[limits]`, `[errors]` and `delivery` of `plugin.toml`: what is said once for the whole plugin, with its
//! defaults. Nothing here depends on what the component describes.

use std::time::Duration;

use toml::de::DeValue;

use super::types::{DataPolicy, Delivery, ErrorPolicy, Limits};
use crate::toml_check::{Problem, Section, units};

/// `[limits]`.
pub(super) fn limits(root: &Section<'_>) -> Limits {
    let default = Limits::default();
    let Some(section) = root.section("limits") else {
        return default;
    };
    let memory = section.size("memory", 1 << 20..=4 << 30);
    let memory = memory.map_or(default.memory, |found| found.value);
    let run_time = section.duration(
        "run_time",
        Duration::from_millis(10)..=Duration::from_mins(10),
    );
    let rows = section.integer("rows_per_record", 1..=1_000_000);
    let output = section.size("output_bytes", 1 << 10..=1 << 30);
    let recycle = section.size("recycle_after", 1 << 16..=4 << 30);
    if let Some(recycle) = &recycle
        && recycle.value > memory
    {
        section.report().add(
            Problem::at(recycle.span.clone(), "recycle_after is larger than memory")
                .label("never reached")
                .hint(format!("at most {}", units::show_size(memory))),
        );
    }
    let lines = section.integer("log_lines_per_second", 0..=100_000);
    section.finish();
    Limits {
        memory,
        run_time: run_time.map_or(default.run_time, |found| found.value),
        rows_per_record: rows
            .and_then(|found| u32::try_from(found.value).ok())
            .unwrap_or(default.rows_per_record),
        output_bytes: output.map_or(default.output_bytes, |found| found.value),
        recycle_after: recycle.map_or(memory / 2, |found| found.value),
        log_lines_per_second: lines
            .and_then(|found| u32::try_from(found.value).ok())
            .unwrap_or(default.log_lines_per_second),
    }
}

/// `[errors]`.
pub(super) fn errors(root: &Section<'_>) -> ErrorPolicy {
    let mut policy = ErrorPolicy {
        data: DataPolicy::DeadLetter,
        max_rate: None,
    };
    let Some(section) = root.section("errors") else {
        return policy;
    };
    let words = [
        ("dead-letter", DataPolicy::DeadLetter),
        ("skip", DataPolicy::Skip),
        ("stop", DataPolicy::Stop),
    ];
    if let Some(data) = section.choice("data", &words) {
        policy.data = data.value;
    }
    if let Some(text) = section.text("max_rate") {
        let rate = section.read(&text, "rate", |text| {
            rate(text).ok_or(
                "a percentage of the last records, e.g. \"5% of 1000\": above 0 to 100 of 1 to 1000000",
            )
        });
        policy.max_rate = rate.map(|found| found.value);
    }
    section.finish();
    policy
}

/// `"5% of 1000"` as (0.05, 1000).
fn rate(text: &str) -> Option<(f64, u32)> {
    let (percent, of) = text.split_once("% of ")?;
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    let percent: f64 = percent.chars().all(plain).then(|| percent.parse().ok())??;
    let of: u32 = of.parse().ok()?;
    let fits = percent > 0.0 && percent <= 100.0 && (1..=1_000_000).contains(&of);
    fits.then_some((percent / 100.0, of))
}

/// `delivery`, a word at the top level.
pub(super) fn delivery(root: &Section<'_>) -> Option<Delivery> {
    if let Some(entry) = root.entry("delivery")
        && matches!(entry.value.value, DeValue::Table(_))
    {
        root.report().add(
            Problem::at(entry.key.span, "delivery is a word, not a section")
                .label("not a section")
                .hint("write delivery = \"exactly-once\" above the first section"),
        );
        return None;
    }
    let words = [
        ("exactly-once", Delivery::ExactlyOnce),
        ("at-least-once", Delivery::AtLeastOnce),
    ];
    root.choice("delivery", &words).map(|found| found.value)
}
