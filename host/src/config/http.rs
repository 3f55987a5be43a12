//! `[http]`: where a host listens, who may do what, and how much a client may ask. Reads and checks, opens nothing.
//!
//! The rule that keeps a host safe by default: on a loopback address nobody needs a token; on any other one
//! tokens and TLS have to be there, or `insecure` has to name what is missing on purpose.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::check::Surroundings;
use crate::toml_check::{At, Entry, Problem, Section, names};

/// The port of the API.
const PORT: u16 = 8650;

/// The HTTP API of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Who may do what; empty: whoever reaches the address may do everything.
    pub tokens: Vec<TokenConfig>,
    /// How much a client may ask.
    pub limits: HttpLimits,
}

/// PEM files of a TLS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// A token as the config knows it: never the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// Whose it is, as the audit trail names it.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// Hash of the token.
    pub hash: TokenHash,
}

/// What a caller may do; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look.
    Read,
    /// Also pause, resume, roll back, plan, and read the audit trail.
    Operate,
    /// Also upload, deploy, promote and remove.
    Deploy,
}

impl Role {
    /// Every role with the word for it, in rising order.
    pub const ALL: [(&'static str, Self); 3] = [
        ("read", Self::Read),
        ("operate", Self::Operate),
        ("deploy", Self::Deploy),
    ];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Deploy => "deploy",
        })
    }
}

/// SHA-256 of a token's text. `Debug` shows that it is there, nothing else.
///
/// One round of SHA-256 is enough because tokens are 256 random bits (`wasmill token new`): there is nothing to
/// guess, so a slow hash would only slow down every request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:<hash>")
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How much a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Largest component that is taken, bytes (32 MiB).
    pub upload: u64,
    /// Connections at once (256).
    pub connections: usize,
    /// Requests a second of one client, a token or an address; twice as many at once (100).
    pub requests_per_second: u32,
    /// A client that sends (almost) nothing of its request for so long is cut (10 s).
    pub stall: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            upload: 32 << 20,
            connections: 256,
            requests_per_second: 100,
            stall: Duration::from_secs(10),
        }
    }
}

/// Reads `[http]`; absent means no API.
pub(super) fn read(root: &Section<'_>, around: &Surroundings<'_>) -> Option<HttpConfig> {
    let section = root.section("http")?;
    let written = section.entry("listen").is_some();
    let listen = listen(&section);
    let tls = section.section("tls").and_then(|tls| files(tls, around));
    let tokens = tokens(&section);
    let words = ["no-tokens", "no-tls"].map(|word| (word, word));
    let insecure = section.choices("insecure", &words);
    let limits = section.section("limits").map(limits).unwrap_or_default();
    // What could not be read was reported; whether the rest is safe is said once it can be.
    if listen.is_some() || !written {
        let open = listen.as_ref().filter(|at| !at.value.ip().is_loopback());
        let none =
            |found: &Entry<'_>| matches!(found.value.value, DeValue::Array(all) if all.is_empty());
        let some_tokens = section.entry("tokens").is_some_and(|found| !none(&found));
        let have = [some_tokens, section.has("tls")];
        is_safe(&section, open, have, &insecure);
    }
    section.finish();
    Some(HttpConfig {
        listen: listen.map_or_else(default_listen, |at| at.value),
        tls,
        tokens,
        limits,
    })
}

fn default_listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT)
}

fn listen(section: &Section<'_>) -> Option<At<SocketAddr>> {
    let text = section.text("listen")?;
    section.read(&text, "address", |text| {
        let text = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        text.parse::<SocketAddr>()
            .map_err(|_| "an IP address and a port, e.g. \"127.0.0.1:8650\" or \"0.0.0.0:8650\"")
    })
}

fn files(section: Section<'_>, around: &Surroundings<'_>) -> Option<TlsFiles> {
    let certificate = section.need_text("certificate", "\"FILE.pem\"");
    let key = section.need_text("key", "\"FILE.pem\"");
    section.finish();
    Some(TlsFiles {
        certificate: around.path(certificate?.value),
        key: around.path(key?.value),
    })
}

fn tokens(section: &Section<'_>) -> Vec<TokenConfig> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for one in section.tables(
        "tokens",
        "{ name = \"ci\", role = \"deploy\", hash = \"sha256:…\" }",
    ) {
        one.need("name", "\"ci\"");
        one.need("role", "\"read\", \"operate\" or \"deploy\"");
        one.need("hash", "what `wasmill token new` prints");
        if let Some(entry) = one.entry("hash") {
            one.hide(&entry);
        }
        let name = one.name("name", names::TOKEN);
        let role = one.choice("role", &Role::ALL);
        let hash = one.text("hash").and_then(|text| hash(&one, &text));
        one.finish();
        if let Some(name) = &name
            && !seen.insert(name.value)
        {
            section.report().add(
                Problem::at(
                    name.span.clone(),
                    format!("two tokens are called {:?}", name.value),
                )
                .label("a second time")
                .hint("the audit trail tells callers apart by it: choose another name"),
            );
        }
        if let (Some(name), Some(role), Some(hash)) = (name, role, hash) {
            let name = name.value.to_owned();
            all.push(TokenConfig {
                name,
                role: role.value,
                hash,
            });
        }
    }
    all
}

/// `sha256:` and 64 hex digits; the text is never shown, since it may be the token itself.
fn hash(section: &Section<'_>, text: &At<&str>) -> Option<TokenHash> {
    let found = text.value.strip_prefix("sha256:").and_then(unhex);
    if found.is_none() {
        section.report().add(
            Problem::at(text.span.clone(), "hash is no sha256: and 64 hex digits")
                .label("not a hash")
                .hint(
                    "`wasmill token new` prints the line; the token itself belongs to its holder",
                ),
        );
    }
    found.map(TokenHash)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(out)
}

fn limits(section: Section<'_>) -> HttpLimits {
    let default = HttpLimits::default();
    let upload = section.size("upload", 1 << 10..=1 << 30);
    let connections = section.integer("connections", 1..=65_536);
    let rate = section.integer("requests_per_second", 1..=1_000_000);
    let stall = section.duration("stall", Duration::from_secs(1)..=Duration::from_mins(10));
    section.finish();
    let count = connections.and_then(|found| usize::try_from(found.value).ok());
    let rate = rate.and_then(|found| u32::try_from(found.value).ok());
    HttpLimits {
        upload: upload.map_or(default.upload, |found| found.value),
        connections: count.unwrap_or(default.connections),
        requests_per_second: rate.unwrap_or(default.requests_per_second),
        stall: stall.map_or(default.stall, |found| found.value),
    }
}

/// Refuses an open address without tokens or TLS, and a word of `insecure` that says nothing true.
fn is_safe(
    section: &Section<'_>,
    open: Option<&At<SocketAddr>>,
    [tokens, tls]: [bool; 2],
    insecure: &[At<&str>],
) {
    let missing = [
        (
            "no-tokens",
            tokens,
            "tokens",
            "tokens = [{ name, role, hash }] as `wasmill token new` prints it",
        ),
        (
            "no-tls",
            tls,
            "TLS",
            "tls = { certificate = \"FILE.pem\", key = \"FILE.pem\" }",
        ),
    ];
    for (word, have, what, example) in missing {
        let said = insecure.iter().find(|said| said.value == word);
        let needed = open.filter(|_| !have);
        match (needed, said) {
            (Some(at), None) => section.report().add(
                Problem::at(
                    at.span.clone(),
                    format!("{} can be reached by others, without {what}", at.value),
                )
                .label(format!("no {what}"))
                .hint(format!(
                    "add {example}; or listen on 127.0.0.1; or say insecure = [{word:?}]"
                )),
            ),
            (None, Some(said)) => section.report().add(
                Problem::at(
                    said.span.clone(),
                    format!("insecure = [{word:?}] means nothing here"),
                )
                .label("never needed")
                .hint(format!(
                    "remove it: {}",
                    if have {
                        "what it gives up is there"
                    } else {
                        "nobody else reaches a loopback address"
                    }
                )),
            ),
            _ => {}
        }
    }
}
