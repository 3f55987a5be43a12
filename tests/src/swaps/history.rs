//! What `history` says of a pipeline against the rows that its versions wrote.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::versioned::Run;

/// What `history` says otherwise than the rows: each run of rows lies in one segment of its version, segments leave
/// no gap, and the order of versions is the order of revisions.
pub fn against_history(runs: &BTreeMap<i32, Vec<Run>>, history: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let revisions: Vec<&str> = history["revisions"]
        .as_array()
        .into_iter()
        .flatten()
        .rev()
        .filter_map(|revision| revision["plugin"].as_str()?.split_once('@'))
        .map(|(_, version)| version)
        .collect();
    if revisions.is_empty() {
        faults.push("history has no revisions".to_owned());
    }
    for (partition, runs) in runs {
        let segments = segments(history, *partition);
        for pair in segments.windows(2) {
            if pair[0].1 != Some(pair[1].0) {
                faults.push(format!(
                    "history of partition {partition}: {:?} is followed by {:?}",
                    pair[0], pair[1]
                ));
            }
        }
        let mut revisions = revisions.iter();
        for run in runs {
            let covers = |segment: &&(i64, Option<i64>, String)| {
                segment.0 <= run.first && segment.1.is_none_or(|to| run.last < to)
            };
            match segments.iter().find(covers) {
                Some(segment) if segment.2 == run.version => {}
                Some(segment) => faults.push(format!(
                    "partition {partition}: {run:?} was written, history says {segment:?}"
                )),
                None => faults.push(format!(
                    "partition {partition}: no segment of history holds {run:?}"
                )),
            }
            if !revisions.any(|version| *version == run.version) {
                faults.push(format!(
                    "partition {partition}: {run:?} does not follow the order of revisions"
                ));
                break;
            }
        }
    }
    faults
}

/// `(from, to, version)` of a partition, in order.
fn segments(history: &Value, partition: i32) -> Vec<(i64, Option<i64>, String)> {
    let all = history["segments"].as_array().into_iter().flatten();
    let mut of: Vec<_> = all
        .filter(|segment| segment["partition"] == partition)
        .filter_map(|segment| {
            let version = segment["plugin"].as_str()?.split_once('@')?.1.to_owned();
            Some((segment["from"].as_i64()?, segment["to"].as_i64(), version))
        })
        .collect();
    of.sort_by_key(|segment| segment.0);
    // A host that claims a partition anew says again who processes it.
    of.dedup_by(|next, before| {
        let same = before.2 == next.2 && before.1 == Some(next.0);
        if same {
            before.1 = next.1;
        }
        same
    });
    of
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(version: &str, first: i64, last: i64) -> Run {
        Run {
            version: version.to_owned(),
            first,
            last,
        }
    }

    fn history(segments: &[(i64, Option<i64>, &str)], revisions: &[&str]) -> Value {
        let segments: Vec<Value> = segments
            .iter()
            .map(|(from, to, version)| {
                json!({ "partition": 0, "from": from, "to": to, "plugin": format!("p@{version}") })
            })
            .collect();
        let revisions: Vec<Value> = revisions
            .iter()
            .rev()
            .map(|version| json!({ "plugin": format!("p@{version}") }))
            .collect();
        json!({ "segments": segments, "revisions": revisions })
    }

    #[test]
    fn rows_that_agree_with_history_pass() {
        let runs = BTreeMap::from([(0, vec![run("a", 0, 10), run("b", 15, 20), run("a", 25, 30)])]);
        let good = history(
            &[
                (0, Some(8), "a"),
                (8, Some(12), "a"),
                (12, Some(22), "b"),
                (22, None, "a"),
            ],
            &["a", "c", "b", "a"],
        );
        assert_eq!(against_history(&runs, &good), Vec::<String>::new());
    }

    #[test]
    fn rows_that_history_does_not_know_are_faults() {
        let runs = BTreeMap::from([(0, vec![run("a", 0, 10), run("b", 15, 20)])]);
        let late = history(&[(0, Some(16), "a"), (16, None, "b")], &["a", "b"]);
        assert_eq!(against_history(&runs, &late).len(), 1);
        let gap = history(&[(0, Some(12), "a"), (13, None, "b")], &["a", "b"]);
        assert_eq!(against_history(&runs, &gap).len(), 1);
        let other = history(&[(0, Some(12), "a"), (12, None, "b")], &["b", "a"]);
        assert_eq!(against_history(&runs, &other).len(), 1);
    }
}
