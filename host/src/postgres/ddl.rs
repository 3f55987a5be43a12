//! DDL as text: what creates a route's table, what repairs one. Executed only where a route says
//! `create = "if-missing"` and the table is missing; else printed for a person.

use super::names::{quote, quote_all};
use super::plan::RoutePlan;
use super::settings::PostgresRoute;
use super::wire;
use crate::record::Column;

/// The statement that creates a route's table: a primary key for an upsert, a plain table for an append.
pub(super) fn create_table(plan: &RoutePlan) -> String {
    let route = &plan.route;
    let mut lines: Vec<String> = plan
        .columns
        .iter()
        .map(|column| format!("  {}", column_sql(column)))
        .collect();
    if !route.key.is_empty() {
        lines.push(format!("  PRIMARY KEY ({})", key(route)));
    }
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n{}\n);",
        route.table,
        lines.join(",\n")
    )
}

/// A column as it stands in a CREATE TABLE.
fn column_sql(column: &Column) -> String {
    let not_null = if column.nullable { "" } else { " NOT NULL" };
    format!(
        "{} {}{not_null}",
        quote(&column.name),
        wire::sql_name(&column.ty)
    )
}

/// The key's columns, quoted, in the key's order.
pub(super) fn key(route: &PostgresRoute) -> String {
    quote_all(
        route
            .key
            .iter()
            .map(|index| route.columns[*index].name.as_str()),
    )
}

/// Adds a missing column. It takes nulls where the route lets it, for a table that has rows already could not get it
/// otherwise.
pub(super) fn add_column(route: &PostgresRoute, column: &Column) -> String {
    let mut indices = route.key.iter().chain(&route.guard);
    let needed = indices.any(|index| route.columns[*index].name == column.name);
    let column = Column {
        nullable: column.nullable || !needed,
        ..column.clone()
    };
    format!(
        "ALTER TABLE {} ADD COLUMN {};",
        route.table,
        column_sql(&column)
    )
}

/// Gives a column the route's type.
pub(super) fn set_type(route: &PostgresRoute, column: &Column) -> String {
    let (name, ty) = (quote(&column.name), wire::sql_name(&column.ty));
    format!(
        "ALTER TABLE {} ALTER COLUMN {name} TYPE {ty} USING {name}::{ty};",
        route.table
    )
}

/// Changes one column by `action`, e.g. `DROP NOT NULL`.
pub(super) fn alter_column(route: &PostgresRoute, name: &str, action: &str) -> String {
    format!(
        "ALTER TABLE {} ALTER COLUMN {} {action};",
        route.table,
        quote(name)
    )
}

/// The unique index an upsert needs.
pub(super) fn unique_index(route: &PostgresRoute) -> String {
    format!("CREATE UNIQUE INDEX ON {} ({});", route.table, key(route))
}
