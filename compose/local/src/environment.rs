//! What the environment of this process says: the one place of the crate that reads it.
//!
//! Owns the names of the variables. Never sets one.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// `$WASMILL_CACHE`: where fetched servers and templates are kept.
pub(crate) fn cache() -> Option<PathBuf> {
    folder("WASMILL_CACHE")
}

/// `$XDG_CACHE_HOME/wasmill`, else `~/.cache/wasmill`.
pub(crate) fn user_cache() -> Option<PathBuf> {
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")))?;
    caches.is_absolute().then(|| caches.join("wasmill"))
}

/// `$WASMILL_PG_BIN`: the folder that holds `postgres` and `initdb`.
pub(crate) fn postgres_bin() -> Option<PathBuf> {
    folder("WASMILL_PG_BIN")
}

/// `$JAVA_HOME`.
pub(crate) fn java_home() -> Option<PathBuf> {
    folder("JAVA_HOME")
}

/// Where `program` is in `$PATH`, first to last, symbolic links resolved.
pub(crate) fn on_path(program: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .filter(|file| file.is_file())
        .filter_map(|file| fs::canonicalize(file).ok())
        .collect()
}

/// The first `program` in `$PATH` as it is named there: some programs look at their own name.
pub(crate) fn first_on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| executable(file))
}

fn executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn folder(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
