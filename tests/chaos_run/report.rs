//! What a run showed, as Markdown, and whether it passed.

use std::fmt;
use std::time::Duration;

use wasmill_tests::checker::{Faults, Kind};

use super::end::End;
use super::fleet::{MOST_FILES, MOST_MEMORY, Peak};
use super::tally::{Tally, Trouble, median_and_worst};
use super::view::Shared;

/// Runs of this many minutes and more have to show enough.
const WHOLE: f64 = 2.0;
/// Kinds of faults that have to be seen: so many a minute, up to so many.
const KINDS_A_MINUTE: f64 = 2.0;
const KINDS: f64 = 8.0;
/// Kills while records flowed that have to be seen a minute.
const KILLS: f64 = 3.0;
/// Sessions that hosts may hold at once: two hosts, at times three, of two shards with two connections each for the
/// pipeline, some more to look and to claim, and those of killed hosts that the server has not missed yet.
const MOST_SESSIONS: i64 = 40;

/// See the module.
#[derive(Debug)]
pub(crate) struct Report {
    minutes: f64,
    seed: u64,
    seconds: f64,
    total: i64,
    tally: Tally,
    peak: Peak,
    end: End,
    snapshots: u64,
    inconsistent: u64,
    counts: u64,
    missed: u64,
    sessions: i64,
    faults: Faults,
}

/// What a report is made of.
pub(crate) struct Parts<'a> {
    pub(crate) minutes: f64,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) total: i64,
    pub(crate) tally: Tally,
    pub(crate) peak: Peak,
    pub(crate) end: End,
    pub(crate) view: &'a Shared,
    pub(crate) faults: Faults,
}

impl Report {
    pub(crate) fn new(parts: Parts<'_>) -> Self {
        let seen = parts.view.lock();
        Self {
            minutes: parts.minutes,
            seed: parts.seed,
            seconds: parts.seconds,
            total: parts.total,
            tally: parts.tally,
            peak: parts.peak,
            end: parts.end,
            snapshots: seen.snapshots,
            inconsistent: seen.inconsistent,
            counts: seen.counts,
            missed: seen.missed,
            sessions: seen.sessions,
            faults: parts.faults,
        }
    }

    fn kills_a_minute(&self) -> f64 {
        f64::from(self.tally.kills()) / (self.seconds / 60.0).max(1e-9)
    }

    #[expect(clippy::cast_precision_loss, reason = "a few kinds")]
    fn checks(&self) -> Vec<(String, bool)> {
        let none = |kind: Kind, what: &str| {
            let count = self.faults.count(kind);
            (format!("{what}: {count}"), count == 0)
        };
        let ledger = self.end.ledger;
        let mut checks = vec![
            none(Kind::Lost, "lost"),
            none(Kind::Doubled, "doubled"),
            none(Kind::Disorder, "order breaks"),
            none(Kind::Foreign, "rows, letters and messages nobody asked for"),
            none(
                Kind::Inconsistent,
                "disagreements between sinks, ledger, history and input",
            ),
            (
                format!(
                    "live snapshots {}, of them inconsistent {}",
                    self.snapshots, self.inconsistent
                ),
                self.snapshots > 0 && self.inconsistent == 0,
            ),
            none(Kind::Stalled, "partitions that did not go on after a heal"),
            none(
                Kind::Host,
                "hosts that ended by themselves, panicked, logged an error or used too much",
            ),
            (
                format!(
                    "{} records = {} emitted + {} filtered + {} dead",
                    self.total, ledger[1], ledger[2], ledger[3]
                ),
                self.total == ledger[0] && ledger[0] == ledger[1] + ledger[2] + ledger[3],
            ),
            (
                format!(
                    "greatest resident memory of a host {} MB, limit {}",
                    self.peak.memory >> 20,
                    MOST_MEMORY >> 20
                ),
                self.peak.memory > 0 && self.peak.memory < MOST_MEMORY,
            ),
            (
                format!(
                    "most descriptors of a host {}, limit {MOST_FILES}",
                    self.peak.files
                ),
                self.peak.files > 0 && self.peak.files < MOST_FILES,
            ),
            (
                format!(
                    "most sessions of all hosts in Postgres {}, limit {MOST_SESSIONS}",
                    self.sessions
                ),
                self.sessions > 0 && self.sessions < MOST_SESSIONS,
            ),
        ];
        if self.minutes >= WHOLE {
            let (kinds, kills) = (self.tally.kinds() as f64, self.kills_a_minute());
            let least = (self.minutes * KINDS_A_MINUTE).min(KINDS).floor();
            checks.push((
                format!("kinds of faults seen {kinds}, at least {least}"),
                kinds >= least,
            ));
            checks.push((
                format!(
                    "kills of hosts while records flowed {kills:.1} a minute, at least {KILLS:.0}"
                ),
                kills >= KILLS,
            ));
        }
        checks
    }

    /// Whether every check held.
    pub(crate) fn passed(&self) -> bool {
        self.checks().iter().all(|(_, held)| *held)
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        writeln!(
            f,
            "# Chaos run: {:.0} minutes, {} records, {} kills, {verdict}\n",
            self.seconds / 60.0,
            self.total,
            self.tally.kills()
        )?;
        writeln!(
            f,
            "{cores} cores for all servers, hosts and the checker; seed {}; {:.0} s; {:.0} records/s. Apache Kafka, \
             Cassandra (batch commit log) and Postgres (durable) on one machine; session time-out {} s; two hosts, at \
             times three.\n",
            self.seed,
            self.seconds,
            self.total as f64 / self.seconds,
            super::SESSION.as_secs()
        )?;
        writeln!(f, "| check | |\n|---|---|")?;
        for (text, held) in self.checks() {
            let held = if held { "holds" } else { "**BROKEN**" };
            writeln!(f, "| {text} | {held} |")?;
        }
        writeln!(
            f,
            "\n| fault | tried | seen | median | worst |\n|---|---|---|---|---|"
        )?;
        for (trouble, count) in &self.tally.0 {
            let times = median_and_worst(&count.recovered);
            let (median, worst) = times.map_or_else(
                || ("–".to_owned(), "–".to_owned()),
                |(median, worst)| (seconds(median), seconds(worst)),
            );
            let (tried, observed) = (count.tried, count.observed);
            writeln!(
                f,
                "| {} | {tried} | {observed} | {median} | {worst} |",
                trouble.text()
            )?;
        }
        writeln!(
            f,
            "\nMedian and worst: until every partition had a new row, from the kill where a host was killed, else from \
             the moment all was well again. A fault counts as seen when records flowed within the second before, and \
             hosts, their logs or the proxy show that it reached them.\n"
        )?;
        let kills = self.tally.0.get(&Trouble::Kill);
        if let Some((median, worst)) = kills.and_then(|count| median_and_worst(&count.recovered)) {
            writeln!(
                f,
                "SIGKILL to the next new row in every partition, same host started again: median {}, worst {}.\n",
                seconds(median),
                seconds(worst)
            )?;
        }
        let dead: Vec<String> = self
            .end
            .dead
            .iter()
            .map(|(code, count)| format!("{code} {count}"))
            .collect();
        writeln!(
            f,
            "At the end: {} rows in the log, {} keys in the upserted table and in Cassandra, {} messages in the topic \
             and {} repeats of them, {} dead letters ({}). Snapshots that Postgres did not give, being away: {}; \
             whole-table counts: {}.",
            self.end.rows,
            self.end.keys,
            self.end.messages,
            self.end.repeats,
            self.end.ledger[3],
            dead.join(", "),
            self.missed,
            self.counts
        )?;
        if !self.faults.told().is_empty() {
            writeln!(f, "\n## What does not hold\n")?;
        }
        for fault in self.faults.told() {
            writeln!(f, "* {}: {}", fault.kind.word(), fault.text)?;
        }
        Ok(())
    }
}
