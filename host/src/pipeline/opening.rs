//! What happens before a pipeline's loop: positions are stored, the source's thread is started.

use std::sync::Arc;
use std::sync::mpsc as blocking;

use tokio::sync::mpsc;

use super::evidence::Evidence;
use super::{Desired, PipelineSettings, Surroundings, start};
use crate::anchor::cuts::{self, Asks};
use crate::anchor::{Anchor, Stored};
use crate::error::Error;
use crate::source::{self, SourceCommand, SourceEvent};
use crate::task;

/// Stores the positions a pipeline needs before its first fetch, and refuses to start on a loss. Returns the
/// identity of the topic they belong to.
pub(super) async fn prepare(
    settings: &PipelineSettings,
    surroundings: &Arc<dyn Surroundings>,
    anchor: &dyn Anchor,
) -> Result<Option<String>, Error> {
    let desired = settings.desired.borrow().clone();
    let plan = &desired.release.plan;
    let input = &plan.input;
    // Positions first: those of a pipeline that other hosts run move on, and only a log's end that was read later
    // cannot lie below them.
    let away = |error: Error| error.on(&plan.anchor);
    let stored = anchor.stored().await.map_err(away)?;
    know_what_is_asked(&desired, surroundings, &stored).await?;
    let asked = Arc::clone(surroundings);
    let info = task::blocking(move || asked.topic()).await?;
    let info = info.map_err(|error| error.on(input.server()))?;
    let seeds = start::seeds(
        &input.topic,
        &stored,
        &info,
        input.input.start,
        |partition, at| desired.cut(partition, at),
    )?;
    if !seeds.is_empty() {
        let evidence = Evidence::ask(plan, surroundings).await?;
        // Another host may have stored them since, and begun: what is compared with the group is read after it.
        let now = anchor.stored().await.map_err(away)?;
        let lacks = |seed: &Stored| now.iter().all(|stored| stored.partition != seed.partition);
        evidence.allows_first(seeds.iter().filter(|seed| lacks(seed)))?;
    }
    let timed = plan.timed_route();
    start::refuse_growth(&input.topic, &stored, &seeds, timed)?;
    if !seeds.is_empty() {
        anchor.seed(&seeds).await.map_err(away)?;
        tracing::info!(
            pipeline = %settings.pipeline,
            partitions = seeds.len(),
            "positions stored"
        );
    }
    let stored_id = stored.into_iter().find_map(|position| position.topic_id);
    Ok(stored_id.or(info.id))
}

/// A host that is behind what others have read must not take partitions that wait for a release it does not know.
async fn know_what_is_asked(
    desired: &Desired,
    surroundings: &Arc<dyn Surroundings>,
    stored: &[Stored],
) -> Result<(), Error> {
    for position in stored {
        let list = &position.cuts;
        // A partition whose canary cannot run here waits for it: that is known.
        if desired.of(position.partition).is_none() {
            continue;
        }
        if let Some(newest) = cuts::newest(list)
            && desired.find(&newest.release).is_none()
            && desired.asks(position.partition, list) == Asks::Nothing
        {
            surroundings.release(&newest.release).await?;
        }
    }
    Ok(())
}

/// A running source: its thread, the way to it and the way from it.
type RunningSource = (
    task::Thread<()>,
    blocking::Sender<SourceCommand>,
    mpsc::UnboundedReceiver<SourceEvent>,
);

/// Starts the thread of a source.
pub(super) fn start_source(
    pipeline: &str,
    source: Box<dyn source::Source>,
) -> Result<RunningSource, Error> {
    let (commands, commanded) = blocking::channel();
    let (events, seen) = mpsc::unbounded_channel();
    let thread = task::thread(format!("source-{pipeline}"), move || {
        let failed = events.clone();
        if let Err(error) = source.run(events, commanded) {
            let event = SourceEvent::Failed {
                partition: None,
                error,
            };
            failed.send(event).ok();
        }
    })?;
    Ok((thread, commands, seen))
}
