//! What is around a host, watched: each step of the delivery protocol has a name, and a turn of the host ends at it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use super::scene::Scene;
use crate::anchor::{Ahead, Anchor, Claim, CommitError, Flight, Pin, Stored};
use crate::error::Error;
use crate::pipeline::{Plan, Release, Surroundings};
use crate::plugin::{GuestBatch, Instance, Output, Plugin, RunFailure};
use crate::sink::{AheadRows, AheadSink};
use crate::source::{Source, TopicInfo};

/// The step a host is in.
#[derive(Clone, Debug, Default)]
pub(super) struct Steps(Arc<Mutex<&'static str>>);

impl Steps {
    pub(super) fn reach(&self, step: &'static str) {
        *self.0.lock() = step;
    }

    pub(super) fn now(&self) -> &'static str {
        *self.0.lock()
    }

    /// Reaches a step and lets a turn end there.
    async fn at(&self, step: &'static str) {
        self.reach(step);
        tokio::task::yield_now().await;
    }
}

/// What is around a host, with names for what it is about to do.
#[derive(Debug)]
pub(super) struct Watched<T> {
    inner: T,
    steps: Steps,
}

impl<T> Watched<T> {
    pub(super) fn new(inner: T, steps: &Steps) -> Self {
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
            let outcome = self.inner.commit(flight, Ahead::writes(ahead)).await;
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
