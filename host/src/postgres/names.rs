//! Identifiers: [`TableName`] and quoting. Every identifier that reaches SQL passes through here: checked
//! once, quoted always, so no name is ever code.

use std::fmt;

use crate::error::Error;

/// Bytes the server keeps of an identifier (`NAMEDATALEN` − 1); longer ones would be cut silently.
const MAX_BYTES: usize = 63;

/// Schema of a table named without one; the session's `search_path` is pinned and never decides.
const DEFAULT_SCHEMA: &str = "public";

/// A table with its schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName {
    schema: String,
    table: String,
}

impl TableName {
    /// Parses `table` or `schema.table` (schema `public` when absent); case is kept as written.
    ///
    /// # Errors
    /// `Config` when a part is empty, longer than 63 bytes, or holds a quote, a point or a control character.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (schema, table) = text.split_once('.').unwrap_or((DEFAULT_SCHEMA, text));
        for part in [schema, table] {
            check(part).map_err(|detail| {
                Error::config(format!("postgres table name {text:?}"), detail)
                    .hint("write it as table or schema.table, without quotes")
            })?;
        }
        Ok(Self {
            schema: schema.to_owned(),
            table: table.to_owned(),
        })
    }

    /// The schema, unquoted.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The table, unquoted.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }
}

impl fmt::Display for TableName {
    /// Both parts quoted: fit for SQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quote(&self.schema), quote(&self.table))
    }
}

/// An identifier in quotes, fit for SQL.
pub(super) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A text in quotes, fit for SQL whatever the server thinks of backslashes.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Identifiers in quotes, with commas.
pub(super) fn quote_all<'a>(identifiers: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = identifiers.into_iter().map(quote).collect();
    quoted.join(", ")
}

/// Whether a name can be an identifier of ours.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(identifier: &str) -> Result<(), String> {
    if identifier.is_empty() {
        return Err("an empty identifier".to_owned());
    }
    if identifier.len() > MAX_BYTES {
        return Err(format!(
            "identifier {identifier:?} has {} bytes, the server keeps {MAX_BYTES}",
            identifier.len()
        ));
    }
    let strange = |c: char| c.is_control() || c == '"' || c == '.';
    if let Some(character) = identifier.chars().find(|c| strange(*c)) {
        return Err(format!("identifier {identifier:?} holds {character:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn names_are_quoted_and_have_a_schema() {
        assert_eq!(
            TableName::parse("quakes").unwrap().to_string(),
            r#""public"."quakes""#
        );
        assert_eq!(
            TableName::parse("Geo.Quakes").unwrap().to_string(),
            r#""Geo"."Quakes""#
        );
        assert_eq!(
            quote("a\"; drop table x; --"),
            "\"a\"\"; drop table x; --\""
        );
        assert_eq!(literal(r"a'; \' --"), r"E'a''; \\'' --'");
    }

    #[test]
    fn names_that_are_no_names_are_refused() {
        let long = "x".repeat(64);
        for text in ["", ".", "a.", ".b", "a.b.c", "a\"b", "a\0b", &long] {
            assert!(TableName::parse(text).is_err(), "{text:?}");
        }
    }
}
