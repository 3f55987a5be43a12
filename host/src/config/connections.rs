//! `[kafka.NAME]`, `[postgres.NAME]` and `[cassandra.NAME]`: where things are and how to log in. Nothing
//! is connected here; a secret is hidden in findings before anything else is looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::check::Surroundings;
use super::types::{CassandraConnection, KafkaCluster, PostgresConnection, Secret};
use crate::toml_check::{At, Problem, Section, names};

/// The port of Cassandra's native protocol.
const CASSANDRA_PORT: u16 = 9042;

/// Kafka clusters by name.
pub(super) fn kafka(
    root: &Section<'_>,
    around: &Surroundings<'_>,
) -> BTreeMap<String, KafkaCluster> {
    let all = root.sections("kafka", names::CONNECTION);
    let read = all.into_iter().map(|(name, section)| {
        section.need("brokers", "\"HOST:9092\"");
        let brokers = endpoints(&section, "brokers", None);
        let security = security(&section, around);
        let range = Duration::from_secs(6)..=Duration::from_mins(30);
        let session_timeout = section.duration("session_timeout", range);
        section.finish();
        let cluster = KafkaCluster {
            brokers: brokers.join(","),
            security,
            session_timeout: session_timeout.map_or(Duration::from_secs(45), |found| found.value),
        };
        (name.value.to_owned(), cluster)
    });
    read.collect()
}

/// Postgres databases by name.
pub(super) fn postgres(
    root: &Section<'_>,
    around: &Surroundings<'_>,
) -> BTreeMap<String, PostgresConnection> {
    let all = root.sections("postgres", names::CONNECTION);
    let read = all.into_iter().map(|(name, section)| {
        let url = secret(&section, ["url", "url_env"], around);
        if url.is_none() && !section.has("url") && !section.has("url_env") {
            let shown = section.shown();
            section.report().add(
                section
                    .problem(format!("{shown} has neither url nor url_env"))
                    .hint("add url_env = \"DATABASE_URL\", or url = \"postgres://USER@HOST/DATABASE\""),
            );
        }
        if let Some(url) = &url {
            check_url(&section, url, around);
        }
        section.finish();
        let url = url.map_or_else(String::new, |url| url.value);
        (name.value.to_owned(), PostgresConnection { url: Secret::new(url) })
    });
    read.collect()
}

/// Refuses a url by which no database can be reached.
fn check_url(section: &Section<'_>, url: &At<String>, around: &Surroundings<'_>) {
    let scheme = url.value.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| !matches!(scheme, "postgres" | "postgresql")) {
        section.report().add(
            Problem::at(
                url.span.clone(),
                "the url is not one of a Postgres database",
            )
            .label("another scheme")
            .hint("it starts with \"postgres://\", or is \"host=… user=… dbname=…\""),
        );
    } else if let Err(error) = (around.postgres_url)(&url.value) {
        let what = format!("the url of {}: {}", section.shown(), error.detail());
        section.report().add(
            Problem::at(url.span.clone(), what)
                .label("cannot be used")
                .maybe_hint(error.hint_text().map(str::to_owned)),
        );
    }
}

/// Cassandra clusters by name.
pub(super) fn cassandra(
    root: &Section<'_>,
    around: &Surroundings<'_>,
) -> BTreeMap<String, CassandraConnection> {
    let all = root.sections("cassandra", names::CONNECTION);
    let read = all.into_iter().map(|(name, section)| {
        section.need("hosts", "[\"HOST\"]");
        section.need("keyspace", "\"NAME\"");
        let hosts = endpoints(&section, "hosts", Some(CASSANDRA_PORT));
        let keyspace = section.name("keyspace", names::KEYSPACE);
        let create_keyspace = section.integer("create_keyspace", 1..=1000);
        let login = login(&section, around);
        section.finish();
        let connection = CassandraConnection {
            hosts,
            keyspace: keyspace.map_or_else(String::new, |found| found.value.to_owned()),
            create_keyspace: create_keyspace.and_then(|found| u32::try_from(found.value).ok()),
            login,
        };
        (name.value.to_owned(), connection)
    });
    read.collect()
}

/// librdkafka's properties (<https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>).
fn security(section: &Section<'_>, around: &Surroundings<'_>) -> BTreeMap<String, Secret<String>> {
    let mut found = BTreeMap::new();
    let mut set = |property: &str, value: String| {
        found.insert(property.to_owned(), Secret::new(value));
    };
    let words = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"].map(|word| (word, word));
    let protocol = section.choice("security_protocol", &words);
    let protocol_read = protocol.is_some() || !section.has("security_protocol");
    let protocol = protocol.map_or("plaintext", |found| found.value);
    if protocol != "plaintext" {
        set("security.protocol", protocol.to_owned());
    }
    let words = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].map(|word| (word, word));
    if let Some(mechanism) = section.choice("sasl_mechanism", &words) {
        set("sasl.mechanism", mechanism.value.to_owned());
    }
    if let Some((user, password)) = login(section, around) {
        set("sasl.username", user);
        set("sasl.password", password.expose().clone());
    }
    let files = [
        ("ca_file", "ssl.ca.location"),
        ("certificate_file", "ssl.certificate.location"),
        ("key_file", "ssl.key.location"),
    ];
    for (key, property) in files {
        if let Some(file) = section.text(key) {
            set(property, around.path(file.value).display().to_string());
        }
    }
    if let Some(password) = secret(section, ["key_password", "key_password_env"], around) {
        set("ssl.key.password", password.value);
    }
    if protocol_read {
        keys_fit_protocol(section, protocol);
    }
    found
}

/// A key that the protocol never uses is a mistake: the connection would be less safe than it looks.
fn keys_fit_protocol(section: &Section<'_>, protocol: &'static str) {
    let sasl = [
        "sasl_mechanism",
        "username",
        "username_env",
        "password",
        "password_env",
    ];
    let tls = [
        "ca_file",
        "certificate_file",
        "key_file",
        "key_password",
        "key_password_env",
    ];
    let uses = |kind| match kind {
        "sasl" => protocol.starts_with("sasl"),
        _ => protocol.ends_with("ssl"),
    };
    let keys = sasl
        .map(|key| ("sasl", key))
        .into_iter()
        .chain(tls.map(|key| ("tls", key)));
    for (kind, key) in keys.filter(|(kind, _)| !uses(*kind)) {
        if let Some(entry) = section.entry(key) {
            let wanted = if kind == "sasl" {
                "sasl_ssl"
            } else {
                "ssl\" or \"sasl_ssl"
            };
            section.report().add(
                Problem::at(
                    entry.key.span,
                    format!("{key} means nothing with security_protocol {protocol:?}"),
                )
                .label("never used")
                .hint(format!(
                    "write security_protocol = \"{wanted}\", or remove {key}"
                )),
            );
        }
    }
    if protocol.starts_with("sasl") {
        section.need("sasl_mechanism", "\"SCRAM-SHA-512\"");
        let login = ["username", "username_env", "password", "password_env"];
        // One without the other is reported where both are read.
        if !login.iter().any(|key| section.has(key)) {
            section.need("username", "\"NAME\", and password_env = \"VARIABLE\"");
        }
    }
}

/// User and password, both or neither.
fn login(section: &Section<'_>, around: &Surroundings<'_>) -> Option<(String, Secret<String>)> {
    let user = secret(section, ["username", "username_env"], around);
    let password = secret(section, ["password", "password_env"], around);
    let written = |key: &str, env: &str| section.has(key) || section.has(env);
    match (
        written("username", "username_env"),
        written("password", "password_env"),
    ) {
        (true, false) => section.need("password_env", "\"VARIABLE\""),
        (false, true) => section.need("username", "\"NAME\""),
        _ => {}
    }
    Some((user?.value, Secret::new(password?.value)))
}

/// A value written here, or the environment variable that holds it; never both.
fn secret(
    section: &Section<'_>,
    [key, key_env]: [&'static str; 2],
    around: &Surroundings<'_>,
) -> Option<At<String>> {
    let here = section.entry(key);
    if let Some(entry) = here.as_ref().filter(|_| key != "username") {
        section.hide(entry);
    }
    let value = section.text(key).map(|found| found.map(str::to_owned));
    let variable = section.text(key_env);
    if here.is_some()
        && let Some(entry) = section.entry(key_env)
    {
        section.report().add(
            Problem::at(
                entry.key.span,
                format!("both {key} and {key_env} are written"),
            )
            .label("which of the two?")
            .hint(format!("remove {key}")),
        );
        return None;
    }
    let Some(variable) = variable else {
        return value.filter(|value| {
            let empty = value.value.is_empty();
            if empty {
                section.report().add(
                    Problem::at(value.span.clone(), format!("{key} is empty"))
                        .label("nothing here")
                        .hint(format!(
                            "write {key_env} = \"VARIABLE\" to take it from the environment"
                        )),
                );
            }
            !empty
        });
    };
    from_env(section, &variable, around).map(|value| At {
        value,
        span: variable.span.clone(),
    })
}

/// The value of an environment variable; reports when it is not set or empty.
pub(super) fn from_env(
    section: &Section<'_>,
    variable: &At<&str>,
    around: &Surroundings<'_>,
) -> Option<String> {
    let value = (around.env)(variable.value).filter(|value| !value.is_empty());
    if value.is_none() {
        section.report().add(
            Problem::at(
                variable.span.clone(),
                format!("environment variable {:?} is not set", variable.value),
            )
            .label("not set, or empty")
            .hint(format!(
                "export {}=… before starting the host",
                variable.value
            )),
        );
    }
    value
}

/// `"a:1,b:2"` or `["a:1", "b:2"]`; with a default port the port may be left out.
fn endpoints(section: &Section<'_>, key: &'static str, port: Option<u16>) -> Vec<String> {
    let texts = match section.entry(key).map(|entry| entry.value.value) {
        Some(DeValue::String(_)) => section.text(key).into_iter().flat_map(split).collect(),
        _ => section.texts(key),
    };
    if texts.is_empty()
        && let Some(entry) = section.entry(key)
        && matches!(entry.value.value, DeValue::Array(items) if items.is_empty())
    {
        section.report().add(
            Problem::at(entry.value.span, format!("{key} is empty"))
                .label("at least one")
                .hint("write \"HOST:PORT\""),
        );
    }
    let mut all = Vec::new();
    for text in texts {
        match endpoint(text.value, port) {
            Some(endpoint) => all.push(endpoint),
            None => section.report().add(
                Problem::at(
                    text.span.clone(),
                    format!("{:?} is no host and port", text.value),
                )
                .label("not an address")
                .hint("write \"HOST:PORT\", e.g. \"localhost:9092\""),
            ),
        }
    }
    all
}

fn split(text: At<&str>) -> impl Iterator<Item = At<&str>> {
    let span = text.span.clone();
    let parts = text.value.split(',').map(str::trim);
    parts.map(move |value| At {
        value,
        span: span.clone(),
    })
}

fn endpoint(text: &str, port: Option<u16>) -> Option<String> {
    // The last colon, unless it is one inside the brackets of an IPv6 address.
    let (host, written) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = match written {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => port?,
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let fits = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(allowed),
    };
    fits.then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        assert_eq!(endpoint("a:1", None).as_deref(), Some("a:1"));
        assert_eq!(endpoint("a", Some(9042)).as_deref(), Some("a:9042"));
        assert_eq!(endpoint("[::1]", Some(9042)).as_deref(), Some("[::1]:9042"));
        assert_eq!(endpoint("[::1]:7", None).as_deref(), Some("[::1]:7"));
        for text in [
            "a",
            "",
            ":1",
            "a:",
            "a:0",
            "a:99999",
            "a b:1",
            "http://a:1",
            "::1:7",
        ] {
            assert_eq!(endpoint(text, None), None, "{text}");
        }
    }
}
