//! What a session works on: the overlay it deploys with, the files it feeds, the records it runs again. It starts
//! nothing.

use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::config::{Config, PipelineConfig};
use crate::error::Error;
use crate::manifest::{Field, FieldSource, Format, Input, Manifest, Target};
use crate::record::Batch;

/// What the plugin asks for, granted, and routes to Cassandra discarded where it does not run.
pub(super) fn overlay_of(manifest: &Manifest, cassandra: bool) -> String {
    let mut overlay = toml::Table::new();
    if manifest.inputs.iter().any(|input| input.headers) {
        overlay.insert("grants".to_owned(), vec!["headers"].into());
    }
    let discarded: toml::Table = manifest
        .routes
        .iter()
        .filter(|route| !cassandra && matches!(route.target, Target::Cassandra(_)))
        .map(|route| (route.name.clone(), "discard".into()))
        .collect();
    if !discarded.is_empty() {
        let bind = toml::Table::from_iter([("route".to_owned(), toml::Value::Table(discarded))]);
        overlay.insert("bind".to_owned(), toml::Value::Table(bind));
    }
    overlay.to_string()
}

/// Where fed records have the key that the plugin asks for, unless `--key` says where: in a member called like the
/// field that is read from the key. `None` where the plugin does without a key, or values are no JSON.
pub(super) fn key_pointer(input: &Input) -> Option<String> {
    let keyed = |field: &&Field| field.from == FieldSource::Key && !field.column.nullable;
    let field = input.fields.iter().find(keyed)?;
    (input.format == Format::Json).then(|| format!("/{}", field.column.name))
}

/// The overlay as a host would read it beside these connections.
pub(super) fn checked(
    connections: &str,
    name: &str,
    overlay: &str,
) -> Result<PipelineConfig, Failure> {
    let what = || format!("read the overlay of pipeline {name:?}");
    let mut pipeline: toml::Table = overlay.parse().map_err(|error| {
        Error::config(what(), error).hint("it is a [pipeline.NAME] section without its header")
    })?;
    pipeline.insert("file".to_owned(), "plugin.wasm".into());
    let named = toml::Table::from_iter([(name.to_owned(), toml::Value::Table(pipeline))]);
    let whole = toml::Table::from_iter([("pipeline".to_owned(), toml::Value::Table(named))]);
    let text = format!("[host]\nid = \"dev\"\n\n{connections}\n{whole}");
    let env = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
    let config = Config::check(&text, &env)?;
    config
        .pipelines
        .into_iter()
        .next()
        .ok_or_else(|| Error::bug(what(), "the checked config lost it").into())
}

/// The `.ndjson` files of a folder in name order; none when there is no folder.
pub(super) fn samples(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let wrong = |error| Error::config(format!("read {}", folder.display()), error);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.extension().is_some_and(|ending| ending == "ndjson") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The newest records of several partitions by their timestamps, in their partitions' order.
pub(super) fn newest(batches: &[Batch], most: usize) -> Vec<Batch> {
    let mut times: Vec<(i64, i32, i64)> = batches
        .iter()
        .flat_map(|batch| {
            batch
                .iter()
                .map(|record| (record.timestamp, batch.partition(), record.offset))
        })
        .collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.truncate(most);
    let kept: std::collections::HashSet<(i32, i64)> = times
        .into_iter()
        .map(|(_, partition, offset)| (partition, offset))
        .collect();
    let mut out = Vec::new();
    for batch in batches {
        let mut part = Batch::new(batch.partition(), batch.from());
        for record in batch
            .iter()
            .filter(|record| kept.contains(&(batch.partition(), record.offset)))
        {
            part.push(record);
        }
        if !part.is_empty() {
            out.push(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::record::Record;

    fn batch(partition: i32, records: &[(i64, i64)]) -> Batch {
        let mut batch = Batch::new(partition, records[0].0);
        for (offset, timestamp) in records {
            batch.push(Record {
                key: None,
                value: Some(b"{}"),
                timestamp: *timestamp,
                offset: *offset,
                headers: b"",
                marks: 0,
            });
        }
        batch
    }

    #[test]
    fn the_newest_records_over_all_partitions_are_kept_in_order() {
        let batches = [
            batch(0, &[(5, 10), (6, 40), (8, 30)]),
            batch(1, &[(0, 20), (1, 35)]),
            batch(2, &[(0, 1)]),
        ];
        let kept = newest(&batches, 3);
        let seen: Vec<_> = kept
            .iter()
            .map(|batch| (batch.partition(), batch.offsets().to_vec()))
            .collect();
        assert_eq!(seen, [(0, vec![6, 8]), (1, vec![1])]);
        assert_eq!(
            newest(&batches, 100).iter().map(Batch::len).sum::<usize>(),
            6
        );
    }

    #[test]
    fn an_overlay_is_read_as_a_host_would() {
        let connections = "[kafka.main]\nbrokers = \"a:1\"\n";
        let overlay =
            "grants = [\"headers\"]\nconfig.unit = \"C\"\n[bind.input.i]\ntopic = \"other\"\n";
        let pipeline = checked(connections, "p", overlay).unwrap();
        assert_eq!(pipeline.grants, ["headers"]);
        assert_eq!(pipeline.inputs["i"].topic.as_deref(), Some("other"));
        assert!(pipeline.config.contains_key("unit"));
        assert_eq!(
            checked(connections, "p", "nonsense = 1")
                .unwrap_err()
                .exit_code(),
            3
        );
        assert_eq!(checked(connections, "p", "= 1").unwrap_err().exit_code(), 3);
    }

    #[test]
    fn a_key_that_is_asked_for_is_looked_for_under_its_name() {
        let pointer = |format: &str, nullable: bool| {
            let toml = format!(
                "manifest = 1\n[plugin]\nname = \"p\"\nversion = \"1.0.0\"\n[input.i]\ntopic = \"t\"\n\
                 format = \"{format}\"\n[route.a]\nsink = \"postgres\"\ntable = \"as\"\nmode = \"append\"\n"
            );
            let describe = format!(
                r#"{{"sdk":"x 1.0.0","inputs":[{{"name":"i","fields":[
                    {{"name":"at","type":"timestamp","nullable":false,"from":"timestamp"}},
                    {{"name":"sensor","type":"text","nullable":{nullable},"from":"key"}}
                ],"raw":false,"headers":false}}],
                "routes":[{{"name":"a","columns":[{{"name":"v","type":"int64","nullable":false}}]}}],"config":[]}}"#
            );
            key_pointer(&Manifest::check(&toml, &describe).unwrap().inputs[0])
        };
        assert_eq!(pointer("json", false).as_deref(), Some("/sensor"));
        assert_eq!(pointer("json", true), None, "it does without");
        assert_eq!(pointer("text", false), None, "lines have no members");
    }

    #[test]
    fn samples_are_found_in_name_order() {
        let dir = tempfile::tempdir().unwrap();
        assert!(samples(&dir.path().join("data")).unwrap().is_empty());
        for name in ["b.ndjson", "a.ndjson", "c.txt"] {
            std::fs::write(dir.path().join(name), "{}").unwrap();
        }
        let found = samples(dir.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.ndjson", "b.ndjson"]);
    }
}
