//! Killed at every await: the whole life of a host with one partition (claim, lanes, an upgrade, drain) is dropped at
//! its k-th turn, for every k, and others finish what it left. Between two turns of a lane nothing leaves it, so this
//! is a crash at every step of the delivery protocol. Each step has a name, and the test counts in which of them hosts
//! died: one that nobody died in fails it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;

use super::fakes::{Broken, Fault};
use super::guest::Act;
use super::stand::{Host, Scene, Stand, batch_of, beside, id};
use super::world::{Sinks, on_a_shard};
use crate::anchor::{Ahead, Anchor, Claim, CommitError, Flight, Pin, Stored};
use crate::error::Error;
use crate::pipeline::lane::{LaneEnd, Mode};
use crate::pipeline::{Desired, Plan, Release, Surroundings};
use crate::plugin::{GuestBatch, Instance, Output, Plugin, RunFailure};
use crate::sink::{AheadRows, AheadSink};
use crate::source::{Source, SourceCommand, TopicInfo};

/// The records: gaps, and two places so far apart that a grant has to be raised on its own.
const LOG: [i64; 18] = [
    0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 5000, 5001, 5002, 5003, 5004, 15_000, 15_001, 15_002,
];
/// Where batches end.
const ENDS: [i64; 8] = [3, 6, 10, 12, 5001, 5003, 15_001, 15_003];
/// From this batch on another release is asked for.
const SWAP: i64 = 5003;
const END: i64 = 15_003;

fn acts(offset: i64) -> Act {
    match offset {
        1 | 5002 => Act::Filter,
        2 | 15_001 => Act::Reject,
        5 => Act::Trap,
        _ => Act::Row,
    }
}

/// The step a host is in.
#[derive(Clone, Debug, Default)]
struct Steps(Arc<Mutex<&'static str>>);

impl Steps {
    fn reach(&self, step: &'static str) {
        *self.0.lock() = step;
    }

    /// Reaches a step and lets a turn end there.
    async fn at(&self, step: &'static str) {
        self.reach(step);
        tokio::task::yield_now().await;
    }
}

/// What is around a host, with names for what it is about to do.
#[derive(Debug)]
struct Watched<T> {
    inner: T,
    steps: Steps,
}

impl<T> Watched<T> {
    fn new(inner: T, steps: &Steps) -> Self {
        let steps = steps.clone();
        Self { inner, steps }
    }
}

impl Anchor for Watched<Rc<dyn Anchor>> {
    fn stored(&self) -> LocalBoxFuture<'_, Result<Vec<Stored>, Error>> {
        self.inner.stored()
    }

    fn seed<'a>(&'a self, positions: &'a [Stored]) -> LocalBoxFuture<'a, Result<(), Error>> {
        self.inner.seed(positions)
    }

    fn claim<'a>(&'a self, partitions: &'a [i32]) -> LocalBoxFuture<'a, Result<Vec<Claim>, Error>> {
        async move {
            self.steps.at("claim").await;
            let claims = self.inner.claim(partitions).await;
            self.steps.at("claimed, reply lost").await;
            claims
        }
        .boxed_local()
    }

    fn commit<'a>(
        &'a self,
        flight: Flight<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        async move {
            self.steps.at("begin").await;
            let ahead = async {
                self.steps.at("advance, rows and dead letters").await;
                ahead.await?;
                self.steps.at("commit").await;
                Ok(())
            };
            let outcome = self.inner.commit(flight, ahead.boxed_local()).await;
            self.steps.at("committed, reply lost").await;
            outcome
        }
        .boxed_local()
    }

    fn pin<'a>(
        &'a self,
        claim: &'a Claim,
        next: i64,
        pin: Pin<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        let (what, stored) = if pin.cuts != claim.cuts {
            ("cut", "cut, reply lost")
        } else if pin.reserved > next {
            ("reserve", "reserved, reply lost")
        } else {
            ("lower", "lowered, reply lost")
        };
        async move {
            self.steps.at(what).await;
            let outcome = self.inner.pin(claim, next, pin).await;
            self.steps.at(stored).await;
            outcome
        }
        .boxed_local()
    }

    fn settle<'a>(&'a self, claim: &'a Claim) -> LocalBoxFuture<'a, Result<(), CommitError>> {
        async move {
            self.steps.at("settle").await;
            let outcome = self.inner.settle(claim).await;
            self.steps.at("settled, reply lost").await;
            outcome
        }
        .boxed_local()
    }
}

impl AheadSink for Watched<Box<dyn AheadSink>> {
    fn write<'a>(&'a self, rows: AheadRows<'a>) -> LocalBoxFuture<'a, Result<(), Error>> {
        async move {
            self.steps.at("send ahead").await;
            let written = self.inner.write(rows).await;
            self.steps.at("sent ahead, reply lost").await;
            written
        }
        .boxed_local()
    }
}

impl Plugin for Watched<Arc<dyn Plugin>> {
    fn instantiate(
        &self,
        factor: u32,
    ) -> LocalBoxFuture<'_, Result<Box<dyn Instance>, RunFailure>> {
        async move {
            let inner = self.inner.instantiate(factor).await?;
            Ok(Box::new(Watched::new(inner, &self.steps)) as Box<dyn Instance>)
        }
        .boxed_local()
    }
}

impl Instance for Watched<Box<dyn Instance>> {
    fn run<'a>(
        &'a mut self,
        input: GuestBatch<'a>,
    ) -> LocalBoxFuture<'a, Result<Output, RunFailure>> {
        async move {
            self.steps.at("decode").await;
            let output = self.inner.run(input).await;
            self.steps.at("guest").await;
            // The check follows in the same turn.
            self.steps.reach("check");
            output
        }
        .boxed_local()
    }

    fn outgrown(&self) -> bool {
        self.inner.outgrown()
    }
}

impl Surroundings for Watched<Arc<Scene>> {
    fn anchor<'a>(&'a self, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Rc<dyn Anchor>, Error>> {
        async move {
            let inner = self.inner.anchor(plan).await?;
            self.steps.at("connect").await;
            Ok(Rc::new(Watched::new(inner, &self.steps)) as Rc<dyn Anchor>)
        }
        .boxed_local()
    }

    fn ahead<'a>(
        &'a self,
        plan: &'a Plan,
        route: usize,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AheadSink>, Error>> {
        async move {
            let inner = self.inner.ahead(plan, route).await?;
            Ok(Box::new(Watched::new(inner, &self.steps)) as Box<dyn AheadSink>)
        }
        .boxed_local()
    }

    fn source(&self, topic_id: Option<String>) -> Result<Box<dyn Source>, Error> {
        self.inner.source(topic_id)
    }

    fn topic(&self) -> Result<TopicInfo, Error> {
        self.inner.topic()
    }

    fn committed(&self) -> Result<BTreeMap<i32, i64>, Error> {
        self.inner.committed()
    }

    fn release<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<Arc<Release>, Error>> {
        self.inner.release(id)
    }
}

/// What goes wrong beside the kill.
#[derive(Clone, Debug)]
struct Script {
    sinks: Sinks,
    /// One fault after so many flights, and after so many pins.
    flights: (usize, Fault),
    pins: (usize, Fault),
    broken: Broken,
}

impl Script {
    fn all(broken: Broken) -> Vec<Self> {
        let faults = [
            Fault::None,
            Fault::RolledBackLate,
            Fault::UnknownDone,
            Fault::UnknownNot,
            Fault::UnknownLate,
            Fault::UnknownLate,
        ];
        let mut all = Vec::new();
        for sinks in [Sinks::Here, Sinks::Both, Sinks::Ahead] {
            for (n, fault) in faults.into_iter().enumerate() {
                all.push(Self {
                    sinks,
                    flights: (n, fault),
                    pins: (n % 2, faults[(n + 1) % faults.len()]),
                    broken,
                });
            }
        }
        all
    }

    async fn stand(&self, steps: &Steps) -> Stand {
        let stand = Stand::new(self.sinks, acts).await;
        for number in [1, 2] {
            let made = stand.make(number);
            let plugin = Arc::new(Watched::new(Arc::clone(&made.plugin), steps));
            let watched = Release::new(&made.id, Arc::clone(&made.plan), made.errors, plugin);
            let watched = Arc::new(watched.unwrap());
            stand.scene.known.lock().insert(id(number), watched);
        }
        stand.desired.send_replace(Desired::only(stand.make(1)));
        let mut store = stand.store.lock();
        let once = |(after, fault)| {
            let calm = std::iter::repeat_n(Fault::None, after);
            calm.chain([fault]).collect()
        };
        store.faults = once(self.flights);
        store.grants = once(self.pins);
        store.broken = self.broken;
        store.delay_writes = self.flights.0 % 2 == 1;
        store.late_first = self.flights.0 == 5;
        drop(store);
        stand
    }
}

/// How one host's life ended.
enum Life {
    Killed,
    Ended(LaneEnd),
}

/// A host from its claim to its end, or killed after so many turns; adds the turns it lived to `turns`.
async fn live(stand: &Stand, steps: &Steps, limit: u64, turns: &Cell<u64>) -> Life {
    let around = Arc::new(Watched::new(Arc::clone(&stand.scene), steps));
    let (commands, advice) = blocking::channel();
    let life = async {
        let plan = Arc::clone(&stand.desired.borrow().release.plan);
        let anchor = around.anchor(&plan).await.unwrap();
        let claim = anchor.claim(&[0]).await.unwrap().remove(0);
        let around = Arc::clone(&around) as Arc<dyn Surroundings>;
        let mut host = stand.host_with(claim, around, Rc::default(), commands);
        let mut lane = std::mem::replace(&mut host.run, std::future::pending().boxed_local());
        let (ended, ()) = beside(&mut lane, feed(stand, &host, steps)).await;
        match ended {
            Some(end) => end,
            None => lane.await,
        }
    };
    let mut life = pin!(life);
    let mut left = limit;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(Life::Killed);
        }
        left -= 1;
        turns.set(turns.get() + 1);
        let polled = life.as_mut().poll(context).map(Life::Ended);
        if advice
            .try_iter()
            .any(|it| matches!(it, SourceCommand::Advise { .. }))
        {
            steps.reach("advised");
        }
        polled
    })
    .await
}

/// What the source hands over from the claim's position on; asks for another release on the way, and ends with a drain.
async fn feed(stand: &Stand, host: &Host<'_>, steps: &Steps) {
    let soon = async |holds: &dyn Fn() -> bool| {
        for _ in 0..40 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut from = host.claim.next;
    for end in ENDS.into_iter().filter(|end| *end > host.claim.next) {
        if end > SWAP && stand.asked.borrow().len() == 1 {
            soon(&|| stand.position() >= from).await;
            stand.ask(2);
            soon(&|| stand.began(2)).await;
        }
        if host.inlet.send(batch_of(&LOG, from, end)).is_err() {
            return;
        }
        steps.reach("fetch");
        from = end;
        // Some batches come together, some one by one.
        for _ in 0..end % 5 * 3 {
            tokio::task::yield_now().await;
        }
    }
    soon(&|| stand.position() >= END).await;
    host.mode.send_replace(Mode::Drain);
}

/// What came of one kill.
struct Outcome {
    /// The step it came in; `None` when the host was through before.
    died_in: Option<&'static str>,
    turns: u64,
    wrong: Vec<String>,
}

/// One host is killed after `first` turns and the next after `second`; then others finish.
async fn killed(script: &Script, first: u64, second: u64) -> Outcome {
    let steps = Steps::default();
    let stand = script.stand(&steps).await;
    let turns = Cell::new(0);
    let mut outcome = Outcome {
        died_in: None,
        turns: 0,
        wrong: Vec::new(),
    };
    for life in 0.. {
        let limit = match life {
            0 => first,
            1 => second,
            _ => u64::MAX,
        };
        let ended = live(&stand, &steps, limit, &turns).await;
        if life == 0 {
            outcome.turns = turns.get();
        }
        match ended {
            Life::Killed if life == 0 => outcome.died_in = Some(*steps.0.lock()),
            Life::Ended(LaneEnd::Stopped(error)) => {
                outcome.wrong = vec![error.to_string()];
                return outcome;
            }
            _ => {}
        }
        if stand.position() >= END {
            break;
        }
        if life > 9 {
            outcome.wrong = vec![format!("no end in sight at {}", stand.position())];
            return outcome;
        }
    }
    outcome.wrong = stand.check(&LOG);
    outcome
}

/// Kills hosts at every turn under each script; in which steps they died by sinks, and what was wrong.
fn kill_everywhere(scripts: &[Script]) -> (BTreeMap<(String, &'static str), usize>, Vec<String>) {
    on_a_shard(async {
        let mut died = BTreeMap::new();
        let mut wrong = Vec::new();
        for script in scripts {
            // Nobody dies: how many turns a life has.
            let whole = killed(script, u64::MAX, u64::MAX).await;
            let turns = whole.turns + whole.turns / 4;
            let kills = (0..turns).map(|turn| async move {
                // Every other successor dies too, at another turn each time.
                let second = match turn % 2 {
                    0 => u64::MAX,
                    _ => (turn * 7 + 11) % whole.turns,
                };
                (turn, killed(script, turn, second).await)
            });
            let mut kills = futures_util::stream::iter(kills).buffer_unordered(500);
            while let Some((turn, outcome)) = kills.next().await {
                if let Some(step) = outcome.died_in {
                    *died
                        .entry((format!("{:?}", script.sinks), step))
                        .or_insert(0) += 1;
                }
                if !outcome.wrong.is_empty() {
                    wrong.push(format!(
                        "{script:?} killed at turn {turn}: {:#?}",
                        outcome.wrong
                    ));
                }
            }
        }
        (died, wrong)
    })
}

#[test]
fn killed_at_every_await_nothing_is_lost_doubled_or_mixed() {
    let (died, wrong) = kill_everywhere(&Script::all(Broken::Nothing));
    assert!(
        wrong.is_empty(),
        "{} kills: {}",
        wrong.len(),
        wrong[..wrong.len().min(3)].join("\n")
    );
    let always = [
        "connect",
        "claim",
        "claimed, reply lost",
        "fetch",
        "decode",
        "guest",
        "check",
        "begin",
        "advance, rows and dead letters",
        "commit",
        "committed, reply lost",
        "advised",
        "cut",
        "cut, reply lost",
    ];
    let ahead = [
        "reserve",
        "reserved, reply lost",
        "send ahead",
        "sent ahead, reply lost",
        "lower",
        "lowered, reply lost",
    ];
    let lazy = ["settle", "settled, reply lost"];
    for (sinks, steps) in [
        ("Here", vec![&always[..]]),
        ("Both", vec![&always[..], &ahead]),
        ("Ahead", vec![&always[..], &ahead, &lazy]),
    ] {
        for step in steps.concat() {
            let kills = died.get(&(sinks.to_owned(), step)).copied();
            assert!(
                kills.is_some(),
                "nobody died at {step:?} of {sinks}: {died:#?}"
            );
        }
    }
}

#[test]
fn the_kills_go_red_when_a_rule_is_taken_away() {
    for broken in [
        Broken::CompareAndSet,
        Broken::Found,
        Broken::AheadForgotten,
        Broken::Stamps,
    ] {
        let scripts = Script::all(broken);
        let wrong = scripts
            .chunks(1)
            .any(|script| !kill_everywhere(script).1.is_empty());
        assert!(wrong, "nobody noticed that {broken:?} is gone");
    }
}
