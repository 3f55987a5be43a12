//! `wasmill plugin …`: write, build, test and look at plugins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Failure, Voice, or_default, report, show, signing};
use crate::author::{self, BuildOptions, Built, Detail, FixtureReport, Golden, Progress, Verdict};
use crate::error::Error;
use crate::manifest::Manifest;
use crate::pipeline::setup;

/// Lines on one fixture unless all are asked for: of failures of the plugin, and of differences.
const SHOWN: usize = 10;

/// Write, build, test and look at plugins.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Plugin {
    /// Start a plugin in a new folder, with the SDK beside it.
    #[command(
        after_help = "Example:\n  wasmill plugin new orders && cd orders && wasmill plugin test"
    )]
    New {
        /// Its name and folder: lowercase letters, digits and dashes.
        name: String,
    },
    /// Build a plugin into one `.wasm` component with its manifest inside.
    #[command(
        after_help = "Examples:\n  wasmill plugin build\n  wasmill plugin build plugins/flights -o flights.wasm"
    )]
    Build {
        /// The plugin's folder; the current one by default.
        folder: Option<PathBuf>,
        /// Where the component goes; NAME.wasm in the folder by default.
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Use only crates that are on this machine.
        #[arg(long)]
        offline: bool,
    },
    /// Run the fixtures of a plugin through the real component and compare with the golden rows.
    #[command(
        after_help = "Examples:\n  wasmill plugin test\n  wasmill plugin test --bless     write what the component returns as the golden rows\n  wasmill plugin test --log wasmill::guest=debug     what the plugin logs, too\n  wasmill plugin test why --component quakes.wasm     run the bundle of a dead letter"
    )]
    Test {
        /// The plugin's folder; the current one by default.
        folder: Option<PathBuf>,
        /// Run this component and build nothing; config.toml in the folder is its configuration.
        #[arg(long, value_name = "FILE")]
        component: Option<PathBuf>,
        /// Replace the golden files by what the component returns now.
        #[arg(long)]
        bless: bool,
        /// Show every difference and all of each value, not only the first ones.
        #[arg(long)]
        full: bool,
        /// Use only crates that are on this machine.
        #[arg(long)]
        offline: bool,
    },
    /// Make a key to sign plugins with: the private half in a file, the public half printed for [[signing]].
    #[command(after_help = "Example:\n  wasmill plugin keygen --out ci.key")]
    Keygen {
        /// The file for the private half; it must not exist.
        #[arg(
            short,
            long,
            value_name = "FILE",
            default_value = "wasmill-signing.key"
        )]
        out: PathBuf,
    },
    /// Sign a component: writes FILE.sig beside it.
    #[command(after_help = "Example:\n  wasmill plugin sign flights.wasm --key ci.key")]
    Sign {
        /// The component.
        file: PathBuf,
        /// The private key that `wasmill plugin keygen` wrote.
        #[arg(short, long, value_name = "KEY")]
        key: PathBuf,
    },
    /// What a component file is: digest, manifest, imports, exports. Runs nothing.
    #[command(after_help = "Example:\n  wasmill plugin inspect flights.wasm --json | jq .digest")]
    Inspect {
        /// The component.
        file: PathBuf,
    },
}

impl Plugin {
    pub(super) fn execute(self, voice: Voice) -> Result<(), Failure> {
        match self {
            Self::New { name } => new(&name, voice),
            Self::Build {
                folder,
                out,
                offline,
            } => {
                let options = BuildOptions {
                    out,
                    offline,
                    colour: report::colour(),
                    pre_release: None,
                };
                let built = build(&or_default(folder, "."), &options)?;
                built_report(&built, voice);
                Ok(())
            }
            Self::Test {
                folder,
                component: Some(component),
                bless,
                full,
                ..
            } => {
                let folder = or_default(folder, ".");
                let values = configuration(&folder)?;
                let component = read_component(&component)?;
                let tested = run_fixtures(&component, &folder, golden(bless), &values)?;
                verdicts(&tested, detail(full), voice)
            }
            Self::Test {
                folder,
                component: None,
                bless,
                full,
                offline,
            } => {
                let folder = or_default(folder, ".");
                let tested = test(&folder, bless, offline)?;
                verdicts(&tested, detail(full), voice)
            }
            Self::Keygen { out } => signing::keygen(&out, voice),
            Self::Sign { file, key } => signing::sign(&file, &key, voice),
            Self::Inspect { file } => inspect(&file, voice),
        }
    }
}

fn new(name: &str, voice: Voice) -> Result<(), Failure> {
    let folder = PathBuf::from(name);
    author::scaffold(&folder, name)?;
    if voice.json {
        report::json(&serde_json::json!({"folder": folder}));
    } else {
        report::line(format_args!(
            "made {name}/: plugin.toml, src/lib.rs, fixtures/ and the SDK in vendor/"
        ));
        report::line(format_args!(
            "next: cd {name} && wasmill plugin test && wasmill plugin build"
        ));
    }
    Ok(())
}

/// Builds with the steps and the compiler's messages on standard error.
pub(super) fn build(folder: &Path, options: &BuildOptions) -> Result<Built, Error> {
    author::build(folder, options, &mut |progress| match progress {
        Progress::Step(step) => eprintln!("{:>9} {step}", report::paint("plugin", "1;32")),
        Progress::Compiler(line) => eprintln!("{line}"),
    })
}

fn built_report(built: &Built, voice: Voice) {
    if voice.json {
        report::json(&serde_json::json!({
            "file": built.path, "size": built.size, "digest": built.facts.digest.to_string(),
            "plugin": format!("{}@{}", built.manifest.name, built.manifest.version), "imports": built.facts.imports,
            "fixtures": built.fixtures, "left_out": built.left_out,
        }));
        return;
    }
    for left_out in &built.left_out {
        eprintln!(
            "{:>9} not embedded: {left_out}",
            report::paint("plugin", "1;33")
        );
    }
    report::line(format_args!(
        "{}@{}: {} ({} KB), {}",
        built.manifest.name,
        built.manifest.version,
        built.path.display(),
        built.size.div_ceil(1000),
        built.facts.digest
    ));
}

fn test(folder: &Path, bless: bool, offline: bool) -> Result<author::Report, Error> {
    let options = BuildOptions {
        out: None,
        offline,
        colour: report::colour(),
        pre_release: None,
    };
    let built = build(folder, &options)?;
    let component = std::fs::read(&built.path)
        .map_err(|error| Error::outside(format!("read {}", built.path.display()), error))?;
    let tested = run_fixtures(&component, folder, golden(bless), &BTreeMap::new())?;
    if bless {
        // The component carries its fixtures: what was blessed has to get into it.
        self::build(folder, &options)?;
    }
    Ok(tested)
}

fn detail(full: bool) -> Detail {
    if full { Detail::Full } else { Detail::Short }
}

fn golden(bless: bool) -> Golden {
    if bless {
        Golden::Bless
    } else {
        Golden::Compare
    }
}

fn read_component(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|error| {
        Error::config(format!("read {}", file.display()), error)
            .hint("name the .wasm that `wasmill plugin build` made")
    })
}

/// The values of `[config]` in the folder's config.toml; none where there is no such file.
fn configuration(folder: &Path) -> Result<BTreeMap<String, toml::Value>, Error> {
    let file = folder.join("config.toml");
    let what = || format!("read {}", file.display());
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(Error::config(what(), error)),
    };
    let mut table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| Error::config(what(), error.message()))?;
    let values = match table.remove("config") {
        Some(toml::Value::Table(values)) => values,
        _ => toml::Table::new(),
    };
    Ok(values.into_iter().collect())
}

/// Runs the fixtures of a plugin's folder through a component.
pub(super) fn run_fixtures(
    component: &[u8],
    folder: &Path,
    golden: Golden,
    values: &BTreeMap<String, toml::Value>,
) -> Result<author::Report, Error> {
    let setup = |manifest: &Manifest| setup::encode("fixtures", "info", manifest, values);
    author::run_fixtures(component, &folder.join("fixtures"), golden, &setup)
}

/// Shows what came of the fixtures.
fn verdicts(tested: &author::Report, detail: Detail, voice: Voice) -> Result<(), Failure> {
    let failed = tested
        .fixtures
        .iter()
        .filter(|fixture| !matches!(fixture.verdict, Verdict::Passed | Verdict::Blessed))
        .count();
    if voice.json {
        let documents = tested.fixtures.iter();
        let documents = documents.map(|fixture| fixture_document(fixture, detail));
        report::json(&documents.collect());
    } else {
        for fixture in &tested.fixtures {
            fixture_lines(fixture, detail).iter().for_each(report::line);
        }
    }
    if tested.passed() {
        return Ok(());
    }
    Err(Error::plugin(
        "test the plugin",
        format!(
            "{failed} of {} failed",
            show::number_of(tested.fixtures.len() as u64, "fixture")
        ),
    )
    .hint("look at the differences; if they are right, `wasmill plugin test --bless`")
    .into())
}

fn verdict(fixture: &FixtureReport) -> &'static str {
    match &fixture.verdict {
        Verdict::Passed => "ok",
        Verdict::Blessed => "blessed",
        Verdict::Differs { .. } => "DIFFERS",
        Verdict::DependsOnBatches { .. } => "DEPENDS ON THE SPLIT",
    }
}

/// What came of a fixture: why the plugin failed, and what is otherwise.
pub(super) fn fixture_lines(fixture: &FixtureReport, detail: Detail) -> Vec<String> {
    let mut lines = vec![format!(
        "fixture {}: {} ({})",
        fixture.name,
        verdict(fixture),
        show::number_of(fixture.records as u64, "record")
    )];
    let faults = fixture.faults.iter().map(|fault| match fault.hint_text() {
        Some(hint) => format!("{fault}\n    hint: {hint}"),
        None => fault.to_string(),
    });
    for told in [faults.collect(), fixture.differences(detail)] {
        lines.extend(first_of(&told, detail));
    }
    lines
}

fn first_of(told: &[String], detail: Detail) -> Vec<String> {
    let most = match detail {
        Detail::Short => SHOWN,
        Detail::Full => told.len(),
    };
    let shown = told.iter().take(most);
    let mut lines: Vec<_> = shown.map(|line| format!("  {line}")).collect();
    if told.len() > most {
        let more = told.len() - most;
        lines.push(format!(
            "  … and {more} more: `wasmill plugin test --full` shows all"
        ));
    }
    lines
}

fn fixture_document(fixture: &FixtureReport, detail: Detail) -> serde_json::Value {
    serde_json::json!({
        "fixture": fixture.name, "records": fixture.records, "verdict": verdict(fixture),
        "faults": fixture.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "differences": fixture.differences(detail),
    })
}

fn inspect(file: &Path, voice: Voice) -> Result<(), Failure> {
    let bytes = read_component(file)?;
    let inspection = author::inspect(&bytes)?;
    if voice.json {
        report::json(&serde_json::json!(inspection));
    } else {
        report::line(format_args!(
            "plugin   {}",
            inspection.plugin.as_deref().unwrap_or("no valid manifest")
        ));
        report::line(format_args!("digest   {}", inspection.digest));
        report::line(format_args!("size     {} bytes", inspection.size));
        report::line(format_args!("imports  {}", inspection.imports.join(", ")));
        report::line(format_args!("exports  {}", inspection.exports.join(", ")));
        if let Some(manifest) = &inspection.manifest {
            report::line(format_args!("manifest\n{manifest}"));
        }
    }
    if let Some(problem) = inspection.problems.first() {
        return Err(Error::plugin(format!("run {}", file.display()), problem)
            .hint("build it again with `wasmill plugin build`")
            .into());
    }
    Ok(())
}

/// The component of a plugin folder, built anew: cargo knows what changed in the plugin and in the SDK.
pub(super) fn ensure_built(folder: &Path, say: &dyn Fn(&str)) -> Result<PathBuf, Failure> {
    say(&format!("plugin    building {}", folder.display()));
    let options = BuildOptions {
        out: None,
        offline: false,
        colour: report::colour(),
        pre_release: None,
    };
    Ok(build(folder, &options)?.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_differences_are_shown_and_all_with_full() {
        let rows = |add: u32| {
            (0..12)
                .map(|id| json!({"id": id, "mag": id + add}))
                .collect::<Vec<_>>()
        };
        let fixture = FixtureReport {
            name: "quakes".to_owned(),
            records: 1,
            verdict: Verdict::Differs {
                wanted: json!({"rows": {"quakes": rows(0)}}),
                found: json!({"rows": {"quakes": rows(1)}}),
            },
            faults: vec![Error::plugin("run the plugin", "boom").hint("do not")],
        };
        let short = fixture_lines(&fixture, Detail::Short);
        assert_eq!(
            short[..4].join("\n"),
            "fixture quakes: DIFFERS (1 record)\n  run the plugin: boom\n    hint: do not\n  \
             rows.quakes[0].mag: wanted 0, found 1\n  rows.quakes[1].mag: wanted 1, found 2"
        );
        assert_eq!(short.len(), 2 + SHOWN + 1);
        assert!(short[2 + SHOWN].contains("and 2 more") && short[2 + SHOWN].contains("--full"));
        assert_eq!(fixture_lines(&fixture, Detail::Full).len(), 2 + 12);
    }
}
