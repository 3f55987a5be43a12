//! `wasmill deadletter show`: one record that was set aside, with its bytes.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::list::at;
use super::which::At;
use super::{bundle, bytes};
use crate::admin::types::{DeadLetter, DeadLetterBundle, DeadRecord};
use crate::cli::client::{Client, path};
use crate::cli::connection::Connection;
use crate::cli::{Failure, Voice, report};
use crate::error::Error;

/// One of them: its bytes, headers, coordinates, the reason.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill deadletter show quakes 0:1200\n  wasmill deadletter show quakes 0:1200 --raw > value.bin\n  wasmill deadletter show quakes 0:1200 --bundle why && wasmill plugin test why --component quakes.wasm\n\nBytes that are text are shown as text, others as a hex dump."
)]
pub(in crate::cli) struct Show {
    /// The pipeline.
    pipeline: String,
    /// Where it is, as `wasmill deadletter list` shows it.
    #[arg(value_name = "PARTITION:OFFSET[:INDEX]")]
    at: At,
    /// Write the bytes of the value and nothing else.
    #[arg(long)]
    raw: bool,
    /// Write a folder that `wasmill plugin test DIR --component FILE` runs: record, manifest, configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "raw")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl Show {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        let At {
            partition,
            offset,
            index,
        } = self.at;
        let what = format!(
            "show dead letter {partition}:{offset} of pipeline {:?}",
            self.pipeline
        );
        let index = index.unwrap_or(0);
        if let Some(folder) = &self.bundle {
            let path = path::bundle(&self.pipeline, partition, offset, index);
            let bundle: DeadLetterBundle = client.get(&path, &what)?.read()?;
            let fixture = bundle::write(folder, &bundle)?;
            told(folder, &fixture, &bundle, voice);
            return Ok(());
        }
        let answer = client.get(
            &path::dead_letter(&self.pipeline, partition, offset, index),
            &what,
        )?;
        if voice.json && !self.raw {
            report::line(answer.text.trim_end());
            return Ok(());
        }
        let letter: DeadLetter = answer.read()?;
        let record = letter.record.clone().unwrap_or_default();
        if self.raw {
            return raw(&what, &record);
        }
        for line in lines(&letter, &record)? {
            report::line(line);
        }
        Ok(())
    }
}

/// Says what a bundle holds and how it is run.
fn told(folder: &Path, fixture: &str, bundle: &DeadLetterBundle, voice: Voice) {
    let folder = folder.display();
    if voice.json {
        report::json(&serde_json::json!({
            "folder": folder.to_string(), "fixture": fixture, "plugin": bundle.letter.plugin, "digest": bundle.digest,
            "secrets": bundle.secrets,
        }));
        return;
    }
    report::line(format_args!(
        "wrote {folder}: plugin.toml, config.toml, bundle.json, fixtures/{fixture}"
    ));
    if !bundle.secrets.is_empty() {
        report::line(format_args!(
            "secrets to set in config.toml: {}",
            bundle.secrets.join(", ")
        ));
    }
    report::line(format_args!(
        "next: wasmill plugin test {folder} --component FILE, with {} ({})",
        bundle.letter.plugin, bundle.digest
    ));
}

/// The bytes of the value, as they are.
fn raw(what: &str, record: &DeadRecord) -> Result<(), Failure> {
    let nothing = |detail: &str| Failure::from(Error::data(what.to_owned(), detail));
    let Some(value) = decoded(record.value.as_deref())? else {
        let why = record.missing.as_deref();
        return Err(nothing(
            why.unwrap_or("it is a tombstone: its value is null"),
        ));
    };
    let mut out = std::io::stdout();
    out.write_all(&value)
        .and_then(|()| out.flush())
        .map_err(|error| Error::outside(what.to_owned(), error).into())
}

pub(super) fn decoded(text: Option<&str>) -> Result<Option<Vec<u8>>, Error> {
    let bytes = text.map(|text| STANDARD.decode(text)).transpose();
    bytes.map_err(|error| Error::outside("read the host's answer", error))
}

fn lines(letter: &DeadLetter, record: &DeadRecord) -> Result<Vec<String>, Error> {
    let mut lines = vec![format!(
        "dead letter {} of topic {}",
        at(letter),
        letter.topic
    )];
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("{name:<10} {value}"));
        }
    };
    fact("class", Some(letter.class.clone()));
    fact("code", Some(letter.code.clone()));
    fact("reason", Some(bytes::plain(&letter.reason)));
    fact("plugin", Some(letter.plugin.clone()));
    fact("digest", letter.digest.clone());
    fact("set aside", letter.at.clone());
    fact(
        "retried",
        letter.tried_at.clone().map(|at| format!("{at}, in vain")),
    );
    let time = letter
        .timestamp_ms
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    fact("timestamp", time.map(|time| time.to_string()));
    if record.from == "topic" {
        fact(
            "bytes",
            Some("too large for the letter, read from the topic".to_owned()),
        );
    }
    fact("missing", record.missing.clone());
    part(&mut lines, "key", decoded(record.key.as_deref())?, record);
    for header in &record.headers {
        let name = format!("header {}", bytes::plain(&header.name));
        part(&mut lines, &name, decoded(header.value.as_deref())?, record);
    }
    part(
        &mut lines,
        "value",
        decoded(record.value.as_deref())?,
        record,
    );
    Ok(lines)
}

fn part(lines: &mut Vec<String>, name: &str, bytes: Option<Vec<u8>>, record: &DeadRecord) {
    lines.push(String::new());
    match bytes {
        Some(bytes) => {
            lines.push(format!("{name} ({} bytes)", bytes.len()));
            lines.extend(bytes::lines(&bytes));
        }
        None if record.missing.is_some() => lines.push(format!("{name} (null, or not kept)")),
        None => lines.push(format!("{name} (null)")),
    }
}
