//! Names of keyspaces, tables and columns: checked once, quoted always.
//!
//! Nothing reaches a statement's text unless it went through here.

use std::fmt;

use crate::error::{Error, Result};

/// Greatest length of a keyspace or table name (Cassandra: `SchemaConstants.NAME_LENGTH`).
const NAME_LENGTH: usize = 48;
/// Greatest length of a column name that every tool shows whole; Cassandra itself allows 64 KiB.
const COLUMN_LENGTH: usize = 222;

/// A table with its keyspace; prints as quoted CQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName {
    keyspace: String,
    table: String,
}

impl TableName {
    /// Parses `table` or `keyspace.table`; without a keyspace, `default_keyspace` is meant.
    ///
    /// # Errors
    /// `Config` for a name that is not letters, digits and underscores, or is too long.
    pub fn parse(text: &str, default_keyspace: &str) -> Result<Self> {
        let (keyspace, table) = text.split_once('.').unwrap_or((default_keyspace, text));
        check("keyspace", keyspace, NAME_LENGTH)?;
        check("table", table, NAME_LENGTH)?;
        Ok(Self {
            keyspace: keyspace.to_owned(),
            table: table.to_owned(),
        })
    }

    /// The keyspace, unquoted.
    #[must_use]
    pub fn keyspace(&self) -> &str {
        &self.keyspace
    }

    /// The table, unquoted.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\".\"{}\"", self.keyspace, self.table)
    }
}

/// A checked keyspace name, quoted.
///
/// # Errors
/// As [`TableName::parse`].
pub(super) fn keyspace(name: &str) -> Result<String> {
    check("keyspace", name, NAME_LENGTH)?;
    Ok(format!("\"{name}\""))
}

/// A checked column name, quoted.
///
/// # Errors
/// As [`TableName::parse`].
pub(super) fn column(name: &str) -> Result<String> {
    check("column", name, COLUMN_LENGTH)?;
    Ok(format!("\"{name}\""))
}

fn check(kind: &str, name: &str, length: usize) -> Result<()> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let starts = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic());
    if plain && starts && name.len() <= length {
        return Ok(());
    }
    Err(Error::config(
        format!("{kind} name {name:?}"),
        format!("is not 1 to {length} letters, digits and underscores beginning with a letter"),
    )
    .hint(format!("give the {kind} a plain name")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn names_are_split_checked_and_quoted() {
        let name = TableName::parse("quakes", "geo").unwrap();
        assert_eq!(name.to_string(), "\"geo\".\"quakes\"");
        assert_eq!(
            TableName::parse("a.B", "geo").unwrap().to_string(),
            "\"a\".\"B\""
        );
        for bad in ["", "a.b.c", "1a", "a\"b", "a b", "a;", ".a", "a.", "_a"] {
            assert!(TableName::parse(bad, "geo").is_err(), "{bad:?}");
        }
        assert!(TableName::parse(&"a".repeat(49), "geo").is_err());
        assert!(column("x\" , y").is_err());
    }
}
