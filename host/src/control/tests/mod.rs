//! Tests of the control log: what everybody needs, then one file a subject.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod blobs;
mod handle;
mod identity;
mod kept;
mod published;
mod random;
mod state;
mod store;
mod understood;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// A release whose overlay says which it is.
fn release(number: u64) -> Release {
    Release::new(
        "clean@1.0.0",
        digest(b"clean"),
        format!("number = {number}\n"),
    )
}

fn deploy(pipeline: &str, revision: u64, number: u64) -> Change {
    let deployment = Deployment::of(release(number), Origin::Upload);
    Change::Deploy {
        pipeline: pipeline.to_owned(),
        revision,
        deployment,
    }
}

fn version(name: &str, version: &str, bytes: &[u8]) -> Change {
    Change::Version {
        name: name.to_owned(),
        version: version.to_owned(),
        digest: digest(bytes),
        size: bytes.len() as u64,
        signature: None,
        facts: serde_json::json!({"track": "v0.1"}),
    }
}

fn entry(change: Change) -> Entry {
    let (by, host) = ("ann".to_owned(), "h1".to_owned());
    Entry {
        format: FORMAT,
        id: Uuid::new_v4(),
        at: 1_700_000_000_000,
        by,
        host,
        change,
    }
}

fn write(entry: &Entry) -> Write {
    (
        entry.key().into_bytes(),
        Some(serde_json::to_vec(entry).unwrap()),
    )
}

fn apply(state: &mut State, entry: &Entry) -> Applied {
    let (key, value) = write(entry);
    state.apply(state.next(), &key, value.as_deref())
}

fn rejected(applied: Applied) -> String {
    match applied {
        Applied::Rejected { reason } => reason,
        other => panic!("{other:?}"),
    }
}

/// What readers can tell apart; what is remembered for tidying up is not part of it.
fn seen(state: &State) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        state.versions.clone(),
        state.pipelines.clone(),
        (state.done.clone(), state.denials.clone()),
        Arc::clone(&state.blobs),
        state.identity(),
    )
}

/// A log written down, for tests without threads.
#[derive(Clone, Debug, Default)]
struct Paper(Vec<(i64, Write)>);

impl Paper {
    fn push(&mut self, write: Write) {
        let next = self.0.last().map_or(0, |(offset, _)| offset + 1);
        self.0.push((next, write));
    }

    fn state(&self) -> State {
        let mut state = State::default();
        for (offset, (key, value)) in &self.0 {
            state.apply(*offset, key, value.as_deref());
        }
        state
    }

    /// The last record of each key below `end`, and all from there on; removals below it gone.
    fn compacted(&self, end: usize) -> Self {
        let (clean, dirty) = self.0.split_at(end.min(self.0.len()));
        let last = |key: &[u8]| {
            clean
                .iter()
                .rev()
                .find(|(_, write)| write.0 == key)
                .map(|(offset, _)| *offset)
        };
        let kept = clean
            .iter()
            .filter(|(offset, (key, value))| value.is_some() && last(key) == Some(*offset));
        Self(kept.chain(dirty).cloned().collect())
    }
}

/// A host with a folder of its own.
struct Host {
    control: Control,
    folder: TempDir,
}

impl Host {
    fn on(log: &MemoryLog, id: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Self::over(log, id, folder);
        block_on(host.control.ready()).unwrap();
        host
    }

    /// As a host starts again with the folder it had.
    fn over(log: &MemoryLog, id: &str, folder: TempDir) -> Self {
        let store = BlobStore::open(folder.path()).unwrap();
        let control = Control::open(Arc::new(log.clone()), store, id.to_owned()).unwrap();
        Self { control, folder }
    }

    fn submit(&self, change: Change) -> Outcome {
        block_on(self.control.submit("ann", change)).unwrap()
    }
}

fn append(log: &MemoryLog, writes: Vec<Write>) {
    block_on(log.append(writes)).unwrap();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether both end with the same state once they have read what is there.
fn agree(log: &MemoryLog, hosts: &[&Host]) {
    let end = log.next();
    for host in hosts {
        eventually("all is read", || host.control.state().next() >= end);
        assert_eq!(seen(&host.control.state()), seen(&hosts[0].control.state()));
    }
}
