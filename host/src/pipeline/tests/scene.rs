//! [`Scene`]: what is around the lanes of a [`Stand`](super::stand::Stand): fakes, releases that are known, and what is
//! out of reach.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use super::fakes::{FakeAnchor, FakeSink};
use crate::anchor::Anchor;
use crate::error::{Error, Retry};
use crate::pipeline::{Plan, Release, Surroundings};
use crate::sink::AheadSink;
use crate::source::{Source, TopicInfo};

/// The world around a partition's lanes.
pub(super) struct Scene {
    pub(super) anchor: FakeAnchor,
    /// What an earlier release is found by; by number.
    pub(super) known: Mutex<BTreeMap<String, Arc<Release>>>,
    /// Releases that were asked for.
    pub(super) loaded: Mutex<Vec<String>>,
    /// Releases whose anchor is not reached.
    pub(super) away: Mutex<BTreeSet<i64>>,
    /// Releases whose tables are not as they should be.
    pub(super) wrong: Mutex<BTreeSet<i64>>,
    /// Whether a release that is not known here may be known elsewhere.
    pub(super) behind: Mutex<bool>,
    /// Releases whose connections were opened.
    pub(super) opened: Mutex<Vec<i64>>,
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scene")
    }
}

impl Surroundings for Scene {
    fn anchor<'a>(&'a self, plan: &'a Plan) -> LocalBoxFuture<'a, Result<Rc<dyn Anchor>, Error>> {
        async move {
            tokio::task::yield_now().await;
            let release = plan.digest.parse().unwrap();
            if self.away.lock().contains(&release) {
                return Err(Error::outside("connect", "no route to host"));
            }
            if self.wrong.lock().contains(&release) {
                return Err(Error::config("open the sinks", "there is no table"));
            }
            self.opened.lock().push(release);
            Ok(Rc::new(self.anchor.opened(release)) as Rc<dyn Anchor>)
        }
        .boxed_local()
    }

    fn ahead<'a>(
        &'a self,
        _: &'a Plan,
        _: usize,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AheadSink>, Error>> {
        FakeSink::open(&self.anchor.store)
    }

    fn source(&self, _: Option<String>) -> Result<Box<dyn Source>, Error> {
        Err(Error::bug("make a source", "a stand has none"))
    }

    fn topic(&self) -> Result<TopicInfo, Error> {
        Err(Error::bug("ask for the topic", "a stand has none"))
    }

    fn committed(&self) -> Result<BTreeMap<i32, i64>, Error> {
        Err(Error::bug("ask the group", "a stand has none"))
    }

    fn release<'a>(&'a self, id: &'a str) -> LocalBoxFuture<'a, Result<Arc<Release>, Error>> {
        async move {
            self.loaded.lock().push(id.to_owned());
            let found = self.known.lock().get(id).cloned();
            let detail = format!("{id} is not known");
            found.ok_or_else(|| match *self.behind.lock() {
                true => Error::outside("load a release", detail).with_retry(Retry::Never),
                false => Error::config("load a release", detail),
            })
        }
        .boxed_local()
    }
}
