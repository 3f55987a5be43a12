//! A release on trial: it processes the batches of a lane beside the one in charge, with its sinks off.
//!
//! [`Shadow`] compares what both made of each record and counts [`Differences`]. It writes nothing, and nothing
//! that happens to it reaches the lane: when it has to stop, it stops alone.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::conduct::Conduct;
use super::deaths::Mark;
use super::process::{Processed, Processor};
use super::release::Release;
use crate::error::Error;
use crate::record::{RowBatch, cells};

/// Differing records shown.
const SHOWN: usize = 20;

/// One record that became something else.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The partition.
    pub partition: i32,
    /// The record.
    pub offset: i64,
    /// What the release in charge made of it: rows by route, or the code of its dead letter.
    pub now: String,
    /// What the shadow made of it.
    pub shadow: String,
}

/// What a shadow did differently in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Differences {
    /// The shadow's release.
    pub release: String,
    /// Records compared.
    pub compared: u64,
    /// Records that became something else.
    pub differing: u64,
    /// The first of them.
    pub first: Vec<Difference>,
    /// Why the shadow stopped, where it did.
    pub stopped: Option<String>,
}

/// A release beside the one in charge.
pub(super) struct Shadow {
    processor: Processor,
    release: Arc<Release>,
    /// Should the host die of it.
    mark: Rc<Mark>,
    names: Vec<String>,
    spare: Option<Processed>,
    pub(super) differences: Differences,
}

impl Shadow {
    /// A shadow that goes on counting where an earlier one of the same release left off.
    pub(super) fn new(
        release: &Arc<Release>,
        known: Option<Differences>,
        conduct: &Rc<Conduct>,
    ) -> Result<Self, Error> {
        conduct.shadow.runs(&release.id);
        let known = known.filter(|known| *known.release == *release.id);
        let differences = known.unwrap_or_else(|| Differences {
            release: release.id.to_string(),
            ..Differences::default()
        });
        Ok(Self {
            processor: release
                .processor(Rc::clone(conduct))?
                .marked(&conduct.shadow),
            mark: Rc::clone(&conduct.shadow),
            release: Arc::clone(release),
            names: names(release),
            spare: None,
            // What stopped it is tried again by every new lane, unless the host died of it.
            differences: Differences {
                stopped: conduct.shadow.fails_shadow().map(|error| stop(&error)),
                ..differences
            },
        })
    }

    /// Processes a copy of the batch and compares. `charge` is the release that made `processed`.
    pub(super) async fn compare(&mut self, charge: &Release, processed: &Processed) {
        if self.differences.stopped.is_some() {
            return;
        }
        let batch = processed.batch.clone();
        let reuse = self.spare.take().unwrap_or_default();
        let mine = match self.processor.process(batch, reuse).await {
            Ok(mine) => mine,
            Err(error) => {
                self.differences.stopped = Some(stop(&error));
                return;
            }
        };
        self.mark.passed(mine.batch.to());
        let names_now = names(charge);
        let theirs = outcomes(&names_now, processed);
        let ours = outcomes(&self.names, &mine);
        for index in 0..processed.batch.len() {
            let source = u32::try_from(index).expect("a batch holds far fewer than 2³² records");
            self.differences.compared += 1;
            let (now, shadow) = (theirs.get(&source), ours.get(&source));
            if now == shadow {
                continue;
            }
            self.differences.differing += 1;
            if self.differences.first.len() < SHOWN {
                self.differences.first.push(Difference {
                    partition: processed.batch.partition(),
                    offset: processed.batch.offsets()[index],
                    now: shown(charge, now),
                    shadow: shown(&self.release, shadow),
                });
            }
        }
        self.spare = Some(mine);
    }
}

/// Says why a shadow stops.
fn stop(error: &Error) -> String {
    tracing::warn!(%error, "the shadow stopped, the pipeline goes on");
    error.to_string()
}

fn names(release: &Release) -> Vec<String> {
    release
        .plan
        .routes
        .iter()
        .map(|route| route.route.name.clone())
        .collect()
}

/// What became of one record: rows as (route, op, cells) in order, or the code it was set aside with.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome<'a> {
    rows: Vec<(&'a str, bool, &'a [u8])>,
    dead: Option<&'a str>,
}

fn outcomes<'a>(names: &'a [String], processed: &'a Processed) -> BTreeMap<u32, Outcome<'a>> {
    let mut all: BTreeMap<u32, Outcome<'a>> = BTreeMap::new();
    // By name: the two releases may number their routes differently.
    let mut routes: Vec<(&str, &RowBatch)> = names
        .iter()
        .map(String::as_str)
        .zip(&processed.rows)
        .collect();
    routes.sort_unstable_by_key(|(name, _)| *name);
    for (name, rows) in routes {
        for row in rows.iter() {
            let delete = row.op == crate::record::Op::Delete;
            all.entry(row.source)
                .or_default()
                .rows
                .push((name, delete, row.cells));
        }
    }
    for dead in &processed.dead {
        all.entry(dead.source).or_default().dead = Some(&dead.code);
    }
    all
}

fn shown(release: &Release, outcome: Option<&Outcome<'_>>) -> String {
    let Some(outcome) = outcome else {
        return "filtered".to_owned();
    };
    if let Some(code) = outcome.dead {
        return format!("dead letter {code}");
    }
    let rows = outcome.rows.iter().map(|(name, delete, row)| {
        let op = if *delete { "delete" } else { "write" };
        let routes = &release.plan.routes;
        let route = routes.iter().find(|route| route.route.name == **name);
        let columns = route.map_or(&[][..], |route| &route.route.columns);
        format!("{op} {name} {}", cells::show::row(columns, row))
    });
    rows.collect::<Vec<_>>().join("; ")
}
