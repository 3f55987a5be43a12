//! `wasmill feed`: the lines of a file as records of a topic, for trying plugins.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use super::{Failure, Voice, or_default, report, show};
use crate::assemble;
use crate::error::Error;
use crate::kafka::{Feed as Producer, KafkaSettings};
use crate::task;

/// Send the lines of a file as records of a topic.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill feed orders orders.ndjson --key /id -c wasmill.toml\n  tail -f app.log | wasmill feed logs -"
)]
pub(super) struct Feed {
    /// The topic; created with --partitions when it does not exist.
    topic: String,
    /// One record a line; `-` reads standard input.
    file: PathBuf,
    /// JSON pointer of the field that becomes the record's key; no key without it.
    #[arg(long, value_name = "POINTER")]
    key: Option<String>,
    /// Partitions of a topic that is created.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    /// The host's config, for the cluster's address.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which cluster of the config; the only one by default.
    #[arg(long, value_name = "NAME")]
    kafka: Option<String>,
}

impl Feed {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let config = assemble::load(&or_default(self.config.clone(), "wasmill.toml"))?;
        let name = match &self.kafka {
            Some(name) => name.clone(),
            None if config.kafka.len() == 1 => config.kafka.keys().cloned().collect(),
            None => {
                return Err(Error::config(
                    "feed a topic",
                    format!("the config has {} kafka clusters", config.kafka.len()),
                )
                .hint("name one with --kafka")
                .into());
            }
        };
        let cluster = config
            .kafka
            .get(&name)
            .ok_or_else(|| Error::config("feed a topic", format!("there is no [kafka.{name}]")))?;
        let settings = KafkaSettings::new(cluster, "wasmill-feed");
        let runtime = task::runtime()?;
        // The file first: a misspelt name must not wait for a broker.
        let mut input = self.open()?;
        let producer = runtime
            .block_on(Producer::open(&settings, &self.topic, self.partitions))
            .map_err(|error| match error.hint_text() {
                Some(_) => error,
                None => error.hint(format!(
                    "is a broker listening at the address of [kafka.{name}]? `wasmill local` starts one"
                )),
            })?;
        let key = self.key.as_deref().map(KeyAt::named);
        let sent = send_lines(&mut *input, key, &producer, &|error| self.unreadable(error))?;
        producer.finish()?;
        if voice.json {
            report::json(&serde_json::json!({"topic": self.topic, "records": sent}));
        } else {
            let sent = show::number_of(sent, "record");
            report::line(format_args!("{sent} in topic {}", self.topic));
        }
        Ok(())
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        Error::config(format!("read {}", self.file.display()), error)
            .hint("name a file with one record a line, or - for standard input")
    }

    fn open(&self) -> Result<Box<dyn BufRead>, Error> {
        if self.file.as_os_str() == "-" {
            return Ok(Box::new(BufReader::new(std::io::stdin())));
        }
        let file = std::fs::File::open(&self.file).map_err(|error| self.unreadable(error))?;
        Ok(Box::new(BufReader::new(file)))
    }
}

/// Where the key of a record stands in its line.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyAt<'a> {
    /// A JSON pointer (RFC 6901).
    pub(super) pointer: &'a str,
    /// What to do about a line that has nothing there.
    pub(super) otherwise: &'a str,
}

impl<'a> KeyAt<'a> {
    /// Where `--key` says.
    pub(super) fn named(pointer: &'a str) -> Self {
        Self {
            pointer,
            otherwise: "mend the line, or leave --key out",
        }
    }
}

/// Sends each line as a record and returns how many there were. `unreadable` says which input failed.
pub(super) fn send_lines(
    reader: &mut dyn BufRead,
    key: Option<KeyAt<'_>>,
    producer: &Producer,
    unreadable: &dyn Fn(std::io::Error) -> Error,
) -> Result<u64, Error> {
    let mut line = Vec::new();
    let mut sent = 0;
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return Ok(sent);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let key = key_of(key, &line, sent + 1)?;
        producer.send(key.as_deref(), Some(&line))?;
        sent += 1;
    }
}

/// The key of a line: a text as it is, any other value as JSON.
fn key_of(at: Option<KeyAt<'_>>, line: &[u8], number: u64) -> Result<Option<Vec<u8>>, Error> {
    let Some(KeyAt { pointer, otherwise }) = at else {
        return Ok(None);
    };
    let wrong = |detail: String| {
        Error::config(format!("take the key of line {number}"), detail).hint(otherwise)
    };
    let value: serde_json::Value =
        serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
    match value.pointer(pointer) {
        None if !pointer.is_empty() && !pointer.starts_with('/') => Err(Error::config(
            format!("take the key of line {number}"),
            format!("{pointer:?} is no JSON pointer: it has no / in front"),
        )
        .hint(format!("write --key /{pointer}"))),
        None => Err(wrong(format!("it has nothing at {pointer}"))),
        Some(serde_json::Value::String(text)) => Ok(Some(text.clone().into_bytes())),
        Some(other) => Ok(Some(other.to_string().into_bytes())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_key_is_taken_by_pointer_and_a_bare_name_is_told_how_to_be_one() {
        let key = |pointer| key_of(Some(KeyAt::named(pointer)), br#"{"id":"a","n":7}"#, 1);
        assert_eq!(key("/id").unwrap().unwrap(), b"a");
        assert_eq!(key("/n").unwrap().unwrap(), b"7");
        let error = key("id").unwrap_err();
        assert_eq!(error.hint_text(), Some("write --key /id"));
        let error = key("/x").unwrap_err();
        assert_eq!(error.hint_text(), Some("mend the line, or leave --key out"));
        assert_eq!(key_of(None, b"no JSON", 1).unwrap(), None);
    }
}
