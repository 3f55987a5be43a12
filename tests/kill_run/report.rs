//! What a run showed, as Markdown, and whether it passed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use wasmill_tests::hash::TableHash;
use wasmill_tests::host::Usage;

/// One kill.
#[derive(Debug)]
pub(crate) struct Kill {
    /// Records behind the positions when it happened.
    pub(crate) at: i64,
    /// Whether rows, dead letters and positions agreed right after it.
    pub(crate) balanced: bool,
    /// From the kill to the next committed batch, by the host that followed.
    pub(crate) resumed: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Report {
    records: u64,
    seed: u64,
    pub(crate) kills: Vec<Kill>,
    pub(crate) seconds: f64,
    used: Usage,
    checks: Vec<(String, bool)>,
}

impl Report {
    pub(crate) fn new(records: u64, seed: u64) -> Self {
        Self {
            records,
            seed,
            kills: Vec::new(),
            seconds: 0.0,
            used: Usage::default(),
            checks: Vec::new(),
        }
    }

    /// Adds what one host used.
    pub(crate) fn used(&mut self, usage: Usage) {
        self.used.cpu += usage.cpu;
        self.used.peak_memory = self.used.peak_memory.max(usage.peak_memory);
    }

    /// Compares every table with the independent computation.
    pub(crate) fn compare(
        &mut self,
        wanted: &BTreeMap<String, TableHash>,
        seen: &BTreeMap<String, TableHash>,
        distinct: i64,
        appended: i64,
    ) {
        for (table, wanted) in wanted {
            let seen = seen.get(table).copied().unwrap_or_default();
            self.check(
                format!("{table}: {seen}, independently {wanted}"),
                seen == *wanted,
            );
        }
        self.check(
            format!("tables compared: {} of {}", seen.len(), wanted.len()),
            seen.keys().eq(wanted.keys()),
        );
        self.check(
            format!("appended rows {appended} = distinct (topic, partition, offset) {distinct}"),
            appended == distinct,
        );
        let balanced = self.kills.iter().filter(|kill| kill.balanced).count();
        self.check(
            format!(
                "rows + dead letters = positions right after {balanced} of {} kills",
                self.kills.len()
            ),
            balanced == self.kills.len(),
        );
    }

    /// Checks the greatest resident set of all hosts.
    pub(crate) fn memory_limit(&mut self, most: u64) {
        let peak = self.used.peak_memory;
        let text = format!(
            "greatest resident memory {} MB, limit {} MB",
            peak >> 20,
            most >> 20
        );
        self.check(text, peak > 0 && peak < most);
    }

    fn check(&mut self, text: String, held: bool) {
        self.checks.push((text, held));
    }

    /// Whether every check held.
    pub(crate) fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|(_, held)| *held)
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        writeln!(
            f,
            "# Kill run: {} records, {} kills, {verdict}\n",
            self.records,
            self.kills.len()
        )?;
        writeln!(
            f,
            "Seed {}; {:.0} s; {:.0} records/s, kills and start-ups included.",
            self.seed,
            self.seconds,
            self.records as f64 / self.seconds
        )?;
        let cpu = self.used.cpu * 1e6 / self.records as f64;
        writeln!(
            f,
            "CPU of all hosts, start-ups and repeated work included: {:.1} s, {cpu:.2} µs a record.\n",
            self.used.cpu
        )?;
        writeln!(f, "| check | |\n|---|---|")?;
        for (text, held) in &self.checks {
            writeln!(
                f,
                "| {text} | {} |",
                if *held { "holds" } else { "**BROKEN**" }
            )?;
        }
        writeln!(
            f,
            "\n| kill | records behind the position | moving again after |\n|---|---|---|"
        )?;
        for (index, kill) in self.kills.iter().enumerate() {
            writeln!(
                f,
                "| {} | {} | {:.1} s |",
                index + 1,
                kill.at,
                kill.resumed.as_secs_f64()
            )?;
        }
        Ok(())
    }
}
