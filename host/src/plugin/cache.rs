//! Compiled code on disk, by (digest of the component, engine compatibility): milliseconds to load
//! against seconds to compile. The only file that turns bytes from a disk into executable code.
//!
//! It loads nothing but what this host wrote: the folder belongs to this user and is closed to others,
//! and each entry carries the hash of its content. A damaged or foreign entry is a miss, never a failure.

use std::fs::{self, DirBuilder};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::{Error, Result};
use crate::manifest::Digest;

/// First bytes of an entry; the number changes when the layout does.
const MAGIC: &[u8; 16] = b"wasmill-native-1";
/// How a file starts that is being written.
const PARTIAL: &str = "partial-";
/// Age at which such a file has no writer left: no compilation may take that long.
const ABANDONED: Duration = Duration::from_hours(1);
/// Magic, then SHA-256 of name and code, then the code.
const HEADER: usize = MAGIC.len() + 32;

/// A folder of compiled components, ours alone.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// What an entry is called: component digest and engine compatibility.
#[derive(Debug)]
pub(super) struct Key(String);

impl Key {
    pub(super) fn new(digest: Digest, engine: &Engine) -> Self {
        let mut hasher = Sha(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(format!(
            "{}-{:016x}",
            hex(digest.as_bytes()),
            hasher.finish()
        ))
    }
}

/// Lower-case hex digits of `bytes`.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// SHA-256 behind std's `Hasher`: the same in every build, unlike std's own.
struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        let first = digest.first_chunk().expect("a digest has 32 bytes");
        u64::from_be_bytes(*first)
    }
}

impl Cache {
    /// Opens `parent`/native, creating it closed to others. `None`, with a warning, where there is no such
    /// folder to be had: plugins are then compiled at every start, which costs time and nothing else.
    ///
    /// # Errors
    /// Config: the folder belongs to someone else, or others may write to it.
    pub(super) fn open(parent: &Path) -> Result<Option<Self>> {
        let folder = parent.join("native");
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        let found = match made.and_then(|()| fs::symlink_metadata(&folder)) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(
                    folder = %folder.display(),
                    %error,
                    "no cache of compiled plugins: give the host a cache folder it may write to"
                );
                return Ok(None);
            }
        };
        let ours = rustix::process::geteuid().as_raw();
        if !found.is_dir() || found.uid() != ours || found.permissions().mode() & 0o077 != 0 {
            return Err(Error::config(
                format!("open the cache of compiled plugins `{}`", folder.display()),
                "others may change it, and what lies in it is executed",
            )
            .hint("remove the folder, or take it over: `chown` it to the host's user and `chmod 700` it"));
        }
        Ok(Some(Self { folder }))
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(&key.0)
    }

    /// The compiled component, if a sound entry exists. A damaged one is removed.
    pub(super) fn load(&self, engine: &Engine, key: &Key) -> Option<Component> {
        let path = self.path(key);
        let entry = fs::read(&path).ok()?;
        let loaded = sound(&entry, key).and_then(|code| native(engine, code));
        if loaded.is_none() {
            tracing::warn!(entry = %path.display(), "damaged cache entry removed, the plugin is compiled again");
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(entry = %path.display(), %error, "damaged cache entry stays");
            }
        }
        loaded
    }

    /// Writes an entry: whole or not at all.
    ///
    /// # Errors
    /// Outside: the disk refuses.
    pub(super) fn store(&self, key: &Key, code: &[u8]) -> Result<()> {
        self.sweep();
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(PARTIAL)
                .tempfile_in(&self.folder)?;
            file.write_all(MAGIC)?;
            file.write_all(&seal(key, code))?;
            file.write_all(code)?;
            file.as_file().sync_data()?;
            file.persist(self.path(key))?;
            Ok(())
        };
        write().map_err(|error| Error::outside("write compiled code to the cache", error))
    }

    /// Removes what writers left that were killed in the middle.
    fn sweep(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries {
            let partial = entry.file_name().to_string_lossy().starts_with(PARTIAL);
            let old = entry
                .metadata()
                .and_then(|found| found.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED));
            if partial && old {
                // Another host may have been quicker; a file that stays is swept the next time.
                fs::remove_file(entry.path()).ok();
            }
        }
    }
}

/// What the header says of an entry: an entry renamed to another key is not sound either.
fn seal(key: &Key, code: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(key.0.as_bytes());
    hash.update(code);
    hash.finalize().into()
}

/// The code of an entry whose header is right.
fn sound<'a>(entry: &'a [u8], key: &Key) -> Option<&'a [u8]> {
    let (header, code) = entry.split_at_checked(HEADER)?;
    let (magic, said) = header.split_at(MAGIC.len());
    (magic == MAGIC && said == seal(key, code)).then_some(code)
}

/// Native code as a component; `None` when it is of another engine.
#[allow(unsafe_code, reason = "the one place that loads cached native code")]
fn native(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `deserialize` asks for bytes that `Component::serialize` made and nobody changed. They come
    // from memory (no one changes them under us) and from an entry in a folder that only this user can
    // write to, checked when the cache was opened; `store` is the only writer and gets the output of
    // `serialize`; the hash in the header was checked over these very bytes, so truncated, damaged or
    // renamed entries do not get here. The engine's own version and settings are checked by wasmtime.
    unsafe { Component::deserialize(engine, code) }.ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn key(name: &str) -> Key {
        Key(name.to_owned())
    }

    fn entry(key: &Key, code: &[u8]) -> Vec<u8> {
        [&MAGIC[..], &seal(key, code), code].concat()
    }

    #[test]
    fn only_a_whole_entry_under_its_own_name_is_sound() {
        let good = entry(&key("a"), b"code");
        assert_eq!(sound(&good, &key("a")), Some(&b"code"[..]));
        assert_eq!(sound(&good, &key("b")), None);
        assert_eq!(sound(&good[..good.len() - 1], &key("a")), None);
        assert_eq!(sound(b"short", &key("a")), None);
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(sound(&flipped, &key("a")), None);
    }

    #[test]
    fn a_folder_open_to_others_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        Cache::open(parent.path()).unwrap().unwrap();
        let folder = parent.path().join("native");
        assert_eq!(
            fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
            0o700
        );
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        let error = Cache::open(parent.path()).unwrap_err();
        assert!(error.detail().contains("others may change it"), "{error}");
        assert!(error.hint_text().unwrap().contains("chmod 700"));
        fs::remove_dir(&folder).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &folder).unwrap();
        assert!(Cache::open(parent.path()).is_err(), "a link was followed");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_cache_and_no_failure() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, b"in the way").unwrap();
        assert!(Cache::open(&file).unwrap().is_none());
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_and_a_running_one_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let cache = Cache::open(parent.path()).unwrap().unwrap();
        let [old, young] = ["partial-old", "partial-young"].map(|name| cache.folder.join(name));
        for path in [&old, &young] {
            fs::write(path, b"half").unwrap();
        }
        let then = std::time::SystemTime::now() - 2 * ABANDONED;
        fs::File::open(&old).unwrap().set_modified(then).unwrap();
        cache.store(&key("k"), b"code").unwrap();
        assert!(!old.exists() && young.exists());
        assert_eq!(
            fs::read(cache.path(&key("k"))).unwrap(),
            entry(&key("k"), b"code")
        );
    }
}
