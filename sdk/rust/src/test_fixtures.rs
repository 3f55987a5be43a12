//! Golden fixtures: `NAME.in.ndjson` are records, `NAME.out.json` what becomes of them. The same files run here
//! natively and, as the real component, in `wasmill plugin test`.
//!
//! A line of input: `{"key": text|null, "value": JSON|text|null, "timestamp": ms, "headers": [[name, text]]}`;
//! every member but `value` may be left out. The golden file: `{"rows": {route: [row, …]}, "dead": [{"index",
//! "code"}]}`; a row holds its columns by name, those left alone missing; one that deletes also
//! `"$op": "delete"`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::plugin::Plugin;
use crate::test::Harness;
use crate::test_decode::Origin;

/// Set to write golden files instead of comparing.
const BLESS: &str = "WASMILL_BLESS";

/// Runs every fixture of a folder and compares with its golden file.
///
/// # Panics
/// When one differs, cannot be read, or the folder holds none.
pub fn fixtures<P: Plugin>(folder: impl AsRef<Path>) {
    let folder = folder.as_ref();
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(".in.ndjson"))
        .collect();
    inputs.sort();
    assert!(
        !inputs.is_empty(),
        "{} holds no NAME.in.ndjson",
        folder.display()
    );
    for input in inputs {
        let golden = PathBuf::from(input.to_string_lossy().replace(".in.ndjson", ".out.json"));
        let found = run::<P>(&read(&input));
        if std::env::var_os(BLESS).is_some() {
            let text = format!("{found:#}\n");
            std::fs::write(&golden, text)
                .unwrap_or_else(|error| panic!("{}: {error}", golden.display()));
            continue;
        }
        let wanted: Value = serde_json::from_str(&read(&golden))
            .unwrap_or_else(|error| panic!("{}: {error}", golden.display()));
        assert!(
            found == wanted,
            "{} came out differently (set {BLESS}=1 to accept)\nwanted: {wanted:#}\nfound:  {found:#}",
            input.display()
        );
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn run<P: Plugin>(lines: &str) -> Value {
    let mut harness = Harness::<P>::new();
    for (at, line) in lines.lines().enumerate() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("line {}: {error}", at + 1));
        let origin =
            origin(&line).unwrap_or_else(|| panic!("line {} is no record: {line}", at + 1));
        let seen = harness.take(
            0,
            Origin {
                topic: P::INPUTS[0].name.to_owned(),
                ..origin
            },
        );
        assert!(seen.fatal.is_none(), "line {}: {:?}", at + 1, seen.fatal);
    }
    let mut rows: Map<String, Value> = P::ROUTES
        .iter()
        .map(|route| (route.name.to_owned(), json!([])))
        .collect();
    for row in harness.seen().iter().flat_map(|seen| &seen.rows) {
        let mut columns = row.columns.clone();
        if row.delete {
            columns.insert("$op".to_owned(), "delete".into());
        }
        if let Some(Value::Array(route)) = rows.get_mut(&row.route) {
            route.push(Value::Object(columns));
        }
    }
    let dead = harness
        .dead()
        .into_iter()
        .map(|(index, dead)| json!({"index": index, "code": dead.code}));
    let dead: Vec<Value> = dead.collect();
    harness.finish();
    json!({"rows": rows, "dead": dead})
}

/// One line.
fn origin(line: &Value) -> Option<Origin> {
    let text = |value: &Value| match value {
        Value::Null => Some(None),
        Value::String(text) => Some(Some(text.clone().into_bytes())),
        value => Some(Some(value.to_string().into_bytes())),
    };
    let members = line.as_object()?;
    let mut headers = Vec::new();
    if let Some(all) = members.get("headers") {
        for header in all.as_array()? {
            headers.push((header.get(0)?.as_str()?.to_owned(), text(header.get(1)?)?));
        }
    }
    Some(Origin {
        key: members.get("key").map_or(Some(None), text)?,
        value: members
            .get("value")
            .filter(|value| !value.is_null())
            .cloned(),
        timestamp: members.get("timestamp").map_or(Some(-1), Value::as_i64)?,
        headers,
        ..Origin::default()
    })
}
