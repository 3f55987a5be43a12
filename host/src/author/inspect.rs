//! `wasmill plugin inspect`: what a component file is, without running it.

use serde::Serialize;

use crate::error::Result;
use crate::manifest::{self, Manifest};
use crate::plugin::Facts;

/// What a file is.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// `name@version`, when the manifest is there and right.
    pub plugin: Option<String>,
    /// The text of the embedded `plugin.toml`.
    pub manifest: Option<String>,
    /// What `describe` returned when it was built.
    pub describe: Option<serde_json::Value>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// Top-level custom sections: name and bytes.
    pub sections: Vec<(String, usize)>,
    /// Why a host would refuse it, in words; empty: it would not.
    pub problems: Vec<String>,
}

/// Looks into a component file.
///
/// # Errors
/// Blames the plugin when the bytes are no component at all; whatever else is wrong is in
/// [`Inspection::problems`].
pub fn inspect(bytes: &[u8]) -> Result<Inspection> {
    let facts = Facts::read(bytes)?;
    let mut problems = Vec::new();
    if let Err(error) = facts.check() {
        problems.push(error.to_string());
    }
    let embedded = manifest::extract(bytes)
        .map_err(|error| problems.push(error.to_string()))
        .ok();
    let mut plugin = None;
    if let Some(embedded) = &embedded {
        match Manifest::check(&embedded.manifest, &embedded.describe) {
            Ok(manifest) => plugin = Some(format!("{}@{}", manifest.name, manifest.version)),
            Err(found) => problems.push(found.to_string()),
        }
    }
    let (manifest, describe) = embedded.map_or((None, None), |embedded| {
        let describe = serde_json::from_str(&embedded.describe).ok();
        (Some(embedded.manifest), describe)
    });
    Ok(Inspection {
        digest: facts.digest.to_string(),
        size: bytes.len() as u64,
        plugin,
        manifest,
        describe,
        imports: facts.imports,
        exports: facts.exports,
        sections: facts.custom,
        problems,
    })
}
