//! The checks of an upload, in their order: what the file is, its imports, its code, the types of the interface,
//! its manifest against what it describes and what the host gives, its embedded fixtures. The first that fails ends it.
//!
//! Everything here is fed by strangers and may take long: a host runs it in a process of its own (`checker`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

use super::asks;
use super::report::{FixtureRun, UploadReport};
use super::wire::Request;
use crate::author::{EmbeddedFixture, Runner, embedded_fixtures};
use crate::config::Ceilings;
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::pipeline::setup;
use crate::plugin::{Allocation, Compiled, Engine, EngineOptions, LogLevel, PluginSettings};

/// Most fixtures of one upload: each is replayed many times over.
const MOST_FIXTURES: usize = 64;
/// What fixtures believe the pipeline is called.
const PIPELINE: &str = "fixtures";

/// Checks a component and puts its native code into the cache. `stage` hears what begins.
///
/// Blocks, and must not be called on a thread of an async runtime.
///
/// # Errors
/// Plugin: whatever is wrong with the upload. Config: the file or the cache is not to be used. Outside: the
/// machine has nothing left to give.
pub fn examine(request: &Request, stage: &mut dyn FnMut(&str)) -> Result<UploadReport> {
    stage("reading the component");
    let bytes = read(&request.file, request.component)?;
    let engine = Engine::new(EngineOptions {
        allocation: Allocation::OnDemand,
    })?;
    stage("compiling the component");
    let start = Instant::now();
    let compiled = engine.load(&bytes, request.cache.as_deref())?;
    let compile_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    stage("comparing the component with its manifest");
    let embedded = manifest::extract(&bytes)?;
    compiled.check_description(&embedded.describe)?;
    let manifest = embedded.check()?;
    let warnings = asks::check(&manifest, &Ceilings::from(request.ceilings))?;
    let mut report = UploadReport::of(&manifest, compiled.facts(), bytes.len() as u64);
    report.warnings = warnings;
    report.compile_ms = compile_ms;
    report.from_cache = compiled.from_cache();
    report.cached = compiled.cached();
    let fixtures = embedded_fixtures(&bytes)?;
    if !fixtures.is_empty() {
        replay(&fixtures, compiled, &manifest, &mut report, stage)?;
    }
    Ok(report)
}

/// The file, unless it is longer than `most` bytes.
fn read(file: &Path, most: u64) -> Result<Vec<u8>> {
    let unread = |error: std::io::Error| Error::config(format!("read `{}`", file.display()), error);
    let mut bytes = Vec::new();
    let open = fs::File::open(file).map_err(unread)?;
    open.take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    if bytes.len() as u64 > most {
        return Err(too_large(most));
    }
    Ok(bytes)
}

/// The component is longer than a host takes.
pub(super) fn too_large(most: u64) -> Error {
    Error::plugin(
        "read the plugin",
        format!("the file is larger than {} MiB", most >> 20),
    )
    .hint("strip debug information from it, or build it with a smaller run-time")
}

fn replay(
    fixtures: &[EmbeddedFixture],
    compiled: Compiled,
    manifest: &Manifest,
    report: &mut UploadReport,
    stage: &mut dyn FnMut(&str),
) -> Result<()> {
    if fixtures.len() > MOST_FIXTURES {
        return Err(Error::plugin(
            "replay the plugin's fixtures",
            format!(
                "it carries {}, at most {MOST_FIXTURES} are replayed",
                fixtures.len()
            ),
        )
        .hint("put several records into one fixture"));
    }
    let setup = match setup::encode(
        PIPELINE,
        LogLevel::default().as_str(),
        manifest,
        &BTreeMap::new(),
    ) {
        Ok(setup) => setup,
        Err(error) => {
            let why = error.detail();
            report.warnings.push(format!(
                "its fixtures were not replayed, because a configuration value has no default: {why}"
            ));
            return Ok(());
        }
    };
    let settings = PluginSettings::of(manifest, PIPELINE, setup);
    let mut runner = Runner::new(compiled, manifest.clone(), settings)?;
    for fixture in fixtures {
        stage(&format!("replaying fixture {:?}", fixture.name));
        let what = || format!("replay fixture {:?} of {}", fixture.name, report.plugin());
        let done = runner.run_embedded(fixture).map_err(|error| {
            Error::plugin(what(), &error)
                .hint("run `wasmill plugin test`, correct what it shows, then build again")
        })?;
        if let Some(failure) = done.failure() {
            return Err(Error::plugin(what(), failure).hint(
                "run `wasmill plugin test`; if what comes out is right, `wasmill plugin test --bless`, \
                 then build again",
            ));
        }
        report.fixtures.push(FixtureRun {
            name: done.name,
            records: done.records as u64,
        });
    }
    Ok(())
}
