//! `wasmill plugin keygen | sign`: who stands behind a component. A private key goes into a file only its owner
//! may read and is never printed.

use std::path::{Path, PathBuf};

use super::{Failure, Voice, report};
use crate::author;
use crate::error::Error;
use crate::manifest;
use crate::upload::{self, SecretKey};

pub(super) fn keygen(out: &Path, voice: Voice) -> Result<(), Failure> {
    let key = SecretKey::generate()?;
    key.write(out)?;
    let public = key.public();
    if voice.json {
        report::json(&serde_json::json!({"file": out, "public": public.to_string()}));
        return Ok(());
    }
    report::line(format_args!(
        "wrote the private key to {}: keep it, nobody else may read it",
        out.display()
    ));
    report::line(format_args!(
        "a host asks for signatures of it with:\n\n[[signing]]\nplugins = \"*\"\nname = \"ci\"\nkey = \"{public}\""
    ));
    Ok(())
}

pub(super) fn sign(file: &Path, key: &Path, voice: Voice) -> Result<(), Failure> {
    let bytes = std::fs::read(file)
        .map_err(|error| Error::config(format!("read {}", file.display()), error))?;
    // What is no plugin is not signed either.
    let problems = author::inspect(&bytes)?.problems;
    if let Some(problem) = problems.first() {
        return Err(Error::plugin(format!("sign {}", file.display()), problem)
            .hint("build it again with `wasmill plugin build`")
            .into());
    }
    let key = SecretKey::read(key)?;
    let digest = manifest::digest(&bytes);
    let signature = upload::sign(digest, &key);
    let out = beside(file);
    std::fs::write(&out, format!("{signature}\n"))
        .map_err(|error| Error::outside(format!("write {}", out.display()), error))?;
    if voice.json {
        report::json(&serde_json::json!({
            "file": out, "digest": digest.to_string(), "public": key.public().to_string(),
        }));
    } else {
        report::line(format_args!(
            "wrote {}: {digest} signed by {}",
            out.display(),
            key.public()
        ));
    }
    Ok(())
}

/// `FILE.sig`.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}
