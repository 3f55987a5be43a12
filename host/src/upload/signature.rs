//! Signatures of plugins: ed25519 (RFC 8032) over a domain string and the 32 bytes of the component's digest.
//! A signature says who stands behind a file; whether one is needed is the config's word (`[[signing]]`).
//! It never compiles or reads a component.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, VerifyingKey};

use super::keys::SecretKey;
use crate::config::SigningRule;
use crate::error::{Error, Result};
use crate::manifest::Digest;

/// What is signed before the digest, so that a signature means nothing elsewhere.
const DOMAIN: &[u8] = b"wasmill-plugin-v1\0";
const SIGN_HINT: &str =
    "sign it with `wasmill plugin sign FILE --key KEY`, and upload file and signature together";

/// A signature; prints as base64, the content of a `.sig` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl FromStr for Signature {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = STANDARD
            .decode(text.trim())
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| {
            Error::plugin(
                "read the plugin's signature",
                "it is not 64 bytes in base64",
            )
            .hint(SIGN_HINT)
        })
    }
}

/// Signs a component's digest.
#[must_use]
pub fn sign(digest: Digest, key: &SecretKey) -> Signature {
    Signature(key.0.sign(&message(digest)).to_bytes())
}

/// Checks that a plugin carries the signature it needs: by any key of the rules that cover its name. Returns
/// the name of that key; `None` where no rule covers the plugin, whatever it carries.
///
/// # Errors
/// Plugin: a rule covers it and it is not signed, or not by one of the keys.
pub fn verify(
    plugin: &str,
    digest: Digest,
    signature: Option<&str>,
    rules: &[SigningRule],
) -> Result<Option<String>> {
    let covering: Vec<&SigningRule> = rules.iter().filter(|rule| rule.covers(plugin)).collect();
    let Some(first) = covering.first() else {
        return Ok(None);
    };
    let what = || format!("check the signature of plugin {plugin:?}");
    let Some(text) = signature else {
        let detail = format!(
            "plugins named {:?} have to be signed ([[signing]]), and this one is not",
            first.plugins
        );
        return Err(Error::plugin(what(), detail).hint(SIGN_HINT));
    };
    let signature: Signature = text.parse()?;
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    let message = message(digest);
    for rule in &covering {
        let fits = VerifyingKey::from_bytes(&rule.key)
            .is_ok_and(|key| key.verify_strict(&message, &signature).is_ok());
        if fits {
            return Ok(Some(rule.name.clone()));
        }
    }
    let keys: Vec<&str> = covering.iter().map(|rule| rule.name.as_str()).collect();
    let detail = format!(
        "plugins named {:?} have to be signed by {}, and the signature is of another key or another file",
        first.plugins,
        keys.join(" or ")
    );
    Err(Error::plugin(what(), detail).hint(SIGN_HINT))
}

fn message(digest: Digest) -> Vec<u8> {
    [DOMAIN, digest.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::error::Blame;
    use crate::manifest::digest;

    fn rule(plugins: &str, name: &str, key: &SecretKey) -> SigningRule {
        SigningRule {
            plugins: plugins.to_owned(),
            name: name.to_owned(),
            key: key.public().0,
        }
    }

    #[test]
    fn a_covered_plugin_needs_a_signature_of_one_of_its_keys() {
        let [ci, boss, other] = [0; 3].map(|_| SecretKey::generate().unwrap());
        let rules = [
            rule("acme-*", "ci", &ci),
            rule("*", "boss", &boss),
            rule("x", "x", &other),
        ];
        let file = digest(b"component");
        let check = |plugin: &str, signature: Option<String>| {
            verify(plugin, file, signature.as_deref(), &rules)
        };
        let by = |key: &SecretKey| Some(sign(file, key).to_string());
        assert_eq!(check("acme-a", by(&ci)).unwrap().as_deref(), Some("ci"));
        assert_eq!(check("acme-a", by(&boss)).unwrap().as_deref(), Some("boss"));
        assert_eq!(check("other", by(&boss)).unwrap().as_deref(), Some("boss"));
        let foreign = Some(sign(digest(b"another"), &ci).to_string());
        for (plugin, signature, says) in [
            ("acme-a", None, "\"acme-*\" have to be signed"),
            ("acme-a", by(&other), "by ci or boss"),
            ("other", by(&ci), "by boss"),
            ("acme-a", foreign, "another file"),
            ("acme-a", Some("no base64".to_owned()), "64 bytes"),
            ("acme-a", Some(String::new()), "64 bytes"),
        ] {
            let error = check(plugin, signature).unwrap_err();
            assert!(error.detail().contains(says), "{says}: {error}");
            assert!(error.hint_text().unwrap().contains("wasmill plugin sign"));
            assert_eq!(error.blame(), Blame::Plugin);
        }
        assert_eq!(verify("a", file, None, &rules[2..]).unwrap(), None);
        assert_eq!(verify("a", file, Some("x"), &[]).unwrap(), None);
    }

    #[test]
    fn a_signature_of_the_bare_digest_means_nothing() {
        let key = SecretKey::generate().unwrap();
        let file = digest(b"component");
        let bare = Signature(key.0.sign(file.as_bytes()).to_bytes()).to_string();
        let rules = [rule("*", "ci", &key)];
        assert!(verify("a", file, Some(&bare), &rules).is_err());
        let text = format!("{}\n", sign(file, &key));
        assert!(verify("a", file, Some(&text), &rules).is_ok());
    }

    #[test]
    fn patterns_cover_whole_names() {
        let covers = |pattern: &str, plugin: &str| {
            SigningRule {
                plugins: pattern.to_owned(),
                name: String::new(),
                key: [0; 32],
            }
            .covers(plugin)
        };
        for (pattern, plugin) in [
            ("*", "a"),
            ("acme-*", "acme-"),
            ("acme-*", "acme-x"),
            ("*-x", "a-x"),
            ("a*b*c", "a-b-b-c"),
            ("a", "a"),
            ("a**", "a"),
        ] {
            assert!(covers(pattern, plugin), "{pattern} {plugin}");
        }
        for (pattern, plugin) in [
            ("acme-*", "acme"),
            ("a", "ab"),
            ("a", "ba"),
            ("ab*b", "ab"),
            ("a*b*c", "a-c"),
            ("*-x", "x"),
        ] {
            assert!(!covers(pattern, plugin), "{pattern} {plugin}");
        }
    }
}
