//! `wasmill run` as a process: what an operator, or a power cut, can do to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::artifact::{wasmill, wasmill_under};

/// How often a process is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Clock ticks a second in `/proc/PID/stat` (`sysconf(_SC_CLK_TCK)` is 100 on every Linux of today).
const TICKS: f64 = 100.0;

/// A running host. Dropping it kills it.
#[derive(Debug)]
pub struct Host {
    child: Child,
    log: PathBuf,
    /// Where this run's part of the log starts, bytes.
    log_start: usize,
}

/// How a host ended.
#[derive(Debug)]
pub struct Exit {
    /// Exit code; `None` for a signal.
    pub code: Option<i32>,
    /// What it wrote to standard error, in this run.
    pub stderr: String,
}

impl Exit {
    /// Holds that it ended by itself over something an operator has to mend (exit code 3), and said all of `words`.
    pub fn refused(&self, words: &[&str]) {
        assert_eq!(self.code, Some(3), "{}", self.stderr);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "{word:?} is not said:\n{}",
                self.stderr
            );
        }
    }
}

/// What a host used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time, seconds.
    pub cpu: f64,
    /// Greatest resident set, bytes; 0 once the process is dead.
    pub peak_memory: u64,
}

impl Host {
    /// Starts `wasmill run` with a config file. Its log, standard error, goes to `host.log` beside it, run after run.
    pub fn start(config: &Path) -> Self {
        Self::spawn(config, wasmill())
    }

    /// The same under a program that becomes the host, such as one that changes what the host sees of the machine.
    pub fn start_under(config: &Path, program: Command) -> Self {
        Self::spawn(config, wasmill_under(program))
    }

    fn spawn(config: &Path, mut command: Command) -> Self {
        let log = config.with_file_name("host.log");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let log_start = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let out = File::options()
            .create(true)
            .append(true)
            .open(config.with_file_name("host.out"))
            .unwrap();
        command
            .arg("run")
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(file);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            child,
            log,
            log_start,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and what it had used: its last breath is waited for.
    pub fn kill(mut self) -> Usage {
        let mut usage = self.usage();
        self.child.kill().unwrap();
        let start = Instant::now();
        // A dead process keeps its times until it is waited for.
        while !matches!(stat(self.pid()), Some(('Z', _)) | None)
            && start.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(PAUSE);
        }
        usage.cpu = self.usage().cpu.max(usage.cpu);
        self.child.wait().unwrap();
        usage
    }

    /// Sends a signal by name, such as `TERM`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status()
            .unwrap();
        assert!(sent.success(), "kill -{name} {}", self.pid());
    }

    /// SIGTERM, and how it ended.
    pub fn stop(self, within: Duration) -> Exit {
        self.signal("TERM");
        self.wait(within)
    }

    /// Waits for its end; panics with its log when that takes longer than `within`.
    pub fn wait(mut self, within: Duration) -> Exit {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return self.exit(status);
            }
            assert!(
                start.elapsed() < within,
                "the host still runs after {within:?}:\n{}",
                self.stderr()
            );
            std::thread::sleep(PAUSE);
        }
    }

    fn exit(&self, status: ExitStatus) -> Exit {
        Exit {
            code: status.code(),
            stderr: self.stderr(),
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// How it ended.
    pub fn alive(&mut self) -> Result<(), String> {
        match self.child.try_wait().unwrap() {
            None => Ok(()),
            Some(status) => Err(format!("the host ended with {status}:\n{}", self.stderr())),
        }
    }

    /// What this run has written to standard error so far.
    pub fn stderr(&self) -> String {
        let bytes = fs::read(&self.log).unwrap();
        String::from_utf8_lossy(&bytes[self.log_start.min(bytes.len())..]).into_owned()
    }

    /// Its resident set now, bytes; 0 once the process is dead.
    pub fn resident(&self) -> u64 {
        kilobytes(self.pid(), "VmRSS:") * 1024
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        Usage {
            cpu: stat(self.pid()).map_or(0.0, |(_, cpu)| cpu),
            peak_memory: kilobytes(self.pid(), "VmHWM:") * 1024,
        }
    }
}

/// A line of `/proc/PID/status` in kB; 0 where there is none.
fn kilobytes(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

/// State and CPU seconds of a process (proc(5): fields 3, 14 and 15; the name in field 2 may hold anything).
fn stat(pid: u32) -> Option<(char, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = text.rsplit_once(") ")?.1;
    let fields: Vec<&str> = after.split(' ').collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some((fields[0].chars().next()?, ticks / TICKS))
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            let log = self.stderr();
            let from = log.char_indices().rev().nth(6000).map_or(0, |(at, _)| at);
            eprintln!("--- the host's log ends with:\n{}", &log[from..]);
        }
    }
}
