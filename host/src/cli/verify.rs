//! `wasmill verify`: a pipeline's tables against what its records become, once more. It asks no host: it reads the topic
//! and the databases by itself, and writes nothing.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, Voice, or_default, report, show};
use crate::assemble::{self, VerifyOptions, VerifyStep};
use crate::verify::{Difference, Report};

/// Columns of what was read; all but the last are numbers.
const PARTITIONS: [&str; 8] = [
    "partition",
    "from",
    "to",
    "records",
    "emitted",
    "filtered",
    "dead",
    "made by",
];

/// Columns of what was compared; all but the first are numbers.
const TABLES: [&str; 8] = [
    "table",
    "rows",
    "expected",
    "equal",
    "missing",
    "extra",
    "different",
    "not checked",
];

/// Prove that a pipeline's tables are what its records make of them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill verify quakes                          reads ./wasmill.toml\n  wasmill verify quakes -c host.toml --json | jq '.differences[]'\n  wasmill verify quakes --limit 100 --strict     for CI: what cannot be checked fails too\n\nEvery record from the start to the position goes through the release that made it once more, with sinks off, and the rows are compared with the tables. The pipeline may run meanwhile: Postgres is read at one instant (vacuum waits as long), and what Cassandra got meanwhile is taken into account. Of topics that routes write to, the coordinates of messages are compared. Memory: 100 to 200 MB for a million keys of a table, half of that on top while it grows, and 24 bytes a column more for each key of a Cassandra table.\n\nExit codes: 0 equal, 6 something differs (with --strict: or could not be checked), others as everywhere"
)]
pub(super) struct Verify {
    /// The pipeline.
    pipeline: String,
    /// The config of a host that runs it: connections, control log, cache folder.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this partition; may be given several times. Then rows that it does not explain are not checked, and keys
    /// that other partitions write too look different.
    #[arg(long, value_name = "N")]
    partition: Vec<i32>,
    /// Differences shown; all are counted.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Fail when something could not be checked.
    #[arg(long)]
    strict: bool,
}

impl Verify {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let config = assemble::load(&or_default(self.config, "wasmill.toml"))?;
        let options = VerifyOptions {
            pipeline: self.pipeline,
            partitions: self.partition,
            limit: self.limit,
        };
        let bar = if voice.json || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(0)
        };
        let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {eta}");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        let verified = assemble::verify(&config, &options, &|step| tell(&bar, &step));
        bar.finish_and_clear();
        let verified = verified?;
        if voice.json {
            let document = serde_json::to_value(&verified);
            report::json(
                &document.map_err(|error| crate::error::Error::bug("say it as JSON", error))?,
            );
        } else {
            for line in lines(&verified) {
                report::line(line);
            }
        }
        verdict(&verified, self.strict)
    }
}

fn tell(bar: &ProgressBar, step: &VerifyStep) {
    match step {
        VerifyStep::Records { done, of } => {
            bar.set_message("records");
            bar.set_length(*of);
            bar.set_position(*done);
        }
        VerifyStep::Rows { table, done } => {
            bar.set_message(format!("rows of {table}"));
            bar.set_length(*done);
            bar.set_position(*done);
        }
    }
}

fn verdict(verified: &Report, strict: bool) -> Result<(), Failure> {
    if !verified.equal {
        return Err(Failure::Differs(format!(
            "pipeline {:?} is not what its records make of it",
            verified.pipeline
        )));
    }
    if strict && !verified.unchecked.is_empty() {
        return Err(Failure::Differs(format!(
            "not everything of pipeline {:?} could be checked",
            verified.pipeline
        )));
    }
    Ok(())
}

fn lines(verified: &Report) -> Vec<String> {
    let number = |count: u64| show::count(count);
    let mut lines = vec![
        format!("pipeline {}, topic {}", verified.pipeline, verified.topic),
        String::new(),
        show::table(
            PARTITIONS,
            &PARTITIONS[..7],
            verified.partitions.iter().map(|partition| {
                [
                    partition.partition.to_string(),
                    partition.from.to_string(),
                    partition.to.to_string(),
                    number(partition.records),
                    number(partition.emitted),
                    number(partition.filtered),
                    number(partition.dead),
                    partition.plugins.join(", "),
                ]
            }),
        ),
        String::new(),
        show::table(
            TABLES,
            &TABLES[1..],
            verified.tables.iter().map(|table| {
                let tally = table.tally;
                [
                    format!("{}.{} {}", table.kind, table.connection, table.table),
                    number(tally.rows),
                    number(table.expected),
                    number(tally.equal),
                    number(tally.missing),
                    number(tally.extra),
                    number(tally.different),
                    number(tally.expired + tally.shared + tally.past),
                ]
            }),
        ),
    ];
    if !verified.differences.is_empty() {
        lines.push(String::new());
        lines.extend(verified.differences.iter().flat_map(difference));
        let wrong: u64 = verified
            .tables
            .iter()
            .map(|table| table.tally.wrong())
            .sum();
        let shown = verified.differences.len() as u64;
        if wrong > shown {
            lines.push(format!(
                "… and {} more: --limit shows more of them",
                number(wrong - shown)
            ));
        }
    }
    if !verified.unchecked.is_empty() {
        lines.push(String::new());
        lines.push("not checked:".to_owned());
        lines.extend(verified.unchecked.iter().map(|unchecked| {
            let count = unchecked.count.map(|count| format!("{} × ", number(count)));
            format!(
                "  {}{}: {}",
                count.unwrap_or_default(),
                unchecked.what,
                unchecked.why
            )
        }));
    }
    lines.extend(verified.notes.iter().map(|note| format!("note: {note}")));
    lines.push(String::new());
    lines.push(if verified.equal {
        "equal".to_owned()
    } else {
        "NOT EQUAL".to_owned()
    });
    lines
}

fn difference(difference: &Difference) -> Vec<String> {
    let row = difference
        .row
        .iter()
        .map(|(name, value)| format!("{name} = {value}"));
    let row = row.collect::<Vec<_>>().join(", ");
    let record = difference.at.map(|at| format!("record {at}"));
    let words = [
        difference.kind.word().to_owned(),
        difference.table.clone(),
        row,
        record.unwrap_or_default(),
    ];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let mut lines = vec![format!("{}: {}", words.join("  "), difference.detail)];
    lines.extend(difference.columns.iter().map(|column| {
        let expected = column
            .expected
            .as_deref()
            .unwrap_or("(written by an earlier record)");
        format!(
            "    {}: expected {expected}, found {}",
            column.column, column.found
        )
    }));
    lines
}
