//! A plugin of closures: what it does with a record is a function of the offset.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use crate::error::Error;
use crate::plugin::{GuestBatch, Instance, Output, Plugin, Reject, RunFailure};
use crate::record::cells::put;

/// What the plugin does with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Row,
    Filter,
    Reject,
    Trap,
    Limit,
    /// Past the ordinary run time, within the patient one.
    Slow,
    Endless,
    Fatal,
    Malformed,
    /// A row, from an instance that has outgrown its mark.
    Grow,
    Panic,
}

type Acts = Arc<dyn Fn(i64) -> Act + Send + Sync>;

/// One row a route and record: the append route (offset, release), the keyed one (offset modulo 5, offset, release).
#[derive(Clone)]
pub(super) struct FakePlugin {
    pub(super) acts: Acts,
    pub(super) routes: Vec<bool>,
    /// Says who wrote a row.
    pub(super) release: i64,
    pub(super) init: Option<fn(Error) -> RunFailure>,
    /// Instances made, calls run.
    pub(super) made: Arc<Mutex<(usize, usize)>>,
}

impl std::fmt::Debug for FakePlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakePlugin")
    }
}

#[derive(Debug)]
struct FakeInstance {
    plugin: FakePlugin,
    factor: u32,
    grown: bool,
    /// A call failed: whoever runs another breaks the contract.
    spoilt: bool,
}

impl Plugin for FakePlugin {
    fn instantiate(
        &self,
        factor: u32,
    ) -> LocalBoxFuture<'_, Result<Box<dyn Instance>, RunFailure>> {
        async move {
            self.made.lock().0 += 1;
            if let Some(failure) = self.init {
                return Err(failure(Error::plugin("init", "unreachable executed")));
            }
            let plugin = self.clone();
            Ok(Box::new(FakeInstance {
                plugin,
                factor,
                grown: false,
                spoilt: false,
            }) as Box<dyn Instance>)
        }
        .boxed_local()
    }
}

impl Instance for FakeInstance {
    fn run<'a>(
        &'a mut self,
        input: GuestBatch<'a>,
    ) -> LocalBoxFuture<'a, Result<Output, RunFailure>> {
        async move {
            tokio::task::yield_now().await;
            assert!(!self.spoilt, "an instance that failed was used again");
            self.spoilt = true;
            self.plugin.made.lock().1 += 1;
            let mut output = Output::default();
            let mut malformed = false;
            let failed = |detail: String| Error::plugin("run", detail);
            for (source, kept) in input.range.clone().enumerate() {
                let source = u32::try_from(source).unwrap();
                let offset = input.batch.offsets()[input.fields.kept[kept] as usize];
                match (self.plugin.acts)(offset) {
                    Act::Row | Act::Grow => {
                        self.grown |= (self.plugin.acts)(offset) == Act::Grow;
                        for (route, keyed) in self.plugin.routes.iter().enumerate() {
                            if *keyed {
                                put(&mut output.cells, &(offset % 5).to_be_bytes());
                            }
                            put(&mut output.cells, &offset.to_be_bytes());
                            put(&mut output.cells, &self.plugin.release.to_be_bytes());
                            output.ends.push(u32::try_from(output.cells.len()).unwrap());
                            output.sources.push(source);
                            output.routes.push(u8::try_from(route).unwrap());
                        }
                    }
                    Act::Filter => {}
                    Act::Reject => output.rejects.push(Reject {
                        source,
                        code: "no-good".to_owned(),
                        reason: "no good".to_owned(),
                    }),
                    Act::Trap => return Err(RunFailure::Trap(failed(format!("at {offset}")))),
                    Act::Limit => return Err(RunFailure::Limit(failed(format!("at {offset}")))),
                    Act::Slow if self.factor > 1 => {}
                    Act::Slow | Act::Endless => {
                        return Err(RunFailure::RunTime(failed(format!("at {offset}"))));
                    }
                    Act::Fatal => {
                        return Err(RunFailure::Fatal(Error::config(
                            "run",
                            "the table is wrong",
                        )));
                    }
                    Act::Malformed => malformed = true,
                    Act::Panic => panic!("a bug of ours at {offset}"),
                }
            }
            self.spoilt = malformed;
            if malformed {
                output.ends.push(u32::MAX);
                output.sources.push(0);
                output.routes.push(0);
            }
            Ok(output)
        }
        .boxed_local()
    }

    fn outgrown(&self) -> bool {
        self.grown
    }
}
