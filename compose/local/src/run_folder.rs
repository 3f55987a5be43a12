//! The folder of one running server: its data, its configuration, its log.
//!
//! Owns the folder's life. A temporary one is removed when its server is dropped; one whose process
//! was killed is swept by the next start, which sees that its lock is free. A folder the caller named
//! is kept, and a lock in it refuses a second server. Never removes a folder somebody holds.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    cache::{Cache, lock, remove},
    error::StartError,
    user::User,
};

/// Where a server keeps its data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Folder {
    /// A new folder in the cache that goes when the server is dropped.
    #[default]
    Temporary,
    /// This folder: made if it is not there, used again if it is, never removed. One server at a time.
    Kept(PathBuf),
}

impl Folder {
    /// The folder of the member `index` of several servers.
    pub(crate) fn of(&self, index: usize) -> Folder {
        match self {
            Folder::Temporary => Folder::Temporary,
            Folder::Kept(path) => Folder::Kept(path.join((index + 1).to_string())),
        }
    }
}

/// The folder of one server, locked while this lives.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    /// Free as soon as this process ends, however it ends.
    _lock: File,
    /// The lock of a temporary folder, which goes with it.
    temporary: Option<PathBuf>,
}

impl RunFolder {
    /// Makes or opens the folder and gives it to `user`.
    pub(crate) fn open(which: &Folder, cache: &Cache, user: User) -> Result<RunFolder, StartError> {
        match which {
            Folder::Temporary => RunFolder::temporary(&cache.folder("run")?, user),
            Folder::Kept(path) => RunFolder::kept(path, user),
        }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes when this is dropped.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// The folder `data` in it; where there is none, `make` makes it under the name it is given. One
    /// that was not finished is never used.
    pub(crate) fn data(
        &self,
        make: impl FnOnce(&Path) -> Result<(), StartError>,
    ) -> Result<PathBuf, StartError> {
        let (data, unfinished) = (self.path.join("data"), self.path.join("data.unfinished"));
        if !data.exists() {
            remove(&unfinished).map_err(StartError::io("removing", &unfinished))?;
            make(&unfinished)?;
            fs::rename(&unfinished, &data).map_err(StartError::io("putting in place", &data))?;
        }
        Ok(data)
    }

    fn temporary(runs: &Path, user: User) -> Result<RunFolder, StartError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // between making a lock file and locking it, a sweeper must not look
        let _quiet = lock(&runs.join(".sweep"))?;
        sweep(runs)?;
        let name = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let (path, held) = (runs.join(&name), runs.join(format!("{name}.lock")));
        let lock = lock(&held)?;
        user.create_dir(&path)
            .map_err(StartError::io("creating", &path))?;
        Ok(RunFolder {
            path,
            _lock: lock,
            temporary: Some(held),
        })
    }

    fn kept(path: &Path, user: User) -> Result<RunFolder, StartError> {
        if !path.exists() {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(StartError::io("creating", parent))?;
            }
            user.create_dir(path)
                .map_err(StartError::io("creating", path))?;
        }
        let path = fs::canonicalize(path).map_err(StartError::io("resolving", path))?;
        let held = path.join("wasmill.lock");
        let lock = File::create(&held).map_err(StartError::io("opening the lock", &held))?;
        match lock.try_lock() {
            Ok(()) => Ok(RunFolder {
                path,
                _lock: lock,
                temporary: None,
            }),
            Err(TryLockError::WouldBlock) => Err(StartError::Folder {
                path,
                why: "another process runs a server in it".into(),
            }),
            Err(TryLockError::Error(error)) => Err(StartError::io("locking", &held)(error)),
        }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        let Some(held) = &self.temporary else { return };
        let removed = remove(&self.path).and_then(|()| fs::remove_file(held));
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "a temporary folder was left behind");
        }
    }
}

/// Removes the folders of processes that were killed.
fn sweep(runs: &Path) -> Result<(), StartError> {
    let entries = fs::read_dir(runs).map_err(StartError::io("listing", runs))?;
    for held in entries.flatten().map(|entry| entry.path()) {
        if held.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let free = File::open(&held).is_ok_and(|lock| lock.try_lock().is_ok());
        if free {
            let folder = held.with_extension("");
            match remove(&folder).and_then(|()| fs::remove_file(&held)) {
                Ok(()) => {
                    tracing::debug!(path = %folder.display(), "swept the folder of a dead process")
                }
                Err(error) => tracing::debug!(path = %folder.display(), %error, "not swept"),
            }
        }
    }
    Ok(())
}

/// Copies the folder `from` to the new folder `to` and gives the copy to `user`.
pub(crate) fn copy_tree(from: &Path, to: &Path, user: User) -> Result<(), StartError> {
    user.create_dir(to)
        .map_err(StartError::io("creating", to))?;
    let entries = fs::read_dir(from).map_err(StartError::io("listing", from))?;
    for entry in entries {
        let entry = entry.map_err(StartError::io("listing", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target, user)?;
        } else {
            fs::copy(&source, &target).map_err(StartError::io("copying", &source))?;
            user.give(&target)
                .map_err(StartError::io("changing the owner of", &target))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_dead_process_folder_is_swept_and_a_held_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().to_owned()).unwrap();
        let held = RunFolder::open(&Folder::Temporary, &cache, User::Same).unwrap();
        let dead = root.path().join("run/1-0");
        fs::create_dir_all(dead.join("data")).unwrap();
        fs::write(root.path().join("run/1-0.lock"), "").unwrap();

        let new = RunFolder::open(&Folder::Temporary, &cache, User::Same).unwrap();
        assert!(!dead.exists());
        assert!(held.path().exists() && new.path().exists());
        assert_ne!(held.path(), new.path());

        let path = new.path().to_owned();
        drop(new);
        assert!(!path.exists() && !path.with_extension("lock").exists());
    }

    #[test]
    fn a_kept_folder_stays_and_takes_one_server() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().join("cache")).unwrap();
        let which = Folder::Kept(root.path().join("a/b"));
        let first = RunFolder::open(&which, &cache, User::Same).unwrap();
        assert!(matches!(
            RunFolder::open(&which, &cache, User::Same),
            Err(StartError::Folder { .. })
        ));
        drop(first);
        let again = RunFolder::open(&which, &cache, User::Same).unwrap();
        assert!(again.path().exists() && !again.is_temporary());
    }
}
