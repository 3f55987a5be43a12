//! [`Deriver`]: what a check knows of a pipeline's records: which release made which of them, what was derived of them so
//! far, and what the anchor keeps of those set aside.
//!
//! It says which offsets are to be derived; `rerun` derives them. What they came to is compared with the ledger in
//! `outcome`.

mod rerun;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::releases::Loaded;
use super::super::world::World;
use super::VerifyProgress;
use super::deployed::Deployed;
use super::look::Look;
use super::tables::Tables;
use crate::anchor::{SetAside, Standing};
use crate::error::{Blame, Error, Result};
use crate::verify::{At, Difference, Messages, Origin, Partition, Timeline, Unchecked};

/// Which offsets are derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offsets {
    /// Below the position: their rows are there.
    Below,
    /// At or above it: their rows may be in what is written ahead.
    MaybeSent,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) report: Partition,
    pub(super) timeline: Timeline,
    /// Derived up to here.
    next: i64,
    /// Write time of the last record derived, microseconds.
    written: i64,
    /// Records that fail and have no letter: somebody retried or dropped it.
    pub(super) unlettered: BTreeSet<i64>,
    /// Records that fail and are dropped by the plugin's own policy.
    pub(super) skipped: u64,
    /// Records that became something else than their letter says.
    outcomes: usize,
}

/// See the module.
pub(super) struct Deriver<'a> {
    deployed: &'a Deployed,
    world: &'a Arc<World>,
    progress: VerifyProgress<'a>,
    pub(super) lanes: BTreeMap<i32, Lane>,
    pub(super) tables: Tables,
    pub(super) topics: Vec<Messages>,
    /// By id; `Err`: why it is not there.
    releases: HashMap<String, Result<Arc<Loaded>, String>>,
    pub(super) letters: HashMap<At, SetAside>,
    pub(super) differences: Vec<Difference>,
    pub(super) unchecked: Vec<Unchecked>,
    pub(super) notes: Vec<String>,
    /// Whether some partition has records that are not known.
    pub(super) lost: bool,
}

impl<'a> Deriver<'a> {
    pub(super) fn new(
        deployed: &'a Deployed,
        world: &'a Arc<World>,
        progress: VerifyProgress<'a>,
    ) -> Result<Self> {
        let mut tables = Tables::default();
        let entered = tables.enter(&deployed.servers.config, &deployed.loaded);
        entered.map_err(|why| Error::config("compare the tables of the release in force", why))?;
        let loaded = Arc::clone(&deployed.loaded);
        Ok(Self {
            deployed,
            world,
            progress,
            lanes: BTreeMap::new(),
            tables,
            topics: Vec::new(),
            releases: HashMap::from([(deployed.release.id.clone(), Ok(loaded))]),
            letters: HashMap::new(),
            differences: Vec::new(),
            unchecked: Vec::new(),
            notes: Vec::new(),
            lost: false,
        })
    }

    /// A partition that has no position; how many records it has, where that is known.
    pub(super) fn missing_partition(&mut self, partition: i32, count: Option<u64>) {
        self.unchecked.push(Unchecked {
            what: format!("partition {partition}"),
            why: "it has no position: nothing of it was processed, or the position is lost"
                .to_owned(),
            count,
        });
    }

    /// Begins with a partition: which release made what of it, as far as that is known.
    pub(super) async fn enter(&mut self, standing: &Standing) -> Result<()> {
        let timeline = self.timeline(standing, standing.next).await?;
        let from = timeline.from().unwrap_or(standing.next);
        self.lanes.insert(
            standing.partition,
            Lane {
                report: Partition {
                    partition: standing.partition,
                    from,
                    to: standing.next,
                    ..Partition::default()
                },
                timeline,
                next: from,
                written: 0,
                unlettered: BTreeSet::new(),
                skipped: 0,
                outcomes: 0,
            },
        );
        Ok(())
    }

    async fn timeline(&mut self, standing: &Standing, to: i64) -> Result<Timeline> {
        let began = self.deployed.began(standing.partition);
        let timeline = Timeline::new(&standing.cuts, &began, to);
        // The newest first: it says what the tables look like.
        for span in timeline.spans.iter().rev() {
            self.load(&span.release).await?;
        }
        let there = |id: &str| self.releases.get(id).is_some_and(Result::is_ok);
        let newest = timeline.spans.last().map(|span| span.release.clone());
        let (timeline, missing) = timeline.without(there);
        let Some(missing) = missing else {
            return Ok(timeline);
        };
        let why = match self.releases.get(&missing.release) {
            Some(Err(why)) => why.clone(),
            _ => String::new(),
        };
        if newest.as_ref() == Some(&missing.release) {
            return Err(not_there(standing.partition, &why));
        }
        self.lost = true;
        self.unchecked.push(Unchecked {
            what: format!(
                "partition {}, offsets below {}",
                standing.partition, missing.offsets.end
            ),
            why: format!("release {} is not there: {why}", missing.release),
            count: None,
        });
        Ok(timeline)
    }

    /// Loads a release that made something; what cannot be loaded is remembered as such.
    async fn load(&mut self, id: &str) -> Result<()> {
        if self.releases.contains_key(id) {
            return Ok(());
        }
        let loaded = match self.deployed.earlier(id).await {
            Ok(loaded) => {
                let config = &self.deployed.servers.config;
                self.tables.enter(config, &loaded).map(|()| loaded)
            }
            Err(error) if error.blame() == Blame::Bug => return Err(error),
            Err(error) => Err(error.to_string()),
        };
        self.releases.insert(id.to_owned(), loaded);
        Ok(())
    }

    /// The release that made an offset, where it is known.
    pub(super) fn release_of(&self, at: At) -> Option<Arc<Loaded>> {
        let lane = self.lanes.get(&at.partition)?;
        let mut spans = lane.timeline.spans.iter();
        let span = spans.find(|span| span.offsets.contains(&at.offset))?;
        self.releases.get(&span.release)?.as_ref().ok().cloned()
    }

    pub(super) fn pipeline(&self) -> &str {
        &self.deployed.pipeline
    }

    /// The topic that is read.
    pub(super) fn topic(&self) -> &str {
        &self.deployed.loaded.release.plan.input.topic
    }

    /// What is known of a record.
    pub(super) fn origin(&self, at: At, past: bool) -> Origin {
        match self.lanes.get(&at.partition) {
            Some(lane) if at.offset >= lane.next => Origin::Ahead,
            Some(lane) if lane.unlettered.contains(&at.offset) => Origin::Unknown,
            _ if self.letters.get(&at).is_some_and(|letter| letter.begun) => Origin::Unknown,
            Some(lane) if at.offset >= lane.report.from => Origin::Known,
            _ if past => Origin::Unknown,
            _ => Origin::Known,
        }
    }

    /// Takes in what stands as dead letters.
    pub(super) fn known(&mut self, letters: &[SetAside]) {
        let at = |letter: &SetAside| At {
            partition: letter.partition,
            offset: letter.offset,
        };
        let letters = letters.iter().map(|letter| (at(letter), letter.clone()));
        self.letters.extend(letters);
    }

    /// What the topic still has: nothing is derived below.
    pub(super) fn starts(&mut self, ends: &BTreeMap<i32, (i64, i64)>) -> Result<()> {
        for (partition, lane) in &mut self.lanes {
            let (low, high) = ends.get(partition).copied().unwrap_or_default();
            if high < lane.report.to {
                let what = format!("read partition {partition} of the topic");
                let detail = format!("it ends at {high}, the position is {}", lane.report.to);
                return Err(Error::config(what, detail)
                    .hint("the topic lost records, or is another one: find out which before anything else"));
            }
            lane.next = lane.next.max(low).min(lane.report.to);
            lane.report.from = lane.next;
        }
        Ok(())
    }

    /// The positions again, a little later: letters that are gone since may have become rows.
    pub(super) async fn moved(&mut self, look: &Look) -> Result<()> {
        for standing in &look.standings {
            // Added to the topic since: all of it is new.
            let Some(lane) = self.lanes.get(&standing.partition) else {
                self.enter(standing).await?;
                continue;
            };
            if standing.next < lane.next {
                return Err(Error::outside(
                    format!("verify partition {}", standing.partition),
                    format!(
                        "its position went back from {} to {}",
                        lane.next, standing.next
                    ),
                )
                .hint("somebody set it: run it again when the pipeline has caught up"));
            }
            self.extend(standing, standing.next).await?;
        }
        let old = std::mem::take(&mut self.letters);
        self.known(&look.letters);
        for (at, _) in old.iter().filter(|(at, _)| !self.letters.contains_key(at)) {
            if let Some(lane) = self.lanes.get_mut(&at.partition) {
                // One above is not decided: it was written ahead, and what its record becomes is still to come.
                if at.offset < lane.next {
                    lane.unlettered.insert(at.offset);
                }
            }
        }
        Ok(())
    }

    /// Which release makes what was not derived yet, up to `to`.
    pub(super) async fn extend(&mut self, standing: &Standing, to: i64) -> Result<()> {
        let Some(lane) = self.lanes.get(&standing.partition) else {
            return Ok(());
        };
        let next = lane.next;
        let rest = Timeline::new(&standing.cuts, &self.deployed.began(standing.partition), to);
        let rest = rest.within(&(next..to));
        for span in &rest.spans {
            self.load(&span.release).await?;
            if let Some(Err(why)) = self.releases.get(&span.release) {
                return Err(not_there(standing.partition, why));
            }
        }
        if let Some(lane) = self.lanes.get_mut(&standing.partition) {
            lane.timeline = std::mem::take(&mut lane.timeline).within(&(0..next));
            lane.timeline.spans.extend(rest.spans);
        }
        Ok(())
    }
}

/// The release of the newest records is not there.
fn not_there(partition: i32, why: &str) -> Error {
    let what = format!("derive the newest records of partition {partition}");
    Error::config(what, why).hint(
        "give the config of a host that ran it, with its cache folder, or one that follows the same control topic",
    )
}
