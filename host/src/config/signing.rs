//! `[[signing]]`: which plugins have to be signed, and by whom. It reads public keys and names; signatures
//! are checked by `upload`. There is no secret here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;

use super::types::SigningRule;
use crate::toml_check::{Section, names};

/// How a key is written.
const PREFIX: &str = "ed25519:";
const KEY_HINT: &str =
    "a public key as `wasmill plugin keygen` prints it: \"ed25519:\" and 44 characters";

/// All rules in the order of the file.
pub(super) fn read(root: &Section<'_>) -> Vec<SigningRule> {
    root.tables(
        "signing",
        "{ plugins = \"acme-*\", key = \"ed25519:…\", name = \"ci\" }",
    )
    .into_iter()
    .filter_map(rule)
    .collect()
}

fn rule(section: Section<'_>) -> Option<SigningRule> {
    let plugins = section
        .need_text("plugins", "\"acme-*\"")
        .and_then(|text| section.read(&text, "pattern", pattern));
    let key = section
        .need_text("key", "\"ed25519:…\"")
        .and_then(|text| section.read(&text, "key", key));
    section.need("name", "\"ci\"");
    let name = section.name("name", names::SIGNING_KEY);
    section.finish();
    Some(SigningRule {
        plugins: plugins?.value,
        name: name?.value.to_owned(),
        key: key?.value,
    })
}

fn pattern(text: &str) -> Result<String, &'static str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'*';
    let fits = !text.is_empty() && text.len() <= 63 && text.bytes().all(plain);
    fits.then(|| text.to_owned())
        .ok_or("a plugin's name, where * stands for any characters, e.g. \"acme-*\"")
}

fn key(text: &str) -> Result<[u8; 32], &'static str> {
    let bytes = text
        .strip_prefix(PREFIX)
        .and_then(|text| STANDARD.decode(text).ok())
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .ok_or(KEY_HINT)?;
    match VerifyingKey::from_bytes(&bytes) {
        Ok(key) if !key.is_weak() => Ok(bytes),
        _ => Err(KEY_HINT),
    }
}
