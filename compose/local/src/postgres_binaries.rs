//! Which Postgres is used: an installed one, else one fetched into the cache.
//!
//! Owns the search and the fetched version. Never installs into the system.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::{
    cache::{Cache, remove},
    environment,
    error::{Missing, StartError},
    maven::{self, Unpack},
    progress::Progress,
    server::prepare,
};

const POM: &str = include_str!("files/postgres-pom.xml");

/// The version that is fetched: the newest that is published for all platforms below.
const VERSION: &str = "18.4.0";

/// Folders whose entries `N` or `postgresql@N` hold `bin/postgres`: Debian's, Homebrew's.
const PLACES: [&str; 3] = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"];

const INSTALL: &str = "install Postgres (Debian: `apt-get install postgresql`; macOS: `brew install postgresql@17`), \
     or Maven so that it can be fetched, or set WASMILL_PG_BIN to the folder of `postgres` and `initdb`";

/// Where Postgres comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PostgresSource {
    /// `$WASMILL_PG_BIN`, else the first of `$PATH` and the usual folders, else fetched.
    #[default]
    Any,
    /// Fetched into the cache (15 MB), whatever is installed.
    Fetched,
    /// This folder, which holds `postgres` and `initdb`.
    Bin(PathBuf),
}

/// The folder that holds `postgres` and `initdb`.
pub(crate) fn find(
    source: &PostgresSource,
    cache: &Cache,
    progress: &Progress,
) -> Result<PathBuf, StartError> {
    match source {
        PostgresSource::Bin(folder) => named(folder.clone(), "the folder that was given"),
        PostgresSource::Fetched => fetched(cache, progress),
        PostgresSource::Any => match environment::postgres_bin() {
            Some(folder) => named(folder, "WASMILL_PG_BIN"),
            None => installed().map_or_else(|| fetched(cache, progress), Ok),
        },
    }
}

/// Whether [`find`] would succeed, short of a failing download.
pub(crate) fn available() -> Result<(), Missing> {
    if installed().is_some() || environment::postgres_bin().is_some() {
        return Ok(());
    }
    platform()?;
    if maven::found() {
        Ok(())
    } else {
        Err(missing(
            "no installed Postgres and no `mvn` to fetch one with",
        ))
    }
}

fn named(folder: PathBuf, by: &str) -> Result<PathBuf, StartError> {
    if holds_postgres(&folder) {
        return Ok(folder);
    }
    Err(missing(&format!(
        "{by} names {folder:?}, which does not hold `postgres` and `initdb`"
    ))
    .into())
}

fn installed() -> Option<PathBuf> {
    let on_path = environment::on_path("postgres")
        .into_iter()
        .filter_map(|file| Some(file.parent()?.to_owned()));
    let mut numbered: Vec<(u32, PathBuf)> = PLACES
        .iter()
        .filter_map(|place| fs::read_dir(place).ok())
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name
                .to_str()?
                .trim_start_matches("postgresql@")
                .parse()
                .ok()?;
            Some((number, entry.path().join("bin")))
        })
        .collect();
    numbered.sort_unstable_by(|a, b| b.cmp(a));
    on_path
        .chain(numbered.into_iter().map(|(_, folder)| folder))
        .find(|folder| holds_postgres(folder))
}

fn holds_postgres(folder: &Path) -> bool {
    folder.join("postgres").is_file() && folder.join("initdb").is_file()
}

fn fetched(cache: &Cache, progress: &Progress) -> Result<PathBuf, StartError> {
    let (platform, sum) = platform()?;
    let name = format!("postgres-{VERSION}-{platform}");
    let folder = match cache.found(&name) {
        Some(folder) => folder,
        None if !maven::found() => {
            return Err(missing("no installed Postgres and no `mvn` to fetch one with").into());
        }
        None => cache.entry(&name, |part| {
            progress.say(&format!("fetching Postgres {VERSION} (15 MB)…"));
            fetch(part, platform, sum)
        })?,
    };
    Ok(folder.join("bin"))
}

/// A jar that holds a .txz that holds `bin`, `lib` and `share`.
fn fetch(part: &Path, platform: &str, sum: &str) -> Result<(), StartError> {
    let what = format!("Postgres {VERSION} for {platform}");
    let pom = POM
        .replace("@PLATFORM@", platform)
        .replace("@VERSION@", VERSION);
    let jars = part.join("jar");
    fs::create_dir(&jars).map_err(StartError::io("creating", &jars))?;
    maven::fetch(&what, &pom, &jars, Unpack::Yes)?;

    let jar = jars.join(format!(
        "embedded-postgres-binaries-{platform}-{VERSION}.jar"
    ));
    let bytes = fs::read(&jar).map_err(StartError::io("reading", &jar))?;
    let got: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if got != sum {
        let detail = format!("the sha256 of {jar:?} is {got}, expected {sum}");
        return Err(StartError::Fetch { what, detail });
    }
    let archive = fs::read_dir(&jars)
        .map_err(StartError::io("listing", &jars))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "txz"))
        .ok_or_else(|| StartError::Fetch {
            what: what.clone(),
            detail: "no .txz in the jar".into(),
        })?;
    let mut tar = Command::new("tar");
    tar.args(["--no-same-owner", "-xJf"])
        .arg(&archive)
        .arg("-C")
        .arg(part);
    prepare("tar (with xz: package xz-utils)", tar)?;
    remove(&jars).map_err(StartError::io("removing", &jars))
}

/// The platform as the artifact names it, and the SHA-256 of its jar.
fn platform() -> Result<(&'static str, &'static str), Missing> {
    let musl = cfg!(target_os = "linux")
        && fs::read_dir("/lib").is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with("ld-musl-"))
        });
    Ok(match (std::env::consts::OS, std::env::consts::ARCH, musl) {
        ("linux", "x86_64", false) => (
            "linux-amd64",
            "401d4e69baba9072d3772607710df0d47b39a7632c6b01b2a5f5d85a9514e212",
        ),
        ("linux", "x86_64", true) => (
            "linux-amd64-alpine",
            "fe42b1e2a60eb4c50f6859bf17e933fd87f6ad701a1e72ac54070a67acc58e14",
        ),
        ("linux", "aarch64", false) => (
            "linux-arm64v8",
            "a9ec284923b9a7d2db41509bfb88c3d0eeb9f4aa5e2b29ea0aac5e8dbaf4c335",
        ),
        ("macos", "x86_64", _) => (
            "darwin-amd64",
            "68381ed1488edd337345c6c4bc6ae0c823832a4dd7af8b04656ee5c218c291b5",
        ),
        ("macos", "aarch64", _) => (
            "darwin-arm64v8",
            "ab698c4486a795d2aa8a158b3a41e1201a77e7ff72a6255094cd5900080853c2",
        ),
        (os, arch, musl) => {
            let libc = if musl { " (musl)" } else { "" };
            return Err(missing(&format!(
                "none is installed and none can be fetched for {os} {arch}{libc}"
            )));
        }
    })
}

fn missing(what: &str) -> Missing {
    Missing {
        server: "Postgres".into(),
        what: what.into(),
        hint: INSTALL.into(),
    }
}
