//! [`Facts`]: what a component says about itself on its outside, read from its bytes without compiling it.
//!
//! It owns the rules for imports and exports (which track, nothing foreign) and their texts. It never
//! runs anything and never looks inside the core modules.

use wasmparser::{Encoding, Parser, Payload};

use crate::error::{Error, Result};
use crate::manifest::{Digest, digest};

/// The package every import and export of a plugin belongs to.
const PACKAGE: &str = "wasmill:plugin/";
/// The track this host speaks: any `0.1.x`.
const TRACK: &str = "0.1";
/// Interfaces a plugin may import.
const IMPORTS: [&str; 3] = ["log", "metrics", "types"];
/// Interfaces a transform plugin has to export.
const EXPORTS: [&str; 2] = ["describe", "transform"];

const BUILD_HINT: &str =
    "build it with `wasmill plugin build`, which turns a Rust plugin crate into a component";

/// A component's outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The plugin's address.
    pub digest: Digest,
    /// Names of what it imports, in file order.
    pub imports: Vec<String>,
    /// Names of what it exports, in file order.
    pub exports: Vec<String>,
    /// Top-level custom sections: name and bytes, in file order.
    pub custom: Vec<(String, usize)>,
}

impl Facts {
    /// Reads the outside of a component.
    ///
    /// # Errors
    /// Blames the plugin: the bytes are not WebAssembly, a core module instead of a component, or cut off.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        if !bytes.starts_with(b"\0asm") {
            return Err(Error::plugin(
                "read the plugin",
                "the file is not WebAssembly: it does not start with the bytes `\\0asm`",
            )
            .hint(BUILD_HINT));
        }
        if Parser::is_core_wasm(bytes) {
            return Err(Error::plugin(
                "read the plugin",
                "the file is a WebAssembly core module, not a component",
            )
            .hint(BUILD_HINT));
        }
        let mut facts = Self {
            digest: digest(bytes),
            imports: Vec::new(),
            exports: Vec::new(),
            custom: Vec::new(),
        };
        facts.walk(bytes).map_err(|error| {
            Error::plugin(
                "read the plugin",
                format!("the component is damaged: {error}"),
            )
            .hint("upload the file again, or build it again")
        })?;
        Ok(facts)
    }

    fn walk(&mut self, bytes: &[u8]) -> std::result::Result<(), wasmparser::BinaryReaderError> {
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding, .. } => {
                    depth += 1;
                    debug_assert!(depth > 1 || encoding == Encoding::Component);
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        self.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        self.exports.push(export?.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section) if depth == 1 => {
                    self.custom
                        .push((section.name().to_owned(), section.data().len()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that this host can link the imports and call the exports.
    ///
    /// # Errors
    /// Blames the plugin and names the first import that is not the host's, or the export that is missing.
    pub fn check(&self) -> Result<()> {
        for import in &self.imports {
            check_import(import)?;
        }
        for wanted in EXPORTS {
            if !self
                .exports
                .iter()
                .any(|export| is_of_track(export, wanted))
            {
                return Err(missing_export(wanted, &self.exports));
            }
        }
        Ok(())
    }
}

/// `wasmill:plugin/NAME@0.1.x`.
fn is_of_track(import: &str, name: &str) -> bool {
    let Some((interface, version)) = split(import) else {
        return false;
    };
    interface == name
        && version
            .strip_prefix(TRACK)
            .is_some_and(|patch| patch.starts_with('.') || patch.is_empty())
}

/// Interface and version of a name in our package.
fn split(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

fn check_import(import: &str) -> Result<()> {
    if IMPORTS.iter().any(|name| is_of_track(import, name)) {
        return Ok(());
    }
    let refused = Error::plugin(
        "link the plugin",
        format!("it imports `{import}`, which this host does not offer"),
    );
    Err(
        if import.starts_with("wasi:") || import.starts_with("wasi_") {
            refused.hint(
                "plugins have no WASI (no files, clock, environment or random numbers): build for \
             wasm32-unknown-unknown with `wasmill plugin build`, and look for the dependency that \
             needs it with `cargo tree`",
            )
        } else if split(import).is_some() {
            refused.hint(
                "the plugin was built for a newer Wasmill: upgrade the host, or build with its SDK",
            )
        } else {
            refused.hint("a plugin may import only wasmill:plugin/log, metrics and types")
        },
    )
}

fn missing_export(wanted: &str, exports: &[String]) -> Error {
    let ours = exports
        .iter()
        .find(|export| split(export).is_some_and(|(interface, _)| interface == wanted));
    match ours {
        Some(other) => Error::plugin(
            "link the plugin",
            format!("it exports `{other}`, and this host speaks track {TRACK}"),
        )
        .hint("use a host and an SDK of the same track"),
        None => Error::plugin(
            "link the plugin",
            format!("it does not export `{PACKAGE}{wanted}@{TRACK}.0`"),
        )
        .hint("is it a Wasmill plugin? `wasmill plugin new NAME` makes one that works"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn with(imports: &[&str], exports: &[&str]) -> Facts {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Facts {
            digest: digest(b""),
            imports: owned(imports),
            exports: owned(exports),
            custom: Vec::new(),
        }
    }

    const GOOD: [&str; 2] = [
        "wasmill:plugin/describe@0.1.0",
        "wasmill:plugin/transform@0.1.7",
    ];

    #[test]
    fn any_patch_of_the_track_is_accepted() {
        with(&["wasmill:plugin/log@0.1.3"], &GOOD).check().unwrap();
    }

    #[test]
    fn foreign_imports_are_refused_by_name() {
        for (import, hint) in [
            ("wasi:clocks/wall-clock@0.2.0", "no WASI"),
            ("wasmill:plugin/lookup@0.1.1", "newer Wasmill"),
            ("wasmill:plugin/log@0.10.0", "newer Wasmill"),
            ("acme:store/kv@1.0.0", "may import only"),
        ] {
            let error = with(&[import], &GOOD).check().unwrap_err();
            assert!(error.detail().contains(import), "{error}");
            assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
        }
    }

    #[test]
    fn missing_exports_and_other_tracks_are_told_apart() {
        let error = with(&[], &GOOD[..1]).check().unwrap_err();
        assert!(error.detail().contains("wasmill:plugin/transform@0.1.0"));
        let other = with(&[], &[GOOD[0], "wasmill:plugin/transform@0.2.0"]);
        assert!(other.check().unwrap_err().detail().contains("track 0.1"));
    }
}
