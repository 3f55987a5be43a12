//! What the three servers have in common: a process, its log, and the wait until it is ready.
//!
//! Owns starting, ending, freezing and the reading of the log. Never knows which server it is: the
//! command, the signs of readiness and the polite signals come from that server's file.

use std::{
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
};

/// How often a starting server is looked at.
const POLL: Duration = Duration::from_millis(10);

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
}

/// One server: running or not, always with the same log.
#[derive(Debug)]
pub(crate) struct Server {
    /// Name and version, for people.
    pub(crate) name: String,
    habits: &'static Habits,
    log: PathBuf,
    process: Option<Process>,
}

impl Server {
    pub(crate) fn new(name: String, habits: &'static Habits, log: PathBuf) -> Server {
        Server { name, habits, log, process: None }
    }

    /// Starts `command`, its output to the log, and waits until `ready` says so. `ready` is given the
    /// process id and what was written to the log since the start.
    pub(crate) fn start(
        &mut self,
        mut command: Command,
        mut ready: impl FnMut(u32, &str) -> bool,
    ) -> Result<(), StartError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(StartError::io("opening the log", &self.log))?;
        let length = log.metadata().map_err(StartError::io("looking at the log", &self.log))?.len();
        let copy = log.try_clone().map_err(StartError::io("sharing the log", &self.log))?;
        command.stdout(copy).stderr(log);
        let program = PathBuf::from(command.get_program());
        let started = Instant::now();
        let mut process =
            Process::spawn(command, self.habits.death).map_err(StartError::io("running", &program))?;
        loop {
            let log = self.log_since(length);
            if ready(process.id(), &log) {
                break;
            }
            if let Some(status) = process.ended().map_err(StartError::io("waiting for", &program))? {
                return Err(StartError::Exited { what: self.name.clone(), status, log: tail(&log) });
            }
            if started.elapsed() > self.habits.ready_within {
                let after = self.habits.ready_within;
                return Err(StartError::NotReady { what: self.name.clone(), after, log: tail(&log) });
            }
            thread::sleep(POLL);
        }
        let ms = started.elapsed().as_millis();
        tracing::info!(server = self.name, pid = process.id(), ms, "local server ready");
        self.process = Some(process);
        Ok(())
    }

    /// Process id, `None` while it is down.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Stops it in good order; kills it when it does not.
    pub(crate) fn halt(&mut self) -> io::Result<()> {
        self.end(self.habits.polite)
    }

    /// Kills it and all its processes at once, as `kill -9` does.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.end(&[])
    }

    /// Freezes or thaws all its processes.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        match &mut self.process {
            Some(process) => process.signal(signal, Whole::Family),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, format!("{} is down", self.name))),
        }
    }

    /// The log file.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    fn end(&mut self, steps: &[(Signal, Duration)]) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let started = Instant::now();
        let status = process.end(steps)?;
        let ms = started.elapsed().as_millis();
        tracing::info!(server = self.name, pid = process.id(), %status, ms, "local server ended");
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
    Err(StartError::Exited { what: what.to_owned(), status: output.status, log: tail(&text) })
}

/// Writes a file, naming it when that fails.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), StartError> {
    fs::write(path, text).map_err(StartError::io("writing", path))
}
