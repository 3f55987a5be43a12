//! The supervisor of one pipeline: it claims what the source is assigned, starts and ends lanes, and decides
//! what a lane's end means for the rest.
//!
//! One task on the control runtime. Sources and lanes never talk to each other but through inlets; both talk
//! to the supervisor. It writes nothing to any sink.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};

use super::lane::{Lane, LaneContext, LaneEnd, Mode};
use super::process::Processor;
use super::shard::Shards;
use super::{PipelineSettings, Surroundings, start};
use crate::anchor::{Anchor, Claim};
use crate::clock::Backoff;
use crate::decode::Decoder;
use crate::error::{Blame, Error};
use crate::route::RouteTable;
use crate::source::{self, SourceCommand, SourceEvent};
use crate::task;

/// How long lanes of revoked partitions may take to finish what is in flight.
const REVOKE: Duration = Duration::from_secs(10);
/// How long a stopping pipeline may take to finish what is in flight.
const DRAIN: Duration = Duration::from_secs(20);

/// A lane's end, reported from its shard.
struct Ended {
    partition: i32,
    generation: u64,
    end: LaneEnd,
}

/// A running lane, seen from here.
struct Running {
    generation: u64,
    mode: watch::Sender<Mode>,
    /// Dropping it cuts the lane short.
    _cut: oneshot::Sender<()>,
}

pub(super) struct Supervisor {
    settings: PipelineSettings,
    surroundings: Arc<dyn Surroundings>,
    shards: Shards,
    context: Arc<LaneContext>,
    routes: Arc<RouteTable>,
    commands: blocking::Sender<SourceCommand>,
    ended: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
    lanes: HashMap<i32, Running>,
    assigned: HashMap<i32, u32>,
    generation: u64,
}

/// Stores the positions a pipeline needs before its first fetch, and refuses to start on a loss. Returns the
/// identity of the topic they belong to.
pub(super) async fn prepare(
    settings: &PipelineSettings,
    surroundings: &Arc<dyn Surroundings>,
    anchor: &dyn Anchor,
) -> Result<Option<String>, Error> {
    let input = &settings.plan.input;
    let asked = Arc::clone(surroundings);
    let info = task::blocking(move || asked.topic()).await??;
    let stored = anchor.stored().await?;
    let seeds = start::seeds(&input.topic, &stored, &info, input.input.start)?;
    if !seeds.is_empty() {
        anchor.seed(&seeds).await?;
        tracing::info!(
            pipeline = settings.plan.pipeline,
            partitions = seeds.len(),
            "positions stored"
        );
    }
    let stored_id = stored.into_iter().find_map(|position| position.topic_id);
    Ok(stored_id.or(info.id))
}

impl Supervisor {
    pub(super) fn new(
        settings: PipelineSettings,
        surroundings: Arc<dyn Surroundings>,
        shards: Shards,
        commands: blocking::Sender<SourceCommand>,
    ) -> Result<Self, Error> {
        let routes = Arc::new(RouteTable::new(
            &settings.plan.bound_routes(),
            settings.plan.limits.rows_per_record,
        )?);
        let context = LaneContext {
            plan: Arc::clone(&settings.plan),
            errors: settings.errors,
            counters: Arc::clone(&settings.counters),
            source: commands.clone(),
        };
        // Fails early, here, instead of in every lane.
        Decoder::new(&settings.plan.input.input)?;
        Ok(Self {
            settings,
            surroundings,
            shards,
            context: Arc::new(context),
            routes,
            commands,
            ended: mpsc::unbounded_channel(),
            lanes: HashMap::new(),
            assigned: HashMap::new(),
            generation: 0,
        })
    }

    /// Runs until the pipeline is stopped or fails; in both cases its lanes and its source have ended.
    pub(super) async fn run(
        mut self,
        anchor: &dyn Anchor,
        mut events: mpsc::UnboundedReceiver<SourceEvent>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let outcome = self.supervise(anchor, &mut events, &mut stop).await;
        let all: Vec<i32> = self.lanes.keys().copied().collect();
        self.drain(&all, DRAIN).await;
        self.command(SourceCommand::Shutdown);
        // The source reports what it still held; its lanes are gone, so it may go on at once.
        while let Some(event) = events.recv().await {
            if let SourceEvent::Revoked { done, .. } = event {
                done.try_send(()).ok();
            }
        }
        let pipeline = self.settings.plan.pipeline.clone();
        for slot in 0..self.shards.count() {
            let pipeline = pipeline.clone();
            self.shards
                .run(slot, move |local| {
                    async move { local.close(&pipeline) }.boxed_local()
                })
                .ok();
        }
        outcome
    }

    async fn supervise(
        &mut self,
        anchor: &dyn Anchor,
        events: &mut mpsc::UnboundedReceiver<SourceEvent>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let (reclaim, mut reclaims) = mpsc::unbounded_channel::<i32>();
        let mut stopped = stop.clone();
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => return Ok(()),
                Some(ended) = self.ended.1.recv() => {
                    if let Some(partition) = self.lane_ended(ended)? {
                        self.reclaim_later(partition, reclaim.clone());
                    }
                }
                Some(partition) = reclaims.recv() => {
                    if self.assigned.contains_key(&partition) && !self.lanes.contains_key(&partition) {
                        self.claim(anchor, &[partition], stop).await?;
                    }
                }
                event = events.recv() => match event {
                    None => return Err(Error::bug("run the source", "its thread ended without being asked")),
                    Some(event) => self.source_event(anchor, event, stop).await?,
                },
            }
        }
    }

    async fn source_event(
        &mut self,
        anchor: &dyn Anchor,
        event: SourceEvent,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Error> {
        match event {
            SourceEvent::Assigned(partitions) => {
                tracing::info!(
                    pipeline = self.settings.plan.pipeline,
                    ?partitions,
                    "assigned"
                );
                for partition in &partitions {
                    self.assigned.insert(*partition, 0);
                }
                self.claim(anchor, &partitions, stop).await
            }
            SourceEvent::Revoked { partitions, done } => {
                tracing::info!(
                    pipeline = self.settings.plan.pipeline,
                    ?partitions,
                    "revoked"
                );
                self.forget(&partitions);
                self.drain(&partitions, REVOKE).await;
                done.try_send(()).ok();
                Ok(())
            }
            SourceEvent::Lost(partitions) => {
                tracing::warn!(pipeline = self.settings.plan.pipeline, ?partitions, "lost");
                self.forget(&partitions);
                for partition in partitions {
                    // Dropping the handle cuts the lane: nothing more is committed.
                    self.lanes.remove(&partition);
                }
                Ok(())
            }
            SourceEvent::Failed { partition, error } if error.blame() == Blame::Outside => {
                tracing::warn!(pipeline = self.settings.plan.pipeline, ?partition, error = %error, "source");
                Ok(())
            }
            SourceEvent::Failed { error, .. } => Err(error),
        }
    }

    fn forget(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.assigned.remove(partition);
        }
    }

    /// Claims partitions, waiting for the anchor as long as it takes, and starts their lanes.
    async fn claim(
        &mut self,
        anchor: &dyn Anchor,
        partitions: &[i32],
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        let claims = loop {
            match anchor.claim(partitions).await {
                Ok(claims) => break claims,
                Err(error) if error.blame() == Blame::Outside => {
                    tracing::warn!(pipeline = self.settings.plan.pipeline, error = %error, "cannot claim yet");
                    tokio::select! {
                        _ = stop.wait_for(|stop| *stop) => return Ok(()),
                        () = tokio::time::sleep(backoff.pause()) => {}
                    }
                }
                Err(error) => return Err(error),
            }
        };
        for claim in claims {
            self.start_lane(claim)?;
        }
        Ok(())
    }

    fn start_lane(&mut self, claim: Claim) -> Result<(), Error> {
        self.generation += 1;
        let generation = self.generation;
        let partition = claim.partition;
        let (inlet, outlet) = source::channel();
        let (mode, mode_seen) = watch::channel(Mode::Run);
        let (cut, cut_seen) = oneshot::channel::<()>();
        let decoder = Decoder::new(&self.settings.plan.input.input)?;
        let routes = Arc::clone(&self.routes);
        let position = claim.next;
        let context = Arc::clone(&self.context);
        let surroundings = Arc::clone(&self.surroundings);
        let ended = self.ended.0.clone();
        let slot = usize::try_from(partition).unwrap_or(0);
        self.shards.run(slot, move |local| {
            async move {
                let mut mode_here = mode_seen.clone();
                let work = async {
                    let mut backoff = Backoff::default();
                    let connections = loop {
                        match local.connections(&context.plan, &*surroundings).await {
                            Ok(connections) => break connections,
                            Err(error) if error.blame() == Blame::Outside => {
                                tracing::warn!(partition, error = %error, "sinks not reached yet");
                                tokio::select! {
                                    _ = mode_here.wait_for(|mode| *mode == Mode::Drain) => return LaneEnd::Done,
                                    () = tokio::time::sleep(backoff.pause()) => {}
                                }
                            }
                            Err(error) => return LaneEnd::Stopped(error),
                        }
                    };
                    let topic = Arc::from(context.plan.input.topic.as_str());
                    let processor = Processor::new(topic, decoder, routes, surroundings.plugin());
                    Lane::new(context, Rc::clone(&connections), processor, claim, mode_seen).run(outlet).await
                };
                let end = tokio::select! {
                    biased;
                    _ = cut_seen => LaneEnd::Done,
                    end = work => end,
                };
                // Nobody listens once the pipeline is gone.
                ended.send(Ended { partition, generation, end }).ok();
            }
            .boxed_local()
        })?;
        self.lanes.insert(
            partition,
            Running {
                generation,
                mode,
                _cut: cut,
            },
        );
        self.command(SourceCommand::Start {
            partition,
            position,
            inlet,
        });
        Ok(())
    }

    /// What the end of a lane means; returns a partition to claim again later.
    fn lane_ended(&mut self, ended: Ended) -> Result<Option<i32>, Error> {
        let current = self
            .lanes
            .get(&ended.partition)
            .is_some_and(|lane| lane.generation == ended.generation);
        if !current {
            return Ok(None);
        }
        self.lanes.remove(&ended.partition);
        self.command(SourceCommand::Stop {
            partition: ended.partition,
        });
        match ended.end {
            LaneEnd::Done => Ok(None),
            LaneEnd::Stopped(error) => Err(error),
            LaneEnd::Fenced(error) => {
                tracing::warn!(
                    pipeline = self.settings.plan.pipeline,
                    partition = ended.partition,
                    error = %error,
                    "fenced, everything of this lane is dropped"
                );
                Ok(self
                    .assigned
                    .contains_key(&ended.partition)
                    .then_some(ended.partition))
            }
        }
    }

    /// Rule 6: a fenced lane waits a session time-out, longer each time, and is claimed again only while the
    /// partition is assigned and the broker takes an advisory commit of this member.
    fn reclaim_later(&mut self, partition: i32, reclaim: mpsc::UnboundedSender<i32>) {
        let times = self.assigned.entry(partition).or_insert(0);
        *times += 1;
        let wait = self.settings.session_timeout * (1 << (*times - 1).min(4));
        let commands = self.commands.clone();
        let slot = usize::try_from(partition).unwrap_or(0);
        self.shards
            .run(slot, move |_| {
                async move {
                    loop {
                        tokio::time::sleep(wait).await;
                        if reclaim.is_closed() {
                            return;
                        }
                        let (taken, answer) = oneshot::channel();
                        let advise = SourceCommand::Advise {
                            partition,
                            position: -1,
                            taken: Some(taken),
                        };
                        if commands.send(advise).is_err() {
                            return;
                        }
                        if answer.await.unwrap_or(false) {
                            reclaim.send(partition).ok();
                            return;
                        }
                    }
                }
                .boxed_local()
            })
            .ok();
    }

    /// Lets lanes finish what is in flight; those that do not within `limit` are cut short.
    async fn drain(&mut self, partitions: &[i32], limit: Duration) {
        let mut waiting: Vec<i32> = Vec::new();
        for partition in partitions {
            if let Some(lane) = self.lanes.get(partition) {
                lane.mode.send_replace(Mode::Drain);
                waiting.push(*partition);
            }
            self.command(SourceCommand::Stop {
                partition: *partition,
            });
        }
        let finished = async {
            while !waiting.is_empty() {
                let Some(ended) = self.ended.1.recv().await else {
                    return;
                };
                let current = self
                    .lanes
                    .get(&ended.partition)
                    .is_some_and(|lane| lane.generation == ended.generation);
                if current {
                    self.lanes.remove(&ended.partition);
                    waiting.retain(|partition| *partition != ended.partition);
                }
            }
        };
        if tokio::time::timeout(limit, finished).await.is_err() {
            tracing::warn!(
                pipeline = self.settings.plan.pipeline,
                ?partitions,
                "lanes did not finish in time, dropped: their records will be read again"
            );
            for partition in partitions {
                self.lanes.remove(partition);
            }
        }
    }

    fn command(&self, command: SourceCommand) {
        // A source that has ended needs no command.
        self.commands.send(command).ok();
    }
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
