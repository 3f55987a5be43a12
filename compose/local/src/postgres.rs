//! A real Postgres on this machine.
//!
//! Owns the template data folder, the command line and the connection strings. Who may connect:
//! through the socket only this user (its folder is closed to others); over TCP, when that is asked
//! for, every user of this machine, without a password. Never listens beyond loopback.

use std::{
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{
    cache::Cache,
    error::{Missing, StartError},
    port::Port,
    postgres_binaries::{self, PostgresSource},
    process::Signal,
    progress::Progress,
    run_folder::{Folder, RunFolder, copy_tree},
    server::{Habits, LocalServer, Plan, prepare},
    user::User,
};

/// Interrupt is Postgres' fast shutdown (a checkpoint), quit its immediate one (recovery at the next start).
const HABITS: Habits = Habits {
    ready_within: Duration::from_secs(60),
    polite: &[
        (Signal::Interrupt, Duration::from_secs(15)),
        (Signal::Quit, Duration::from_secs(5)),
    ],
    death: Signal::Quit,
    // "pre-existing shared memory block is still in use": processes of a killed server are still there
    too_early: Some("shared memory block"),
};

/// The longest socket path that fits the address of every system (104 bytes on macOS, 108 on Linux).
const SOCKET_PATH: usize = 100;

/// The port that names the socket when there is no TCP.
const SOCKET_PORT: u16 = 5432;

/// How clients reach the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket that only this user can open.
    #[default]
    Socket,
    /// The socket, and a free port of 127.0.0.1 without a password.
    Loopback,
}

/// What a Postgres should be like.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Whether a commit waits for the disk. With `false` it waits for the operating system only:
    /// commits survive [`LocalServer::kill`] but not a power cut. For throw-away data.
    pub durable: bool,
    /// How clients reach it.
    pub listen: Listen,
    /// Where its programs come from.
    pub source: PostgresSource,
    /// Where its data are.
    pub folder: Folder,
    /// Connections at once.
    pub max_connections: u16,
    /// Further server parameters, such as `("log_statement", "all")`; they win over ours.
    pub parameters: Vec<(String, String)>,
    /// Told what takes long.
    pub progress: Progress,
}

impl Default for PostgresOptions {
    fn default() -> PostgresOptions {
        PostgresOptions {
            durable: true,
            listen: Listen::default(),
            source: PostgresSource::default(),
            folder: Folder::default(),
            max_connections: 100,
            parameters: Vec::new(),
            progress: Progress::default(),
        }
    }
}

/// A Postgres with the superuser and the database `postgres`; a [`LocalServer`].
#[derive(Debug)]
pub struct Postgres {
    // fields drop in this order: the process goes before its socket
    server: LocalServer,
    port: Option<Port>,
    sockets: Sockets,
}

impl Postgres {
    /// Whether a Postgres can be started here, short of a failing download.
    ///
    /// # Errors
    /// What to install.
    pub fn available() -> Result<(), Missing> {
        User::not_root()?;
        postgres_binaries::available()
    }

    /// Starts one and waits until it answers: some 50 ms, the very first time some seconds more.
    ///
    /// # Errors
    /// No Postgres can be found or fetched, the folder is in use, or the server's own error.
    pub fn start(options: &PostgresOptions) -> Result<Postgres, StartError> {
        let user = User::not_root()?;
        let cache = Cache::open_for_others()?;
        let bin = postgres_binaries::find(&options.source, &cache, &options.progress)?;
        let version = version(&bin)?;
        let folder = RunFolder::open(&options.folder, &cache, user)?;
        let data =
            folder.data(|data| copy_tree(&template(&cache, &bin, &version, user)?, data, user))?;
        let port = match options.listen {
            Listen::Socket => None,
            Listen::Loopback => Some(Port::free(&cache)?),
        };
        let sockets = Sockets::open(folder.path(), user)?;
        let number = port.as_ref().map_or(SOCKET_PORT, Port::number);
        let arguments = arguments(options, &data, sockets.path(), number);
        let status = data.join("postmaster.pid");
        let plan = Plan {
            name: version,
            habits: &HABITS,
            command: Box::new(move || {
                let mut command = program(&bin.join("postgres"), user);
                command.args(&arguments);
                command
            }),
            ready: Box::new(move |pid, _log| is_ready(&status, pid)),
        };
        Ok(Postgres {
            server: LocalServer::start(plan, folder)?,
            port,
            sockets,
        })
    }

    /// How to connect: `postgres://…` over TCP when it listens there, else [`Self::socket_url`].
    #[must_use]
    pub fn url(&self) -> String {
        match self.tcp_address() {
            Some(address) => format!("postgres://postgres@{address}/postgres"),
            None => self.socket_url(),
        }
    }

    /// How to connect over the Unix socket, as `key=value` words.
    #[must_use]
    pub fn socket_url(&self) -> String {
        let port = self.port.as_ref().map_or(SOCKET_PORT, Port::number);
        let folder = self
            .sockets
            .path()
            .display()
            .to_string()
            .replace('\\', "\\\\")
            .replace('\'', "\\'");
        format!("host='{folder}' port={port} user=postgres dbname=postgres")
    }

    /// Where it listens on TCP, if it does. The same after a restart.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.port.as_ref().map(Port::address)
    }

    /// Stops it in good order; a temporary folder goes, a kept one stays.
    ///
    /// # Errors
    /// A process that cannot be ended.
    pub fn stop(mut self) -> io::Result<()> {
        self.server.halt()
    }
}

impl Deref for Postgres {
    type Target = LocalServer;

    fn deref(&self) -> &LocalServer {
        &self.server
    }
}

impl DerefMut for Postgres {
    fn deref_mut(&mut self) -> &mut LocalServer {
        &mut self.server
    }
}

/// The folder of the Unix socket: the server's own, or a short one where its path is too long.
#[derive(Debug)]
enum Sockets {
    Own(PathBuf),
    Short(tempfile::TempDir),
}

impl Sockets {
    fn open(folder: &Path, user: User) -> Result<Sockets, StartError> {
        if folder.as_os_str().len() + "/.s.PGSQL.65535".len() <= SOCKET_PATH {
            return Ok(Sockets::Own(folder.to_owned()));
        }
        let short = Path::new("/tmp");
        let made = tempfile::Builder::new()
            .prefix("wasmill-")
            .tempdir_in(short)
            .map_err(StartError::io("creating a socket folder in", short))?;
        user.give(made.path())
            .map_err(StartError::io("changing the owner of", made.path()))?;
        Ok(Sockets::Short(made))
    }

    fn path(&self) -> &Path {
        match self {
            Sockets::Own(path) => path,
            Sockets::Short(made) => made.path(),
        }
    }
}

/// The server writes its state to the eighth line of postmaster.pid (src/include/utils/pidfile.h);
/// a file of a killed predecessor has another process id in the first.
fn is_ready(status: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(status) else {
        return false;
    };
    let mut lines = text.lines().map(str::trim);
    lines.next() == Some(pid.to_string().as_str()) && lines.nth(6) == Some("ready")
}

fn arguments(options: &PostgresOptions, data: &Path, sockets: &Path, port: u16) -> Vec<OsString> {
    let mut parameters: Vec<(&str, String)> = vec![
        ("port", port.to_string()),
        (
            "listen_addresses",
            if options.listen == Listen::Loopback {
                "127.0.0.1"
            } else {
                ""
            }
            .to_owned(),
        ),
        ("unix_socket_permissions", "0700".into()),
        ("max_connections", options.max_connections.to_string()),
        ("shared_buffers", "64MB".into()),
        ("max_wal_size", "256MB".into()),
        ("log_min_messages", "warning".into()),
    ];
    if !options.durable {
        // commits still reach the operating system, so that `kill` loses none
        parameters.push(("fsync", "off".into()));
    }
    parameters.extend(
        options
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    );
    let mut arguments: Vec<OsString> = vec!["-D".into(), data.into(), "-k".into(), sockets.into()];
    for (name, value) in parameters {
        arguments.push("-c".into());
        arguments.push(format!("{name}={value}").into());
    }
    arguments
}

/// A data folder as initdb leaves it, made once a binary; starts copy it.
fn template(cache: &Cache, bin: &Path, version: &str, user: User) -> Result<PathBuf, StartError> {
    // builds of one version may differ in what their data folders need
    let mut key = Sha256::new();
    key.update(version.as_bytes());
    key.update(bin.as_os_str().as_encoded_bytes());
    key.update(format!("{user:?}"));
    let key: String = key
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let entry = cache.entry(&format!("postgres-data-{key}"), |part| {
        let data = part.join("data");
        user.create_dir(&data)
            .map_err(StartError::io("creating", &data))?;
        let mut initdb = program(&bin.join("initdb"), user);
        initdb
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        // small log segments make small copies; the template itself need not survive a power cut
        initdb.args(["--no-locale", "--wal-segsize=4", "--no-sync"]);
        prepare("initdb", initdb).map(drop)
    })?;
    Ok(entry.join("data"))
}

fn version(bin: &Path) -> Result<String, StartError> {
    let mut command = Command::new(bin.join("postgres"));
    command.arg("--version");
    Ok(prepare("postgres", command)?.trim().to_owned())
}

/// A program of Postgres, run as `user` and untouched by the variables that configure clients.
fn program(path: &Path, user: User) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .current_dir("/");
    user.run(&mut command);
    command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn ready_is_the_state_of_this_process() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "12\n/d\n17\n5432\n/s\n\n  1 2\nready   \n").unwrap();
        assert!(is_ready(file.path(), 12));
        assert!(!is_ready(file.path(), 13), "the file of a predecessor");
        fs::write(file.path(), "12\n/d\n17\n5432\n/s\n\n  1 2\nstarting\n").unwrap();
        assert!(!is_ready(file.path(), 12));
        assert!(!is_ready(Path::new("/nonexistent"), 12));
    }

    #[test]
    fn only_throw_away_servers_skip_the_disk() {
        let words = |durable| {
            let options = PostgresOptions {
                durable,
                ..PostgresOptions::default()
            };
            format!(
                "{:?}",
                arguments(&options, Path::new("/d"), Path::new("/s"), 1)
            )
        };
        assert!(words(false).contains("fsync=off"));
        assert!(!words(true).contains("off"));
    }
}
