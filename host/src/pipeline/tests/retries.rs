//! Seeded retries of a dead letter: two people at once, each through a release of theirs or the one that began, killed
//! anywhere, with commits in doubt and writes that arrive late. In the end the record is emitted once, by one release,
//! or dropped and nowhere.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;

use super::fakes::{Broken, Fault, numbers};
use super::guest::Act;
use super::seeds::{Dice, none_fails};
use super::stand::{Acts, id, release};
use super::upgrades::killed_after;
use super::world::{Sinks, batch};
use crate::anchor::{
    Ahead, CommitError, DeadLetters, Letter, LetterFilter, LetterPage, LetterRetry, Part,
};
use crate::error::Error;
use crate::pipeline::retry::{Overwrite, Retried, RetrySinks, retry};
use crate::route::DeadLetter;
use crate::sink::{AheadRows, AheadSink};

/// What can happen to one call.
const FAULTS: [Fault; 4] = [
    Fault::RolledBack,
    Fault::UnknownDone,
    Fault::UnknownNot,
    Fault::AheadOutside,
];

/// What the server and the sink hold.
#[derive(Debug, Default)]
struct Kept {
    there: bool,
    dropped: bool,
    begun: Option<String>,
    /// A transaction has the letter's row.
    locked: bool,
    /// Releases of the committed rows.
    rows: Vec<i64>,
    /// Releases of the rows ahead, those that arrived and those that are on their way.
    ahead: BTreeSet<i64>,
    late: BTreeSet<i64>,
    faults: VecDeque<Fault>,
    broken: Broken,
}

type Shared = Arc<Mutex<Kept>>;

#[derive(Debug)]
struct FakeLetters(Shared);

/// The row's lock, which a transaction loses with its connection.
struct Lock(Shared);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.lock().locked = false;
    }
}

fn outside() -> Error {
    Error::outside("fake", "no reply")
}

impl FakeLetters {
    fn fault(&self) -> Fault {
        self.0.lock().faults.pop_front().unwrap_or(Fault::None)
    }

    async fn lock(&self) -> Lock {
        loop {
            tokio::task::yield_now().await;
            let mut kept = self.0.lock();
            if !kept.locked {
                kept.locked = true;
                return Lock(Arc::clone(&self.0));
            }
        }
    }

    async fn mark(&self, release: &str) -> Result<bool, Error> {
        let lock = self.lock().await;
        let fault = self.fault();
        let mut kept = self.0.lock();
        if kept.broken == Broken::Mark {
            drop(kept);
            drop(lock);
            return Ok(true);
        }
        let other = kept.begun.as_ref().is_some_and(|begun| begun != release);
        let holds = kept.there && !other;
        if holds && fault != Fault::UnknownNot {
            kept.begun = Some(release.to_owned());
        }
        drop(kept);
        drop(lock);
        match fault {
            Fault::UnknownDone | Fault::UnknownNot => Err(outside()),
            _ => Ok(holds),
        }
    }

    async fn put(&self, retry: LetterRetry<'_>, ahead: Ahead<'_>) -> Result<bool, CommitError> {
        let _lock = self.lock().await;
        if !self.0.lock().there {
            return Ok(false);
        }
        let fault = self.fault();
        if fault == Fault::RolledBack {
            return Err(CommitError::RolledBack(outside()));
        }
        ahead.await.map_err(CommitError::Ahead)?;
        tokio::task::yield_now().await;
        if fault == Fault::UnknownNot {
            return Err(CommitError::Unknown(outside()));
        }
        let mut kept = self.0.lock();
        kept.there = false;
        let rows = retry.rows.iter().flat_map(|here| here.rows.iter());
        kept.rows.extend(rows.map(|row| numbers(row.cells)[1]));
        match fault {
            Fault::UnknownDone => Err(CommitError::Unknown(outside())),
            _ => Ok(true),
        }
    }
}

impl DeadLetters for FakeLetters {
    fn list<'a>(
        &'a self,
        _: &'a LetterFilter,
        _: LetterPage,
    ) -> LocalBoxFuture<'a, Result<Vec<Letter>, Error>> {
        unreachable!("a retry reads nothing")
    }

    fn remove<'a>(&'a self, _: &'a [Letter]) -> LocalBoxFuture<'a, Result<u64, Error>> {
        async {
            let _lock = self.lock().await;
            let mut kept = self.0.lock();
            let goes = kept.there && kept.begun.is_none();
            kept.there &= !goes;
            kept.dropped |= goes;
            Ok(goes.into())
        }
        .boxed_local()
    }

    fn begin<'a>(
        &'a self,
        _: &'a Letter,
        release: &'a str,
    ) -> LocalBoxFuture<'a, Result<bool, Error>> {
        self.mark(release).boxed_local()
    }

    fn retry<'a>(
        &'a self,
        retry: LetterRetry<'a>,
        ahead: Ahead<'a>,
    ) -> LocalBoxFuture<'a, Result<bool, CommitError>> {
        self.put(retry, ahead).boxed_local()
    }

    fn keep<'a>(
        &'a self,
        _: &'a Letter,
        _: &'a DeadLetter,
    ) -> LocalBoxFuture<'a, Result<bool, Error>> {
        unreachable!("no retry fails here for its record's sake")
    }
}

#[derive(Debug)]
struct Cells(Shared);

impl AheadSink for Cells {
    fn write<'a>(&'a self, rows: AheadRows<'a>) -> LocalBoxFuture<'a, Result<(), Error>> {
        async move {
            for row in rows.rows.iter() {
                // On its way, whatever becomes of its sender.
                self.0.lock().late.insert(numbers(row.cells)[2]);
            }
            tokio::task::yield_now().await;
            let mut kept = self.0.lock();
            if kept.faults.front() == Some(&Fault::AheadOutside) {
                kept.faults.pop_front();
                return Err(outside());
            }
            let arrived = std::mem::take(&mut kept.late);
            kept.ahead.extend(arrived);
            Ok(())
        }
        .boxed_local()
    }
}

fn letter(begun: Option<String>) -> Letter {
    let value = Part::Bytes {
        bytes: b"v".to_vec(),
        size: 1,
    };
    Letter {
        stamp: Some(1000),
        begun,
        value,
        timestamp: 1,
        ..Letter::at(7)
    }
}

/// One retry of what is there now: through a release of one's own, or the one that began.
async fn once(kept: Shared, own: i64, acts: Acts) -> Option<Result<Retried, Error>> {
    let begun = {
        let kept = kept.lock();
        if !kept.there {
            return None;
        }
        kept.begun.clone()
    };
    let through = if begun == Some(id(1)) {
        1
    } else if begun == Some(id(2)) {
        2
    } else {
        own
    };
    let release = release(through, Sinks::Both, &acts);
    let letters = FakeLetters(Arc::clone(&kept));
    let cells = Box::new(Cells(kept)) as Box<dyn AheadSink>;
    let ahead = [None, Some(cells)];
    let sinks = RetrySinks {
        letters: &letters,
        ahead: &ahead,
    };
    let letter = letter(begun);
    Some(retry(&release, sinks, &letter, batch(0, 7..8), Overwrite::Refuse).await)
}

/// Runs one seed; returns what is wrong.
pub(super) async fn run(seed: u64, broken: Broken) -> Vec<String> {
    let mut dice = Dice(seed);
    let acts: Acts = Arc::new(|_| Act::Row);
    let kept: Shared = Arc::new(Mutex::new(Kept {
        there: true,
        faults: dice.faults(8, &FAULTS),
        broken,
        ..Kept::default()
    }));
    let drops = dice.roll(4) == 0;
    for _ in 0..6 {
        let lives = [dice.roll(40), dice.roll(40)];
        let one = killed_after(lives[0], once(Arc::clone(&kept), 1, Arc::clone(&acts)));
        let two = killed_after(lives[1], once(Arc::clone(&kept), 2, Arc::clone(&acts)));
        let letters = Rc::new(FakeLetters(Arc::clone(&kept)));
        let dropping = async {
            if drops {
                letters.remove(&[]).await.ok();
            }
        };
        Box::pin(futures_util::future::join3(one, two, dropping)).await;
    }
    kept.lock().faults.clear();
    let last = once(Arc::clone(&kept), 1, acts).await;
    let mut kept = kept.lock();
    let late = std::mem::take(&mut kept.late);
    kept.ahead.extend(late);
    let mut wrong = Vec::new();
    if kept.there {
        wrong.push(format!("nobody can finish it: {last:?}"));
    }
    let once = if kept.dropped { 0 } else { 1 };
    if kept.rows.len() != once {
        wrong.push(format!(
            "emitted by {:?}, dropped {}",
            kept.rows, kept.dropped
        ));
    }
    if !kept.ahead.iter().eq(kept.rows.iter()) {
        let (rows, ahead) = (&kept.rows, &kept.ahead);
        wrong.push(format!("rows of {rows:?}, ahead those of {ahead:?}"));
    }
    wrong
}

#[test]
fn retries_at_random_moments_emit_once_through_one_release() {
    none_fails(1000, run);
}
