//! From a batch to rows and dead letters: decode, run, check, and bisect to the guilty record.
//!
//! [`Processor`] owns a lane's instance of the plugin and reuses its buffers. It writes nothing anywhere, so
//! what it returns may be dropped and made again.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::conduct::Conduct;
use super::deaths::Mark;
use crate::clock::on_cpu;
use crate::decode::Decoder;
use crate::error::Error;
use crate::plugin::{GuestBatch, Instance, Plugin, RunFailure};
use crate::record::{Batch, Fields, RowBatch};
use crate::route::{DeadClass, DeadLetter, RouteTable, code};

/// How much longer a call may run when it is repeated after going past its run time.
const PATIENCE: u32 = 4;
/// Between two words of a lane about failed calls.
const QUIET: Duration = Duration::from_secs(1);
/// Records a guest call takes at most: past it nothing is gained.
const CALL_RECORDS: usize = 1024;
/// Bytes of cells a guest call takes at most, so that they stay in the second-level cache.
const CALL_BYTES: usize = 256 << 10;

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Processed {
    /// The records.
    pub(super) batch: Batch,
    /// Checked rows by route index, not merged.
    pub(super) rows: Vec<RowBatch>,
    /// Records set aside, ascending.
    pub(super) dead: Vec<DeadLetter>,
    /// When processing began.
    pub(super) begun: Instant,
    /// Processor time it took; what other lanes of the shard did meanwhile is not in it.
    pub(super) busy: Duration,
}

impl Default for Processed {
    fn default() -> Self {
        Self {
            batch: Batch::default(),
            rows: Vec::new(),
            dead: Vec::new(),
            begun: Instant::now(),
            busy: Duration::ZERO,
        }
    }
}

/// Decodes and runs batches of one lane.
#[derive(Debug)]
pub(super) struct Processor {
    topic: Arc<str>,
    decoder: Decoder,
    routes: Arc<RouteTable>,
    plugin: Arc<dyn Plugin>,
    /// Told of calls that went past a limit.
    conduct: Rc<Conduct>,
    /// Says what it is at.
    mark: Rc<Mark>,
    instance: Option<Box<dyn Instance>>,
    fields: Fields,
    /// When a failed call was last told.
    warned: Option<Instant>,
}

/// How a call on a range of records failed.
struct CallFailed {
    code: &'static str,
    error: Error,
    /// Whether the instance had run nothing before.
    fresh: bool,
}

impl Processor {
    pub(super) fn new(
        topic: Arc<str>,
        decoder: Decoder,
        routes: Arc<RouteTable>,
        plugin: Arc<dyn Plugin>,
        conduct: Rc<Conduct>,
    ) -> Self {
        Self {
            topic,
            decoder,
            routes,
            plugin,
            mark: Rc::clone(&conduct.mark),
            conduct,
            instance: None,
            fields: Fields::default(),
            warned: None,
        }
    }

    /// With another mark than the lane's.
    pub(super) fn marked(self, mark: &Rc<Mark>) -> Self {
        let mark = Rc::clone(mark);
        Self { mark, ..self }
    }

    /// Processes a batch into `reuse`, whose buffers are kept.
    ///
    /// # Errors
    /// Only what stops the pipeline: `fatal` from the plugin, a refused `init`, run time exceeded twice.
    pub(super) async fn process(
        &mut self,
        batch: Batch,
        mut reuse: Processed,
    ) -> Result<Processed, Error> {
        // Lets a commit that was started before put its first bytes on the wire.
        tokio::task::yield_now().await;
        reuse.begun = Instant::now();
        let mark = Rc::clone(&self.mark);
        let range = batch.from()..batch.to();
        if let Some(reason) = mark.condemned(&range) {
            self.condemn(batch, &reason, &mut reuse);
            reuse.busy = Duration::ZERO;
            return Ok(reuse);
        }
        let working = mark.working(range).await;
        let (made, busy) = on_cpu(self.make(batch, &mut reuse)).await;
        drop(working);
        made?;
        reuse.busy = busy;
        Ok(reuse)
    }

    /// The next batch begins with an instance that has run nothing.
    pub(super) fn renew(&mut self) {
        self.instance = None;
    }

    /// Empties what a batch before has left.
    fn clear(&mut self, reuse: &mut Processed) {
        reuse.rows.resize_with(self.routes.len(), RowBatch::default);
        reuse.rows.iter_mut().for_each(RowBatch::clear);
        reuse.dead.clear();
        self.fields.clear();
    }

    /// Sets the one record of a batch aside without a look at it: the host would die.
    fn condemn(&mut self, batch: Batch, reason: &str, into: &mut Processed) {
        self.clear(into);
        tracing::error!(
            topic = &*self.topic,
            partition = batch.partition(),
            offset = batch.offsets().first(),
            reason,
            "a record kills the host: set aside"
        );
        let sources =
            0..u32::try_from(batch.len()).expect("a batch holds far fewer than 2³² records");
        into.dead.extend(sources.map(|source| DeadLetter {
            source,
            class: DeadClass::Plugin,
            code: code::KILLS_HOST.into(),
            reason: reason.to_owned(),
        }));
        into.batch = batch;
    }

    /// Makes rows and dead letters of a batch.
    async fn make(&mut self, batch: Batch, reuse: &mut Processed) -> Result<(), Error> {
        self.clear(reuse);
        self.decoder
            .decode(&batch, &self.topic, &mut self.fields, &mut reuse.dead);
        reuse.batch = batch;
        let mut start = 0;
        while start < self.fields.len() {
            let end = self.call_end(start);
            self.run_range(start..end, reuse).await?;
            start = end;
        }
        reuse.dead.sort_by_key(|dead| dead.source);
        if self
            .instance
            .as_ref()
            .is_some_and(|instance| instance.outgrown())
        {
            self.instance = None;
        }
        Ok(())
    }

    /// Where a call that starts at a kept record ends.
    fn call_end(&self, start: usize) -> usize {
        let begin = if start == 0 {
            0
        } else {
            self.fields.ends[start - 1] as usize
        };
        let limit = begin + CALL_BYTES;
        let by_bytes = self
            .fields
            .ends
            .partition_point(|end| *end as usize <= limit);
        by_bytes
            .clamp(start + 1, start + CALL_RECORDS)
            .min(self.fields.len())
    }

    /// Runs kept records `range`; a range that fails on a fresh instance is halved until the guilty record is
    /// alone, which becomes a dead letter.
    async fn run_range(&mut self, range: Range<usize>, into: &mut Processed) -> Result<(), Error> {
        let mut waiting = vec![range];
        while let Some(range) = waiting.pop() {
            let Err(failed) = self.call(range.clone(), into).await? else {
                continue;
            };
            self.instance = None;
            self.warn(range.len(), &failed);
            if failed.code == code::LIMIT {
                self.conduct.misbehaved("a call went past a limit");
            }
            // What fails often must not keep the neighbours waiting.
            tokio::task::yield_now().await;
            if !failed.fresh {
                waiting.push(range);
            } else if range.len() > 1 {
                let middle = range.start + range.len() / 2;
                waiting.push(middle..range.end);
                waiting.push(range.start..middle);
            } else {
                into.dead.push(DeadLetter {
                    source: self.fields.kept[range.start],
                    class: DeadClass::Plugin,
                    code: failed.code.into(),
                    reason: failed.error.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Once a second: a plugin that fails often would fill the log with what the dead letters say anyway.
    fn warn(&mut self, records: usize, failed: &CallFailed) {
        let said = self.warned.replace(Instant::now());
        if said.is_some_and(|said| said.elapsed() < QUIET) {
            self.warned = said;
            tracing::debug!(records, code = failed.code, error = %failed.error, "plugin call failed");
            return;
        }
        tracing::warn!(
            topic = &*self.topic, records, code = failed.code, error = %failed.error,
            "plugin call failed, narrowing it down"
        );
    }

    /// One call. The outer error stops the pipeline, the inner one is the plugin's fault on these records;
    /// then nothing of the call is kept.
    async fn call(
        &mut self,
        range: Range<usize>,
        into: &mut Processed,
    ) -> Result<Result<(), CallFailed>, Error> {
        let mut factor = 1;
        loop {
            let fresh = self.instance.is_none();
            if fresh {
                match self.plugin.instantiate(factor).await {
                    Ok(instance) => self.instance = Some(instance),
                    // No record was handed over yet: none is to blame.
                    Err(RunFailure::Trap(error) | RunFailure::Limit(error)) => {
                        return Err(not_started(&error));
                    }
                    Err(RunFailure::RunTime(error)) if factor > 1 => {
                        return Err(not_started(&error));
                    }
                    Err(RunFailure::RunTime(_)) => {
                        factor = PATIENCE;
                        self.too_long().await;
                        continue;
                    }
                    Err(RunFailure::Fatal(error)) => return Err(error),
                }
            }
            let outcome = self.run(&range, &into.batch).await;
            let failed = |code, error| Ok(Err(CallFailed { code, error, fresh }));
            let output = match outcome {
                Ok(output) => output,
                Err(RunFailure::Fatal(error)) => return Err(error),
                Err(RunFailure::Trap(error)) => return failed(code::TRAP, error),
                Err(RunFailure::Limit(error)) => return failed(code::LIMIT, error),
                Err(RunFailure::RunTime(error)) if factor == 1 => {
                    tracing::warn!(error = %error, "plugin ran past its time, once more with a larger limit");
                    self.instance = None;
                    factor = PATIENCE;
                    self.too_long().await;
                    continue;
                }
                Err(RunFailure::RunTime(error)) => {
                    return Err(self.too_slow(&range, &into.batch, &error));
                }
            };
            if factor > 1 {
                // Back to an instance with the ordinary limit.
                self.instance = None;
            }
            let input = GuestBatch {
                input: 0,
                batch: &into.batch,
                fields: &self.fields,
                range: range.clone(),
            };
            let checked = self
                .routes
                .check(&output, &input, &mut into.rows, &mut into.dead);
            return match checked {
                Ok(_) => Ok(Ok(())),
                // Nothing was appended: the check keeps all of a call or none.
                Err(error) => failed(code::BAD_OUTPUT, error),
            };
        }
    }

    /// A call ran past its time. What it takes with more patience is not for the neighbours to wait for.
    async fn too_long(&self) {
        self.conduct.misbehaved("a call ran past its time");
        tokio::task::yield_now().await;
    }

    async fn run(
        &mut self,
        range: &Range<usize>,
        batch: &Batch,
    ) -> Result<crate::plugin::Output, RunFailure> {
        let mut instance = self
            .instance
            .take()
            .expect("made before every call that finds none");
        let input = GuestBatch {
            input: 0,
            batch,
            fields: &self.fields,
            range: range.clone(),
        };
        let output = instance.run(input).await?;
        self.instance = Some(instance);
        Ok(output)
    }

    /// Run time depends on the machine, so it never decides a dead letter: the pipeline stops and says where.
    fn too_slow(&self, range: &Range<usize>, batch: &Batch, error: &Error) -> Error {
        let first = batch.offsets()[self.fields.kept[range.start] as usize];
        let last = batch.offsets()[self.fields.kept[range.end - 1] as usize];
        Error::config(
            format!(
                "run the plugin on {} partition {} offsets {first} to {last}",
                self.topic,
                batch.partition()
            ),
            error.detail(),
        )
        .hint("raise limits.run_time in the manifest, or fix the loop that does not end")
    }
}

/// A plugin that cannot be started processes no record at all: an operator has to act.
fn not_started(error: &Error) -> Error {
    Error::plugin("start an instance of the plugin", error)
        .hint("`wasmill plugin test` starts it with the same limits; fix init, or raise the limits")
}
