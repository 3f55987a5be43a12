//! [`Release`]: a plugin version bound to its overlay, ready to run; [`Desired`]: which releases a pipeline
//! should run now. Neither opens anything. Easily confused: a *plan* says what would run, a *release* is what
//! runs, a *cut* (see [`crate::anchor::Cut`]) says from which offset on it does.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::conduct::Conduct;
use super::plan::Plan;
use super::process::Processor;
use crate::anchor::cuts::{self, Asks};
use crate::anchor::{Cut, Order};
use crate::decode::Decoder;
use crate::error::Error;
use crate::manifest::ErrorPolicy;
use crate::plugin::Plugin;
use crate::route::RouteTable;

/// Everything a lane needs of one release.
#[derive(Debug)]
pub struct Release {
    /// Its identity in cuts: digest and overlay in one.
    pub id: Arc<str>,
    /// What runs and what it is bound to.
    pub plan: Arc<Plan>,
    /// What becomes of records that fail.
    pub errors: ErrorPolicy,
    /// The compiled plugin with its configuration.
    pub plugin: Arc<dyn Plugin>,
    /// The plan's routes, compiled.
    pub(super) routes: Arc<RouteTable>,
}

impl Release {
    /// Compiles what lanes would otherwise each compile, and fails here instead of in every lane.
    ///
    /// # Errors
    /// The plan's routes or fields do not fit together.
    pub fn new(
        id: &str,
        plan: Arc<Plan>,
        errors: ErrorPolicy,
        plugin: Arc<dyn Plugin>,
    ) -> Result<Self, Error> {
        let routes = RouteTable::new(&plan.bound_routes(), plan.limits.rows_per_record)?;
        Decoder::new(&plan.input.input)?;
        Ok(Self {
            id: id.into(),
            plan,
            errors,
            plugin,
            routes: Arc::new(routes),
        })
    }

    /// What runs its records, for a lane or beside one; `conduct` is told of calls that go past a limit.
    ///
    /// # Errors
    /// The input cannot be decoded.
    pub(super) fn processor(&self, conduct: Rc<Conduct>) -> Result<Processor, Error> {
        Ok(Processor::new(
            Arc::from(self.plan.input.topic.as_str()),
            Decoder::new(&self.plan.input.input)?,
            Arc::clone(&self.routes),
            Arc::clone(&self.plugin),
            conduct,
        ))
    }
}

/// A release on trial on some partitions.
#[derive(Clone, Debug)]
pub struct Trial {
    /// `None`: it cannot run here. What processes its partitions goes on, those that nobody processes yet wait: the
    /// release in charge must not take records that another host has pinned to this one.
    pub release: Option<Arc<Release>>,
    /// Its partitions.
    pub partitions: BTreeSet<i32>,
}

/// Which releases a pipeline should run.
#[derive(Clone, Debug)]
pub struct Desired {
    /// What every partition runs that is not named below.
    pub release: Arc<Release>,
    /// Another release on some partitions.
    pub canary: Option<Trial>,
    /// A release that runs beside the others with its sinks off.
    pub shadow: Option<Arc<Release>>,
    /// Which deployment says so.
    pub order: Order,
    /// The control log is gone: what is pinned is processed, and nothing new is asked for. Other hosts may follow
    /// another log by now, and this one cannot know which of the two says more.
    pub log_lost: bool,
}

impl Desired {
    /// One release everywhere.
    #[must_use]
    pub fn only(release: Arc<Release>) -> Self {
        Self {
            release,
            canary: None,
            shadow: None,
            order: Order::default(),
            log_lost: false,
        }
    }

    /// The cut that brings what a partition should run into force. One that waits for its canary is cut once more when
    /// that can run.
    pub(super) fn cut(&self, partition: i32, at: i64) -> Cut {
        let release = self.of(partition).unwrap_or(&self.release);
        Cut {
            at,
            release: release.id.to_string(),
            order: self.order.clone(),
        }
    }

    /// What this asks of a partition's cuts.
    pub(super) fn asks(&self, partition: i32, list: &[Cut]) -> Asks {
        match self.of(partition) {
            Some(wanted) if !self.log_lost || list.is_empty() => {
                cuts::asks(list, &wanted.id, &self.order)
            }
            _ => Asks::Nothing,
        }
    }

    /// What a partition should run; `None` while that cannot run here.
    #[must_use]
    pub fn of(&self, partition: i32) -> Option<&Arc<Release>> {
        match &self.canary {
            Some(trial) if trial.partitions.contains(&partition) => trial.release.as_ref(),
            _ => Some(&self.release),
        }
    }

    /// Whether another one says anything else: of the same deployment only whether its trials can run here may differ.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let trials = |desired: &Self| {
            let canary = desired.canary.as_ref().map(|trial| trial.release.is_some());
            (canary, desired.shadow.is_some())
        };
        self.order != other.order
            || self.release.id != other.release.id
            || self.log_lost != other.log_lost
            || trials(self) != trials(other)
    }

    /// The release of this identity, where it is one of these.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Arc<Release>> {
        self.writing().find(|release| *release.id == *id)
    }

    /// The releases that write: the one in charge, and a canary that can run here.
    pub fn writing(&self) -> impl Iterator<Item = &Arc<Release>> {
        let trial = self.canary.as_ref();
        std::iter::once(&self.release).chain(trial.and_then(|trial| trial.release.as_ref()))
    }
}

/// A release began to process a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentStart {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// First offset it may process.
    pub at: i64,
    /// Which release.
    pub release: Arc<str>,
}
