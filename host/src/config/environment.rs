//! The one place that reads the environment and the machine: variables, the config's file, the host name,
//! whether anybody sees colours. Everything after it is pure.

use std::fmt;
use std::fs;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use super::check::{ANY_URL, Surroundings, UrlCheck};
use super::types::Config;
use crate::error::Error;
use crate::toml_check::{Look, MAX_TEXT, Problems};

/// Why a config could not be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The file could not be read.
    Unreadable(Error),
    /// It was read and is wrong; render it for the person.
    Wrong(Problems),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => fmt::Display::fmt(error, f),
            Self::Wrong(problems) => fmt::Display::fmt(problems, f),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unreadable(error) => error,
            LoadError::Wrong(problems) => problems.into(),
        }
    }
}

impl Config {
    /// Reads and checks a config file with this process's environment. Relative paths in it start from its
    /// folder. Blocks on the file. `postgres_url` checks what the adapter will be given.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub fn load(path: &Path, postgres_url: UrlCheck) -> Result<Self, LoadError> {
        let text = read(path).map_err(LoadError::Unreadable)?;
        let around = Surroundings {
            env: &variable,
            base: path.parent().unwrap_or(Path::new("")),
            host_name: host_name(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            postgres_url,
        };
        Self::check_in(&path.display().to_string(), &text, &around).map_err(LoadError::Wrong)
    }
}

/// How variables begin that an overlay may name which was not written on this host.
const FOR_PLUGINS: &str = "WASMILL_PLUGIN_";

impl Config {
    /// Checks an overlay of this host's own config file, with this process's environment.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn own_overlay(
        &self,
        pipeline: &str,
        plugin: &str,
        text: &str,
    ) -> Result<super::types::PipelineConfig, Problems> {
        self.overlay_with(pipeline, plugin, text, &variable)
    }

    /// Checks the overlay of a deployment. Whoever deploys could have a plugin write out what it is given, so of
    /// this process's environment only variables that begin with `WASMILL_PLUGIN_` are there for it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn overlay(
        &self,
        pipeline: &str,
        plugin: &str,
        text: &str,
    ) -> Result<super::types::PipelineConfig, Problems> {
        let allowed = |name: &str| variable(name).filter(|_| name.starts_with(FOR_PLUGINS));
        self.overlay_with(pipeline, plugin, text, &allowed)
    }

    fn overlay_with(
        &self,
        pipeline: &str,
        plugin: &str,
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<super::types::PipelineConfig, Problems> {
        let around = Surroundings {
            env,
            base: Path::new(""),
            host_name: Some(self.host.id.clone()),
            cores: self.host.shards,
            // An overlay has none.
            postgres_url: ANY_URL,
        };
        self.overlay_in(pipeline, plugin, text, &around)
    }
}

/// How findings should be printed to standard error: colour on a terminal unless `NO_COLOR` is set
/// (<https://no-color.org>).
#[must_use]
pub fn look_of_stderr() -> Look {
    if std::io::stderr().is_terminal() && variable("NO_COLOR").is_none_or(|value| value.is_empty())
    {
        Look::Colour
    } else {
        Look::Plain
    }
}

/// One more byte than is looked at is enough to see that a file is too long.
fn read(path: &Path) -> Result<String, Error> {
    let what = || format!("read config {:?}", path.display().to_string());
    let hint = "name the file with -c FILE; `wasmill local` writes local.toml";
    let wrong = |error: std::io::Error| Error::config(what(), error).hint(hint);
    let file = fs::File::open(path).map_err(wrong)?;
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_TEXT + 1).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes).map_err(wrong)?;
    String::from_utf8(bytes)
        .map_err(|error| Error::config(what(), error.utf8_error()).hint("save it as UTF-8"))
}

fn variable(name: &str) -> Option<String> {
    // A name with '=' or NUL names no variable; asking for one may panic on some systems.
    if name.is_empty() || name.contains(['=', '\0']) {
        return None;
    }
    std::env::var(name).ok()
}

/// The kernel's name for this machine, else the configured one.
fn host_name() -> Option<String> {
    let files = ["/proc/sys/kernel/hostname", "/etc/hostname"].map(PathBuf::from);
    let named = |text: String| Some(text.trim().to_owned()).filter(|name| !name.is_empty());
    let mut names = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok().and_then(named));
    names
        .next()
        .or_else(|| variable("HOSTNAME").and_then(named))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::super::types::PluginSource;
    use super::*;
    use crate::error::Blame;

    const CONFIG: &str = "[kafka.main]\nbrokers = \"a:1\"\nsecurity_protocol = \"ssl\"\nca_file = \"ca.pem\"\n\
        [pipeline.p]\nfile = \"plugins/p.wasm\"\n[pipeline.q]\nfile = \"/opt/q.wasm\"\n";

    #[test]
    fn relative_paths_start_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wasmill.toml");
        fs::write(&path, CONFIG).unwrap();
        let config = Config::load(&path, ANY_URL).unwrap();
        assert_eq!(
            config.pipelines[0].plugin,
            PluginSource::File(folder.path().join("plugins/p.wasm"))
        );
        assert_eq!(
            config.pipelines[1].plugin,
            PluginSource::File("/opt/q.wasm".into())
        );
        let ca = config.kafka["main"].security["ssl.ca.location"].expose();
        assert_eq!(Path::new(ca), folder.path().join("ca.pem"));
        assert!(!config.host.id.is_empty() && config.host.shards > 0);
    }

    #[test]
    fn a_file_that_is_not_there_or_wrong_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wasmill.toml");
        let error = Config::load(&path, ANY_URL).unwrap_err();
        assert!(matches!(error, LoadError::Unreadable(_)), "{error:?}");
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(
            Config::load(&path, ANY_URL),
            Err(LoadError::Unreadable(_))
        ));
        fs::write(&path, "[kafak.main]\n").unwrap();
        let error = Error::from(Config::load(&path, ANY_URL).unwrap_err());
        assert_eq!(error.blame(), Blame::Config);
        assert!(
            error.detail().contains("did you mean \"kafka\"?"),
            "{error}"
        );
        assert!(error.what().contains("wasmill.toml"));
    }

    #[test]
    fn a_machine_without_a_usable_name_needs_an_id() {
        let around = Surroundings {
            env: &|_| None,
            base: Path::new("/etc"),
            host_name: Some(String::from("über")),
            cores: 3,
            postgres_url: ANY_URL,
        };
        let problems = Config::check_in("x.toml", "", &around).unwrap_err();
        assert!(
            problems.to_string().contains("add id = \"NAME\" to [host]"),
            "{problems}"
        );
        let config = Config::check_in("x.toml", "host.id = \"a\"", &around).unwrap();
        assert_eq!((config.host.id.as_str(), config.host.shards), ("a", 3));
        assert_eq!(config.host.cache, Path::new("/etc/.wasmill/cache"));
    }

    #[test]
    fn an_uploaded_overlay_sees_no_variable_of_the_host() {
        let config = Config::check(CONFIG.trim(), &|_| Some("x".to_owned())).unwrap();
        // PATH is set wherever tests run.
        let text = "config.a = { env = \"PATH\" }";
        let error = config.overlay("q", "q@1.0.0", text).unwrap_err();
        assert!(error.to_string().contains("PATH"), "{error}");
        let own = config.own_overlay("q", "q@1.0.0", text).unwrap();
        assert!(
            own.config["a"]
                .as_str()
                .is_some_and(|path| !path.is_empty())
        );
        assert_eq!(own.overlay.trim(), "[config.a]\nenv = \"PATH\"");
    }
}
