//! The manifest inside the component: custom section `wasmill:manifest`, so that one uploaded file is the
//! whole plugin. The section holds both texts unparsed; [`super::check`] reads them, here as anywhere.
//! A second section, `wasmill:fixtures`, may carry the plugin's fixtures, which `author` writes and reads.
//!
//! Only the component's outermost sections are walked; whether the rest is a valid component is the
//! engine's business. Bytes from strangers: every length is checked, nothing is trusted.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasm_encoder::{ComponentSection as _, CustomSection};
use wasmparser::BinaryReader;

use super::types::Manifest;
use crate::error::{Error, Result};
use crate::toml_check::Problems;

/// Name of the custom section.
pub const SECTION: &str = "wasmill:manifest";

/// Name of the custom section that holds the plugin's fixtures; what is in it is `author`'s business.
pub const FIXTURES_SECTION: &str = "wasmill:fixtures";

/// Greatest size of the fixtures' section, bytes: what every upload carries and every host keeps.
pub const MAX_FIXTURES: usize = 1 << 20;

/// Greatest size of the section's content, bytes; a real one has a few KiB.
const MAX_SECTION: usize = 4 << 20;

/// Magic, version 13, layer 1: a component as the component model's `Binary.md` defines it.
const COMPONENT: [u8; 8] = [0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00];
/// Magic and version 1, layer 0: a core module.
const MODULE: [u8; 8] = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

/// What is embedded: both texts exactly as `plugin build` saw them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// Text of `plugin.toml`.
    pub manifest: String,
    /// What `describe` returned.
    pub describe: String,
}

impl Embedded {
    /// Checks both texts.
    ///
    /// # Errors
    /// As [`Manifest::check`].
    pub fn check(&self) -> std::result::Result<Manifest, Problems> {
        Manifest::check(&self.manifest, &self.describe)
    }
}

/// Identity of a component's bytes; prints as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is \"sha256:\" and 64 hex digits")]
pub struct ParseDigestError;

impl std::str::FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseDigestError> {
        let hex = text.strip_prefix("sha256:").ok_or(ParseDigestError)?;
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseDigestError);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).map_err(|_| ParseDigestError)?;
        }
        Ok(Self(bytes))
    }
}

/// The digest of a component's file, embedded section included.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// The component with both texts embedded; an earlier section of that name is replaced.
///
/// # Errors
/// Plugin: the bytes are no component, or the texts are too long.
pub fn embed(component: &[u8], toml_text: &str, describe: &str) -> Result<Vec<u8>> {
    let what = "embed the manifest in the component";
    let embedded = Embedded {
        manifest: toml_text.to_owned(),
        describe: describe.to_owned(),
    };
    let data = serde_json::to_vec(&embedded).map_err(|error| Error::bug(what, error))?;
    if data.len() > MAX_SECTION {
        let detail = format!(
            "the texts have {} bytes; at most {MAX_SECTION} fit",
            data.len()
        );
        return Err(Error::plugin(what, detail).hint("shorten plugin.toml"));
    }
    with_section(component, SECTION, &data).map_err(|fault| fault.into_error(what))
}

/// The component with fixtures embedded; an earlier section of that name is replaced.
///
/// # Errors
/// Plugin: the bytes are no component, or there are more than [`MAX_FIXTURES`] bytes.
pub fn embed_fixtures(component: &[u8], fixtures: &[u8]) -> Result<Vec<u8>> {
    let what = "embed the fixtures in the component";
    if fixtures.len() > MAX_FIXTURES {
        let detail = format!(
            "they have {} bytes; at most {MAX_FIXTURES} fit",
            fixtures.len()
        );
        return Err(Error::plugin(what, detail).hint("keep fewer or smaller fixtures"));
    }
    with_section(component, FIXTURES_SECTION, fixtures).map_err(|fault| fault.into_error(what))
}

/// The component with one custom section at its end and no other of that name.
fn with_section(component: &[u8], name: &str, data: &[u8]) -> std::result::Result<Vec<u8>, Fault> {
    let mut out = COMPONENT.to_vec();
    for section in sections(component)? {
        if section.name != Some(name) {
            out.extend_from_slice(&component[section.whole]);
        }
    }
    let section = CustomSection {
        name: Cow::Borrowed(name),
        data: Cow::Borrowed(data),
    };
    section.append_to_component(&mut out);
    Ok(out)
}

/// The texts embedded in a component.
///
/// # Errors
/// Plugin: the bytes are no component, or it carries no readable section of that name, or several.
pub fn extract(component: &[u8]) -> Result<Embedded> {
    let what = "read the manifest from the component";
    let Some(data) = only(component, SECTION, what)? else {
        let detail = format!("there is no section {SECTION}");
        return Err(Error::plugin(what, detail).hint("build it with `wasmill plugin build`"));
    };
    if data.len() > MAX_SECTION {
        let detail = format!(
            "section {SECTION} has {} bytes; at most {MAX_SECTION} are read",
            data.len()
        );
        return Err(Error::plugin(what, detail).hint("shorten plugin.toml"));
    }
    serde_json::from_slice(data).map_err(|error| {
        Error::plugin(what, format!("section {SECTION} does not read: {error}"))
            .hint("build it again with `wasmill plugin build`")
    })
}

/// The fixtures' section of a component, unread; `None` when it carries none.
///
/// # Errors
/// Plugin: the bytes are no component, the section appears twice or is longer than [`MAX_FIXTURES`].
pub fn extract_fixtures(component: &[u8]) -> Result<Option<&[u8]>> {
    let what = "read the fixtures from the component";
    let data = only(component, FIXTURES_SECTION, what)?;
    if let Some(data) = data
        && data.len() > MAX_FIXTURES
    {
        let detail = format!(
            "section {FIXTURES_SECTION} has {} bytes; at most {MAX_FIXTURES} are read",
            data.len()
        );
        return Err(Error::plugin(what, detail).hint("keep fewer or smaller fixtures"));
    }
    Ok(data)
}

/// The content of the one section of a name.
fn only<'c>(component: &'c [u8], name: &str, what: &str) -> Result<Option<&'c [u8]>> {
    let mut found = None;
    for section in sections(component).map_err(|fault| fault.into_error(what))? {
        if section.name == Some(name) && found.replace(section.data).is_some() {
            return Err(Error::plugin(what, format!("section {name} appears twice"))
                .hint("build it again with `wasmill plugin build`"));
        }
    }
    Ok(found)
}

/// One outermost section.
struct Section<'c> {
    /// Id byte, length and content.
    whole: Range<usize>,
    /// Name of a custom section.
    name: Option<&'c str>,
    /// What follows the name in a custom section, else nothing.
    data: &'c [u8],
}

/// Why bytes are no component.
#[derive(Debug)]
enum Fault {
    Module,
    NotWasm,
    Truncated(String),
}

impl Fault {
    fn into_error(self, what: &str) -> Error {
        match self {
            Self::Module => Error::plugin(what, "this is a core module, not a component")
                .hint("build it with `wasmill plugin build`, which makes a component of it"),
            Self::NotWasm => Error::plugin(what, "this is no WebAssembly component")
                .hint("name the .wasm file that `wasmill plugin build` printed"),
            Self::Truncated(detail) => {
                Error::plugin(what, format!("the component is damaged: {detail}"))
                    .hint("copy or build it again")
            }
        }
    }
}

fn sections(component: &[u8]) -> std::result::Result<Vec<Section<'_>>, Fault> {
    match component.get(..8) {
        Some(header) if header == COMPONENT => {}
        Some(header) if header == MODULE => return Err(Fault::Module),
        _ => return Err(Fault::NotWasm),
    }
    let damaged = |error: wasmparser::BinaryReaderError| Fault::Truncated(error.to_string());
    let mut reader = BinaryReader::new(&component[8..], 8);
    let mut all = Vec::new();
    while !reader.eof() {
        let start = 8 + reader.current_position();
        let id = reader.read_u8().map_err(damaged)?;
        let length = reader.read_var_u32().map_err(damaged)?;
        let length =
            usize::try_from(length).map_err(|error| Fault::Truncated(error.to_string()))?;
        let content = reader.read_bytes(length).map_err(damaged)?;
        let whole = start..8 + reader.current_position();
        let (name, data) = if id == 0 {
            let mut custom = BinaryReader::new(content, 0);
            let name = custom.read_string().map_err(damaged)?;
            (Some(name), &content[custom.current_position()..])
        } else {
            (None, &[][..])
        };
        all.push(Section { whole, name, data });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::error::Blame;

    #[test]
    fn what_is_embedded_comes_out_and_replaces_what_was_there() {
        let first = embed(&COMPONENT, "old", "{}").unwrap();
        let second = embed(&first, "new \"text\" ü", "{\"sdk\":1}").unwrap();
        let embedded = extract(&second).unwrap();
        assert_eq!(embedded.manifest, "new \"text\" ü");
        assert_eq!(embedded.describe, "{\"sdk\":1}");
        assert_eq!(sections(&second).unwrap().len(), 1);
        assert_eq!(embed(&second, "old", "{}").unwrap(), first);
        wasmparser::Validator::new().validate_all(&second).unwrap();
    }

    #[test]
    fn other_sections_stay_byte_for_byte() {
        let mut component = COMPONENT.to_vec();
        let other = CustomSection {
            name: Cow::Borrowed("other"),
            data: Cow::Borrowed(b"kept"),
        };
        other.append_to_component(&mut component);
        let nested = wasm_encoder::RawSection {
            id: 1,
            data: &MODULE,
        };
        component.push(1);
        wasm_encoder::Encode::encode(&nested.data, &mut component);
        let out = embed(&component, "a", "b").unwrap();
        assert!(out.starts_with(&component));
        wasmparser::Validator::new().validate_all(&out).unwrap();
    }

    #[test]
    fn fixtures_stand_beside_the_manifest_and_are_bounded() {
        let plain = embed(&COMPONENT, "a", "b").unwrap();
        assert_eq!(extract_fixtures(&plain).unwrap(), None);
        let first = embed_fixtures(&plain, b"old").unwrap();
        let second = embed_fixtures(&first, b"new").unwrap();
        assert_eq!(extract_fixtures(&second).unwrap(), Some(&b"new"[..]));
        assert_eq!(extract(&second).unwrap().manifest, "a");
        assert_ne!(digest(&first), digest(&second));
        let long = vec![b' '; MAX_FIXTURES + 1];
        assert!(embed_fixtures(&plain, &long).is_err());
        let forced = with_section(&plain, FIXTURES_SECTION, &long).unwrap();
        let error = extract_fixtures(&forced).unwrap_err();
        assert!(error.detail().contains("at most 1048576"), "{error}");
        let mut twice = second.clone();
        twice.extend_from_slice(&second[plain.len()..]);
        let error = extract_fixtures(&twice).unwrap_err();
        assert!(error.detail().contains("appears twice"), "{error}");
    }

    #[test]
    fn strangers_are_refused_by_name() {
        let says = |bytes: &[u8]| {
            let error = extract(bytes).unwrap_err();
            assert_eq!(error.blame(), Blame::Plugin);
            error.detail().to_owned()
        };
        assert_eq!(says(b"hello"), "this is no WebAssembly component");
        assert_eq!(says(&MODULE), "this is a core module, not a component");
        assert_eq!(says(&COMPONENT), "there is no section wasmill:manifest");
        let good = embed(&COMPONENT, "a", "b").unwrap();
        assert!(says(&good[..good.len() - 1]).starts_with("the component is damaged"));
        let mut twice = good.clone();
        twice.extend_from_slice(&good[8..]);
        assert_eq!(says(&twice), "section wasmill:manifest appears twice");
        let mut text = COMPONENT.to_vec();
        let section = CustomSection {
            name: Cow::Borrowed(SECTION),
            data: Cow::Borrowed(b"{\"manifest\":1}"),
        };
        section.append_to_component(&mut text);
        assert!(says(&text).contains("does not read"));
    }

    #[test]
    fn digest_has_its_known_value_and_reads_back() {
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc").to_string(), text);
        assert_eq!(text.parse(), Ok(digest(b"abc")));
        assert!(text.to_uppercase().parse::<Digest>().is_err());
        assert!("sha256:+1".parse::<Digest>().is_err());
    }
}
