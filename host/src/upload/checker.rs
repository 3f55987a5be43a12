//! [`Checker`]: the host's side of an upload check. It starts the checking process, gives it its limits, reads
//! its answer, and turns every way it can end into one error. It looks at nothing of the upload but its length,
//! so that no file can hurt the host.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use super::examine::{examine, too_large};
use super::report::UploadReport;
use super::signature;
use super::wire::{Answer, Request};
use crate::config::{Ceilings, SigningRule};
use crate::error::{Error, Result};
use crate::manifest::Digest;
use crate::task;

/// Longest component a host takes, bytes.
pub const MAX_COMPONENT: u64 = 32 << 20;
/// Longest answer read, bytes: 256 routes of 1000 columns fit.
const LONGEST_ANSWER: u64 = 64 << 20;
/// How much of its messages is kept, bytes.
const LONGEST_MESSAGES: u64 = 64 << 10;
/// How much of what it said last is shown, bytes.
const LONGEST_MESSAGE: usize = 500;
/// How a line of its messages starts that says what begins.
pub(crate) const STAGE: &str = "wasmill-check: ";
/// `SIGABRT`: Rust's allocator ends a process that gets no memory so.
const SIGABRT: i32 = 6;
/// `SIGKILL`.
const SIGKILL: i32 = 9;
/// `SIGXCPU`: processor time is up.
const SIGXCPU: i32 = 24;

/// Checks at a time: each may take its memory and every core, and a slow one should not hold up the rest.
static TURNS: Semaphore = Semaphore::const_new(2);

/// What one check may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckLimits {
    /// Memory of the process, bytes.
    pub memory: u64,
    /// Processor time, whole seconds, over all its threads.
    pub cpu: Duration,
    /// Time on the clock.
    pub wall: Duration,
    /// Longest component, bytes.
    pub component: u64,
}

impl Default for CheckLimits {
    fn default() -> Self {
        Self {
            memory: 1 << 30,
            cpu: Duration::from_mins(1),
            wall: Duration::from_mins(2),
            component: MAX_COMPONENT,
        }
    }
}

/// Checks uploads.
#[derive(Clone, Debug)]
pub struct Checker {
    /// The program `wasmill`, started as the checking process (`std::env::current_exe()` for a host). `None`:
    /// the check runs in this process, without its limits; for trusted files and tests.
    pub exe: Option<PathBuf>,
    /// What one check may use.
    pub limits: CheckLimits,
    /// Where the host keeps compiled plugins; native code lies there afterwards.
    pub cache: Option<PathBuf>,
    /// The host's ceilings.
    pub ceilings: Ceilings,
    /// Which plugins have to be signed.
    pub signing: Vec<SigningRule>,
}

/// Checks the component in `file` off the current runtime, when fewer than two others are being checked; see
/// [`Checker::check`]. Dropping the future does not end a check that has begun: its limits do.
///
/// # Errors
/// As [`Checker::check`].
pub async fn check(
    checker: &Checker,
    file: PathBuf,
    signature: Option<String>,
) -> Result<UploadReport> {
    let checker = checker.clone();
    let turn = TURNS.acquire().await.expect("it is never closed");
    task::blocking(move || {
        // Held to the end, also when nobody waits for the answer any more.
        let _turn = turn;
        checker.check(&file, signature.as_deref())
    })
    .await?
}

impl Checker {
    /// Checks the component in `file`, and its signature where a rule asks for one: everything that can be
    /// known before it is bound to tables and topics. Its native code lies in the cache afterwards.
    ///
    /// Blocks as long as the limits allow, and must not be called on a thread of an async runtime: see
    /// [`check`].
    ///
    /// # Errors
    /// Plugin: the upload is refused, or made the checking process go past a limit or crash. Config: the cache
    /// folder is open to others. Outside: the process cannot be started.
    pub fn check(&self, file: &Path, signature: Option<&str>) -> Result<UploadReport> {
        let size = std::fs::metadata(file)
            .map_err(|error| Error::config(format!("read `{}`", file.display()), error))?
            .len();
        if size > self.limits.component {
            return Err(too_large(self.limits.component));
        }
        let mut report = match &self.exe {
            None => examine(&self.request(file, None), &mut |_| {})?,
            Some(exe) => self.ask(exe, &self.request(file, Some(std::process::id())))?,
        };
        let digest: Digest = report
            .digest
            .parse()
            .map_err(|error| Error::bug("read the digest of a checked plugin", error))?;
        let signed = signature::verify(&report.name, digest, signature, &self.signing)?;
        report.signed_by = signed;
        if self.cache.is_some() && !report.cached {
            tracing::warn!(
                plugin = report.plugin(),
                "compiled plugin not cached: it is compiled again at every start"
            );
        }
        Ok(report)
    }

    fn request(&self, file: &Path, parent: Option<u32>) -> Request {
        Request {
            file: file.to_owned(),
            cache: self.cache.clone(),
            parent,
            memory: self.limits.memory,
            cpu_seconds: self.limits.cpu.as_secs().max(1),
            component: self.limits.component,
            ceilings: self.ceilings.into(),
        }
    }

    /// Runs the checking process to its end.
    fn ask(&self, exe: &Path, request: &Request) -> Result<UploadReport> {
        // Of its own, so that the process ends with this call and with the thread that makes it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::outside("start a runtime for the upload check", error))?;
        let ended = runtime.block_on(run(exe, request, self.limits.wall))?;
        if let Some(status) = ended.status
            && status.success()
        {
            let answer: Answer = serde_json::from_slice(&ended.answer)
                .map_err(|error| Error::bug("read the answer of the checking process", error))?;
            return answer.into_result().map_err(|error| self.explained(error));
        }
        Err(self.death(&ended))
    }

    /// An allocation that failed inside the compiler comes back as an ordinary error.
    fn explained(&self, error: Error) -> Error {
        let starved = error.detail().contains("Cannot allocate memory")
            || error.detail().contains("os error 12");
        if starved {
            self.out_of_memory(error.what())
        } else {
            error
        }
    }

    fn death(&self, ended: &Ended) -> Error {
        let what = format!("check the plugin ({})", ended.stage());
        let Some(status) = ended.status else {
            return Error::plugin(
                what,
                format!("it took more than {} s", self.limits.wall.as_secs()),
            )
            .hint(
                "make the component smaller: split huge functions, leave out what it does not use",
            );
        };
        let last = ended.last_message();
        match status.signal() {
            // Rust's allocator says so before it ends the process.
            _ if ended.messages.contains("memory allocation of") => self.out_of_memory(&what),
            Some(SIGXCPU) => self.out_of_time(&what),
            // The hard limit follows the soft one; anything else that kills is the machine itself.
            Some(SIGKILL) => Error::outside(
                what,
                "the process was killed: the machine has no memory left, or somebody ended it",
            )
            .hint("upload again when the host has memory to spare"),
            Some(SIGABRT) => Error::plugin(what, format!("the process aborted: {last}"))
                .hint("report the file: no plugin should be able to do that"),
            Some(signal) => Error::plugin(
                what,
                format!("the process crashed with signal {signal}: {last}"),
            )
            .hint("report the file: no plugin should be able to do that"),
            None => Error::plugin(
                what,
                format!(
                    "the process ended with code {}: {last}",
                    status.code().unwrap_or_default()
                ),
            )
            .hint("report the file: no plugin should be able to do that"),
        }
    }

    fn out_of_memory(&self, what: &str) -> Error {
        Error::plugin(
            what,
            format!(
                "it needed more than {} MiB of memory",
                self.limits.memory >> 20
            ),
        )
        .hint("make the component smaller: split huge functions, leave out what it does not use")
    }

    fn out_of_time(&self, what: &str) -> Error {
        Error::plugin(
            what,
            format!(
                "it took more than {} s of processor time",
                self.limits.cpu.as_secs()
            ),
        )
        .hint("make the component smaller: split huge functions, leave out what it does not use")
    }
}

/// How the checking process ended.
struct Ended {
    /// `None`: it was killed because its time on the clock was up.
    status: Option<ExitStatus>,
    answer: Vec<u8>,
    messages: String,
}

impl Ended {
    /// What it was doing.
    fn stage(&self) -> &str {
        self.messages
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(STAGE))
            .unwrap_or("starting")
    }

    /// What it said last, beside its stages: a panic has its place and its message on two lines.
    fn last_message(&self) -> String {
        let plain = |line: &&str| {
            !line.starts_with(STAGE) && !line.starts_with("note:") && !line.trim().is_empty()
        };
        let lines: Vec<&str> = self.messages.lines().filter(plain).collect();
        if lines.is_empty() {
            return "it said nothing".to_owned();
        }
        let mut text = lines[lines.len().saturating_sub(2)..].join(" ");
        text.truncate(text.floor_char_boundary(LONGEST_MESSAGE));
        text
    }
}

async fn run(exe: &Path, request: &Request, wall: Duration) -> Result<Ended> {
    let what = "start the checking process";
    let text = serde_json::to_string(request).map_err(|error| Error::bug(what, error))?;
    let mut child = Command::new(exe)
        .arg("compile-plugin")
        .arg(&request.file)
        .arg("--request")
        .arg(text)
        // It needs nothing of the host's environment, which may hold secrets.
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            Error::outside(format!("{what} `{}`", exe.display()), error)
                .hint("is the program still where it was when the host started?")
        })?;
    let (mut answer, mut messages) = (Vec::new(), Vec::new());
    let status = {
        let stdout = drain(child.stdout.take(), &mut answer, LONGEST_ANSWER);
        let stderr = drain(child.stderr.take(), &mut messages, LONGEST_MESSAGES);
        let all = async { tokio::join!(stdout, stderr, child.wait()).2 };
        match tokio::time::timeout(wall, all).await {
            Ok(status) => Some(status.map_err(|error| Error::outside(what, error))?),
            Err(_) => None,
        }
    };
    if status.is_none() {
        end(&mut child).await?;
    }
    Ok(Ended {
        status,
        answer,
        messages: String::from_utf8_lossy(&messages).into_owned(),
    })
}

async fn end(child: &mut Child) -> Result<()> {
    child
        .kill()
        .await
        .map_err(|error| Error::outside("end the checking process", error))
}

/// Reads a pipe to its end, keeps the last `most` bytes of it.
async fn drain(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, most: u64) {
    let Some(mut from) = from else { return };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut part = vec![0; 64 << 10];
    // A pipe that breaks has ended: what the process ended with is told by its status.
    while let Ok(read @ 1..) = from.read(&mut part).await {
        into.extend_from_slice(&part[..read]);
        if into.len() > most.saturating_mul(2) {
            into.drain(..into.len() - most);
        }
    }
}
