//! A pipeline's world made of fakes: plans, batches, one lane under test, and what has to hold in the end.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::fakes::{FakeAnchor, FakeSink, Shared};
use super::group::{Group, judge};
use super::guest::{Act, FakePlugin};
use crate::anchor::{Anchor as _, Cut, Ledger, Stored};
use crate::decode::Decoder;
use crate::manifest::{
    CassandraTable, Create, DataPolicy, ErrorPolicy, Field, FieldSource, Format, Input, KafkaTopic,
    KeyFormat, Limits, Mode as TableMode, PostgresTable, Route, Start, Target, Tombstones,
    ValueFormat,
};
use crate::pipeline::Waiter;
use crate::pipeline::conduct::{Conduct, Place};
use crate::pipeline::counters::{Counters, Totals};
use crate::pipeline::deaths::Deaths;
use crate::pipeline::lane::{Connections, Cutover, Lane, LaneContext, LaneEnd, LaneOutcome, Mode};
use crate::pipeline::ownership::Ownership;
use crate::pipeline::plan::{AnchorPlan, Binding, Guarantee, InputPlan, Plan, RoutePlan};
use crate::pipeline::process::Processor;
use crate::pipeline::release::{Desired, Release};
use crate::record::{Batch, Column, Record, Type};
use crate::source::{self, Inlet, Outlet, SourceCommand};

/// Which sinks the plugin writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sinks {
    Here,
    Ahead,
    Both,
}

pub(super) fn input() -> Input {
    Input {
        name: "in".to_owned(),
        topic: "t".to_owned(),
        format: Format::Bytes,
        key_format: KeyFormat::Bytes,
        start: Start::Earliest,
        tombstones: Tombstones::DeadLetter,
        fields: vec![Field {
            column: column("offset"),
            from: FieldSource::Offset,
            unit: None,
        }],
        raw: false,
        headers: false,
    }
}

pub(super) fn column(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        ty: Type::Int64,
        nullable: false,
    }
}

pub(super) fn append_route() -> Route {
    Route {
        name: "rows".to_owned(),
        columns: vec![column("offset")],
        target: Target::Postgres(PostgresTable {
            table: "rows".to_owned(),
            mode: TableMode::Append,
            key: Vec::new(),
            guard: None,
            deleted_at: None,
            create: Create::Never,
        }),
    }
}

pub(super) fn keyed_route() -> Route {
    Route {
        name: "keyed".to_owned(),
        columns: vec![column("key"), column("offset")],
        target: Target::Cassandra(CassandraTable {
            table: "keyed".to_owned(),
            partition_key: vec![0],
            clustering_key: Vec::new(),
            ttl: None,
            consistency: "quorum".to_owned(),
            create: Create::Never,
            cross_partition_keys: true,
        }),
    }
}

pub(super) fn topic_route() -> Route {
    Route {
        name: "alerts".to_owned(),
        columns: vec![column("key"), column("offset")],
        target: Target::Kafka(KafkaTopic {
            topic: "alerts".to_owned(),
            key: vec![0],
            key_format: KeyFormat::Text,
            value: ValueFormat::Json,
            headers: Vec::new(),
            create: Create::Never,
            partitions: None,
            replication: None,
        }),
    }
}

pub(super) fn plan(sinks: Sinks) -> Plan {
    let route = |route, binding| RoutePlan {
        route,
        binding,
        guarantee: Guarantee::Nothing,
        why: "",
    };
    let signed = |mut route: Route| {
        route.columns.push(column("release"));
        route
    };
    let here = route(signed(append_route()), Binding::Here);
    let ahead = route(signed(keyed_route()), Binding::Ahead("c".to_owned()));
    Plan {
        pipeline: "p".to_owned(),
        plugin: "f@1.0.0".to_owned(),
        digest: "d".to_owned(),
        input: InputPlan {
            input: input(),
            kafka: "k".to_owned(),
            topic: "t".to_owned(),
            group: "wasmill.p".to_owned(),
        },
        anchor: AnchorPlan::Memory,
        routes: match sinks {
            Sinks::Here => vec![here],
            Sinks::Ahead => vec![ahead],
            Sinks::Both => vec![here, ahead],
        },
        limits: Limits::default(),
        asks: None,
    }
}

/// Record time of an offset, milliseconds: now and then backwards.
pub(super) fn millis(offset: i64) -> i64 {
    1_700_000_000_000 + offset * 3 - if offset % 7 == 0 { 50 } else { 0 }
}

/// The records `offsets` of a log in which every offset is present.
pub(super) fn batch(partition: i32, offsets: Range<i64>) -> Batch {
    let mut batch = Batch::new(partition, offsets.start);
    for offset in offsets {
        batch.push(Record {
            key: None,
            value: Some(b"v"),
            timestamp: millis(offset),
            offset,
            headers: b"",
            marks: 0,
        });
    }
    batch
}

/// The release every test runs unless it says otherwise.
pub(super) const RELEASE: &str = "r1";

/// A lane that no other release takes over from.
pub(super) struct OneLane(Lane);

impl OneLane {
    pub(super) async fn run(self, mut outlet: Outlet) -> LaneEnd {
        match self.0.run(&mut outlet).await {
            LaneOutcome::Ended(end) => end,
            LaneOutcome::Cut(cut) => panic!("{cut:?}"),
        }
    }
}

pub(super) struct World {
    pub(super) plan: Arc<Plan>,
    pub(super) anchor: FakeAnchor,
    pub(super) store: Shared,
    pub(super) plugin: FakePlugin,
    pub(super) counters: Arc<Counters>,
    pub(super) errors: ErrorPolicy,
    pub(super) mode: watch::Sender<Mode>,
    /// Where the next lane runs.
    pub(super) place: Cell<Place>,
    /// After which a lane without a turn is restarted.
    pub(super) stall: Duration,
    /// What outlives the host of a lane.
    pub(super) deaths: Deaths,
    /// What is wanted, where that is more than the release under test; lanes run what partition 0 should.
    pub(super) wanted: Option<Desired>,
    /// Releases that the host can load though nobody wants them any more.
    pub(super) known: RefCell<Vec<Arc<Release>>>,
    commands: blocking::Sender<SourceCommand>,
    /// Hears what the lanes advise.
    group: Group,
}

impl World {
    pub(super) fn new(sinks: Sinks, acts: impl Fn(i64) -> Act + Send + Sync + 'static) -> Self {
        let store = Shared::default();
        let plan = plan(sinks);
        let (commands, commanded) = blocking::channel();
        Self {
            anchor: FakeAnchor {
                store: Arc::clone(&store),
                ..FakeAnchor::default()
            },
            plugin: FakePlugin {
                acts: Arc::new(acts),
                routes: plan.routes.iter().map(|route| route.merges()).collect(),
                release: 1,
                init: None,
                made: Arc::new(Mutex::new((0, 0))),
            },
            counters: Arc::new(Counters::new()),
            plan: Arc::new(plan),
            store,
            errors: ErrorPolicy {
                data: DataPolicy::DeadLetter,
                max_rate: None,
            },
            mode: watch::channel(Mode::Run).0,
            place: Cell::new(Place::Home),
            stall: Duration::from_secs(60),
            deaths: Deaths::default(),
            wanted: None,
            known: RefCell::default(),
            commands,
            group: Group::new(commanded),
        }
    }

    pub(super) async fn seed(&self, partition: i32, next: i64) {
        let stored = Stored {
            partition,
            next,
            cuts: vec![Cut::new(next, RELEASE.to_owned())],
            topic_id: None,
        };
        self.anchor.seed(&[stored]).await.unwrap();
    }

    /// The release under test.
    pub(super) fn release(&self) -> Arc<Release> {
        self.release_of(RELEASE, self.plugin.clone())
    }

    pub(super) fn release_of(&self, id: &str, plugin: FakePlugin) -> Arc<Release> {
        let release = Release::new(id, Arc::clone(&self.plan), self.errors, Arc::new(plugin));
        Arc::new(release.unwrap())
    }

    pub(super) fn processor(&self) -> Processor {
        let release = self.release();
        let decoder = Decoder::new(&self.plan.input.input).unwrap();
        let plugin = Arc::clone(&release.plugin);
        let conduct = Rc::new(Conduct::new(self.place.get()));
        let (topic, routes) = (Arc::from("t"), Arc::clone(&release.routes));
        Processor::new(topic, decoder, routes, plugin, conduct)
    }

    /// Of partition 0, whose anchor is `postgres.main`.
    fn waiter(&self) -> Waiter {
        let anchor = Some("postgres.main".to_owned());
        self.counters.waiter(&"p".into(), anchor, &[0])
    }

    /// Claims partition 0 and makes its lane.
    pub(super) async fn lane(&self) -> (OneLane, Inlet, Outlet, i64) {
        let said = self.group.ask();
        let claim = self.anchor.claim(&[0]).await.unwrap().remove(0);
        judge(said, &claim, &self.anchor);
        let next = claim.next;
        let mark = self.deaths.of("p", &claim);
        let shadow = self.deaths.of_shadow("p", &claim);
        let sinks = self.plan.routes.iter().map(|route| {
            matches!(route.binding, Binding::Ahead(_)).then(|| {
                let store = Arc::clone(&self.store);
                Box::new(FakeSink { store }) as Box<dyn crate::sink::AheadSink>
            })
        });
        let connections = Connections {
            anchor: Rc::new(self.anchor.clone()),
            ahead: sinks.collect(),
        };
        let wanted = self.wanted.clone();
        let wanted = wanted.unwrap_or_else(|| Desired::only(self.release()));
        let context = LaneContext {
            release: Arc::clone(wanted.of(0).unwrap()),
            counters: Arc::clone(&self.counters),
            source: self.commands.clone(),
        };
        let (_, desired) = watch::channel(wanted);
        let takes = Cutover {
            owned: Ownership::new(
                Rc::new(connections),
                claim,
                self.mode.subscribe(),
                Arc::new(self.waiter()),
            ),
            at: next,
            carried: None,
        };
        let (inlet, outlet) = source::channel();
        let conduct = Rc::new(Conduct::new(self.place.get()).marked(mark, shadow));
        let mode = self.mode.subscribe();
        let lane = Lane::new(Arc::new(context), takes, desired, mode, &conduct);
        (OneLane(lane.unwrap()), inlet, outlet, next)
    }

    /// One lane over batches that end at `cuts`, from where the anchor stands; it ends with its input.
    pub(super) async fn run(&self, cuts: &[i64]) -> LaneEnd {
        let (lane, inlet, outlet, next) = self.lane().await;
        let from = Cell::new(next);
        let feed = async move {
            for cut in cuts.iter().filter(|cut| **cut > next) {
                if inlet.send(batch(0, from.get()..*cut)).is_err() {
                    return;
                }
                from.set(*cut);
                for _ in 0..cut % 5 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let bounded = tokio::time::timeout(Duration::from_secs(50), lane.run(outlet));
        futures_util::future::join(feed, bounded)
            .await
            .1
            .expect("the lane does not end")
    }

    pub(super) fn totals(&self) -> Totals {
        self.counters.totals()
    }

    /// Where partition 0 stands.
    pub(super) async fn position(&self) -> i64 {
        self.anchor.stored().await.unwrap()[0].next
    }

    /// What must hold of records [0, end): every one at exactly one place, in order, and the keyed table the
    /// fold of what was emitted. Returns what does not.
    pub(super) fn check(&self, end: i64) -> Vec<String> {
        let mut store = self.store.lock();
        store.late_writes_arrive();
        let mut wrong = store.violations.clone();
        let totals = self.counters.totals();
        if totals.received != totals.emitted + totals.filtered + totals.dead {
            wrong.push(format!("counters do not balance: {totals:?}"));
        }
        let mut chain = 0;
        for (from, to) in &store.ranges {
            if *from != chain || to <= from {
                wrong.push(format!("range [{from}, {to}) after {chain}"));
            }
            chain = *to;
        }
        let appends = self.plan.routes[0].binding == Binding::Here;
        if appends && store.here.windows(2).any(|pair| pair[0] >= pair[1]) {
            wrong.push(format!("rows out of order or doubled: {:?}", store.here));
        }
        let mut keyed = std::collections::BTreeMap::new();
        for offset in 0..end {
            let dead = store.dead.iter().filter(|dead| dead.0 == offset).count();
            let rows = store.here.iter().filter(|row| **row == offset).count();
            let act = (self.plugin.acts)(offset);
            let expected = match act {
                Act::Row => dead + rows == 1 || (!appends && dead == 0),
                Act::Filter | Act::Slow => dead + rows == 0,
                _ => dead == 1 && rows == 0,
            };
            if !expected {
                wrong.push(format!(
                    "{offset} ({act:?}): {rows} rows, {dead} dead letters"
                ));
            }
            if act == Act::Row && dead == 0 {
                keyed.insert(offset % 5, offset);
            }
            let refused = (offset, "postgres-refused".to_owned());
            if store.stamps.contains_key(&offset) && store.dead.contains(&refused) {
                wrong.push(format!("{offset} was sent ahead and is a dead letter"));
            }
        }
        let dead = (0..end).filter(|at| store.dead.iter().any(|dead| dead.0 == *at));
        let filtered = |at: &i64| matches!((self.plugin.acts)(*at), Act::Filter | Act::Slow);
        let filtered = (0..end).filter(filtered).count() as u64;
        let (all, dead) = (end.unsigned_abs(), dead.count() as u64);
        let expected = Ledger::default().settle(all, all - dead - filtered, dead);
        let ledger = self.anchor.inner.read(0).ledger;
        if Ok(ledger) != expected {
            wrong.push(format!("the ledger is {ledger:?}, it was {expected:?}"));
        }
        if self.plan.writes_ahead() {
            wrong.extend(store.wrong_ahead(&keyed));
        }
        wrong
    }
}

/// Runs a test's future as a shard would.
pub(super) fn on_a_shard<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    tokio::task::LocalSet::new().block_on(&runtime.unwrap(), test)
}
