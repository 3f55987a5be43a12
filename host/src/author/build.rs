//! `wasmill plugin build`: a plugin crate becomes one component with its manifest inside.
//!
//! Steps: check `plugin.toml` alone → `cargo build` for wasm32-unknown-unknown → wrap the module as a
//! component → load it and call `describe` → check the manifest against it → embed both and the fixtures → write `NAME.wasm`,
//! whole or not at all. It installs nothing and changes nothing in the project but that file and `target`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wit_component::ComponentEncoder;

use super::{gather_fixtures, pitfalls};
use crate::error::{Blame, Error, Result};
use crate::manifest::{self, Manifest};
use crate::plugin::{Allocation, Engine, EngineOptions, Facts};

const TARGET: &str = "wasm32-unknown-unknown";

/// What `build` is asked for.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Where the component goes; `NAME.wasm` in the project by default.
    pub out: Option<PathBuf>,
    /// Use only crates that are on this machine (`cargo --offline`).
    pub offline: bool,
    /// Let the compiler colour its messages.
    pub colour: bool,
    /// Appended to the version in the embedded manifest as a pre-release, e.g. `dev.3`: builds of one session
    /// become versions of their own. The file in the project stays as it is.
    pub pre_release: Option<String>,
}

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The next step begins.
    Step(&'a str),
    /// One line of cargo's or the compiler's, without its line end.
    Compiler(&'a str),
}

/// A built plugin.
#[derive(Clone, Debug)]
pub struct Built {
    /// Where the component is.
    pub path: PathBuf,
    /// Its size, bytes.
    pub size: u64,
    /// Its digest, imports and exports.
    pub facts: Facts,
    /// The checked manifest.
    pub manifest: Manifest,
    /// Names of the fixtures it carries.
    pub fixtures: Vec<String>,
    /// Why other fixtures of the folder are not in it, one text each.
    pub left_out: Vec<String>,
}

/// Builds the plugin crate in `dir`.
///
/// # Errors
/// Config: `plugin.toml` is missing or wrong, or disagrees with the code. Plugin: it does not compile, or is
/// no plugin. Outside: cargo cannot be started, the disk refuses.
pub fn build(
    dir: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Built> {
    progress(Progress::Step("checking plugin.toml"));
    let mut toml = read_manifest(dir)?;
    let outline = Manifest::check_without_describe(&toml)?;
    if let Some(suffix) = &options.pre_release {
        toml = with_pre_release(&toml, &outline.version, suffix)?;
    }
    progress(Progress::Step("compiling"));
    let module = compile(dir, options, progress)?;
    progress(Progress::Step("wrapping as a component"));
    let component = componentize(&module)?;
    progress(Progress::Step("asking it what it reads and writes"));
    let describe = describe(&component)?;
    let manifest = Manifest::check(&toml, &describe)?;
    let mut whole = manifest::embed(&component, &toml, &describe)?;
    let fixtures = gather_fixtures(&dir.join("fixtures"))?;
    if let Some(section) = &fixtures.section {
        whole = manifest::embed_fixtures(&whole, section)?;
    }
    let facts = Facts::read(&whole)?;
    let path = options
        .out
        .clone()
        .unwrap_or_else(|| dir.join(format!("{}.wasm", outline.name)));
    write(&path, &whole)?;
    Ok(Built {
        path,
        size: whole.len() as u64,
        facts,
        manifest,
        fixtures: fixtures.names,
        left_out: fixtures.left_out,
    })
}

fn read_manifest(dir: &Path) -> Result<String> {
    let path = dir.join("plugin.toml");
    fs::read_to_string(&path).map_err(|error| {
        Error::config(format!("read `{}`", path.display()), error)
            .hint("run this in a plugin's folder, or make one with `wasmill plugin new NAME`")
    })
}

/// The manifest's text with another version; everything else stays to the byte.
fn with_pre_release(toml: &str, version: &semver::Version, suffix: &str) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct File {
        plugin: Section,
    }
    #[derive(serde::Deserialize)]
    struct Section {
        version: toml::Spanned<String>,
    }
    let what = || format!("build version {version} as a pre-release {suffix:?}");
    let mut other = version.clone();
    other.pre = if version.pre.is_empty() {
        semver::Prerelease::new(suffix)
    } else {
        semver::Prerelease::new(&format!("{}.{suffix}", version.pre))
    }
    .map_err(|error| Error::config(what(), error))?;
    let file: File = toml::from_str(toml).map_err(|error| Error::bug(what(), error))?;
    let mut changed = toml.to_owned();
    changed.replace_range(file.plugin.version.span(), &format!("\"{other}\""));
    Ok(changed)
}

/// Runs cargo and returns the core module it made.
fn compile(
    dir: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<u8>> {
    let outside = |error: std::io::Error| Error::outside("compile the plugin", error);
    // A file takes cargo's JSON, so that one thread can read the messages as they come.
    let mut artifacts = tempfile::tempfile().map_err(outside)?;
    let mut child = cargo(dir, options)
        .stdout(artifacts.try_clone().map_err(outside)?)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Error::outside("start cargo", error)
                .hint("install Rust from https://rustup.rs and open a new shell")
        })?;
    let mut said = String::new();
    let stderr = child.stderr.take().expect("asked for a pipe above");
    let read = forward(BufReader::new(stderr), &mut said, progress);
    let status = child.wait().map_err(outside)?;
    read.map_err(outside)?;
    if !status.success() {
        let failed = Error::plugin("compile the plugin", first_error(&said));
        return Err(failed.hint(pitfalls::fix(&said).unwrap_or("fix what the compiler says above")));
    }
    let mut json = String::new();
    artifacts.rewind().map_err(outside)?;
    artifacts.read_to_string(&mut json).map_err(outside)?;
    let module = artifact(&json, dir).ok_or_else(|| {
        Error::plugin(
            "compile the plugin",
            "cargo made no WebAssembly module of this crate",
        )
        .hint("its Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\", \"rlib\"]`")
    })?;
    fs::read(&module).map_err(outside)
}

fn cargo(dir: &Path, options: &BuildOptions) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(dir)
        .args(["build", "--lib", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .arg(if options.colour {
            "--color=always"
        } else {
            "--color=never"
        })
        .stdin(Stdio::null());
    if options.offline {
        command.arg("--offline");
    }
    command
}

fn forward(
    mut from: impl BufRead,
    said: &mut String,
    progress: &mut dyn FnMut(Progress<'_>),
) -> std::io::Result<()> {
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        progress(Progress::Compiler(text.trim_end()));
        said.push_str(&text);
        line.clear();
    }
    Ok(())
}

/// The first line that says `error`, which names the cause; the last one only counts.
fn first_error(said: &str) -> String {
    said.lines()
        .find(|line| line.trim_start().starts_with("error"))
        .map_or_else(|| "cargo failed".to_owned(), |line| line.trim().to_owned())
}

/// The `.wasm` file of the crate in `dir` among cargo's messages.
fn artifact(json: &str, dir: &Path) -> Option<PathBuf> {
    let manifest = fs::canonicalize(dir.join("Cargo.toml")).ok()?;
    json.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| {
            message["manifest_path"]
                .as_str()
                .is_some_and(|path| Path::new(path) == manifest)
        })
        .find_map(|message| {
            message["filenames"]
                .as_array()?
                .iter()
                .filter_map(|name| name.as_str())
                .find(|name| name.ends_with(".wasm"))
                .map(PathBuf::from)
        })
}

/// Wraps a core module as a component.
fn componentize(module: &[u8]) -> Result<Vec<u8>> {
    let encode = || {
        ComponentEncoder::default()
            .validate(true)
            .module(module)?
            .encode()
    };
    encode().map_err(|error| {
        let text = format!("{error:#}");
        let hint = pitfalls::fix(&text).unwrap_or(
            "the crate has to use the attribute `#[plugin]` of wasmill-sdk exactly once",
        );
        Error::plugin("wrap the module as a component", text).hint(hint)
    })
}

fn describe(component: &[u8]) -> Result<String> {
    let engine = Engine::new(EngineOptions {
        allocation: Allocation::OnDemand,
    })?;
    engine
        .load(component, None)
        .and_then(|compiled| compiled.describe())
        .map_err(pitfalls::advised)
}

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.persist(path)?;
        readable(path)
    };
    write().map_err(|error| {
        Error::new(Blame::Outside, format!("write `{}`", path.display()), error)
            .hint("is there room on the disk, and may you write there?")
    })
}

/// Temporary files are ours alone; a plugin is meant to be handed on.
fn readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_pre_release_changes_the_version_and_nothing_else() {
        let toml = "# version = \"1.0.0\"\n[plugin]\nname = \"a\" # é\nversion = '1.0.0' # mine\n";
        let changed = |version: &str, suffix| {
            let toml = toml.replace("1.0.0' #", &format!("{version}' #"));
            with_pre_release(&toml, &version.parse().unwrap(), suffix)
        };
        let wanted =
            "# version = \"1.0.0\"\n[plugin]\nname = \"a\" # é\nversion = \"1.0.0-dev.3\" # mine\n";
        assert_eq!(changed("1.0.0", "dev.3").unwrap(), wanted);
        assert!(
            changed("1.0.0-rc.1", "dev.3")
                .unwrap()
                .contains("\"1.0.0-rc.1.dev.3\"")
        );
        assert!(changed("1.0.0", "no spaces").is_err());
    }
}
