//! `wasmill local`: a broker and a database on this machine for as long as it runs, for authors.
//!
//! Their addresses go into a config file between two marker lines; everything else in that file is the
//! author's and is kept from run to run.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::demo::servers;
use super::{Failure, Voice, report, signals};
use crate::error::Error;

/// The lines around what this command writes.
const MARKERS: [&str; 2] = [
    "# >>> wasmill local (rewritten at every start, removed at the end)",
    "# <<< wasmill local",
];

/// A broker and a database on this machine until Ctrl-C, for writing and trying plugins.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill local                       development broker and Postgres; writes local.toml\n  wasmill local --real --cassandra    Apache Kafka, Postgres and Cassandra\n  wasmill local --brokers 3 --cassandra-nodes 3\n                                      three of each: kill one and look\n\nThe file gets the [kafka.main], [postgres.main] and [cassandra.main] sections between two marker lines; what you add below them, such as [pipeline.NAME], is kept. The servers' data are removed when it ends."
)]
pub(super) struct Local {
    /// Apache Kafka instead of the development broker (in memory).
    #[arg(long)]
    real: bool,
    /// Cassandra too.
    #[arg(long)]
    cassandra: bool,
    /// Apache Kafka with that many brokers; topics have up to three copies.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    brokers: Option<u8>,
    /// Cassandra with that many nodes, on 127.0.0.1, 127.0.0.2 and so on; rows have up to three copies.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    cassandra_nodes: Option<u8>,
    /// Where the connections are written, as sections of a host's config.
    #[arg(short, long, value_name = "FILE", default_value = "local.toml")]
    output: PathBuf,
}

impl Local {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let say = |text: &str| eprintln!("{text}");
        // Before anything is started: whoever waits for the sections must not find those of an earlier run.
        let kept = kept(&self.output)?;
        put(&self.output, &kept)?;
        let want = servers::Want {
            brokers: self.brokers.unwrap_or(u8::from(self.real)),
            cassandra: if self.cassandra || self.cassandra_nodes.is_some() {
                servers::Wish::Must
            } else {
                servers::Wish::No
            },
            nodes: self.cassandra_nodes.unwrap_or(1),
        };
        let servers = servers::start(want, &say)?;
        let sections = servers.connections();
        let [begin, end] = MARKERS;
        put(&self.output, &format!("{begin}\n{sections}{end}\n{kept}"))?;
        if voice.json {
            report::json(&servers.document());
        } else {
            report::line(format_args!(
                "written to {}:\n\n{sections}",
                self.output.display()
            ));
            report::line(format_args!("psql \"{}\"", servers.postgres_url()));
            report::line("running until Ctrl-C");
        }
        signals::wait()?;
        drop(servers);
        // What was added meanwhile stays.
        put(&self.output, &self::kept(&self.output)?)?;
        Ok(())
    }
}

/// The author's part of the file; empty when there is no file.
fn kept(path: &Path) -> Result<String, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::outside(format!("read {}", path.display()), error)),
    };
    let kept = without_ours(&text);
    let taken = kept.lines().find(|line| {
        matches!(
            line.trim(),
            "[kafka.main]" | "[postgres.main]" | "[cassandra.main]"
        )
    });
    match taken {
        Some(section) => Err(Error::config(
            format!("write {}", path.display()),
            format!("it has a section {} of its own", section.trim()),
        )
        .hint("name another file with --output, or remove that section")),
        None => Ok(kept),
    }
}

/// The text without the lines between the markers, and without the markers.
fn without_ours(text: &str) -> String {
    let [begin, end] = MARKERS;
    let mut ours = false;
    let mut kept = String::new();
    for line in text.split_inclusive('\n') {
        let marker = line.trim_end();
        if marker == begin || marker == end {
            ours = marker == begin;
        } else if !ours {
            kept.push_str(line);
        }
    }
    kept
}

/// Writes the file; one without content is removed.
fn put(path: &Path, text: &str) -> Result<(), Error> {
    let done = if text.trim().is_empty() {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    } else {
        std::fs::write(path, text)
    };
    done.map_err(|error| Error::outside(format!("write {}", path.display()), error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn what_the_author_wrote_is_kept_and_what_we_wrote_goes() {
        let [begin, end] = MARKERS;
        let mine = "# mine\n\n[pipeline.a]\nfile = \"a.wasm\"\n";
        let whole = format!(
            "# mine\n{begin}\n[kafka.main]\nbrokers = \"x\"\n{end}\n\n[pipeline.a]\nfile = \"a.wasm\"\n"
        );
        assert_eq!(without_ours(&whole), mine);
        assert_eq!(without_ours(mine), mine);
        assert_eq!(without_ours(&format!("{begin}\n[kafka.main]\n")), "");
    }

    #[test]
    fn a_file_with_connections_of_its_own_is_refused_and_an_empty_one_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("local.toml");
        assert_eq!(kept(&path).unwrap(), "");
        put(&path, "[kafka.main]\n").unwrap();
        assert!(kept(&path).unwrap_err().detail().contains("[kafka.main]"));
        put(&path, "\n").unwrap();
        assert!(!path.exists());
    }
}
