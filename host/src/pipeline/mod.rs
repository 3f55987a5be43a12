//! Pipelines: a source, a plugin and routes bound to real sinks; the unit that is deployed and stopped.
//!
//! [`Plan`] says what runs and what is guaranteed. [`run`] runs it until it is told to stop or an operator
//! has to act. Everything concrete comes through [`Surroundings`]: this module knows contracts only.

mod claiming;
mod commit;
mod conduct;
mod counters;
mod deaths;
mod delivery;
mod evidence;
mod fences;
mod flight;
mod guarantee;
mod lane;
mod limits;
mod opening;
mod ownership;
mod plan;
mod process;
mod pulse;
mod rate;
mod release;
mod replay;
mod report;
mod retry;
mod segments;
pub mod setup;
mod shadow;
mod shard;
mod start;
mod supervisor;
mod tables;
#[cfg(test)]
mod tests;
mod topics;
mod totals;
mod waits;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::sync::{mpsc, watch};

pub use counters::{Counters, LaneTotals};
pub use deaths::Deaths;
pub use delivery::{because, out_of_reach, reader, weaker};
pub use plan::{AnchorPlan, Binding, Guarantee, InputPlan, Plan, RoutePlan};
pub use release::{Desired, Release, SegmentStart, Trial};
pub use replay::{Replay, Replayed};
pub use retry::{Overwrite, Retried, RetrySinks, retry};
pub use shadow::{Difference, Differences};
pub use shard::Shards;
pub use start::added;
pub use totals::{Latency, Totals};
pub use waits::{Waiter, Waiting};

use crate::anchor::Anchor;
use crate::error::Error;
use crate::sink::AheadSink;
use crate::source::{Source, TopicInfo};

/// What a pipeline needs from the world, given by the composition root.
///
/// `anchor` and `ahead` are called on the thread whose runtime drives the connection they return: once a
/// shard, and once by the supervisor for its own anchor.
pub trait Surroundings: Send + Sync + std::fmt::Debug {
    /// Opens the anchor for a release's routes.
    fn anchor<'a>(&'a self, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Rc<dyn Anchor>, Error>>;

    /// Opens the written-ahead sink of a release's route.
    fn ahead<'a>(
        &'a self,
        plan: &'a Plan,
        route: usize,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AheadSink>, Error>>;

    /// Makes the source; it is run on a thread of its own. `topic_id`: identity of the topic the stored
    /// positions belong to; another one is a data loss.
    ///
    /// # Errors
    /// The client refuses its properties.
    fn source(&self, topic_id: Option<String>) -> Result<Box<dyn Source>, Error>;

    /// Asks for the topic's identity and watermarks; blocks.
    ///
    /// # Errors
    /// `Outside` when the broker is not reached, `Config` when there is no such topic.
    fn topic(&self) -> Result<TopicInfo, Error>;

    /// Asks for the positions that hosts have committed to the pipeline's consumer group, by partition, after its
    /// anchor confirmed them; empty where the anchor is one that forgets. Other commits do not count: a tool may have
    /// made them, or the pipeline while its positions were in another anchor. Blocks.
    ///
    /// # Errors
    /// `Outside` when the group's coordinator is not reached, `Config` when the group may not be seen.
    fn committed(&self) -> Result<BTreeMap<i32, i64>, Error>;

    /// A release that ran before and has to replay what it may have sent ahead, or one that a later deployment asked
    /// for than this host has read.
    ///
    /// # Errors
    /// `Config` when it is not known here any more: nobody else may process those offsets. `Outside` without a retry
    /// when it is not known here although other hosts may know it.
    fn release<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<Arc<Release>, Error>>;
}

/// The sinks of a release that are written ahead, by route.
///
/// # Errors
/// Whatever opening one fails with.
pub async fn open_ahead(
    surroundings: &dyn Surroundings,
    plan: &Plan,
) -> Result<Vec<Option<Box<dyn AheadSink>>>, Error> {
    let mut sinks = Vec::with_capacity(plan.routes.len());
    for (route, bound) in plan.routes.iter().enumerate() {
        sinks.push(match bound.binding {
            Binding::Ahead(_) => {
                let sink = surroundings.ahead(plan, route).await;
                Some(sink.map_err(|error| bound.blame(error))?)
            }
            Binding::Here | Binding::Discard => None,
        });
    }
    Ok(sinks)
}

/// What runs.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// The pipeline's name: its identity in anchors and groups.
    pub pipeline: Arc<str>,
    /// Which releases should run; followed while the pipeline runs. All of them read the same topic and keep
    /// their position in the same anchor.
    pub desired: watch::Receiver<Desired>,
    /// Where committed numbers are added.
    pub counters: Arc<Counters>,
    /// Who tries to start it: it got on once what the pipeline needs before its first fetch is there.
    pub waiter: Arc<Waiter>,
    /// Told which release begins where.
    pub segments: mpsc::UnboundedSender<SegmentStart>,
    /// Group session time-out of the source: the pause before a fenced lane tries again, and how long one waits for
    /// a release that this host does not know.
    pub session_timeout: Duration,
    /// A lane that takes no turn for so long although records wait for it is told and restarted.
    pub stall: Duration,
}

/// Runs a pipeline until `stop` turns true (then it drains and returns `Ok`) or it has to stop by itself.
///
/// Runs on a `LocalSet`; takes no CPU of its own worth naming: lanes run on `shards`.
///
/// # Errors
/// What an operator has to act upon. Nothing is lost: every position is where its data is. `Outside` without a retry:
/// other hosts may be able to go on where this one cannot; they get its partitions once its session has timed out.
pub async fn run(
    settings: PipelineSettings,
    surroundings: Arc<dyn Surroundings>,
    shards: Shards,
    stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let plan = Arc::clone(&settings.desired.borrow().release.plan);
    let anchor = surroundings.anchor(&plan).await;
    let anchor = anchor.map_err(|error| error.on(&plan.anchor))?;
    let topic_id = opening::prepare(&settings, &surroundings, &*anchor).await?;
    settings.waiter.done();
    let source = surroundings.source(topic_id)?;
    let (thread, commands, events) = opening::start_source(&settings.pipeline, source)?;
    let supervisor = supervisor::Supervisor::new(settings, surroundings, shards, commands);
    let outcome = supervisor.run(&*anchor, events, stop).await;
    // The source has closed its end of the events: its thread is at its end.
    thread.join()?;
    outcome
}
