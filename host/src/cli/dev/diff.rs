//! Two builds over the same records, laid side by side: which rows changed, by table. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::author::{DEAD, Place, Rows};
use crate::manifest::Manifest;

/// Changed rows shown of a table; the rest is counted.
const SHOWN: usize = 10;

/// One row that is other than it was.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Changed {
    /// Where it stands.
    pub(super) place: Place,
    /// What the build before made there.
    pub(super) before: Option<Value>,
    /// What this build makes there.
    pub(super) after: Option<Value>,
}

/// What differs, by route, then partition, offset and index.
pub(super) fn diff(before: &Rows, after: &Rows) -> Vec<Changed> {
    let places: BTreeSet<&Place> = before.rows.keys().chain(after.rows.keys()).collect();
    places
        .into_iter()
        .map(|place| Changed {
            place: place.clone(),
            before: before.rows.get(place).cloned(),
            after: after.rows.get(place).cloned(),
        })
        .filter(|changed| changed.before != changed.after)
        .collect()
}

/// How many rows each route has, in route order, dead letters last where there are any.
pub(super) fn counts(manifest: &Manifest, rows: &Rows) -> Vec<(String, usize)> {
    let mut by_route: BTreeMap<&str, usize> = BTreeMap::new();
    for place in rows.rows.keys() {
        *by_route.entry(&place.route).or_default() += 1;
    }
    let dead = by_route.remove(DEAD);
    let routes = manifest.routes.iter().map(|route| {
        let rows = by_route.get(route.name.as_str()).copied().unwrap_or(0);
        (title(manifest, &route.name), rows)
    });
    routes
        .chain(dead.map(|dead| (DEAD.to_owned(), dead)))
        .collect()
}

/// The changes for a person: a head a table, then what went and what came.
pub(super) fn lines(manifest: &Manifest, changes: &[Changed]) -> Vec<String> {
    if changes.is_empty() {
        return vec!["no row changed".to_owned()];
    }
    let mut by_route: BTreeMap<&str, Vec<&Changed>> = BTreeMap::new();
    for changed in changes {
        by_route
            .entry(&changed.place.route)
            .or_default()
            .push(changed);
    }
    let mut lines = Vec::new();
    for (route, changes) in by_route {
        let added = changes
            .iter()
            .filter(|changed| changed.after.is_some())
            .count();
        let removed = changes
            .iter()
            .filter(|changed| changed.before.is_some())
            .count();
        lines.push(format!("{}: +{added} −{removed}", title(manifest, route)));
        for changed in changes.iter().take(SHOWN) {
            let Place {
                partition,
                offset,
                index,
                ..
            } = changed.place;
            let nth = if index == 0 {
                String::new()
            } else {
                format!(" row {index}")
            };
            lines.push(format!("  partition {partition} offset {offset}{nth}"));
            lines.extend(changed.before.iter().map(|row| format!("    - {row}")));
            lines.extend(changed.after.iter().map(|row| format!("    + {row}")));
        }
        if changes.len() > SHOWN {
            lines.push(format!("  … and {} more", changes.len() - SHOWN));
        }
    }
    lines
}

/// The changes for a program.
pub(super) fn document(changes: &[Changed]) -> Value {
    changes
        .iter()
        .map(|changed| {
            let Place {
                route,
                partition,
                offset,
                index,
            } = &changed.place;
            json!({"route": route, "partition": partition, "offset": offset, "index": index,
                   "removed": changed.before, "added": changed.after})
        })
        .collect()
}

fn title(manifest: &Manifest, route: &str) -> String {
    let found = manifest.routes.iter().find(|found| found.name == route);
    match found.map(|found| &found.target) {
        Some(target) => format!("{route} ({} {})", target.kind(), target.place()),
        // A route of the build before, or the dead letters.
        None => route.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(all: &[(&str, i64, u32, i64)]) -> Rows {
        let place = |route: &str, offset, index| Place {
            route: route.to_owned(),
            partition: 0,
            offset,
            index,
        };
        Rows {
            rows: all
                .iter()
                .map(|(route, offset, index, value)| {
                    (place(route, *offset, *index), json!({ "v": value }))
                })
                .collect(),
            faults: Vec::new(),
        }
    }

    #[test]
    fn added_removed_and_changed_rows_are_found_by_place() {
        let before = rows(&[
            ("a", 1, 0, 1),
            ("a", 1, 1, 2),
            ("a", 2, 0, 3),
            ("b", 1, 0, 9),
        ]);
        let after = rows(&[
            ("a", 1, 0, 1),
            ("a", 2, 0, 4),
            ("b", 1, 0, 9),
            (DEAD, 3, 0, 0),
        ]);
        let changes = diff(&before, &after);
        let seen: Vec<_> = changes
            .iter()
            .map(|changed| {
                let value =
                    |row: &Option<Value>| row.as_ref().map(|row| row["v"].as_i64().unwrap_or(-1));
                (
                    changed.place.route.as_str(),
                    changed.place.offset,
                    changed.place.index,
                    value(&changed.before),
                    value(&changed.after),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (DEAD, 3, 0, None, Some(0)),
                ("a", 1, 1, Some(2), None),
                ("a", 2, 0, Some(3), Some(4)),
            ]
        );
        assert!(diff(&before, &before).is_empty());
        assert_eq!(diff(&after, &before).len(), 3);
    }

    #[test]
    fn a_person_sees_a_head_a_table_and_at_most_so_many_rows() {
        let many: Vec<_> = (0..25).map(|offset| ("a", offset, 0, offset)).collect();
        let none = rows(&[]);
        let toml = "manifest = 1\n[plugin]\nname = \"p\"\nversion = \"1.0.0\"\n[input.i]\ntopic = \"t\"\nformat = \"json\"\n\
            [route.a]\nsink = \"postgres\"\ntable = \"as\"\nmode = \"append\"\n";
        let describe = r#"{"sdk":"x 1.0.0","inputs":[{"name":"i","fields":[],"raw":true,"headers":false}],"routes":[{"name":"a","columns":[{"name":"v","type":"int64","nullable":false}]}],"config":[]}"#;
        let manifest = Manifest::check(toml, describe).expect("a manifest");
        let changes = diff(&none, &rows(&many));
        let lines = lines(&manifest, &changes);
        assert_eq!(lines[0], "a (postgres as): +25 −0");
        assert_eq!(lines[1], "  partition 0 offset 0");
        assert_eq!(lines[2], "    + {\"v\":0}");
        assert_eq!(lines.last().map(String::as_str), Some("  … and 15 more"));
        assert_eq!(
            counts(&manifest, &rows(&many)),
            [("a (postgres as)".to_owned(), 25)]
        );
        assert_eq!(document(&changes)[3]["added"], json!({"v": 3}));
    }
}
