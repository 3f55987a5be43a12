//! What the three servers have in common: a process, its log, and the wait until it is ready.
//!
//! Owns starting, ending, freezing and the reading of the log. Never knows which server it is: the
//! command, the signs of readiness and the polite signals come from that server's file.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::StartError,
    process::{Process, Signal, Whole},
    run_folder::RunFolder,
};

/// How often a starting server is looked at.
const POLL: Duration = Duration::from_millis(10);

/// How long a start waits for the processes of a killed predecessor to let go.
const PREDECESSOR: Duration = Duration::from_secs(10);

/// How much of a log an error carries, in lines.
const LOG_LINES: usize = 25;

/// How a kind of server behaves.
#[derive(Debug)]
pub(crate) struct Habits {
    /// How long it may take to become ready.
    pub(crate) ready_within: Duration,
    /// What it is asked to stop with, and how long each is waited for; SIGKILL follows.
    pub(crate) polite: &'static [(Signal, Duration)],
    /// What the system sends it when this process dies.
    pub(crate) death: Signal,
    /// What it logs when a killed predecessor has not let go of everything yet: it is started again.
    pub(crate) too_early: Option<&'static str>,
}

/// What tells one server from another.
pub(crate) struct Plan {
    /// Name and version, for people.
    pub(crate) name: String,
    /// How its kind behaves.
    pub(crate) habits: &'static Habits,
    /// Its command line, the same at every start.
    pub(crate) command: Box<dyn Fn() -> Command + Send + Sync>,
    /// Whether it takes requests, given its process id and what it has logged since the start.
    pub(crate) ready: Box<Ready>,
}

type Ready = dyn Fn(u32, &str) -> bool + Send + Sync;

/// A server of this crate, whichever: what [`Postgres`](crate::Postgres), [`Kafka`](crate::Kafka) and
/// [`Cassandra`](crate::Cassandra) dereference to. It runs or is down, always with the same data and
/// address. Dropping it ends it and removes its temporary folder.
pub struct LocalServer {
    plan: Plan,
    log: PathBuf,
    // fields drop in this order: the process goes before its folder
    process: Option<Process>,
    folder: RunFolder,
}

impl LocalServer {
    /// Starts the server of `plan` in `folder`.
    pub(crate) fn start(plan: Plan, folder: RunFolder) -> Result<LocalServer, StartError> {
        let log = folder.path().join("log");
        let mut server = LocalServer {
            plan,
            log,
            process: None,
            folder,
        };
        server.launch()?;
        Ok(server)
    }

    /// Name and version, such as `Apache Kafka 4.1.2`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Process id, `None` while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The file it logs to, through all restarts.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The folder of its data, configuration and log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops it in good order, by force when it does not obey, and keeps its data and address for
    /// [`Self::restart`]. Nothing happens when it is down.
    ///
    /// # Errors
    /// A process that cannot be ended.
    pub fn halt(&mut self) -> io::Result<()> {
        self.end(self.plan.habits.polite)
    }

    /// Kills it and all its processes at once, as `kill -9` does, and keeps its data and address for
    /// [`Self::restart`]. Nothing happens when it is down.
    ///
    /// # Errors
    /// A process that cannot be ended.
    pub fn kill(&mut self) -> io::Result<()> {
        self.end(&[])
    }

    /// Freezes all its processes: connections stay open and nothing answers, until [`Self::resume`].
    ///
    /// # Errors
    /// It is down.
    pub fn pause(&mut self) -> io::Result<()> {
        self.signal(Signal::Freeze)
    }

    /// Ends a [`Self::pause`].
    ///
    /// # Errors
    /// It is down.
    pub fn resume(&mut self) -> io::Result<()> {
        self.signal(Signal::Thaw)
    }

    /// Starts it again on the same data and address, after [`Self::halt`] if it runs, and waits until
    /// it is ready.
    ///
    /// # Errors
    /// The server's own error, or that it is not ready in time. It is down then.
    pub fn restart(&mut self) -> Result<(), StartError> {
        self.halt().map_err(|source| StartError::Io {
            what: format!("stopping {}", self.name()),
            source,
        })?;
        self.launch()
    }

    fn launch(&mut self) -> Result<(), StartError> {
        let started = Instant::now();
        loop {
            match (self.launch_once(), self.plan.habits.too_early) {
                (Err(StartError::Exited { log, .. }), Some(sign))
                    if log.contains(sign) && started.elapsed() < PREDECESSOR =>
                {
                    thread::sleep(POLL);
                }
                (result, _) => return result,
            }
        }
    }

    fn launch_once(&mut self) -> Result<(), StartError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(StartError::io("opening the log", &self.log))?;
        let length = log
            .metadata()
            .map_err(StartError::io("looking at the log", &self.log))?
            .len();
        let copy = log
            .try_clone()
            .map_err(StartError::io("sharing the log", &self.log))?;
        let mut command = (self.plan.command)();
        command.stdout(copy).stderr(log);
        let program = PathBuf::from(command.get_program());
        let habits = self.plan.habits;
        let started = Instant::now();
        let mut process =
            Process::spawn(command, habits.death).map_err(StartError::io("running", &program))?;
        loop {
            let log = self.log_since(length);
            if (self.plan.ready)(process.id(), &log) {
                break;
            }
            let what = self.plan.name.clone();
            if let Some(status) = process
                .ended()
                .map_err(StartError::io("waiting for", &program))?
            {
                // what it wrote between the two looks is the reason
                let log = tail(&self.log_since(length));
                return Err(StartError::Exited { what, status, log });
            }
            if started.elapsed() > habits.ready_within {
                return Err(StartError::NotReady {
                    what,
                    after: habits.ready_within,
                    log: tail(&log),
                });
            }
            thread::sleep(POLL);
        }
        let ms = started.elapsed().as_millis();
        tracing::info!(
            server = self.plan.name,
            pid = process.id(),
            ms,
            "local server ready"
        );
        self.process = Some(process);
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        match &mut self.process {
            Some(process) => process.signal(signal, Whole::Family),
            None => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                format!("{} is down", self.plan.name),
            )),
        }
    }

    fn end(&mut self, steps: &[(Signal, Duration)]) -> io::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let started = Instant::now();
        let status = process.end(steps)?;
        let ms = started.elapsed().as_millis();
        tracing::info!(server = self.plan.name, pid = process.id(), %status, ms, "local server ended");
        Ok(())
    }

    fn log_since(&self, offset: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            tracing::debug!(log = %self.log.display(), %error, "the log cannot be read");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl fmt::Debug for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalServer")
            .field("name", &self.plan.name)
            .field("process", &self.process)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        // data that go with it need no good order
        let ended = if self.folder.is_temporary() {
            self.kill()
        } else {
            self.halt()
        };
        if let Err(error) = ended {
            tracing::warn!(server = self.plan.name, %error, "a local server could not be ended");
        }
    }
}

/// The last lines of a program's output.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Runs a program that prepares something and hands back what it wrote.
///
/// # Errors
/// It cannot be run, or it ends with a failure.
pub(crate) fn prepare(what: &str, command: Command) -> Result<String, StartError> {
    let program = PathBuf::from(command.get_program());
    let output = crate::process::output(command).map_err(StartError::io("running", &program))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(StartError::Exited {
        what: what.to_owned(),
        status: output.status,
        log: tail(&text),
    })
}

/// Writes a file, naming it when that fails.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), StartError> {
    fs::write(path, text).map_err(StartError::io("writing", path))
}
