//! Shards: one compute thread each, with its own runtime; lanes live on one shard from start to end, so that
//! their state needs no lock. One more, the quarantine, is for lanes that were a burden to others (`conduct`).
//!
//! [`Shards`] owns the threads. [`Local`] is what the lanes of one shard share: the connections of each
//! release of a pipeline, opened by the first lane that needs them on the runtime that drives them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::{OnceCell, mpsc};

use super::Surroundings;
use super::conduct::Place;
use super::deaths::Deaths;
use super::lane::Connections;
use super::release::Release;
use crate::error::Error;
use crate::task;

/// How far lanes in quarantine stand behind all others: a tenth of a core that both want.
const NICE: i32 = 10;

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
    /// Of which records the host died.
    pub(super) deaths: Deaths,
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
        let opened = cell.get_or_try_init(|| async {
            let plan = &release.plan;
            let anchor = surroundings.anchor(plan).await;
            let anchor = anchor.map_err(|error| error.on(&plan.anchor))?;
            let ahead = super::open_ahead(surroundings, plan).await?;
            Ok::<_, Error>(Rc::new(Connections { anchor, ahead }))
        });
        Ok(Rc::clone(task::ticking(opened).await?))
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

impl Shard {
    fn start(name: &str, nice: i32, deaths: &Deaths) -> Result<Self, Error> {
        let deaths = deaths.clone();
        // Unbounded in type; bounded by the number of partitions assigned to this host.
        let (jobs, mut queue) = mpsc::unbounded_channel::<JobBox>();
        let thread = task::thread(name, move || {
            give_way(nice);
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
                let local = Rc::new(Local {
                    deaths,
                    ..Local::default()
                });
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
        Ok(Self {
            jobs,
            _thread: thread,
        })
    }

    fn run(&self, job: Job) -> Result<(), Error> {
        self.jobs
            .send(JobBox(job))
            .map_err(|_| Error::bug("hand a lane to its shard", "the shard's thread has ended"))
    }
}

/// Lets other threads go first where there are more of them than cores. Only Linux has this for a single thread;
/// without it the neighbours have their own threads all the same.
fn give_way(nice: i32) {
    if cfg!(target_os = "linux")
        && nice > 0
        && let Err(error) = rustix::process::nice(nice)
    {
        tracing::debug!(error = %error, "quarantine has the priority of every other thread");
    }
}

struct JobBox(Job);

impl std::fmt::Debug for JobBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// The compute threads of a host: one for each share of the partitions, and one for lanes in quarantine.
#[derive(Clone, Debug)]
pub struct Shards {
    // The last is the quarantine.
    shards: Arc<[Shard]>,
}

impl Shards {
    /// Starts `count` threads (at least one) and the quarantine; of which records the host died is remembered in
    /// `deaths`.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn start(count: usize, deaths: &Deaths) -> Result<Self, Error> {
        let count = count.max(1);
        let named = (0..count).map(|index| Shard::start(&format!("shard-{index}"), 0, deaths));
        let shards = named
            .chain([Shard::start("quarantine", NICE, deaths)])
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self {
            shards: shards.into(),
        })
    }

    /// Runs a job where the lane of a partition runs: always on the same shard, unless it is in quarantine.
    pub(super) fn run(
        &self,
        partition: i32,
        place: Place,
        job: impl FnOnce(Rc<Local>) -> LocalBoxFuture<'static, ()> + Send + 'static,
    ) -> Result<(), Error> {
        let quarantine = self.shards.len() - 1;
        let shard = match place {
            Place::Home => usize::try_from(partition).unwrap_or(0) % quarantine,
            Place::Quarantine { .. } => quarantine,
        };
        self.shards[shard].run(Box::new(job))
    }

    /// Closes the connections of a pipeline whose lanes are gone, wherever it has any.
    pub(super) fn close(&self, pipeline: &Arc<str>) {
        for shard in &*self.shards {
            let pipeline = Arc::clone(pipeline);
            // A thread that has ended holds none.
            shard
                .run(Box::new(move |local| {
                    async move { local.close(&pipeline) }.boxed_local()
                }))
                .ok();
        }
    }
}
