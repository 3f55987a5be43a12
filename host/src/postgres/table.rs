//! A table as it stands in `pg_catalog`: [`Table`]. It reads, judges nothing and changes nothing.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::error::Result;
use crate::manifest::Mode;

use super::failure;
use super::names::quote;
use super::settings::PostgresRoute;

/// A column of a table as it is.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) ty: String,
    pub(super) not_null: bool,
    /// Whether an insert may leave it out: a default, an identity or a generated value.
    pub(super) fills_itself: bool,
    /// What has to be done before an insert may name it, if anything.
    pub(super) generated: Option<&'static str>,
}

/// A table as it is.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) kind: String,
    pub(super) unlogged: bool,
    pub(super) columns: Vec<Found>,
    /// Columns of each unique index that an upsert can use, sorted by name.
    pub(super) unique: Vec<Vec<String>>,
    /// Name and what makes it immediate.
    pub(super) deferrable: Vec<(String, String)>,
    pub(super) triggers: Vec<String>,
    pub(super) row_security: bool,
    pub(super) missing_grants: Vec<String>,
}

/// Reads a route's table; `None` where there is none.
///
/// # Errors
/// As the server refuses.
pub(super) async fn read(client: &Client, route: &PostgresRoute) -> Result<Option<Table>> {
    let what = format!("read the definition of {} from postgres", route.table);
    let failed = |error: tokio_postgres::Error| failure::error(what.clone(), &error);
    let (schema, name) = (route.table.schema(), route.table.table());
    // With the types said here, and the last three at once: two answers of the server are waited for, not eight.
    let table = client
        .query_typed_opt(
            "SELECT c.oid, c.relkind::text, c.relpersistence = 'u', c.relrowsecurity, \
               pg_catalog.has_table_privilege(c.oid, 'INSERT'), pg_catalog.has_table_privilege(c.oid, 'SELECT'), \
               pg_catalog.has_table_privilege(c.oid, 'UPDATE'), pg_catalog.has_table_privilege(c.oid, 'DELETE') \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1::text AND c.relname = $2::text AND c.relkind NOT IN ('i', 'I', 'c', 't')",
            &[(&schema, Type::TEXT), (&name, Type::TEXT)],
        )
        .await
        .map_err(failed)?;
    let Some(table) = table else {
        return Ok(None);
    };
    let oid: u32 = table.get(0);
    let of_table = [(&oid as &(dyn ToSql + Sync), Type::OID)];
    let columns = client.query_typed(
            "SELECT attname::text, pg_catalog.format_type(atttypid, atttypmod), attnotnull, \
               atthasdef OR attidentity <> '', attgenerated <> '', attidentity = 'a' \
             FROM pg_catalog.pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped \
             ORDER BY attnum",
            &of_table,
        );
    let unique = client.query_typed(
            "SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_catalog.pg_index i \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) \
             WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid AND i.indimmediate \
               AND i.indpred IS NULL AND i.indexprs IS NULL GROUP BY i.indexrelid",
            &of_table,
        );
    let names = client.query_typed(
            "SELECT CASE contype WHEN 'f' THEN 'foreign' ELSE 'constraint' END, conname::text \
               FROM pg_catalog.pg_constraint WHERE conrelid = $1::oid AND condeferrable AND contype <> 't' \
             UNION ALL \
             SELECT 'deferrable', tgname::text FROM pg_catalog.pg_trigger \
               WHERE tgrelid = $1::oid AND NOT tgisinternal AND tgdeferrable \
             UNION ALL \
             SELECT 'trigger', tgname::text FROM pg_catalog.pg_trigger \
               WHERE tgrelid = $1::oid AND NOT tgisinternal AND NOT tgdeferrable ORDER BY 1, 2",
            &of_table,
        );
    let answers = futures_util::future::try_join3(columns, unique, names).await;
    let (columns, unique, names) = answers.map_err(failed)?;
    let mut deferrable = Vec::new();
    let mut triggers = Vec::new();
    for row in &names {
        let name: String = row.get(1);
        let quoted = quote(&name);
        let fix = match row.get(0) {
            "trigger" => {
                triggers.push(name);
                continue;
            }
            "deferrable" => format!(
                "DROP TRIGGER {quoted} ON {};  -- then create it again without DEFERRABLE",
                route.table
            ),
            "foreign" => format!(
                "ALTER TABLE {} ALTER CONSTRAINT {quoted} NOT DEFERRABLE;",
                route.table
            ),
            _ => format!(
                "ALTER TABLE {} DROP CONSTRAINT {quoted};  -- then add it again without DEFERRABLE",
                route.table
            ),
        };
        deferrable.push((name, fix));
    }
    let needed = ["INSERT", "SELECT", "UPDATE", "DELETE"];
    let needed = if route.mode == Mode::Append {
        &needed[..1]
    } else {
        &needed[..]
    };
    let denied = |at: usize| !table.get::<_, bool>(4 + at);
    Ok(Some(Table {
        kind: table.get(1),
        unlogged: table.get(2),
        row_security: table.get(3),
        missing_grants: (0..)
            .zip(needed)
            .filter(|(at, _)| denied(*at))
            .map(|(_, grant)| (*grant).to_owned())
            .collect(),
        columns: columns
            .iter()
            .map(|row| Found {
                name: row.get(0),
                ty: row.get(1),
                not_null: row.get(2),
                fills_itself: row.get(3),
                generated: match (row.get(4), row.get(5)) {
                    (true, _) => Some("DROP EXPRESSION"),
                    (_, true) => Some("SET GENERATED BY DEFAULT"),
                    _ => None,
                },
            })
            .collect(),
        unique: unique.iter().map(|row| row.get(0)).collect(),
        deferrable,
        triggers,
    }))
}
