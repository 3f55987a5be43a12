//! Who is calling and what they may do: bearer tokens with roles, and on a host without tokens the guard against
//! web pages that reach for it (DNS rebinding, cross-site requests). It owns no clock and no socket.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Uri};
use sha2::{Digest as _, Sha256};

use super::problem::Trouble;
use crate::config::{HttpConfig, Role, TokenConfig, TokenHash};
use crate::error::Error;
use crate::toml_check::names;

/// How a token begins, so that a leaked one is found by a search.
const PREFIX: &str = "wasmill_";

/// A new token: 256 random bits. It is shown once; the config keeps its hash.
///
/// # Errors
/// The operating system has no randomness to give.
pub fn new_token() -> Result<String, Error> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random
        .fill(&mut bytes)
        .map_err(|_| Error::outside("make a token", "the system's random numbers failed"))?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// The hash of a token's text, as the config keeps it.
#[must_use]
pub fn hash_token(token: &str) -> TokenHash {
    TokenHash(Sha256::digest(token.as_bytes()).into())
}

/// Whether a token's holder can be called so.
#[must_use]
pub fn is_token_name(name: &str) -> bool {
    names::TOKEN.fits(name)
}

/// Somebody who may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// A token's name, or `local`.
    pub(super) name: String,
    pub(super) role: Role,
}

/// Who may do what.
#[derive(Debug)]
pub(super) struct Access {
    tokens: Vec<TokenConfig>,
    /// Whether only this machine reaches the address.
    loopback: bool,
}

impl Access {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self {
            tokens: config.tokens.clone(),
            loopback: config.listen.ip().is_loopback(),
        }
    }

    /// Refuses what a web page made a browser send: without tokens, being able to reach the address is all it
    /// takes, and a browser on this machine can.
    pub(super) fn guard(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Trouble> {
        if !self.tokens.is_empty() {
            return Ok(());
        }
        let host = headers.get(HOST).map(|host| host.to_str().unwrap_or(""));
        let named = uri.authority().map(http::uri::Authority::as_str).or(host);
        let both = [named, host];
        if self.loopback && !both.iter().all(|name| name.is_some_and(is_loopback)) {
            let detail =
                "the Host header does not name this machine, as when a web page reaches for it";
            return Err(Trouble::forbidden("foreign-host", detail)
                .hint("ask by 127.0.0.1, [::1] or localhost; or give the host tokens"));
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let own = |origin: &http::HeaderValue| {
            let name = origin.to_str().ok().and_then(|text| text.split_once("://"));
            name.is_some_and(|(_, name)| is_loopback(name) || Some(name) == host)
        };
        if !origins.all(own) {
            return Err(Trouble::forbidden(
                "foreign-origin",
                "the Origin header names another site",
            )
            .hint("give the host tokens to use it from web pages"));
        }
        Ok(())
    }

    /// Who is calling.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Trouble> {
        if self.tokens.is_empty() {
            return Ok(Caller {
                name: "local".to_owned(),
                role: Role::Deploy,
            });
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(Trouble::unauthorized(
                "token-missing",
                "there is no Authorization header",
            ));
        };
        let token = value.to_str().ok().and_then(|text| text.split_once(' '));
        let Some((_, token)) = token.filter(|(word, _)| word.eq_ignore_ascii_case("bearer")) else {
            let detail = "the Authorization header is not `Bearer TOKEN`";
            return Err(Trouble::unauthorized("token-scheme", detail));
        };
        let hash = hash_token(token.trim());
        // Every hash is looked at, whole, so that the time says nothing about any of them.
        let mut found = None;
        for known in &self.tokens {
            if equal(&known.hash, &hash) {
                found = Some(known);
            }
        }
        let known = found.ok_or_else(|| {
            Trouble::unauthorized("token-unknown", "the token is none of this host's")
        })?;
        Ok(Caller {
            name: known.name.clone(),
            role: known.role,
        })
    }
}

/// Compares all bytes, whatever they are.
fn equal(a: &TokenHash, b: &TokenHash) -> bool {
    let difference = a.0.iter().zip(&b.0).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Whether `name`, `name:port`, `[::1]:port` is this machine by its loopback name or address.
fn is_loopback(text: &str) -> bool {
    let name = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, port)) if port.is_empty() || port.starts_with(':') => inside,
        Some(_) => return false,
        None => text.split_once(':').map_or(text, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn loopback_names_and_lookalikes() {
        for name in [
            "localhost",
            "LOCALHOST:8650",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]",
            "[::1]:8650",
        ] {
            assert!(is_loopback(name), "{name}");
        }
        for name in [
            "",
            "evil.example",
            "localhost.evil.example:80",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "[::1]evil",
            "::1",
            "[::2]:1",
        ] {
            assert!(!is_loopback(name), "{name}");
        }
    }

    #[test]
    fn tokens_are_long_random_and_known_by_their_hash_only() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + 43);
        assert!(equal(&hash_token(&one), &hash_token(&one)));
        assert!(!equal(&hash_token(&one), &hash_token(&other)));
        assert_eq!(
            hash_token("abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
