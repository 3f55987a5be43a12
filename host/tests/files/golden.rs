//! Golden files: `NAME.toml` (a manifest with `NAME.describe.json`, else `default.describe.json`) is checked
//! and the outcome compared with `NAME.err`, the findings as a person sees them, or `NAME.ok`, the checked
//! value. `WASMILL_BLESS=1` writes them anew: look at the difference before committing it.

use std::fs;
use std::path::{Path, PathBuf};

use wasmill::config::Config;
use wasmill::manifest::Manifest;
use wasmill::toml_check::{Look, Problems};

#[test]
fn manifests_are_checked_as_written_down() {
    let folder = folder("manifest");
    let default = fs::read_to_string(folder.join("default.describe.json")).unwrap();
    let seen = each(&folder, |text, path| {
        let own = fs::read_to_string(path.with_extension("describe.json"));
        let describe = own.unwrap_or_else(|_| default.clone());
        outcome(Manifest::check(text, &describe))
    });
    assert!(seen.wrong >= 20 && seen.right >= 3, "{seen:?}");
}

#[test]
fn outlines_find_what_the_file_alone_shows() {
    let folder = folder("outline");
    let seen = each(&folder, |text, _| {
        outcome(Manifest::check_without_describe(text))
    });
    assert!(seen.wrong >= 2 && seen.right >= 1, "{seen:?}");
}

#[test]
fn configs_are_checked_as_written_down() {
    let env = |name: &str| (name == "DATABASE_URL").then(|| String::from("postgres://from-env/x"));
    let seen = each(&folder("config"), |text, _| {
        let outcome = outcome(Config::check(text, &env));
        assert!(
            !outcome.text.contains("hunter2"),
            "a secret is shown: {}",
            outcome.text
        );
        outcome
    });
    assert!(seen.wrong >= 12 && seen.right >= 2, "{seen:?}");
}

struct Outcome {
    extension: &'static str,
    text: String,
}

#[derive(Debug, Default)]
struct Seen {
    right: usize,
    wrong: usize,
}

fn outcome<T: std::fmt::Debug>(checked: Result<T, Problems>) -> Outcome {
    match checked {
        Ok(value) => Outcome {
            extension: "ok",
            text: format!("{value:#?}\n"),
        },
        Err(problems) => Outcome {
            extension: "err",
            text: problems.render(Look::Plain),
        },
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Compares every file's outcome with what is written down; all differences in one panic.
fn each(folder: &Path, check: impl Fn(&str, &Path) -> Outcome) -> Seen {
    let bless = std::env::var_os("WASMILL_BLESS").is_some();
    let mut seen = Seen::default();
    let mut different = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for path in files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
    {
        let found = check(&fs::read_to_string(path).unwrap(), path);
        let (right, other) = if found.extension == "ok" {
            (1, "err")
        } else {
            (0, "ok")
        };
        seen.right += right;
        seen.wrong += 1 - right;
        let golden = path.with_extension(found.extension);
        let stale = path.with_extension(other);
        if bless {
            fs::write(&golden, &found.text).unwrap();
            if stale.exists() {
                fs::remove_file(stale).unwrap();
            }
        } else if stale.exists() || fs::read_to_string(&golden).unwrap_or_default() != found.text {
            different.push(format!("{}\n{}", path.display(), found.text));
        }
    }
    assert!(
        different.is_empty(),
        "not as written down (WASMILL_BLESS=1 accepts):\n{}",
        different.join("\n")
    );
    seen
}
