//! Key files: a private key as PKCS #8 in PEM, readable by its owner only, as `openssl genpkey -algorithm
//! ed25519` writes it too; a public key as `ed25519:` and base64. A private key is never shown.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::error::{Error, Result};

/// How a public key is written.
const PREFIX: &str = "ed25519:";

/// A public key; prints as `ed25519:` and base64, as `[[signing]]` reads it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = text
            .strip_prefix(PREFIX)
            .and_then(|text| STANDARD.decode(text).ok())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .filter(|bytes| VerifyingKey::from_bytes(bytes).is_ok_and(|key| !key.is_weak()));
        bytes.map(Self).ok_or_else(|| {
            Error::config("read a public key", "it is no ed25519 key").hint(
                "write it as `wasmill plugin keygen` printed it: \"ed25519:\" and 44 characters",
            )
        })
    }
}

/// A private key. `Debug` shows its public half.
pub struct SecretKey(pub(super) SigningKey);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.public()).finish()
    }
}

impl SecretKey {
    /// A new key from the system's random numbers.
    ///
    /// # Errors
    /// Outside: the system has none.
    pub fn generate() -> Result<Self> {
        let mut seed = [0; 32];
        fs::File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut seed))
            .map_err(|error| Error::outside("make a key", error))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Writes the key to a new file that only its owner may read.
    ///
    /// # Errors
    /// Config: there is a file already. Outside: the disk refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        let what = || format!("write the key `{}`", path.display());
        let pem = self
            .0
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| Error::bug(what(), error))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => Error::config(
                    what(),
                    "there is such a file, and a key is never overwritten",
                )
                .hint("name another file with --out, or remove this one"),
                _ => Error::outside(what(), error),
            })?;
        file.write_all(pem.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|error| Error::outside(what(), error))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// Config: it cannot be read, is no ed25519 key, or others may read it.
    pub fn read(path: &Path) -> Result<Self> {
        let what = || format!("read the key `{}`", path.display());
        let hint = "make one with `wasmill plugin keygen`";
        let found = fs::metadata(path).map_err(|error| Error::config(what(), error).hint(hint))?;
        let mode = found.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(Error::config(
                what(),
                format!("others may read it (mode {:o})", mode & 0o777),
            )
            .hint(format!("`chmod 600 {}`", path.display())));
        }
        let pem = fs::read_to_string(path).map_err(|error| Error::config(what(), error))?;
        // Not the parser's own words: they may quote what they read.
        SigningKey::from_pkcs8_pem(&pem)
            .map(Self)
            .map_err(|_| Error::config(what(), "it is no ed25519 key in PEM (PKCS #8)").hint(hint))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_key_is_kept_from_others_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ci.key");
        let key = SecretKey::generate().unwrap();
        key.write(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(SecretKey::read(&path).unwrap().public(), key.public());
        let error = key.write(&path).unwrap_err();
        assert!(error.detail().contains("never overwritten"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = SecretKey::read(&path).unwrap_err();
        assert!(error.hint_text().unwrap().contains("chmod 600"), "{error}");
        let text = fs::read_to_string(&path).unwrap();
        let body = text.lines().nth(1).unwrap();
        assert!(!format!("{key:?} {error:?}").contains(body));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, text.replace(body, "AAAA")).unwrap();
        let error = SecretKey::read(&path).unwrap_err();
        assert!(error.detail().contains("no ed25519 key"), "{error}");
    }

    #[test]
    fn public_keys_read_as_they_print() {
        let key = SecretKey::generate().unwrap().public();
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        // The neutral element, a key that any message fits.
        let weak = PublicKey({
            let mut bytes = [0; 32];
            bytes[0] = 1;
            bytes
        });
        for bad in ["", "ed25519:", "ed25519:AAAA", &weak.to_string()] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }
}
