//! The hosts: started, killed, frozen; and watched all the time for an end that nobody asked for, a panic, and what
//! they use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{fs, io};

use wasmill_tests::checker::{Faults, Kind};
use wasmill_tests::host::Host;
use wasmill_tests::{Site, api::Api};

/// How long a host may take to drain.
const DRAIN: Duration = Duration::from_secs(25);

/// The most memory a host may hold, bytes.
pub(crate) const MOST_MEMORY: u64 = 300 << 20;
/// The most descriptors a host may hold.
pub(crate) const MOST_FILES: u64 = 400;

/// What hosts used at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    /// Resident, bytes.
    pub(crate) memory: u64,
    /// Open descriptors.
    pub(crate) files: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    sites: Arc<Vec<Site>>,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    hosts: Vec<Option<Host>>,
    peak: Peak,
    faults: Faults,
}

/// A place in a host's log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) host: usize,
    at: usize,
}

impl Mark {
    /// The beginning of a host's log.
    pub(crate) fn start(host: usize) -> Self {
        Self { host, at: 0 }
    }
}

impl Fleet {
    /// Of these sites; nothing runs yet.
    pub(crate) fn new(sites: Vec<Site>) -> Self {
        let hosts = sites.iter().map(|_| None).collect();
        Self {
            sites: Arc::new(sites),
            running: Arc::new(Mutex::new(Running {
                hosts,
                ..Running::default()
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running
            .lock()
            .expect("whoever holds it does not panic")
    }

    /// Its name.
    pub(crate) fn name(&self, host: usize) -> &str {
        &self.sites[host].id
    }

    /// Its API.
    pub(crate) fn api(&self, host: usize) -> &Api {
        &self.sites[host].api
    }

    /// Those that run.
    pub(crate) fn up(&self) -> Vec<usize> {
        let running = self.lock();
        let all = running.hosts.iter().enumerate();
        all.filter_map(|(index, host)| host.as_ref().map(|_| index))
            .collect()
    }

    /// How many partitions it says it was given and has not been asked to give back.
    pub(crate) fn held(&self, host: usize) -> usize {
        let log = match &self.lock().hosts[host] {
            Some(host) => host.stderr(),
            None => return 0,
        };
        held(&log).len()
    }

    /// Starts one; it may not be ready when this returns.
    pub(crate) fn start(&self, host: usize) {
        let started = self.sites[host].start();
        self.lock().hosts[host] = Some(started);
    }

    /// Kills one; whether it was alive.
    pub(crate) fn kill(&self, host: usize) -> bool {
        let mut running = self.lock();
        let Some(mut victim) = running.hosts[host].take() else {
            return false;
        };
        let alive = victim.alive().is_ok();
        running.uses(&victim);
        if alive {
            victim.kill();
        } else {
            running.ended(self.name(host), &mut victim);
        }
        alive
    }

    /// Sends a signal to one; whether it was alive.
    pub(crate) fn signal(&self, host: usize, name: &str) -> bool {
        let mut running = self.lock();
        let Some(target) = &mut running.hosts[host] else {
            return false;
        };
        let alive = target.alive().is_ok();
        if alive {
            target.signal(name);
        }
        alive
    }

    /// SIGTERM, and the wait for its end; whether it drained as it should.
    pub(crate) fn drain(&self, host: usize) -> bool {
        let Some(mut victim) = self.lock().hosts[host].take() else {
            return false;
        };
        if victim.alive().is_err() {
            self.lock().ended(self.name(host), &mut victim);
            return false;
        }
        self.lock().uses(&victim);
        let begun = Instant::now();
        victim.signal("TERM");
        while victim.alive().is_ok() && begun.elapsed() < DRAIN {
            std::thread::sleep(Duration::from_millis(20));
        }
        let name = self.name(host);
        if victim.alive().is_ok() {
            let text = format!("{name} does not end within {DRAIN:?} of SIGTERM");
            self.lock().faults.add(Kind::Host, text);
            return false;
        }
        let exit = victim.wait(DRAIN);
        if exit.code != Some(0) {
            let text = format!("{name} ended with {:?} after SIGTERM", exit.code);
            self.lock().faults.add(Kind::Host, text);
            return false;
        }
        true
    }

    fn log(&self, host: usize) -> PathBuf {
        self.sites[host].config().with_file_name("host.log")
    }

    /// Where its log ends now.
    pub(crate) fn mark(&self, host: usize) -> Mark {
        let length = fs::metadata(self.log(host)).map_or(0, |file| file.len());
        let at = usize::try_from(length).expect("a log is shorter than memory");
        Mark { host, at }
    }

    /// The ends of all logs.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        (0..self.sites.len()).map(|host| self.mark(host)).collect()
    }

    /// Lines of its log behind a mark.
    pub(crate) fn since(&self, mark: Mark) -> String {
        let bytes = fs::read(self.log(mark.host)).unwrap_or_default();
        String::from_utf8_lossy(&bytes[mark.at.min(bytes.len())..]).into_owned()
    }

    /// Whether a line of any of these logs holds all the words of one of the lists.
    pub(crate) fn said(&self, marks: &[Mark], any: &[&[&str]]) -> bool {
        marks.iter().any(|mark| {
            let log = self.since(*mark);
            let says = |line: &str| {
                any.iter()
                    .any(|all| all.iter().all(|word| line.contains(word)))
            };
            log.lines().any(says)
        })
    }

    /// Copies their logs.
    pub(crate) fn keep_logs(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (host, site) in self.sites.iter().enumerate() {
            let to = folder.join(format!("{}.log", site.id));
            fs::write(to, self.since(Mark::start(host)))?;
        }
        Ok(())
    }

    /// Looks after them all.
    pub(crate) fn look(&self) {
        let mut running = self.lock();
        for host in 0..self.sites.len() {
            let Some(mut one) = running.hosts[host].take() else {
                continue;
            };
            running.uses(&one);
            if one.alive().is_ok() {
                running.hosts[host] = Some(one);
            } else {
                running.ended(self.name(host), &mut one);
            }
        }
    }

    /// What they used at most.
    pub(crate) fn peak(&self) -> Peak {
        self.lock().peak
    }

    /// What went wrong with them, the bounds of memory and descriptors and their logs included (I9, I10).
    pub(crate) fn faults(&self) -> Faults {
        let mut faults = self.lock().faults.clone();
        let peak = self.peak();
        if peak.memory > MOST_MEMORY || peak.files > MOST_FILES {
            faults.add(Kind::Host, format!("a host used {peak:?}"));
        }
        for host in 0..self.sites.len() {
            let log = self.since(Mark::start(host));
            // Other errors are a driver's: a server that is away is the host's daily bread.
            let own = [
                "panicked at",
                " ERROR pipeline stopped",
                " ERROR shard has no runtime",
                " ERROR task of a shard failed",
            ];
            let wrong = |line: &&str| own.iter().any(|words| line.contains(words));
            for line in log.lines().filter(wrong) {
                faults.add(Kind::Host, format!("{}: {line}", self.name(host)));
            }
        }
        faults
    }
}

/// Partitions that the log of a process speaks of as assigned, and not as taken away since.
fn held(log: &str) -> BTreeSet<&str> {
    let mut held = BTreeSet::new();
    for line in log.lines() {
        let Some((head, tail)) = line.split_once("partitions=[") else {
            continue;
        };
        let list = tail.split(']').next().unwrap_or_default();
        let partitions = list.split(", ").filter(|one| !one.is_empty());
        if head.contains(" assigned ") {
            held.extend(partitions);
        } else if head.contains(" revoked ") || head.contains(" lost ") {
            let gone: Vec<&str> = partitions.collect();
            held.retain(|one| !gone.contains(one));
        }
    }
    held
}

impl Running {
    fn uses(&mut self, host: &Host) {
        let usage = host.usage();
        self.peak.memory = self.peak.memory.max(usage.peak_memory);
        let files = fs::read_dir(format!("/proc/{}/fd", host.pid())).map_or(0, Iterator::count);
        self.peak.files = self.peak.files.max(files as u64);
    }

    fn ended(&mut self, name: &str, host: &mut Host) {
        let how = host.alive().err().unwrap_or_default();
        let first = how.lines().next().unwrap_or_default();
        let last: Vec<&str> = how.lines().rev().take(4).collect();
        let text = format!("{name}: {first}; its log ends with {last:?}");
        eprintln!("chaos run: BROKEN {text}");
        self.faults.add(Kind::Host, text);
    }
}
