//! Components on this host's disk, by digest: a cache of what the control log holds.
//!
//! A blob appears under its name whole or not at all, and is read back only with its digest checked: a damaged one
//! is removed and missing. Chunks from the log are put together in a file, never in memory. Blobs put by an upload
//! are flushed to the disk; those that come from the log are not, since the log still has them.
//!
//! It also remembers which control log this host has seen: an empty log in its place must not be taken for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::entry::{BlobHead, hex_of};
use crate::error::{Error, Result};

/// Bytes of every chunk of a blob but the last: with its envelope well below `max.message.bytes`.
pub const CHUNK: usize = 512 << 10;
/// Chunks of a blob at most.
pub(super) const MAX_CHUNKS: u32 = 512;
/// Bytes of a blob at most, 256 MiB: larger than any plugin, small enough that garbage cannot fill a disk at once.
pub const MAX_BLOB: u64 = CHUNK as u64 * MAX_CHUNKS as u64;
/// Beginning of the names of files that are being written.
const PART: &str = ".part-";
/// Files being written are removed when they are older: their writer is gone.
const STALE: Duration = Duration::from_hours(1);

/// Beginning of an identity that hosts have written into the log, where no broker gives one.
pub(super) const WRITTEN: &str = "written:";

/// How many chunks a blob of that size has; `None` for a size no blob has.
pub(super) fn chunks_of(size: u64) -> Option<u32> {
    let chunks = u32::try_from(size.div_ceil(CHUNK as u64)).ok()?;
    (1..=MAX_CHUNKS).contains(&chunks).then_some(chunks)
}

/// See the module. Clones share one folder.
#[derive(Clone, Debug)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// Blobs whose chunks are coming in, by digest. A lock: the follower writes them, a restore may too.
    parts: Mutex<BTreeMap<String, Part>>,
}

/// A blob that is not whole yet.
#[derive(Debug)]
enum Part {
    Growing {
        file: NamedTempFile,
        got: BTreeSet<u32>,
    },
    /// The disk refused; chunks are let pass until the next attempt.
    Failed(Error),
}

/// The control log a host has seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLog {
    /// What told it from others.
    pub identity: String,
    /// The file that says so; removing it makes the host forget.
    pub file: PathBuf,
}

impl KnownLog {
    /// Whether a log named `found` is another one. A name that a broker gives and one that hosts have written tell
    /// nothing of each other.
    #[must_use]
    pub fn differs(&self, found: &str) -> bool {
        self.is_written() == found.starts_with(WRITTEN) && self.identity != found
    }

    pub(super) fn is_written(&self) -> bool {
        self.identity.starts_with(WRITTEN)
    }

    /// The log of that name is not the one this host has seen: `found` tells it from that one, or there is none.
    #[must_use]
    pub fn another(&self, name: &str, found: Option<&str>) -> Error {
        let detail = match found {
            Some(found) => format!(
                "this host has seen another one under that name: its id was {}, now it is {found}",
                self.identity
            ),
            None => format!(
                "it does not exist, and this host has seen one of id {}",
                self.identity
            ),
        };
        Error::config(format!("data loss: control log {name}"), detail).hint(format!(
            "it was deleted, so what was deployed is not in it: restore it, or delete the file `{}` on every host to \
             accept an empty one",
            self.file.display()
        ))
    }
}

impl BlobStore {
    /// Opens a folder, made where there is none, closed to others.
    ///
    /// # Errors
    /// `Config`: it cannot be made or written to.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let opened = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .and_then(|()| sweep(&folder))
            .and_then(|()| temporary(&folder).map(drop));
        opened.map_err(|error| {
            Error::config(
                format!("open the folder of uploaded plugins `{}`", folder.display()),
                error,
            )
            .hint("give the host a cache folder it may write to")
        })?;
        let parts = Mutex::new(BTreeMap::new());
        Ok(Self {
            inner: Arc::new(Inner { folder, parts }),
        })
    }

    /// Whether a blob is here. Says nothing of its state: [`BlobStore::read`] does.
    #[must_use]
    pub fn have(&self, digest: &str) -> bool {
        self.path(digest).is_some_and(|path| path.is_file())
    }

    /// Where a blob is, or would be; `None` for a text that is no digest.
    #[must_use]
    pub fn path(&self, digest: &str) -> Option<PathBuf> {
        Some(self.inner.folder.join(hex_of(digest)?))
    }

    /// A blob, its digest checked. `None`: it is not here, or was damaged and is no longer.
    ///
    /// # Errors
    /// `Outside`: the disk refuses.
    pub fn read(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let Some(path) = self.path(digest) else {
            return Ok(None);
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", digest, &error)),
        };
        if digest_of(&Sha256::new_with_prefix(&bytes)) == digest {
            return Ok(Some(bytes));
        }
        tracing::warn!(entry = %path.display(), bytes = bytes.len(), "damaged plugin removed from the cache");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove", digest, &error))
            }
            _ => Ok(None),
        }
    }

    /// Keeps a blob; survives a power cut when it returns.
    ///
    /// # Errors
    /// `Data`: the bytes have another digest, or are none or too many. `Outside`: the disk refuses; nothing partial
    /// stays.
    pub fn put(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let Some(path) = self.path(digest) else {
            return Err(Error::data(
                format!("keep plugin {digest:?}"),
                "a digest is \"sha256:\" and 64 hex digits",
            ));
        };
        let size = bytes.len() as u64;
        if chunks_of(size).is_none() {
            return Err(Error::data(
                format!("keep plugin {digest}"),
                format!("{size} bytes; 1 to {MAX_BLOB} fit"),
            ));
        }
        let found = digest_of(&Sha256::new_with_prefix(bytes));
        if found != digest {
            let detail = format!("the {size} bytes have digest {found}");
            return Err(
                Error::data(format!("keep plugin {digest}"), detail).hint("send the file again")
            );
        }
        let write = || -> io::Result<()> {
            let mut file = temporary(&self.inner.folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_data()?;
            file.persist(path)?;
            File::open(&self.inner.folder)?.sync_all()
        };
        write().map_err(|error| self.failed("write", digest, &error))
    }

    /// Takes in a chunk from the log; one of a blob that is here is let pass. The caller has checked that digest,
    /// number and size are possible.
    pub(super) fn chunk(&self, digest: &str, number: u32, bytes: &[u8]) {
        if self.have(digest) {
            return;
        }
        let mut parts = self.inner.parts.lock();
        let part =
            parts
                .entry(digest.to_owned())
                .or_insert_with(|| match temporary(&self.inner.folder) {
                    Ok(file) => Part::Growing {
                        file,
                        got: BTreeSet::new(),
                    },
                    Err(error) => Part::Failed(self.failed("write", digest, &error)),
                });
        let Part::Growing { file, got } = part else {
            return;
        };
        match file
            .as_file()
            .write_all_at(bytes, u64::from(number) * CHUNK as u64)
        {
            Ok(()) => {
                got.insert(number);
            }
            Err(error) => *part = Part::Failed(self.failed("write", digest, &error)),
        }
    }

    /// All chunks have passed: the blob appears if they are all here and add up to it.
    ///
    /// # Errors
    /// `Outside`: the disk refused. `Data`: chunks are missing or do not add up.
    pub(super) fn finish(&self, digest: &str, head: BlobHead) -> Result<()> {
        let part = self.inner.parts.lock().remove(digest);
        let Some(path) = self.path(digest).filter(|path| !path.is_file()) else {
            return Ok(());
        };
        let torn = |detail: String| {
            Err(Error::data(
                format!("put plugin {digest} together from the control log"),
                detail,
            ))
        };
        let (file, got) = match part {
            Some(Part::Growing { file, got }) => (file, got),
            Some(Part::Failed(error)) => return Err(error),
            None => return torn("none of its chunks came before its head".to_owned()),
        };
        let missing = (0..head.chunks).find(|number| !got.contains(number));
        if let Some(missing) = missing {
            return torn(format!("chunk {missing} of {} is missing", head.chunks));
        }
        let whole = || -> io::Result<String> {
            file.as_file().set_len(head.size)?;
            let mut hash = Sha256::new();
            let mut reader = file.reopen()?;
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = reader.read(&mut buffer)?;
                if count == 0 {
                    return Ok(digest_of(&hash));
                }
                hash.update(&buffer[..count]);
            }
        };
        match whole() {
            Ok(found) if found == digest => {}
            Ok(found) => return torn(format!("its {} bytes have digest {found}", head.size)),
            Err(error) => return Err(self.failed("read", digest, &error)),
        }
        match file.persist(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed("write", digest, &error.error)),
        }
    }

    fn failed(&self, verb: &str, digest: &str, error: &io::Error) -> Error {
        let folder = self.inner.folder.display();
        Error::outside(format!("{verb} plugin {digest} in `{folder}`"), error).hint(format!(
            "see whether the disk of `{folder}` is full, and whether the host may write to it"
        ))
    }

    /// The control log this host has seen under that name.
    ///
    /// # Errors
    /// `Outside`: the disk refuses.
    pub fn known_log(&self, host: &str, name: &str) -> Result<Option<KnownLog>> {
        let file = self.marker(host, name);
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Some(KnownLog {
                identity: text.trim().to_owned(),
                file,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::outside(format!("read `{}`", file.display()), error)),
        }
    }

    /// Remembers the control log this host follows under that name.
    ///
    /// # Errors
    /// `Outside`: the disk refuses.
    pub fn remember_log(&self, host: &str, name: &str, identity: &str) -> Result<()> {
        let file = self.marker(host, name);
        let write = || -> io::Result<()> {
            let mut part = temporary(&self.inner.folder)?;
            part.write_all(identity.as_bytes())?;
            part.as_file().sync_data()?;
            part.persist(&file)?;
            Ok(())
        };
        write().map_err(|error| Error::outside(format!("write `{}`", file.display()), error))
    }

    fn marker(&self, host: &str, name: &str) -> PathBuf {
        let plain = |text: &str| -> String {
            let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            text.chars().filter(fits).collect()
        };
        self.inner
            .folder
            .join(format!("log-{}-{}", plain(host), plain(name)))
    }
}

fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(PART).tempfile_in(folder)
}

/// Removes what writers left behind that were killed.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let part = entry.file_name().to_string_lossy().starts_with(PART);
        let age = entry.metadata().and_then(|found| found.modified()).ok();
        let stale = age
            .and_then(|at| at.elapsed().ok())
            .is_some_and(|age| age > STALE);
        if part && stale {
            fs::remove_file(entry.path()).ok();
        }
    }
    Ok(())
}

fn digest_of(hash: &Sha256) -> String {
    let hash = hash.clone().finalize();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
