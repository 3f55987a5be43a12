//! Whether a canary is good or bad: its numbers against those of the partitions without it, over the same time.
//! Pure; who asks and what follows is the host's business.

use serde::{Deserialize, Serialize};

use super::deployment::CanaryRules;

/// What one side of a comparison did since the canary began, on one host or on several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Milliseconds that it ran by the clock of the host where it ran longest; times without a lane of it, such as a
    /// pause, do not count. 0 where an earlier version reported.
    #[serde(default)]
    pub ran_ms: u64,
    /// Records settled.
    pub records: u64,
    /// Rows made of them.
    pub rows: u64,
    /// Records set aside.
    pub dead: u64,
    /// Records set aside for a fault of the plugin: trap, limit, malformed output.
    pub errors: u64,
    /// Microseconds of processor time spent on them.
    pub busy_micros: u64,
    /// Microseconds from the start of a batch's processing to its commit, 99th percentile; the worst host's.
    pub p99_micros: u64,
    /// Why it stopped or cannot run, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

impl Numbers {
    /// Adds what another host saw.
    pub fn add(&mut self, other: &Self) {
        self.ran_ms = self.ran_ms.max(other.ran_ms);
        self.records = self.records.saturating_add(other.records);
        self.rows = self.rows.saturating_add(other.rows);
        self.dead = self.dead.saturating_add(other.dead);
        self.errors = self.errors.saturating_add(other.errors);
        self.busy_micros = self.busy_micros.saturating_add(other.busy_micros);
        self.p99_micros = self.p99_micros.max(other.p99_micros);
        if self.stopped.is_none() {
            self.stopped.clone_from(&other.stopped);
        }
    }
}

/// What the numbers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too few records, or too early.
    Open,
    /// It held as long as it had to.
    Good,
    /// It is worse than it may be; each reason with its numbers.
    Bad(Vec<String>),
}

/// Judges a canary.
#[must_use]
pub fn judge(rules: &CanaryRules, canary: &Numbers, others: &Numbers) -> Verdict {
    let against = against(rules, canary, others);
    if !against.is_empty() {
        return Verdict::Bad(against);
    }
    if canary.ran_ms >= rules.for_ms && canary.records >= rules.min_records {
        return Verdict::Good;
    }
    Verdict::Open
}

/// Everything that speaks against the canary by now.
#[must_use]
pub fn against(rules: &CanaryRules, canary: &Numbers, others: &Numbers) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(why) = &canary.stopped {
        found.push(format!("it stopped: {why}"));
    }
    if canary.dead >= rules.min_failures {
        worse(
            &mut found,
            "dead letters",
            canary.dead,
            others.dead,
            canary,
            others,
            rules.max_dead_ratio,
        );
        worse(
            &mut found,
            "plugin errors",
            canary.errors,
            others.errors,
            canary,
            others,
            rules.max_error_ratio,
        );
    }
    // The rest compares averages: both sides need enough records for that.
    if canary.records < rules.min_records || others.records < rules.min_records {
        return found;
    }
    let each = |sum: u64, numbers: &Numbers| share(sum, numbers.records);
    if let Some(most) = rules.max_rows_difference {
        let (mine, theirs) = (each(canary.rows, canary), each(others.rows, others));
        if (mine - theirs).abs() > most * theirs {
            found.push(format!("{mine:.3} rows a record, the others {theirs:.3}"));
        }
    }
    let (mine, theirs) = (
        each(canary.busy_micros, canary),
        each(others.busy_micros, others),
    );
    if mine > rules.max_cpu_factor * theirs && mine > 1.0 {
        found.push(format!(
            "{mine:.1} µs of processor time a record, the others {theirs:.1}"
        ));
    }
    let (mine, theirs) = (share(canary.p99_micros, 1), share(others.p99_micros, 1));
    // Below that the clock decides more than the plugin.
    if mine > rules.max_latency_factor * theirs && mine > 100_000.0 {
        found.push(format!(
            "{:.0} ms to the commit (99th percentile), the others {:.0}",
            mine / 1000.0,
            theirs / 1000.0
        ));
    }
    found
}

fn worse(
    found: &mut Vec<String>,
    what: &str,
    mine: u64,
    theirs: u64,
    canary: &Numbers,
    others: &Numbers,
    most: f64,
) {
    let (here, there) = (share(mine, canary.records), share(theirs, others.records));
    if here > there + most {
        found.push(format!(
            "{mine} {what} in {} records ({:.2} %), the others {theirs} in {} ({:.2} %)",
            canary.records,
            here * 100.0,
            others.records,
            there * 100.0
        ));
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts since a canary began are far below 2^52"
)]
fn share(part: u64, of: u64) -> f64 {
    part as f64 / of.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(records: u64, dead: u64) -> Numbers {
        Numbers {
            ran_ms: 1000,
            records,
            rows: records - dead,
            dead,
            errors: dead,
            busy_micros: records,
            p99_micros: 2048,
            stopped: None,
        }
    }

    #[test]
    fn one_record_in_twenty_is_bad_at_once_and_one_in_a_thousand_is_not() {
        let rules = CanaryRules::default();
        let others = numbers(5000, 0);
        let bad = judge(&rules, &numbers(200, 10), &others);
        assert!(
            matches!(&bad, Verdict::Bad(why) if why[0].contains("10 dead letters in 200 records (5.00 %)")),
            "{bad:?}"
        );
        assert_eq!(judge(&rules, &numbers(200, 1), &others), Verdict::Open);
        let noisy = numbers(5000, 250);
        assert_eq!(
            judge(&rules, &numbers(200, 10), &noisy),
            Verdict::Open,
            "the others are as bad"
        );
    }

    #[test]
    fn good_needs_time_and_records() {
        let rules = CanaryRules::default();
        let others = numbers(5000, 0);
        let verdict = |ran_ms, records| {
            let canary = Numbers {
                ran_ms,
                ..numbers(records, 0)
            };
            judge(&rules, &canary, &others)
        };
        assert_eq!(verdict(rules.for_ms, 10), Verdict::Open);
        assert_eq!(verdict(rules.for_ms - 1, 2000), Verdict::Open);
        assert_eq!(verdict(rules.for_ms, 2000), Verdict::Good);
    }

    #[test]
    fn of_several_hosts_the_one_where_it_ran_longest_counts() {
        let mut all = Numbers::default();
        for ran_ms in [20_000, 50_000, 30_000] {
            all.add(&Numbers {
                ran_ms,
                ..numbers(100, 0)
            });
        }
        assert_eq!((all.ran_ms, all.records), (50_000, 300));
    }

    #[test]
    fn what_a_host_wrote_that_did_not_know_how_long_it_ran_is_still_read() {
        let written =
            r#"{"records":9,"rows":8,"dead":1,"errors":0,"busy_micros":7,"p99_micros":6}"#;
        let read: Numbers = serde_json::from_str(written).expect("what was written before");
        assert_eq!((read.records, read.ran_ms), (9, 0));
    }

    #[test]
    fn rows_time_and_a_stop_count_against_it() {
        let rules = CanaryRules {
            max_rows_difference: Some(0.5),
            ..CanaryRules::default()
        };
        let others = numbers(5000, 0);
        let mut few = numbers(2000, 0);
        few.rows = 500;
        assert!(against(&rules, &few, &others)[0].contains("0.250 rows a record"));
        let mut slow = numbers(2000, 0);
        slow.busy_micros = 20_000;
        slow.p99_micros = 900_000;
        assert_eq!(against(&rules, &slow, &others).len(), 2);
        let mut stopped = numbers(0, 0);
        stopped.stopped = Some("init: no".to_owned());
        assert!(against(&rules, &stopped, &others)[0].contains("init: no"));
        let any = CanaryRules {
            max_rows_difference: None,
            ..rules
        };
        assert!(against(&any, &few, &others).is_empty());
    }
}
