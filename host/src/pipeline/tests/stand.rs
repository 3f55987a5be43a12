//! One partition from claim to claim under several releases: what the tests of swaps share, and what has to hold
//! of every one of them. A [`Stand`] outlives the hosts that process its partition; [`Stand::host`] is one of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::fakes::{FakeAnchor, Shared};
use super::group::{Group, judge};
use super::guest::{Act, FakePlugin};
use super::scene::Scene;
use super::world::{Sinks, millis, plan};
use crate::anchor::{Anchor as _, Claim, Cut, Ledger, Pin, Stored};
use crate::manifest::{DataPolicy, ErrorPolicy};
use crate::pipeline::conduct::Place;
use crate::pipeline::counters::Counters;
use crate::pipeline::lane::{LaneEnd, Mode};
use crate::pipeline::pulse::Pulse;
use crate::pipeline::segments::Partition;
use crate::pipeline::shard::Local;
use crate::pipeline::{Desired, Release, SegmentStart, Surroundings, Trial};
use crate::record::{Batch, Record};
use crate::source::{self, Inlet, SourceCommand};

/// How long a lane of a stand waits for a release that its host does not know.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);

pub(super) type Acts = Arc<dyn Fn(i64) -> Act + Send + Sync>;

/// A canary on partitions.
pub(super) fn on_trial(release: Arc<Release>, partitions: &[i32]) -> Option<Trial> {
    Some(Trial {
        release: Some(release),
        partitions: partitions.iter().copied().collect(),
    })
}

/// The id of a release.
pub(super) fn id(release: i64) -> String {
    format!("r{release}")
}

/// A release with a number that its rows carry.
pub(super) fn release(number: i64, sinks: Sinks, acts: &Acts) -> Arc<Release> {
    let mut plan = plan(sinks);
    plan.digest = number.to_string();
    let plugin = FakePlugin {
        acts: Arc::clone(acts),
        routes: plan.routes.iter().map(|route| route.merges()).collect(),
        release: number,
        init: None,
        made: Arc::default(),
    };
    let errors = ErrorPolicy {
        data: DataPolicy::DeadLetter,
        max_rate: None,
    };
    let release = Release::new(&id(number), Arc::new(plan), errors, Arc::new(plugin));
    Arc::new(release.unwrap())
}

/// A host that has claimed the partition.
pub(super) struct Host<'a> {
    pub(super) run: LocalBoxFuture<'a, LaneEnd>,
    pub(super) inlet: Inlet,
    pub(super) mode: watch::Sender<Mode>,
    pub(super) claim: Claim,
}

pub(super) struct Stand {
    pub(super) sinks: Sinks,
    pub(super) acts: Acts,
    pub(super) scene: Arc<Scene>,
    pub(super) store: Shared,
    pub(super) counters: Arc<Counters>,
    pub(super) desired: watch::Sender<Desired>,
    /// Where the next host's lanes run.
    pub(super) place: Cell<Place>,
    /// Upgrades in the order they were asked for, the first included.
    pub(super) asked: RefCell<Vec<i64>>,
    begun: (
        mpsc::UnboundedSender<SegmentStart>,
        RefCell<mpsc::UnboundedReceiver<SegmentStart>>,
    ),
    /// What the hosts said about who begins where.
    pub(super) events: RefCell<Vec<(i64, String)>>,
    /// One shard for all of them: connections outlive lanes.
    local: Rc<Local>,
    commands: blocking::Sender<SourceCommand>,
    /// Hears what the lanes advise.
    group: Group,
}

impl Stand {
    /// A partition at 0 whose first release is 1.
    pub(super) async fn new(
        sinks: Sinks,
        acts: impl Fn(i64) -> Act + Send + Sync + 'static,
    ) -> Self {
        let store = Shared::default();
        let acts: Acts = Arc::new(acts);
        let anchor = FakeAnchor {
            store: Arc::clone(&store),
            lazy: sinks == Sinks::Ahead,
            ..FakeAnchor::default()
        };
        for partition in 0..2 {
            let stored = Stored {
                partition,
                next: 0,
                cuts: vec![Cut::new(0, id(1))],
                topic_id: None,
            };
            anchor.seed(&[stored]).await.unwrap();
        }
        let first = release(1, sinks, &acts);
        let (commands, commanded) = blocking::channel();
        let (begun, begins) = mpsc::unbounded_channel();
        Self {
            scene: Arc::new(Scene {
                anchor,
                known: Mutex::new([(id(1), Arc::clone(&first))].into()),
                loaded: Mutex::default(),
                away: Mutex::default(),
                wrong: Mutex::default(),
                behind: Mutex::default(),
                opened: Mutex::default(),
            }),
            sinks,
            acts,
            store,
            counters: Arc::new(Counters::new()),
            desired: watch::channel(Desired::only(first)).0,
            place: Cell::new(Place::Home),
            asked: RefCell::new(vec![1]),
            begun: (begun, RefCell::new(begins)),
            events: RefCell::default(),
            local: Rc::default(),
            commands,
            group: Group::new(commanded),
        }
    }

    /// Makes a release without asking for it.
    pub(super) fn make(&self, number: i64) -> Arc<Release> {
        let mut known = self.scene.known.lock();
        let made = known
            .entry(id(number))
            .or_insert_with(|| release(number, self.sinks, &self.acts));
        Arc::clone(made)
    }

    /// Asks for a release everywhere.
    pub(super) fn ask(&self, number: i64) {
        self.asked.borrow_mut().push(number);
        self.desired.send_replace(Desired::only(self.make(number)));
    }

    /// Claims the partition; the lanes begin when the future is polled.
    pub(super) async fn host_of(&self, partition: i32) -> Host<'static> {
        let said = self.group.ask();
        let claim = self.scene.anchor.claim(&[partition]).await.unwrap();
        let claim = claim.into_iter().next().unwrap();
        judge(said, &claim, &self.scene.anchor);
        let surroundings = Arc::clone(&self.scene) as Arc<dyn Surroundings>;
        let shared = Rc::clone(&self.local);
        self.host_with(claim, surroundings, shared, self.commands.clone())
    }

    /// A host with a claim, over the connections of `shared`; its source listens to `source`.
    pub(super) fn host_with(
        &self,
        claim: Claim,
        surroundings: Arc<dyn Surroundings>,
        shared: Rc<Local>,
        source: blocking::Sender<SourceCommand>,
    ) -> Host<'static> {
        let (inlet, outlet) = source::channel();
        let mode = watch::channel(Mode::Run).0;
        let partition = Partition {
            pipeline: "p".into(),
            claim: claim.clone(),
            place: self.place.get(),
            surroundings,
            desired: self.desired.subscribe(),
            mode: mode.subscribe(),
            counters: Arc::clone(&self.counters),
            source,
            segments: self.begun.0.clone(),
            release: None,
            patience: PATIENCE,
            pulse: Pulse::default(),
            waiter: Arc::new(self.counters.waiter(
                &"p".into(),
                Some("postgres.main".to_owned()),
                &[claim.partition],
            )),
        };
        Host {
            run: async move { partition.run(&shared, outlet).await }.boxed_local(),
            inlet,
            mode,
            claim,
        }
    }

    pub(super) async fn host(&self) -> Host<'static> {
        self.host_of(0).await
    }

    /// Claims as a host that died at once, leaving a reservation: an earlier owner may have sent up to it.
    pub(super) async fn leave_reserved(&self, reserved: i64) {
        let claim = self.scene.anchor.claim(&[0]).await.unwrap().remove(0);
        let cuts = &claim.cuts;
        let pin = Pin { reserved, cuts };
        self.scene
            .anchor
            .pin(&claim, claim.next, pin)
            .await
            .unwrap();
    }

    pub(super) fn position(&self) -> i64 {
        self.scene.anchor.inner.read(0).next
    }

    /// Where partition 0 is cut, as the anchor has it.
    pub(super) fn cuts(&self) -> Vec<(i64, String)> {
        let cuts = self.scene.anchor.inner.read(0).cuts;
        cuts.into_iter().map(|cut| (cut.at, cut.release)).collect()
    }

    /// Committed ranges by release, those of one release that follow each other joined.
    pub(super) fn wrote(&self) -> Vec<(i64, i64, i64)> {
        let mut joined: Vec<(i64, i64, i64)> = Vec::new();
        for (from, to, by) in &self.store.lock().committed {
            match joined.last_mut() {
                Some(last) if last.2 == *by && last.1 == *from => last.1 = *to,
                _ => joined.push((*from, *to, *by)),
            }
        }
        joined
    }

    /// What the hosts said so far.
    pub(super) fn begins(&self) -> Vec<(i64, String)> {
        let mut events = self.events.borrow_mut();
        while let Ok(start) = self.begun.1.borrow_mut().try_recv() {
            if start.partition == 0 {
                events.push((start.at, start.release.to_string()));
            }
        }
        events.clone()
    }

    /// Whether the newest thing the hosts said is that a release begins.
    pub(super) fn began(&self, release: i64) -> bool {
        let begins = self.begins();
        begins.last().is_some_and(|last| last.1 == id(release))
    }

    /// What must hold once the records `log` (offsets, ascending) are through: each at exactly one place, each by
    /// one release only, releases in the order they were asked for, and the history true. Returns what does not.
    pub(super) fn check(&self, log: &[i64]) -> Vec<String> {
        let events = self.begins();
        let mut store = self.store.lock();
        store.late_writes_arrive();
        let mut wrong = store.violations.clone();
        wrong.truncate(3);
        let mut chain = 0;
        for (from, to) in &store.ranges {
            if *from != chain || to <= from {
                wrong.push(format!("range [{from}, {to}) after {chain}"));
            }
            chain = *to;
        }
        let appends = self.sinks != Sinks::Ahead;
        if store.here.windows(2).any(|pair| pair[0] >= pair[1]) {
            wrong.push(format!("rows out of order or doubled: {:?}", store.here));
        }
        let mut keyed = BTreeMap::new();
        let mut order: Vec<i64> = Vec::new();
        for offset in log {
            let dead = store.dead.iter().filter(|dead| dead.0 == *offset).count();
            let rows = store.here.iter().filter(|row| *row == offset).count();
            let act = (self.acts)(*offset);
            let expected = match act {
                Act::Row => dead + rows == 1 || (!appends && dead == 0),
                Act::Filter => dead + rows == 0,
                _ => dead == 1 && rows == 0,
            };
            if !expected {
                wrong.push(format!(
                    "{offset} ({act:?}): {rows} rows, {dead} dead letters"
                ));
            }
            if act == Act::Row && dead == 0 {
                keyed.insert(offset % 5, *offset);
            }
            let within = |range: &&(i64, i64, i64)| (range.0..range.1).contains(offset);
            let Some((.., by)) = store.committed.iter().find(within) else {
                wrong.push(format!("{offset} was never committed"));
                continue;
            };
            if let Some(wrote) = store
                .wrote
                .get(offset)
                .filter(|wrote| wrote.iter().any(|at| at != by))
            {
                wrong.push(format!(
                    "{offset} was written by {wrote:?}, committed by {by}"
                ));
            }
            let told = events.iter().rev().filter(|(at, _)| at <= offset);
            // The history is kept by offset: what was said last of one offset counts.
            let told = told.max_by_key(|(at, _)| *at);
            let first_said = told.map(|(at, _)| {
                let same = events.iter().rev().find(|event| event.0 == *at);
                same.map(|event| event.1.clone()).unwrap()
            });
            if first_said != Some(id(*by)) {
                wrong.push(format!(
                    "{offset} was committed by {by}, the history says {first_said:?}: {events:?}"
                ));
            }
            if order.last() != Some(by) {
                order.push(*by);
            }
        }
        let asked = self.asked.borrow();
        let mut later = asked.iter();
        if !order.iter().all(|by| later.any(|asked| asked == by)) {
            wrong.push(format!("processed by {order:?}, asked for {asked:?}"));
        }
        if self.sinks != Sinks::Here {
            wrong.extend(store.wrong_ahead(&keyed));
        }
        let count =
            |of: &dyn Fn(&i64) -> bool| log.iter().filter(|offset| of(offset)).count() as u64;
        let dead = count(&|offset| store.dead.iter().any(|dead| dead.0 == *offset));
        let filtered = count(&|offset| (self.acts)(*offset) == Act::Filter);
        let expected = Ledger::default()
            .settle(log.len() as u64, log.len() as u64 - dead - filtered, dead)
            .unwrap();
        let ledger = self.scene.anchor.inner.read(0).ledger;
        if ledger != expected {
            wrong.push(format!("the ledger is {ledger:?}, it was {expected:?}"));
        }
        let totals = self.counters.totals();
        if totals.received != totals.emitted + totals.filtered + totals.dead {
            wrong.push(format!("counters do not balance: {totals:?}"));
        }
        wrong.truncate(8);
        wrong
    }
}

/// The records of `log` in `[from, to)` as the batch that starts at `from`.
pub(super) fn batch_of(log: &[i64], from: i64, to: i64) -> Batch {
    let mut batch = Batch::new(0, from);
    for offset in log.iter().filter(|offset| (from..to).contains(*offset)) {
        batch.push(Record {
            key: None,
            value: Some(b"v"),
            timestamp: millis(*offset),
            offset: *offset,
            headers: b"",
            marks: 0,
        });
    }
    batch
}

/// Polls `run` beside `script` until the script is through; what the run ended with, if it did. The script goes on
/// when the run ends first.
pub(super) async fn beside<T>(
    run: &mut LocalBoxFuture<'static, LaneEnd>,
    script: impl Future<Output = T>,
) -> (Option<LaneEnd>, T) {
    tokio::pin!(script);
    tokio::select! {
        biased;
        end = &mut *run => (Some(end), script.await),
        through = &mut script => (None, through),
    }
}

/// Waits until something holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let limit = Duration::from_secs(5);
    let came = tokio::time::timeout(limit, waiting).await;
    assert!(came.is_ok(), "it never happened: {what}");
}
