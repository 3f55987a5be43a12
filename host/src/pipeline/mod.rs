//! Pipelines: a source, a plugin and routes bound to real sinks; the unit that is deployed and stopped.
//!
//! [`Plan`] says what runs and what is guaranteed. [`run`] runs it until it is told to stop or an operator
//! has to act. Everything concrete comes through [`Surroundings`]: this module knows contracts only.

mod commit;
mod counters;
mod flight;
mod lane;
mod opening;
mod plan;
mod process;
mod rate;
mod report;
pub mod setup;
mod shard;
mod start;
mod supervisor;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::sync::watch;

pub use counters::{Counters, Totals};
pub use plan::{AnchorPlan, Binding, Guarantee, InputPlan, Plan, RoutePlan};
pub use shard::Shards;

use crate::anchor::Anchor;
use crate::error::Error;
use crate::manifest::ErrorPolicy;
use crate::plugin::Plugin;
use crate::sink::AheadSink;
use crate::source::{Source, TopicInfo};

/// What a pipeline needs from the world, given by the composition root.
///
/// `anchor` and `ahead` are called on the thread whose runtime drives the connection they return: once a
/// shard, and once by the supervisor for its own anchor.
pub trait Surroundings: Send + Sync + std::fmt::Debug {
    /// Opens the anchor.
    fn anchor(&self) -> LocalBoxFuture<'_, Result<Rc<dyn Anchor>, Error>>;

    /// Opens the written-ahead sink of a route.
    fn ahead(&self, route: usize) -> LocalBoxFuture<'_, Result<Box<dyn AheadSink>, Error>>;

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

    /// The compiled plugin.
    fn plugin(&self) -> Arc<dyn Plugin>;
}

/// What runs.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What becomes of records that fail.
    pub errors: ErrorPolicy,
    /// Where committed numbers are added.
    pub counters: Arc<Counters>,
    /// Group session time-out of the source: the pause before a fenced lane tries again.
    pub session_timeout: Duration,
}

/// Runs a pipeline until `stop` turns true (then it drains and returns `Ok`) or it has to stop by itself.
///
/// Runs on a `LocalSet`; takes no CPU of its own worth naming: lanes run on `shards`.
///
/// # Errors
/// What an operator has to act upon. Nothing is lost: every position is where its data is.
pub async fn run(
    settings: PipelineSettings,
    surroundings: Arc<dyn Surroundings>,
    shards: Shards,
    stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let anchor = surroundings.anchor().await?;
    let topic_id = opening::prepare(&settings, &surroundings, &*anchor).await?;
    let source = surroundings.source(topic_id)?;
    let (thread, commands, events) = opening::start_source(&settings.plan.pipeline, source)?;
    let supervisor = supervisor::Supervisor::new(settings, surroundings, shards, commands)?;
    let outcome = supervisor.run(&*anchor, events, stop).await;
    // The source has closed its end of the events: its thread is at its end.
    thread.join()?;
    outcome
}
