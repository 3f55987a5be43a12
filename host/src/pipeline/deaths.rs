//! Records that kill the host: remembered beyond its death, narrowed down, and set aside when nothing else can be.
//!
//! While a lane decodes a batch and runs the guest on it, a small file says so: two writes a batch, to the page cache,
//! which outlives the process. A file that still says so when the lane starts again is a death, and only such a one
//! counts. What kills a host from outside may meet a lane at work too, but hardly six times at one record. A range in which the host died [`CAREFUL`] times is
//! run record by record, one suspect lane of the host at a time, so that the next death has one record to blame;
//! after [`CONDEMNED`] deaths at that one record it becomes a dead letter. [`Deaths`] is the folder, [`Mark`] one
//! lane's file. A file that cannot be written costs that memory and nothing else.

use std::cell::{Cell, OnceCell};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use crate::anchor::Claim;

/// Deaths in a range from which on it is run record by record.
const CAREFUL: u32 = 3;
/// Further deaths at one record after which it is set aside.
const CONDEMNED: u32 = 3;
/// Bytes of a file: every write is a whole one.
const LENGTH: usize = 160;

/// Where a host keeps the marks of its lanes.
#[derive(Clone, Debug, Default)]
pub struct Deaths {
    /// `None`: nothing is remembered.
    folder: Option<Arc<Path>>,
    /// Held by the suspect lane whose turn it is: another one must not die with it and be counted too.
    turn: Arc<Mutex<()>>,
}

impl Deaths {
    /// In a folder of this host alone, made when the first lane needs it.
    #[must_use]
    pub fn remembered_in(folder: &Path) -> Self {
        Self {
            folder: Some(folder.into()),
            turn: Arc::default(),
        }
    }

    /// The mark of a lane; counts the death it finds.
    pub(super) fn of(&self, pipeline: &str, claim: &Claim) -> Mark {
        let file = format!("{pipeline}.{}", claim.partition);
        let mark = Mark {
            path: self.folder.as_ref().map(|folder| folder.join(file)),
            topic: claim.topic_id.clone().unwrap_or_else(|| "-".to_owned()),
            turn: Arc::clone(&self.turn),
            suspect: Cell::new(None),
            file: OnceCell::new(),
        };
        let found = mark
            .path
            .as_ref()
            .and_then(|path| fs::read_to_string(path).ok());
        let Some((working, suspect)) = found.and_then(|text| read(&text, &mark.topic)) else {
            return mark;
        };
        let suspect = working.map_or(suspect, |range| {
            let suspect = Suspect::after_death(suspect, &range);
            tracing::warn!(
                pipeline,
                partition = claim.partition,
                from = range.start,
                to = range.end,
                deaths = suspect.deaths,
                alone = suspect.alone,
                "the host died while it ran these records"
            );
            Some(suspect)
        });
        mark.suspect
            .set(suspect.filter(|suspect| suspect.to > claim.next));
        // Counted once.
        mark.write(None);
        mark
    }
}

/// A range in which the host died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    from: i64,
    to: i64,
    /// Deaths before it was run record by record.
    deaths: u32,
    /// Deaths since, at this one record.
    alone: u32,
}

impl Suspect {
    /// What is suspect after a death in `range`.
    fn after_death(before: Option<Self>, range: &Range<i64>) -> Self {
        let met = before.filter(|it| it.from < range.end && range.start < it.to);
        let Some(it) = met else {
            return Self {
                from: range.start,
                to: range.end,
                deaths: 1,
                alone: 0,
            };
        };
        let (from, to) = (it.from.max(range.start), it.to.min(range.end));
        if it.deaths < CAREFUL {
            let deaths = it.deaths + 1;
            return Self {
                from,
                to,
                deaths,
                alone: 0,
            };
        }
        let again = (it.from, it.to) == (range.start, range.end);
        Self {
            from: range.start,
            to: range.end,
            deaths: it.deaths,
            alone: if again { it.alone + 1 } else { 1 },
        }
    }
}

/// The mark of one lane.
#[derive(Debug, Default)]
pub(super) struct Mark {
    path: Option<PathBuf>,
    /// Identity of the topic: offsets of another one say nothing.
    topic: String,
    turn: Arc<Mutex<()>>,
    suspect: Cell<Option<Suspect>>,
    /// Opened by the first batch; `None` where it cannot be.
    file: OnceCell<Option<File>>,
}

impl Mark {
    /// Marks that the lane is at the records `range` until what is returned is dropped: a death before will be known.
    pub(super) async fn working(&self, range: Range<i64>) -> Working<'_> {
        let turn = match self.is_careful(range.start) {
            true => Some(self.turn.lock().await),
            false => None,
        };
        self.write(Some(&range));
        Working {
            mark: self,
            _turn: turn,
        }
    }

    /// Forgets what lies below the position.
    pub(super) fn passed(&self, next: i64) {
        if self.suspect.get().is_some_and(|it| it.to <= next) {
            tracing::info!(next, "went past the records in which the host had died");
            self.suspect.set(None);
        }
    }

    /// Gives a condemned record its tries again: the lane stopped, and somebody who starts it again may have mended what
    /// the host died of.
    pub(super) fn pardon(&self) {
        if let Some(it) = self.suspect.get().filter(|it| it.alone >= CONDEMNED) {
            self.suspect.set(Some(Suspect { alone: 0, ..it }));
            self.write(None);
        }
    }

    /// Where a batch with these offsets has to end because a suspect begins there, or is run record by record.
    pub(super) fn cut(&self, offsets: &[i64]) -> Option<i64> {
        let it = self.suspect.get().filter(|it| it.deaths >= CAREFUL)?;
        let (first, last) = (*offsets.first()?, *offsets.last()?);
        let end = match first < it.from {
            true => it.from,
            false if first < it.to => first + 1,
            false => return None,
        };
        (end <= last).then_some(end)
    }

    /// Why the one record `range` is set aside unseen, if it is.
    pub(super) fn condemned(&self, range: &Range<i64>) -> Option<String> {
        let it = self.suspect.get()?;
        let is_it = (it.from, it.to) == (range.start, range.end) && it.alone >= CONDEMNED;
        is_it.then(|| {
            let (all, alone) = (it.deaths + it.alone, it.alone);
            format!(
                "the host died {all} times while it ran it, {alone} of them with no other record"
            )
        })
    }

    fn is_careful(&self, from: i64) -> bool {
        let suspect = self.suspect.get();
        suspect.is_some_and(|it| it.deaths >= CAREFUL && (it.from..it.to).contains(&from))
    }

    /// Says what the lane is at.
    fn write(&self, working: Option<&Range<i64>>) {
        let Some(path) = &self.path else { return };
        let file = self.file.get_or_init(|| open(path));
        let Some(file) = file else { return };
        let (word, range) = match working {
            Some(range) => ("working", range.clone()),
            None => ("idle", 0..0),
        };
        let it = self.suspect.get().unwrap_or(Suspect {
            from: 0,
            to: 0,
            deaths: 0,
            alone: 0,
        });
        let text = format!(
            "{word} {} {} died {} {} {} {} topic {}",
            range.start, range.end, it.from, it.to, it.deaths, it.alone, self.topic
        );
        let line = format!("{text:<width$}\n", width = LENGTH - 1);
        if let Err(error) = file.write_all_at(line.as_bytes(), 0) {
            tracing::debug!(%error, "mark of a lane not written");
        }
    }
}

impl Drop for Mark {
    /// A lane that ended in order leaves nothing behind, unless it has something to remember.
    fn drop(&mut self) {
        let used = self.file.get().is_some_and(Option::is_some);
        if used && self.suspect.get().is_none() && !std::thread::panicking() {
            self.path.take().map(fs::remove_file);
        }
    }
}

/// A lane at work; what unwinds leaves its mark as a death does.
#[derive(Debug)]
pub(super) struct Working<'a> {
    mark: &'a Mark,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.mark.write(None);
        }
    }
}

fn open(path: &Path) -> Option<File> {
    let open = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut options = File::options();
        options.create(true).truncate(false).write(true).open(path)
    };
    open()
        .inspect_err(|error| {
            tracing::warn!(file = %path.display(), %error, "records that kill the host will not be remembered");
        })
        .ok()
}

/// What a file says, if it is one of ours and of this topic: what was being worked on, and what was suspect before.
fn read(text: &str, topic: &str) -> Option<(Option<Range<i64>>, Option<Suspect>)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [
        word,
        start,
        end,
        "died",
        from,
        to,
        deaths,
        alone,
        "topic",
        of,
    ] = words[..]
    else {
        return None;
    };
    let range = start.parse().ok()?..end.parse().ok()?;
    let suspect = Suspect {
        from: from.parse().ok()?,
        to: to.parse().ok()?,
        deaths: deaths.parse().ok()?,
        alone: alone.parse().ok()?,
    };
    (of == topic).then_some((
        (word == "working").then_some(range),
        (suspect.deaths > 0).then_some(suspect),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::anchor::{Epoch, Ledger};

    fn claim(next: i64, topic: &str) -> Claim {
        Claim {
            partition: 3,
            epoch: Epoch {
                number: 1,
                id: uuid::Uuid::nil(),
            },
            next,
            reserved: next,
            hlc: 0,
            ledger: Ledger::default(),
            cuts: Vec::new(),
            topic_id: Some(topic.to_owned()),
        }
    }

    /// Dies while a lane that stands at `range.start` runs `range`.
    fn die(deaths: &Deaths, range: Range<i64>) {
        let mark = deaths.of("p", &claim(range.start, "t"));
        mark.write(Some(&range));
        std::mem::forget(mark);
    }

    #[test]
    fn three_deaths_make_careful_and_three_more_at_one_record_condemn_it() {
        let folder = tempfile::tempdir().unwrap();
        let deaths = Deaths::remembered_in(&folder.path().join("deaths"));
        let at = |next| deaths.of("p", &claim(next, "t"));
        for range in [0..100, 0..80, 0..90] {
            assert_eq!(at(0).cut(&[0, 1, 2]), None);
            die(&deaths, range);
        }
        let mark = at(0);
        assert_eq!(mark.cut(&[0, 1, 2]), Some(1));
        assert_eq!(mark.cut(&[79, 80]), Some(80));
        assert_eq!((mark.cut(&[80, 81]), mark.cut(&[7])), (None, None));
        drop(mark);
        // Record by record up to 40, again and again.
        for left in (0..3).rev() {
            assert_eq!(at(0).condemned(&(40..41)), None, "{left}");
            die(&deaths, 40..41);
        }
        let mark = at(0);
        assert_eq!(
            mark.cut(&[0, 39, 40, 41]),
            Some(40),
            "what lies before goes on together"
        );
        assert_eq!(mark.cut(&[40, 41]), Some(41));
        assert!(mark.condemned(&(40..41)).unwrap().contains("6 times"));
        assert_eq!(
            (mark.condemned(&(39..40)), mark.condemned(&(40..42))),
            (None, None)
        );
        mark.passed(40);
        assert!(mark.condemned(&(40..41)).is_some());
        mark.passed(41);
        assert_eq!(
            (mark.condemned(&(40..41)), mark.cut(&[40, 41])),
            (None, None)
        );
        drop(mark);
        assert!(
            fs::read_dir(folder.path().join("deaths"))
                .unwrap()
                .next()
                .is_none()
        );
    }

    #[test]
    fn deaths_elsewhere_begin_anew_and_what_was_passed_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let deaths = Deaths::remembered_in(folder.path());
        for n in 0..5 {
            die(&deaths, n * 10..n * 10 + 10);
        }
        assert_eq!(deaths.of("p", &claim(40, "t")).cut(&[40, 41]), None);
        for _ in 0..3 {
            die(&deaths, 40..50);
        }
        assert_eq!(deaths.of("p", &claim(40, "t")).cut(&[40, 41]), Some(41));
        assert_eq!(deaths.of("p", &claim(40, "another")).cut(&[40, 41]), None);
        assert_eq!(deaths.of("p", &claim(50, "t")).cut(&[50, 51]), None);
        // Two records at which it died in turn: neither was it three times in a row.
        for _ in 0..3 {
            die(&deaths, 60..70);
        }
        for at in [61, 62, 61, 62, 61, 62] {
            die(&deaths, at..at + 1);
        }
        assert_eq!(deaths.of("p", &claim(60, "t")).condemned(&(62..63)), None);
    }

    #[test]
    fn whatever_stands_in_the_file_and_wherever_it_cannot_be_the_lane_works() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "",
            "working",
            "working x 9 died 0 0 0 0 topic t",
            "\u{0}\u{0}",
        ] {
            fs::write(folder.path().join("p.3"), text).unwrap();
            let mark = Deaths::remembered_in(folder.path()).of("p", &claim(0, "t"));
            assert_eq!(mark.cut(&[0, 1]), None);
        }
        let nowhere = Deaths::remembered_in(&folder.path().join("p.3"));
        let mark = nowhere.of("p", &claim(0, "t"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        drop(runtime.block_on(mark.working(0..9)));
    }

    #[test]
    fn what_ends_in_order_or_is_dropped_is_no_death_and_a_panic_is() {
        let folder = tempfile::tempdir().unwrap();
        let deaths = Deaths::remembered_in(folder.path());
        let file = folder.path().join("p.3");
        let says = || fs::read_to_string(&file).unwrap_or_default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mark = deaths.of("p", &claim(0, "t"));
        let working = runtime.block_on(mark.working(0..9));
        assert!(says().starts_with("working 0 9 "), "{}", says());
        drop(working);
        assert!(says().starts_with("idle "), "{}", says());
        drop(mark);
        assert!(!file.exists());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mark = deaths.of("p", &claim(0, "t"));
            let _working = runtime.block_on(mark.working(0..9));
            panic!("decode");
        }));
        assert!(outcome.is_err());
        assert!(says().starts_with("working 0 9 "), "{}", says());
    }

    /// Two writes a batch: printed with `--nocapture`.
    #[test]
    fn a_marked_batch_costs_microseconds() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Deaths::remembered_in(folder.path()).of("p", &claim(0, "t"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let rounds = 2_000;
        let begun = std::time::Instant::now();
        runtime.block_on(async {
            for at in 0..rounds {
                drop(mark.working(at..at + 1).await);
            }
        });
        let each = begun.elapsed() / u32::try_from(rounds).unwrap();
        eprintln!("{each:?} a batch");
        assert!(each < std::time::Duration::from_millis(1), "{each:?}");
    }
}
