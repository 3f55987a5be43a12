//! The consumer group of a simulated pipeline, at its hardest: everything that any lane ever wanted to be committed has
//! arrived, and nothing older came after it. Healthy owners must never be stopped by what it says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::mpsc as blocking;

use super::fakes::{Broken, FakeAnchor};
use super::plan_with;
use crate::anchor::Claim;
use crate::pipeline::AnchorPlan;
use crate::pipeline::evidence::Evidence;
use crate::source::SourceCommand;

pub(super) struct Group {
    commanded: blocking::Receiver<SourceCommand>,
    committed: RefCell<BTreeMap<i32, i64>>,
}

impl Group {
    pub(super) fn new(commanded: blocking::Receiver<SourceCommand>) -> Self {
        let committed = RefCell::default();
        Self {
            commanded,
            committed,
        }
    }

    /// What it has committed now.
    pub(super) fn ask(&self) -> BTreeMap<i32, i64> {
        let mut committed = self.committed.borrow_mut();
        while let Ok(command) = self.commanded.try_recv() {
            if let SourceCommand::Advise {
                partition,
                position,
                ..
            } = command
            {
                let known = committed.entry(partition).or_insert(position);
                *known = position.max(*known);
            }
        }
        committed.clone()
    }
}

/// Notes a claim that would be stopped by what the group said before it.
pub(super) fn judge(said: BTreeMap<i32, i64>, claim: &Claim, anchor: &FakeAnchor) {
    let mut store = anchor.store.lock();
    let name = "main".to_owned();
    let plan = plan_with(match anchor.lazy && store.broken != Broken::Reservation {
        true => AnchorPlan::Cassandra(name),
        false => AnchorPlan::Postgres(name),
    });
    let evidence = Evidence::new(&plan, said);
    if let Err(error) = evidence.allows(std::slice::from_ref(claim)) {
        store.violations.push(error.to_string());
    }
}
