//! Shards: one compute thread each, with its own runtime; lanes live on one shard from start to end, so that
//! their state needs no lock.
//!
//! [`Shards`] owns the threads. [`Local`] is what the lanes of one shard share: the connections of each
//! release of a pipeline, opened by the first lane that needs them on the runtime that drives them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use tokio::sync::{OnceCell, mpsc};

use super::Surroundings;
use super::lane::Connections;
use super::plan::Binding;
use super::release::Release;
use crate::error::Error;
use crate::task;

/// Work sent to a shard: makes a future there and runs it to its end.
type Job = Box<dyn FnOnce(Rc<Local>) -> LocalBoxFuture<'static, ()> + Send>;

/// A pipeline's name and the id of one of its releases.
type ReleaseOf = (Arc<str>, Arc<str>);
/// Connections of a release, opened once.
type Opened = Rc<OnceCell<Rc<Connections>>>;

/// What the lanes of one shard share.
#[derive(Debug, Default)]
pub(super) struct Local {
    connections: RefCell<HashMap<ReleaseOf, Opened>>,
}

impl Local {
    /// The connections of a release on this shard, opened on first use.
    ///
    /// # Errors
    /// Whatever opening fails with; the next call tries again.
    pub(super) async fn connections(
        &self,
        pipeline: &Arc<str>,
        release: &Release,
        surroundings: &dyn Surroundings,
    ) -> Result<Rc<Connections>, Error> {
        let key = (Arc::clone(pipeline), Arc::clone(&release.id));
        let cell = Rc::clone(self.connections.borrow_mut().entry(key).or_default());
        let opened = cell
            .get_or_try_init(|| async {
                let plan = &release.plan;
                let anchor = surroundings.anchor(plan).await?;
                let mut ahead = Vec::with_capacity(plan.routes.len());
                for (route, bound) in plan.routes.iter().enumerate() {
                    ahead.push(match bound.binding {
                        Binding::Ahead(_) => Some(surroundings.ahead(plan, route).await?),
                        Binding::Here | Binding::Discard => None,
                    });
                }
                Ok::<_, Error>(Rc::new(Connections { anchor, ahead }))
            })
            .await?;
        Ok(Rc::clone(opened))
    }

    /// Closes connections of a pipeline's releases that no lane holds and nobody is opening.
    pub(super) fn close_unused(&self, pipeline: &str) {
        let in_use = |cell: &Opened| match cell.get() {
            Some(connections) => Rc::strong_count(connections) > 1,
            None => Rc::strong_count(cell) > 1,
        };
        self.connections
            .borrow_mut()
            .retain(|(owner, _), cell| **owner != *pipeline || in_use(cell));
    }

    /// Closes the connections of a pipeline once its last lane here is gone.
    pub(super) fn close(&self, pipeline: &str) {
        self.connections
            .borrow_mut()
            .retain(|(owner, _), _| **owner != *pipeline);
    }
}

#[derive(Debug)]
struct Shard {
    jobs: mpsc::UnboundedSender<JobBox>,
    _thread: task::Thread<()>,
}

struct JobBox(Job);

impl std::fmt::Debug for JobBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// The compute threads of a host.
#[derive(Clone, Debug)]
pub struct Shards {
    shards: Arc<[Shard]>,
}

impl Shards {
    /// Starts `count` threads (at least one).
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn start(count: usize) -> Result<Self, Error> {
        let shards = (0..count.max(1))
            .map(|index| {
                // Unbounded in type; bounded by the number of partitions assigned to this host.
                let (jobs, mut queue) = mpsc::unbounded_channel::<JobBox>();
                let thread = task::thread(format!("shard-{index}"), move || {
                    let runtime = match tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                    {
                        Ok(runtime) => runtime,
                        Err(error) => {
                            tracing::error!(error = %error, "shard has no runtime");
                            return;
                        }
                    };
                    let tasks = tokio::task::LocalSet::new();
                    tasks.block_on(&runtime, async move {
                        let local = Rc::new(Local::default());
                        let mut running: Vec<task::LocalTask<()>> = Vec::new();
                        while let Some(JobBox(job)) = queue.recv().await {
                            running.retain(|task| !task.is_finished());
                            running.push(task::local(job(Rc::clone(&local))));
                        }
                        for task in running {
                            if let Err(error) = task.join().await {
                                tracing::error!(error = %error, "task of a shard failed");
                            }
                        }
                    });
                })?;
                Ok(Shard {
                    jobs,
                    _thread: thread,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self {
            shards: shards.into(),
        })
    }

    /// Number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shards.len()
    }

    /// Runs a job on the shard that owns `slot` (a partition): always the same one.
    pub(super) fn run(
        &self,
        slot: usize,
        job: impl FnOnce(Rc<Local>) -> LocalBoxFuture<'static, ()> + Send + 'static,
    ) -> Result<(), Error> {
        let shard = &self.shards[slot % self.shards.len()];
        shard
            .jobs
            .send(JobBox(Box::new(job)))
            .map_err(|_| Error::bug("hand a lane to its shard", "the shard's thread has ended"))
    }
}
