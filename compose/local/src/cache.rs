//! The folder of things that are made once: fetched servers, templates of data folders.
//!
//! Owns where it is, who may use it and that two processes never build the same entry at once. An
//! entry appears whole or not at all: it is built aside under a lock and renamed, and its number of
//! files is kept beside it, so that one a cleaner of temporary files has eaten into is built again.
//! Never holds anything that cannot be made again.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{environment, error::StartError, process::effective_user};

/// A cache folder that exists and is ours.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$WASMILL_CACHE`, else `$XDG_CACHE_HOME/wasmill` or `~/.cache/wasmill`.
    pub(crate) fn open() -> Result<Cache, StartError> {
        match environment::cache().or_else(environment::user_cache) {
            Some(root) => Cache::at(root),
            None => Cache::shared(),
        }
    }

    /// The same, unless we are root and other users cannot reach it: then a folder of root's that
    /// they can read.
    pub(crate) fn open_for_others() -> Result<Cache, StartError> {
        let cache = Cache::open()?;
        if effective_user() != 0 || reachable_by_all(&cache.root) {
            Ok(cache)
        } else {
            Cache::shared()
        }
    }

    /// A cache in `root`, made if it is not there.
    pub(crate) fn at(root: PathBuf) -> Result<Cache, StartError> {
        fs::create_dir_all(&root).map_err(StartError::io("creating the cache folder", &root))?;
        let root =
            fs::canonicalize(&root).map_err(StartError::io("resolving the cache folder", &root))?;
        Ok(Cache { root })
    }

    /// A folder under /var/tmp, which everybody may write: programs are run from it, so it is used
    /// only if it is ours and nobody else can change it.
    fn shared() -> Result<Cache, StartError> {
        let me = effective_user();
        let root = PathBuf::from(format!("/var/tmp/wasmill-{me}"));
        match fs::create_dir(&root) {
            Ok(()) => fs::set_permissions(&root, fs::Permissions::from_mode(0o755))
                .map_err(StartError::io("opening to readers", &root))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StartError::io("creating the cache folder", &root)(error)),
        }
        let found = fs::symlink_metadata(&root).map_err(StartError::io("looking at", &root))?;
        if !found.is_dir() || found.uid() != me || found.mode() & 0o022 != 0 {
            let why = "it is not a folder that belongs to this user alone".to_owned();
            return Err(StartError::Folder { path: root, why });
        }
        Ok(Cache { root })
    }

    /// A folder of the cache, made if it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, StartError> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).map_err(StartError::io("creating", &path))?;
        Ok(path)
    }

    /// The entry `name` if it is there and whole.
    pub(crate) fn found(&self, name: &str) -> Option<PathBuf> {
        let path = self.root.join(name);
        let expected: usize = fs::read_to_string(self.marker(name))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        (count(&path).ok()? == expected).then_some(path)
    }

    /// The entry `name`; if it is not there, `build` fills the empty folder it is given. One process
    /// builds, others wait.
    ///
    /// # Errors
    /// Those of `build`, after which there is no entry, and those of the file system.
    pub(crate) fn entry(
        &self,
        name: &str,
        build: impl FnOnce(&Path) -> Result<(), StartError>,
    ) -> Result<PathBuf, StartError> {
        if let Some(path) = self.found(name) {
            return Ok(path);
        }
        let _building = lock(&self.root.join(format!("{name}.lock")))?;
        if let Some(path) = self.found(name) {
            return Ok(path);
        }
        let (path, part) = (
            self.root.join(name),
            self.root.join(format!(".part-{name}")),
        );
        // whatever a builder that died has left, or what is no longer whole
        for old in [&path, &part] {
            remove(old).map_err(StartError::io("removing the remains of", old))?;
        }
        fs::create_dir(&part).map_err(StartError::io("creating", &part))?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755))
            .map_err(StartError::io("opening to readers", &part))?;
        if let Err(error) = build(&part) {
            if let Err(left) = remove(&part) {
                tracing::debug!(error = %left, path = %part.display(), "left behind in the cache");
            }
            return Err(error);
        }
        let files = count(&part).map_err(StartError::io("counting the files of", &part))?;
        fs::rename(&part, &path).map_err(StartError::io("putting in place", &path))?;
        let marker = self.marker(name);
        fs::write(&marker, files.to_string()).map_err(StartError::io("writing", &marker))?;
        Ok(path)
    }

    fn marker(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.files"))
    }
}

/// Waits for the lock on the file `path`; it is held until the file is dropped, however we end.
pub(crate) fn lock(path: &Path) -> Result<File, StartError> {
    let file = File::create(path).map_err(StartError::io("opening the lock", path))?;
    file.lock().map_err(StartError::io("locking", path))?;
    Ok(file)
}

/// Removes a folder and all that is in it; it may be gone already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn reachable_by_all(path: &Path) -> bool {
    path.ancestors()
        .all(|folder| fs::metadata(folder).is_ok_and(|m| m.mode() & 0o005 == 0o005))
}

fn count(path: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() {
            count(&entry.path())?
        } else {
            1
        };
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn fill(part: &Path) -> Result<(), StartError> {
        fs::write(part.join("a"), "1").unwrap();
        fs::create_dir(part.join("sub")).unwrap();
        fs::write(part.join("sub/b"), "2").unwrap();
        Ok(())
    }

    #[test]
    fn an_entry_is_built_once_by_many() {
        let folder = tempfile::tempdir().unwrap();
        let built = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let cache = Cache::at(folder.path().to_owned()).unwrap();
                    let path = cache
                        .entry("x", |part| {
                            built.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(std::time::Duration::from_millis(20));
                            fill(part)
                        })
                        .unwrap();
                    assert_eq!(fs::read_to_string(path.join("sub/b")).unwrap(), "2");
                });
            }
        });
        assert_eq!(built.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned()).unwrap();
        let failed = cache.entry("x", |part| {
            fill(part)?;
            Err(StartError::Fetch {
                what: "x".into(),
                detail: "no".into(),
            })
        });
        assert!(matches!(failed, Err(StartError::Fetch { .. })));
        assert_eq!(cache.found("x"), None);
        assert!(!folder.path().join(".part-x").exists());
    }

    #[test]
    fn an_entry_that_lost_a_file_is_built_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().to_owned()).unwrap();
        let path = cache.entry("x", fill).unwrap();
        fs::remove_file(path.join("sub/b")).unwrap();
        assert_eq!(cache.found("x"), None);
        cache.entry("x", fill).unwrap();
        assert!(path.join("sub/b").exists());
    }
}
