//! The binary and the plugins under test, built by whoever needs them first, so that none is ever stale.
//!
//! The binary comes from `cargo build` into the folder this test was built into; plugins from the binary's own
//! `plugin build`, as an author would build them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{LazyLock, Mutex};

/// The repository's root.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the crate is a folder of the repository")
        .to_owned()
}

/// The folder of the current profile, such as `target/debug`.
fn profile_folder() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a file");
    let folder = own.parent().expect("a file is in a folder");
    let folder = if folder.ends_with("deps") {
        folder.parent().expect("deps is in the profile's folder")
    } else {
        folder
    };
    folder.to_owned()
}

/// Where hosts under test keep compiled plugins. It is addressed by content, so all tests and runs share it, and it
/// goes with the target folder.
pub fn compiled_cache() -> PathBuf {
    profile_folder().join("test-cache")
}

/// A folder for what cargo makes of plugins that a test wrote: kept, so that only their own code is compiled again.
pub fn authors_target() -> PathBuf {
    profile_folder().join("test-authors")
}

/// Runs a command to its end and panics with its output unless it succeeds.
pub fn must(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The program `wasmill`, built in this test's profile. `WASMILL_BIN` names another one.
pub fn binary() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        if let Some(named) = std::env::var_os("WASMILL_BIN") {
            return PathBuf::from(named);
        }
        let folder = profile_folder();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build
            .args([
                "build",
                "--quiet",
                "--package",
                "wasmill",
                "--bin",
                "wasmill",
            ])
            .current_dir(repository());
        // What cargo told this test of its own package: build scripts look at it and would run, and all that stands on
        // them would be compiled, each time a build comes from here and then from a shell.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(name);
            }
        }
        build.env(
            "CARGO_TARGET_DIR",
            folder
                .parent()
                .expect("a profile is below the target folder"),
        );
        if folder.ends_with("release") {
            build.arg("--release");
        }
        must(&mut build);
        folder.join("wasmill")
    });
    &BINARY
}

/// A command of the program, with an environment that no test depends on.
pub fn wasmill() -> Command {
    plain(Command::new(binary()))
}

/// The same as the first argument of another program, which becomes it.
pub fn wasmill_under(mut program: Command) -> Command {
    program.arg(binary());
    plain(program)
}

fn plain(mut command: Command) -> Command {
    command
        .env("NO_COLOR", "1")
        .env_remove("WASMILL_LOG")
        .env_remove("RUST_LOG");
    command
}

/// The component of a plugin folder of the repository, such as `plugins/flights`.
pub fn plugin(folder: &str) -> PathBuf {
    static BUILT: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);
    // Held during the build: cargo would make the others wait anyway.
    let mut built = BUILT
        .lock()
        .expect("nothing panics while building but the test that builds");
    if let Some(file) = built.get(folder) {
        return file.clone();
    }
    let out = profile_folder().join("test-plugins");
    std::fs::create_dir_all(&out).expect("the target folder can be written");
    let name = folder.rsplit('/').next().expect("a path has a last part");
    let file = out.join(format!("{name}.wasm"));
    must(
        wasmill()
            .args(["plugin", "build"])
            .arg(repository().join(folder))
            .arg("--out")
            .arg(&file),
    );
    assert!(
        file.is_file(),
        "plugin build succeeded and left no {}",
        file.display()
    );
    built.insert(folder.to_owned(), file.clone());
    file
}
