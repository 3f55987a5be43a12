//! A child process that never outlives this one.
//!
//! Owns spawning, signals, waiting and the guard that ends a child when this process dies, by whatever
//! cause. Never decides which signal a server wants: that is the server's file. The only file of the
//! crate with `unsafe` code.
//!
//! * Children are spawned by one thread that lives as long as the process. On Linux the guard is
//!   `PR_SET_PDEATHSIG`, which fires when the spawning *thread* ends, so a worker thread must not spawn.
//! * Elsewhere the guard is a shell that reads a pipe of ours and kills the child at its end.
//! * Every child leads its own process group, so that Ctrl-C reaches us first and we choose the order.

#![allow(
    unsafe_code,
    reason = "signals, the death signal and the effective user id have no safe form in std"
)]

use std::{
    fs, io,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::family::{Member, descendants};

/// How often an ending child is looked at; the end of a server is seen this late at most.
const POLL: Duration = Duration::from_millis(5);

/// How long a process may outlive SIGKILL (a large core, a slow disk) before it is an error.
const AFTER_KILL: Duration = Duration::from_secs(20);

/// The signals servers are ended and frozen with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Terminate,
    Interrupt,
    Quit,
    Kill,
    Freeze,
    Thaw,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::Quit => libc::SIGQUIT,
            Signal::Kill => libc::SIGKILL,
            Signal::Freeze => libc::SIGSTOP,
            Signal::Thaw => libc::SIGCONT,
        }
    }
}

/// A running child. Dropping it kills it and its descendants and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    ended: Option<ExitStatus>,
    /// The shell that watches us where the system has no death signal.
    watchdog: Option<Child>,
}

impl Process {
    /// Starts `command`; the system sends `death` to it when this process dies (where there is no
    /// death signal: SIGKILL). Standard input is closed.
    pub(crate) fn spawn(mut command: Command, death: Signal) -> io::Result<Process> {
        command.stdin(Stdio::null()).process_group(0);
        #[cfg(target_os = "linux")]
        die_with_parent(&mut command, death);
        #[cfg(not(target_os = "linux"))]
        let _unused = death;
        let child = on_spawner(command)?;
        let watchdog = if cfg!(target_os = "linux") {
            None
        } else {
            Some(watch(child.id())?)
        };
        Ok(Process {
            child,
            ended: None,
            watchdog,
        })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
            if self.ended.is_some() {
                self.unwatch();
            }
        }
        Ok(self.ended)
    }

    /// Sends `signal` to the process and, when `whole` says so, to its descendants.
    pub(crate) fn signal(&mut self, signal: Signal, whole: Whole) -> io::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let family = match whole {
            Whole::Leader => Vec::new(),
            Whole::Family => descendants(self.id())
                .iter()
                .map(|member| member.pid)
                .collect(),
        };
        for pid in std::iter::once(self.id()).chain(family) {
            send(pid, signal)?;
            if signal == Signal::Freeze {
                stands_still(pid)?;
            }
        }
        Ok(())
    }

    /// Asks with each signal in turn and waits as long as it says; then kills the whole family and
    /// waits until all of it is gone.
    ///
    /// # Errors
    /// A process that outlives SIGKILL by 20 seconds.
    pub(crate) fn end(&mut self, steps: &[(Signal, Duration)]) -> io::Result<ExitStatus> {
        let mut family = descendants(self.id());
        for (signal, patience) in steps {
            self.signal(*signal, Whole::Leader)?;
            // a frozen process acts on nothing but SIGKILL until it is thawed
            self.signal(Signal::Thaw, Whole::Family)?;
            if let Some(status) = self.wait(*patience)? {
                // the leader waits for its children in an orderly stop; a straggler is killed
                wait_gone(&family, Duration::from_secs(1));
                return self.kill_family(&family).map(|()| status);
            }
        }
        if self.ended()?.is_none() {
            family.extend(descendants(self.id()));
            send(self.id(), Signal::Kill)?;
        }
        self.kill_family(&family)?;
        let status = self.wait(AFTER_KILL)?;
        status.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "process {} outlived SIGKILL by {} s",
                    self.id(),
                    AFTER_KILL.as_secs()
                ),
            )
        })
    }

    fn kill_family(&self, family: &[Member]) -> io::Result<()> {
        for member in family.iter().filter(|member| member.runs()) {
            send(member.pid, Signal::Kill)?;
        }
        wait_gone(family, AFTER_KILL);
        Ok(())
    }

    fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if started.elapsed() >= patience {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }

    fn unwatch(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            // it waits for its pipe to close and would then kill a pid that may be somebody else's
            let killed = watchdog.kill().and_then(|()| watchdog.wait());
            if let Err(error) = killed {
                tracing::debug!(%error, "the watchdog of a local server was already gone");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.ended(), Ok(Some(_)))
            && let Err(error) = self.end(&[])
        {
            tracing::warn!(pid = self.id(), %error, "a local server could not be killed");
        }
    }
}

/// Whether a signal is for one process or for all it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    Leader,
    Family,
}

/// Runs `command` to its end and collects what it wrote. It dies with this process.
pub(crate) fn output(mut command: Command) -> io::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    #[cfg(target_os = "linux")]
    die_with_parent(&mut command, Signal::Kill);
    on_spawner(command)?.wait_with_output()
}

/// The effective user id of this process.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail (POSIX).
    unsafe { libc::geteuid() }
}

fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill touches no memory. `pid` is a child of ours that has not been reaped, or a
    // descendant read from /proc a moment ago, and it is positive, so it names one process.
    if unsafe { libc::kill(pid, signal.number()) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // gone in the meantime is what most signals want
    if error.raw_os_error() == Some(libc::ESRCH) {
        Ok(())
    } else {
        Err(error)
    }
}

fn wait_gone(family: &[Member], patience: Duration) {
    let started = Instant::now();
    while family.iter().any(|member| member.runs()) && started.elapsed() < patience {
        thread::sleep(POLL);
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command, death: Signal) {
    let parent = std::process::id();
    let signal = death.number();
    let guard = move || {
        // SAFETY: the closure runs in the child between fork and exec and calls prctl, getppid and
        // _exit only, which are async-signal-safe; it allocates nothing and takes no lock. std runs
        // it after setuid, which would clear the death signal.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            // the parent may have died before prctl: then no signal will ever come
            if libc::getppid().cast_unsigned() != parent {
                libc::_exit(1);
            }
        }
        Ok(())
    };
    // SAFETY: `guard` is async-signal-safe, as said above, and owns what it captures.
    unsafe { command.pre_exec(guard) };
}

/// A shell that kills `pid` when our end of its pipe closes, that is when we die.
fn watch(pid: u32) -> io::Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.args([
        "-c",
        "cat > /dev/null; kill -9 \"$1\"",
        "watchdog",
        &pid.to_string(),
    ]);
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    on_spawner(shell)
}

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

/// The way to the spawning thread; a plain lock, held for the hand-over only.
static SPAWNER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

fn on_spawner(command: Command) -> io::Result<Child> {
    let (reply, answer) = channel();
    {
        let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
        if spawner.is_none() {
            let (jobs, todo) = channel();
            thread::Builder::new()
                .name("local-spawner".into())
                .spawn(move || serve(&todo))?;
            *spawner = Some(jobs);
        }
        let jobs = spawner.as_ref().expect("set just above");
        jobs.send(Job { command, reply })
            .map_err(|_gone| io::Error::other("the spawning thread ended"))?;
    }
    answer
        .recv()
        .map_err(|_gone| io::Error::other("the spawning thread ended"))?
}

fn serve(jobs: &Receiver<Job>) {
    for mut job in jobs {
        let child = job.command.spawn();
        if let Err(unheard) = job.reply.send(child) {
            // nobody waits: do not leave a child behind
            if let Ok(mut child) = unheard.0 {
                let reaped = child.kill().and_then(|()| child.wait());
                tracing::debug!(?reaped, "a child nobody waited for was killed");
            }
        }
    }
}

/// Waits until every thread of a frozen process has stopped: on a busy machine that is some milliseconds after the
/// signal was sent, and a thread that still runs may answer a request.
fn stands_still(pid: u32) -> io::Result<()> {
    let runs = |thread: &fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // behind the name, which may hold anything
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        !stat.is_empty() && !state.starts_with(['T', 't', 'Z', 'X'])
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        // one that ended meanwhile stands still too
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return Ok(());
        };
        if !threads.flatten().any(|thread| runs(&thread)) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    let detail = format!("process {pid} runs 5 s after it was frozen");
    Err(io::Error::new(io::ErrorKind::TimedOut, detail))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn eventually(mut done: impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if done() {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }

    #[test]
    fn a_child_survives_the_thread_that_asked_for_it() {
        let asked = thread::spawn(|| Process::spawn(shell("exec sleep 60"), Signal::Kill).unwrap());
        let mut child = asked.join().unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(child.ended().unwrap(), None);
    }

    #[test]
    fn ending_takes_the_whole_family() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let mut child = Process::spawn(shell("setsid sleep 60 & wait"), Signal::Kill).unwrap();
        assert!(
            eventually(|| descendants(child.id()).len() == 1),
            "the shell starts one sleep"
        );
        let sleeper = descendants(child.id())[0];
        assert!(sleeper.runs());
        child.end(&[]).unwrap();
        assert!(child.ended().unwrap().is_some() && !sleeper.runs());
    }

    #[test]
    fn a_frozen_child_can_be_ended_politely() {
        let mut child = Process::spawn(shell("exec sleep 60"), Signal::Kill).unwrap();
        child.signal(Signal::Freeze, Whole::Family).unwrap();
        // where there is a /proc
        if let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", child.id())) {
            assert!(stat.contains(") T "), "{stat}");
        }
        let started = Instant::now();
        child
            .end(&[(Signal::Terminate, Duration::from_secs(30))])
            .unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_watchdog_kills_when_its_pipe_closes() {
        let mut child = Process::spawn(shell("exec sleep 60"), Signal::Kill).unwrap();
        let mut watchdog = watch(child.id()).unwrap();
        drop(watchdog.stdin.take());
        assert!(watchdog.wait().unwrap().success());
        assert!(eventually(|| child.ended().unwrap().is_some()));
    }

    #[test]
    fn output_is_collected() {
        let output = output(shell("echo out; echo err >&2; exit 3")).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            (&output.stdout[..], &output.stderr[..]),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }
}
