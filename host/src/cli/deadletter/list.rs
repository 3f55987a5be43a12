//! `wasmill deadletter list`: the records that were set aside, page by page.

use super::bytes;
use super::which::Filters;
use crate::admin::types::{DeadLetter, DeadLetterPage, DeadLetterQuery};
use crate::cli::client::{Client, path};
use crate::cli::connection::Connection;
use crate::cli::{Failure, Voice, report, show};

/// Letters asked for at once.
const PAGE: u32 = 1000;

/// Which records were set aside, and why.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wasmill deadletter list quakes\n  wasmill deadletter list quakes --code malformed --since 2h\n  wasmill deadletter list quakes --limit 100000 --json | jq -r '.letters[].code' | sort | uniq -c"
)]
pub(in crate::cli) struct List {
    /// The pipeline.
    pipeline: String,
    #[command(flatten)]
    filters: Filters,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only what comes after: the cursor that an earlier list ended with.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl List {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        let client = Client::open(&self.connection)?;
        let what = format!("list the dead letters of pipeline {:?}", self.pipeline);
        let mut query = self.filters.query();
        query.cursor = self.after;
        let mut found = DeadLetterPage::default();
        let mut left = self.limit;
        while left > 0 {
            query.limit = Some(left.min(PAGE));
            let page = path::dead_letters(&self.pipeline, &pairs(&query));
            let page: DeadLetterPage = client.get(&page, &what)?.read()?;
            left = left.saturating_sub(u32::try_from(page.letters.len()).unwrap_or(u32::MAX));
            found.letters.extend(page.letters);
            found.next = page.next;
            query.cursor.clone_from(&found.next);
            if found.next.is_none() {
                break;
            }
        }
        if voice.json {
            report::json(&serde_json::json!(found));
            return Ok(());
        }
        if found.letters.is_empty() {
            report::line("no dead letters");
            return Ok(());
        }
        report::line(drawn(&found.letters));
        if let Some(next) = found.next {
            eprintln!("there are more: --after {next}, or a larger --limit");
        }
        Ok(())
    }
}

/// A query as it stands in a URL.
fn pairs(query: &DeadLetterQuery) -> Vec<(&'static str, String)> {
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    let all = [
        ("partition", number(query.partition.map(i64::from))),
        ("from", number(query.from)),
        ("to", number(query.to)),
        ("class", query.class.clone()),
        ("code", query.code.clone()),
        ("plugin", query.plugin.clone()),
        ("digest", query.digest.clone()),
        ("since", query.since.clone()),
        ("until", query.until.clone()),
        ("limit", number(query.limit.map(i64::from))),
        ("cursor", query.cursor.clone()),
    ];
    let said = |(name, value): (&'static str, Option<String>)| Some((name, value?));
    all.into_iter().filter_map(said).collect()
}

/// Letters, one a line.
pub(in crate::cli) fn drawn(letters: &[DeadLetter]) -> String {
    show::table(
        [
            "at",
            "set aside",
            "code",
            "plugin",
            "key",
            "value",
            "reason",
        ],
        &["value"],
        letters.iter().map(|letter| {
            [
                at(letter),
                show::or_dash(letter.at.clone()),
                letter.code.clone(),
                letter.plugin.clone(),
                show::or_dash(letter.key.as_deref().map(bytes::plain)),
                match letter.value_bytes {
                    Some(size) => show::size(size),
                    None if letter.truncated => "large".to_owned(),
                    None => "null".to_owned(),
                },
                bytes::plain(&letter.reason),
            ]
        }),
    )
}

/// Coordinates as every command takes them.
pub(super) fn at(letter: &DeadLetter) -> String {
    match letter.index {
        0 => format!("{}:{}", letter.partition, letter.offset),
        index => format!("{}:{}:{index}", letter.partition, letter.offset),
    }
}
