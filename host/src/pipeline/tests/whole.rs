//! A whole pipeline: the supervisor on real shards with a scripted source.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::fakes::{FakeAnchor, FakeSink, Script, Scripted, Stage};
use super::world::{World, on_a_shard};
use crate::anchor::{Anchor, Stored};
use crate::error::{Error, Retry};
use crate::pipeline::deaths::Deaths;
use crate::pipeline::{
    Desired, PipelineSettings, Plan, Release, SegmentStart, Shards, Surroundings, run,
};
use crate::sink::AheadSink;
use crate::source::{Source, TopicInfo};

/// What the group answers each time it is asked.
type Group = Box<dyn Fn() -> Result<BTreeMap<i32, i64>, Error> + Send + Sync>;

struct Around {
    anchor: FakeAnchor,
    group: Group,
    script: Mutex<Option<Script>>,
    /// Every release the host was told of.
    known: Vec<Arc<Release>>,
}

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Around")
    }
}

impl Surroundings for Around {
    fn anchor<'a>(&'a self, _: &'a Plan) -> LocalBoxFuture<'a, Result<Rc<dyn Anchor>, Error>> {
        let anchor = self.anchor.clone();
        async move { Ok(Rc::new(anchor) as Rc<dyn Anchor>) }.boxed_local()
    }

    fn ahead<'a>(
        &'a self,
        _: &'a Plan,
        _: usize,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AheadSink>, Error>> {
        FakeSink::open(&self.anchor.store)
    }

    fn source(&self, _: Option<String>) -> Result<Box<dyn Source>, Error> {
        Ok(Box::new(Scripted(self.script.lock().take().unwrap())))
    }

    fn topic(&self) -> Result<TopicInfo, Error> {
        Ok(TopicInfo {
            id: None,
            watermarks: vec![(0, 1000), (0, 1000)],
        })
    }

    fn committed(&self) -> Result<BTreeMap<i32, i64>, Error> {
        (self.group)()
    }

    fn release<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<Arc<Release>, Error>> {
        async move {
            if let Some(release) = self.known.iter().find(|release| &*release.id == id) {
                return Ok(Arc::clone(release));
            }
            let detail = format!("{id} is not known");
            Err(match id {
                ELSEWHERE => Error::outside("load a release", detail).with_retry(Retry::Never),
                _ => Error::config("load a release", detail),
            })
        }
        .boxed_local()
    }
}

/// A release that other hosts may know.
pub(super) const ELSEWHERE: &str = "elsewhere";

/// Runs a pipeline with a script; it is told to stop when the script has ended.
pub(super) fn play(
    world: &World,
    script: impl FnOnce(&Stage) + Send + 'static,
) -> Result<(), Error> {
    let desired = watch::channel(Desired::only(world.release())).1;
    play_desired(world, desired, mpsc::unbounded_channel().0, script)
}

/// As [`play`], with what is wanted and who hears what begins.
pub(super) fn play_desired(
    world: &World,
    desired: watch::Receiver<Desired>,
    segments: mpsc::UnboundedSender<SegmentStart>,
    script: impl FnOnce(&Stage) + Send + 'static,
) -> Result<(), Error> {
    let nothing: Group = Box::new(|| Ok(BTreeMap::new()));
    play_with(world, desired, segments, nothing, script)
}

/// As [`play`], with what the group has committed.
pub(super) fn play_beside(
    world: &World,
    group: impl Fn() -> Result<BTreeMap<i32, i64>, Error> + Send + Sync + 'static,
    script: impl FnOnce(&Stage) + Send + 'static,
) -> Result<(), Error> {
    let desired = watch::channel(Desired::only(world.release())).1;
    let segments = mpsc::unbounded_channel().0;
    play_with(world, desired, segments, Box::new(group), script)
}

fn play_with(
    world: &World,
    desired: watch::Receiver<Desired>,
    segments: mpsc::UnboundedSender<SegmentStart>,
    group: Group,
    script: impl FnOnce(&Stage) + Send + 'static,
) -> Result<(), Error> {
    let (stop, stopped) = watch::channel(false);
    let script = move |stage: &Stage| {
        script(stage);
        stop.send_replace(true);
    };
    // It could not start before.
    let waiter = world.counters.waiter(&"p".into(), None, &[]);
    waiter.failed(&Error::outside("start", "refused").on("control"), "again");
    let settings = PipelineSettings {
        waiter: Arc::new(waiter),
        pipeline: "p".into(),
        desired,
        segments,
        counters: Arc::clone(&world.counters),
        session_timeout: Duration::from_millis(60),
        stall: world.stall,
    };
    let around = Arc::new(Around {
        anchor: world.anchor.clone(),
        group,
        script: Mutex::new(Some(Box::new(script))),
        known: world.known.borrow().clone(),
    });
    on_a_shard(async {
        let shards = Shards::start(2, &Deaths::default()).unwrap();
        let running = run(settings, around, shards, stopped);
        tokio::time::timeout(Duration::from_secs(30), running)
            .await
            .expect("it does not end")
    })
}

pub(super) fn eventually(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < until, "it never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn positions(world: &World) -> Vec<i64> {
    on_a_shard(async {
        let stored: Vec<Stored> = world.anchor.stored().await.unwrap();
        stored.iter().map(|stored| stored.next).collect()
    })
}
