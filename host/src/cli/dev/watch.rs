//! Saves in a plugin's folder: told once they have settled, without what the build itself writes.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::error::Error;

/// An editor writes a save in several steps; this long after the last one it is a save.
const QUIET: Duration = Duration::from_millis(200);

/// Watches a plugin's folder until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    folder: PathBuf,
    // A permit at most: however much happens while a build runs is one more build.
    touched: Arc<Notify>,
}

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// The system has no watch to give.
    pub(super) fn start(folder: &Path) -> Result<Self, Error> {
        let touched = Arc::new(Notify::new());
        let (told, root) = (Arc::clone(&touched), folder.to_owned());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // What could not be watched is no save; what is, comes as an event of its own.
            if let Ok(event) = event
                && is_change(event.kind)
                && event.paths.iter().any(|path| is_source(&root, path))
            {
                told.notify_one();
            }
        })
        .map_err(|error| failed(folder, &error))?;
        let mut watch = Self {
            watcher,
            folder: folder.to_owned(),
            touched,
        };
        watch.refresh()?;
        Ok(watch)
    }

    /// Returns when something was saved and nothing more came for a moment. Safe to drop at any await.
    pub(super) async fn saved(&mut self) -> Result<(), Error> {
        let mut debounce = Debounce::new(QUIET);
        loop {
            match debounce.left(Instant::now()) {
                None => self.touched.notified().await,
                Some(Duration::ZERO) => break,
                Some(left) => {
                    if tokio::time::timeout(left, self.touched.notified())
                        .await
                        .is_err()
                    {
                        continue;
                    }
                }
            }
            debounce.touch(Instant::now());
        }
        self.refresh()
    }

    /// Watches the folder itself and every folder in it that holds sources; those under `target` are many and
    /// none of ours.
    fn refresh(&mut self) -> Result<(), Error> {
        let folder = self.folder.clone();
        let failed = |error: &notify::Error| failed(&folder, error);
        self.watcher
            .watch(&folder, RecursiveMode::NonRecursive)
            .map_err(|error| failed(&error))?;
        let entries = std::fs::read_dir(&folder)
            .map_err(|error| Error::outside(format!("watch {}", folder.display()), error))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() && is_source(&folder, &path) {
                self.watcher
                    .watch(&path, RecursiveMode::Recursive)
                    .map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }
}

fn failed(folder: &Path, error: &notify::Error) -> Error {
    Error::outside(format!("watch {}", folder.display()), error)
        .hint("raise fs.inotify.max_user_watches, or end other programs that watch many files")
}

/// Contents changed; reading and the build's own look at times are none of it.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Modify(kind) => !matches!(kind, ModifyKind::Metadata(_)),
        EventKind::Any | EventKind::Access(_) | EventKind::Other => false,
    }
}

/// Whether a path of the plugin's folder is something that a build is made of: the folder's own `*.toml` and `*.rs`, and
/// everything in its folders but `target`. Other files beside the manifest do not count: what `wasmill dev` itself is
/// made to write there (`> dev.log`) would be a save after every build.
fn is_source(folder: &Path, path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(folder) else {
        return false;
    };
    let mut parts = inside.components();
    let Some(Component::Normal(first)) = parts.clone().next() else {
        return false;
    };
    let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".");
    if first == "target"
        || parts.any(|part| matches!(part, Component::Normal(name) if hidden(name)))
    {
        return false;
    }
    // What `wasmill local` writes is no part of it either.
    let extension = inside.extension().unwrap_or_default();
    let outermost = inside.components().nth(1).is_none() && !path.is_dir();
    if outermost && (first == "local.toml" || (extension != "toml" && extension != "rs")) {
        return false;
    }
    let name = inside.file_name().unwrap_or_default().to_string_lossy();
    // Editors leave copies, and vim tries whether it can write by a file 4913.
    let editors = name.ends_with('~')
        || name.ends_with(".swp")
        || name.ends_with(".tmp")
        || name == "4913"
        || name.starts_with('#');
    !editors
}

/// When a run of touches is over. Pure: it is told the time.
#[derive(Clone, Copy, Debug)]
struct Debounce {
    quiet: Duration,
    last: Option<Instant>,
}

impl Debounce {
    fn new(quiet: Duration) -> Self {
        Self { quiet, last: None }
    }

    fn touch(&mut self, now: Instant) {
        self.last = Some(now);
    }

    /// How long it has to stay quiet yet; nothing before the first touch, zero when it is over.
    fn left(&self, now: Instant) -> Option<Duration> {
        let quiet_for = now.saturating_duration_since(self.last?);
        Some(self.quiet.saturating_sub(quiet_for))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use notify::event::{AccessKind, CreateKind, MetadataKind};

    #[test]
    fn a_run_of_touches_is_one_save() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut debounce = Debounce::new(QUIET);
        assert_eq!(debounce.left(at(1000)), None);
        debounce.touch(at(0));
        assert_eq!(debounce.left(at(50)), Some(Duration::from_millis(150)));
        debounce.touch(at(150));
        assert_eq!(debounce.left(at(200)), Some(Duration::from_millis(150)));
        assert_eq!(debounce.left(at(350)), Some(Duration::ZERO));
        assert_eq!(debounce.left(at(9000)), Some(Duration::ZERO));
    }

    #[test]
    fn only_what_a_build_is_made_of_counts() {
        let folder = Path::new("/p");
        for yes in [
            "src/lib.rs",
            "plugin.toml",
            "Cargo.toml",
            "build.rs",
            "fixtures/a.in.ndjson",
            "src/target/x.rs",
            "data/a.ndjson",
        ] {
            assert!(is_source(folder, &folder.join(yes)), "{yes}");
        }
        for no in [
            "target",
            "target/a/b.rs",
            "p.wasm",
            "dev.log",
            "out",
            "README.md",
            "local.toml",
            "Cargo.lock",
            "Cargo.lockX1y2Z3",
            ".git/HEAD",
            "src/.lib.rs.swp",
            "src/lib.rs~",
            "4913",
            "src/#lib.rs#",
        ] {
            assert!(!is_source(folder, &folder.join(no)), "{no}");
        }
        assert!(!is_source(folder, Path::new("/q/src/lib.rs")) && !is_source(folder, folder));
        assert!(
            is_change(EventKind::Create(CreateKind::File))
                && is_change(EventKind::Modify(ModifyKind::Any))
        );
        assert!(!is_change(EventKind::Access(AccessKind::Any)));
        assert!(!is_change(EventKind::Modify(ModifyKind::Metadata(
            MetadataKind::Any
        ))));
    }

    #[test]
    fn a_save_is_told_and_a_build_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(folder.join("src")).unwrap();
        std::fs::create_dir_all(folder.join("target/x")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut watch = Watch::start(&folder).unwrap();
        let mut saved = |limit: u64| {
            let limit = Duration::from_millis(limit);
            runtime.block_on(async { tokio::time::timeout(limit, watch.saved()).await.is_ok() })
        };
        std::fs::write(folder.join("target/x/y.rs"), "x").unwrap();
        std::fs::write(folder.join("p.wasm"), "x").unwrap();
        std::fs::write(folder.join("dev.log"), "x").unwrap();
        assert!(!saved(600), "what a build writes was told");
        std::fs::write(folder.join("src/lib.rs"), "x").unwrap();
        std::fs::write(folder.join("src/lib.rs"), "y").unwrap();
        assert!(saved(10_000), "a save was not told");
        assert!(!saved(600), "one save was told twice");
        // A folder that is made later is watched from the next save on.
        std::fs::create_dir(folder.join("fixtures")).unwrap();
        assert!(saved(10_000));
        std::fs::write(folder.join("fixtures/a.in.ndjson"), "{}").unwrap();
        assert!(saved(10_000));
    }
}
