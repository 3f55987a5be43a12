//! Which dead letters are meant: coordinates and filters, as people write them. It asks no host.

use std::str::FromStr;

use jiff::Timestamp;

use crate::admin::types::DeadLetterQuery;
use crate::cli::Failure;
use crate::error::Error;
use crate::toml_check::units;

/// Where a dead letter is: `PARTITION:OFFSET` or `PARTITION:OFFSET:INDEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) index: Option<i32>,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not PARTITION:OFFSET or PARTITION:OFFSET:INDEX");
        let number = |text: &str| {
            let number: Option<i64> = text.parse().ok();
            number.filter(|number| *number >= 0).ok_or_else(wrong)
        };
        let small = |text: &str| i32::try_from(number(text)?).map_err(|_| wrong());
        let parts: Vec<&str> = text.split(':').collect();
        let (partition, offset, index) = match *parts.as_slice() {
            [partition, offset] => (partition, offset, None),
            [partition, offset, index] => (partition, offset, Some(small(index)?)),
            _ => return Err(wrong()),
        };
        Ok(Self {
            partition: small(partition)?,
            offset: number(offset)?,
            index,
        })
    }
}

impl At {
    /// The question for exactly this record's letters, or one of them.
    fn query(self) -> DeadLetterQuery {
        DeadLetterQuery {
            partition: Some(self.partition),
            from: Some(self.offset),
            to: Some(self.offset.saturating_add(1)),
            index: self.index,
            ..DeadLetterQuery::default()
        }
    }
}

/// What letters may be chosen by.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which dead letters")]
pub(super) struct Filters {
    /// Of this partition.
    #[arg(long, value_name = "PARTITION", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// At or above this offset.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    from: Option<i64>,
    /// Below this offset.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to: Option<i64>,
    /// The record's fault (data) or the plugin's.
    #[arg(long, value_name = "CLASS", value_parser = ["data", "plugin"])]
    class: Option<String>,
    /// Of this code, e.g. row-refused.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Set aside under this version.
    #[arg(long, value_name = "NAME@VERSION")]
    plugin: Option<String>,
    /// Set aside under this component, `sha256:…`.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    /// Set aside since then: a time (2026-01-02T03:04:05Z), or how long ago (15m, 2h, 7d).
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Set aside before then, as --since.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
}

impl Filters {
    /// The question for them.
    pub(super) fn query(&self) -> DeadLetterQuery {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        DeadLetterQuery {
            partition: self.partition,
            from: self.from,
            to: self.to,
            index: None,
            class: self.class.clone(),
            code: self.code.clone(),
            plugin: self.plugin.clone(),
            digest: self.digest.clone(),
            since: time(self.since),
            until: time(self.until),
            ..DeadLetterQuery::default()
        }
    }
}

/// The letters of a command that changes something: never all of them by accident.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Chosen {
    /// The pipeline.
    pub(super) pipeline: String,
    /// Exactly these: PARTITION:OFFSET, or PARTITION:OFFSET:INDEX.
    #[arg(value_name = "PARTITION:OFFSET[:INDEX]")]
    at: Vec<At>,
    #[command(flatten)]
    filters: Filters,
    /// All of the pipeline.
    #[arg(long)]
    all: bool,
    /// How many at most, as `list` shows them: the oldest of each partition first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "at")]
    pub(super) limit: Option<u32>,
    /// Only what comes after: the cursor that a list or a retry with --limit ended with.
    #[arg(long, value_name = "CURSOR", conflicts_with = "at")]
    after: Option<String>,
}

impl Chosen {
    /// A question for each part of what was chosen; only one where there is a limit.
    ///
    /// # Errors
    /// Usage: nothing was chosen, or in two ways.
    pub(super) fn queries(&self, verb: &str) -> Result<Vec<DeadLetterQuery>, Failure> {
        let usage = |detail: &str, hint: &str| {
            let what = format!("{verb} dead letters of pipeline {:?}", self.pipeline);
            Err(Failure::Usage(Error::config(what, detail).hint(hint)))
        };
        let filtered = self.filters.query();
        let ways = [
            !self.at.is_empty(),
            filtered != DeadLetterQuery::default(),
            self.all,
        ];
        match ways.iter().filter(|way| **way).count() {
            0 => usage(
                "it is not said which",
                "name them (0:42), choose by a filter (--code malformed), or give --all",
            ),
            1 if self.at.is_empty() => Ok(vec![DeadLetterQuery {
                cursor: self.after.clone(),
                ..filtered
            }]),
            1 => Ok(self.at.iter().map(|at| at.query()).collect()),
            _ => usage(
                "coordinates, filters and --all are three ways to choose",
                "use one of them",
            ),
        }
    }
}

/// A time, or how long ago.
fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = units::duration(text)
        .map_err(|_| "a time (2026-01-02T03:04:05Z), or how long ago (15m, 2h, 7d)".to_owned())?;
    Timestamp::now()
        .checked_sub(ago)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn coordinates_read_and_nothing_else() {
        let at = |partition, offset, index| {
            Ok(At {
                partition,
                offset,
                index,
            })
        };
        assert_eq!("0:42".parse(), at(0, 42, None));
        assert_eq!(
            "2147483647:9223372036854775807:3".parse(),
            at(i32::MAX, i64::MAX, Some(3))
        );
        for text in ["", "1", "-1:2", "1:2:3:4", "a:1", "2147483648:0", "1: 2"] {
            assert!(text.parse::<At>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_times_or_ago() {
        assert_eq!(
            time("2026-01-02T03:04:05Z").unwrap().to_string(),
            "2026-01-02T03:04:05Z"
        );
        let ago = Timestamp::now().as_second() - time("2h").unwrap().as_second();
        assert!((7199..7300).contains(&ago), "{ago}");
        assert!(time("yesterday").is_err());
    }
}
