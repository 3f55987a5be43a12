//! Which Java runs a server, and the command line that is the same for both.
//!
//! Owns the search: `$JAVA_HOME`, `$PATH`, then where systems put their Javas. Never installs one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{environment, error::StartError, process};

/// Folders of which each entry may be a Java home, with what lies between the entry and the home.
const PLACES: [(&str, &str); 4] = [
    ("/usr/lib/jvm", ""),
    ("/Library/Java/JavaVirtualMachines", "Contents/Home"),
    ("/opt/homebrew/opt", "libexec/openjdk.jdk/Contents/Home"),
    ("/usr/local/opt", "libexec/openjdk.jdk/Contents/Home"),
];

/// A Java that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Java {
    /// The program `java`.
    pub(crate) program: PathBuf,
    /// The full version, such as `17.0.15`.
    pub(crate) version: String,
}

impl Java {
    /// The first Java whose major version `fits`.
    pub(crate) fn find(fits: impl Fn(u32) -> bool) -> Option<Java> {
        let homes = environment::java_home()
            .into_iter()
            .map(|home| home.join("bin/java"));
        let installed = PLACES
            .iter()
            .flat_map(|(folder, below)| entries(Path::new(folder), below));
        homes
            .filter(|program| program.is_file())
            .chain(environment::on_path("java"))
            .chain(installed)
            .filter_map(|program| {
                Some(Java {
                    version: version(&program)?,
                    program,
                })
            })
            .find(|java| major(&java.version).is_some_and(&fits))
    }

    /// `java` with the flags every small server gets: the serial collector and the quick compiler
    /// (half the start time and a third of the memory of the defaults), without what the
    /// environment would add.
    pub(crate) fn command(&self, heap_start_mb: u32, heap_mb: u32) -> Command {
        let mut command = Command::new(&self.program);
        for name in [
            "JAVA_TOOL_OPTIONS",
            "JDK_JAVA_OPTIONS",
            "_JAVA_OPTIONS",
            "CLASSPATH",
        ] {
            command.env_remove(name);
        }
        command.arg(format!("-Xms{}m", heap_start_mb.min(heap_mb)));
        command.arg(format!("-Xmx{heap_mb}m"));
        command.args([
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",
        ]);
        command.current_dir("/");
        command
    }
}

/// All jars of `folder` as a class path, in the order of their names, so that it is the same each time.
pub(crate) fn class_path(folder: &Path) -> Result<String, StartError> {
    let entries = fs::read_dir(folder).map_err(StartError::io("listing", folder))?;
    let mut jars: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .filter(|path| path.ends_with(".jar"))
        .collect();
    jars.sort_unstable();
    Ok(jars.join(":"))
}

/// `java` programs below the entries of `folder`, the highest name first.
fn entries(folder: &Path, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path().join(below).join("bin/java"))
        .filter(|program| program.is_file())
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

/// The version, from the file `release` of the Java home or from the program itself.
fn version(program: &Path) -> Option<String> {
    let home = program.parent()?.parent()?;
    if let Ok(release) = fs::read_to_string(home.join("release"))
        && let Some(line) = release
            .lines()
            .find_map(|line| line.strip_prefix("JAVA_VERSION="))
    {
        return Some(line.trim_matches('"').to_owned());
    }
    let mut command = Command::new(program);
    command.arg("-version");
    let output = process::output(command).ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Some(text.split('"').nth(1)?.to_owned())
}

/// 17 of `17.0.15`, 8 of `1.8.0_402`.
fn major(version: &str) -> Option<u32> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        number => Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read_from_old_and_new_forms() {
        assert_eq!(major("17.0.15"), Some(17));
        assert_eq!(major("1.8.0_402"), Some(8));
        assert_eq!(major("25"), Some(25));
        assert_eq!(major("21-ea"), Some(21));
        assert_eq!(major(""), None);
    }
}
