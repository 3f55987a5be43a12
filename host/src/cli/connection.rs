//! Which host a command talks to, and with which token: the arguments all of them share, checked before
//! anything is sent. It owns the rule that a token never travels in the open; it sends nothing itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::config::Secret;
use crate::error::Error;

use super::Failure;

/// The variable that holds a token; an argument would show it to every user of the machine.
const TOKEN: &str = "WASMILL_TOKEN";
/// Longest token that is read; real ones have some 50 characters.
const MAX_TOKEN: usize = 4096;

/// Which host, and how it is reached.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Which host (a token comes from WASMILL_TOKEN or --token-file)")]
pub(super) struct Connection {
    /// Address of a host's HTTP API.
    #[arg(
        long,
        env = "WASMILL_HOST",
        value_name = "URL",
        default_value = "http://127.0.0.1:8650"
    )]
    pub(super) host: String,
    /// File that holds the token, instead of WASMILL_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Certificates (PEM) that are trusted instead of the public ones, for hosts with a private CA.
    #[arg(long, env = "WASMILL_CA_FILE", value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// Send the token over plain HTTP to another machine, readable for everybody between.
    #[arg(long)]
    pub(super) insecure_token: bool,
}

/// A checked [`Connection`].
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// `http://host:port` or with `https` and a prefix, without a slash at the end.
    pub(super) base: String,
    /// Whether it is this machine.
    pub(super) loopback: bool,
    /// Sent with every request.
    pub(super) token: Option<Secret<String>>,
    /// PEM text of the trusted certificates.
    pub(super) ca: Option<Vec<u8>>,
}

impl Connection {
    /// The host at a loopback address, without a token.
    pub(super) fn local(port: u16) -> Self {
        Self {
            host: format!("http://127.0.0.1:{port}"),
            token_file: None,
            ca_file: None,
            insecure_token: false,
        }
    }

    /// Reads what it names and checks that it is safe.
    ///
    /// # Errors
    /// An address that is none, a token or certificate that cannot be read, a token that would travel in the
    /// open (refused).
    pub(super) fn check(&self) -> Result<Endpoint, Failure> {
        let (base, host, plain) = address(&self.host)?;
        let loopback = is_loopback(&host);
        let token = self.token()?;
        if token.is_some() && plain && !loopback && !self.insecure_token {
            let error = Error::config(
                format!("send a token to {base}"),
                "plain HTTP would show it to everybody between here and there",
            )
            .hint("use an https:// address; --insecure-token sends it all the same");
            return Err(Failure::Refused(error));
        }
        let ca = match &self.ca_file {
            Some(path) => Some(read(path, "the certificates")?),
            None => None,
        };
        Ok(Endpoint {
            base,
            loopback,
            token,
            ca,
        })
    }

    fn token(&self) -> Result<Option<Secret<String>>, Error> {
        let (text, from) = match &self.token_file {
            Some(path) => {
                let bytes = read(path, "the token")?;
                let text = String::from_utf8(bytes).map_err(|_| {
                    Error::config(
                        format!("read the token in {}", path.display()),
                        "it is no text",
                    )
                })?;
                (text, path.display().to_string())
            }
            None => match std::env::var(TOKEN) {
                Ok(text) if !text.is_empty() => (text, TOKEN.to_owned()),
                Ok(_) | Err(std::env::VarError::NotPresent) => return Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => (String::from('\0'), TOKEN.to_owned()),
            },
        };
        let token = text.trim();
        if token.is_empty()
            || token.len() > MAX_TOKEN
            || !token.bytes().all(|b| b.is_ascii_graphic())
        {
            // Never the text itself: it may be a token with one wrong character.
            return Err(Error::config(
                format!("read the token in {from}"),
                "it is not one line of visible characters",
            )
            .hint("put only the token there, as `wasmill token new` printed it"));
        }
        Ok(Some(Secret::new(token.to_owned())))
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        Error::config(format!("read {what} in {}", path.display()), error)
            .hint("name a file that exists and that you may read")
    })
}

/// The address without a slash at its end, its host, and whether it is plain HTTP.
fn address(text: &str) -> Result<(String, String, bool), Failure> {
    let wrong = |detail: &str| {
        let error = Error::config(format!("reach the host {:?}", without_login(text)), detail)
            .hint("give an address such as http://127.0.0.1:8650 or https://wasmill.example with --host or WASMILL_HOST");
        Failure::Usage(error)
    };
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| wrong("it has no http:// or https:// in front"))?;
    let plain = match scheme {
        "http" => true,
        "https" => false,
        _ => return Err(wrong("only http:// and https:// are spoken")),
    };
    if rest.contains('@') {
        return Err(wrong(
            "it holds a name or password; tokens come from WASMILL_TOKEN or --token-file",
        ));
    }
    if rest.contains(['?', '#']) {
        return Err(wrong("a query or fragment has no meaning here"));
    }
    let uri: http::Uri = text.parse().map_err(|_| wrong("it is no address"))?;
    let host = uri
        .host()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| wrong("it names no host"))?;
    Ok((
        text.trim_end_matches('/').to_owned(),
        host.to_owned(),
        plain,
    ))
}

/// What may be shown of an address that somebody put a password into.
fn without_login(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn with_token(host: &str, insecure_token: bool) -> Result<Endpoint, Failure> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"wm_secret\n").unwrap();
        Connection {
            host: host.to_owned(),
            token_file: Some(file.path().to_owned()),
            ca_file: None,
            insecure_token,
        }
        .check()
    }

    #[test]
    fn a_token_never_travels_in_the_open_by_itself() {
        for host in [
            "http://127.0.0.1:8650",
            "http://[::1]:1",
            "http://localhost:8650/",
            "https://far.example/x/",
        ] {
            let endpoint = with_token(host, false).unwrap();
            assert_eq!(endpoint.token.unwrap().expose(), "wm_secret");
            assert!(!endpoint.base.ends_with('/'));
        }
        for host in [
            "http://far.example:8650",
            "http://10.0.0.1:8650",
            "http://127.0.0.1.far.example",
        ] {
            assert!(
                matches!(with_token(host, false), Err(Failure::Refused(_))),
                "{host}"
            );
            assert!(with_token(host, true).is_ok(), "{host}");
        }
    }

    #[test]
    fn addresses_that_are_none_are_usage_errors_that_hide_passwords() {
        for host in [
            "far.example",
            "ftp://x",
            "http://",
            "http://me:hunter2@x",
            "http://x?y=1",
            "http://a b",
        ] {
            let Err(Failure::Usage(error)) = with_token(host, false) else {
                panic!("{host} was taken");
            };
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_token_is_one_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"two words\n").unwrap();
        let mut connection = Connection::local(1);
        connection.token_file = Some(file.path().to_owned());
        let Err(Failure::Error(error)) = connection.check() else {
            panic!("it was taken");
        };
        assert!(!error.to_string().contains("two words"), "{error}");
    }
}
