//! The supervisor of one pipeline: it claims what the source is assigned, starts and ends lanes, and decides
//! what a lane's end means for the rest.
//!
//! One task on the control runtime. Sources and lanes never talk to each other but through inlets; both talk
//! to the supervisor. It writes nothing to any sink.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};

use super::claiming::Claiming;
use super::conduct::Place;
use super::fences::Fences;
use super::lane::{LaneEnd, Mode};
use super::pulse::{Pulse, Watch};
use super::report::{Ended, Report};
use super::segments::Partition;
use super::shard::Shards;
use super::{PipelineSettings, Surroundings, Waiter};
use crate::anchor::{Anchor, Claim};
use crate::error::{Blame, Error};
use crate::source::{self, SourceCommand, SourceEvent};

/// How long lanes of revoked partitions may take to finish what is in flight.
const REVOKE: Duration = Duration::from_secs(10);
/// How long a stopping pipeline may take to finish what is in flight.
const DRAIN: Duration = Duration::from_secs(20);
/// How long a lane has to behave in quarantine before it may come back: what it costs its neighbours at most once in
/// this time, some 50 ms, stays far below one in a hundred of their records.
const CALM: Duration = Duration::from_secs(60);
/// How often lanes are looked at in the time after which one counts as stalled.
const LOOKS: u32 = 8;

/// A running lane, seen from here.
struct Running {
    generation: u64,
    since: Instant,
    mode: watch::Sender<Mode>,
    /// Dropping it cuts the lane short; `None`: it was, for it stood still.
    cut: Option<oneshot::Sender<()>>,
    watch: Watch,
}

pub(super) struct Supervisor {
    settings: PipelineSettings,
    surroundings: Arc<dyn Surroundings>,
    shards: Shards,
    commands: blocking::Sender<SourceCommand>,
    ended: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
    lanes: HashMap<i32, Running>,
    /// What the source holds.
    assigned: HashMap<i32, Fences>,
    /// Assigned partitions that have to be claimed.
    unclaimed: BTreeSet<i32>,
    /// Partitions whose lanes misbehaved on their own shard.
    quarantined: BTreeSet<i32>,
    generation: u64,
    /// Waits for the brokers of the input.
    brokers: Waiter,
}

impl Supervisor {
    pub(super) fn new(
        settings: PipelineSettings,
        surroundings: Arc<dyn Surroundings>,
        shards: Shards,
        commands: blocking::Sender<SourceCommand>,
    ) -> Self {
        let server = settings.desired.borrow().release.plan.input.server();
        let brokers = settings
            .counters
            .waiter(&settings.pipeline, Some(server), &[]);
        Self {
            settings,
            brokers,
            surroundings,
            shards,
            commands,
            ended: mpsc::unbounded_channel(),
            lanes: HashMap::new(),
            assigned: HashMap::new(),
            unclaimed: BTreeSet::new(),
            quarantined: BTreeSet::new(),
            generation: 0,
        }
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
        let drained = self.drain(&all, DRAIN).await;
        self.command(SourceCommand::Shutdown);
        // The source reports what it still held; its lanes are gone, so it may go on at once.
        while let Some(event) = events.recv().await {
            if let SourceEvent::Revoked { done, .. } = event {
                done.try_send(()).ok();
            }
        }
        self.shards.close(&self.settings.pipeline);
        outcome.and(drained)
    }

    async fn supervise(
        &mut self,
        anchor: &dyn Anchor,
        events: &mut mpsc::UnboundedReceiver<SourceEvent>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let mut looks = tokio::time::interval(self.settings.stall / LOOKS);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (reclaim, mut reclaims) = mpsc::unbounded_channel::<i32>();
        let mut claiming: Option<Claiming<'_>> = None;
        loop {
            if claiming.is_none() && !self.unclaimed.is_empty() {
                let partitions: Vec<i32> = self.unclaimed.iter().copied().collect();
                let plan = Arc::clone(&self.settings.desired.borrow().release.plan);
                let around = Arc::clone(&self.surroundings);
                let waiter = self.waiter(&partitions);
                claiming = Some(Claiming::begin(anchor, around, plan, partitions, waiter));
            }
            let claimed = async {
                match &mut claiming {
                    Some(claiming) => claiming.claims().await,
                    None => std::future::pending().await,
                }
            };
            // Biased: a stop before everything, what happened to lanes and partitions before a claim of them.
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                Some(ended) = self.ended.1.recv() => self.lane_ended(ended, &reclaim)?,
                Some(partition) = reclaims.recv() => {
                    if self.assigned.contains_key(&partition) && !self.lanes.contains_key(&partition) {
                        self.unclaimed.insert(partition);
                    }
                }
                event = events.recv() => match event {
                    None => return Err(Error::bug("run the source", "its thread ended without being asked")),
                    Some(event) => self.source_event(anchor, event).await?,
                },
                claims = claimed => {
                    claiming = None;
                    for claim in claims? {
                        self.unclaimed.remove(&claim.partition);
                        self.start_lane(claim)?;
                    }
                }
                _ = looks.tick() => self.restart_stalled(),
            }
            let outdated = |claiming: &Claiming<'_>| {
                let wanted = |partition| self.unclaimed.contains(partition);
                !claiming.partitions().iter().all(wanted)
            };
            if let Some(given_up) = claiming.take_if(|claiming| outdated(claiming)) {
                let partitions = given_up.give_up();
                let left = |partition: &i32| !self.assigned.contains_key(partition);
                anchor.release(&partitions.into_iter().filter(left).collect::<Vec<_>>());
            }
        }
    }

    /// Cuts lanes short that stand still; what they were at is read again under a new claim, which fences them should
    /// they wake up. One whose shard is blocked cannot end: then it is told, and nothing more can be done from here.
    fn restart_stalled(&mut self) {
        let now = Instant::now();
        for (partition, lane) in &mut self.lanes {
            let still = lane.watch.still(now);
            if still >= self.settings.stall && lane.cut.is_some() {
                tracing::error!(
                    pipeline = &*self.settings.pipeline,
                    partition,
                    seconds = still.as_secs(),
                    "stalled: the lane takes no turn although records wait; restarted"
                );
                // Before it is cut: then it would no longer run.
                self.settings.counters.stalled(*partition);
                lane.cut = None;
            }
        }
    }

    async fn source_event(&mut self, anchor: &dyn Anchor, event: SourceEvent) -> Result<(), Error> {
        let pipeline = &*self.settings.pipeline;
        match event {
            SourceEvent::Assigned(partitions) => {
                tracing::info!(pipeline, ?partitions, "assigned");
                for partition in partitions {
                    self.assigned.insert(partition, Fences::default());
                    self.unclaimed.insert(partition);
                }
                Ok(())
            }
            SourceEvent::Revoked { partitions, done } => {
                tracing::info!(pipeline, ?partitions, "revoked");
                self.forget(&partitions);
                let drained = self.drain(&partitions, REVOKE).await;
                anchor.release(&partitions);
                done.try_send(()).ok();
                drained
            }
            SourceEvent::Lost(partitions) => {
                tracing::warn!(pipeline, ?partitions, "lost");
                self.forget(&partitions);
                for partition in &partitions {
                    // Dropping the handle cuts the lane: nothing more is committed.
                    self.lanes.remove(partition);
                    self.command(SourceCommand::Stop {
                        partition: *partition,
                    });
                }
                anchor.release(&partitions);
                Ok(())
            }
            SourceEvent::Failed { partition, error } if error.blame() == Blame::Outside => {
                if self.brokers.is_waiting() {
                    tracing::debug!(pipeline, ?partition, error = %error, "source");
                } else {
                    tracing::warn!(pipeline, ?partition, error = %error, "source");
                }
                Ok(())
            }
            SourceEvent::Brokers(answer) => {
                match answer {
                    Ok(()) => self.brokers.done(),
                    Err(error) => self.brokers.failed(&error, "the source goes on asking"),
                }
                Ok(())
            }
            SourceEvent::Failed { error, .. } => Err(error),
        }
    }

    /// Of what is done at the anchor.
    fn waiter(&self, partitions: &[i32]) -> Waiter {
        let settings = &self.settings;
        let anchor = settings.desired.borrow().release.plan.anchor.to_string();
        settings
            .counters
            .waiter(&settings.pipeline, Some(anchor), partitions)
    }

    fn forget(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.assigned.remove(partition);
            self.unclaimed.remove(partition);
        }
    }

    fn start_lane(&mut self, claim: Claim) -> Result<(), Error> {
        self.generation += 1;
        let generation = self.generation;
        let partition = claim.partition;
        let place = if self.quarantined.contains(&partition) {
            Place::Quarantine { calm: CALM }
        } else {
            Place::Home
        };
        let (inlet, outlet) = source::channel();
        let (mode, mode_seen) = watch::channel(Mode::Run);
        let (cut, cut_seen) = oneshot::channel::<()>();
        let position = claim.next;
        let pulse = Pulse::default();
        let watch = Watch::new(pulse.clone(), inlet.waiting());
        let work = Partition {
            pipeline: Arc::clone(&self.settings.pipeline),
            claim,
            place,
            surroundings: Arc::clone(&self.surroundings),
            desired: self.settings.desired.clone(),
            mode: mode_seen,
            counters: Arc::clone(&self.settings.counters),
            source: self.commands.clone(),
            segments: self.settings.segments.clone(),
            release: None,
            patience: self.settings.session_timeout,
            pulse,
            waiter: Arc::new(self.waiter(&[partition])),
        };
        let ended = self.ended.0.clone();
        self.shards.run(partition, place, move |local| {
            let report = Report::new(ended, partition, generation);
            async move {
                let end = tokio::select! {
                    biased;
                    _ = cut_seen => LaneEnd::Done,
                    end = work.run(&local, outlet) => end,
                };
                report.say(end);
            }
            .boxed_local()
        })?;
        self.lanes.insert(
            partition,
            Running {
                generation,
                since: Instant::now(),
                mode,
                cut: Some(cut),
                watch,
            },
        );
        self.command(SourceCommand::Start {
            partition,
            position,
            inlet,
        });
        Ok(())
    }

    /// What the end of a lane means for its partition and for the rest.
    fn lane_ended(
        &mut self,
        ended: Ended,
        reclaim: &mpsc::UnboundedSender<i32>,
    ) -> Result<(), Error> {
        let Ended {
            partition,
            generation,
            end,
        } = ended;
        let lane = self.lanes.get(&partition);
        let Some((ran, stalled)) = lane
            .filter(|lane| lane.generation == generation)
            .map(|lane| (lane.since.elapsed(), lane.cut.is_none()))
        else {
            return Ok(());
        };
        self.lanes.remove(&partition);
        self.command(SourceCommand::Stop { partition });
        let assigned = self.assigned.contains_key(&partition);
        let pipeline = &*self.settings.pipeline;
        match end {
            LaneEnd::Done if stalled && assigned => {
                self.unclaimed.insert(partition);
            }
            LaneEnd::Done => {}
            LaneEnd::Stopped(error) => return Err(error),
            LaneEnd::Behind(error) => {
                tracing::warn!(pipeline, partition, error = %error, "read again from the stored position");
                if assigned {
                    self.unclaimed.insert(partition);
                }
            }
            LaneEnd::Misplaced(why) => {
                if self.quarantined.remove(&partition) {
                    tracing::info!(pipeline, partition, why, "back from quarantine");
                } else {
                    tracing::warn!(
                        pipeline,
                        partition,
                        why,
                        "quarantined, its neighbours go on without it"
                    );
                    self.quarantined.insert(partition);
                }
                if assigned {
                    self.unclaimed.insert(partition);
                }
            }
            LaneEnd::Fenced(error) => {
                tracing::warn!(
                    pipeline, partition, error = %error,
                    "fenced, everything of this lane is dropped"
                );
                if assigned {
                    self.reclaim_later(partition, ran, reclaim.clone());
                }
            }
        }
        Ok(())
    }

    /// A fenced lane of an assigned partition waits before it is claimed again.
    fn reclaim_later(
        &mut self,
        partition: i32,
        ran: Duration,
        reclaim: mpsc::UnboundedSender<i32>,
    ) {
        let Some(fences) = self.assigned.get_mut(&partition) else {
            return;
        };
        let pause = fences.another(ran, self.settings.session_timeout);
        let commands = self.commands.clone();
        self.shards
            .run(partition, Place::Home, move |_| {
                pause.then_ask(partition, commands, reclaim).boxed_local()
            })
            .ok();
    }

    /// Lets lanes finish what is in flight; those that do not within `limit` are cut short.
    ///
    /// # Errors
    /// Why one of them stopped instead.
    async fn drain(&mut self, partitions: &[i32], limit: Duration) -> Result<(), Error> {
        let mut waiting: HashMap<i32, u64> = HashMap::new();
        for partition in partitions {
            if let Some(lane) = self.lanes.get(partition) {
                lane.mode.send_replace(Mode::Drain);
                waiting.insert(*partition, lane.generation);
            }
            self.command(SourceCommand::Stop {
                partition: *partition,
            });
        }
        let mut stopped = Ok(());
        let mut others = Vec::new();
        let finished = async {
            while !waiting.is_empty() {
                let Some(ended) = self.ended.1.recv().await else {
                    return;
                };
                if waiting.get(&ended.partition) != Some(&ended.generation) {
                    others.push(ended);
                    continue;
                }
                waiting.remove(&ended.partition);
                if let LaneEnd::Stopped(error) = ended.end {
                    stopped = Err(error);
                }
            }
        };
        if tokio::time::timeout(limit, finished).await.is_err() {
            tracing::warn!(
                pipeline = %self.settings.pipeline,
                ?partitions,
                "lanes did not finish in time, dropped: their records will be read again"
            );
        }
        for partition in partitions {
            self.lanes.remove(partition);
        }
        // Lanes that go on elsewhere are not this drain's: their ends are heard by the loop.
        for ended in others {
            self.ended.0.send(ended).ok();
        }
        stopped
    }

    fn command(&self, command: SourceCommand) {
        // A source that has ended needs no command.
        self.commands.send(command).ok();
    }
}
