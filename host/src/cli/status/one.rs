//! One pipeline in full. Pure.

use crate::admin::types::{
    CanaryStatus, Evidence, PartitionStatus, PipelineStatus, ShadowReport, Waiting,
};
use crate::cli::show;

/// Columns of a canary's table; all but the first are numbers.
const SIDES: [&str; 7] = [
    "version",
    "records",
    "rows/record",
    "dead/record",
    "plugin errors",
    "guest µs/record",
    "p99 ms",
];

/// Everything that is known of a pipeline.
pub(super) fn lines(status: &PipelineStatus) -> Vec<String> {
    let totals = &status.totals;
    let mut lines = vec![
        format!("pipeline {}: {}", status.name, super::state(status)),
        format!(
            "  plugin   {} (release {}), revision {} by {}",
            status.plugin, status.release, status.revision, status.origin
        ),
        match status.lag.records {
            Some(lag) => format!("  lag      {}", show::number_of(lag, "record")),
            None => {
                "  lag      not known: the broker did not tell where the partitions end".to_owned()
            }
        },
        format!(
            "  rates    {} records/s, {} rows/s over the last 10 s",
            show::rate(status.rates.records_per_second),
            show::rate(status.rates.rows_per_second)
        ),
        format!(
            "  totals   {} received = {} emitted + {} filtered + {} dead; {} in {}, {}",
            show::count(totals.received),
            show::count(totals.emitted),
            show::count(totals.filtered),
            show::count(totals.dead),
            show::number_of(totals.rows, "row"),
            show::number_of(totals.flights, "flight"),
            show::number_of(totals.retries, "retry")
        ),
        format!(
            "  guest    {:.3} s in all, {} memory",
            totals.guest_seconds,
            show::size(status.memory_bytes)
        ),
    ];
    if let Some(latency) = &status.latency {
        lines.push(format!(
            "  latency  p50 {:.1} ms, p99 {:.1} ms from flight to commit",
            latency.p50_ms, latency.p99_ms
        ));
    }
    let errors: Vec<_> = status
        .errors
        .iter()
        .map(|error| format!("{} {}", show::count(error.count), error.class))
        .collect();
    lines.push(format!(
        "  errors   {}",
        if errors.is_empty() {
            "none".to_owned()
        } else {
            errors.join(", ")
        }
    ));
    let dead: Vec<_> = status
        .dead_letters
        .iter()
        .map(|dead| format!("{} {}", show::count(dead.count), dead.code))
        .collect();
    lines.extend(ledger(&status.partitions));
    lines.push(format!(
        "  dead     {}",
        if dead.is_empty() {
            "none".to_owned()
        } else {
            dead.join(", ")
        }
    ));
    lines.extend(status.waiting.iter().flat_map(waiting));
    if let Some(why) = &status.behind {
        lines.push(format!("  behind   {why}"));
    }
    if let Some(last) = &status.last_error {
        lines.push(format!(
            "  last error at {} ({}): {}: {}",
            last.at, last.class, last.what, last.detail
        ));
        lines.extend(last.hint.iter().map(|hint| format!("    hint: {hint}")));
    }
    if let Some(canary) = &status.canary {
        lines.extend(canary_lines(canary, &status.plugin));
    }
    if let Some(shadow) = &status.shadow {
        lines.extend(shadow_lines(shadow));
    }
    if !status.partitions.is_empty() {
        lines.extend(quarantined(&status.partitions));
        lines.extend(stalled(&status.partitions));
        lines.push(partitions(&status.partitions));
    }
    lines
}

/// What became of the records; that it is not known where partitions stand somewhere and nobody tells.
fn ledger(partitions: &[PartitionStatus]) -> Option<String> {
    if let Some(ledger) = super::ledger(partitions) {
        return Some(format!(
            "  ledger   {} = {} emitted + {} filtered + {} dead (among them {})",
            show::number_of(ledger.records, "record"),
            show::count(ledger.emitted),
            show::count(ledger.filtered),
            show::count(ledger.dead),
            show::number_of(ledger.retried, "retried dead letter")
        ));
    }
    let stands = partitions.iter().any(|one| one.position.is_some());
    stands.then(|| {
        "  ledger   not known: the database did not tell which dead letters were retried".to_owned()
    })
}

/// A server that is waited for, with what to do about it.
fn waiting(one: &Waiting) -> Vec<String> {
    let partitions: Vec<_> = one.partitions.iter().map(ToString::to_string).collect();
    let who = match partitions.is_empty() {
        true => String::new(),
        false => format!(", partitions {}", partitions.join(", ")),
    };
    let attempts = match one.attempts {
        1 => "1 attempt".to_owned(),
        more => format!("{} attempts", show::count(more)),
    };
    let mut lines = vec![
        format!(
            "  waiting  for {} since {} ({attempts} failed{who})",
            super::awaited(one),
            one.since
        ),
        format!(
            "    {} error: {}: {}",
            one.error.class, one.error.what, one.error.detail
        ),
    ];
    lines.extend(
        one.error
            .hint
            .iter()
            .map(|hint| format!("    hint: {hint}")),
    );
    lines
}

fn canary_lines(canary: &CanaryStatus, deployed: &str) -> Vec<String> {
    let numbers: Vec<_> = canary.partitions.iter().map(ToString::to_string).collect();
    let side = |name: String, evidence: &Evidence| {
        [
            name,
            show::count(evidence.records),
            share(evidence.rows, evidence.records),
            share(evidence.dead, evidence.records),
            show::count(evidence.plugin_errors),
            format!("{:.2}", evidence.guest_us_per_record),
            format!("{:.1}", evidence.p99_ms),
        ]
    };
    let evidence = &canary.evidence;
    vec![
        format!(
            "canary {} on partitions {}, since {}, has to hold {} s",
            canary.plugin,
            numbers.join(", "),
            canary.since,
            canary.for_seconds
        ),
        show::table(
            SIDES,
            SIDES.split_at(1).1,
            [
                side(format!("{} (canary)", canary.plugin), &evidence.canary),
                side(format!("{deployed} (others)"), &evidence.others),
            ],
        ),
        if evidence.against.is_empty() {
            "  nothing speaks against it so far".to_owned()
        } else {
            format!("  against it: {}", evidence.against.join("; "))
        },
    ]
}

/// Parts of a whole, to four digits.
#[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        "–".to_owned()
    } else {
        format!("{:.4}", part as f64 / whole as f64)
    }
}

fn shadow_lines(shadow: &ShadowReport) -> Vec<String> {
    let mut lines = vec![format!(
        "shadow {} (release {}): {}, {} differing, {}",
        shadow.plugin,
        shadow.release,
        show::number_of(shadow.records, "record"),
        show::count(shadow.differing),
        show::number_of(shadow.failures, "failure")
    )];
    for example in &shadow.examples {
        lines.push(format!(
            "  partition {} offset {}",
            example.partition, example.offset
        ));
        lines.push(format!("    - {}", example.deployed));
        lines.push(format!("    + {}", example.shadow));
    }
    lines
}

fn quarantined(partitions: &[PartitionStatus]) -> Option<String> {
    let why = "the plugin went past a limit or kept others waiting";
    those("quarantined", why, partitions, |partition| {
        partition.quarantined
    })
}

fn stalled(partitions: &[PartitionStatus]) -> Option<String> {
    let why =
        "records wait and nothing moves; if they stay stalled, restart the host and report the log";
    those("stalled", why, partitions, |partition| partition.stalled)
}

/// A line that names the partitions that are in some state, if any is.
fn those(
    word: &str,
    why: &str,
    partitions: &[PartitionStatus],
    are: impl Fn(&PartitionStatus) -> bool,
) -> Option<String> {
    let named = partitions.iter().filter(|partition| are(partition));
    let named: Vec<_> = named
        .map(|partition| partition.partition.to_string())
        .collect();
    (!named.is_empty()).then(|| format!("  {word} partitions: {}; {why}", named.join(", ")))
}

fn partitions(partitions: &[PartitionStatus]) -> String {
    show::table(
        ["partition", "host", "position", "lag", "release"],
        &["partition", "position", "lag"],
        partitions.iter().map(|partition| {
            [
                partition.partition.to_string(),
                show::or_dash(partition.host.as_ref()),
                show::or_dash(partition.position),
                show::or_dash(partition.lag.map(show::count)),
                show::or_dash(partition.release.as_ref()),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_is_not_known_is_said_to_be_so() {
        let mut partition = PartitionStatus {
            partition: 0,
            host: None,
            position: None,
            lag: None,
            ledger: None,
            release: None,
            quarantined: false,
            stalled: false,
        };
        assert_eq!(ledger(std::slice::from_ref(&partition)), None);
        partition.position = Some(7);
        let unknown = ledger(&[partition]).unwrap_or_default();
        assert!(unknown.contains("ledger   not known"), "{unknown}");
    }

    #[test]
    fn partitions_in_quarantine_are_named() {
        let all = |quarantined: [bool; 3]| {
            let numbered = (0..).zip(quarantined);
            let all = numbered.map(|(partition, quarantined)| PartitionStatus {
                partition,
                host: None,
                position: None,
                lag: None,
                ledger: None,
                release: None,
                quarantined,
                stalled: false,
            });
            super::quarantined(&all.collect::<Vec<_>>())
        };
        assert_eq!(all([false; 3]), None);
        let some = all([true, false, true]).unwrap_or_default();
        assert!(some.contains("quarantined partitions: 0, 2;"), "{some}");
    }
}
