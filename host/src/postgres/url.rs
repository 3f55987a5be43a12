//! The url of a database: read, and refused before anything connects. Nothing of it is ever shown: it holds a password,
//! and a word that nobody knows may be a part of one.

use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use crate::error::{Error, Result};

/// What is read, for a person.
const WHAT: &str = "postgres url";

/// Parameters that a url may have: those of the driver.
const KNOWN: &str = "host, hostaddr, port, user, password, dbname, application_name, options, connect_timeout, \
                     tcp_user_timeout, keepalives, keepalives_idle, keepalives_interval, keepalives_retries, \
                     target_session_attrs, load_balance_hosts, channel_binding and sslmode";

/// Parameters of libpq that ask for TLS (<https://www.postgresql.org/docs/current/libpq-connect.html>).
const OF_TLS: [&str; 12] = [
    "requiressl",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
];

/// Whether a url can be used; connects to nothing.
///
/// # Errors
/// `Config` when it does not parse, has a parameter that is not known, names no host or as many ports as hosts, or asks
/// for TLS.
pub fn check_url(url: &str) -> Result<()> {
    read(url).map(drop)
}

/// Reads a url.
///
/// # Errors
/// As [`check_url`].
pub(super) fn read(url: &str) -> Result<Config> {
    // The driver knows no such mode.
    if url.contains("sslmode=verify-") {
        return Err(no_tls());
    }
    let config = Config::from_str(url).map_err(|error| unread(&error))?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(no_tls());
    }
    let (names, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    if names.max(addresses) == 0 {
        return Err(Error::config(WHAT, "it names no host").hint("add the host of the server"));
    }
    let ports = config.get_ports().len();
    let differ = |what: &str, one: usize, hosts: usize| {
        let detail = format!("it names {one} {what} and {hosts} hosts");
        Error::config(WHAT, detail).hint(format!("write one for each host, or leave {what} out"))
    };
    if names > 0 && addresses > 0 && names != addresses {
        return Err(differ("hostaddrs", addresses, names));
    }
    if ports > 1 && ports != names.max(addresses) {
        return Err(differ("ports", ports, names.max(addresses)));
    }
    Ok(config)
}

/// Why a url does not parse.
fn unread(error: &tokio_postgres::Error) -> Error {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let cause = cause.unwrap_or_default();
    if let Some(unknown) = cause.strip_prefix("unknown option ") {
        if OF_TLS.contains(&unknown.trim_matches('`')) {
            return no_tls();
        }
        return Error::config(WHAT, "it has a parameter that is not known here").hint(format!(
            "the parameters are {KNOWN}; a space or an & within a password has to be quoted or percent-encoded"
        ));
    }
    // It names an option of the driver's own.
    let invalid = Some(cause).filter(|cause| cause.starts_with("invalid value for option"));
    let detail = invalid.unwrap_or_else(|| "it does not parse".to_owned());
    Error::config(WHAT, detail).hint(
        "write postgres://user:password@host:port/database (with special characters percent-encoded), or \
         host=… user=… password=… dbname=…",
    )
}

fn no_tls() -> Error {
    Error::config(WHAT, "it asks for TLS, which this build does not have yet").hint(
        "reach the server over a private network or a local TLS tunnel, with sslmode=prefer or disable",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn refused(url: &str) -> Error {
        let error = check_url(url).unwrap_err();
        assert!(error.hint_text().is_some(), "{error}");
        error
    }

    #[test]
    fn urls_that_ask_for_tls_are_refused() {
        for url in [
            "postgres://u:secret@h/db?sslmode=require",
            "host=h user=u sslmode=verify-full",
            "host=h user=u sslrootcert=ca.pem",
        ] {
            let error = refused(url);
            assert!(error.detail().contains("TLS"), "{error}");
        }
    }

    #[test]
    fn a_url_that_does_not_parse_is_not_shown() {
        for url in [
            "host=h password=to p-secret",
            "host=h password=to p-secret=x",
            "postgres://u:p-secret@h:port:1/db",
            "postgres://u:p@p-secret&p-secret=1@h/db?p-secret=1",
            "p-secret",
        ] {
            let error = refused(url);
            assert!(!format!("{error:?}").contains("p-secret"), "{error:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (url, says) in [
            ("user=u", "no host"),
            (
                "postgres://u@h/db?sslmod=disable",
                "parameter that is not known",
            ),
            (
                "postgres://u@h/db?client_encoding=utf8",
                "parameter that is not known",
            ),
            ("postgres://u@h:54321x/db", "`port`"),
            ("postgres://u@h/db?sslmode=allow", "`sslmode`"),
            ("host=a,b,c port=1,2", "2 ports and 3 hosts"),
            ("host=a,b hostaddr=10.0.0.1", "1 hostaddrs and 2 hosts"),
        ] {
            let error = refused(url);
            assert!(error.detail().contains(says), "{url}: {error}");
        }
        for url in [
            "postgres://u:p%40ss@h:5433/db?connect_timeout=3",
            "host=a,b port=5432 user=u",
            "postgresql://u@%2Frun%2Fpostgresql/db",
            "host=/run/postgresql dbname=x password='a b'",
            // As libpq: the database of the user's name.
            "postgres://u@h",
        ] {
            check_url(url).unwrap();
        }
    }
}
