//! [`Jars`]: what a server that runs on Java consists of, fetched through Maven once a version and kept in the cache.

use std::path::PathBuf;

use crate::{
    cache::Cache,
    error::{Missing, StartError},
    maven::{self, Unpack},
    progress::Progress,
};

/// The jars of a server.
pub(crate) struct Jars {
    /// Its name and version, for people.
    pub(crate) server: String,
    /// Where they are in the cache.
    pub(crate) entry: String,
    /// The Maven project that depends on them.
    pub(crate) pom: String,
    /// How much has to be fetched.
    pub(crate) megabytes: u32,
}

impl Jars {
    /// Whether [`Jars::open`] would succeed, short of a failing download.
    pub(crate) fn available(&self) -> Result<(), Missing> {
        let cached = Cache::open().is_ok_and(|cache| cache.found(&self.entry).is_some());
        if cached || maven::found() {
            Ok(())
        } else {
            Err(self.missing())
        }
    }

    /// The folder that holds them.
    pub(crate) fn open(&self, cache: &Cache, progress: &Progress) -> Result<PathBuf, StartError> {
        if let Some(jars) = cache.found(&self.entry) {
            return Ok(jars);
        }
        if !maven::found() {
            return Err(self.missing().into());
        }
        cache.entry(&self.entry, |part| {
            let Self {
                server, megabytes, ..
            } = self;
            progress.say(&format!("fetching {server} ({megabytes} MB)…"));
            maven::fetch(server, &self.pom, part, Unpack::No)
        })
    }

    fn missing(&self) -> Missing {
        Missing {
            server: self.server.clone(),
            what: "its jars are not in the cache and there is no `mvn` to fetch them with".into(),
            hint: "install Maven (Debian: `apt-get install maven`; macOS: `brew install maven`)"
                .into(),
        }
    }
}
