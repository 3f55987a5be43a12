//! A folder in which a dead letter's record is run again: `fixtures/` as `wasmill plugin test` reads it, with what came
//! out as the golden file, and beside it manifest, configuration and where all that is from.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::bytes;
use super::show::decoded;
use crate::admin::types::{DeadLetterBundle, DeadRecord};
use crate::cli::Failure;
use crate::error::Error;

/// Writes the folder; returns the name of its fixture's input. What is there of an earlier bundle is replaced.
///
/// # Errors
/// The record's bytes are not to be had, the folder is a plugin's own, or it cannot be written.
pub(super) fn write(folder: &Path, bundle: &DeadLetterBundle) -> Result<String, Failure> {
    let what = format!("write the bundle {}", folder.display());
    let letter = &bundle.letter;
    let record = letter.record.clone().unwrap_or_default();
    if let Some(missing) = &record.missing {
        return Err(Error::data(what, missing).into());
    }
    if folder.join("plugin.toml").exists() && !folder.join("bundle.json").exists() {
        let detail = "a plugin.toml is there that no bundle brought";
        let refused =
            Error::config(what, detail).hint("choose another folder; nothing was written");
        return Err(Failure::Refused(refused));
    }
    let fixtures = folder.join("fixtures");
    let outside = |error: std::io::Error| Error::outside(what.clone(), error);
    fs::create_dir_all(&fixtures).map_err(outside)?;
    let name = format!(
        "dead-{}-{}-{}",
        letter.partition, letter.offset, letter.index
    );
    let put = |path: &Path, text: String| fs::write(path, text).map_err(outside);
    let input = format!("{name}.in.ndjson");
    put(
        &fixtures.join(&input),
        format!("{}\n", line(bundle, &record)?),
    )?;
    let none = |route: &String| (route.clone(), json!([]));
    let rows: Map<String, Value> = bundle.routes.iter().map(none).collect();
    let golden = json!({"rows": rows, "dead": [{"index": 0, "code": letter.code}]});
    put(
        &fixtures.join(format!("{name}.out.json")),
        format!("{golden:#}\n"),
    )?;
    put(&folder.join("plugin.toml"), bundle.manifest.clone())?;
    put(&folder.join("config.toml"), bundle.overlay.clone())?;
    let mut about = json!(letter);
    if let Some(about) = about.as_object_mut() {
        about.remove("record");
        about.insert("release".to_owned(), bundle.release.clone().into());
        about.insert("digest".to_owned(), bundle.digest.clone().into());
        about.insert("secrets".to_owned(), json!(bundle.secrets));
    }
    put(&folder.join("bundle.json"), format!("{about:#}\n"))?;
    Ok(input)
}

/// The record as a line of a fixture: text where it is text.
fn line(bundle: &DeadLetterBundle, record: &DeadRecord) -> Result<Value, Error> {
    let letter = &bundle.letter;
    let mut line = Map::new();
    for (name, part) in [("key", &record.key), ("value", &record.value)] {
        let bytes = decoded(part.as_deref())?;
        match (bytes.as_deref().map(bytes::text), part) {
            (Some(Some(text)), _) => line.insert(name.to_owned(), text.into()),
            (Some(None), Some(base64)) => {
                line.insert(format!("{name}_base64"), base64.clone().into())
            }
            _ => line.insert(name.to_owned(), Value::Null),
        };
    }
    line.insert(
        "timestamp".to_owned(),
        letter.timestamp_ms.unwrap_or(-1).into(),
    );
    if !record.headers.is_empty() {
        let header = |header: &crate::admin::types::DeadHeader| json!([header.name, header.value]);
        let headers = record.headers.iter().map(header);
        line.insert("headers_base64".to_owned(), headers.collect());
    }
    line.insert("partition".to_owned(), letter.partition.into());
    line.insert("offset".to_owned(), letter.offset.into());
    Ok(Value::Object(line))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::admin::types::{DeadHeader, DeadLetter};

    fn bundle() -> DeadLetterBundle {
        DeadLetterBundle {
            letter: DeadLetter {
                partition: 3,
                offset: 42,
                code: "malformed".to_owned(),
                timestamp_ms: Some(7),
                record: Some(DeadRecord {
                    key: Some("3q2+7w==".to_owned()),
                    value: Some("eyJhIjoxfQ==".to_owned()),
                    headers: vec![DeadHeader {
                        name: "h".to_owned(),
                        value: None,
                    }],
                    from: "letter".to_owned(),
                    missing: None,
                }),
                ..DeadLetter::default()
            },
            release: "0123456789abcdef".to_owned(),
            digest: "sha256:00".to_owned(),
            manifest: "manifest = 1\n".to_owned(),
            routes: vec!["quakes".to_owned()],
            overlay: "grants = []\n".to_owned(),
            secrets: vec!["token".to_owned()],
        }
    }

    #[test]
    fn a_bundle_is_a_folder_with_a_fixture() {
        let dir = tempfile::tempdir().unwrap();
        let input = write(dir.path(), &bundle()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let line: Value = serde_json::from_str(&read(&format!("fixtures/{input}"))).unwrap();
        assert_eq!(
            line,
            json!({"key_base64": "3q2+7w==", "value": "{\"a\":1}", "timestamp": 7, "headers_base64": [["h", null]],
                   "partition": 3, "offset": 42})
        );
        let golden: Value = serde_json::from_str(&read("fixtures/dead-3-42-0.out.json")).unwrap();
        assert_eq!(
            golden,
            json!({"rows": {"quakes": []}, "dead": [{"index": 0, "code": "malformed"}]})
        );
        let about: Value = serde_json::from_str(&read("bundle.json")).unwrap();
        assert_eq!(
            (&about["digest"], &about["secrets"][0]),
            (&json!("sha256:00"), &json!("token"))
        );
        assert!(about.get("record").is_none());
        assert_eq!(
            (read("plugin.toml"), read("config.toml")),
            (bundle().manifest, bundle().overlay)
        );
    }

    #[test]
    fn an_earlier_bundle_is_replaced_and_a_plugin_is_not() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &bundle()).unwrap();
        write(dir.path(), &bundle()).unwrap();
        let own = tempfile::tempdir().unwrap();
        let manifest = own.path().join("plugin.toml");
        fs::write(&manifest, "mine").unwrap();
        let refused = write(own.path(), &bundle()).unwrap_err();
        assert_eq!(refused.exit_code(), 5);
        assert_eq!(fs::read_to_string(manifest).unwrap(), "mine");
        assert!(!own.path().join("fixtures").exists());
    }

    #[test]
    fn a_record_that_is_gone_makes_no_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let mut gone = bundle();
        gone.letter.record.as_mut().unwrap().missing = Some("not there any more".to_owned());
        assert!(write(&dir.path().join("b"), &gone).is_err());
        assert!(!dir.path().join("b").exists());
    }
}
