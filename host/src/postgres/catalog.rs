//! The users' tables against their routes: every difference at once, each with the DDL that removes it.
//!
//! It owns the reading of `pg_catalog` and what may differ: a table may have more columns than its route if
//! they fill themselves, and wider types that lose nothing; it may not lack, narrow or defer anything. It
//! changes nothing but a missing table of a route with `create = "if-missing"`.

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::manifest::{Create, Mode};
use crate::record::{Column, Type};

use super::ddl;
use super::failure;
use super::names::quote;
use super::plan::{RoutePlan, Shape};
use super::settings::PostgresRoute;
use super::table::{self, Table};
use super::{schema, wire};

/// What was found or done for one route's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReport {
    /// Name of the route.
    pub route: String,
    /// The table, quoted.
    pub table: String,
    /// Whether it was created just now.
    pub created: bool,
    /// What an operator should know and nobody has to change: triggers, further unique indexes, row security.
    pub notes: Vec<String>,
}

/// A difference and what removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    text: String,
    fix: String,
}

/// Whether tables that may be created are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// They are created.
    Create,
    /// They are passed over: nothing changes.
    PassOver,
}

/// Compares, creates where allowed.
///
/// # Errors
/// `Config` with all problems of all tables; the hint is the DDL.
pub(super) async fn ensure(
    client: &Client,
    plans: &[RoutePlan],
    missing: Missing,
) -> Result<Vec<TableReport>> {
    let mut reports = Vec::with_capacity(plans.len());
    let mut problems = Vec::new();
    for plan in plans {
        let route = &plan.route;
        let mut created = false;
        let mut table = table::read(client, route).await?;
        if table.is_none() && route.create == Create::IfMissing {
            if missing == Missing::PassOver {
                continue;
            }
            create(client, plan).await?;
            created = true;
            table = table::read(client, route).await?;
        }
        match table {
            None => problems.push(Problem {
                text: format!(
                    "route {:?}: table {} does not exist",
                    route.name, route.table
                ),
                fix: ddl::create_table(plan),
            }),
            Some(table) => {
                problems.extend(compare(plan, &table));
                reports.push(TableReport {
                    route: route.name.clone(),
                    table: route.table.to_string(),
                    created,
                    notes: notes(route, &table),
                });
            }
        }
    }
    if problems.is_empty() {
        return Ok(reports);
    }
    let texts: Vec<&str> = problems
        .iter()
        .map(|problem| problem.text.as_str())
        .collect();
    let fixes: Vec<&str> = problems
        .iter()
        .map(|problem| problem.fix.as_str())
        .filter(|fix| !fix.is_empty())
        .collect();
    let hint = if fixes.is_empty() {
        "bind the route to another table".to_owned()
    } else {
        format!("run this, or change the routes:\n{}", fixes.join("\n"))
    };
    Err(Error::config("compare routes with tables in postgres", texts.join("; ")).hint(hint))
}

/// Creates a route's table, one host at a time.
async fn create(client: &Client, plan: &RoutePlan) -> Result<()> {
    let route = &plan.route;
    let what = format!("create table {} in postgres", route.table);
    let failed = |error: tokio_postgres::Error| {
        let hint = format!("let a user who may run:\n{}", ddl::create_table(plan));
        failure::error(what.clone(), &error).hint(hint)
    };
    client
        .batch_execute(&format!(
            "BEGIN; SELECT pg_catalog.pg_advisory_xact_lock({})",
            schema::LOCK
        ))
        .await
        .map_err(failed)?;
    let schema: bool = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text)",
            &[&route.table.schema()],
        )
        .await
        .map_err(failed)?
        .get(0);
    if !schema {
        client
            .batch_execute(&format!("CREATE SCHEMA {}", quote(route.table.schema())))
            .await
            .map_err(failed)?;
    }
    client
        .batch_execute(&ddl::create_table(plan))
        .await
        .map_err(failed)?;
    client.batch_execute("COMMIT").await.map_err(failed)?;
    tracing::info!(table = %route.table, route = route.name, "created table in postgres");
    Ok(())
}

/// Every difference that would make a flight fail, or break a promise.
fn compare(plan: &RoutePlan, table: &Table) -> Vec<Problem> {
    let route = &plan.route;
    let mut problems = Vec::new();
    let mut problem = |text: String, fix: String| {
        problems.push(Problem {
            text: format!("route {:?}, table {}: {text}", route.name, route.table),
            fix,
        });
    };
    if !matches!(table.kind.as_str(), "r" | "p") {
        problem(
            "it is not a table (a view, a sequence or a foreign table)".to_owned(),
            String::new(),
        );
        return problems;
    }
    if table.unlogged {
        problem(
            "it is unlogged: a crash of the server would empty it and keep the position".to_owned(),
            format!("ALTER TABLE {} SET LOGGED;", route.table),
        );
    }
    for column in &plan.columns {
        compare_column(plan, column, table, &mut problem);
    }
    for found in &table.columns {
        let known = plan.columns.iter().any(|column| column.name == found.name);
        if !known && found.not_null && !found.fills_itself && found.generated.is_none() {
            problem(
                format!(
                    "column {:?} is NOT NULL, has no default, and the route does not write it",
                    found.name
                ),
                ddl::alter_column(route, &found.name, "DROP NOT NULL"),
            );
        }
    }
    if route.mode == Mode::Upsert && !table.unique.contains(&sorted_key(route)) {
        problem(
            format!("no unique index on exactly the key ({})", ddl::key(route)),
            ddl::unique_index(route),
        );
    }
    for (name, fix) in &table.deferrable {
        problem(
            format!(
                "constraint {name:?} is deferrable: it could refuse a row at commit, after other sinks took it"
            ),
            fix.clone(),
        );
    }
    if !table.missing_grants.is_empty() {
        let grants = table.missing_grants.join(", ");
        problem(
            format!("the user lacks {grants}"),
            format!(
                "GRANT {grants} ON {} TO CURRENT_USER;  -- as its owner, with the host's user",
                route.table
            ),
        );
    }
    problems
}

fn compare_column(
    plan: &RoutePlan,
    column: &Column,
    table: &Table,
    problem: &mut impl FnMut(String, String),
) {
    let route = &plan.route;
    let Some(found) = table.columns.iter().find(|found| found.name == column.name) else {
        problem(
            format!("column {:?} is missing", column.name),
            ddl::add_column(route, column),
        );
        return;
    };
    if !fits(&column.ty, &found.ty, plan.shape) {
        problem(
            format!(
                "column {:?} is {}, the route needs {}",
                column.name,
                found.ty,
                wire::sql_name(&column.ty)
            ),
            ddl::set_type(route, column),
        );
    }
    if let Some(action) = found.generated {
        problem(
            format!(
                "column {:?} is generated and cannot be written",
                column.name
            ),
            ddl::alter_column(route, &column.name, action),
        );
    }
    if column.nullable && found.not_null {
        problem(
            format!(
                "column {:?} is NOT NULL, the route writes nulls",
                column.name
            ),
            ddl::alter_column(route, &column.name, "DROP NOT NULL"),
        );
    }
    let is_guard = route
        .guard
        .is_some_and(|guard| route.columns[guard].name == column.name);
    if is_guard && !found.not_null {
        problem(
            format!(
                "guard column {:?} takes nulls, which no value is newer than",
                column.name
            ),
            ddl::alter_column(route, &column.name, "SET NOT NULL"),
        );
    }
}

fn sorted_key(route: &PostgresRoute) -> Vec<String> {
    let mut key: Vec<String> = route
        .key
        .iter()
        .map(|index| route.columns[*index].name.clone())
        .collect();
    key.sort();
    key
}

/// Whether values of `ty` go into a column of the server's type `found` without loss. A row-wise route
/// converts nothing, so wider types do not do there.
fn fits(ty: &Type, found: &str, shape: Shape) -> bool {
    let exact = found == wire::sql_name(ty);
    match ty {
        Type::Text => {
            exact || found == "character varying" || found.starts_with("character varying(")
        }
        Type::Timestamp => exact || found == "timestamp without time zone",
        Type::Decimal { precision, scale } => {
            exact || found == "numeric" || wider(found, *precision, *scale)
        }
        Type::List(item) | Type::Set(item) => {
            found
                .strip_suffix("[]")
                .is_some_and(|element| match **item {
                    Type::Decimal { .. } => fits(item, element, shape),
                    _ => element == wire::sql_name(item),
                })
        }
        _ if shape == Shape::Rows => exact,
        Type::Int16 => exact || matches!(found, "integer" | "bigint"),
        Type::Int32 => exact || found == "bigint",
        Type::Float32 => exact || found == "double precision",
        Type::Json => exact || found == "json",
        _ => exact,
    }
}

/// Whether `numeric(p,s)` holds every decimal of this precision and scale.
fn wider(found: &str, precision: u8, scale: u8) -> bool {
    let parts = found
        .strip_prefix("numeric(")
        .and_then(|rest| rest.strip_suffix(')'));
    let Some((p, s)) = parts.and_then(|parts| parts.split_once(',')) else {
        return false;
    };
    match (p.trim().parse::<i32>(), s.trim().parse::<i32>()) {
        (Ok(p), Ok(s)) => s >= i32::from(scale) && p - s >= i32::from(precision) - i32::from(scale),
        _ => false,
    }
}

fn notes(route: &PostgresRoute, table: &Table) -> Vec<String> {
    let mut notes = Vec::new();
    for name in &table.triggers {
        notes.push(format!("trigger {name:?} runs in every flight: what it does counts towards its time, what it raises stops it"));
    }
    if let Some(name) = &route.deleted_at {
        notes.push(format!(
            "deleted rows stay, their time in {name:?}: readers take those WHERE {name:?} IS NULL"
        ));
    }
    let key = sorted_key(route);
    for index in table.unique.iter().filter(|index| **index != key) {
        notes.push(format!(
            "a unique index on ({}) beside the route's key: a row it refuses becomes a dead letter",
            index.join(", ")
        ));
    }
    for found in table
        .columns
        .iter()
        .filter(|found| found.generated.is_some())
    {
        notes.push(format!("column {:?} is generated", found.name));
    }
    if table.row_security {
        notes.push("row security is on: a row it refuses stops the pipeline".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn only_types_that_lose_nothing_fit() {
        let fits = |ty: &str, found: &str| super::fits(&ty.parse().unwrap(), found, Shape::Columns);
        for (ty, found, expected) in [
            ("int16", "bigint", true),
            ("int64", "integer", false),
            ("text", "character varying(10)", true),
            ("text", "character(10)", false),
            ("decimal(10,2)", "numeric", true),
            ("decimal(10,2)", "numeric(12,4)", true),
            ("decimal(10,2)", "numeric(10,4)", false),
            ("decimal(10,2)", "numeric(12,1)", false),
            ("list<int32>", "integer[]", true),
            ("list<int32>", "bigint[]", false),
            ("timestamp", "timestamp without time zone", true),
            ("json", "json", true),
            ("map<text,text>", "json", false),
        ] {
            assert_eq!(fits(ty, found), expected, "{ty} into {found}");
        }
        assert!(
            !super::fits(&Type::Int16, "bigint", Shape::Rows),
            "a row type converts nothing"
        );
    }
}
