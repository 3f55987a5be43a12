//! [`verify`]: the tables of a pipeline against its records, in this process: no host has to run.
//!
//! The order of the looks is what makes it right while the pipeline runs:
//!
//! ```text
//! 1 positions ─▶ records below them, once more through the releases that made them
//! 2 Postgres at one instant: positions again ─▶ the records in between ─▶ its tables
//! 3 Cassandra's tables ─▶ positions again ─▶ what was written meanwhile settles what differs
//! ```
//!
//! It opens the control log and the releases as a host does, reads, and writes nothing to any of them.

mod deployed;
mod derive;
mod look;
mod outcome;
mod possible;
mod tables;
mod tell;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::world::World;
use crate::anchor::{MemoryAnchor, Standing};
use crate::clock::now_micros;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::Surroundings as _;
use crate::task;
use crate::verify::{
    Clock, Difference, DifferenceKind, Judging, Kind, Report, TableReport, Unchecked,
};
use deployed::Deployed;
use derive::{Deriver, Offsets};
use look::{Look, Looker};

/// What to check, and how much of it to show.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The pipeline.
    pub pipeline: String,
    /// Only these partitions; all where empty.
    pub partitions: Vec<i32>,
    /// Differences shown.
    pub limit: usize,
}

/// What a check is at work with.
#[derive(Clone, Debug)]
pub enum VerifyStep {
    /// Records of the topic.
    Records {
        /// Offsets derived so far, of all partitions.
        done: u64,
        /// Of so many.
        of: u64,
    },
    /// Rows of a table.
    Rows {
        /// The table.
        table: String,
        /// Rows so far.
        done: u64,
    },
}

/// Told every now and then.
pub type VerifyProgress<'a> = &'a dyn Fn(VerifyStep);

/// Derives the tables of a pipeline again and compares. Blocks.
///
/// # Errors
/// `Config` where there is no such pipeline, it writes nowhere, or the release that makes its newest records is not
/// known; `Outside` when a broker or a database is not reached. Differences are no error.
pub fn verify(
    config: &Config,
    options: &VerifyOptions,
    progress: VerifyProgress<'_>,
) -> Result<Report> {
    let config = Arc::new(config.clone());
    task::block_on(async {
        let deployed = Deployed::open(&config, &options.pipeline).await?;
        let servers = &deployed.servers;
        let world = World::new(
            &deployed.loaded,
            &deployed.releases,
            servers,
            MemoryAnchor::new(),
        );
        let check = Check {
            world: Arc::new(world),
            deployed: &deployed,
            options,
            progress,
            report: Report {
                pipeline: options.pipeline.clone(),
                topic: deployed.loaded.release.plan.input.topic.clone(),
                ..Report::default()
            },
        };
        check.run().await
    })
}

/// One check.
struct Check<'a> {
    deployed: &'a Deployed,
    world: Arc<World>,
    options: &'a VerifyOptions,
    progress: VerifyProgress<'a>,
    report: Report,
}

impl Check<'_> {
    async fn run(mut self) -> Result<Report> {
        let world = Arc::clone(&self.world);
        let looker = Looker::open(&world, &self.deployed.loaded.release.plan).await?;
        let first = looker.look(&self.options.partitions).await?;
        let mut deriver = Deriver::new(self.deployed, &world, self.progress)?;
        for partition in self.beyond(&first) {
            deriver.missing_partition(partition, None);
        }
        for standing in &first.standings {
            deriver.enter(standing).await?;
        }
        deriver.known(&first.letters);
        let topic = self.topic(&first).await?;
        for (partition, count) in self.unheld(&first, &topic) {
            deriver.missing_partition(partition, Some(count));
        }
        deriver.starts(&topic)?;
        deriver
            .derive(&ends(&first.standings), Offsets::Below)
            .await?;
        drop(first);
        // From here on Postgres stands still, for this process.
        let second = looker.look(&self.options.partitions).await?;
        deriver.moved(&second).await?;
        deriver
            .derive(&ends(&second.standings), Offsets::Below)
            .await?;
        possible::letters_gone(&mut deriver, self.deployed, &world).await?;
        let past = deriver.past(&second.standings, !self.options.partitions.is_empty());
        self.read(&looker, &mut deriver, &second, past).await?;
        deriver.ledgers(&second.standings);
        tell::differences(&mut self.report, &mut deriver, &world, self.options.limit).await?;
        let limit = self.options.limit;
        self.conclude(&deriver);
        topics::compare(&mut self.report, &mut deriver, &world, past, limit).await?;
        self.finish(deriver);
        Ok(self.report)
    }

    /// Partitions that were asked for and have no position.
    fn beyond(&self, look: &Look) -> Vec<i32> {
        let known = |partition: &&i32| {
            let mut standings = look.standings.iter();
            !standings.any(|standing| standing.partition == **partition)
        };
        self.options
            .partitions
            .iter()
            .filter(known)
            .copied()
            .collect()
    }

    /// Partitions that have records and no position, and how many: a host has not met them yet, or the position is lost.
    fn unheld(&self, look: &Look, topic: &BTreeMap<i32, (i64, i64)>) -> Vec<(i32, u64)> {
        let held = |partition: i32| {
            let mut standings = look.standings.iter();
            standings.any(|standing| standing.partition == partition)
        };
        topic
            .iter()
            .filter(|(partition, _)| self.options.partitions.is_empty() && !held(**partition))
            .map(|(partition, (low, high))| (*partition, u64::try_from(high - low).unwrap_or(0)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Start and end of each partition of the topic. Positions of another topic of the same name say nothing of this
    /// one's records.
    async fn topic(&self, look: &Look) -> Result<BTreeMap<i32, (i64, i64)>> {
        let world = Arc::clone(&self.world);
        let topic = task::blocking(move || world.topic()).await??;
        let other = look.standings.iter().find(|standing| {
            matches!((&standing.topic_id, &topic.id), (Some(stored), Some(found)) if stored != found)
        });
        match other {
            None => Ok((0..).zip(topic.watermarks).collect()),
            Some(standing) => Err(Error::config(
                format!("verify pipeline {:?}", self.options.pipeline),
                format!(
                    "the position of partition {} is of another topic of the name {:?}: it was made again since",
                    standing.partition, self.report.topic
                ),
            )
            .hint("its records are gone: there is nothing to compare the tables with")),
        }
    }

    /// Reads every table and judges its rows.
    async fn read(
        &mut self,
        looker: &Looker,
        deriver: &mut Deriver<'_>,
        second: &Look,
        past: bool,
    ) -> Result<()> {
        let (world, progress) = (&self.world, self.progress);
        for kind in [Kind::Postgres, Kind::Cassandra] {
            for expected in &mut deriver.tables.all {
                if expected.table.kind != kind {
                    continue;
                }
                expected.judge(Judging {
                    past,
                    clock: Clock {
                        now: now_micros(),
                        ttl: expected.table.ttl,
                        longest: expected.table.longest,
                    },
                    keep: self.options.limit,
                    moving: kind == Kind::Cassandra,
                });
                look::read_table(world, second, expected, progress).await?;
                expected.finish();
            }
        }
        if deriver
            .tables
            .all
            .iter()
            .any(crate::verify::Expected::is_held)
        {
            let third = looker.standings(&self.options.partitions).await?;
            let mut sent = BTreeMap::new();
            for standing in &third {
                let end = standing.next.max(standing.reserved);
                deriver.extend(standing, end).await?;
                sent.insert(standing.partition, end);
            }
            deriver.derive(&sent, Offsets::MaybeSent).await?;
        }
        Ok(())
    }

    /// Table by table.
    fn conclude(&mut self, deriver: &Deriver<'_>) {
        let report = &mut self.report;
        for expected in &deriver.tables.all {
            let (table, tally) = (&expected.table, expected.tally);
            report.tables.push(TableReport {
                kind: table.kind.word(),
                connection: table.connection.clone(),
                table: table.name.clone(),
                expected: expected.rows(),
                tally,
            });
            let unsure = [
                (
                    tally.expired,
                    "they may have expired: the table has a time to live",
                ),
                (
                    tally.shared,
                    "several partitions, which have no order among each other, or a retried dead letter wrote parts \
                     of them",
                ),
                (
                    tally.past,
                    "earlier records, which are not there or whose release is not known, may have written them",
                ),
            ];
            for (count, why) in unsure.into_iter().filter(|(count, _)| *count > 0) {
                report.unchecked.push(Unchecked {
                    what: format!("rows of {} table {}", table.kind.word(), table.name),
                    why: why.to_owned(),
                    count: Some(count),
                });
            }
        }
    }

    fn finish(&mut self, deriver: Deriver<'_>) {
        let report = &mut self.report;
        for topic in report.tables.iter().filter(|table| table.kind == "kafka") {
            let tally = topic.tally;
            let unsure = [
                (
                    tally.expired,
                    "they are not there, and the topic drops messages by itself: retention or compaction",
                ),
                (
                    tally.past,
                    "their records are not there, or had a dead letter that is gone",
                ),
            ];
            for (count, why) in unsure.into_iter().filter(|(count, _)| *count > 0) {
                report.unchecked.push(Unchecked {
                    what: format!("messages of topic {}", topic.table),
                    why: why.to_owned(),
                    count: Some(count),
                });
            }
            report.notes.push(format!(
                "of topic {} only the coordinates of messages are compared, not their order and content",
                topic.table
            ));
        }
        report.unchecked.extend(deriver.unchecked);
        report.notes.extend(deriver.notes);
        report.partitions = deriver
            .lanes
            .into_values()
            .map(|lane| lane.report)
            .collect();
        let rows = report
            .tables
            .iter()
            .map(|table| table.tally.wrong())
            .sum::<u64>();
        let others = |difference: &&Difference| {
            matches!(
                difference.kind,
                DifferenceKind::Outcome | DifferenceKind::Ledger
            )
        };
        report.equal = rows == 0
            && !report
                .differences
                .iter()
                .any(|difference| others(&difference));
    }
}

fn ends(standings: &[Standing]) -> BTreeMap<i32, i64> {
    let ends = standings.iter();
    ends.map(|standing| (standing.partition, standing.next))
        .collect()
}
