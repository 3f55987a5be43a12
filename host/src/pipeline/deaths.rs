//! Records that kill the host: remembered beyond its death, narrowed down, and set aside when nothing else can be.
//!
//! While a lane decodes a batch and runs the guest on it, a small file says so: two writes a batch, to the page cache,
//! which outlives the process. A file that still says so when the lane starts again is a death, and only such a one
//! counts, for the release that ran. What kills a host from outside may meet a lane at work too, but hardly six times
//! at one record. A range in which the host died [`CAREFUL`] times is run record by record, one suspect lane of the
//! host at a time, so that the next death has one record to blame; after [`CONDEMNED`] deaths at that one record it
//! becomes a dead letter. A release on trial condemns no record: it is stopped instead, a canary at the first death at
//! one record alone, a shadow, whose mark is a file of its own, at the [`CAREFUL`]th wherever they were. A death while a
//! shadow was at work is the shadow's and no lane's.
//!
//! [`Deaths`] is the folder, [`Mark`] one lane's file or its shadow's. A file that cannot be written costs that memory
//! and nothing else.

mod memory;
#[cfg(test)]
mod tests;

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
        let mark = self.mark(&file, claim, Memory::count);
        mark.passed(claim.next);
        mark
    }

    /// The mark of a lane's shadow; counts the death it finds. Of what it died too often it is not tried on again,
    /// wherever the lane stands by now.
    pub(super) fn of_shadow(&self, pipeline: &str, claim: &Claim) -> Mark {
        let file = format!("{pipeline}.{}{SHADOW}", claim.partition);
        self.mark(&file, claim, |memory| memory.blame(0))
    }

    fn mark(&self, file: &str, claim: &Claim, count: impl Fn(&mut Memory) -> bool) -> Mark {
        let path = self.folder.as_ref().map(|folder| folder.join(file));
        let topic = claim.topic_id.clone().unwrap_or_else(|| NONE.to_owned());
        let found = path.as_ref().and_then(|path| found(path));
        let found = found.filter(|found| found.topic == topic);
        let mut memory = found.unwrap_or(Memory {
            working: None,
            suspect: None,
            topic,
        });
        let died = count(&mut memory);
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

/// Where a shadow was at work when the host died, the death is its release's: lanes that were at work too are taken for
/// innocent. Should one of them be at fault all the same, the shadows are stopped first and the lane is found after that.
/// So that this is soon, a shadow that was at work goes on from the most deaths counted for its release.
fn blame_shadows(folder: &Path) {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = files.filter_map(|entry| Some((entry.path(), found(&entry.path())?)));
    let is_shadow = |path: &Path| path.to_string_lossy().ends_with(SHADOW);
    let (shadows, lanes): (Vec<_>, Vec<_>) = found.partition(|(path, _)| is_shadow(path));
    let counted: Vec<Suspect> = shadows
        .iter()
        .filter_map(|it| it.1.suspect.clone())
        .collect();
    let most = |release: &str| {
        let its = counted.iter().filter(|it| *it.release == *release);
        its.map(|it| it.deaths).max().unwrap_or(0)
    };
    let at_work = |it: &(PathBuf, Memory)| it.1.working.is_some();
    if !shadows.iter().any(at_work) {
        return;
    }
    for (path, mut memory) in shadows.into_iter().chain(lanes).filter(at_work) {
        if is_shadow(&path) {
            let before = memory.working.as_ref().map_or(0, |(_, by)| most(by));
            memory.blame(before);
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
            "the host died {times} times while release {} ran, the last time at records [{}, {})",
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
