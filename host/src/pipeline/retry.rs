//! A dead letter through a release once more: decode, run, check, and its rows in one step with its removal.
//!
//! [`retry`] decides what becomes of one letter. It knows the release and the contracts of letters and sinks only; which
//! letters, and through which release, is the caller's.
//!
//! Rows for a sink written ahead are out before the commit, at the write time that the record had when it was set
//! aside. A retry cut off there has to be finished, by the release that began it and no other: that is kept with the
//! letter first (see [`DeadLetters::begin`]), and never taken back. So Postgres is asked before that whether it takes the
//! rows: what it refuses may still be retried through any release.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::conduct::{Conduct, Place};
use super::flight::{FlightBuilder, set_aside_ahead};
use super::plan::{Binding, RoutePlan};
use super::process::Processed;
use super::release::Release;
use crate::anchor::{Ahead, Becomes, CommitError, DeadLetters, Letter, LetterRetry};
use crate::clock::{Backoff, now_micros};
use crate::error::{Blame, Error};
use crate::manifest::{Mode, Target};
use crate::record::{Batch, RowBatch};
use crate::route::{DeadClass, DeadLetter, code};
use crate::sink::AheadSink;

/// How often a transaction that the server rolled back is tried.
const ATTEMPTS: u32 = 4;
/// First pause between two of them.
const FIRST: Duration = Duration::from_millis(50);

/// Whether rows may take the place of others that nothing tells to be older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Then nothing is done.
    Refuse,
    /// They may.
    Allow,
}

/// What became of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// So many rows were written, and it is gone.
    Emitted(u64),
    /// The plugin makes no row of it, and it is gone.
    Filtered,
    /// It fails still: kept, with this reason.
    Dead(DeadLetter),
    /// It is not there any more; the reason, where there is more to say than that.
    Gone(Option<&'static str>),
    /// Not done; why.
    Refused(Error),
}

/// Where a retry writes.
#[derive(Clone, Copy, Debug)]
pub struct RetrySinks<'a> {
    /// The letters, and the routes on their database.
    pub letters: &'a dyn DeadLetters,
    /// Sinks written ahead, by route.
    pub ahead: &'a [Option<Box<dyn AheadSink>>],
}

/// Runs the record of a letter through a release. `batch` holds the record alone.
///
/// # Errors
/// What would stop the pipeline, and whatever is outside: the letter is as it was, or, after a commit without an
/// answer, its rows are written and it is gone.
pub async fn retry(
    release: &Arc<Release>,
    sinks: RetrySinks<'_>,
    letter: &Letter,
    batch: Batch,
    overwrite: Overwrite,
) -> Result<Retried, Error> {
    let plan = &release.plan;
    if let Some(begun) = letter.begun.as_ref().filter(|begun| **begun != *release.id) {
        return Ok(Retried::Refused(begun_by(letter, begun)));
    }
    // It runs on no shard.
    let conduct = Conduct::new(Place::Quarantine {
        calm: Duration::MAX,
    });
    let mut processor = release.processor(Rc::new(conduct))?;
    let mut processed = processor.process(batch, Processed::default()).await?;
    if plan.writes_ahead() {
        // What was begun may be out: a slower clock must not call it too early.
        let reserved = letter.begun.as_ref().map_or(0, |_| i64::MAX);
        set_aside_ahead(&mut processed, reserved, now_micros() / 1000);
    }
    if let Some(dead) = processed.dead.first() {
        return still_dead(sinks.letters, letter, dead.clone()).await;
    }
    let mut builder = FlightBuilder::new(plan);
    let totals = builder.build(&processed, &(0..processed.batch.len()))?;
    let written = plan.routes.iter().zip(&builder.rows);
    let mut exposed = written.filter(|(route, rows)| is_exposed(route) && !rows.is_empty());
    if let (Some((route, _)), Overwrite::Refuse) = (exposed.next(), overwrite) {
        return Ok(Retried::Refused(overwrites(letter, route)));
    }
    builder.stamps.extend(letter.stamp);
    let rows = builder.here();
    let (becomes, emitted) = match totals.rows.iter().sum() {
        0 => (Becomes::Filtered, Retried::Filtered),
        rows => (Becomes::Emitted, Retried::Emitted(rows)),
    };
    let retry = LetterRetry {
        letter,
        batch: &processed.batch,
        rows: &rows,
        becomes,
    };
    let sends = |(sink, rows): (&Option<_>, &RowBatch)| sink.is_some() && !rows.is_empty();
    if sinks.ahead.iter().zip(&builder.rows).any(sends) {
        if letter.stamp.is_none() {
            return Ok(Retried::Refused(without_stamp(letter)));
        }
        if letter.begun.is_none()
            && let Some(decided) = rehearse(sinks.letters, retry).await?
        {
            return Ok(decided);
        }
        if !sinks.letters.begin(letter, &release.id).await? {
            return Ok(Retried::Refused(begun_elsewhere(letter)));
        }
    }
    commit(sinks, retry, &builder, emitted).await
}

/// Asks the database whether it would take the rows, and takes them back: before anything is sent ahead. What becomes
/// of the letter, where that is decided by it.
async fn rehearse(
    letters: &dyn DeadLetters,
    retry: LetterRetry<'_>,
) -> Result<Option<Retried>, Error> {
    let taken_back = Error::outside("rehearse the retry of a dead letter", "nothing is sent");
    let ahead = Ahead::writes(std::future::ready(Err(taken_back)));
    match letters.retry(retry, ahead).await {
        Err(CommitError::Ahead(_)) => Ok(None),
        Ok(_) => Ok(Some(Retried::Gone(None))),
        Err(CommitError::Refused(error)) => {
            let dead = refused(&error);
            still_dead(letters, retry.letter, dead).await.map(Some)
        }
        Err(
            CommitError::Stop(error)
            | CommitError::Fenced(error)
            | CommitError::RolledBack(error)
            | CommitError::Unknown(error),
        ) => Err(error),
    }
}

/// What a letter is whose rows the database refuses.
fn refused(error: &Error) -> DeadLetter {
    DeadLetter {
        source: 0,
        class: DeadClass::Data,
        code: code::POSTGRES_REFUSED.into(),
        reason: error.detail().to_owned(),
    }
}

/// Commits a retry; again where the server rolled back, and where it did not answer: it then finds the letter, or its
/// absence once the commit in doubt is decided.
async fn commit(
    sinks: RetrySinks<'_>,
    retry: LetterRetry<'_>,
    builder: &FlightBuilder,
    emitted: Retried,
) -> Result<Retried, Error> {
    let letters = sinks.letters;
    let mut backoff = Backoff::new(FIRST, 20 * FIRST);
    let mut in_doubt = false;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let ahead = Ahead::writes(builder.send(sinks.ahead, retry.batch));
        let error = match letters.retry(retry, ahead).await {
            Ok(true) => return Ok(emitted),
            Ok(false) if in_doubt => {
                let why =
                    "the commit whose answer was lost went through, or somebody else was faster";
                return Ok(Retried::Gone(Some(why)));
            }
            Ok(false) => return Ok(Retried::Gone(None)),
            Err(CommitError::Refused(error)) => {
                return still_dead(letters, retry.letter, refused(&error)).await;
            }
            Err(CommitError::Unknown(error)) => {
                in_doubt = true;
                error
            }
            Err(CommitError::RolledBack(error)) => error,
            Err(CommitError::Ahead(error)) if error.blame() == Blame::Outside => error,
            Err(
                CommitError::Stop(error) | CommitError::Fenced(error) | CommitError::Ahead(error),
            ) => return Err(error),
        };
        if attempt == ATTEMPTS {
            return Err(error);
        }
        tracing::warn!(error = %error, "retry of a dead letter not committed, trying again");
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn still_dead(
    letters: &dyn DeadLetters,
    letter: &Letter,
    dead: DeadLetter,
) -> Result<Retried, Error> {
    Ok(if letters.keep(letter, &dead).await? {
        Retried::Dead(dead)
    } else {
        Retried::Gone(None)
    })
}

/// Whether an older row of the route takes the place of a newer one.
fn is_exposed(route: &RoutePlan) -> bool {
    match &route.route.target {
        Target::Postgres(table) => {
            route.binding == Binding::Here && table.mode == Mode::Upsert && table.guard.is_none()
        }
        // Whoever keeps the latest message of a key would keep the older one.
        Target::Kafka(topic) => !topic.key.is_empty(),
        Target::Cassandra(_) => false,
    }
}

fn not_done(letter: &Letter, detail: impl std::fmt::Display) -> Error {
    let at = letter.at;
    Error::config(
        format!("retry dead letter {}:{}", at.partition, at.offset),
        detail,
    )
}

fn begun_by(letter: &Letter, release: &str) -> Error {
    not_done(
        letter,
        format!(
            "release {release} began to retry it and may have sent rows to Cassandra or a topic"
        ),
    )
    .hint("retry it without --through: then the release that began it finishes it")
}

fn begun_elsewhere(letter: &Letter) -> Error {
    not_done(
        letter,
        "it is gone, or another release began to retry it at this moment",
    )
    .hint("look whether it is still there")
}

fn without_stamp(letter: &Letter) -> Error {
    not_done(
        letter,
        "an older host set it aside and did not keep its write time, which rows in Cassandra or a topic need",
    )
    .hint("send the record again to the topic, corrected, then drop the letter")
}

fn overwrites(letter: &Letter, route: &RoutePlan) -> Error {
    not_done(
        letter,
        format!(
            "route {:?} to {} has keys and no guard: the row may take the place of one that a newer record wrote, or \
             bring back one that it deleted",
            route.route.name,
            route.table()
        ),
    )
    .hint("compare the table's row with the record, then retry it with --force; or give the route a guard column")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::cell::{Cell, RefCell};

    use futures_util::FutureExt as _;
    use futures_util::future::LocalBoxFuture;

    use super::*;
    use crate::anchor::{LetterFilter, LetterPage};

    /// Letters whose every retry ends as written down.
    #[derive(Debug)]
    struct Scripted {
        answers: RefCell<Vec<Result<bool, CommitError>>>,
        kept: Cell<u32>,
        there: bool,
    }

    impl DeadLetters for Scripted {
        fn list<'a>(
            &'a self,
            _: &'a LetterFilter,
            _: LetterPage,
        ) -> LocalBoxFuture<'a, Result<Vec<Letter>, Error>> {
            unreachable!("a retry reads nothing")
        }

        fn remove<'a>(&'a self, _: &'a [Letter]) -> LocalBoxFuture<'a, Result<u64, Error>> {
            unreachable!("a retry removes nothing outside its transaction")
        }

        fn begin<'a>(
            &'a self,
            _: &'a Letter,
            _: &'a str,
        ) -> LocalBoxFuture<'a, Result<bool, Error>> {
            unreachable!("nothing is written ahead")
        }

        fn retry<'a>(
            &'a self,
            _: LetterRetry<'a>,
            _: Ahead<'a>,
        ) -> LocalBoxFuture<'a, Result<bool, CommitError>> {
            let answer = self.answers.borrow_mut().remove(0);
            std::future::ready(answer).boxed_local()
        }

        fn keep<'a>(
            &'a self,
            _: &'a Letter,
            _: &'a DeadLetter,
        ) -> LocalBoxFuture<'a, Result<bool, Error>> {
            self.kept.set(self.kept.get() + 1);
            std::future::ready(Ok(self.there)).boxed_local()
        }
    }

    /// What a retry of two rows comes to, how many answers were left over, and how often a reason was kept.
    fn outcome(
        answers: Vec<Result<bool, CommitError>>,
        there: bool,
    ) -> (Result<Retried, Error>, usize, u32) {
        let letters = Scripted {
            answers: RefCell::new(answers),
            kept: Cell::new(0),
            there,
        };
        let letter = Letter::at(7);
        let batch = letter.record().unwrap();
        let retry = LetterRetry {
            letter: &letter,
            batch: &batch,
            rows: &[],
            becomes: Becomes::Emitted,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let sinks = RetrySinks {
            letters: &letters,
            ahead: &[],
        };
        let builder = FlightBuilder::empty();
        let done = runtime.block_on(commit(sinks, retry, &builder, Retried::Emitted(2)));
        let left = letters.answers.borrow().len();
        (done, left, letters.kept.get())
    }

    fn away() -> Error {
        Error::outside("commit", "no reply")
    }

    #[test]
    fn a_commit_in_doubt_is_told_by_the_letter() {
        let unknown = || Err(CommitError::Unknown(away()));
        let (there, ..) = outcome(vec![unknown(), Ok(true)], true);
        assert_eq!(there.unwrap(), Retried::Emitted(2), "it had not committed");
        let (gone, ..) = outcome(vec![unknown(), Ok(false)], true);
        assert!(matches!(gone.unwrap(), Retried::Gone(Some(_))));
        let (other, ..) = outcome(vec![Ok(false)], true);
        assert_eq!(other.unwrap(), Retried::Gone(None));
    }

    #[test]
    fn what_is_rolled_back_is_tried_a_few_times() {
        let rolled = || Err(CommitError::RolledBack(away()));
        let (done, ..) = outcome(vec![rolled(), rolled(), rolled(), Ok(true)], true);
        assert_eq!(done.unwrap(), Retried::Emitted(2));
        let (given_up, left, _) =
            outcome(vec![rolled(), rolled(), rolled(), rolled(), Ok(true)], true);
        assert_eq!(given_up.unwrap_err().blame(), Blame::Outside);
        assert_eq!(left, 1);
        let stop = CommitError::Stop(Error::config("write", "no such table"));
        let (stopped, left, _) = outcome(vec![Err(stop), Ok(true)], true);
        assert_eq!((stopped.unwrap_err().blame(), left), (Blame::Config, 1));
    }

    #[test]
    fn what_the_database_refuses_is_dead_still() {
        let refused = || CommitError::Refused(Error::data("write", "violates a check"));
        let (dead, _, kept) = outcome(vec![Err(refused())], true);
        let Retried::Dead(dead) = dead.unwrap() else {
            panic!("not dead");
        };
        assert_eq!(
            (&*dead.code, dead.reason.as_str()),
            ("postgres-refused", "violates a check")
        );
        assert_eq!(kept, 1);
        let (gone, ..) = outcome(vec![Err(refused())], false);
        assert_eq!(gone.unwrap(), Retried::Gone(None));
    }
}
