//! Records that kill the host: remembered beyond its death, narrowed down, and set aside when nothing else can be.
//!
//! While a lane decodes a batch and runs the guest on it, a small file says so: two writes a batch, to the page cache,
//! which outlives the process. A file that still says so when the lane starts again is a death, and only such a one
//! counts, for the release that ran. What kills a host from outside may meet a lane at work too, but hardly six times
//! at one record. A range in which the host died [`CAREFUL`] times is run record by record, one suspect lane of the
//! host at a time, so that the next death has one record to blame; after [`CONDEMNED`] deaths at that one record it
//! becomes a dead letter. A release on trial condemns no record: it is stopped instead, a canary at the first death at
//! one record alone, a shadow, whose mark is a file of its own, before that. A death while a shadow was at work is
//! the shadow's and no lane's.
//!
//! [`Deaths`] is the folder, [`Mark`] one lane's file or its shadow's. A file that cannot be written costs that memory
//! and nothing else.

mod memory;

use std::cell::{OnceCell, RefCell};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use self::memory::{CAREFUL, Memory, NONE, Suspect};
use crate::anchor::Claim;
use crate::error::Error;

/// Further deaths at one record after which it is set aside.
const CONDEMNED: u32 = 3;
/// How the file of a shadow ends.
const SHADOW: &str = ".shadow";

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
        blame_shadows(folder);
        Self {
            folder: Some(folder.into()),
            turn: Arc::default(),
        }
    }

    /// The mark of a lane; counts the death it finds.
    pub(super) fn of(&self, pipeline: &str, claim: &Claim) -> Mark {
        let file = format!("{pipeline}.{}", claim.partition);
        let mark = self.mark(&file, claim);
        mark.passed(claim.next);
        mark
    }

    /// The mark of a lane's shadow; counts the death it finds. Of what it died too often it is not tried on again,
    /// wherever the lane stands by now.
    pub(super) fn of_shadow(&self, pipeline: &str, claim: &Claim) -> Mark {
        self.mark(&format!("{pipeline}.{}{SHADOW}", claim.partition), claim)
    }

    fn mark(&self, file: &str, claim: &Claim) -> Mark {
        let path = self.folder.as_ref().map(|folder| folder.join(file));
        let topic = claim.topic_id.clone().unwrap_or_else(|| NONE.to_owned());
        let found = path.as_ref().and_then(|path| found(path));
        let found = found.filter(|found| found.topic == topic);
        let mut memory = found.unwrap_or(Memory {
            working: None,
            suspect: None,
            topic,
        });
        let died = memory.count();
        let mark = Mark {
            path,
            turn: Arc::clone(&self.turn),
            release: RefCell::new(NONE.into()),
            memory: RefCell::new(memory),
            file: OnceCell::new(),
        };
        if died {
            tell(file, mark.memory.borrow().suspect.as_ref());
            // Counted once.
            mark.write();
        }
        mark
    }
}

fn found(path: &Path) -> Option<Memory> {
    Memory::read(&fs::read_to_string(path).ok()?)
}

fn tell(mark: &str, suspect: Option<&Suspect>) {
    if let Some(it) = suspect {
        tracing::warn!(
            mark,
            release = &*it.release,
            from = it.from,
            to = it.to,
            deaths = it.deaths,
            alone = it.alone,
            "the host died while it ran these records"
        );
    }
}

/// Where a shadow was at work when the host died, the death is its own: lanes that were at work too are taken for
/// innocent. Should one of them be at fault all the same, the shadow is stopped first and the lane found after it.
fn blame_shadows(folder: &Path) {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = files.filter_map(|entry| Some((entry.path(), found(&entry.path())?)));
    let working = found.filter(|(_, memory)| memory.working.is_some());
    let is_shadow = |path: &Path| path.to_string_lossy().ends_with(SHADOW);
    let (shadows, lanes): (Vec<_>, Vec<_>) = working.partition(|(path, _)| is_shadow(path));
    if shadows.is_empty() {
        return;
    }
    for (path, mut memory) in shadows.into_iter().chain(lanes) {
        if is_shadow(&path) {
            memory.count();
            tell(&path.to_string_lossy(), memory.suspect.as_ref());
        }
        memory.working = None;
        if let Err(error) = fs::write(&path, memory.line()) {
            tracing::warn!(file = %path.display(), %error, "a death is not remembered as a shadow's");
        }
    }
}

/// The mark of one lane, or of its shadow.
#[derive(Debug)]
pub(super) struct Mark {
    path: Option<PathBuf>,
    turn: Arc<Mutex<()>>,
    /// The release that runs.
    release: RefCell<Arc<str>>,
    memory: RefCell<Memory>,
    /// Opened by the first batch; `None` where it cannot be.
    file: OnceCell<Option<File>>,
}

impl Default for Mark {
    /// One that remembers nothing.
    fn default() -> Self {
        Self {
            path: None,
            turn: Arc::default(),
            release: RefCell::new(NONE.into()),
            memory: RefCell::new(Memory {
                working: None,
                suspect: None,
                topic: NONE.to_owned(),
            }),
            file: OnceCell::new(),
        }
    }
}

impl Mark {
    /// A release goes on: deaths are counted for it from here on.
    pub(super) fn runs(&self, release: &Arc<str>) {
        *self.release.borrow_mut() = Arc::clone(release);
    }

    /// Marks that the lane is at the records `range` until what is returned is dropped: a death before will be known.
    pub(super) async fn working(&self, range: Range<i64>) -> Working<'_> {
        let turn = match self.is_careful(range.start) {
            true => Some(self.turn.lock().await),
            false => None,
        };
        let release = Arc::clone(&self.release.borrow());
        self.memory.borrow_mut().working = Some((range, release));
        self.write();
        Working {
            mark: self,
            _turn: turn,
        }
    }

    /// Forgets what lies below the position.
    pub(super) fn passed(&self, next: i64) {
        let passed = |it: &mut Suspect| it.to <= next;
        if self.memory.borrow_mut().suspect.take_if(passed).is_some() {
            tracing::info!(next, "went past the records in which the host had died");
            self.write();
        }
    }

    /// Forgets everything: what ran is not wanted any more.
    pub(super) fn forget(&self) {
        self.passed(i64::MAX);
    }

    /// Gives a condemned record its tries again: the lane stopped, and somebody who starts it again may have mended what
    /// the host died of.
    pub(super) fn pardon(&self) {
        let mut memory = self.memory.borrow_mut();
        if let Some(it) = memory.suspect.as_mut().filter(|it| it.alone >= CONDEMNED) {
            it.alone = 0;
            drop(memory);
            self.write();
        }
    }

    /// Where a batch with these offsets has to end because a suspect begins there, or is run record by record.
    pub(super) fn cut(&self, offsets: &[i64]) -> Option<i64> {
        let it = self.suspect().filter(|it| it.deaths >= CAREFUL)?;
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
        let it = self.suspect()?;
        let is_it = (it.from, it.to) == (range.start, range.end) && it.alone >= CONDEMNED;
        is_it.then(|| {
            let (all, alone) = (it.deaths + it.alone, it.alone);
            format!(
                "the host died {all} times while it ran it, {alone} of them with no other record"
            )
        })
    }

    /// Why the release that runs should not go on as a canary: the host died of it at one record alone.
    pub(super) fn fails_canary(&self) -> Option<Error> {
        self.suspect()
            .filter(|it| it.alone > 0)
            .map(|it| kills(&it))
    }

    /// Why the release that runs should not go on as a shadow.
    pub(super) fn fails_shadow(&self) -> Option<Error> {
        let often = |it: &Suspect| it.deaths >= CAREFUL;
        self.suspect().filter(often).map(|it| kills(&it))
    }

    /// What is suspect of the release that runs.
    fn suspect(&self) -> Option<Suspect> {
        let (memory, release) = (self.memory.borrow(), self.release.borrow());
        let its = |it: &&Suspect| it.release == *release;
        memory.suspect.as_ref().filter(its).cloned()
    }

    fn is_careful(&self, from: i64) -> bool {
        let suspect = self.suspect();
        suspect.is_some_and(|it| it.deaths >= CAREFUL && (it.from..it.to).contains(&from))
    }

    /// Says what the lane is at, and what is known.
    fn write(&self) {
        let Some(path) = &self.path else { return };
        let file = self.file.get_or_init(|| open(path));
        let Some(file) = file else { return };
        let line = self.memory.borrow().line();
        if let Err(error) = file.write_all_at(line.as_bytes(), 0) {
            tracing::debug!(%error, "mark of a lane not written");
        }
    }
}

impl Drop for Mark {
    /// A lane that ended in order leaves nothing behind, unless it has something to remember.
    fn drop(&mut self) {
        let used = self.file.get().is_some_and(Option::is_some);
        if used && self.memory.borrow().suspect.is_none() && !std::thread::panicking() {
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
            self.mark.memory.borrow_mut().working = None;
            self.mark.write();
        }
    }
}

/// What a release is stopped for that the host died of.
fn kills(it: &Suspect) -> Error {
    let times = it.deaths + it.alone;
    Error::plugin(
        "run a release on trial",
        format!(
            "the host died {times} times while release {} ran records [{}, {})",
            it.release, it.from, it.to
        ),
    )
    .hint("look at the host's log, and at its core file, for what it died of; then deploy a version that does not")
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

    /// As [`Mark::working`], without waiting for others of the process that is about to die.
    fn begins(mark: Mark, range: Range<i64>) -> Mark {
        let release = Arc::clone(&mark.release.borrow());
        mark.memory.borrow_mut().working = Some((range, release));
        mark.write();
        mark
    }

    /// Dies while a lane that stands at `range.start` runs `range`.
    fn die(deaths: &Deaths, range: Range<i64>) {
        std::mem::forget(begins(deaths.of("p", &claim(range.start, "t")), range));
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

    /// A mark as a lane under `release` has it.
    fn under(mark: Mark, release: &str) -> Mark {
        mark.runs(&release.into());
        mark
    }

    #[test]
    fn a_canary_is_stopped_and_the_release_in_charge_begins_with_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let deaths = Deaths::remembered_in(folder.path());
        let at = |release| under(deaths.of("p", &claim(40, "t")), release);
        for _ in 0..3 {
            assert!(at("new").fails_canary().is_none());
            std::mem::forget(begins(at("new"), 40..50));
        }
        assert_eq!(at("new").cut(&[40, 41]), Some(41));
        assert!(
            at("new").fails_canary().is_none(),
            "others died with it perhaps"
        );
        std::mem::forget(begins(at("new"), 40..41));
        let why = at("new").fails_canary().unwrap();
        assert!(why.to_string().contains("died 4 times"), "{why}");
        assert_eq!(why.blame(), crate::error::Blame::Plugin);
        let stable = at("old");
        assert_eq!(
            (stable.cut(&[40, 41]), stable.condemned(&(40..41))),
            (None, None)
        );
        stable.passed(50);
        drop(stable);
        assert!(at("new").fails_canary().is_none(), "it is past");
    }

    #[test]
    fn a_death_while_a_shadow_was_at_work_is_the_shadow_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let other = Claim {
            partition: 4,
            ..claim(7, "t")
        };
        for died in 0..=3 {
            let deaths = Deaths::remembered_in(folder.path());
            let innocent = under(deaths.of("p", &other), "old");
            assert_eq!(innocent.suspect(), None);
            let lane = under(deaths.of("p", &claim(40, "t")), "old");
            assert_eq!(lane.suspect(), None);
            let shadow = under(deaths.of_shadow("p", &claim(40, "t")), "new");
            assert_eq!(shadow.fails_shadow().is_some(), died == 3, "{died}");
            if died == 3 {
                break;
            }
            for mark in [begins(innocent, 7..8), begins(shadow, 40..50)] {
                std::mem::forget(mark);
            }
        }
        // Also further on: it is not tried anew. Another one is, and the same one after it was given up.
        let deaths = Deaths::remembered_in(folder.path());
        let further = |release| under(deaths.of_shadow("p", &claim(90, "t")), release);
        assert!(further("new").fails_shadow().is_some());
        assert!(further("newer").fails_shadow().is_none());
        further("new").forget();
        assert!(further("new").fails_shadow().is_none());
        // Without a shadow at work a lane's death is its own.
        std::mem::forget(begins(under(deaths.of("p", &other), "old"), 7..8));
        let deaths = Deaths::remembered_in(folder.path());
        assert!(under(deaths.of("p", &other), "old").suspect().is_some());
    }

    #[test]
    fn whatever_stands_in_the_file_and_wherever_it_cannot_be_the_lane_works() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "",
            "working",
            "working x 9 by r died 0 0 0 0 by - topic t",
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
