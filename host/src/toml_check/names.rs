//! The names people choose, one rule each, and "did you mean".

/// What a name may look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// What is named, e.g. `plugin name`.
    pub(crate) what: &'static str,
    /// The rule in words.
    pub(crate) words: &'static str,
    fits: fn(&str) -> bool,
}

impl Rule {
    /// Whether a text follows the rule.
    pub(crate) fn fits(&self, text: &str) -> bool {
        (self.fits)(text)
    }
}

const DASHED: &str = "a letter a–z, then at most 62 of a–z, 0–9 and '-'";
const SNAKE: &str = "a letter a–z, then at most 62 of a–z, 0–9, '_' and '-'";
const IDENTIFIER: &str = "a letter or '_', then at most 62 letters, digits and '_'";

/// A plugin's name.
pub(crate) const PLUGIN: Rule = Rule {
    what: "plugin name",
    words: DASHED,
    fits: is_dashed,
};
/// A pipeline's name: its identity in every anchor and consumer group.
pub(crate) const PIPELINE: Rule = Rule {
    what: "pipeline name",
    words: DASHED,
    fits: is_dashed,
};
/// The name of a connection or cluster in the config.
pub(crate) const CONNECTION: Rule = Rule {
    what: "connection name",
    words: SNAKE,
    fits: is_snake,
};
/// What a signing key is called.
pub(crate) const SIGNING_KEY: Rule = Rule {
    what: "key name",
    words: SNAKE,
    fits: is_snake,
};
/// An input's name.
pub(crate) const INPUT: Rule = Rule {
    what: "input name",
    words: SNAKE,
    fits: is_snake,
};
/// A route's name.
pub(crate) const ROUTE: Rule = Rule {
    what: "route name",
    words: SNAKE,
    fits: is_snake,
};
/// A field's name.
pub(crate) const FIELD: Rule = Rule {
    what: "field name",
    words: IDENTIFIER,
    fits: is_identifier,
};
/// A column's name. 63 bytes is what Postgres keeps; ASCII is what Cassandra allows unquoted.
pub(crate) const COLUMN: Rule = Rule {
    what: "column name",
    words: IDENTIFIER,
    fits: is_identifier,
};
/// A configuration value's name.
pub(crate) const CONFIG: Rule = Rule {
    what: "config name",
    words: IDENTIFIER,
    fits: is_identifier,
};
/// `table` or `schema.table` of Postgres.
pub(crate) const POSTGRES_TABLE: Rule = Rule {
    what: "table",
    words: "\"table\" or \"schema.table\", each a letter or '_', then at most 62 letters, digits and '_'",
    fits: |text| dotted(text, is_identifier),
};
/// `table` or `keyspace.table` of Cassandra, whose names have at most 48 characters
/// (<https://cassandra.apache.org/doc/latest/cassandra/developing/cql/ddl.html>).
pub(crate) const CASSANDRA_TABLE: Rule = Rule {
    what: "table",
    words: "\"table\" or \"keyspace.table\", each a letter, then at most 47 letters, digits and '_'",
    fits: |text| dotted(text, is_cassandra_name),
};
/// A table of a database whose kind is not known here.
pub(crate) const ANY_TABLE: Rule = Rule {
    what: "table",
    words: "\"table\" or \"schema.table\", each a letter or '_', then at most 62 letters, digits and '_'",
    fits: |text| dotted(text, is_identifier),
};
/// A Cassandra keyspace.
pub(crate) const KEYSPACE: Rule = Rule {
    what: "keyspace",
    words: "a letter, then at most 47 letters, digits and '_'",
    fits: is_cassandra_name,
};
/// A Kafka topic (`org.apache.kafka.common.internals.Topic`).
pub(crate) const TOPIC: Rule = Rule {
    what: "topic",
    words: "at most 249 of a–z, A–Z, 0–9, '.', '_' and '-', and neither \".\" nor \"..\"",
    fits: is_topic,
};
/// A header of a message; `wasmill-` is the host's own.
pub(crate) const HEADER: Rule = Rule {
    what: "header name",
    words: "1 to 249 visible characters of ASCII, not starting with \"wasmill-\"",
    fits: |text| {
        (1..=249).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && !text.to_ascii_lowercase().starts_with("wasmill-")
    },
};
/// A host's id: part of group instance ids and transactional ids.
pub(crate) const HOST: Rule = Rule {
    what: "host id",
    words: "a letter or digit, then at most 62 letters, digits, '.', '_' and '-'",
    fits: is_host,
};

/// The name of a token's holder, as the audit trail shows it.
pub(crate) const TOKEN: Rule = Rule {
    what: "token name",
    words: SNAKE,
    fits: is_snake,
};

fn starts_and_goes_on(
    text: &str,
    first: fn(u8) -> bool,
    rest: fn(u8) -> bool,
    most: usize,
) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(first) && text.len() <= most && bytes.all(rest)
}

fn is_dashed(text: &str) -> bool {
    starts_and_goes_on(
        text,
        |b| b.is_ascii_lowercase(),
        |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-',
        63,
    )
}

fn is_snake(text: &str) -> bool {
    starts_and_goes_on(
        text,
        |b| b.is_ascii_lowercase(),
        |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_',
        63,
    )
}

fn is_identifier(text: &str) -> bool {
    starts_and_goes_on(
        text,
        |b| b.is_ascii_alphabetic() || b == b'_',
        |b| b.is_ascii_alphanumeric() || b == b'_',
        63,
    )
}

fn is_cassandra_name(text: &str) -> bool {
    starts_and_goes_on(
        text,
        |b| b.is_ascii_alphabetic(),
        |b| b.is_ascii_alphanumeric() || b == b'_',
        48,
    )
}

fn is_host(text: &str) -> bool {
    starts_and_goes_on(
        text,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'),
        63,
    )
}

fn is_topic(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !text.is_empty()
        && text.len() <= 249
        && text != "."
        && text != ".."
        && text.bytes().all(allowed)
}

fn dotted(text: &str, part: fn(&str) -> bool) -> bool {
    match text.split_once('.') {
        Some((schema, table)) => part(schema) && part(table),
        None => part(text),
    }
}

/// The candidate a person most likely meant: at most a third of the letters differ, swapped neighbours
/// count once.
pub(crate) fn closest<'c>(
    written: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // Longer texts are no typing mistakes, and the distance is quadratic.
    if written.len() > 100 {
        return None;
    }
    let lower = written.to_lowercase();
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 100)
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| {
            let letters = written.chars().count().max(candidate.chars().count());
            *distance <= (letters / 3).max(1) && *distance < letters
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// The hint for a name that is not there: the closest one, else all of them.
pub(crate) fn did_you_mean<'c>(
    written: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    let mut candidates: Vec<&str> = candidates.into_iter().collect();
    candidates.sort_unstable();
    candidates.dedup();
    if let Some(close) = closest(written, candidates.iter().copied()) {
        return Some(format!("did you mean \"{close}\"?"));
    }
    match candidates.as_slice() {
        [] => None,
        [only] => Some(format!("there is only \"{only}\"")),
        some if some.len() <= 12 => Some(format!("one of {}", some.join(", "))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_at_their_edges() {
        assert!(PLUGIN.fits("a") && PLUGIN.fits("quakes-2"));
        assert!(PLUGIN.fits(&"a".repeat(63)) && !PLUGIN.fits(&"a".repeat(64)));
        assert!(!PLUGIN.fits("") && !PLUGIN.fits("2a") && !PLUGIN.fits("a_b"));
        assert!(POSTGRES_TABLE.fits("geo.quakes") && !POSTGRES_TABLE.fits("a.b.c"));
        assert!(!POSTGRES_TABLE.fits("geo.") && !POSTGRES_TABLE.fits("quakes; drop table x"));
        assert!(!CASSANDRA_TABLE.fits("_x") && !CASSANDRA_TABLE.fits(&"a".repeat(49)));
        assert!(TOPIC.fits("prod.quakes.v3") && !TOPIC.fits("..") && !TOPIC.fits("a b"));
    }

    #[test]
    fn near_misses_are_found_and_strangers_are_not() {
        let keys = ["topic", "format", "key_format", "start"];
        assert_eq!(closest("topik", keys), Some("topic"));
        assert_eq!(closest("fromat", keys), Some("format"));
        assert_eq!(closest("keyformat", keys), Some("key_format"));
        assert_eq!(closest("banana", keys), None);
        assert_eq!(closest("x", ["y"]), None);
    }
}
